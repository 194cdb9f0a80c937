//! From the messages of one producer to batches of points in the backend.

use std::sync::Arc;

use slung_model::{Point, ProducerId, SeriesId, SeriesKey, validate_point};
use tracing::{debug, warn};

use crate::acks::Acks;
use crate::backend::{Backend, WriteRefused};
use crate::keys::{CACHE_BYTES_MAX, KeyCache};
use crate::producers::Outbox;
use crate::server::Shared;
use crate::stats::{Counters, FrameRefusal, add};
use crate::v1::{self, NackCode};
use crate::wire::{self, Head, WireError};

/// Points for which a connection keeps room: two full batches. A long message may have more.
const POINTS_KEPT_MAX: usize = 8_192;

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

/// What keeps a message from being stored.
enum Fault {
    Wire(WireError),
    Refused(FrameRefusal, String),
    Stopped(Stopped),
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl Fault {
    /// The fault of one event among others, from 1.
    fn of_event(self, number: usize) -> Self {
        match self {
            Self::Wire(error) => Self::Refused(FrameRefusal::from(&error), format!("event {number}: {error}")),
            Self::Refused(reason, why) => Self::Refused(reason, format!("event {number}: {why}")),
            stopped @ Self::Stopped(_) => stopped,
        }
    }
}

/// A message that is refused, to be told to a producer that asked for answers.
#[derive(Debug, PartialEq)]
pub(crate) struct Nack {
    pub(crate) number: u64,
    pub(crate) code: NackCode,
    /// Whether the same message may be taken later.
    pub(crate) retryable: bool,
    pub(crate) reason: String,
}

/// What a producer of `slung.v1` is to be told.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) acks: Acks,
    pub(crate) nacks: Vec<Nack>,
}

/// A message that waits to be stored: it is all of the points from the end of the one before.
struct Waiting {
    points_end: usize,
    /// 0 where messages have none.
    number: u64,
}

/// One producer's messages on their way to the backend, in order.
pub(crate) struct Intake {
    backend: Arc<dyn Backend>,
    counters: Arc<Counters>,
    producer: ProducerId,
    outbox: Arc<Outbox>,
    keys: KeyCache,
    points: Vec<Point>,
    waiting: Vec<Waiting>,
    /// Only where the producer asked for them.
    answers: Option<Answers>,
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
    /// `answers` is for a producer of `slung.v1`.
    pub(crate) fn new(shared: &Shared, producer: ProducerId, outbox: Arc<Outbox>, answers: Option<Answers>) -> Self {
        let backend = Arc::clone(&shared.backend);
        let (now, ahead_micros_max) = (backend.now_micros(), backend.ahead_micros_max());
        Self {
            backend,
            counters: Arc::clone(&shared.counters),
            producer,
            outbox,
            keys: KeyCache::new(CACHE_BYTES_MAX, shared.key_memory.reserve()),
            points: Vec::new(),
            waiting: Vec::new(),
            answers,
            now,
            ahead_micros_max,
            last_stamp: i64::MIN,
            messages: 0,
            message_bytes: 0,
            warned_of_unit: false,
            warned_of_refusal: false,
        }
    }

    /// How much of a batch is full: points that wait for [`Intake::store`], and messages that were refused.
    pub(crate) fn batched(&self) -> usize {
        self.points.len() + self.answers.as_ref().map_or(0, |answers| answers.nacks.len())
    }

    /// What is to be told, where the producer asked for it.
    pub(crate) fn answers(&mut self) -> Option<&mut Answers> {
        self.answers.as_mut()
    }

    /// Whether something that was stored is to be acknowledged once it is durable.
    pub(crate) fn waits_for_disk(&self) -> bool {
        self.answers.as_ref().is_some_and(|answers| answers.acks.is_waiting())
    }

    /// What the points of a long message take beyond what every connection may have, bytes.
    pub(crate) fn long_batch_bytes(&self) -> usize {
        self.points.capacity().saturating_sub(POINTS_KEPT_MAX) * size_of::<Point>()
    }

    /// Refuses every message that waits to be stored.
    pub(crate) fn refuse_waiting(&mut self, reason: FrameRefusal, why: &dyn std::fmt::Display) {
        self.points.clear();
        for Waiting { number, .. } in std::mem::take(&mut self.waiting) {
            self.refuse(number, reason, why);
        }
    }

