//! A producer of the plain protocol, which has no answers.

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use slung_model::SeriesKey;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{CLOSE_TIMEOUT, CONNECT_TIMEOUT, ClientError, Received, Socket, handshake, open};
use crate::wire;

/// A connection to a server by the plain protocol: events out, messages of workflows in.
///
/// The plain protocol has no answers. What [`PlainProducer::close`] returns `Ok` for was stored; whether it is on disk the
/// server alone knows.
///
/// ```no_run
/// use slung_model::SeriesKey;
/// use slung_net::client::PlainProducer;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut producer = PlainProducer::connect("ws://127.0.0.1:2077/").await?;
/// let key = SeriesKey::new("temp", ["sensor=1"])?;
/// producer.send(1_700_000_000_000_000, 21.5, &key).await?;
/// producer.flush().await?;
/// producer.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PlainProducer {
    sender: PlainSender,
    receiver: PlainReceiver,
}

/// The half that sends events.
#[derive(Debug)]
pub struct PlainSender {
    sink: SplitSink<Socket, Message>,
    frame: Vec<u8>,
}

/// The half that receives what workflows send.
#[derive(Debug)]
pub struct PlainReceiver {
    stream: SplitStream<Socket>,
}

impl PlainProducer {
    /// Connects to a server, `ws://HOST:PORT/`. TLS (`wss://`) is not spoken.
    ///
    /// # Errors
    /// [`ClientError::Url`], [`ClientError::Connect`], and [`ClientError::TimedOut`] after 10 s.
    ///
    /// # Cancel safety
    /// Dropping it gives the attempt up.
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        let socket = open(url, handshake(url, "slung.plain")?, CONNECT_TIMEOUT).await?;
        let (sink, stream) = socket.split();
        Ok(Self { sender: PlainSender { sink, frame: Vec::new() }, receiver: PlainReceiver { stream } })
    }

    /// Both halves, for a task each. Where one sends more than a handful of events the other must be read at the same
    /// time, or the server finds a slow reader.
    pub fn split(self) -> (PlainSender, PlainReceiver) {
        (self.sender, self.receiver)
    }

    /// See [`PlainSender::send`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn send(&mut self, timestamp: i64, value: f64, key: &SeriesKey) -> Result<(), ClientError> {
        self.sender.send(timestamp, value, key).await
    }

    /// See [`PlainSender::flush`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.sender.flush().await
    }

    /// See [`PlainReceiver::receive`].
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

impl PlainSender {
    /// Sends one event. Events are collected, and leave when some 128 KiB are together or with [`PlainSender::flush`].
    /// Waits while the server does not read, which is how it holds back who sends faster than it can store.
    ///
    /// # Errors
    /// [`ClientError::Lost`]; [`PlainReceiver::receive`] may know why.
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
    /// [`ClientError::Lost`]; [`PlainReceiver::receive`] may know why.
    ///
    /// # Cancel safety
    /// Nothing is lost or sent twice; what did not leave yet does with the next one.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.sink.flush().await.map_err(lost)
    }

    /// Sends what is left, and says that this was all. The server has stored everything once [`PlainReceiver::receive`]
    /// answers `Ok(None)`.
    ///
    /// # Errors
    /// [`ClientError::Lost`]; [`PlainReceiver::receive`] may know why.
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

impl PlainReceiver {
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
