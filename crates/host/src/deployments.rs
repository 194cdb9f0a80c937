//! Workflows by name: deployed, replaced while the stream goes on, rolled back, stopped and started, and kept on disk.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::check::LoadError;
use crate::gate::Gate;
use crate::host::Host;
use crate::module::Module;
use crate::options::StartOptions;
use crate::restarts::{Failures, RestartOptions};
use crate::stats::Stats;
use crate::versions::{Record, Version, Versions, digest};
use crate::workflow::{State, Workflow};
use crate::world::World;

/// Longest name of a workflow, bytes: it is a label in logs and metrics, and a directory.
pub const NAME_BYTES_MAX: usize = 64;
/// Variables and bytes of the environment that a version is deployed with: it is kept in one small file.
const ENV_VARIABLES_MAX: usize = 64;
const ENV_BYTES_MAX: usize = 16 * 1024;

/// Where workflows are deployed: what a version of one needs of the outside.
pub trait Site: Send + Sync + 'static {
    /// The end of the stream that belongs to one version of a workflow: all of its lives share it. What is counted of it
    /// goes on when a [`Site::switch`] hands the stream on.
    type Feed: Feed;

    /// With what a workflow of that name is started that was deployed with that environment.
    ///
    /// # Errors
    /// Something that it is configured with is not there, in words.
    fn options(&self, name: &str, env: &BTreeMap<String, String>) -> Result<StartOptions, String>;

    /// One for a version of the workflow of that name, at which nothing arrives yet.
    fn feed(&self, name: &str) -> Self::Feed;

    /// In one moment, nothing arrives at `from` any more and everything at `to`, so that every event arrives at one of them.
    /// Answers the sequence number of the last event before.
    fn switch(&self, from: Option<&Self::Feed>, to: &Self::Feed) -> u64;

    /// Tries a module where it can do no harm, before it is compiled in this process: a compiler may be made to take hours,
    /// and all the memory there is. Blocks.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    fn try_out(&self, name: &str, module: &[u8]) -> Result<(), String>;
}

/// See [`Site::Feed`].
pub trait Feed: Send + Sync + 'static {
    /// The world of its next life.
    fn world(&self) -> Arc<dyn World>;

    /// Whether something waits that was not taken.
    fn has_waiting(&self) -> bool;
}

/// What can be set of all deployments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployOptions {
    /// How those are started again that fail.
    pub restarts: RestartOptions,
    /// How long a new version may take to its first poll; by default 10 s, which is long for reading some history. It is given
    /// up then, and the one before it goes on.
    pub first_poll_timeout: Duration,
    /// How long the version before may take for what waits for it, while the new one is held back; by default 2 s: 1,024 updates
    /// take milliseconds. What it has not taken then is lost, and counted in the log.
    pub drain_timeout: Duration,
    /// Versions that are kept of each workflow; by default 10, at least 1.
    pub versions_max: usize,
}

impl Default for DeployOptions {
    fn default() -> Self {
        Self {
            restarts: RestartOptions::default(),
            first_poll_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(2),
            versions_max: 10,
        }
    }
}

/// Why a workflow is not changed as was asked. All is as before then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeployError {
    /// There is none of that name, or no such version of it.
    #[error("{0}")]
    Unknown(String),
    /// The name, the environment or the module is not one, or it fails before its first poll.
    #[error("{0}")]
    Invalid(String),
    /// It is not to be changed so: it is configured, or is what was asked for already.
    #[error("{0}")]
    Conflict(String),
    /// It is being changed.
    #[error("workflow {0} is being changed by somebody else: try again when that is done")]
    Busy(String),
    /// The disk, or the host itself.
    #[error("{0}")]
    Failed(String),
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeployChange {
    /// Runs that module from now on, with that environment; in the place of another version, if there is one.
    Deploy {
        /// The module.
        module: Vec<u8>,
        /// Its environment, beside what the site adds to it.
        env: BTreeMap<String, String>,
    },
    /// Runs an earlier version: that one, or the one before the current one.
    Rollback(Option<u64>),
    /// Ends it until it is started.
    Stop,
    /// Runs it again, with everything begun anew.
    Start,
    /// Ends it, and forgets all of its versions.
    Remove,
}

