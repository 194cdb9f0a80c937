//! The other side of the server's sockets, for command lines and tests: a producer that sends events, one HTTP request,
//! the updates of a live query.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use slung_model::SeriesKey;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request as Handshake;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::wire;

/// How long the server has to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server has to answer a close frame, which it does once everything before is stored.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an HTTP request may take: a query may go over much data.
const HTTP_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest HTTP answer, bytes: an answer to a query has some hundred.
const HTTP_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a live stream may be silent: the server sends a comment every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The longest event of a live stream, bytes. One that names 4,096 producers and has all tags that a series may have is
/// shorter.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

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
}

/// What a workflow sent to this producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Text.
    Text(String),
    /// Bytes that are not UTF-8.
    Binary(Bytes),
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A connection to a server by the plain protocol: events out, messages of workflows in.
///
/// The plain protocol has no answers. What [`Producer::close`] returns `Ok` for was stored; whether it is on disk the
/// server alone knows.
///
/// ```no_run
/// use slung_model::SeriesKey;
/// use slung_net::client::Producer;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut producer = Producer::connect("ws://127.0.0.1:2077/").await?;
/// let key = SeriesKey::new("temp", ["sensor=1"])?;
/// producer.send(1_700_000_000_000_000, 21.5, &key).await?;
/// producer.flush().await?;
/// producer.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Producer {
    sender: Sender,
    receiver: Receiver,
}

/// The half that sends events.
#[derive(Debug)]
pub struct Sender {
    sink: SplitSink<Socket, Message>,
    frame: Vec<u8>,
}

/// The half that receives what workflows send.
#[derive(Debug)]
pub struct Receiver {
    stream: SplitStream<Socket>,
}

impl Producer {
    /// Connects to a server, `ws://HOST:PORT/`. TLS (`wss://`) is not spoken.
    ///
    /// # Errors
    /// [`ClientError::Url`], [`ClientError::Connect`], and [`ClientError::TimedOut`] after 10 s.
    ///
    /// # Cancel safety
    /// Dropping it gives the attempt up.
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        let bad = |what: String| ClientError::Url { url: url.to_owned(), what };
        let mut request: Handshake = url.into_client_request().map_err(|error| bad(error.to_string()))?;
        if request.uri().scheme_str() != Some("ws") {
            return Err(bad("not of the form ws://HOST:PORT/".to_owned()));
        }
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("slung.plain"));
        // Frames are collected by this client; what it flushes is to leave at once.
        let nodelay = true;
        match tokio::time::timeout(CONNECT_TIMEOUT, connect_async_with_config(request, None, nodelay)).await {
            Ok(Ok((socket, _))) => {
                let (sink, stream) = socket.split();
                Ok(Self { sender: Sender { sink, frame: Vec::new() }, receiver: Receiver { stream } })
            }
            Ok(Err(error @ Error::Url(_))) => Err(bad(error.to_string())),
            Ok(Err(error)) => Err(ClientError::Connect { url: url.to_owned(), what: error.to_string() }),
            Err(_) => Err(ClientError::TimedOut { what: "connecting", max: CONNECT_TIMEOUT }),
        }
    }

    /// Both halves, for a task each. Where one sends more than a handful of events the other must be read at the same
    /// time, or the server finds a slow reader.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// See [`Sender::send`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn send(&mut self, timestamp: i64, value: f64, key: &SeriesKey) -> Result<(), ClientError> {
        self.sender.send(timestamp, value, key).await
    }

    /// See [`Sender::flush`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.sender.flush().await
    }

    /// See [`Receiver::receive`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn receive(&mut self) -> Result<Option<Received>, ClientError> {
        self.receiver.receive().await
    }

    /// Sends what is left, says that this was all, and waits until the server has stored it and says so too. Messages
    /// that arrive meanwhile are lost; split the producer to have them.
    ///
    /// # Errors
    /// [`ClientError`]; what was sent last may not have arrived then.
    ///
    /// # Cancel safety
    /// Dropping it drops the connection.
    pub async fn close(mut self) -> Result<(), ClientError> {
        let closed = async {
            self.sender.close().await?;
            while self.receiver.receive().await?.is_some() {}
            Ok(())
        };
        match tokio::time::timeout(CLOSE_TIMEOUT, closed).await {
            Ok(closed) => closed,
            Err(_) => Err(ClientError::TimedOut { what: "closing", max: CLOSE_TIMEOUT }),
        }
    }
}

