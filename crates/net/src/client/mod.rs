//! The other side of the server's sockets: a producer whose events get there, one HTTP request, the updates of a live
//! query, workflows and their logs, and the plain protocol.

mod backlog;
mod http;
mod inbox;
mod link;
mod options;
mod plain;
mod producer;
mod stream;
mod updates;
mod workflows;

use std::time::Duration;

use bytes::Bytes;
use slung_model::PointError;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request as Handshake;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

pub use backlog::{Progress, Refused, RefusedEvent};
pub use http::{delete_path, http_get, http_post, live_path, query_path};
pub use options::ProducerOptions;
pub use plain::{PlainProducer, PlainReceiver, PlainSender};
pub use producer::Producer;
pub use updates::Updates;
pub use workflows::{LogReader, change_workflow, workflow, workflows};

/// How long the server has to take a connection, and to say the first word where it has one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server has to answer a close frame, which it does once everything before is stored.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest message from a server, bytes: four times what one workflow may say at once.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What of the body of a refused handshake is told, bytes.
const REFUSAL_BYTES_MAX: usize = 512;

/// Why the client cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not a URL that this client can use.
    #[error("{url}: {what}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// Nobody answers there, or not as a Slung server does.
    #[error("no connection to {url}: {what}")]
    Connect {
        /// The URL.
        url: String,
        /// What happened.
        what: String,
    },
    /// The server has closed the connection, and says why.
    #[error("the server closed the connection with {code}: {reason}")]
    Closed {
        /// The code of the close frame: 1011 where its storage has failed, 1012 where it restarts.
        code: u16,
        /// The reason that it gave.
        reason: String,
    },
    /// The connection is gone.
    #[error("the connection is lost: {0}")]
    Lost(String),
    /// The server answered, and did not do what it was asked for.
    #[error("{message}")]
    Answered {
        /// The status of the answer.
        status: u16,
        /// The code of the error, empty where it is not a Slung server's.
        code: String,
        /// Why, for people.
        message: String,
    },
    /// The server answered, but with something else than the stream that was asked for.
    #[error("{url} answers with status {status} and no stream of events")]
    NoStream {
        /// The URL.
        url: String,
        /// The status of the answer.
        status: u16,
        /// Its body, which says why: as JSON, if it is a Slung server's.
        body: Bytes,
    },
    /// Nothing came back in time.
    #[error("{what} took longer than {} s", .max.as_secs())]
    TimedOut {
        /// What did.
        what: &'static str,
        /// How long it may take.
        max: Duration,
    },
    /// No server would take this event. It was not sent.
    #[error("the event can't be sent: {0}")]
    Event(#[from] PointError),
    /// The server has refused events for good. All others are stored.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Nothing was acknowledged for [`ProducerOptions::give_up_after`], and the producer has stopped trying.
    #[error("gave up after {} s in which nothing was acknowledged: {what}", .after.as_secs_f64())]
    GaveUp {
        /// How long it has tried.
        after: Duration,
        /// What went wrong last.
        what: String,
    },
    /// The producer was closed before.
    #[error("the producer is closed")]
    Ended,
}

/// What comes back to a producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Text from a workflow.
    Text(String),
    /// Bytes from a workflow that are not UTF-8.
    Binary(Bytes),
    /// So many messages are missing here: nobody took them, and the queue was full
    /// ([`ProducerOptions::received_bytes_max`]). Not from a [`PlainProducer`], which has no queue.
    Missed(u64),
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Makes the request for a connection that speaks one protocol.
fn handshake(url: &str, protocol: &'static str) -> Result<Handshake, ClientError> {
    let bad = |what: String| ClientError::Url { url: url.to_owned(), what };
    let mut request: Handshake = url.into_client_request().map_err(|error| bad(error.to_string()))?;
    match request.uri().scheme_str() {
        Some("ws") => {}
        Some("wss") => return Err(bad("TLS (wss://) is not spoken yet, use ws:// and a trusted network".to_owned())),
        _ => return Err(bad("not of the form ws://HOST:PORT/".to_owned())),
    }
    if request.uri().host().is_none_or(str::is_empty) {
        return Err(bad("no host".to_owned()));
    }
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(protocol));
    Ok(request)
}

/// Connects, and upgrades to the protocol that the request asks for.
async fn open(url: &str, request: Handshake, timeout: Duration) -> Result<Socket, ClientError> {
    let config = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX));
    let config = config.max_frame_size(Some(MESSAGE_BYTES_MAX));
    // Frames are collected by this client; what it flushes is to leave at once.
    let nodelay = true;
    let what = match tokio::time::timeout(timeout, connect_async_with_config(request, Some(config), nodelay)).await {
        Ok(Ok((socket, _))) => return Ok(socket),
        Ok(Err(Error::Http(response))) => {
            let body = response.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(&body[..body.len().min(REFUSAL_BYTES_MAX)]);
            format!("the answer is {}: {}", response.status(), body.trim_end())
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => return Err(ClientError::TimedOut { what: "connecting", max: timeout }),
    };
    Err(ClientError::Connect { url: url.to_owned(), what })
}
