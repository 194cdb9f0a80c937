//! A sliding window by event time, and what becomes of events that are ahead of the clock.
//!
//! An event that is far ahead of the clock moves the end of a window as any other does. If then another one comes that is on
//! time, and would be late by that end, some clock runs ahead of the others: the window goes back to where the clock is, and
//! what is ahead of it waits until its time has come, as long as such events come. For that there are two views of
//! a window while its end is ahead: what is shown, and what would be without the events that are ahead.

use std::collections::BTreeMap;

use slung_model::{Op, Point, SeriesId};

use crate::time::Arrival;
use crate::total::Seen;
use crate::view::View;
use crate::window::Taken;

/// At most one update a second that nothing but time has caused.
const TIME_UPDATE_MICROS_MIN: i64 = 1_000_000;
/// How exact the clocks of producers are taken to be at least: what NTP reaches over the internet.
const CLOCKS_APART_MICROS: i64 = 100_000;
/// Heap memory of a point that is ahead: an entry of 24 bytes in a B-tree that may be half full.
const AHEAD_POINT_BYTES: usize = 48;

/// Up to which time an event is not ahead of that clock, for a window of that width: half of the width, so that what is on
/// time lies well within the window.
pub(crate) fn on_time_until(width: i64, now: i64) -> i64 {
    now.saturating_add((width / 2).max(CLOCKS_APART_MICROS))
}

/// Whether an event of that time is within such a window that ends at the clock.
pub(crate) fn is_on_time(timestamp: i64, width: i64, now: i64) -> bool {
    timestamp <= now.saturating_add(CLOCKS_APART_MICROS) && timestamp >= now.saturating_sub(width)
}

/// See above.
#[derive(Debug)]
pub(crate) struct Sliding {
    /// Without what is ahead.
    view: View,
    /// What is ahead of the clock and newer than the view's end.
    ahead: BTreeMap<(i64, SeriesId), f64>,
    /// What is shown, while that is another one: with all that is ahead.
    leading: Option<Box<View>>,
    /// Until when what is ahead has to wait, as time that has passed.
    doubt: i64,
    /// When time alone changes what is to be seen, as time that has passed.
    due: i64,
    /// When the last update was due that nothing but time has caused.
    told: Option<i64>,
    /// How many points, or writes, were to be seen when it was last looked at.
    shown: u64,
}

impl Sliding {
    pub(crate) fn new(op: Op, width: i64) -> Self {
        Self {
            view: View::new(op, width),
            ahead: BTreeMap::new(),
            leading: None,
            doubt: i64::MIN,
            due: i64::MAX,
            told: None,
            shown: 0,
        }
    }

