//! The task that owns a producer's connection: connects, sends what the backlog says, hands it the answers, and begins
//! again where the connection ends.

use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tracing::{info, warn};

use super::backlog::{Next, Nonsense};
use super::producer::{End, Shared, State};
use super::{CLOSE_TIMEOUT, ClientError, ProducerOptions, Received, Socket, handshake, open};
use crate::v1::{self, Hello, Reply};

/// Pings while the server may be silent.
const PINGS: u32 = 3;
/// No shorter, however short the silence may be.
const PING_INTERVAL_MIN: Duration = Duration::from_millis(1);
/// How much longer than usual a server is left alone that says it can't go on, or has too much to do.
const TROUBLED_FACTOR: u32 = 10;

/// How long a connection that takes nothing is read on.
const READ_ON_MAX: Duration = Duration::from_secs(1);

/// A connection that the server has said hello on.
pub(super) struct Connected {
    socket: Socket,
    hello: Hello,
}

pub(super) struct Link {
    url: String,
    options: ProducerOptions,
    shared: Arc<Shared>,
}

/// Also where the runtime ends before the producer does: nobody waits for ever.
impl Drop for Link {
    fn drop(&mut self) {
        self.shared.lock().end.get_or_insert(End::Closed);
        self.shared.changed.notify_waiters();
    }
}

impl Link {
    pub(super) fn new(url: &str, options: ProducerOptions, shared: Arc<Shared>) -> Self {
        Self { url: url.to_owned(), options, shared }
    }

    /// One attempt, up to the server's hello.
    pub(super) async fn connect(&self) -> Result<Connected, ClientError> {
        let max = self.options.connect_timeout;
        let attempt = async {
            let mut socket = open(&self.url, handshake(&self.url, v1::NAME)?, max).await?;
            let first = loop {
                match socket.next().await {
                    Some(Ok(Message::Binary(frame))) => break frame,
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => return Err(ended(other)),
                }
            };
            match Reply::decode(&first) {
                Some(Reply::Hello(hello)) => Ok(Connected { socket, hello }),
                _ => Err(ClientError::Lost("the server's first word is no hello".to_owned())),
            }
        };
        match timeout(max, attempt).await {
            Ok(connected) => connected,
            Err(_) => Err(ClientError::TimedOut { what: "connecting", max }),
        }
    }

    /// Keeps the producer going until it is closed, or has to give up.
    pub(super) async fn run(self, first: Connected) {
        let mut last = String::from("the server has acknowledged nothing");
        let end = tokio::select! {
            () = self.keep_going(first, &mut last) => End::Closed,
            after = self.out_of_patience() => End::GaveUp { after, what: String::new() },
        };
        let end = match end {
            End::GaveUp { after, .. } => End::GaveUp { after, what: last },
            End::Closed => End::Closed,
        };
        self.shared.lock().end = Some(end);
    }

    async fn keep_going(&self, first: Connected, last: &mut String) {
        let mut backoff = Backoff::new(&self.options);
        let mut connection = Ok(first);
        loop {
            let error = match connection {
                Ok(connected) => {
                    let (began, before) = (Instant::now(), self.acknowledged());
                    let error = self.serve(connected).await;
                    if began.elapsed() > self.options.backoff_max || self.acknowledged() > before {
                        backoff.reset();
                    }
                    error
                }
                Err(error) => error,
            };
            if self.is_done() {
                return;
            }
            *last = error.to_string();
            warn!(url = self.url, "{last}; connecting again");
            let troubled = matches!(error, ClientError::Closed { code: 1011 | 1013, .. });
            let pause = backoff.next(troubled);
            let again = async {
                sleep(pause).await;
                self.connect().await
            };
            connection = tokio::select! {
                connection = again => connection,
                () = self.done() => return,
            };
            if connection.is_ok() {
                info!(url = self.url, "connected again");
            }
        }
    }

    fn acknowledged(&self) -> u64 {
        self.shared.lock().backlog.progress().acknowledged
    }

    /// Closing, and nothing is left that needs a connection.
    fn is_done(&self) -> bool {
        let state = self.shared.lock();
        state.is_closing && state.backlog.is_empty()
    }

    async fn done(&self) {
        while !self.is_done() {
            self.shared.work.notified().await;
        }
    }

    /// Completes when something has waited for too long, and says for how long that is.
    async fn out_of_patience(&self) -> Duration {
        let Some(after) = self.options.give_up_after else { return std::future::pending().await };
        loop {
            // What begins to wait meanwhile waits for as long.
            let since = self.shared.lock().backlog.waiting_since().unwrap_or_else(Instant::now);
            if since.elapsed() >= after {
                return after;
            }
            sleep_until(since + after).await;
        }
    }

    /// Uses a connection until it ends, and says why it did.
    async fn serve(&self, Connected { socket, hello }: Connected) -> ClientError {
        self.shared.lock().backlog.connected(hello);
        let (mut sink, mut stream) = socket.split();
        let error = tokio::select! {
            Err(error) = self.write(&mut sink) => Err(error),
            error = self.read(&mut stream) => Ok(error),
        };
        let error = match error {
            Ok(error) => error,
            // What had arrived before counts, and may tell why.
            Err(error) => match timeout(READ_ON_MAX, self.read(&mut stream)).await {
                Ok(closed @ ClientError::Closed { .. }) => closed,
                _ => lost(error),
            },
        };
        self.shared.lock().backlog.disconnected(Instant::now());
        self.shared.changed.notify_waiters();
        error
    }

