//! What can be set on a producer, and why the defaults are what they are.

use std::time::Duration;

/// Options of a [`Producer`](super::Producer).
///
/// ```
/// use slung_net::client::ProducerOptions;
/// use std::time::Duration;
///
/// let options = ProducerOptions { give_up_after: Some(Duration::from_secs(30)), ..ProducerOptions::default() };
/// assert_eq!(options.batch_events_max, 1_000);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ProducerOptions {
    /// Events in one message at most, at least 1. Default 1,000: more make the server no faster, and a message in which
    /// one event is bad is sent again in parts.
    pub batch_events_max: usize,
    /// A message, bytes. Default 256 KiB, which is 16,000 points of a block. It holds at least one event, and never more
    /// than the server takes.
    pub batch_bytes_max: usize,
    /// How long an event may wait for others to share its message. Default 5 ms, as long as the server's commit takes. Only
    /// while other messages wait for their answers: otherwise it leaves at once.
    pub linger: Duration,
    /// What may be unacknowledged, bytes, events as they are on the wire; beyond it, sending waits. Default 16 MiB: some
    /// 300,000 events, which at 1,000 a second is a server that is away for five minutes.
    pub unacknowledged_bytes_max: usize,
    /// Messages from workflows that wait to be taken with [`Producer::receive`](super::Producer::receive), bytes; beyond it
    /// the oldest are dropped, and told as [`Received::Missed`](super::Received::Missed). Default 1 MiB, as much as the
    /// server keeps.
    pub received_bytes_max: usize,
    /// How long the server may take for a connection, the handshake and its first word. Default 10 s.
    pub connect_timeout: Duration,
    /// How long the server may be silent before the connection is given up for another one; three pings are sent
    /// meanwhile. Default 60 s: long enough for a server that waits for a slow disk.
    pub silence_max: Duration,
    /// The first pause before another attempt to connect; each further one is twice as long, and each is cut by up to a
    /// half, at random, so that a thousand producers don't come back at once. Ten times as long where the server has closed
    /// because its storage failed (1011) or it has too much to do (1013). Default 100 ms: a restart takes about that.
    pub backoff_min: Duration,
    /// The longest pause between two attempts to connect. Default 10 s.
    pub backoff_max: Duration,
    /// The pause before a message is sent again that the server could not take just then, its disk being full. Default
    /// 1 s: space is not there any sooner.
    pub retry_delay: Duration,
    /// Stop, with [`ClientError::GaveUp`](super::ClientError::GaveUp), when something was waiting to be acknowledged for so
    /// long and nothing was: no server, a full disk, or one that hangs. Default never: a producer that runs for months is
    /// there when its server comes back.
    pub give_up_after: Option<Duration>,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            batch_events_max: 1_000,
            batch_bytes_max: 256 * 1024,
            linger: Duration::from_millis(5),
            unacknowledged_bytes_max: 16 * 1024 * 1024,
            received_bytes_max: 1024 * 1024,
            connect_timeout: Duration::from_secs(10),
            silence_max: Duration::from_secs(60),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            retry_delay: Duration::from_secs(1),
            give_up_after: None,
        }
    }
}
