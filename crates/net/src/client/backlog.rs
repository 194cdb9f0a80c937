//! What a producer has taken and the server has not confirmed: which message goes next, and what an answer means. It
//! decides only; the time comes in as an argument.
//!
//! The order is kept whatever happens, so that of two events of one series and time the later one wins. A message that is
//! refused holds back what comes after it: once all that is on its way is answered, it is sent again, or its parts, and
//! then everything behind it, also what was taken the first time.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use slung_model::SeriesKey;
use tokio::time::Instant;

use super::ProducerOptions;
use crate::v1::{self, Hello, NackCode};
use crate::wire;

/// What a kept message costs beside its own bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 128;
/// Into how many parts a refused message is cut: of 1,000 events each is alone after two cuts.
const PARTS: usize = 32;
/// Reports of refused events that are kept until somebody takes them. More are counted.
const REPORTS_MAX: usize = 1_000;
/// A timestamp and a value in a block.
const POINT_BYTES: usize = 16;

/// How far a producer has come. Every event that was taken is acknowledged, refused, or neither yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Events taken.
    pub taken: u64,
    /// Events of those that are durable and visible to queries.
    pub acknowledged: u64,
    /// Events of those that the server has refused for good.
    pub refused: u64,
}

/// Events that a server has refused for good. All that is not in it is stored, or is on its way.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub struct Refused {
    /// How many.
    pub count: u64,
    /// The first 1,000 of them that were refused, by their numbers.
    pub events: Vec<RefusedEvent>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.count, self.events.first()) {
            (1, Some(event)) => write!(f, "the server has refused {event}"),
            (count, Some(event)) => write!(f, "the server has refused {count} events, the first is {event}"),
            (count, None) => write!(f, "the server has refused {count} events"),
        }
    }
}

/// An event that a server has refused for good.
#[derive(Debug, Clone, PartialEq)]
pub struct RefusedEvent {
    /// Which one it is: the first that this producer has taken is 1, and so on, as [`send`](super::Producer::send)
    /// answers.
    pub number: u64,
    /// Its series.
    pub key: SeriesKey,
    /// Microseconds since 1970.
    pub timestamp: i64,
    /// Its value.
    pub value: f64,
    /// Why, as [`NackCode`] has it.
    pub code: u16,
    /// Why, in the server's words.
    pub reason: String,
}

impl fmt::Display for RefusedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, key, timestamp, value, code, reason } = self;
        write!(f, "event {number} ({key}, {timestamp}, {value}): {reason} (code {code})")
    }
}

/// An answer that can't be: the connection is not to be trusted.
#[derive(Debug, PartialEq)]
pub(super) struct Nonsense(pub(super) String);

/// What there is to send.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// This message, now.
    Send(Bytes),
    /// Nothing before that time, if nothing else happens.
    At(Instant),
    /// Nothing, if nothing else happens.
    Nothing,
}

#[derive(Debug, Clone, PartialEq)]
struct Nack {
    code: u16,
    retryable: bool,
    reason: String,
}

/// A message as it goes out.
#[derive(Debug)]
struct Kept {
    message: Bytes,
    /// The number of its first event.
    first: u64,
    events: usize,
    /// It was refused on this connection.
    nack: Option<Nack>,
}

/// The message that still takes events.
#[derive(Debug, Default)]
struct Open {
    message: Vec<u8>,
    events: usize,
    since: Option<Instant>,
    /// Somebody waits for it.
    urgent: bool,
}

#[derive(Debug)]
pub(super) struct Backlog {
    batch_events_max: usize,
    batch_bytes_max: usize,
    bytes_max: usize,
    linger: Duration,
    retry_delay: Duration,
    open: Open,
    /// In order. The first `sent` of them are on their way.
    kept: VecDeque<Kept>,
    /// What all of it costs.
    bytes: usize,
    progress: Progress,
    reports: Vec<RefusedEvent>,
    /// Refused, and in no report that was taken.
    unreported: u64,
    /// Since when something waits and nothing was acknowledged.
    waiting_since: Option<Instant>,