/// A workflow as it is at one moment.
#[derive(Debug)]
pub struct Deployment<F> {
    /// Its name.
    pub name: String,
    /// The number of its version; `None` for a configured one.
    pub version: Option<u64>,
    /// All versions that are kept, by number; none of a configured one.
    pub versions: Vec<Version>,
    /// How it goes; `None` where it was not started.
    pub state: Option<State>,
    /// Why it was not started, though it should run.
    pub trouble: Option<String>,
    /// The sequence number of the last event that it does not see, since it was started or took over.
    pub sees_after: Option<u64>,
    /// What all versions have done so far since the host was started.
    pub stats: Stats,
    /// The end of the stream that it has, or had last.
    pub feed: Option<Arc<F>>,
}

/// Workflows by name, in a host. Cloning it is cheap: all clones are the same. See the crate's documentation for an example.
///
/// A change of a workflow is made as a whole or not at all, also where nobody waits for the answer any more, and one at a time.
/// What is deployed is kept in a directory, durable before it is answered: after a crash in the middle of a change either the
/// version before it runs or the one after it.
pub struct Deployments<S: Site>(Arc<Inner<S>>);

impl<S: Site> Clone for Deployments<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Inner<S: Site> {
    /// `None` once it is closed.
    host: RwLock<Option<Host>>,
    site: S,
    versions: Versions,
    options: DeployOptions,
    entries: Mutex<BTreeMap<String, Entry<S::Feed>>>,
    /// Names that are being changed.
    changing: Mutex<HashSet<String>>,
}

/// What there is of a workflow.
struct Entry<F> {
    source: Source,
    runs: Option<Instance<F>>,
    /// As [`Deployment::trouble`].
    trouble: Option<String>,
    /// What those did that ran before.
    past: Stats,
    /// The last one that there was.
    feed: Option<Arc<F>>,
}

/// Where a workflow comes from.
#[derive(Clone)]
enum Source {
    /// It was deployed, and is kept.
    Deployed(Record),
    /// What is kept of it can't be read, for this reason.
    Unreadable(String),
    /// Whoever starts the process says what it is.
    Configured { module: Module, env: BTreeMap<String, String> },
}

/// One version that runs, or has.
struct Instance<F> {
    workflow: Workflow,
    feed: Arc<F>,
    sees_after: u64,
}

/// A name is not being changed any more when it is dropped.
struct Turn<'a> {
    changing: &'a Mutex<HashSet<String>>,
    name: &'a str,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(self.changing).remove(self.name);
    }
}

impl<S: Site> Deployments<S> {
    /// Reads what was deployed before; nothing is started. `dir` is made when it is needed.
    ///
    /// # Errors
    /// The directory can't be read. A single workflow of which that is true is none: it is listed with the reason.
    pub fn open(host: Host, site: S, dir: PathBuf, options: DeployOptions) -> io::Result<Self> {
        let (versions, found) = Versions::open(dir)?;
        let entries = found.into_iter().map(|(name, record)| {
            let (source, trouble) = match record {
                Ok(record) => (Source::Deployed(record), None),
                Err(why) => (Source::Unreadable(why.clone()), Some(why)),
            };
            (name, Entry { source, runs: None, trouble, past: Stats::default(), feed: None })
        });
        Ok(Self(Arc::new(Inner {
            host: RwLock::new(Some(host)),
            site,
            versions,
            options,
            entries: Mutex::new(entries.collect()),
            changing: Mutex::default(),
        })))
    }

    /// Makes a workflow known that is not kept: it can be stopped and started, and nothing else. One of that name that was
    /// deployed is left alone on disk.
    pub fn configure(&self, name: &str, module: Module, env: BTreeMap<String, String>) {
        let source = Source::Configured { module, env };
        let entry = Entry { source, runs: None, trouble: None, past: Stats::default(), feed: None };
        if lock(&self.0.entries).insert(name.to_owned(), entry).is_some() {
            warn!(
                "workflow {name}: what was deployed under that name does not run, as the configuration has one of it"
            );
        }
    }