impl Sender {
    /// Sends one event. Events are collected, and leave when some 128 KiB are together or with [`Sender::flush`].
    /// Waits while the server does not read, which is how it holds back who sends faster than it can store.
    ///
    /// # Errors
    /// [`ClientError::Lost`]; [`Receiver::receive`] may know why.
    ///
    /// # Cancel safety
    /// Either all of the event is sent or nothing.
    pub async fn send(&mut self, timestamp: i64, value: f64, key: &SeriesKey) -> Result<(), ClientError> {
        self.frame.clear();
        wire::encode_event(timestamp, value, key, &mut self.frame);
        self.sink.feed(Message::Binary(Bytes::copy_from_slice(&self.frame))).await.map_err(lost)
    }

    /// Lets everything leave that was collected.
    ///
    /// # Errors
    /// [`ClientError::Lost`]; [`Receiver::receive`] may know why.
    ///
    /// # Cancel safety
    /// Nothing is lost or sent twice; what did not leave yet does with the next one.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.sink.flush().await.map_err(lost)
    }

    /// Sends what is left, and says that this was all. The server has stored everything once [`Receiver::receive`]
    /// answers `Ok(None)`.
    ///
    /// # Errors
    /// [`ClientError::Lost`]; [`Receiver::receive`] may know why.
    ///
    /// # Cancel safety
    /// Call it again.
    pub async fn close(&mut self) -> Result<(), ClientError> {
        let bye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        match self.sink.send(Message::Close(Some(bye))).await {
            // The server was first: what it said is for the receiver to tell.
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Ok(()),
            Err(error) => Err(lost(error)),
        }
    }
}

impl Receiver {
    /// The next message of a workflow, or `None` once the connection is closed as it should be.
    ///
    /// # Errors
    /// [`ClientError::Closed`] where the server ends it for another reason, [`ClientError::Lost`] where it is gone.
    ///
    /// # Cancel safety
    /// No message is lost.
    pub async fn receive(&mut self) -> Result<Option<Received>, ClientError> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Ok(Some(Received::Text(text.as_str().to_owned()))),
                Some(Ok(Message::Binary(data))) => return Ok(Some(Received::Binary(data))),
                Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) if code != CloseCode::Normal => {
                    return Err(ClientError::Closed { code: code.into(), reason: reason.as_str().to_owned() });
                }
                // Pings are answered by the library. After a close frame the stream ends.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(lost(error)),
                None => return Ok(None),
            }
        }
    }
}

fn lost(error: Error) -> ClientError {
    ClientError::Lost(error.to_string())
}

/// The path that asks a query, to be put behind `http://HOST:PORT`.
///
/// ```
/// assert_eq!(slung_net::client::query_path("AVG:temp:[a=1]"), "/api/v1/query?q=AVG%3Atemp%3A%5Ba%3D1%5D");
/// ```
pub fn query_path(query: &str) -> String {
    format!("/api/v1/query?q={}", encoded(query))
}

/// The path that deletes what a query means, to be put behind `http://HOST:PORT`, for [`http_post`].
///
/// ```
/// assert_eq!(slung_net::client::delete_path("temp:[a=1]"), "/api/v1/delete?q=temp%3A%5Ba%3D1%5D");
/// ```
pub fn delete_path(query: &str) -> String {
    format!("/api/v1/delete?q={}", encoded(query))
}

/// The path that follows a live query, to be put behind `http://HOST:PORT` for [`Updates::connect`].
///
/// ```
/// assert_eq!(slung_net::client::live_path("AVG:temp:[]"), "/api/v1/live?q=AVG%3Atemp%3A%5B%5D");
/// ```
pub fn live_path(query: &str) -> String {
    format!("/api/v1/live?q={}", encoded(query))
}

