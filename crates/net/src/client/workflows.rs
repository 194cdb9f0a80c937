//! Workflows of a server: which there are, what is to be done with one, and what it logs.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hyper::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ClientError;
use super::http::{HTTP_TIMEOUT, encoded, whole_within};
use super::stream::Stream;
use crate::workflows::{LogEntry, WorkflowChange, WorkflowStatus};

/// How long a change may take: a module is sent, compiled for 30 s at most, and run to its first poll.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(120);
/// The longest line of a log, bytes of its JSON: far more than a server logs at once.
const LINE_BYTES_MAX: usize = 1024 * 1024;

#[derive(Deserialize)]
struct ListBody {
    workflows: Vec<WorkflowStatus>,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorFields,
}

#[derive(Deserialize)]
struct ErrorFields {
    code: String,
    message: String,
}

/// All workflows of a server (`http://HOST[:PORT]`), by name.
///
/// # Errors
/// [`ClientError::Answered`] where the server refuses or is none of Slung's; others as for [`http_get`](super::http_get).
///
/// # Cancel safety
/// Dropping it gives the request up.
pub async fn workflows(server: &str) -> Result<Vec<WorkflowStatus>, ClientError> {
    let list: ListBody = answer(Method::GET, &url(server, None, ""), Bytes::new(), HTTP_TIMEOUT).await?;
    Ok(list.workflows)
}

/// One workflow of a server (`http://HOST[:PORT]`).
///
/// # Errors
/// [`ClientError::Answered`] with 404 where there is none of that name; others as for [`workflows`].
///
/// # Cancel safety
/// Dropping it gives the request up.
pub async fn workflow(server: &str, name: &str) -> Result<WorkflowStatus, ClientError> {
    answer(Method::GET, &url(server, Some(name), ""), Bytes::new(), HTTP_TIMEOUT).await
}

/// Does something with a workflow of a server (`http://HOST[:PORT]`): how it is then, or was before it was removed.
///
/// # Errors
/// [`ClientError::Answered`] where the server refuses, with all that is wrong; [`ClientError::TimedOut`] after 120 s; others as
/// for [`workflows`].
///
/// # Cancel safety
/// Dropping it closes the connection; the server may do what it was asked to all the same.
///
/// ```no_run
/// use slung_net::WorkflowChange;
/// use slung_net::client::change_workflow;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let module = std::fs::read("threshold-alert.wasm")?.into();
/// let env = vec![("LIMIT".to_owned(), "80".to_owned())];
/// let status = change_workflow("http://127.0.0.1:2077", "alert", WorkflowChange::Deploy { module, env }).await?;
/// println!("version {:?} sees the events after {:?}", status.version, status.sees_after);
/// # Ok(())
/// # }
/// ```
pub async fn change_workflow(server: &str, name: &str, change: WorkflowChange) -> Result<WorkflowStatus, ClientError> {
    let (method, rest, body) = match change {
        WorkflowChange::Deploy { module, env } => {
            let env = env.iter().map(|(name, value)| format!("env={}", encoded(&format!("{name}={value}"))));
            (Method::PUT, format!("?{}", env.collect::<Vec<_>>().join("&")), module)
        }
        WorkflowChange::Rollback { version: None } => (Method::POST, "/rollback".to_owned(), Bytes::new()),
        WorkflowChange::Rollback { version: Some(version) } => {
            (Method::POST, format!("/rollback?version={version}"), Bytes::new())
        }
        WorkflowChange::Stop => (Method::POST, "/stop".to_owned(), Bytes::new()),
        WorkflowChange::Start => (Method::POST, "/start".to_owned(), Bytes::new()),
        WorkflowChange::Remove => (Method::DELETE, String::new(), Bytes::new()),
    };
    answer(method, &url(server, Some(name), &rest), body, CHANGE_TIMEOUT).await
}

