//! A point, its place in the order of writes, and what makes it acceptable.

use std::fmt;
use std::num::NonZeroU64;

use crate::SeriesId;

/// The latest timestamp that is accepted: 2^53 - 1 microseconds, which every JSON reader keeps exactly.
pub const TIMESTAMP_MAX: i64 = (1 << 53) - 1;
/// The earliest timestamp that is accepted.
pub const TIMESTAMP_MIN: i64 = -TIMESTAMP_MAX;
/// How far ahead of the server's clock a timestamp may be unless configured otherwise: 24 hours, so that one wrong
/// clock can't push a window into the next century.
pub const AHEAD_MICROS_MAX: i64 = 24 * 60 * 60 * 1_000_000;

/// One value of one series at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The series that it belongs to.
    pub series: SeriesId,
    /// Microseconds since the Unix epoch.
    pub timestamp: i64,
    /// Always finite once accepted.
    pub value: f64,
}

/// The place of a point in the order of writes: the first point written is 1, and every point takes the next number.
/// 0 stands for "nothing yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The connection that a point came by. Starts at 1 and is never used again while the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub NonZeroU64);

impl ProducerId {
    /// The id of that number; `None` for 0, which is nobody's.
    pub fn new(id: u64) -> Option<Self> {
        NonZeroU64::new(id).map(Self)
    }

    /// The number that goes into `Event.producers`.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// Why a point is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum PointError {
    /// The value is NaN or infinite.
    #[error("value {0} is not finite")]
    NotFinite(f64),
    /// The timestamp is outside of what the format takes.
    #[error("timestamp {0} is outside of -(2^53 - 1) to 2^53 - 1 microseconds since 1970")]
    OutOfRange(i64),
    /// The timestamp is too far in the future.
    #[error("timestamp {timestamp} is more than {ahead_micros_max} microseconds ahead of the server's clock ({now})")]
    Ahead {
        /// What was sent.
        timestamp: i64,
        /// The server's clock.
        now: i64,
        /// How far ahead it may be.
        ahead_micros_max: i64,
    },
}

/// The one place that decides whether a timestamp and a value are acceptable, with the clock at `now`.
///
/// # Errors
/// The first reason against it, as [`PointError`].
pub fn validate_point(timestamp: i64, value: f64, now: i64, ahead_micros_max: i64) -> Result<(), PointError> {
    if !value.is_finite() {
        return Err(PointError::NotFinite(value));
    }
    if !(TIMESTAMP_MIN..=TIMESTAMP_MAX).contains(&timestamp) {
        return Err(PointError::OutOfRange(timestamp));
    }
    if timestamp > now.saturating_add(ahead_micros_max) {
        return Err(PointError::Ahead { timestamp, now, ahead_micros_max });
    }
    Ok(())
}

/// A stretch of time; both ends belong to it. Empty where `start > end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// Microseconds since the Unix epoch.
    pub start: i64,
    /// Microseconds since the Unix epoch.
    pub end: i64,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self { start: i64::MIN, end: i64::MAX };

    /// The range between two times, whichever comes first.
    pub fn between(a: i64, b: i64) -> Self {
        Self { start: a.min(b), end: a.max(b) }
    }

    /// Whether that time belongs to it.
    pub fn contains(&self, timestamp: i64) -> bool {
        (self.start..=self.end).contains(&timestamp)
    }
}