fn encoded(query: &str) -> percent_encoding::PercentEncode<'_> {
    percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC)
}

/// One GET, without TLS, redirects or proxies: status and body.
///
/// # Errors
/// [`ClientError::Url`] where it is not `http://HOST[:PORT]/...`, [`ClientError::Connect`], [`ClientError::Lost`] where
/// the answer breaks off or is over 16 MiB, [`ClientError::TimedOut`] after 60 s.
///
/// # Cancel safety
/// Dropping it gives the request up.
pub async fn http_get(url: &str) -> Result<(u16, Bytes), ClientError> {
    whole_within(Method::GET, url, HTTP_TIMEOUT).await
}

/// One POST without a body, without TLS, redirects or proxies: status and body.
///
/// # Errors
/// As [`http_get`], but [`ClientError::TimedOut`] after `timeout`.
///
/// # Cancel safety
/// Dropping it closes the connection; the server may do what it was asked to all the same.
pub async fn http_post(url: &str, timeout: Duration) -> Result<(u16, Bytes), ClientError> {
    whole_within(Method::POST, url, timeout).await
}

async fn whole_within(method: Method, url: &str, timeout: Duration) -> Result<(u16, Bytes), ClientError> {
    let asked = async {
        let (response, mut connection) = request(method, url).await?;
        whole(response, &mut connection).await
    };
    match tokio::time::timeout(timeout, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(ClientError::TimedOut { what: "the request", max: timeout }),
    }
}

/// The updates of a live query as they come, one GET that goes on: without TLS, redirects or proxies.
///
/// ```no_run
/// use slung_net::client::{Updates, live_path};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let url = format!("http://127.0.0.1:2077{}", live_path("AVG:temp:[]:[5m]"));
/// let mut updates = Updates::connect(&url).await?;
/// while let Some(json) = updates.next().await? {
///     println!("{}", String::from_utf8_lossy(&json));
/// }
/// # Ok(())
/// # }
/// ```
pub struct Updates {
    body: Incoming,
    connection: Connection,
    events: EventReader,
}

impl std::fmt::Debug for Updates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Updates").field("events", &self.events).finish_non_exhaustive()
    }
}

impl Updates {
    /// Asks for the stream. On return the query is registered: what is written from then on is in it.
    ///
    /// # Errors
    /// [`ClientError::NoStream`] where the server refuses; others as for [`http_get`].
    ///
    /// # Cancel safety
    /// Dropping it gives the request up.
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        let asked = async {
            let (response, mut connection) = request(Method::GET, url).await?;
            let content_type = response.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
            if response.status() == 200 && content_type.starts_with(b"text/event-stream") {
                return Ok(Self { body: response.into_body(), connection, events: EventReader::default() });
            }
            let (status, body) = whole(response, &mut connection).await?;
            Err(ClientError::NoStream { url: url.to_owned(), status, body })
        };
        match tokio::time::timeout(HTTP_TIMEOUT, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::TimedOut { what: "the request", max: HTTP_TIMEOUT }),
        }
    }

    /// The next update, as JSON on one line; `None` once the server has ended the stream, which it does when it stops.
    ///
    /// # Errors
    /// [`ClientError::Lost`] where the connection breaks off or an event is over 1 MiB, [`ClientError::TimedOut`] where
    /// nothing came for 60 s, not even a sign of life.
    ///
    /// # Cancel safety
    /// No update is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(event) = self.events.next()? {
                return Ok(Some(event));
            }
            let frame = async {
                tokio::select! {
                    frame = self.body.frame() => frame,
                    () = &mut self.connection => unreachable!("it never completes"),
                }
            };
            match tokio::time::timeout(SILENCE_MAX, frame).await {
                Ok(Some(Ok(frame))) => self.events.take(frame.data_ref().map_or(&[], |data| data)),
                Ok(Some(Err(error))) => return Err(ClientError::Lost(error.to_string())),
                Ok(None) => return Ok(None),
                Err(_) => return Err(ClientError::TimedOut { what: "a sign of life", max: SILENCE_MAX }),
            }
        }
    }
}

