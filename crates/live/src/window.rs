//! What one event, or the passing of time, does to one live query.

use slung_model::{Aggregate, Op, Point, SeriesId, TimeRange};

use crate::points::Points;

/// At most one update a second that nothing but time has caused.
const TIME_UPDATE_MICROS_MIN: i64 = 1_000_000;

/// How many points the windows may keep, and do.
#[derive(Debug)]
pub(crate) struct Room {
    /// In one window.
    pub(crate) window_points_max: usize,
    /// In all of them.
    pub(crate) points_max: usize,
    /// In all of them, now.
    pub(crate) points: usize,
    /// Points that were let go because there was no room, so far.
    pub(crate) points_cut: u64,
}

impl Room {
    fn is_exceeded_by(&self, window_points: usize) -> bool {
        window_points > self.window_points_max || self.points > self.points_max
    }
}

/// What came of an event.
pub(crate) enum Taken {
    /// A raw query delivers it.
    Raw,
    /// The aggregate is now this one.
    Aggregate(Aggregate),
    /// It is older than the sliding window.
    Late,
    /// It is outside of the absolute range.
    Outside,
}

/// What a live query keeps.
pub(crate) enum Window {
    /// Raw values within a range.
    Pass(TimeRange),
    /// Raw values not older than the newest event time less the width.
    PassRecent {
        /// Microseconds.
        width: i64,
        /// `None` before the first event.
        newest: Option<i64>,
    },
    /// Counts writes: no range, or an absolute window that was too big to keep its points.
    Tally {
        /// What falls into it.
        range: TimeRange,
        /// Of all that did.
        total: Aggregate,
        /// Whether it kept its points before.
        gave_up: bool,
    },
    /// An absolute range, points kept.
    Keep {
        /// What falls into it.
        range: TimeRange,
        /// Those that did.
        points: Points,
    },
    /// A sliding window, points kept.
    Slide(Sliding),
}

impl Window {
    /// An empty one.
    pub(crate) fn new(op: Op, window: slung_model::Window) -> Self {
        use slung_model::Window as Meant;
        match (op, window) {
            (Op::Raw, Meant::Running) => Self::Pass(TimeRange::ALL),
            (Op::Raw, Meant::Absolute(range)) => Self::Pass(range),
            (Op::Raw, Meant::Sliding { width_micros }) => Self::PassRecent { width: width_micros, newest: None },
            (_, Meant::Running) => Self::Tally { range: TimeRange::ALL, total: Aggregate::EMPTY, gave_up: false },
            (_, Meant::Absolute(range)) => Self::Keep { range, points: Points::default() },
            (_, Meant::Sliding { width_micros }) => Self::Slide(Sliding::new(width_micros)),
        }
    }

    /// Whether it starts from what is stored.
    pub(crate) fn wants_history(&self) -> bool {
        !matches!(self, Self::Pass(_) | Self::Tally { .. })
    }

    /// Whether one of the same query that were made now, from what is stored, would be the same. What it keeps of points is
    /// what is stored of its range, since it has seen every write from its history on; only what writes have added up to
    /// is its own.
    pub(crate) fn can_be_joined(&self) -> bool {
        match self {
            Self::Pass(_) | Self::PassRecent { .. } | Self::Keep { .. } => true,
            Self::Tally { total, gave_up, .. } => !gave_up && total.count() == 0,
            Self::Slide(sliding) => !sliding.is_shortened(),
        }
    }

    /// Takes a stored point at registration. Answers whether there was room for it.
    pub(crate) fn take_stored(&mut self, point: &Point, room: &mut Room) -> bool {
        match self {
            Self::Slide(sliding) => {
                let before = sliding.points.len();
                sliding.put(point);
                room.points = room.points + sliding.points.len() - before;
                !room.is_exceeded_by(sliding.points.len())
            }
            Self::Pass(_) | Self::PassRecent { .. } | Self::Tally { .. } | Self::Keep { .. } => {
                self.take(point, 0, room);
                true
            }
        }
    }

    /// Takes an event that arrives when so much time has passed.
    pub(crate) fn take(&mut self, point: &Point, passed: i64, room: &mut Room) -> Taken {
        match self {
            Self::Pass(range) if range.contains(point.timestamp) => Taken::Raw,
            Self::Pass(_) => Taken::Outside,
            Self::PassRecent { width, newest } => {
                if newest.is_some_and(|newest| point.timestamp < newest.saturating_sub(*width)) {
                    return Taken::Late;
                }
                *newest = (*newest).max(Some(point.timestamp));
                Taken::Raw
            }
            Self::Tally { range, total, .. } => {
                if !range.contains(point.timestamp) {
                    return Taken::Outside;
                }
                total.push(point.value);
                Taken::Aggregate(*total)
            }
            Self::Keep { range, points } => {
                if !range.contains(point.timestamp) {
                    return Taken::Outside;
                }
                let before = points.len();
                points.insert(point);
                room.points = room.points + points.len() - before;
                let total = points.total();
                if room.is_exceeded_by(points.len()) {
                    room.points -= points.len();
                    *self = Self::Tally { range: *range, total, gave_up: true };
                }
                Taken::Aggregate(total)
            }
            Self::Slide(sliding) => sliding.take(point, passed, room),
        }
    }

