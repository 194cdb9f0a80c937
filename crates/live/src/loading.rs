//! How a window gets what is stored of it, while its owner reads and others write.

use std::convert::Infallible;
use std::sync::Arc;

use slung_model::{NotLive, Op, Point, Query, Spread, TimeRange, Window as Meant};

use crate::contents::Contents;
use crate::feeds::SlotIndex;
use crate::panes::Panes;
use crate::sliding::on_time_until;
use crate::time::Arrival;
use crate::window::Window;

/// Events that are recorded for a window at most while it is read: 24 MB, and a tenth of a second of the fastest stream.
pub(crate) const RECORDED_POINTS_MAX: usize = 1_000_000;

/// A window of [`crate::Live`], which other windows may have taken the place of meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub(crate) slot: SlotIndex,
    pub(crate) number: u64,
}

/// What has arrived for a window while it was read.
#[derive(Debug, Default)]
pub struct Recorded {
    pub(crate) points: Vec<Point>,
    /// When those came that begin there, up to the next.
    pub(crate) arrivals: Vec<(usize, Arrival)>,
    /// There were too many, and all of them are gone.
    pub(crate) overran: bool,
}

impl Recorded {
    /// How many events there are.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    pub(crate) fn push(&mut self, point: &Point, arrival: Arrival) {
        if self.overran {
            return;
        }
        if self.points.len() >= RECORDED_POINTS_MAX {
            *self = Self { overran: true, ..Self::default() };
            return;
        }
        if self.arrivals.last().is_none_or(|(_, last)| *last != arrival) {
            self.arrivals.push((self.points.len(), arrival));
        }
        self.points.push(*point);
    }
}

/// A window that is being made from what is stored, apart from [`crate::Live`], which records what arrives for it meanwhile.
///
/// Its owner has taken a snapshot of what is stored at the moment of [`crate::Live::begin`], and reads it without holding
/// anything up: the newest point ([`Loading::newest_until`]), how many there are in the range ([`Loading::expect`]), those
/// points or buckets of them, and [`Loading::end`]. Then come those that were recorded ([`Loading::catch_up`], which needs the
/// lock for [`crate::Live::recorded`] only), and [`crate::Live::finish`].
#[derive(Debug)]
pub struct Loading {
    pub(crate) place: Place,
    pub(crate) query: Arc<Query>,
    pub(crate) window: Window,
    /// When it was begun.
    pub(crate) arrival: Arrival,
    /// Whether it takes the place of a window that is in use, which it goes on from.
    pub(crate) again: bool,
    pub(crate) window_points_max: usize,
    /// Points in the range.
    pub(crate) expected: usize,
    /// Whether what was read may lack something.
    pub(crate) is_partial: bool,
    /// Whether more arrived than was recorded.
    pub(crate) has_missed: bool,
}

impl Loading {
    /// Of an empty window.
    pub(crate) fn new(
        place: Place,
        query: Arc<Query>,
        arrival: Arrival,
        again: bool,
        window_points_max: usize,
    ) -> Result<Self, NotLive> {
        let window = Window::new(query.op(), query.window()?);
        Ok(Self {
            place,
            query,
            window,
            arrival,
            again,
            window_points_max,
            expected: 0,
            is_partial: false,
            has_missed: false,
        })
    }

    /// What is asked for.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// A sliding window begins with the newest stored point up to that time, [`Loading::begin`].
    pub fn newest_until(&self) -> Option<i64> {
        let width = match &self.window {
            Window::Slide(sliding) => sliding.view().width(),
            Window::PassRecent(recent) => recent.width(),
            Window::Pass(_) | Window::Keep(_) | Window::Count(_) => return None,
        };
        (!self.again).then(|| on_time_until(width, self.arrival.now))
    }

    /// The newest stored point up to [`Loading::newest_until`]; of several series with the same time, the one that was
    /// written last.
    pub fn begin(&mut self, newest: Option<Point>) {
        match (&mut self.window, newest) {
            (Window::Slide(sliding), Some(newest)) => sliding.begin(&newest, self.arrival),
            (Window::PassRecent(recent), Some(newest)) => recent.begin(newest.timestamp),
            _ => {}
        }
    }