/// Takes server-sent events apart. Only their data is looked at.
#[derive(Debug, Default)]
struct EventReader {
    /// What has come and was not looked at yet.
    bytes: BytesMut,
    /// So many of them are known to have no end of a line.
    searched: usize,
    /// The data of the event that has begun.
    data: BytesMut,
}

impl EventReader {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(end) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line = self.bytes.split_to(self.searched + end);
            self.bytes.advance(1);
            self.searched = 0;
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if line.is_empty() && !self.data.is_empty() {
                return Ok(Some(self.data.split().freeze()));
            }
            if let Some(data) = line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    self.data.extend_from_slice(b"\n");
                }
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            }
            self.check_size()?;
        }
        self.searched = self.bytes.len();
        self.check_size().map(|()| None)
    }

    /// One piece of the body is no longer than what is read from the socket at once.
    fn check_size(&self) -> Result<(), ClientError> {
        if self.searched.max(self.data.len()) > EVENT_BYTES_MAX {
            return Err(ClientError::Lost(format!("an event of more than {EVENT_BYTES_MAX} bytes")));
        }
        Ok(())
    }
}

/// Never completes, but has to be polled for anything to move: what it has to say about a failure the request and its
/// body say too.
type Connection = BoxFuture<'static, ()>;

/// Connects, and sends one request without a body.
async fn request(method: Method, url: &str) -> Result<(Response<Incoming>, Connection), ClientError> {
    let bad = |what: &str| ClientError::Url { url: url.to_owned(), what: what.to_owned() };
    let no_connection =
        |error: &dyn std::error::Error| ClientError::Connect { url: url.to_owned(), what: error.to_string() };
    let uri: Uri = url.parse().map_err(|_| bad("not a URL"))?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
    let authority = authority.ok_or_else(|| bad("not of the form http://HOST[:PORT]/PATH"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let connecting = TcpStream::connect((host, authority.port_u16().unwrap_or(80)));
    let tcp = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|error| no_connection(&error))?,
        Err(_) => return Err(ClientError::TimedOut { what: "connecting", max: CONNECT_TIMEOUT }),
    };
    let (mut http, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.map_err(|error| no_connection(&error))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request =
        Request::builder().method(method).uri(path).header(HOST, authority.as_str()).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| bad(&error.to_string()))?;
    let mut connection = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    }
    .boxed();
    tokio::select! {
        answer = http.send_request(request) => match answer {
            Ok(response) => Ok((response, connection)),
            Err(error) => Err(ClientError::Lost(error.to_string())),
        },
        () = &mut connection => unreachable!("it never completes"),
    }
}

/// Status and body.
async fn whole(response: Response<Incoming>, connection: &mut Connection) -> Result<(u16, Bytes), ClientError> {
    let status = response.status().as_u16();
    tokio::select! {
        body = Limited::new(response.into_body(), HTTP_BYTES_MAX).collect() => {
            Ok((status, body.map_err(|error| ClientError::Lost(error.to_string()))?.to_bytes()))
        }
        () = connection => unreachable!("it never completes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever pieces they come in.
    #[test]
    fn events_are_read_and_all_else_is_skipped() {
        let text = b":\n\ndata: {\"a\":1}\n\n: note\n\nid: 7\r\nevent: x\r\ndata:b\r\ndata: c\r\n\r\ndata\n\ndata: unfinished\n";
        for piece in 1..text.len() {
            let mut reader = EventReader::default();
            let mut events = Vec::new();
            for bytes in text.chunks(piece) {
                reader.take(bytes);
                while let Some(event) = reader.next().unwrap() {
                    events.push(event);
                }
            }
            assert_eq!(events, [&b"{\"a\":1}"[..], b"b\nc"], "pieces of {piece}");
        }
    }

    #[test]
    fn an_event_without_an_end_is_given_up() {
        for line in [&b"x"[..], b"data: x\n"] {
            let mut reader = EventReader::default();
            let given_up = (0..=EVENT_BYTES_MAX).any(|_| {
                reader.take(line);
                reader.next().is_err()
            });
            assert!(given_up, "{line:?}");
        }
    }
}