fn url(server: &str, name: Option<&str>, rest: &str) -> String {
    let server = server.trim_end_matches('/');
    match name {
        None => format!("{server}/api/v1/workflows{rest}"),
        Some(name) => format!("{server}/api/v1/workflows/{}{rest}", encoded(name)),
    }
}

async fn answer<T: DeserializeOwned>(
    method: Method,
    url: &str,
    body: Bytes,
    timeout: Duration,
) -> Result<T, ClientError> {
    let (status, body) = whole_within(method, url, body, timeout).await?;
    if status != 200 {
        return Err(refused(url, status, &body));
    }
    serde_json::from_slice(&body).map_err(|error| strange(url, status, &error.to_string()))
}

/// What a server has said instead of doing what it was asked for.
fn refused(url: &str, status: u16, body: &[u8]) -> ClientError {
    match serde_json::from_slice(body) {
        Ok(ErrorBody { error: ErrorFields { code, message } }) => ClientError::Answered { status, code, message },
        Err(error) => strange(url, status, &error.to_string()),
    }
}

/// Not what a server of this kind says.
fn strange(url: &str, status: u16, what: &str) -> ClientError {
    let message = format!("{url} answers {status} and not as a Slung server does: {what}");
    ClientError::Answered { status, code: String::new(), message }
}

/// A workflow's log as it comes, one GET that may go on: without TLS, redirects or proxies.
///
/// ```no_run
/// use slung_net::LogEntry;
/// use slung_net::client::LogReader;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut log = LogReader::connect("http://127.0.0.1:2077", "alert", 10, true).await?;
/// while let Some(entry) = log.next().await? {
///     match entry {
///         LogEntry::Line(line) => println!("{}", line.text),
///         LogEntry::Missed { missed } => println!("{missed} lines are missing here"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LogReader {
    stream: Stream,
    /// What has come and was not looked at yet.
    bytes: BytesMut,
    /// So many of them are known to have no end of a line.
    searched: usize,
}

impl LogReader {
    /// Asks for the last `lines` lines of a workflow, up to 10,000, of a server (`http://HOST[:PORT]`); with `follow` also for
    /// those that come then.
    ///
    /// # Errors
    /// [`ClientError::Answered`] where the server refuses; others as for [`workflows`].
    ///
    /// # Cancel safety
    /// Dropping it gives the request up.
    pub async fn connect(server: &str, name: &str, lines: usize, follow: bool) -> Result<Self, ClientError> {
        let url = url(server, Some(name), &format!("/log?lines={lines}&follow={follow}"));
        match Stream::connect(&url, "application/x-ndjson").await {
            Ok(stream) => Ok(Self { stream, bytes: BytesMut::new(), searched: 0 }),
            Err(ClientError::NoStream { url, status, body }) => Err(refused(&url, status, &body)),
            Err(error) => Err(error),
        }
    }

    /// The next entry; `None` at the end: of what there was, or, where it is followed, once the workflow is removed or the
    /// server stops.
    ///
    /// # Errors
    /// [`ClientError::Lost`] where the connection breaks off or what comes is no entry of a log, [`ClientError::TimedOut`]
    /// where nothing came for 60 s, not even a sign of life.
    ///
    /// # Cancel safety
    /// No entry is lost.
    pub async fn next(&mut self) -> Result<Option<LogEntry>, ClientError> {
        loop {
            while let Some(end) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.bytes.split_to(self.searched + end);
                self.bytes.advance(1);
                self.searched = 0;
                // An empty one is a sign of life.
                if !line.is_empty() {
                    let entry = serde_json::from_slice(&line);
                    return entry.map(Some).map_err(|error| ClientError::Lost(format!("no entry of a log: {error}")));
                }
            }
            self.searched = self.bytes.len();
            if self.searched > LINE_BYTES_MAX {
                return Err(ClientError::Lost(format!("a line of more than {LINE_BYTES_MAX} bytes")));
            }
            match self.stream.next().await? {
                Some(bytes) => self.bytes.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}