    /// Looks at the clock, once for all messages of a batch.
    pub(crate) fn start_batch(&mut self) {
        self.now = self.backend.now_micros();
    }

    /// Gives back the memory that only makes the next message faster.
    pub(crate) fn rest(&mut self) {
        self.keys.clear();
        self.points.shrink_to_fit();
        self.waiting.shrink_to_fit();
    }

    /// Takes a binary message, or refuses and counts it. After an error it is as if it had not come.
    pub(crate) fn take_binary(&mut self, frame: &[u8]) -> Result<(), Stopped> {
        let begin = self.points.len();
        let taken = match (&self.answers, frame.split_first()) {
            (None, _) => self.event(frame),
            (Some(_), None) => Err(WireError::NoEvents.into()),
            (Some(_), Some((&v1::EVENTS, events))) => self.events(events),
            (Some(_), Some((&v1::BLOCK, block))) => self.block(block),
            (Some(_), Some((kind, _))) => {
                let why =
                    format!("a message begins with its kind, 0 (events) or 1 (series block), and not with {kind}");
                Err(Fault::Refused(FrameRefusal::Kind, why))
            }
        };
        self.finish(begin, taken, frame.len())
    }

    /// Takes a text message: an event as JSON or in the binary layout, or refused and counted. After an error it is as
    /// if it had not come.
    pub(crate) fn take_text(&mut self, text: &str) -> Result<(), Stopped> {
        let begin = self.points.len();
        let taken = if wire::text_is_binary_layout(text) { self.event(text.as_bytes()) } else { self.json_event(text) };
        self.finish(begin, taken, text.len())
    }

    fn event(&mut self, frame: &[u8]) -> Result<(), Fault> {
        let Head { timestamp, value, key } = wire::decode_head(frame)?;
        self.validate(timestamp, value)?;
        let series = match self.keys.get(key) {
            Some(series) => series,
            // Behind the other checks: an event that is refused leaves no series behind.
            None => self.resolve(key, &wire::decode_event(frame)?.to_key())?,
        };
        self.points.push(Point { series, timestamp, value });
        Ok(())
    }

    /// Events back to back.
    fn events(&mut self, mut rest: &[u8]) -> Result<(), Fault> {
        if rest.is_empty() {
            return Err(WireError::NoEvents.into());
        }
        let mut number = 1;
        while !rest.is_empty() {
            let taken = wire::event_end(rest).map_err(Fault::from).and_then(|end| {
                let event;
                (event, rest) = rest.split_at(end);
                self.event(event)
            });
            taken.map_err(|fault| fault.of_event(number))?;
            number += 1;
        }
        Ok(())
    }

    fn block(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let block = v1::decode_block(payload)?;
        let known = self.keys.get(block.key_bytes());
        let key = if known.is_none() { Some(wire::decode_key(block.key_bytes())?) } else { None };
        let begin = self.points.len();
        for (index, (timestamp, value)) in block.points().enumerate() {
            self.validate(timestamp, value).map_err(|fault| fault.of_event(index + 1))?;
            self.points.push(Point { series: known.unwrap_or(SeriesId(0)), timestamp, value });
        }
        if let Some(key) = key {
            // Behind all checks, as for an event.
            let series = self.resolve(block.key_bytes(), &key)?;
            self.points[begin..].iter_mut().for_each(|point| point.series = series);
        }
        Ok(())
    }

