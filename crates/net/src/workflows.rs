//! What is said about workflows over HTTP: how one is, what is to be done with it, what it has logged. Both sides use these
//! types, the server and its client.

use std::fmt;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

/// The longest name of a workflow, bytes: it is a label in metrics, a column in tables, and a directory's name.
pub const WORKFLOW_NAME_BYTES_MAX: usize = 64;
/// The most variables that a deployment may give to its workflow.
pub const ENV_VARIABLES_MAX: usize = 64;
/// The longest name of such a variable, bytes.
pub const ENV_NAME_BYTES_MAX: usize = 128;
/// The longest value of such a variable, bytes. What is longer belongs into a file that the configuration names.
pub const ENV_VALUE_BYTES_MAX: usize = 4 * 1024;

/// Checks the name of a workflow: 1 to [`WORKFLOW_NAME_BYTES_MAX`] characters out of `A-Z a-z 0-9 - _ .`, the first of them no
/// dot. So it is a path's segment and a file's name as it is.
///
/// # Errors
/// What is wrong with it, in words.
///
/// ```
/// assert_eq!(slung_net::check_workflow_name("temp-alert_v1.2"), Ok(()));
/// assert!(slung_net::check_workflow_name("../etc").is_err());
/// ```
pub fn check_workflow_name(name: &str) -> Result<(), String> {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=WORKFLOW_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_known) && !name.starts_with('.') {
        return Ok(());
    }
    let shown: String = name.chars().take(WORKFLOW_NAME_BYTES_MAX).collect();
    Err(format!(
        "a workflow's name is 1 to {WORKFLOW_NAME_BYTES_MAX} of A-Z a-z 0-9 - _ . and does not begin with a dot, \
         and {shown:?} is none"
    ))
}

/// Checks variables of the environment: at most [`ENV_VARIABLES_MAX`], each once, names of letters, digits and `_` that begin
/// with no digit, values without NUL, both within their lengths.
///
/// # Errors
/// All that is wrong with them, one text for each thing. Values are not shown.
///
/// ```
/// let env = [("LIMIT".to_owned(), "80".to_owned()), ("2".to_owned(), "x".to_owned())];
/// assert_eq!(slung_net::check_env(&env[..1]), Ok(()));
/// assert_eq!(slung_net::check_env(&env).unwrap_err().len(), 1);
/// ```
pub fn check_env(env: &[(String, String)]) -> Result<(), Vec<String>> {
    let mut wrong = Vec::new();
    if env.len() > ENV_VARIABLES_MAX {
        wrong.push(format!("{} variables, and {ENV_VARIABLES_MAX} are the most", env.len()));
    }
    for (index, (name, value)) in env.iter().enumerate().take(ENV_VARIABLES_MAX) {
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !(1..=ENV_NAME_BYTES_MAX).contains(&name.len())
            || !name.bytes().all(is_known)
            || name.starts_with(|first: char| first.is_ascii_digit())
        {
            let shown: String = name.chars().take(ENV_NAME_BYTES_MAX).collect();
            wrong.push(format!(
                "a variable's name is 1 to {ENV_NAME_BYTES_MAX} of A-Z a-z 0-9 _ and does not begin with a digit, and \
                 {shown:?} is none"
            ));
        } else if env[..index].iter().any(|(earlier, _)| earlier == name) {
            wrong.push(format!("the variable {name} is given twice"));
        } else if value.len() > ENV_VALUE_BYTES_MAX {
            wrong
                .push(format!("the variable {name} has {} bytes, and {ENV_VALUE_BYTES_MAX} are the most", value.len()));
        } else if value.contains('\0') {
            wrong.push(format!("the variable {name} has a NUL in its value"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// What a workflow is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkflowState {
    /// It runs.
    #[default]
    Running,
    /// It has failed, and is started again after a pause.
    Restarting,
    /// It has returned: it is at its end.
    Done,
    /// Somebody has stopped it.
    Stopped,
    /// It is set aside, because it failed too often or can't be started.
    Failed,
}

impl WorkflowState {
    /// As it is written in answers.
    pub fn label(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

/// One workflow: what it is, and what it has done since the server started. Values of its environment are never shown.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WorkflowStatus {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: WorkflowState,
    /// Why it is in that state, where that is worth a word: how it failed last.
    pub reason: Option<String>,
    /// The version that runs, or would; `None` for one that was never deployed but is configured.
    pub version: Option<u64>,
    /// Its file stands in the server's configuration: it can't be deployed, rolled back or removed over HTTP.
    pub configured: bool,
    /// The sequence number of the last event before those that this version sees; `None` where it has not come so far.
    pub sees_after: Option<u64>,
    /// The versions that are kept, the newest first.
    pub versions: Vec<WorkflowVersion>,
    /// How long it has run since it was last started, milliseconds; `None` while it does not run.
    pub uptime_ms: Option<u64>,
    /// How often it was started again after it had failed.
    pub restarts: u64,
    /// Events given to it.
    pub events: u64,
    /// Updates that were merged into one that waited for it.
    pub merged: u64,
    /// Updates that were dropped, because too many waited for it.
    pub dropped: u64,
    /// Events that came too late for the window of its query.
    pub late: u64,
    /// Updates that wait for it now.
    pub waiting: u64,
    /// Calls of host functions.
    pub calls: Vec<WorkflowCalls>,
    /// Time on a thread, host functions included, microseconds.
    pub busy_micros: u64,
    /// Linear memory now, bytes; 0 while it does not run.
    pub memory_bytes: u64,
    /// The most linear memory that it has had, bytes.
    pub memory_bytes_max: u64,
    /// Events that it was not let write, because they were too many in a second.
    pub writes_refused: u64,
    /// HTTP requests that it was not let make, because they were too many in a second.
    pub http_calls_refused: u64,
    /// Time that it was held back, because it had used up its share of the processor, microseconds.
    pub throttled_micros: u64,
    /// Lines that were not logged, because there were too many.
    pub log_lines_dropped: u64,
    /// How long it takes from an event to what it does about it.
    pub reaction: WorkflowReaction,
}

/// One version of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorkflowVersion {
    /// Its number: 1 for the first, and no number is used again.
    pub version: u64,
    /// The length of its module, bytes.
    pub bytes: u64,
    /// When it was deployed, microseconds since the Unix epoch.
    pub deployed: i64,
    /// What tells its module from others, as text: `sha256:` and 64 digits, for instance.
    pub digest: String,
    /// The names of the variables that it was deployed with.
    pub env: Vec<String>,
}

/// How often a workflow has called a host function.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorkflowCalls {
    /// The function, as modules import it.
    pub function: String,
    /// Calls that did what they were asked for.
    pub ok: u64,
    /// Calls that failed.
    pub failed: u64,
}

/// How long a workflow takes from an event on the server to the first thing that it does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WorkflowReaction {
    /// How many reactions were timed.
    pub count: u64,
    /// Half of them took no longer, microseconds; `None` without any.
    pub p50_micros: Option<u64>,
    /// 99 of 100 took no longer, microseconds; `None` without any.
    pub p99_micros: Option<u64>,
}

/// What is to be done with a workflow.
#[derive(Clone, PartialEq, Eq)]
pub enum WorkflowChange {
    /// Run this module, in place of the version that runs now, if there is one.
    Deploy {
        /// The module, not checked. Its memory counts as in flight until it is dropped: what is kept of it is copied.
        module: Bytes,
        /// Variables of its environment, in the order in which they were given; checked with [`check_env`].
        env: Vec<(String, String)>,
    },
    /// Run an older version again.
    Rollback {
        /// Which one; `None` for the one before the one that runs.
        version: Option<u64>,
    },
    /// Stop it, and keep it.
    Stop,
    /// Start it where it is stopped, set aside or at its end.
    Start,
    /// Stop it, and forget it with all its versions.
    Remove,
}

/// Without the values of variables, which may be secrets.
impl fmt::Debug for WorkflowChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deploy { module, env } => {
                let names: Vec<&str> = env.iter().map(|(name, _)| name.as_str()).collect();
                f.debug_struct("Deploy").field("bytes", &module.len()).field("env", &names).finish()
            }
            Self::Rollback { version } => f.debug_struct("Rollback").field("version", version).finish(),
            Self::Stop => f.write_str("Stop"),
            Self::Start => f.write_str("Start"),
            Self::Remove => f.write_str("Remove"),
        }
    }
}

