//! What one event, or the passing of time, does to one live query.

use slung_model::{Aggregate, Op, Point, SeriesId, Spread, TimeRange};

use crate::contents::Contents;
use crate::sliding::{Sliding, is_on_time, on_time_until};
use crate::time::Arrival;
use crate::total::{First, Seen, Sum};

/// What came of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A raw query delivers it.
    Raw,
    /// What is to be seen has changed, or may have.
    Changed,
    /// It is older than the sliding window.
    Late,
    /// It is so far ahead of the clock that it waits for its time.
    Ahead,
    /// It is outside of the absolute range.
    Outside,
}

/// What a live query keeps.
#[derive(Debug)]
pub(crate) enum Window {
    /// Raw values within a range.
    Pass(TimeRange),
    /// Raw values not older than the newest event time less the width.
    PassRecent(Recent),
    /// Counts writes.
    Count(Box<Count>),
    /// An absolute range, points kept.
    Keep(Box<Keep>),
    /// A sliding window.
    Slide(Box<Sliding>),
}

/// What writes have added up to: no range, or an absolute window that was too big to keep its points.
#[derive(Debug)]
pub(crate) struct Count {
    op: Op,
    /// What falls into it.
    range: TimeRange,
    sum: Sum,
    first: Option<First>,
    /// The newest point; of one time, the one that was written last.
    last: Option<Point>,
    /// Whether it kept its points before, or would have if there were room.
    gave_up: bool,
}

/// An absolute window that keeps its points.
#[derive(Debug)]
pub(crate) struct Keep {
    op: Op,
    /// What falls into it.
    range: TimeRange,
    contents: Contents,
    /// As above.
    last: Option<Point>,
}

/// Where a sliding window of raw values is; what is ahead of the clock moves it as it does [`Sliding`].
#[derive(Debug)]
pub(crate) struct Recent {
    /// Microseconds.
    width: i64,
    /// The newest event time without what is ahead; `None` before the first.
    newest: Option<i64>,
    /// The same with what is ahead.
    leading: Option<i64>,
    /// Until when what is ahead does not count, as time that has passed.
    doubt: i64,
}

impl Recent {
    fn new(width: i64) -> Self {
        Self { width, newest: None, leading: None, doubt: i64::MIN }
    }

    /// Microseconds.
    pub(crate) fn width(&self) -> i64 {
        self.width
    }

    /// Begins with the newest of the stored events.
    pub(crate) fn begin(&mut self, newest: i64) {
        (self.newest, self.leading) = (Some(newest), Some(newest));
    }

    fn lets_through(&mut self, timestamp: i64, arrival: Arrival) -> bool {
        let is_within =
            |newest: Option<i64>| newest.is_none_or(|newest| timestamp >= newest.saturating_sub(self.width));
        let is_ahead = timestamp > on_time_until(self.width, arrival.now);
        let doubt = arrival.passed.saturating_add(self.width);
        if is_ahead && arrival.passed < self.doubt {
            self.doubt = doubt;
            return true;
        }
        let (in_view, in_leading) = (is_within(self.newest), is_within(self.leading));
        self.newest = if is_ahead { self.newest } else { self.newest.max(Some(timestamp)) };
        self.leading = self.leading.max(Some(timestamp));
        if in_view && !in_leading && is_on_time(timestamp, self.width, arrival.now) {
            (self.leading, self.doubt) = (self.newest, doubt);
            return true;
        }
        in_leading
    }
}

impl Count {
    fn new(op: Op, range: TimeRange, gave_up: bool) -> Self {
        Self { op, range, sum: Sum::new(op), first: None, last: None, gave_up }
    }

    /// Takes what the store knows of many writes. Where an operator needs more, each is taken.
    pub(crate) fn merge(&mut self, spread: &Spread) {
        self.sum.merge_spread(spread);
    }

    fn take(&mut self, point: &Point) {
        self.put(point);
        note_last(&mut self.last, point);
    }

