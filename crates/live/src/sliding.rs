//! A sliding window by event time.

use std::collections::BTreeMap;

use slung_model::{Op, Point, SeriesId};

use crate::contents::{Contents, Faded};
use crate::end::End;
use crate::time::Arrival;
use crate::total::Seen;
use crate::window::{Taken, note_last};

/// At most one update a second that nothing but time has caused.
const TIME_UPDATE_MICROS_MIN: i64 = 1_000_000;
/// Heap memory of a point that waits for its time: an entry of 24 bytes in a B-tree that may be half full.
const AHEAD_POINT_BYTES: usize = 48;

/// Its end is the newest event time, moved on by the time that has passed since the last event was taken; what is older
/// than the newest event time less the width is gone, what is only older than the end less the width is hidden until an
/// event sets the end back.
#[derive(Debug)]
pub(crate) struct Sliding {
    op: Op,
    end: End,
    /// The newest point that is there; of one time, the one that was written last.
    last: Option<Point>,
    /// When the end was at the newest event time, as time that has passed. May be ahead, for stored events of the future.
    since: i64,
    /// When time alone changes what is to be seen, as time that has passed.
    due: i64,
    /// When the last update was due that nothing but time has caused.
    told: Option<i64>,
    contents: Contents,
    /// What is so far ahead of the clock that it has to wait for its time.
    ahead: BTreeMap<(i64, SeriesId), f64>,
    /// While time passes and nothing arrives.
    faded: Option<Faded>,
    /// How many points, or writes, were to be seen when it was last looked at.
    shown: u64,
}

impl Sliding {
    pub(crate) fn new(op: Op, width: i64) -> Self {
        Self {
            op,
            end: End::new(width),
            last: None,
            since: 0,
            due: i64::MAX,
            told: None,
            contents: Contents::new(op),
            ahead: BTreeMap::new(),
            faded: None,
            shown: 0,
        }
    }

    pub(crate) fn end(&self) -> &End {
        &self.end
    }

    /// How many points, or writes, were to be seen when it was last looked at.
    pub(crate) fn shown(&self) -> u64 {
        self.shown
    }

    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    pub(crate) fn contents_mut(&mut self) -> &mut Contents {
        &mut self.contents
    }

    /// Points that it keeps, those that wait for their time included.
    pub(crate) fn points(&self) -> usize {
        self.contents.points() + self.ahead.len()
    }

