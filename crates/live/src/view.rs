//! A sliding window as the events say: its end, and what is in it.

use slung_model::{Op, Point, SeriesId};

use crate::contents::{Contents, Faded};
use crate::total::Seen;
use crate::window::{note_last, note_stored_last};

/// What is in a window that ends at the newest event time it has seen, moved on by the time that has passed since the last
/// event was taken; what is older than the newest event time less the width is gone, what is only older than the end less the
/// width is hidden until an event sets the end back.
#[derive(Debug)]
pub(crate) struct View {
    op: Op,
    /// Microseconds.
    width: i64,
    /// The newest event time that was seen, and the series that it came from.
    newest: Option<(i64, SeriesId)>,
    /// The newest point that is there; of one time, the one that was written last.
    last: Option<Point>,
    /// When the end was at the newest event time, as time that has passed. May be ahead, for stored events of the future.
    since: i64,
    contents: Contents,
    /// While time passes and nothing arrives.
    faded: Option<Faded>,
}

impl View {
    pub(crate) fn new(op: Op, width: i64) -> Self {
        Self { op, width, newest: None, last: None, since: 0, contents: Contents::new(op), faded: None }
    }

    /// Of the same window, what is not older than `start`.
    pub(crate) fn since(&self, start: i64) -> Self {
        let last = self.last.filter(|last| last.timestamp >= start);
        Self { last, contents: self.contents.since(self.op, start), faded: None, ..*self }
    }

    /// Microseconds.
    pub(crate) fn width(&self) -> i64 {
        self.width
    }

    /// The newest event time, and the series that it came from.
    pub(crate) fn newest(&self) -> Option<(i64, SeriesId)> {
        self.newest
    }

    /// The oldest time that belongs to the window; `None` where it has seen nothing.
    pub(crate) fn start(&self) -> Option<i64> {
        self.newest.map(|(newest, _)| newest.saturating_sub(self.width))
    }

    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    pub(crate) fn contents_mut(&mut self) -> &mut Contents {
        &mut self.contents
    }

    /// Gives its points up for panes.
    pub(crate) fn go_over_to_panes(&mut self) {
        self.contents.go_over_to_panes(self.op, self.width);
        self.faded = None;
    }

    /// Begins with the newest of the stored events, which arrived then, as time that has passed.
    pub(crate) fn begin(&mut self, newest: &Point, since: i64) {
        self.newest = Some((newest.timestamp, newest.series));
        self.last = Some(*newest);
        self.since = since;
    }

    /// Its end is where that of the other one is.
    pub(crate) fn go_on_from(&mut self, other: &Self) {
        (self.newest, self.since) = (other.newest, other.since);
        self.evict();
    }

    /// The newest of the stored points, where none is there that is newer.
    pub(crate) fn note_stored_last(&mut self, last: &Point) {
        note_stored_last(&mut self.last, last);
    }

    /// Lets go what is too old, after points were put in that are older than the newest one.
    pub(crate) fn evict(&mut self) {
        if let Some(start) = self.start() {
            self.contents.evict(start);
        }
    }

    /// Takes a point that arrives when so much time has passed, unless it is older than the window. Answers whether it did.
    #[inline]
    pub(crate) fn take(&mut self, point: &Point, passed: i64) -> bool {
        let moves = self.newest.is_none_or(|(newest, _)| point.timestamp >= newest);
        if moves {
            self.newest = Some((point.timestamp, point.series));
        }
        let start = self.start().unwrap_or(i64::MIN);
        if point.timestamp < start {
            return false;
        }
        note_last(&mut self.last, point);
        self.contents.insert(point);
        if moves {
            self.contents.evict(start);
        }
        self.since = passed;
        self.faded = None;
        true
    }

    /// What is to be seen after an event.
    #[inline]
    pub(crate) fn seen(&mut self) -> Seen {
        self.contents.seen(self.op, self.last.map(|last| last.value))
    }

    /// What is to be seen after time alone, and the last moment of what is oldest then.
    pub(crate) fn seen_at(&mut self, passed: i64) -> (Seen, Option<i64>) {
        let last = self.last.map(|last| last.value);
        self.contents.seen_since(self.start_at(passed), self.op, last, &mut self.faded)
    }

    /// The oldest time that is to be seen.
    pub(crate) fn start_at(&self, passed: i64) -> i64 {
        let newest = self.newest.map_or(i64::MIN, |(newest, _)| newest);
        let idle = passed.saturating_sub(self.since).max(0);
        newest.saturating_add(idle).saturating_sub(self.width)
    }

    /// When time leaves behind what is to be seen up to that moment, as time that has passed.
    #[inline]
    pub(crate) fn leaves(&self, oldest: Option<i64>) -> i64 {
        match (oldest, self.newest) {
            (Some(oldest), Some((newest, _))) => {
                let stays = oldest.saturating_add(self.width).saturating_sub(newest);
                self.since.saturating_add(stays).saturating_add(1)
            }
            _ => i64::MAX,
        }
    }
}
