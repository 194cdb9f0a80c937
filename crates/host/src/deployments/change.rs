//! How a workflow is changed: each change as a whole or not at all, and the stream handed on between two events.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::spawn_blocking;
use tracing::info;

use super::versions::{Record, Version, digest};
use super::{
    DeployChange, DeployError, Deployment, Entry, Feed, Inner, Instance, Site, Source, Turn, check_name, lock,
};
use crate::check::LoadError;
use crate::gate::Gate;
use crate::log::{Log, LogLevel, LogSource};
use crate::module::Module;
use crate::restarts::Failures;
use crate::stats::Stats;
use crate::workflow::State;

/// Variables and bytes of the environment that a version is deployed with: it is kept in one small file.
const ENV_VARIABLES_MAX: usize = 64;
const ENV_BYTES_MAX: usize = 16 * 1024;

/// Of what a version has logged that failed before its first poll, so many lines are told to who deploys it.
const FAILED_LINES_MAX: u64 = 20;

impl<S: Site> Inner<S> {
    pub(super) async fn change(
        self: &Arc<Self>,
        name: &str,
        change: DeployChange,
    ) -> Result<Deployment<S::Feed>, DeployError> {
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
        if let Some(entry) = &gone {
            entry.log.end();
        }
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
            State::Failed(failure) => {
                let mut why = format!("it failed before its first poll: {failure}");
                // The latest: a version that runs beside it may say much in the same log.
                let log = instance.workflow.log();
                let said = log.lines(log.newest().saturating_sub(FAILED_LINES_MAX), usize::MAX).lines;
                for line in said.iter().filter(|line| line.source != LogSource::Host || line.level == LogLevel::Warn) {
                    why.push_str("\n  ");
                    why.push_str(&line.text);
                }
                Err(DeployError::Invalid(why))
            }
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
            Some(entry) => (entry.runs.clone(), entry.feed.clone()),
            None => (None, None),
        };
        fresh.sees_after = self.site.switch(from.as_deref(), &fresh.feed);
        if let Some(before) = &before {
            let longest = self.options.drain_timeout;
            if let Err(waiting) = before.workflow.drain(|| before.feed.waiting(), longest).await {
                let seconds = longest.as_secs_f64();
                let text = format!(
                    "the version before was ended in its work after {seconds} s: {waiting} updates that waited for it are lost"
                );
                fresh.workflow.journal.say(LogLevel::Warn, &text);
            }
        }
        fresh.announce(&source);
        let gate = Arc::clone(&fresh.workflow.gate);
        let mut entries = lock(&self.entries);
        let past = before.map_or_else(Stats::default, |before| before.workflow.stats());
        let entry = entries.entry(name.to_owned()).or_insert_with(|| Entry {
            source: source.clone(),
            runs: None,
            trouble: None,
            past: Stats::default(),
            feed: None,
            log: fresh.workflow.log(),
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
    pub(super) fn start_again(&self, name: &str) -> Result<(), String> {
        let Some(source) = lock(&self.entries).get(name).map(|entry| entry.source.clone()) else { return Ok(()) };
        let (module, env) = match &source {
            Source::Configured { module, env } => (module.clone(), env),
            Source::Deployed(record) if record.runs => {
                let version = record.version(record.current).expect("a record has its current version");
                (self.compile_kept(name, version)?, &version.env)
            }
            Source::Unreadable(why) => return Err(why.clone()),
            Source::Deployed(_) => return Ok(()),
        };
        let mut instance = self.launch(name, &module, env, Gate::open())?;
        instance.sees_after = self.site.switch(None, &instance.feed);
        instance.announce(&source);
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
        let log = lock(&self.entries).get(name).map(|entry| entry.log.clone());
        let host = self.host.read().unwrap_or_else(PoisonError::into_inner);
        let host = host.as_ref().ok_or("the host is closed")?;
        let log = log.unwrap_or_else(|| host.log(name));
        let workflow = host.launch(module, options, log, world, Some(failures), gate);
        Ok(Instance { workflow, feed, sees_after: 0 })
    }

    /// A log for a workflow that is new; `None` once it is closed.
    pub(super) fn log(&self, name: &str) -> Option<Log> {
        let host = self.host.read().unwrap_or_else(PoisonError::into_inner);
        host.as_ref().map(|host| host.log(name))
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

impl<F> Instance<F> {
    /// Says in its log that it runs.
    fn announce(&self, source: &Source) {
        let what = match source {
            Source::Deployed(Record { current, .. }) => format!("version {current} runs"),
            Source::Unreadable(_) | Source::Configured { .. } => "it runs".to_owned(),
        };
        let text = format!("{what}, and sees the events after number {}", self.sees_after);
        self.workflow.journal.say(LogLevel::Info, &text);
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
