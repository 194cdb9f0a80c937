//! The other side of the server's sockets, for command lines and tests: a producer that sends events, one HTTP request.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::HOST;
use hyper::{Request, Uri};
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
    let encoded = percent_encoding::utf8_percent_encode(query, percent_encoding::NON_ALPHANUMERIC);
    format!("/api/v1/query?q={encoded}")
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
    match tokio::time::timeout(HTTP_TIMEOUT, get(url)).await {
        Ok(answer) => answer,
        Err(_) => Err(ClientError::TimedOut { what: "the request", max: HTTP_TIMEOUT }),
    }
}

async fn get(url: &str) -> Result<(u16, Bytes), ClientError> {
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
    let request = Request::get(path).header(HOST, authority.as_str()).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| bad(&error.to_string()))?;
    let answered = async {
        let response = http.send_request(request).await.map_err(|error| ClientError::Lost(error.to_string()))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), HTTP_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|error| ClientError::Lost(error.to_string()))?.to_bytes()))
    };
    // The connection only moves while it is polled; what it has to say about a failure the request says too.
    let mut connection = std::pin::pin!(async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    });
    tokio::select! {
        answer = answered => answer,
        () = &mut connection => unreachable!("it never completes"),
    }
}