    /// Starts everything that is to run. What can't be started is listed with the reason. Compiles, and blocks.
    pub fn start_all(&self) {
        let names: Vec<String> = lock(&self.0.entries).keys().cloned().collect();
        for name in names {
            if let Err(error) = self.0.start_again(&name) {
                warn!("workflow {name}: not started: {error}");
                if let Some(entry) = lock(&self.0.entries).get_mut(&name) {
                    entry.trouble = Some(error);
                }
            }
        }
    }

    /// Everything there is, by name.
    pub fn list(&self) -> Vec<Deployment<S::Feed>> {
        lock(&self.0.entries).iter().map(|(name, entry)| entry.show(name)).collect()
    }

    /// One workflow.
    pub fn get(&self, name: &str) -> Option<Deployment<S::Feed>> {
        lock(&self.0.entries).get(name).map(|entry| entry.show(name))
    }

    /// Changes a workflow; how it is then, or was last.
    ///
    /// Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`DeployError`]; all is as before.
    ///
    /// # Cancel safety
    /// What was begun goes on when the future is dropped.
    pub async fn change(&self, name: &str, change: DeployChange) -> Result<Deployment<S::Feed>, DeployError> {
        let (inner, name) = (Arc::clone(&self.0), name.to_owned());
        let done = tokio::spawn(async move { inner.change(&name, change).await });
        done.await.map_err(|panicked| DeployError::Failed(panicked.to_string()))?
    }

    /// Stops all workflows and the host, as [`Host::close`] does. What was deployed starts again with the next one.
    pub fn close(&self) {
        let host = self.0.host.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(host) = host {
            host.close();
        }
        lock(&self.0.entries).clear();
    }
}

impl<F> Entry<F> {
    fn show(&self, name: &str) -> Deployment<F> {
        let (version, versions) = match &self.source {
            Source::Deployed(record) => (Some(record.current), record.versions.clone()),
            Source::Unreadable(_) | Source::Configured { .. } => (None, Vec::new()),
        };
        let runs = self.runs.as_ref();
        let mut stats = self.past.clone();
        if let Some(instance) = runs {
            stats.go_on(&instance.workflow.stats());
        }
        Deployment {
            name: name.to_owned(),
            version,
            versions,
            state: runs.map(|instance| instance.workflow.state()),
            trouble: self.trouble.clone(),
            sees_after: runs.map(|instance| instance.sees_after),
            stats,
            feed: self.feed.clone(),
        }
    }
}

impl<S: Site> Inner<S> {
    async fn change(self: &Arc<Self>, name: &str, change: DeployChange) -> Result<Deployment<S::Feed>, DeployError> {
        check_name(name).map_err(DeployError::Invalid)?;
        if !lock(&self.changing).insert(name.to_owned()) {
            return Err(DeployError::Busy(name.to_owned()));
        }
        let _turn = Turn { changing: &self.changing, name };
        let source = lock(&self.entries).get(name).map(|entry| entry.source.clone());
        match (change, source) {
            (DeployChange::Deploy { module, env }, source) => {
                let before = match source {
                    Some(source) => Some(deployed(name, source)?),
                    None => None,
                };
                check_env(&env).map_err(DeployError::Invalid)?;
                self.deploy(name, before, module, env).await?;
            }
            (_, None) => return Err(DeployError::Unknown(format!("there is no workflow {name}"))),
            (DeployChange::Rollback(to), Some(source)) => {
                self.rollback(name, deployed(name, source)?, to).await?;
            }
            (DeployChange::Start, Some(source)) => self.start(name, source).await?,
            (DeployChange::Stop, Some(source)) => self.stop(name, source).await?,
            (DeployChange::Remove, Some(source)) => return self.remove(name, source).await,
        }
        let entries = lock(&self.entries);
        let entry = entries.get(name).ok_or_else(|| DeployError::Failed("the host is closed".to_owned()))?;
        Ok(entry.show(name))
    }

