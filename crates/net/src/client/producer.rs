//! A producer whose events get there: what its user holds. The connection is `link`'s, what is kept until it is
//! acknowledged is `backlog`'s.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slung_model::{SeriesKey, TIMESTAMP_MAX, validate_point};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::backlog::{Backlog, Progress, Refused};
use super::inbox::Inbox;
use super::link::Link;
use super::{CLOSE_TIMEOUT, ClientError, ProducerOptions, Received};

/// A producer that speaks `slung.v1`: it collects events into messages, keeps them until the server has acknowledged that
/// they are durable, and connects and sends again for as long as that takes.
///
/// Events reach the store in the order in which they were sent, also over lost connections: of two with the same series and
/// timestamp the later one wins. An event may be seen by a workflow more than once. Two producers know nothing of each
/// other, and neither does a server of the connection that was there before: where one is lost while the server lives on,
/// what it had received last may be stored after what was sent on the next one.
///
/// Cloning gives another handle to the same producer. Once the last one is dropped the connection ends, and what is not
/// acknowledged by then may not be stored: [`Producer::close`] waits for it. It runs on the tokio runtime in which it was
/// connected.
///
/// ```no_run
/// use slung_model::SeriesKey;
/// use slung_net::client::{Producer, ProducerOptions};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let producer = Producer::connect("ws://127.0.0.1:2077/", ProducerOptions::default()).await?;
/// let key = SeriesKey::new("temp", ["sensor=1"])?;
/// producer.send(1_700_000_000_000_000, 21.5, &key).await?;
/// producer.send_block(&key, &[(1_700_000_000_000_001, 21.6), (1_700_000_000_000_002, 21.4)]).await?;
/// producer.flush().await?; // all three survive a power cut now
/// producer.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Producer(Arc<Owner>);

/// Ends the task with the last handle.
struct Owner {
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What handles and the task have in common.
pub(super) struct Shared {
    state: Mutex<State>,
    /// For handles: something was acknowledged, received, or has come to an end.
    pub(super) changed: Notify,
    /// For the task: there is something to send, or the end was asked for.
    pub(super) work: Notify,
}

pub(super) struct State {
    pub(super) backlog: Backlog,
    pub(super) inbox: Inbox,
    /// Close once nothing is left to send.
    pub(super) is_closing: bool,
    pub(super) end: Option<End>,
}

/// How a producer has ended.
#[derive(Debug, Clone)]
pub(super) enum End {
    Closed,
    GaveUp { after: Duration, what: String },
}

impl Shared {
    /// Nothing in this crate panics while it holds the lock, so what a poisoned one guards is whole.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

impl Producer {
    /// Connects to a server, `ws://HOST:PORT/`. This first time there has to be one: only afterwards a lost connection is
    /// replaced.
    ///
    /// # Errors
    /// [`ClientError::Url`], [`ClientError::Connect`] where nobody listens or does not speak `slung.v1`,
    /// [`ClientError::TimedOut`], [`ClientError::Lost`] and [`ClientError::Closed`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// Dropping it gives the attempt up.
    pub async fn connect(url: &str, options: ProducerOptions) -> Result<Self, ClientError> {
        let state = State {
            backlog: Backlog::new(&options),
            inbox: Inbox::new(options.received_bytes_max),
            is_closing: false,
            end: None,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new(), work: Notify::new() });
        let link = Link::new(url, options, Arc::clone(&shared));
        let first = link.connect().await?;
        let task = tokio::spawn(link.run(first)).abort_handle();
        Ok(Self(Arc::new(Owner { shared, task })))
    }

    /// Takes an event: `timestamp` in microseconds since 1970, and a finite value. It leaves with others, soon. Answers its
    /// number: the first one is 1, and every event takes the next. Waits while too much is unacknowledged
    /// ([`ProducerOptions::unacknowledged_bytes_max`]), which is how a slow server, or none, holds back who sends.
    ///
    /// # Errors
    /// [`ClientError::Event`] where no server would take it; [`ClientError::GaveUp`] and [`ClientError::Ended`] for good.
    ///
    /// # Cancel safety
    /// The event is taken when this is ready, and not otherwise.
    pub async fn send(&self, timestamp: i64, value: f64, key: &SeriesKey) -> Result<u64, ClientError> {
        check(timestamp, value)?;
        self.take(|backlog| backlog.push(timestamp, value, key, Instant::now())).await
    }

    /// Takes many points of one series, timestamp and value each, which is less to send and less to read than as many
    /// events. Answers the number of the last one. Otherwise as [`Producer::send`].
    ///
    /// # Errors
    /// As there. Where one point is not acceptable none is taken.
    ///
    /// # Cancel safety
    /// The first so many points may have been taken; [`Producer::progress`] tells how many.
    pub async fn send_block(&self, key: &SeriesKey, points: &[(i64, f64)]) -> Result<u64, ClientError> {
        points.iter().try_for_each(|(timestamp, value)| check(*timestamp, *value))?;
        let (mut taken, mut last) = (0, self.open()?.backlog.progress().taken);
        while taken < points.len() {
            let more;
            (more, last) = self.take(|backlog| backlog.push_block(key, &points[taken..], Instant::now())).await?;
            taken += more;
        }
        Ok(last)
    }