    /// The rest is about this connection. The number of the first message that is kept.
    base: u64,
    sent: usize,
    /// So many of those sent are acknowledged, but stand behind one that is not.
    acked: usize,
    /// One of those sent is refused.
    is_held: bool,
    hold_until: Option<Instant>,
    window: usize,
    message_bytes_max: usize,
}

impl Backlog {
    pub(super) fn new(options: &ProducerOptions) -> Self {
        Self {
            batch_events_max: options.batch_events_max.max(1),
            batch_bytes_max: options.batch_bytes_max,
            bytes_max: options.unacknowledged_bytes_max,
            linger: options.linger,
            retry_delay: options.retry_delay,
            open: Open::default(),
            kept: VecDeque::new(),
            bytes: 0,
            progress: Progress::default(),
            reports: Vec::new(),
            unreported: 0,
            waiting_since: None,
            base: 1,
            sent: 0,
            acked: 0,
            is_held: false,
            hold_until: None,
            window: 1,
            message_bytes_max: usize::MAX,
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.open.events == 0
    }

    /// Whether every event up to that number is acknowledged or refused.
    pub(super) fn is_settled(&self, number: u64) -> bool {
        let open_first = self.progress.taken + 1 - self.open.events as u64;
        self.kept.front().map_or(open_first, |kept| kept.first) > number
    }

    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.waiting_since
    }

    pub(super) fn take_refused(&mut self) -> Option<Refused> {
        let (count, mut events) = (std::mem::take(&mut self.unreported), std::mem::take(&mut self.reports));
        events.sort_unstable_by_key(|event| event.number);
        (count > 0).then_some(Refused { count, events })
    }

    fn has_room(&self) -> bool {
        self.bytes < self.bytes_max || self.is_empty()
    }

    /// Takes an event, and answers its number; `None` where there is no room now.
    pub(super) fn push(&mut self, timestamp: i64, value: f64, key: &SeriesKey, now: Instant) -> Option<u64> {
        if !self.has_room() {
            return None;
        }
        let before = self.open.message.len();
        if self.open.events == 0 {
            self.open.message.push(v1::EVENTS);
            self.open.since = Some(now);
            self.bytes += MESSAGE_OVERHEAD_BYTES;
        }
        wire::encode_event(timestamp, value, key, &mut self.open.message);
        self.bytes += self.open.message.len() - before;
        self.open.events += 1;
        self.progress.taken += 1;
        self.waiting_since.get_or_insert(now);
        // The next one would be as long.
        let next = self.open.message.len() - before;
        if self.open.events >= self.batch_events_max || self.open.message.len() + next > self.batch_bytes_max {
            self.seal();
        }
        Some(self.progress.taken)
    }

    /// Takes as many points as fit into one message, and answers how many, and the number of the last; `None` where there
    /// is no room now.
    pub(super) fn push_block(&mut self, key: &SeriesKey, points: &[(i64, f64)], now: Instant) -> Option<(usize, u64)> {
        if !self.has_room() {
            return None;
        }
        self.seal();
        let key_bytes = 9 + key.name().len() + key.tags().map(|tag| 2 + tag.len()).sum::<usize>();
        let points_max = (self.batch_bytes_max.saturating_sub(key_bytes) / POINT_BYTES).max(1);
        let points = &points[..points.len().min(points_max)];
        let mut message = Vec::with_capacity(key_bytes + POINT_BYTES * points.len());
        v1::encode_block(key, points, &mut message);
        self.bytes += message.len() + MESSAGE_OVERHEAD_BYTES;
        let first = self.progress.taken + 1;
        self.kept.push_back(Kept { message: message.into(), first, events: points.len(), nack: None });
        self.progress.taken += points.len() as u64;
        self.waiting_since.get_or_insert(now);
        Some((points.len(), self.progress.taken))
    }

    /// Whether something has just begun to wait, or is ready to be sent, that was not before the last event.
    pub(super) fn wants_attention(&self) -> bool {
        self.open.events <= 1
    }

    /// No more events join those that wait now.
    pub(super) fn hurry(&mut self) {
        self.open.urgent = self.open.events > 0;
    }