    async fn deploy(
        self: &Arc<Self>,
        name: &str,
        before: Option<Record>,
        module: Vec<u8>,
        env: BTreeMap<String, String>,
    ) -> Result<(), DeployError> {
        let (module, compiled) = self
            .blocking(name, |inner, name| {
                inner.site.try_out(name, &module).map_err(DeployError::Invalid)?;
                let compiled = inner.compile(name, &module).map_err(DeployError::Invalid)?;
                Ok((module, compiled))
            })
            .await?;
        let fresh = self.bring_up(name, &compiled, &env).await?;
        let version = Version {
            number: before.as_ref().map_or(1, Record::next),
            bytes: module.len() as u64,
            sha256: digest(&module),
            deployed_micros: now_micros(),
            env,
        };
        let record = match before {
            None => Record::new(version.clone()),
            Some(mut record) => {
                record.current = version.number;
                record.runs = true;
                record.versions.push(version.clone());
                let too_many = record.versions.len().saturating_sub(self.options.versions_max.max(1));
                record.versions.drain(..too_many);
                record
            }
        };
        let kept = self
            .blocking(name, move |inner, name| {
                let kept =
                    inner.versions.put(name, &version, &module).and_then(|()| inner.versions.commit(name, &record));
                kept.map(|()| record).map_err(|error| DeployError::Failed(error.to_string()))
            })
            .await;
        self.take_over(name, kept.map(Source::Deployed), fresh).await
    }

    async fn rollback(self: &Arc<Self>, name: &str, mut record: Record, to: Option<u64>) -> Result<(), DeployError> {
        let numbers = || record.versions.iter().map(|version| version.number);
        let known = || numbers().map(|number| number.to_string()).collect::<Vec<_>>().join(", ");
        let number = match to {
            Some(number) => numbers().find(|known| *known == number),
            None => numbers().rfind(|number| *number < record.current),
        };
        let number = number.ok_or_else(|| {
            let what = to.map_or(format!("version before {}", record.current), |number| format!("version {number}"));
            DeployError::Unknown(format!("workflow {name} has no {what}: it has {}", known()))
        })?;
        if number == record.current && self.is_running(name) {
            return Err(DeployError::Conflict(format!("workflow {name} runs in version {number} already")));
        }
        (record.current, record.runs) = (number, true);
        let fresh = self.bring_up_kept(name, &record).await?;
        let kept = self.commit(name, record).await;
        self.take_over(name, kept, fresh).await
    }

    async fn start(self: &Arc<Self>, name: &str, source: Source) -> Result<(), DeployError> {
        if self.is_running(name) {
            return Err(DeployError::Conflict(format!("workflow {name} runs already")));
        }
        match source {
            Source::Configured { module, env } => {
                let fresh = self.bring_up(name, &module, &env).await?;
                self.take_over(name, Ok(Source::Configured { module, env }), fresh).await
            }
            other => {
                let mut record = deployed(name, other)?;
                let fresh = self.bring_up_kept(name, &record).await?;
                record.runs = true;
                let kept = self.commit(name, record).await;
                self.take_over(name, kept, fresh).await
            }
        }
    }

    async fn stop(self: &Arc<Self>, name: &str, source: Source) -> Result<(), DeployError> {
        if let Source::Deployed(mut record) = source {
            record.runs = false;
            let source = self.commit(name, record).await?;
            if let Some(entry) = lock(&self.entries).get_mut(name) {
                entry.source = source;
                entry.trouble = None;
            }
        }
        self.end(name).await;
        Ok(())
    }

    async fn remove(self: &Arc<Self>, name: &str, source: Source) -> Result<Deployment<S::Feed>, DeployError> {
        if let Source::Configured { .. } = source {
            return Err(configured(name));
        }
        self.blocking(name, |inner, name| {
            inner.versions.remove(name).map_err(|error| DeployError::Failed(error.to_string()))
        })
        .await?;
        self.end(name).await;
        let gone = lock(&self.entries).remove(name);
        info!("workflow {name}: removed");
        gone.map(|entry| entry.show(name)).ok_or_else(|| DeployError::Failed("the host is closed".to_owned()))
    }

    /// Stops what runs, and waits for that.
    async fn end(&self, name: &str) {
        let workflow = lock(&self.entries).get(name).and_then(|entry| Some(entry.runs.as_ref()?.workflow.clone()));
        if let Some(workflow) = workflow {
            workflow.stop();
            workflow.wait().await;
        }
    }