    /// What is in it but for what is ahead.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    pub(crate) fn view_mut(&mut self) -> &mut View {
        &mut self.view
    }

    /// What is shown.
    fn shows(&self) -> &View {
        self.leading.as_deref().unwrap_or(&self.view)
    }

    /// The newest event that is shown: its time and series.
    pub(crate) fn newest(&self) -> Option<(i64, SeriesId)> {
        self.shows().newest()
    }

    /// How many points, or writes, were to be seen when it was last looked at.
    pub(crate) fn shown(&self) -> u64 {
        self.shown
    }

    /// Points that it keeps, those that are ahead included.
    pub(crate) fn points(&self) -> usize {
        self.view.contents().points() + self.ahead.len()
    }

    /// Heap memory.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        let leading = self.leading.as_ref().map_or(0, |view| view.contents().bytes());
        self.view.contents().bytes() + self.ahead.len() * AHEAD_POINT_BYTES + leading
    }

    pub(crate) fn due(&self) -> i64 {
        self.due
    }

    /// Gives its points up for panes.
    pub(crate) fn go_over_to_panes(&mut self) {
        self.view.go_over_to_panes();
        if let Some(leading) = &mut self.leading {
            leading.go_over_to_panes();
        }
    }

    /// Makes one view of two, or lets go what waits for its time. Answers whether that was anything, and how many points went.
    pub(crate) fn forget_ahead(&mut self) -> (bool, usize) {
        let ahead = std::mem::take(&mut self.ahead).len();
        match self.leading.take() {
            Some(leading) => {
                self.view = *leading;
                (true, 0)
            }
            None => (ahead > 0, ahead),
        }
    }

    /// Goes on where the other one is, which is the same window with what was in it before.
    pub(crate) fn go_on_from(&mut self, other: &Self) {
        self.view.go_on_from(&other.view);
        (self.told, self.doubt) = (other.told, other.doubt);
    }

    /// Begins with the newest of the stored points: they count as having arrived at their own timestamps, so that the end is
    /// now. With data of years ago all points are hidden, until an event sets the end back to that time.
    pub(crate) fn begin(&mut self, newest: &Point, arrival: Arrival) {
        self.view.begin(newest, arrival.passed.saturating_sub(arrival.now.saturating_sub(newest.timestamp)));
    }

    /// Takes a stored point that is ahead.
    pub(crate) fn put_ahead(&mut self, point: &Point) {
        self.ahead.insert((point.timestamp, point.series), point.value);
    }

    /// Lets the latest of those that are ahead go until there are no more than that. Answers whether any went.
    pub(crate) fn keep_ahead(&mut self, points_max: usize) -> bool {
        let mut any = false;
        while self.ahead.len() > points_max {
            self.ahead.pop_last();
            any = true;
        }
        any
    }

    /// The oldest time of which it has points, or would have; `None` where it has seen nothing.
    pub(crate) fn holds_since(&self) -> Option<i64> {
        self.view.start().or_else(|| self.ahead.first_key_value().map(|((timestamp, _), _)| *timestamp))
    }

    /// Takes an event.
    #[inline]
    pub(crate) fn take(&mut self, point: &Point, arrival: Arrival) -> Taken {
        let is_ahead = point.timestamp > on_time_until(self.view.width(), arrival.now)
            && self.view.newest().is_none_or(|(newest, _)| point.timestamp > newest);
        if is_ahead || !self.ahead.is_empty() {
            return self.take_beside(point, is_ahead, arrival);
        }
        if !self.view.take(point, arrival.passed) {
            return Taken::Late;
        }
        self.set_due(self.view.contents().oldest(), arrival);
        Taken::Changed
    }

    /// Takes an event that is ahead, or while something else is.
    #[cold]
    fn take_beside(&mut self, point: &Point, is_ahead: bool, arrival: Arrival) -> Taken {
        self.ahead.remove(&(point.timestamp, point.series));
        self.catch_up(arrival, if is_ahead { i64::MIN } else { point.timestamp });
        let width = self.view.width();
        let taken = if is_ahead {
            if arrival.passed < self.doubt {
                self.doubt = arrival.passed.saturating_add(width);
                self.put_ahead(point);
                self.due = self.due.min(arrival.when(point.timestamp).max(self.told_again()));
                return Taken::Ahead;
            }
            let start = point.timestamp.saturating_sub(width);
            let taken = match &mut self.leading {
                Some(leading) => leading.take(point, arrival.passed),
                None => {
                    let mut leading = lead(&self.view, &self.ahead, start, arrival.passed);
                    let taken = leading.take(point, arrival.passed);
                    self.leading = taken.then(|| Box::new(leading));
                    taken
                }
            };
            self.put_ahead(point);
            taken
        } else {
            let in_view = self.view.take(point, arrival.passed);
            let in_leading = self.leading.as_mut().map(|leading| leading.take(point, arrival.passed));
            let is_deaf = in_leading == Some(false) && in_view && is_on_time(point.timestamp, width, arrival.now);
            if is_deaf {
                self.leading = None;
                self.doubt = arrival.passed.saturating_add(width);
            }
            is_deaf || in_leading.unwrap_or(in_view)
        };
        self.settle();
        let before = self.due;
        self.set_due(self.shows().contents().oldest(), arrival);
        if taken {
            return Taken::Changed;
        }
        // What came before it may still have to be told of.
        self.due = self.due.min(before);
        Taken::Late
    }

    /// Takes what was ahead and whose time has come, by the clock or because the view's end gets to `end`. Answers whether
    /// there was anything.
    fn catch_up(&mut self, arrival: Arrival, end: i64) -> bool {
        let mut any = false;
        while let Some(entry) = self.ahead.first_entry()
            && entry.key().0 <= arrival.now.max(end)
        {
            let ((timestamp, series), value) = entry.remove_entry();
            let passed = arrival.passed.saturating_sub(arrival.now.saturating_sub(timestamp));
            any |= self.view.take(&Point { series, timestamp, value }, passed);
        }
        any
    }

    /// Is where the clock is, before it is made anew.
    pub(crate) fn come_to(&mut self, arrival: Arrival) {
        self.catch_up(arrival, i64::MIN);
        self.settle();
    }

    /// Once nothing is ahead both views are the same.
    fn settle(&mut self) {
        if self.ahead.is_empty()
            && let Some(leading) = self.leading.take()
        {
            self.view = *leading;
        }
    }

    /// What is to be seen after an event.
    #[inline]
    pub(crate) fn seen(&mut self) -> Seen {
        let seen = self.leading.as_deref_mut().unwrap_or(&mut self.view).seen();
        self.shown = seen.count;
        seen
    }

    /// What is to be seen after time alone, to be called once that is due, and whether that changes anything.
    pub(crate) fn look(&mut self, arrival: Arrival) -> (Seen, bool) {
        let came = self.catch_up(arrival, i64::MIN) && self.leading.is_none();
        self.settle();
        let view = self.leading.as_deref_mut().unwrap_or(&mut self.view);
        let (seen, oldest) = view.seen_at(arrival.passed);
        let is_seen = view.newest().is_some_and(|(newest, _)| newest >= view.start_at(arrival.passed));
        let changes = (came && is_seen) || seen.count != self.shown;
        self.set_due(oldest, arrival);
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
        let mut due = self.shows().leaves(oldest);
        if let Some(((timestamp, _), _)) = self.ahead.first_key_value() {
            due = due.min(arrival.when(*timestamp));
        }
        self.due = if due < i64::MAX { due.max(self.told_again()) } else { due };
    }

    fn told_again(&self) -> i64 {
        self.told.map_or(i64::MIN, |told| told.saturating_add(TIME_UPDATE_MICROS_MIN))
    }
}

/// What is to be shown once something is ahead that counts: the view from `start` on, and what is ahead already.
fn lead(view: &View, ahead: &BTreeMap<(i64, SeriesId), f64>, start: i64, passed: i64) -> View {
    let mut leading = view.since(start);
    // What the newest of them pushes out need not be put in.
    let newest = ahead.last_key_value().map_or(start, |((timestamp, _), _)| timestamp.saturating_sub(view.width()));
    for (&(timestamp, series), &value) in ahead.range((start.max(newest), SeriesId(0))..) {
        leading.take(&Point { series, timestamp, value }, passed);
    }
    leading
}