    /// How many points it keeps.
    pub(crate) fn points(&self) -> usize {
        match self {
            Self::Pass(_) | Self::PassRecent { .. } | Self::Tally { .. } => 0,
            Self::Keep { points, .. } => points.len(),
            Self::Slide(sliding) => sliding.points.len(),
        }
    }

    /// When time alone changes it next, as time that has passed; never where it is `i64::MAX`.
    pub(crate) fn due(&self) -> i64 {
        if let Self::Slide(sliding) = self { sliding.due } else { i64::MAX }
    }
}

/// A sliding window by event time. Its end is the newest event time, moved on by the time that has passed since the last
/// event was taken; what is older than the newest event time less the width is gone, what is only older than the end less
/// the width is hidden until an event sets the end back.
pub(crate) struct Sliding {
    /// Microseconds.
    width: i64,
    /// The newest event time and the series that it came from.
    newest: Option<(i64, SeriesId)>,
    /// When the end was at the newest event time, as time that has passed. May be ahead, for stored events of the future.
    since: i64,
    /// When time alone leaves the next point behind that is still to be seen, as time that has passed.
    due: i64,
    /// When the last update was due that nothing but time has caused.
    told: Option<i64>,
    /// The newest timestamp that was let go although it belongs to the window.
    cut: Option<i64>,
    points: Points,
}

impl Sliding {
    fn new(width: i64) -> Self {
        Self { width, newest: None, since: 0, due: i64::MAX, told: None, cut: None, points: Points::default() }
    }

    /// The series of the newest event and its time.
    pub(crate) fn newest(&self) -> Option<(i64, SeriesId)> {
        self.newest
    }

    /// Whether points are missing that belong to the window.
    pub(crate) fn is_shortened(&self) -> bool {
        self.cut.is_some_and(|cut| self.newest.is_some_and(|(newest, _)| cut >= newest.saturating_sub(self.width)))
    }

    /// After the stored points: they count as having arrived at their own timestamps, so that the end is now. With data
    /// of years ago all points are hidden, until an event sets the end back to that time.
    pub(crate) fn start(&mut self, passed: i64, now: i64) {
        let Some((newest, _)) = self.newest else { return };
        self.since = passed.saturating_sub(now.saturating_sub(newest));
        let (_, oldest) = self.points.since(self.start_at(passed));
        self.set_due(oldest);
    }

    /// Puts a point where it belongs, unless it is older than the window. Answers whether it was put.
    fn put(&mut self, point: &Point) -> bool {
        let newest = match self.newest {
            Some((newest, _)) if point.timestamp < newest => newest,
            _ => {
                self.newest = Some((point.timestamp, point.series));
                point.timestamp
            }
        };
        let start = newest.saturating_sub(self.width);
        if point.timestamp < start {
            return false;
        }
        self.points.insert(point);
        self.points.evict(start);
        true
    }

    fn take(&mut self, point: &Point, passed: i64, room: &mut Room) -> Taken {
        let before = self.points.len();
        if !self.put(point) {
            return Taken::Late;
        }
        room.points = room.points + self.points.len() - before;
        while room.is_exceeded_by(self.points.len())
            && let Some(cut) = self.points.pop_oldest()
        {
            room.points -= 1;
            room.points_cut += 1;
            self.cut = self.cut.max(Some(cut));
        }
        self.since = passed;
        self.set_due(self.points.oldest());
        Taken::Aggregate(self.points.total())
    }

    /// What is to be seen after time alone has left points behind; only to be called once that is due.
    pub(crate) fn leave_behind(&mut self, passed: i64) -> Aggregate {
        let (total, oldest) = self.points.since(self.start_at(passed));
        self.set_due(oldest);
        total
    }

    /// An update that nothing but time has caused is on its way: none within the second that follows.
    pub(crate) fn tell(&mut self, passed: i64) {
        self.told = Some(passed);
        self.due = self.due.max(self.told_again());
    }

    /// The oldest time that is to be seen.
    fn start_at(&self, passed: i64) -> i64 {
        let newest = self.newest.map_or(i64::MIN, |(newest, _)| newest);
        let idle = passed.saturating_sub(self.since).max(0);
        newest.saturating_add(idle).saturating_sub(self.width)
    }

    /// With that as the oldest point that is to be seen.
    fn set_due(&mut self, oldest: Option<i64>) {
        self.due = match (oldest, self.newest) {
            (Some(oldest), Some((newest, _))) => {
                let stays = oldest.saturating_add(self.width).saturating_sub(newest);
                self.since.saturating_add(stays).saturating_add(1).max(self.told_again())
            }
            _ => i64::MAX,
        }
    }

    fn told_again(&self) -> i64 {
        self.told.map_or(i64::MIN, |told| told.saturating_add(TIME_UPDATE_MICROS_MIN))
    }
}
