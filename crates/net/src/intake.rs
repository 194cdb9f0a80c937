//! From the messages of one producer to batches of points in the backend.

use std::sync::Arc;

use slung_model::{Point, ProducerId, SeriesId, SeriesKey, validate_point};
use tracing::{debug, warn};

use crate::backend::{Backend, WriteRefused};
use crate::keys::{CACHE_BYTES_MAX, KeyCache};
use crate::stats::{Counters, FrameRefusal, add};
use crate::wire::{self, Head, WireError};

/// How near to now a time must be, read in another unit, for that unit to be likely: a day, which a clock that is set
/// at all keeps to.
const NEAR_MICROS: u64 = 24 * 60 * 60 * 1_000_000;

/// How far the times given to events without one may run ahead of the clock, for each to have its own: 1 s. Beyond that
/// the clock was set back, and is followed.
const STAMP_AHEAD_MICROS_MAX: i64 = 1_000_000;

/// Why a message cannot be dealt with now.
#[derive(Debug, PartialEq)]
pub(crate) enum Stopped {
    /// Once more when the backend has room.
    Busy,
    /// Never.
    Storage(String),
}

/// What keeps an event from becoming a point.
enum Fault {
    Wire(WireError),
    Series(String),
    Stopped(Stopped),
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// One producer's messages on their way to the backend, in order.
pub(crate) struct Intake {
    backend: Arc<dyn Backend>,
    counters: Arc<Counters>,
    producer: ProducerId,
    keys: KeyCache,
    points: Vec<Point>,
    /// The server's clock at the start of the batch.
    now: i64,
    ahead_micros_max: i64,
    /// The last time that was given to an event that came without one.
    last_stamp: i64,
    messages: u64,
    message_bytes: u64,
    warned_of_unit: bool,
    warned_of_refusal: bool,
}

impl Intake {
    pub(crate) fn new(backend: Arc<dyn Backend>, counters: Arc<Counters>, producer: ProducerId) -> Self {
        let (now, ahead_micros_max) = (backend.now_micros(), backend.ahead_micros_max());
        Self {
            backend,
            counters,
            producer,
            keys: KeyCache::new(CACHE_BYTES_MAX),
            points: Vec::new(),
            now,
            ahead_micros_max,
            last_stamp: i64::MIN,
            messages: 0,
            message_bytes: 0,
            warned_of_unit: false,
            warned_of_refusal: false,
        }
    }

    /// How many points wait for [`Intake::store`].
    pub(crate) fn waiting(&self) -> usize {
        self.points.len()
    }

    /// Looks at the clock, once for all messages of a batch.
    pub(crate) fn start_batch(&mut self) {
        self.now = self.backend.now_micros();
    }

    /// Takes a binary message: an event, or refused and counted.
    pub(crate) fn take_binary(&mut self, frame: &[u8]) -> Result<(), Stopped> {
        let point = self.binary_point(frame);
        self.finish(point, frame.len())
    }

    /// Takes a text message: an event as JSON or in the binary layout, or refused and counted.
    pub(crate) fn take_text(&mut self, text: &str) -> Result<(), Stopped> {
        let point =
            if wire::text_is_binary_layout(text) { self.binary_point(text.as_bytes()) } else { self.json_point(text) };
        self.finish(point, text.len())
    }

    fn binary_point(&mut self, frame: &[u8]) -> Result<Point, Fault> {
        let Head { timestamp, value, key } = wire::decode_head(frame)?;
        if let Some(series) = self.keys.get(key) {
            self.validate(timestamp, value)?;
            return Ok(Point { series, timestamp, value });
        }
        let event = wire::decode_event(frame)?;
        // Before the series is made known: an event that is refused leaves nothing behind.
        self.validate(timestamp, value)?;
        let series = self.resolve(&event.to_key())?;
        self.keys.insert(key, series);
        Ok(Point { series, timestamp, value })
    }

    fn json_point(&mut self, text: &str) -> Result<Point, Fault> {
        let event = wire::decode_json_event(text)?;
        let timestamp = event.timestamp.unwrap_or_else(|| self.stamp());
        self.validate(timestamp, event.value)?;
        let mut key = Vec::new();
        event.key.encode(&mut key);
        let series = match self.keys.get(&key) {
            Some(series) => series,
            None => {
                let series = self.resolve(&event.key)?;
                self.keys.insert(&key, series);
                series
            }
        };
        Ok(Point { series, timestamp, value: event.value })
    }