    fn json_event(&mut self, text: &str) -> Result<(), Fault> {
        let event = wire::decode_json_event(text)?;
        let timestamp = event.timestamp.unwrap_or_else(|| self.stamp());
        self.validate(timestamp, event.value)?;
        let mut key = Vec::new();
        event.key.encode(&mut key);
        let series = match self.keys.get(&key) {
            Some(series) => series,
            None => self.resolve(&key, &event.key)?,
        };
        self.points.push(Point { series, timestamp, value: event.value });
        Ok(())
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

    fn resolve(&mut self, bytes: &[u8], key: &SeriesKey) -> Result<SeriesId, Fault> {
        let answers = self.answers.is_some();
        let series = self.backend.resolve(key).map_err(|refused| match refused {
            WriteRefused::Full(why) if answers => Fault::Refused(FrameRefusal::DiskFull, why),
            WriteRefused::Busy | WriteRefused::Full(_) => Fault::Stopped(Stopped::Busy),
            WriteRefused::Invalid(why) | WriteRefused::TooBig(why) => Fault::Refused(FrameRefusal::Series, why),
            WriteRefused::Storage(why) => Fault::Stopped(Stopped::Storage(why)),
        })?;
        self.keys.insert(bytes, series);
        Ok(series)
    }

    fn finish(&mut self, begin: usize, taken: Result<(), Fault>, bytes: usize) -> Result<(), Stopped> {
        if taken.is_err() {
            self.points.truncate(begin);
        }
        if let Err(Fault::Stopped(stopped)) = taken {
            return Err(stopped);
        }
        let number = self.answers.as_mut().map_or(0, |answers| answers.acks.take());
        match taken {
            Ok(()) => self.waiting.push(Waiting { points_end: self.points.len(), number }),
            Err(Fault::Wire(error)) => self.refuse(number, FrameRefusal::from(&error), &error),
            Err(Fault::Refused(reason, why)) => self.refuse(number, reason, &why),
            Err(Fault::Stopped(_)) => unreachable!("returned above"),
        }
        self.messages += 1;
        self.message_bytes += bytes as u64;
        Ok(())
    }

    /// The next message is one that is refused without being looked at.
    pub(crate) fn refuse_next(&mut self, reason: FrameRefusal, why: &dyn std::fmt::Display) {
        let number = self.answers.as_mut().map_or(0, |answers| answers.acks.take());
        self.refuse(number, reason, why);
    }

    /// Counts a message that is not stored, and notes it for a producer that asked for answers. The log has a
    /// connection's first, so that a broken producer can't fill it.
    fn refuse(&mut self, number: u64, reason: FrameRefusal, why: &dyn std::fmt::Display) {
        self.counters.frame_refused(reason);
        if let Some(answers) = &mut self.answers {
            let (code, retryable) = reason.nack();
            answers.nacks.push(Nack { number, code, retryable, reason: why.to_string() });
        }
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

    /// Hands every message that waits to the backend, in one write. After [`Stopped::Busy`] those that are not stored
    /// still wait.
    pub(crate) fn store(&mut self) -> Result<(), Stopped> {
        add(&self.counters.messages, std::mem::take(&mut self.messages));
        add(&self.counters.message_bytes, std::mem::take(&mut self.message_bytes));
        let waiting = std::mem::take(&mut self.waiting);
        let (mut done, mut points_done) = (0, 0);
        let mut at_once = waiting.len();
        let outcome = loop {
            let until = waiting.len().min(done + at_once);
            let Some(Waiting { points_end, number }) = waiting[done..until].last() else { break Ok(()) };
            match self.backend.try_write(Some(self.producer), &self.points[points_done..*points_end]) {
                Ok(seq) => {
                    let events = (points_end - points_done) as u64;
                    add(&self.counters.events, events);
                    add(&self.counters.batches, 1);
                    self.outbox.stored(events, self.now);
                    if let Some(answers) = &mut self.answers {
                        answers.acks.stored(Some(seq), *number);
                    }
                }
                // One of them is at fault, a write is all or nothing: each by itself, and only that one is refused.
                Err(WriteRefused::Invalid(_) | WriteRefused::TooBig(_)) if until - done > 1 => {
                    at_once = 1;
                    continue;
                }
                Err(WriteRefused::Invalid(why)) => self.refuse(*number, FrameRefusal::Backend, &why),
                Err(WriteRefused::TooBig(why)) => self.refuse(*number, FrameRefusal::TooManyPoints, &why),
                Err(WriteRefused::Full(why)) if self.answers.is_some() => {
                    waiting[done..until].iter().for_each(|it| self.refuse(it.number, FrameRefusal::DiskFull, &why));
                }
                Err(WriteRefused::Busy | WriteRefused::Full(_)) => break Err(Stopped::Busy),
                Err(WriteRefused::Storage(why)) => break Err(Stopped::Storage(why)),
            }
            (done, points_done) = (until, *points_end);
        };
        self.waiting = waiting;
        self.waiting.drain(..done);
        self.waiting.iter_mut().for_each(|it| it.points_end -= points_done);
        self.points.drain(..points_done);
        if self.points.capacity() > POINTS_KEPT_MAX {
            self.points.shrink_to(POINTS_KEPT_MAX);
        }
        if let (Ok(()), Some(answers)) = (&outcome, &mut self.answers) {
            // What was refused behind the last that is stored.
            answers.acks.stored(None, answers.acks.taken());
        }
        outcome
    }
}
