//! Workflows by name: deployed, replaced while the stream goes on, rolled back, stopped and started, and kept on disk.

mod change;
mod versions;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tracing::warn;

use crate::host::Host;
use crate::log::Log;
use crate::module::Module;
use crate::options::StartOptions;
use crate::restarts::RestartOptions;
use crate::stats::Stats;
use crate::workflow::{State, Workflow};
use crate::world::World;

use self::versions::{Record, Versions};
pub use self::versions::{Version, copy_deployments};

/// Longest name of a workflow, bytes: it is a label in logs and metrics, and a directory.
pub const NAME_BYTES_MAX: usize = 64;

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

    /// How much waits that was not taken.
    fn waiting(&self) -> usize;
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
    /// take milliseconds. What it has not taken then is lost, and the workflow's log says how much
    /// that was.
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
#[derive(Clone, PartialEq, Eq)]
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

/// Without the values of the environment.
impl fmt::Debug for DeployChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deploy { module, env } => {
                f.debug_struct("Deploy").field("bytes", &module.len()).field("env", &env.keys()).finish()
            }
            Self::Rollback(to) => f.debug_tuple("Rollback").field(to).finish(),
            Self::Stop => f.write_str("Stop"),
            Self::Start => f.write_str("Start"),
            Self::Remove => f.write_str("Remove"),
        }
    }
}

/// A workflow as it is at one moment.
#[derive(Debug)]
pub struct Deployment<F> {
    /// Its name.
    pub name: String,
    /// Whether it is a configured one, which can be stopped and started only.
    pub configured: bool,
    /// The number of its version; `None` for a configured one, and where what is kept can't be read.
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
    /// What all versions have logged since the host was started. It ends when the workflow is removed.
    pub log: Log,
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
    log: Log,
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
            let log = host.log(&name);
            let (source, trouble) = match record {
                Ok(record) => (Source::Deployed(record), None),
                Err(why) => (Source::Unreadable(why.clone()), Some(why)),
            };
            (name, Entry { source, runs: None, trouble, past: Stats::default(), feed: None, log })
        });
        let entries = entries.collect();
        Ok(Self(Arc::new(Inner {
            host: RwLock::new(Some(host)),
            site,
            versions,
            options,
            entries: Mutex::new(entries),
            changing: Mutex::default(),
        })))
    }

    /// Makes a workflow known that is not kept: it can be stopped and started, and nothing else. One of that name that was
    /// deployed is left alone on disk.
    pub fn configure(&self, name: &str, module: Module, env: BTreeMap<String, String>) {
        let source = Source::Configured { module, env };
        let Some(log) = self.0.log(name) else { return };
        let entry = Entry { source, runs: None, trouble: None, past: Stats::default(), feed: None, log };
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
            configured: matches!(self.source, Source::Configured { .. }),
            version,
            versions,
            state: runs.map(|instance| instance.workflow.state()),
            trouble: self.trouble.clone(),
            sees_after: runs.map(|instance| instance.sees_after),
            stats,
            feed: self.feed.clone(),
            log: self.log.clone(),
        }
    }
}

impl<F> Clone for Instance<F> {
    fn clone(&self) -> Self {
        Self { workflow: self.workflow.clone(), feed: Arc::clone(&self.feed), sees_after: self.sees_after }
    }
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

/// What is behind these locks is whole at every moment, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
