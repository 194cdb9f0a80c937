//! What the network counts: atomics that everything here shares, and a plain snapshot for whoever renders them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use slung_model::{KeyError, PointError};

use crate::http::ErrorCode;
use crate::v1::NackCode;
use crate::wire::WireError;

/// Declares what a counter is split by: the variants, and the label of each in the metrics.
macro_rules! labelled {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// All of them, in the order of the snapshot.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The value of the label in the metrics.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

pub(crate) use labelled;

labelled! {
    /// Why a message of a producer was not stored.
    FrameRefusal {
        /// It ends before the event does.
        Short = "short",
        /// Something follows the last tag.
        Long = "long",
        /// Name or tag of a binary event is not UTF-8.
        NotUtf8 = "not_utf8",
        /// No series name.
        EmptyName = "empty_name",
        /// The series name is over the limit.
        NameTooLong = "name_too_long",
        /// Too many tags.
        TooManyTags = "too_many_tags",
        /// A tag is over the limit.
        TagTooLong = "tag_too_long",
        /// A control character in name or tag.
        ControlCharacter = "control_character",
        /// The value is NaN or infinite.
        NotFinite = "not_finite",
        /// The timestamp does not fit into 53 bits.
        TimestampOutOfRange = "timestamp_out_of_range",
        /// The timestamp is too far in the future.
        TimestampAhead = "timestamp_ahead",
        /// A message of `slung.v1` without events.
        NoEvents = "no_events",
        /// A message of `slung.v1` of a kind that does not exist.
        Kind = "kind",
        /// A text that is neither an event as JSON nor in the binary layout.
        Json = "json",
        /// The backend takes no such series, because there are too many for instance.
        Series = "series_refused",
        /// The backend refused the point for a reason of its own.
        Backend = "backend",
        /// The disk is full; the producer was told to try again.
        DiskFull = "disk_full",
        /// Storage has failed; the connection was closed with 1011.
        StorageFailed = "storage_failed",
        /// More points than can be stored at once.
        TooManyPoints = "too_many_points",
        /// The message is over the limit; the connection was closed with 1009.
        TooBig = "too_big",
        /// A text message that is not UTF-8; the connection was closed with 1007.
        TextNotUtf8 = "text_not_utf8",
    }
}

impl From<&WireError> for FrameRefusal {
    fn from(error: &WireError) -> Self {
        match error {
            WireError::Short { .. } => Self::Short,
            WireError::Long { .. } => Self::Long,
            WireError::NotUtf8 { .. } => Self::NotUtf8,
            WireError::Key(KeyError::EmptyName) => Self::EmptyName,
            WireError::Key(KeyError::NameTooLong(_)) => Self::NameTooLong,
            WireError::Key(KeyError::TooManyTags(_)) => Self::TooManyTags,
            WireError::Key(KeyError::TagTooLong { .. }) => Self::TagTooLong,
            WireError::Key(KeyError::ControlCharacter { .. }) => Self::ControlCharacter,
            WireError::Point(PointError::NotFinite(_)) => Self::NotFinite,
            WireError::Point(PointError::OutOfRange(_)) => Self::TimestampOutOfRange,
            WireError::Point(PointError::Ahead { .. }) => Self::TimestampAhead,
            WireError::NoEvents => Self::NoEvents,
            WireError::Json(_) => Self::Json,
        }
    }
}

impl FrameRefusal {
    /// How a producer of `slung.v1` is told, and whether the same message may be taken later.
    pub(crate) fn nack(self) -> (NackCode, bool) {
        match self {
            Self::TooBig | Self::TooManyPoints => (NackCode::TooBig, false),
            Self::Series => (NackCode::TooManySeries, false),
            Self::DiskFull | Self::StorageFailed => (NackCode::Storage, true),
            // What the backend refuses although it was validated is ahead of a clock that was set back since.
            Self::TimestampOutOfRange | Self::TimestampAhead | Self::Backend => (NackCode::Timestamp, false),
            Self::NotFinite => (NackCode::NotFinite, false),
            _ => (NackCode::Malformed, false),
        }
    }
}

labelled! {
    /// Why a message to a producer did not go out.
    WritebackFailure {
        /// There is no such connection, or it is closing.
        NoSuchProducer = "no_such_producer",
        /// The producer reads more slowly than workflows write.
        QueueFull = "queue_full",
        /// The message alone is larger than a queue.
        TooBig = "too_big",
        /// Everything in flight takes as much memory as it may.
        NoMemory = "no_memory",
        /// It was queued when the connection ended.
        ConnectionLost = "connection_lost",
    }
}

labelled! {
    /// What an HTTP request was for.
    Route {
        /// `/`: producers' WebSockets, and people who try it with something else.
        Producers = "/",
        /// `/health`
        Health = "/health",
        /// `/api/v1/events`
        Events = "/api/v1/events",
        /// `/api/v1/query`
        Query = "/api/v1/query",
        /// `/api/v1/points`
        Points = "/api/v1/points",
        /// `/api/v1/series`
        Series = "/api/v1/series",
        /// `/api/v1/tags`
        Tags = "/api/v1/tags",
        /// `/api/v1/producers`
        ProducerList = "/api/v1/producers",
        /// `/api/v1/delete`
        Delete = "/api/v1/delete",
        /// `/api/v1/live`
        Live = "/api/v1/live",
        /// `/api/v1/workflows`
        Workflows = "/api/v1/workflows",
        /// `/api/v1/workflows/NAME`, whatever the name.
        Workflow = "/api/v1/workflows/{name}",
        /// `/api/v1/workflows/NAME/rollback`
        WorkflowRollback = "/api/v1/workflows/{name}/rollback",
        /// `/api/v1/workflows/NAME/stop`
        WorkflowStop = "/api/v1/workflows/{name}/stop",
        /// `/api/v1/workflows/NAME/start`
        WorkflowStart = "/api/v1/workflows/{name}/start",
        /// `/api/v1/workflows/NAME/log`
        WorkflowLog = "/api/v1/workflows/{name}/log",
        /// `/metrics`
        Metrics = "/metrics",
        /// Any other path.
        Other = "other",
    }
}

labelled! {
    /// How a call of a workflow to the outside ended.
    OutboundOutcome {
        /// Answered with 2xx.
        Success = "success",
        /// Answered with another status.
        Status = "status",
        /// The URL is malformed or in a spelling that is refused.
        BadUrl = "bad_url",
        /// No rule allows that address or port.
        Refused = "refused",
        /// The name has no address.
        Resolve = "resolve",
        /// No connection, or no TLS on it.
        Connect = "connect",
        /// It took too long.
        TimedOut = "timed_out",
        /// The request body is over the limit.
        RequestTooBig = "request_too_big",
        /// The response body is over the limit.
        ResponseTooBig = "response_too_big",
        /// The connection broke, or what came was not HTTP.
        Http = "http",
    }
}

/// The first digit of a status, as far as HTTP has them.
const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Everything that the network counts since the process started. One value is shared by [`crate::Producers`],
/// [`crate::Server`] and [`crate::HttpClient`].
#[derive(Debug, Default)]
pub struct Counters {
    pub(crate) connections_now: AtomicU64,
    pub(crate) connections_total: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) producers_now: AtomicU64,
    pub(crate) producers_total: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) message_bytes: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) busy_waits: AtomicU64,
    pub(crate) acks: AtomicU64,
    pub(crate) slow_readers: AtomicU64,
    pub(crate) idle_closed: AtomicU64,
    pub(crate) no_memory: AtomicU64,
    pub(crate) connections_refused_by_address: AtomicU64,
    pub(crate) writebacks_sent: AtomicU64,
    pub(crate) live_streams_now: AtomicU64,
    pub(crate) live_streams_total: AtomicU64,
    pub(crate) live_streams_refused: AtomicU64,
    pub(crate) live_updates: AtomicU64,
    pub(crate) http_events: AtomicU64,
    pub(crate) http_event_bytes: AtomicU64,
    frames_refused: [AtomicU64; FrameRefusal::ALL.len()],
    writebacks_failed: [AtomicU64; WritebackFailure::ALL.len()],
    http_requests: [[AtomicU64; STATUS_CLASSES.len()]; Route::ALL.len()],
    http_refused: PerCode,
    outbound_calls: [AtomicU64; OutboundOutcome::ALL.len()],
}