    /// The server's clock, but later than the last time it was asked: there is one point per series and timestamp, so
    /// two events within a microsecond would be one.
    fn stamp(&mut self) -> i64 {
        let now = self.backend.now_micros();
        let next = self.last_stamp.saturating_add(1);
        self.last_stamp = if next > now && next - now < STAMP_AHEAD_MICROS_MAX { next } else { now };
        self.last_stamp
    }

    fn validate(&mut self, timestamp: i64, value: f64) -> Result<(), Fault> {
        validate_point(timestamp, value, self.now, self.ahead_micros_max).map_err(WireError::from)?;
        if !self.warned_of_unit && timestamp < self.now / 100 {
            self.warn_of_unit(timestamp);
        }
        Ok(())
    }

    fn warn_of_unit(&mut self, timestamp: i64) {
        for (unit, micros) in [("milliseconds", 1_000), ("seconds", 1_000_000)] {
            if timestamp.saturating_mul(micros).abs_diff(self.now) < NEAR_MICROS {
                warn!(
                    producer = self.producer.get(),
                    "timestamp {timestamp} is near 1970, but would be near now if it were {unit}: \
                     timestamps are microseconds since 1970"
                );
                self.warned_of_unit = true;
            }
        }
    }

    fn resolve(&self, key: &SeriesKey) -> Result<SeriesId, Fault> {
        self.backend.resolve(key).map_err(|refused| match refused {
            WriteRefused::Busy | WriteRefused::Full(_) => Fault::Stopped(Stopped::Busy),
            WriteRefused::Invalid(why) | WriteRefused::TooBig(why) => Fault::Series(why),
            WriteRefused::Storage(why) => Fault::Stopped(Stopped::Storage(why)),
        })
    }

    fn finish(&mut self, point: Result<Point, Fault>, bytes: usize) -> Result<(), Stopped> {
        match point {
            Ok(point) => self.points.push(point),
            Err(Fault::Wire(error)) => self.refuse(FrameRefusal::from(&error), &error),
            Err(Fault::Series(why)) => self.refuse(FrameRefusal::Series, &why),
            Err(Fault::Stopped(stopped)) => return Err(stopped),
        }
        self.messages += 1;
        self.message_bytes += bytes as u64;
        Ok(())
    }

    /// Counts a message that is not stored. The log has a connection's first, so that a broken producer can't fill it.
    fn refuse(&mut self, reason: FrameRefusal, why: &dyn std::fmt::Display) {
        self.counters.frame_refused(reason);
        if self.warned_of_refusal {
            debug!(producer = self.producer.get(), "refused: {why}");
        } else {
            self.warned_of_refusal = true;
            warn!(
                producer = self.producer.get(),
                "refused: {why}; further refusals on this connection are only counted"
            );
        }
    }

    /// Hands every point that waits to the backend, in one write. After [`Stopped::Busy`] those that are not stored
    /// still wait.
    pub(crate) fn store(&mut self) -> Result<(), Stopped> {
        add(&self.counters.messages, std::mem::take(&mut self.messages));
        add(&self.counters.message_bytes, std::mem::take(&mut self.message_bytes));
        let mut stored = 0;
        let mut points_max = self.points.len();
        let outcome = loop {
            let end = self.points.len().min(stored + points_max);
            if stored == end {
                break Ok(());
            }
            match self.backend.try_write(Some(self.producer), &self.points[stored..end]) {
                Ok(_) => {
                    add(&self.counters.events, (end - stored) as u64);
                    add(&self.counters.batches, 1);
                    stored = end;
                }
                // One of them is at fault, a write is all or nothing: each by itself, and only that one is refused.
                Err(WriteRefused::Invalid(_) | WriteRefused::TooBig(_)) if end - stored > 1 => points_max = 1,
                Err(WriteRefused::Invalid(why) | WriteRefused::TooBig(why)) => {
                    self.refuse(FrameRefusal::Backend, &why);
                    stored += 1;
                }
                Err(WriteRefused::Busy | WriteRefused::Full(_)) => break Err(Stopped::Busy),
                Err(WriteRefused::Storage(why)) => break Err(Stopped::Storage(why)),
            }
        };
        self.points.drain(..stored);
        outcome
    }
}