    /// The range of the points that it starts from, known after [`Loading::begin`]; `None` where it starts from none.
    pub fn range(&self) -> Option<TimeRange> {
        match &self.window {
            Window::Pass(_) | Window::PassRecent(_) => None,
            Window::Keep(_) | Window::Count(_) => match self.query.window() {
                Ok(Meant::Absolute(range)) => Some(range),
                _ => None,
            },
            Window::Slide(sliding) => {
                let (end, _) = sliding.view().newest()?;
                Some(TimeRange { start: sliding.view().start()?, end })
            }
        }
    }

    /// The range of the points that are so far ahead of the clock that they wait for their time, [`Loading::put_ahead`].
    pub fn range_ahead(&self) -> Option<TimeRange> {
        let Window::Slide(sliding) = &self.window else { return None };
        let start = sliding.view().newest().map_or(i64::MIN, |(newest, _)| newest.saturating_add(1));
        Some(TimeRange { start, end: i64::MAX })
    }

    /// How many points are in the range: where they are too many, the window does not keep them.
    pub fn expect(&mut self, count: u64) {
        if count > self.window_points_max as u64 {
            self.window.give_up_points();
        } else {
            self.expected = usize::try_from(count).unwrap_or(0);
        }
    }

    /// Where a window that does not keep points needs no more than what they add up to, the length of the stretches,
    /// counted from 1970, microseconds: [`Loading::put_bucket`]. Otherwise it takes each point, [`Loading::put`].
    pub fn bucket_micros(&self) -> Option<i64> {
        let needs_points = matches!(self.query.op(), Op::First | Op::Quantile(_));
        match &self.window {
            _ if needs_points => None,
            Window::Count(_) => Some(i64::MAX),
            window => window.pane_micros(),
        }
    }

    /// What is in the stretch that starts there.
    pub fn put_bucket(&mut self, start: i64, spread: &Spread) {
        match &mut self.window {
            Window::Slide(sliding) => {
                if let Contents::Panes(panes) = sliding.view_mut().contents_mut() {
                    panes.insert_bucket(start, spread);
                }
            }
            Window::Count(count) => count.merge(spread),
            Window::Pass(_) | Window::PassRecent(_) | Window::Keep(_) => {}
        }
    }

    /// Whether it keeps its points. One that does not may get them by several calls of [`Loading::put`], and what was
    /// recorded in between: so there is never too much of that, however long the reading takes.
    pub fn keeps_points(&self) -> bool {
        match &self.window {
            Window::Slide(sliding) => !matches!(sliding.view().contents(), Contents::Panes(_)),
            Window::Keep(_) => true,
            Window::Pass(_) | Window::PassRecent(_) | Window::Count(_) => false,
        }
    }

    /// The points in the range, each series and timestamp once, in any order; fastest where each series' points follow one
    /// another by time. The first error ends it. Those of a window that keeps its points come by one call.
    ///
    /// # Errors
    /// That of the points. Only [`crate::Live::abandon`] makes sense then.
    pub fn put<E>(&mut self, points: impl IntoIterator<Item = Result<Point, E>>) -> Result<(), E> {
        let op = self.query.op();
        let contents = match &mut self.window {
            Window::Slide(sliding) => match sliding.view_mut().contents_mut() {
                Contents::Panes(panes) => return put_in_panes(panes, points),
                contents => contents,
            },
            Window::Keep(keep) => keep.contents_mut(),
            Window::Count(count) => {
                for point in points {
                    count.put(&point?);
                }
                return Ok(());
            }
            Window::Pass(_) | Window::PassRecent(_) => return Ok(()),
        };
        let read = points;
        let mut points = Vec::with_capacity(self.expected);
        for point in read {
            points.push(point?);
        }
        // Of runs in order, one of each series, this is a merge.
        points.sort_by_key(|point| (point.timestamp, point.series));
        *contents = Contents::of(op, &points);
        Ok(())
    }