/// A count for each code; so many that arrays have no default.
#[derive(Debug)]
struct PerCode([AtomicU64; ErrorCode::ALL.len()]);

impl Default for PerCode {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Relaxed);
}

impl Counters {
    pub(crate) fn frame_refused(&self, reason: FrameRefusal) {
        add(&self.frames_refused[reason as usize], 1);
    }

    pub(crate) fn writebacks_failed(&self, reason: WritebackFailure, count: u64) {
        add(&self.writebacks_failed[reason as usize], count);
    }

    pub(crate) fn http_request(&self, route: Route, status: u16) {
        let class = usize::from(status / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        add(&self.http_requests[route as usize][class], 1);
    }

    pub(crate) fn http_refused(&self, code: ErrorCode) {
        add(&self.http_refused.0[code as usize], 1);
    }

    pub(crate) fn outbound_call(&self, outcome: OutboundOutcome) {
        add(&self.outbound_calls[outcome as usize], 1);
    }

    /// Reads every counter. Each is right by itself; together they are not of one instant.
    pub fn snapshot(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        Stats {
            connections_now: read(&self.connections_now),
            connections_total: read(&self.connections_total),
            connections_refused: read(&self.connections_refused),
            producers_now: read(&self.producers_now),
            producers_total: read(&self.producers_total),
            messages: read(&self.messages),
            message_bytes: read(&self.message_bytes),
            events: read(&self.events),
            batches: read(&self.batches),
            busy_waits: read(&self.busy_waits),
            acks: read(&self.acks),
            slow_readers: read(&self.slow_readers),
            idle_closed: read(&self.idle_closed),
            no_memory: read(&self.no_memory),
            connections_refused_by_address: read(&self.connections_refused_by_address),
            frames_refused: rows(FrameRefusal::ALL, FrameRefusal::label, &self.frames_refused),
            writebacks_sent: read(&self.writebacks_sent),
            live_streams_now: read(&self.live_streams_now),
            live_streams_total: read(&self.live_streams_total),
            live_streams_refused: read(&self.live_streams_refused),
            live_updates: read(&self.live_updates),
            writebacks_failed: rows(WritebackFailure::ALL, WritebackFailure::label, &self.writebacks_failed),
            http_requests: Route::ALL
                .iter()
                .zip(&self.http_requests)
                .flat_map(|(route, classes)| {
                    STATUS_CLASSES.iter().zip(classes).map(|(class, count)| (route.label(), *class, read(count)))
                })
                .filter(|(_, _, count)| *count > 0)
                .collect(),
            http_events: read(&self.http_events),
            http_event_bytes: read(&self.http_event_bytes),
            http_refused: rows(ErrorCode::ALL, ErrorCode::label, &self.http_refused.0),
            outbound_calls: rows(OutboundOutcome::ALL, OutboundOutcome::label, &self.outbound_calls),
        }
    }
}

fn rows<T: Copy>(all: &[T], label: fn(T) -> &'static str, counts: &[AtomicU64]) -> Vec<(&'static str, u64)> {
    all.iter().zip(counts).map(|(row, count)| (label(*row), count.load(Relaxed))).collect()
}

/// A snapshot of [`Counters`]. `_now` goes up and down, all others only up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Connections that are open, producers included.
    pub connections_now: u64,
    /// Connections that were accepted.
    pub connections_total: u64,
    /// Connections that were turned away with 503, because there were too many.
    pub connections_refused: u64,
    /// Producers that are connected.
    pub producers_now: u64,
    /// Producers that have connected; also the newest producer id.
    pub producers_total: u64,
    /// Messages from producers, refused ones included.
    pub messages: u64,
    /// Bytes in them.
    pub message_bytes: u64,
    /// Events that the backend has taken.
    pub events: u64,
    /// Writes to the backend that it took; `events / batches` is how many events one write carries.
    pub batches: u64,
    /// How often the backend had no room and a socket was not read for that.
    pub busy_waits: u64,
    /// Acks that were sent to producers of `slung.v1`; each may stand for many messages.
    pub acks: u64,
    /// Connections that were closed because they did not take what was written to them.
    pub slow_readers: u64,
    /// Connections that were closed because nothing was heard of them.
    pub idle_closed: u64,
    /// Connections that were closed because everything in flight took as much memory as it may.
    pub no_memory: u64,
    /// Connections that were turned away because there were too many from one address.
    pub connections_refused_by_address: u64,
    /// Messages from producers that were not stored, by the label of [`FrameRefusal`]; every label is there.
    pub frames_refused: Vec<(&'static str, u64)>,
    /// Messages to producers that were queued on their connection.
    pub writebacks_sent: u64,
    /// Messages to producers that did not go out, by the label of [`WritebackFailure`]; every label is there.
    /// `connection_lost` was counted as sent before.
    pub writebacks_failed: Vec<(&'static str, u64)>,
    /// Live queries and logs that are streamed over HTTP.
    pub live_streams_now: u64,
    /// Those that were begun.
    pub live_streams_total: u64,
    /// Those that were answered 503, because there were too many.
    pub live_streams_refused: u64,
    /// Updates of live queries that went into such a stream.
    pub live_updates: u64,
    /// HTTP requests by the label of [`Route`] and the class of the status (`2xx`); only those that occurred.
    pub http_requests: Vec<(&'static str, &'static str, u64)>,
    /// Events that came by HTTP and that the backend has taken.
    pub http_events: u64,
    /// Bytes of the bodies that they came in, refused ones included, before decoding.
    pub http_event_bytes: u64,
    /// HTTP requests that were answered with an error, by the label of [`ErrorCode`]; every label is there.
    pub http_refused: Vec<(&'static str, u64)>,
    /// Calls of workflows to the outside, by the label of [`OutboundOutcome`]; every label is there.
    pub outbound_calls: Vec<(&'static str, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_count_stands_at_its_label() {
        let counters = Counters::default();
        for (index, reason) in FrameRefusal::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            (0..=index).for_each(|_| counters.frame_refused(*reason));
        }
        counters.http_request(Route::Query, 400);
        counters.http_request(Route::Producers, 101);
        counters.writebacks_failed(WritebackFailure::ConnectionLost, 3);
        let stats = counters.snapshot();
        assert_eq!(stats.frames_refused[0], ("short", 1));
        assert_eq!(stats.frames_refused[8], ("not_finite", 9));
        assert_eq!(stats.http_requests, [("/", "1xx", 1), ("/api/v1/query", "4xx", 1)]);
        assert_eq!(stats.writebacks_failed.last(), Some(&("connection_lost", 3)));
    }
}