    fn seal(&mut self) {
        let Open { message, events, .. } = std::mem::take(&mut self.open);
        if events > 0 {
            self.open.message.reserve(message.len());
            let first = self.progress.taken + 1 - events as u64;
            self.kept.push_back(Kept { message: message.into(), first, events, nack: None });
        }
    }

    /// A connection begins; everything is to be sent on it.
    pub(super) fn connected(&mut self, hello: Hello) {
        self.window = (hello.window as usize).max(1);
        self.message_bytes_max = hello.message_bytes_max as usize;
    }

    /// The connection is gone. What it left open is to be sent again.
    pub(super) fn disconnected(&mut self, now: Instant) {
        self.rewind(now);
        (self.base, self.hold_until) = (1, None);
    }

    /// What to send next. Whoever takes a message must send it.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        if self.is_held || self.sent >= self.window {
            return Next::Nothing;
        }
        if let Some(until) = self.hold_until.filter(|until| *until > now) {
            return Next::At(until);
        }
        self.hold_until = None;
        if self.sent == self.kept.len() {
            let Some(since) = self.open.since else { return Next::Nothing };
            if !self.open.urgent && self.sent > 0 && since + self.linger > now {
                return Next::At(since + self.linger);
            }
            self.seal();
        }
        self.fit_next(now);
        let Some(kept) = self.kept.get(self.sent) else { return Next::Nothing };
        self.sent += 1;
        Next::Send(kept.message.clone())
    }

    /// Cuts the next message until this server takes it. Another one may have taken longer ones.
    fn fit_next(&mut self, now: Instant) {
        while let Some(kept) = self.kept.get(self.sent).filter(|kept| kept.message.len() > self.message_bytes_max) {
            let (bytes, max) = (kept.message.len(), self.message_bytes_max);
            let kept = self.kept.remove(self.sent).expect("it was looked at");
            self.bytes -= cost(&kept);
            if kept.events == 1 {
                let reason = format!("a message of {bytes} bytes, and this server takes no more than {max}");
                self.refuse(&kept, Nack { code: NackCode::TooBig as u16, retryable: false, reason }, now);
                continue;
            }
            for (index, part) in split(&kept).into_iter().enumerate() {
                self.bytes += cost(&part);
                self.kept.insert(self.sent + index, part);
            }
        }
    }

    /// Every message up to that one is durable, or was refused before.
    pub(super) fn ack(&mut self, through: u64, now: Instant) -> Result<(), Nonsense> {
        let end = self.base + self.sent as u64;
        if through >= end {
            return Err(Nonsense(format!("an acknowledgement of message {through}, but {} were sent", end - 1)));
        }
        // Below `base` it says nothing new.
        let acked = (through + 1).saturating_sub(self.base) as usize;
        self.acked = self.acked.max(acked);
        self.settle(now);
        Ok(())
    }

    /// One message is refused.
    pub(super) fn nack(
        &mut self,
        number: u64,
        code: u16,
        retryable: bool,
        reason: &str,
        now: Instant,
    ) -> Result<(), Nonsense> {
        let index = number.checked_sub(self.base).and_then(|index| usize::try_from(index).ok());
        let Some(index) = index.filter(|index| (self.acked..self.sent).contains(index)) else {
            return Err(Nonsense(format!("message {number} is refused, which is not waiting for an answer")));
        };
        self.kept[index].nack.get_or_insert_with(|| Nack { code, retryable, reason: reason.to_owned() });
        self.is_held = true;
        self.settle(now);
        Ok(())
    }

    /// Lets go of what is done at the front, and begins again behind it where something has to be sent once more and all
    /// that is on its way is answered.
    fn settle(&mut self, now: Instant) {
        while self.sent > 0 {
            let front = &self.kept[0];
            match &front.nack {
                None if self.acked > 0 => {}
                Some(nack) if !nack.retryable && front.events == 1 => {}
                _ => break,
            }
            let mut front = self.kept.pop_front().expect("it was looked at");
            self.bytes -= cost(&front);
            (self.base, self.sent, self.acked) = (self.base + 1, self.sent - 1, self.acked.saturating_sub(1));
            match front.nack.take() {
                None => {
                    self.progress.acknowledged += front.events as u64;
                    self.progressed(now);
                }
                Some(nack) => self.refuse(&front, nack, now),
            }
        }
        if !self.is_held {
            return;
        }
        let sent = self.kept.iter().take(self.sent).enumerate();
        if sent.clone().all(|(_, kept)| kept.nack.is_none()) {
            self.is_held = false;
        } else if sent.clone().all(|(index, kept)| index < self.acked || kept.nack.is_some()) {
            self.rewind(now);
        }
    }

    /// Everything that was sent is to be sent again: messages that were refused for good in parts, single events of that
    /// kind not at all.
    fn rewind(&mut self, now: Instant) {
        let rest = self.kept.split_off(self.sent);
        for mut kept in std::mem::replace(&mut self.kept, VecDeque::with_capacity(rest.len())) {
            match kept.nack.take() {
                Some(nack) if nack.retryable => {
                    self.hold_until = Some(now + self.retry_delay);
                    self.kept.push_back(kept);
                }
                Some(nack) if kept.events == 1 => {
                    self.bytes -= cost(&kept);
                    self.refuse(&kept, nack, now);
                }
                Some(_) => {
                    self.bytes -= cost(&kept);
                    let parts = split(&kept);
                    self.bytes += parts.iter().map(cost).sum::<usize>();
                    self.kept.extend(parts);
                }
                None => self.kept.push_back(kept),
            }
        }
        self.kept.extend(rest);
        self.base += self.sent as u64;
        (self.sent, self.acked, self.is_held) = (0, 0, false);
        if self.waiting_since.is_none() {
            self.progressed(now);
        }
    }

    /// Tells that a message, which has one event, is refused.
    fn refuse(&mut self, kept: &Kept, nack: Nack, now: Instant) {
        self.progress.refused += 1;
        self.unreported += 1;
        self.progressed(now);
        if self.reports.len() < REPORTS_MAX {
            let (key, timestamp, value) = only_event(&kept.message);
            let Nack { code, reason, .. } = nack;
            // In a message of its own it is the first; which one it is to the user stands beside the reason.
            let reason = reason.strip_prefix("event 1: ").map_or(reason.clone(), str::to_owned);
            self.reports.push(RefusedEvent { number: kept.first, key, timestamp, value, code, reason });
        }
    }

    fn progressed(&mut self, now: Instant) {
        self.waiting_since = (!self.is_empty()).then_some(now);
    }
}