/// Why something is not done with a workflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkflowRefused {
    /// There is no workflow of that name, or no such version of it. Says which.
    #[error("{0}")]
    NotFound(String),
    /// The module, the name or the environment is not one that runs here. Lists all that is wrong.
    #[error("{0}")]
    Invalid(String),
    /// It is not in a state, or not a workflow, with which this can be done: it stands in the configuration, for instance.
    #[error("{0}")]
    Conflict(String),
    /// It was tried, and went wrong; what ran before still runs. Says how.
    #[error("{0}")]
    Failed(String),
    /// Another change of the same workflow is under way.
    #[error("another change of this workflow is under way")]
    Busy,
}

/// How bad a line of a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// To be known.
    Info,
    /// To be looked at.
    Warn,
    /// Something failed.
    Error,
}

impl LogLevel {
    /// As it is written in answers.
    pub fn label(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Where a line of a log comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogSource {
    /// The workflow has printed it.
    Stdout,
    /// The workflow has printed it as an error; a panic's message too.
    Stderr,
    /// The server says it about the workflow.
    Host,
}

impl LogSource {
    /// As it is written in answers.
    pub fn label(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Host => "host",
        }
    }
}

/// One line of a workflow's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// Its number among this workflow's lines since the server started, from 1.
    pub number: u64,
    /// When it was logged, microseconds since the Unix epoch.
    pub at: i64,
    /// How bad it is.
    pub level: LogLevel,
    /// Where it comes from.
    pub from: LogSource,
    /// The line, without its end; control characters are escaped.
    pub text: String,
}

/// What a log is read as. In JSON the first is an object with the fields of a [`LogLine`], the second `{"missed":5}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LogEntry {
    /// A line.
    Line(LogLine),
    /// So many lines are missing here: the reader was too slow, and they are no longer kept.
    Missed {
        /// How many.
        missed: u64,
    },
}

/// A workflow's log. Polled only as fast as its reader takes the entries: what comes faster is for the backend to bound, and
/// to tell with [`LogEntry::Missed`]. Dropping it ends it.
pub type WorkflowLog = BoxStream<'static, LogEntry>;