    fn is_running(&self, name: &str) -> bool {
        let entries = lock(&self.entries);
        let runs = entries.get(name).and_then(|entry| entry.runs.as_ref());
        runs.is_some_and(|instance| !instance.workflow.state().is_final())
    }

    async fn commit(self: &Arc<Self>, name: &str, record: Record) -> Result<Source, DeployError> {
        self.blocking(name, |inner, name| {
            let kept = inner.versions.commit(name, &record);
            kept.map(|()| Source::Deployed(record)).map_err(|error| DeployError::Failed(error.to_string()))
        })
        .await
    }

    async fn bring_up_kept(self: &Arc<Self>, name: &str, record: &Record) -> Result<Instance<S::Feed>, DeployError> {
        let version = record.version(record.current).expect("a record has its current version").clone();
        let (compiled, env) = self
            .blocking(name, |inner, name| {
                let compiled = inner.compile_kept(name, &version).map_err(DeployError::Failed)?;
                Ok((compiled, version.env))
            })
            .await?;
        self.bring_up(name, &compiled, &env).await
    }

    /// Starts a version and lets it run up to its first poll. Nothing arrives for it yet.
    async fn bring_up(
        &self,
        name: &str,
        module: &Module,
        env: &BTreeMap<String, String>,
    ) -> Result<Instance<S::Feed>, DeployError> {
        let instance = self.launch(name, module, env, Gate::shut()).map_err(DeployError::Invalid)?;
        let longest = self.options.first_poll_timeout;
        let came = tokio::time::timeout(longest, instance.workflow.first_poll()).await.is_ok();
        match instance.workflow.state() {
            State::Failed(failure) => Err(DeployError::Invalid(format!("it failed before its first poll: {failure}"))),
            State::Stopped => Err(DeployError::Failed("the host is closed".to_owned())),
            State::Running | State::Restarting(_) if !came => {
                instance.workflow.stop();
                instance.workflow.wait().await;
                let seconds = longest.as_secs_f64();
                Err(DeployError::Invalid(format!("it did not call `u_poll_handle` within {seconds} s of its start")))
            }
            State::Running | State::Restarting(_) | State::Done => Ok(instance),
        }
    }

    /// The stream goes on with a version that was brought up, if it is kept; the one before it takes what is its own, and
    /// ends.
    async fn take_over(
        &self,
        name: &str,
        kept: Result<Source, DeployError>,
        mut fresh: Instance<S::Feed>,
    ) -> Result<(), DeployError> {
        let source = match kept {
            Ok(source) => source,
            Err(error) => {
                fresh.workflow.stop();
                fresh.workflow.wait().await;
                return Err(error);
            }
        };
        let (before, from) = match lock(&self.entries).get(name) {
            Some(entry) => (entry.runs.as_ref().map(Instance::clone), entry.feed.clone()),
            None => (None, None),
        };
        fresh.sees_after = self.site.switch(from.as_deref(), &fresh.feed);
        if let Some(before) = &before {
            let took_all = before.workflow.drain(|| before.feed.has_waiting(), self.options.drain_timeout).await;
            if !took_all {
                warn!("workflow {name}: the version before has not taken all that waited for it in time; that is lost");
            }
        }
        match &source {
            Source::Deployed(Record { current, .. }) => {
                info!("workflow {name}: version {current} runs, and sees events after number {}", fresh.sees_after);
            }
            _ => info!("workflow {name}: runs, and sees events after number {}", fresh.sees_after),
        }
        let gate = Arc::clone(&fresh.workflow.gate);
        let mut entries = lock(&self.entries);
        let past = before.map_or_else(Stats::default, |before| before.workflow.stats());
        let entry = entries.entry(name.to_owned()).or_insert_with(|| Entry {
            source: source.clone(),
            runs: None,
            trouble: None,
            past: Stats::default(),
            feed: None,
        });
        entry.past.go_on(&past);
        entry.source = source;
        entry.trouble = None;
        entry.feed = Some(Arc::clone(&fresh.feed));
        entry.runs = Some(fresh);
        drop(entries);
        gate.let_through();
        Ok(())
    }