    async fn write(&self, sink: &mut SplitSink<Socket, Message>) -> Result<Infallible, Error> {
        let mut ping = interval((self.options.silence_max / PINGS).max(PING_INTERVAL_MIN));
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.tick().await;
        loop {
            let next = {
                let mut state = self.shared.lock();
                if state.is_closing && state.backlog.is_empty() {
                    break;
                }
                state.backlog.next(Instant::now())
            };
            let at = match next {
                Next::Send(message) => {
                    sink.feed(Message::Binary(message)).await?;
                    continue;
                }
                Next::At(at) => Some(at),
                Next::Nothing => None,
            };
            sink.flush().await?;
            tokio::select! {
                () = self.shared.work.notified() => {}
                () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => {}
                _ = ping.tick() => sink.send(Message::Ping(Bytes::new())).await?,
            }
        }
        sink.send(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))).await?;
        // What is left is the server's answer, which is the reader's.
        std::future::pending().await
    }

    async fn read(&self, stream: &mut SplitStream<Socket>) -> ClientError {
        let max = self.options.silence_max;
        let mut has_warned = false;
        loop {
            let message = match timeout(max, stream.next()).await {
                Ok(message) => message,
                Err(_) => return ClientError::TimedOut { what: "a sign of life", max },
            };
            let taken = match message {
                Some(Ok(Message::Text(text))) => {
                    self.shared.lock().inbox.push(Received::Text(text.as_str().to_owned()));
                    Ok(())
                }
                Some(Ok(Message::Binary(frame))) => take(&mut self.shared.lock(), &frame, &mut has_warned),
                // Pings are answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                other => {
                    let is_close = matches!(other, Some(Ok(Message::Close(_))));
                    let error = ended(other);
                    if is_close {
                        // The library answers while it is read on; without an answer the server waits for nothing.
                        let _ = timeout(CLOSE_TIMEOUT, async { while let Some(Ok(_)) = stream.next().await {} }).await;
                    }
                    return error;
                }
            };
            if let Err(Nonsense(what)) = taken {
                return ClientError::Lost(format!("the server does not keep to {}: {what}", v1::NAME));
            }
            self.shared.changed.notify_waiters();
            self.shared.work.notify_one();
        }
    }
}

/// Acts on a binary frame. The log has a connection's first refusal.
fn take(state: &mut State, frame: &Bytes, has_warned: &mut bool) -> Result<(), Nonsense> {
    let now = Instant::now();
    match Reply::decode(frame) {
        Some(Reply::Data(_)) => state.inbox.push(Received::Binary(frame.slice(1..))),
        Some(Reply::Ack { through }) => state.backlog.ack(through, now)?,
        Some(Reply::Nack { number, code, retryable, reason }) => {
            if !std::mem::replace(has_warned, true) {
                warn!("a message is refused{}: {reason}", if retryable { ", and sent again later" } else { "" });
            }
            state.backlog.nack(number, code, retryable, reason, now)?;
        }
        Some(Reply::Hello(_)) => return Err(Nonsense("a second hello".to_owned())),
        None => return Err(Nonsense("a frame of no known kind".to_owned())),
    }
    Ok(())
}

/// What it means that this came, which is neither text nor binary.
fn ended(message: Option<Result<Message, Error>>) -> ClientError {
    match message {
        Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
            ClientError::Closed { code: code.into(), reason: reason.as_str().to_owned() }
        }
        Some(Ok(Message::Close(None))) => ClientError::Closed { code: CloseCode::Status.into(), reason: String::new() },
        Some(Ok(_)) => ClientError::Lost("the server's first word is no hello".to_owned()),
        Some(Err(error)) => lost(error),
        None => ClientError::Lost("without a closing handshake".to_owned()),
    }
}

fn lost(error: Error) -> ClientError {
    ClientError::Lost(error.to_string())
}

/// How long to wait before the next attempt.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(options: &ProducerOptions) -> Self {
        Self { min: options.backoff_min, max: options.backoff_max, next: options.backoff_min }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    fn next(&mut self, troubled: bool) -> Duration {
        let floor = if troubled { self.min * TROUBLED_FACTOR } else { self.min };
        let whole = self.next.max(floor).min(self.max);
        self.next = whole * 2;
        // Random enough to keep producers apart.
        let random = RandomState::new().hash_one(()) as f64 / u64::MAX as f64;
        whole.mul_f64(0.5 + random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_differ() {
        let options = ProducerOptions::default();
        let mut backoff = Backoff::new(&options);
        let mut before = HashSet::new();
        for whole in [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            let pause = backoff.next(false);
            assert!((whole / 2..=whole).contains(&(pause.as_micros().div_ceil(1_000))), "{pause:?} of {whole} ms");
            before.insert(pause);
        }
        assert_eq!(before.len(), 9);
        backoff.reset();
        assert!(backoff.next(true) >= Duration::from_millis(500), "ten times as long");
        backoff.reset();
        assert!(backoff.next(false) <= Duration::from_millis(100));
    }
}