fn cost(kept: &Kept) -> usize {
    kept.message.len() + MESSAGE_OVERHEAD_BYTES
}

/// Cuts a message of more than one event into some of fewer.
fn split(kept: &Kept) -> Vec<Kept> {
    let part_events = kept.events.div_ceil(PARTS);
    let part = |index: usize, message: Vec<u8>, events: usize| Kept {
        message: message.into(),
        first: kept.first + (index * part_events) as u64,
        events,
        nack: None,
    };
    if kept.message[0] == v1::BLOCK {
        let (key, points) = points_of(&kept.message);
        let parts = points.chunks(part_events).enumerate();
        let encoded = parts.map(|(index, points)| {
            let mut message = Vec::new();
            v1::encode_block(&key, points, &mut message);
            part(index, message, points.len())
        });
        return encoded.collect();
    }
    let mut rest = &kept.message[1..];
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (mut message, mut events) = (vec![v1::EVENTS], 0);
        while events < part_events && !rest.is_empty() {
            let (event, after) = rest.split_at(wire::event_end(rest).expect(OWN));
            message.extend_from_slice(event);
            (rest, events) = (after, events + 1);
        }
        parts.push(part(parts.len(), message, events));
    }
    parts
}

/// Why a kept message can be read.
const OWN: &str = "it was encoded by this client";

fn points_of(message: &[u8]) -> (SeriesKey, Vec<(i64, f64)>) {
    let block = v1::decode_block(&message[1..]).expect(OWN);
    (wire::decode_key(block.key_bytes()).expect(OWN), block.points().collect())
}