    /// Heap memory.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.contents.bytes() + self.ahead.len() * AHEAD_POINT_BYTES
    }

    pub(crate) fn due(&self) -> i64 {
        self.due
    }

    /// Gives its points up for panes.
    pub(crate) fn go_over_to_panes(&mut self) {
        self.contents.go_over_to_panes(self.op, self.end.width());
        self.faded = None;
    }

    /// Lets go what waits for its time, and answers how much that was.
    pub(crate) fn forget_ahead(&mut self) -> usize {
        std::mem::take(&mut self.ahead).len()
    }

    /// Takes the newest of the stored events, before the others.
    pub(crate) fn begin(&mut self, newest: &Point) {
        self.end.begin(newest);
        self.last = Some(*newest);
    }

    /// Goes on where the other one is, which is the same window with what was in it before.
    pub(crate) fn go_on_from(&mut self, other: &Self) {
        (self.end, self.since, self.told) = (other.end, other.since, other.told);
        if let Some(start) = self.end.start() {
            self.contents.evict(start);
        }
    }

    /// The newest of the points that are there, where that is not the newest that was seen.
    pub(crate) fn set_last(&mut self, last: Option<Point>) {
        self.last = last;
    }

    /// After the stored points: they count as having arrived at their own timestamps, so that the end is now. With data
    /// of years ago all points are hidden, until an event sets the end back to that time.
    pub(crate) fn arrived(&mut self, arrival: Arrival) {
        if let Some((newest, _)) = self.end.newest() {
            self.since = arrival.passed.saturating_sub(arrival.now.saturating_sub(newest));
        }
    }

    /// Puts a point where it belongs, unless it is older than the window. Answers whether it was put.
    fn put(&mut self, point: &Point) -> bool {
        let moved = self.end.take(point);
        let start = self.end.start().unwrap_or(i64::MIN);
        if point.timestamp < start {
            return false;
        }
        note_last(&mut self.last, point);
        self.contents.insert(point);
        if moved {
            self.contents.evict(start);
        }
        true
    }

    /// Takes a stored point that waits for its time.
    pub(crate) fn put_ahead(&mut self, point: &Point) {
        self.ahead.insert((point.timestamp, point.series), point.value);
    }

    /// The oldest time of which it has points, or would have; `None` where it has seen nothing.
    pub(crate) fn holds_since(&self) -> Option<i64> {
        self.end.start().or_else(|| self.ahead.first_key_value().map(|((timestamp, _), _)| *timestamp))
    }

    /// Takes an event.
    #[inline]
    pub(crate) fn take(&mut self, point: &Point, arrival: Arrival) -> Taken {
        if self.end.waits(point, arrival) {
            self.ahead.insert((point.timestamp, point.series), point.value);
            self.due = self.due.min(arrival.when(point.timestamp).max(self.told_again()));
            return Taken::Ahead;
        }
        if !self.ahead.is_empty() {
            // A point that is written again.
            self.ahead.remove(&(point.timestamp, point.series));
            self.catch_up(arrival, point.timestamp);
        }
        self.end.compare(point, arrival);
        if !self.put(point) {
            return Taken::Late;
        }
        self.since = arrival.passed;
        self.faded = None;
        self.set_due(self.contents.oldest(), arrival);
        Taken::Changed
    }

    /// Takes those whose time has come, by the clock or because the window's end gets to `end`. Answers whether there were
    /// any.
    fn catch_up(&mut self, arrival: Arrival, end: i64) -> bool {
        let mut any = false;
        while let Some(entry) = self.ahead.first_entry()
            && entry.key().0 <= arrival.now.max(end)
        {
            let ((timestamp, series), value) = entry.remove_entry();
            if self.put(&Point { series, timestamp, value }) {
                self.since = arrival.passed.saturating_sub(arrival.now.saturating_sub(timestamp));
                self.faded = None;
                any = true;
            }
        }
        any
    }

    /// What is to be seen after an event.
    #[inline]
    pub(crate) fn seen(&mut self) -> Seen {
        let seen = self.contents.seen(self.op, self.last.map(|last| last.value));
        self.shown = seen.count;
        seen
    }

    /// What is to be seen after time alone, to be called once that is due, and whether that changes anything.
    pub(crate) fn look(&mut self, arrival: Arrival) -> (Seen, bool) {
        let came = self.catch_up(arrival, i64::MIN);
        let newest = self.end.newest().map_or(i64::MIN, |(newest, _)| newest);
        let idle = arrival.passed.saturating_sub(self.since).max(0);
        let start = newest.saturating_add(idle).saturating_sub(self.end.width());
        let last = self.last.map(|last| last.value);
        let (seen, oldest) = self.contents.seen_since(start, self.op, last, &mut self.faded);
        self.set_due(oldest, arrival);
        let changes = (came && newest >= start) || seen.count != self.shown;
        self.shown = seen.count;
        (seen, changes)
    }

    /// An update that nothing but time has caused is on its way: none within the second that follows.
    pub(crate) fn tell(&mut self, passed: i64) {
        self.told = Some(passed);
        self.due = self.due.max(self.told_again());
    }

    /// With that as the last moment of what is oldest and still to be seen.
    #[inline]
    fn set_due(&mut self, oldest: Option<i64>, arrival: Arrival) {
        let leaves = match (oldest, self.end.newest()) {
            (Some(oldest), Some((newest, _))) => {
                let stays = oldest.saturating_add(self.end.width()).saturating_sub(newest);
                self.since.saturating_add(stays).saturating_add(1)
            }
            _ => i64::MAX,
        };
        let comes = self.ahead.first_key_value().map_or(i64::MAX, |((timestamp, _), _)| arrival.when(*timestamp));
        self.due = leaves.min(comes);
        if self.due < i64::MAX {
            self.due = self.due.max(self.told_again());
        }
    }

    fn told_again(&self) -> i64 {
        self.told.map_or(i64::MIN, |told| told.saturating_add(TIME_UPDATE_MICROS_MIN))
    }
}
