//! Where a sliding window ends, and what is too far ahead of the clock to move it.

use slung_model::{Point, SeriesId};

use crate::time::Arrival;

/// How exact the clocks of producers are taken to be at least: what NTP reaches over the internet.
const CLOCKS_APART_MICROS: i64 = 100_000;

/// The newest event time that was seen, by which a window of some width goes.
///
/// An event that is ahead of the clock by more than half of the width waits until its time has come, so that what comes from
/// a right clock lies well within the window: a clock that runs ahead deafens it for nobody. Where everything is ahead
/// nobody is deafened, and nothing waits: that is where an event follows the newest one within half of the width, and
/// nothing has been on time lately.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    /// Microseconds.
    width: i64,
    /// The newest event time, and the series that it came from.
    newest: Option<(i64, SeriesId)>,
    /// Until when nothing is believed that is ahead, as time that has passed.
    doubt: i64,
}

impl End {
    pub(crate) fn new(width: i64) -> Self {
        Self { width, newest: None, doubt: i64::MIN }
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

    /// How far ahead of the clock an event may be in any case.
    fn slack(&self) -> i64 {
        (self.width / 2).max(CLOCKS_APART_MICROS)
    }

    /// What is on time at that clock, and may be the end from the start.
    pub(crate) fn on_time_until(&self, now: i64) -> i64 {
        now.saturating_add(self.slack())
    }

    /// Begins with the newest of the stored events.
    pub(crate) fn begin(&mut self, newest: &Point) {
        self.newest = Some((newest.timestamp, newest.series));
    }

    /// Whether an event has to wait for its time.
    #[inline]
    pub(crate) fn waits(&self, point: &Point, arrival: Arrival) -> bool {
        // Within half of the width after the newest one, or not at all where that is in doubt; what is older moves nothing.
        let follows = if arrival.passed < self.doubt { 0 } else { self.slack() };
        point.timestamp > self.on_time_until(arrival.now)
            && self.newest.is_none_or(|(newest, _)| point.timestamp > newest.saturating_add(follows))
    }

    /// An event that does not wait is compared with the end: where that is ahead of the clock and the event is not, not
    /// everything is ahead.
    #[inline]
    pub(crate) fn compare(&mut self, point: &Point, arrival: Arrival) {
        let until = self.on_time_until(arrival.now);
        if self.newest.is_some_and(|(newest, _)| newest > until) && point.timestamp <= until {
            self.doubt = arrival.passed.saturating_add(self.width);
        }
    }

    /// Moves to an event, unless it is older. Answers whether it moved.
    #[inline]
    pub(crate) fn take(&mut self, point: &Point) -> bool {
        let moves = self.newest.is_none_or(|(newest, _)| point.timestamp >= newest);
        if moves {
            self.newest = Some((point.timestamp, point.series));
        }
        moves
    }
}