    /// Waits for room, and does it.
    async fn take<T>(&self, mut push: impl FnMut(&mut Backlog) -> Option<T>) -> Result<T, ClientError> {
        // Lets the connection have its turn where a sender never waits, on a runtime of one thread.
        tokio::task::coop::consume_budget().await;
        let Shared { changed, work, .. } = &*self.0.shared;
        loop {
            // Before the attempt: what happens after it must be seen.
            let changed = changed.notified();
            {
                let mut state = self.open()?;
                if let Some(taken) = push(&mut state.backlog) {
                    if state.backlog.wants_attention() {
                        work.notify_one();
                    }
                    return Ok(taken);
                }
            }
            changed.await;
        }
    }

    /// Sends what has been taken so far, from all handles, and waits until the server has acknowledged it: it is durable
    /// then, and visible to queries.
    ///
    /// # Errors
    /// [`ClientError::Refused`] where the server has refused events since this was last told, here or by
    /// [`Producer::take_refused`]; all others are durable also then. [`ClientError::GaveUp`], [`ClientError::Ended`].
    ///
    /// # Cancel safety
    /// Nothing is lost; call it again.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let target = self.progress().taken;
        loop {
            let changed = self.0.shared.changed.notified();
            {
                let mut state = self.0.shared.lock();
                if state.backlog.is_settled(target) {
                    return state.backlog.take_refused().map_or(Ok(()), |refused| Err(refused.into()));
                }
                self.ended(&state)?;
                state.backlog.hurry();
            }
            self.0.shared.work.notify_one();
            changed.await;
        }
    }

    /// The next message of a workflow, now or later; `None` once the producer is closed and no more are left. Nobody has to
    /// take them: the oldest are dropped then. Several handles get different ones.
    ///
    /// Workflows answer a connection, not a producer: what they send to one that was lost does not arrive on the next.
    ///
    /// # Errors
    /// [`ClientError::GaveUp`]
    ///
    /// # Cancel safety
    /// No message is lost.
    pub async fn receive(&self) -> Result<Option<Received>, ClientError> {
        loop {
            let changed = self.0.shared.changed.notified();
            {
                let mut state = self.0.shared.lock();
                if let Some(message) = state.inbox.pop() {
                    return Ok(Some(message));
                }
                match self.ended(&state) {
                    Err(ClientError::Ended) => return Ok(None),
                    other => other?,
                }
            }
            changed.await;
        }
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        self.0.shared.lock().backlog.progress()
    }

    /// The events that were refused since this was last asked, or [`Producer::flush`] last told; `None` if there are none.
    /// For a producer that never flushes: who calls neither finds them in the log alone.
    pub fn take_refused(&self) -> Option<Refused> {
        self.0.shared.lock().backlog.take_refused()
    }

    /// Takes no more events, waits until all are acknowledged, as [`Producer::flush`] does, and closes the connection. A
    /// message that was on its way can still be received.
    ///
    /// # Errors
    /// As for [`Producer::flush`]; it is closed also where events were refused.
    ///
    /// # Cancel safety
    /// Nothing is lost; call it again.
    pub async fn close(&self) -> Result<(), ClientError> {
        self.0.shared.lock().is_closing = true;
        let flushed = self.flush().await;
        if !matches!(flushed, Ok(()) | Err(ClientError::Refused(_))) {
            return flushed;
        }
        self.0.shared.work.notify_one();
        let closed = async {
            loop {
                let changed = self.0.shared.changed.notified();
                if self.0.shared.lock().end.is_some() {
                    return;
                }
                changed.await;
            }
        };
        // All is durable: a server that does not say goodbye is no failure.
        if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            self.0.task.abort();
        }
        flushed
    }

    /// The state, if events are still taken.
    fn open(&self) -> Result<MutexGuard<'_, State>, ClientError> {
        let state = self.0.shared.lock();
        self.ended(&state)?;
        if state.is_closing { Err(ClientError::Ended) } else { Ok(state) }
    }

    fn ended(&self, state: &State) -> Result<(), ClientError> {
        match &state.end {
            None => Ok(()),
            Some(End::Closed) => Err(ClientError::Ended),
            Some(End::GaveUp { after, what }) => Err(ClientError::GaveUp { after: *after, what: what.clone() }),
        }
    }
}

/// What needs no server to be refused. Its clock is not known here.
fn check(timestamp: i64, value: f64) -> Result<(), ClientError> {
    Ok(validate_point(timestamp, value, TIMESTAMP_MAX, 0)?)
}