    /// Takes a stored one; which of them is the last one is told apart.
    pub(crate) fn put(&mut self, point: &Point) {
        self.sum.push(point.value);
        let first = First { timestamp: point.timestamp, series: point.series, value: point.value };
        if self.first.is_none_or(|before| first.precedes(&before)) {
            self.first = Some(first);
        }
    }
}

impl Keep {
    pub(crate) fn contents_mut(&mut self) -> &mut Contents {
        &mut self.contents
    }
}

/// A later point takes the place of the last one, and so does one of the same time that is written later.
pub(crate) fn note_last(last: &mut Option<Point>, point: &Point) {
    if last.is_none_or(|last| point.timestamp >= last.timestamp) {
        *last = Some(*point);
    }
}

/// A stored point is older than what has arrived since: of the same time it is not the last one.
pub(crate) fn note_stored_last(last: &mut Option<Point>, stored: &Point) {
    if last.is_none_or(|last| stored.timestamp > last.timestamp) {
        *last = Some(*stored);
    }
}

impl Window {
    /// An empty one.
    pub(crate) fn new(op: Op, window: slung_model::Window) -> Self {
        use slung_model::Window as Meant;
        match (op, window) {
            (Op::Raw, Meant::Running) => Self::Pass(TimeRange::ALL),
            (Op::Raw, Meant::Absolute(range)) => Self::Pass(range),
            (Op::Raw, Meant::Sliding { width_micros }) => Self::PassRecent(Recent::new(width_micros)),
            (_, Meant::Running) => Self::Count(Box::new(Count::new(op, TimeRange::ALL, false))),
            (_, Meant::Absolute(range)) => {
                Self::Keep(Box::new(Keep { op, range, contents: Contents::new(op), last: None }))
            }
            (_, Meant::Sliding { width_micros }) => Self::Slide(Box::new(Sliding::new(op, width_micros))),
        }
    }

    /// Whether it starts from what is stored.
    pub(crate) fn wants_history(&self) -> bool {
        !matches!(self, Self::Pass(_) | Self::Count(_))
    }

    /// Whether one of the same query that were made now, from what is stored, would be the same. What it keeps of points is
    /// what is stored of its range, since it has seen every write from its history on; only what writes have added up to
    /// is its own.
    pub(crate) fn can_be_joined(&self) -> bool {
        match self {
            Self::Pass(_) | Self::PassRecent(_) | Self::Keep(_) | Self::Slide(_) => true,
            Self::Count(count) => !count.gave_up && count.sum.count() == 0,
        }
    }

    /// Whether what it tells depends on when it was made: it counts writes, and began with nothing.
    pub(crate) fn begins_with_nothing(&self) -> bool {
        matches!(self, Self::Count(count) if !count.gave_up)
    }

    /// Takes an event that arrives.
    #[inline]
    pub(crate) fn take(&mut self, point: &Point, arrival: Arrival) -> Taken {
        match self {
            Self::Pass(range) if range.contains(point.timestamp) => Taken::Raw,
            Self::Pass(_) => Taken::Outside,
            Self::PassRecent(recent) => {
                if recent.lets_through(point.timestamp, arrival) {
                    Taken::Raw
                } else {
                    Taken::Late
                }
            }
            Self::Count(count) => {
                if !count.range.contains(point.timestamp) {
                    return Taken::Outside;
                }
                count.take(point);
                Taken::Changed
            }
            Self::Keep(keep) => {
                if !keep.range.contains(point.timestamp) {
                    return Taken::Outside;
                }
                keep.contents.insert(point);
                note_last(&mut keep.last, point);
                Taken::Changed
            }
            Self::Slide(sliding) => sliding.take(point, arrival),
        }
    }

    /// What is to be seen after an event. Of a raw query nothing is.
    #[inline]
    pub(crate) fn seen(&mut self) -> Seen {
        match self {
            Self::Slide(sliding) => sliding.seen(),
            Self::Count(count) => {
                let last = count.last.map(|last| last.value);
                count.sum.seen(count.op, count.first.map(|first| first.value), last)
            }
            Self::Keep(keep) => keep.contents.seen(keep.op, keep.last.map(|last| last.value)),
            Self::Pass(_) | Self::PassRecent(_) => Seen::with(&Aggregate::EMPTY, None),
        }
    }

