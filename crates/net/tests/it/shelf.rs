//! The workflows behind the network in these tests: they run nothing, keep what was asked of them, and log what they are told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use futures_util::stream::{self, StreamExt};
use slung_net::{
    LogEntry, LogLevel, LogLine, LogSource, WorkflowChange, WorkflowLog, WorkflowRefused, WorkflowState,
    WorkflowStatus, WorkflowVersion,
};

use crate::backend::NOW;

/// Lines that a log keeps.
pub(crate) const LINES_KEPT: usize = 100;

#[derive(Default)]
pub(crate) struct Shelf {
    pub(crate) workflows: BTreeMap<String, WorkflowStatus>,
    /// What was asked, with the name.
    pub(crate) changes: Vec<(String, WorkflowChange)>,
    /// The next change is refused for this.
    pub(crate) refuse: Option<WorkflowRefused>,
    /// How many changes wait for the gate.
    pub(crate) waiting: usize,
    logs: BTreeMap<String, Arc<Mutex<Log>>>,
}

/// The last lines of a log, and who waits for more.
#[derive(Default)]
struct Log {
    lines: VecDeque<LogLine>,
    written: u64,
    readers: Vec<Waker>,
    ended: bool,
}

impl Shelf {
    pub(crate) fn change(&mut self, name: &str, change: WorkflowChange) -> Result<WorkflowStatus, WorkflowRefused> {
        self.changes.push((name.to_owned(), change.clone()));
        if let Some(refused) = self.refuse.take() {
            return Err(refused);
        }
        if let WorkflowChange::Deploy { module, env } = change {
            let status = self.workflows.entry(name.to_owned()).or_default();
            let version = status.versions.first().map_or(1, |last| last.version + 1);
            let env = env.into_iter().map(|(name, _)| name).collect();
            let (bytes, digest) = (module.len() as u64, format!("crc32:{:08x}", crc32fast::hash(&module)));
            status.versions.insert(0, WorkflowVersion { version, bytes, deployed: NOW, digest, env });
            (status.name, status.version) = (name.to_owned(), Some(version));
            (status.state, status.sees_after) = (WorkflowState::Running, Some(7));
            self.logs.entry(name.to_owned()).or_default();
            return Ok(status.clone());
        }
        let unknown = || WorkflowRefused::NotFound(format!("there is no workflow {name}"));
        let status = self.workflows.get_mut(name).ok_or_else(unknown)?;
        match change {
            WorkflowChange::Rollback { version } => {
                status.version = version.or(status.version.map(|version| version - 1));
            }
            WorkflowChange::Start => status.state = WorkflowState::Running,
            WorkflowChange::Stop => status.state = WorkflowState::Stopped,
            _ => {
                let log = self.logs.remove(name).unwrap();
                let mut log = log.lock().unwrap();
                log.ended = true;
                log.readers.drain(..).for_each(Waker::wake);
                return Ok(self.workflows.remove(name).unwrap());
            }
        }
        Ok(status.clone())
    }

    /// Logs a line, as the workflow or as the host.
    pub(crate) fn print(&self, name: &str, text: &str) {
        let mut log = self.logs[name].lock().unwrap();
        log.written += 1;
        let line = LogLine {
            number: log.written,
            at: NOW,
            level: LogLevel::Info,
            from: LogSource::Stdout,
            text: text.to_owned(),
        };
        log.lines.push_back(line);
        if log.lines.len() > LINES_KEPT {
            log.lines.pop_front();
        }
        log.readers.drain(..).for_each(Waker::wake);
    }

    /// How many streams of its log there are.
    pub(crate) fn readers(&self, name: &str) -> usize {
        Arc::strong_count(&self.logs[name]) - 1
    }

    pub(crate) fn log(&self, name: &str, lines: usize, follow: bool) -> Result<WorkflowLog, WorkflowRefused> {
        let unknown = || WorkflowRefused::NotFound(format!("there is no workflow {name}"));
        let log = Arc::clone(self.logs.get(name).ok_or_else(unknown)?);
        let mut next = {
            let log = log.lock().unwrap();
            log.written + 1 - log.lines.len().min(lines) as u64
        };
        let entries = stream::poll_fn(move |context| {
            let mut log = log.lock().unwrap();
            let first = log.written + 1 - log.lines.len() as u64;
            if next < first {
                let missed = first - next;
                next = first;
                return Poll::Ready(Some(LogEntry::Missed { missed }));
            }
            if next <= log.written {
                next += 1;
                return Poll::Ready(Some(LogEntry::Line(log.lines[(next - 1 - first) as usize].clone())));
            }
            if !follow || log.ended {
                return Poll::Ready(None);
            }
            log.readers.push(context.waker().clone());
            Poll::Pending
        });
        Ok(entries.boxed())
    }
}