fn only_event(message: &[u8]) -> (SeriesKey, i64, f64) {
    if message[0] == v1::BLOCK {
        let (key, points) = points_of(message);
        return (key, points[0].0, points[0].1);
    }
    let event = wire::decode_event(&message[1..]).expect(OWN);
    (event.to_key(), event.timestamp(), event.value())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a connection with that window, a message for each event.
    fn backlog(window: u32) -> Backlog {
        let mut backlog = Backlog::new(&ProducerOptions { batch_events_max: 1, ..ProducerOptions::default() });
        backlog.connected(Hello { window, message_bytes_max: 1 << 20, commit_interval_ms: 5 });
        backlog
    }

    fn push(backlog: &mut Backlog, count: i64, now: Instant) {
        let key = SeriesKey::new("s", ["t"]).unwrap();
        for timestamp in 0..count {
            backlog.push(timestamp, 1.0, &key, now).unwrap();
        }
    }

    /// The timestamps of what is to be sent now.
    fn sent(backlog: &mut Backlog, now: Instant) -> Vec<i64> {
        let next = || match backlog.next(now) {
            Next::Send(message) => Some(only_event(&message).1),
            _ => None,
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn no_more_is_on_its_way_than_the_window_has() {
        let now = Instant::now();
        let mut backlog = backlog(3);
        push(&mut backlog, 7, now);
        assert_eq!(sent(&mut backlog, now), [0, 1, 2]);
        backlog.ack(2, now).unwrap();
        assert_eq!(sent(&mut backlog, now), [3, 4]);
        backlog.ack(1, now).expect("what is known already");
        assert!(sent(&mut backlog, now).is_empty());
        backlog.disconnected(now);
        assert_eq!(sent(&mut backlog, now), [2, 3, 4]);
        backlog.ack(3, now).unwrap();
        assert_eq!(sent(&mut backlog, now), [5, 6]);
        backlog.ack(5, now).unwrap();
        assert!(backlog.is_empty() && backlog.bytes == 0 && backlog.waiting_since().is_none());
    }

    /// Else a stream that never pauses would never be answered as a whole, and the refused message stay where it is.
    #[test]
    fn nothing_follows_a_refused_message_until_all_before_is_answered() {
        let now = Instant::now();
        let mut backlog = backlog(4);
        push(&mut backlog, 7, now);
        assert_eq!(sent(&mut backlog, now), [0, 1, 2, 3]);
        backlog.ack(1, now).unwrap();
        backlog.nack(2, 4, true, "full", now).unwrap();
        assert!(sent(&mut backlog, now).is_empty());
        backlog.ack(3, now).unwrap();
        assert_eq!(backlog.next(now), Next::Nothing);
        backlog.ack(4, now).unwrap();
        let later = now + backlog.retry_delay;
        assert_eq!(backlog.next(now), Next::At(later));
        assert_eq!(sent(&mut backlog, later), [1, 2, 3, 4]);
        assert_eq!(backlog.progress().acknowledged, 1);
        // Numbers go on.
        assert!(backlog.ack(9, later).is_err() && backlog.nack(4, 1, false, "", later).is_err());
        backlog.ack(8, later).unwrap();
        assert_eq!(backlog.progress().acknowledged, 5);
    }

    #[test]
    fn an_event_waits_for_others_only_behind_one_that_is_on_its_way() {
        let now = Instant::now();
        let mut backlog = Backlog::new(&ProducerOptions::default());
        backlog.connected(Hello { window: 4, message_bytes_max: 1 << 20, commit_interval_ms: 5 });
        push(&mut backlog, 1, now);
        assert_eq!(sent(&mut backlog, now), [0]);
        push(&mut backlog, 1, now);
        let due = now + backlog.linger;
        assert_eq!(backlog.next(now), Next::At(due));
        assert!(matches!(backlog.next(due), Next::Send(_)));
        push(&mut backlog, 1, now);
        backlog.hurry();
        assert!(matches!(backlog.next(now), Next::Send(_)));
        assert!(!backlog.is_settled(1));
        backlog.ack(3, now).unwrap();
        assert!(backlog.is_settled(3) && !backlog.is_settled(4));
    }
}