    /// The newest of the stored points, where none is there that is newer.
    pub(crate) fn note_stored_last(&mut self, last: &Point) {
        match self {
            Self::Pass(_) | Self::PassRecent(_) => {}
            Self::Count(count) => note_stored_last(&mut count.last, last),
            Self::Keep(keep) => note_stored_last(&mut keep.last, last),
            Self::Slide(sliding) => sliding.view_mut().note_stored_last(last),
        }
    }

    /// The time of the newest event that it has seen, and its series; what the updates are told of that no event has caused.
    pub(crate) fn newest(&self) -> Option<(i64, SeriesId)> {
        let last = match self {
            Self::Pass(_) | Self::PassRecent(_) => None,
            Self::Count(count) => count.last,
            Self::Keep(keep) => keep.last,
            Self::Slide(sliding) => return sliding.newest(),
        };
        last.map(|last| (last.timestamp, last.series))
    }

    /// Whether what is stored in that range is in it, or was when it began.
    pub(crate) fn holds(&self, range: TimeRange) -> bool {
        let meets = |own: TimeRange| own.start <= range.end && range.start <= own.end;
        match self {
            Self::Pass(_) | Self::PassRecent(_) => false,
            // What arrived since registration did arrive.
            Self::Count(count) => count.gave_up && meets(count.range),
            Self::Keep(keep) => meets(keep.range),
            Self::Slide(sliding) => sliding.holds_since().is_some_and(|start| start <= range.end),
        }
    }

    /// How many points, or writes, its readers know of.
    pub(crate) fn shown(&mut self) -> u64 {
        match self {
            Self::Slide(sliding) => sliding.shown(),
            window => window.seen().count,
        }
    }

    /// Points that it keeps.
    pub(crate) fn points(&self) -> usize {
        match self {
            Self::Pass(_) | Self::PassRecent(_) | Self::Count(_) => 0,
            Self::Keep(keep) => keep.contents.points(),
            Self::Slide(sliding) => sliding.points(),
        }
    }

    /// Heap memory of what it keeps, beyond what any window takes.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Pass(_) | Self::PassRecent(_) => 0,
            Self::Count(count) => count.sum.bytes(),
            Self::Keep(keep) => keep.contents.bytes(),
            Self::Slide(sliding) => sliding.bytes(),
        }
    }

    /// How long its panes are, microseconds; `None` where it has none.
    pub(crate) fn pane_micros(&self) -> Option<i64> {
        match self {
            Self::Slide(sliding) => match sliding.view().contents() {
                Contents::Panes(panes) => Some(panes.micros()),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it kept its points and could not go on.
    pub(crate) fn counts_writes(&self) -> bool {
        matches!(self, Self::Count(count) if count.gave_up)
    }

    /// Gives its points up: a sliding window for panes, an absolute one for what they add up to. Answers whether it had any.
    pub(crate) fn give_up_points(&mut self) -> bool {
        match self {
            Self::Slide(sliding) => {
                let has_points = !matches!(sliding.view().contents(), Contents::Panes(_));
                if has_points {
                    sliding.go_over_to_panes();
                }
                has_points
            }
            Self::Keep(keep) => {
                let sum = keep.contents.sum(keep.op);
                let (first, last) = (keep.contents.first(), keep.last);
                *self =
                    Self::Count(Box::new(Count { op: keep.op, range: keep.range, sum, first, last, gave_up: true }));
                true
            }
            Self::Pass(_) | Self::PassRecent(_) | Self::Count(_) => false,
        }
    }

    /// Takes less memory at the cost of precision. Answers whether it could.
    pub(crate) fn shrink(&mut self) -> bool {
        if let Self::Slide(sliding) = self
            && let Contents::Panes(panes) = sliding.view_mut().contents_mut()
        {
            return panes.coarsen();
        }
        self.give_up_points()
    }

    /// When time alone changes it next, as time that has passed; never where it is `i64::MAX`.
    #[inline]
    pub(crate) fn due(&self) -> i64 {
        if let Self::Slide(sliding) = self { sliding.due() } else { i64::MAX }
    }
}