    /// Starts what is to run when the process starts, without waiting for it.
    fn start_again(&self, name: &str) -> Result<(), String> {
        let source = lock(&self.entries).get(name).map(|entry| entry.source.clone());
        let (module, env) = match source {
            Some(Source::Configured { module, env }) => (module, env),
            Some(Source::Deployed(record)) if record.runs => {
                let version = record.version(record.current).expect("a record has its current version");
                (self.compile_kept(name, version)?, version.env.clone())
            }
            Some(Source::Unreadable(why)) => return Err(why),
            Some(Source::Deployed(_)) | None => return Ok(()),
        };
        let mut instance = self.launch(name, &module, &env, Gate::open())?;
        instance.sees_after = self.site.switch(None, &instance.feed);
        info!("workflow {name}: started");
        if let Some(entry) = lock(&self.entries).get_mut(name) {
            entry.feed = Some(Arc::clone(&instance.feed));
            entry.runs = Some(instance);
        }
        Ok(())
    }

    fn launch(
        &self,
        name: &str,
        module: &Module,
        env: &BTreeMap<String, String>,
        gate: Gate,
    ) -> Result<Instance<S::Feed>, String> {
        let options = self.site.options(name, env)?;
        let feed = Arc::new(self.site.feed(name));
        let world = {
            let feed = Arc::clone(&feed);
            move || feed.world()
        };
        let failures = Failures::new(self.options.restarts.clone());
        let host = self.host.read().unwrap_or_else(PoisonError::into_inner);
        let host = host.as_ref().ok_or("the host is closed")?;
        let workflow = host.launch(module, options, world, Some(failures), gate);
        Ok(Instance { workflow, feed, sees_after: 0 })
    }

    fn compile(&self, name: &str, module: &[u8]) -> Result<Module, String> {
        let host = self.host.read().unwrap_or_else(PoisonError::into_inner);
        let host = host.as_ref().ok_or("the host is closed")?;
        host.compile(name, module).map_err(|error: LoadError| error.to_string())
    }

    fn compile_kept(&self, name: &str, version: &Version) -> Result<Module, String> {
        self.compile(name, &self.versions.module(name, version)?)
    }

    /// Does something that blocks.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        name: &str,
        work: impl FnOnce(&Self, &str) -> Result<T, DeployError> + Send + 'static,
    ) -> Result<T, DeployError> {
        let (inner, name) = (Arc::clone(self), name.to_owned());
        let done = spawn_blocking(move || work(&inner, &name)).await;
        done.map_err(|panicked| DeployError::Failed(panicked.to_string()))?
    }
}

impl<F> Clone for Instance<F> {
    fn clone(&self) -> Self {
        Self { workflow: self.workflow.clone(), feed: Arc::clone(&self.feed), sees_after: self.sees_after }
    }
}

/// What is kept of a workflow that may be changed.
fn deployed(name: &str, source: Source) -> Result<Record, DeployError> {
    match source {
        Source::Deployed(record) => Ok(record),
        Source::Unreadable(why) => {
            Err(DeployError::Failed(format!("{why}; bring the file back, or remove the workflow and deploy it again")))
        }
        Source::Configured { .. } => Err(configured(name)),
    }
}

fn configured(name: &str) -> DeployError {
    DeployError::Conflict(format!(
        "workflow {name} is configured with a file, which decides what it is: change that, or take it out of the \
         configuration"
    ))
}

/// Whether a workflow may have that name.
///
/// # Errors
/// Why not.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_word && !name.starts_with('.') && !name.is_empty() && name.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(format!("{name:?} is no workflow name: 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 - _ . are, but for a dot in front"))
}

fn check_env(env: &BTreeMap<String, String>) -> Result<(), String> {
    let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
    if env.len() > ENV_VARIABLES_MAX || bytes > ENV_BYTES_MAX {
        return Err(format!(
            "the environment has {} variables of {bytes} bytes: at most {ENV_VARIABLES_MAX} of {ENV_BYTES_MAX} are kept",
            env.len()
        ));
    }
    let wrong = env.iter().find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'));
    wrong.map_or(Ok(()), |(name, _)| {
        Err(format!("{name:?} is no environment variable: its name has no `=`, and neither name nor value a NUL"))
    })
}

fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// What is behind these locks is whole at every moment, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