    /// The points in [`Loading::range_ahead`], in any order, before anything that was recorded. A window keeps as many of them as it may keep points, the earliest
    /// ones; where that is not all of them, it says so ([`crate::WindowStats::is_partial`]).
    ///
    /// # Errors
    /// As [`Loading::put`].
    pub fn put_ahead<E>(&mut self, points: impl IntoIterator<Item = Result<Point, E>>) -> Result<(), E> {
        if let Window::Slide(sliding) = &mut self.window {
            for point in points {
                sliding.put_ahead(&point?);
                self.is_partial |= sliding.keep_ahead(self.window_points_max);
            }
        }
        Ok(())
    }

    /// What was read may lack something, because it is damaged: the window is there all the same, and says so
    /// ([`crate::WindowStats::is_partial`]).
    pub fn set_partial(&mut self) {
        self.is_partial = true;
    }

    /// Everything is read. `last` is the newest point of [`Loading::range`], as in [`Loading::begin`].
    pub fn end(&mut self, last: Option<Point>) {
        if let Some(last) = last {
            self.window.note_stored_last(&last);
        }
        if let Window::Slide(sliding) = &mut self.window {
            sliding.view_mut().evict();
        }
    }

    /// Takes everything from points that are at hand, as many as there may be: those of one timestamp in the order of
    /// writing, each series and timestamp once.
    pub(crate) fn put_history(&mut self, history: impl IntoIterator<Item = Point>) {
        let history: Vec<Point> = history.into_iter().collect();
        let newest = |range: TimeRange| {
            let inside = history.iter().filter(move |point| range.contains(point.timestamp));
            inside.max_by_key(|point| point.timestamp).copied()
        };
        if let Some(until) = self.newest_until() {
            self.begin(newest(TimeRange { start: i64::MIN, end: until }));
        }
        let inside = |range: TimeRange| {
            let inside = history.iter().filter(move |point| range.contains(point.timestamp));
            inside.map(|point| Ok::<_, Infallible>(*point))
        };
        if let Some(range) = self.range() {
            self.expect(inside(range).count() as u64);
            let Ok(()) = self.put(inside(range));
        }
        if let Some(range) = self.range_ahead() {
            let Ok(()) = self.put_ahead(inside(range));
        }
        self.end(self.range().and_then(newest));
    }

    /// Takes what has arrived since it was begun, or since the last call: what [`crate::Live::recorded`] answered. It gives no
    /// updates. Answers whether that was all: after `None` the window has to be read again ([`crate::Live::restart`]).
    pub fn catch_up(&mut self, recorded: Option<&Recorded>) -> bool {
        self.has_missed |= recorded.is_none();
        if let Some(recorded) = recorded {
            self.replay(recorded);
        }
        !self.has_missed
    }

    /// Whether more has arrived than was recorded, so that the window has to be read again.
    pub fn has_missed(&self) -> bool {
        self.has_missed
    }

    fn replay(&mut self, recorded: &Recorded) {
        let ends = recorded.arrivals.iter().skip(1).map(|(at, _)| *at).chain([recorded.points.len()]);
        for ((from, arrival), to) in recorded.arrivals.iter().zip(ends) {
            for point in &recorded.points[*from..to] {
                self.window.take(point, *arrival);
                if self.window.points() > self.window_points_max {
                    self.window.give_up_points();
                }
            }
        }
    }

    /// Empty again, to be read anew from a later snapshot.
    pub(crate) fn restart(&mut self, arrival: Arrival, before: Option<&Window>) {
        self.arrival = arrival;
        (self.is_partial, self.has_missed) = (false, false);
        if let Ok(meant) = self.query.window() {
            self.window = Window::new(self.query.op(), meant);
        }
        if let (Window::Slide(sliding), Some(Window::Slide(before))) = (&mut self.window, before) {
            sliding.go_on_from(before);
        }
    }
}

fn put_in_panes<E>(panes: &mut Panes, points: impl IntoIterator<Item = Result<Point, E>>) -> Result<(), E> {
    for point in points {
        panes.insert(&point?);
    }
    Ok(())
}
