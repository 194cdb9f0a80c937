//! What a window has in it: its points and what they add up to, or panes of them.

use slung_model::{Aggregate, Op, Point, Sketch, Spread};

use crate::panes::Panes;
use crate::points::Points;
use crate::total::{First, Seen, Sum, Total};

/// What a window has in it.
#[derive(Debug)]
pub(crate) enum Contents {
    /// Every point, for AVG, MIN, MAX, SUM, COUNT, FIRST and LAST.
    Plain(Points<Aggregate>),
    /// Every point, for STDDEV.
    Spread(Points<Spread>),
    /// Every point, for quantiles. A sketch forgets as exactly as it counts, so that one for all of them is enough.
    Sketch(Points<Aggregate>, Box<Sketch>),
    /// Panes; of a sliding window only.
    Panes(Panes),
}

impl Contents {
    /// Empty.
    pub(crate) fn new(op: Op) -> Self {
        Self::of(op, &[])
    }

    /// Of points that rise by timestamp and series.
    pub(crate) fn of(op: Op, points: &[Point]) -> Self {
        match op {
            Op::StdDev => Self::Spread(Points::of(points)),
            Op::Quantile(_) => {
                let mut sketch = Box::<Sketch>::default();
                points.iter().for_each(|point| sketch.push(point.value));
                Self::Sketch(Points::of(points), sketch)
            }
            _ => Self::Plain(Points::of(points)),
        }
    }

    /// The same without what is older than `start`.
    pub(crate) fn since(&self, op: Op, start: i64) -> Self {
        match self {
            Self::Plain(points) | Self::Sketch(points, _) => Self::of(op, &points.list_since(start)),
            Self::Spread(points) => Self::of(op, &points.list_since(start)),
            Self::Panes(panes) => {
                let mut panes = panes.clone();
                panes.evict(start);
                Self::Panes(panes)
            }
        }
    }

    /// Points that are kept; 0 of panes.
    pub(crate) fn points(&self) -> usize {
        match self {
            Self::Plain(points) | Self::Sketch(points, _) => points.len(),
            Self::Spread(points) => points.len(),
            Self::Panes(_) => 0,
        }
    }

    /// Heap memory.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Plain(points) => points.bytes(),
            Self::Spread(points) => points.bytes(),
            Self::Sketch(points, sketch) => points.bytes() + size_of::<Sketch>() + sketch.heap_bytes(),
            Self::Panes(panes) => panes.bytes(),
        }
    }

    /// Takes a point, in place of the one with the same series and timestamp if it is there.
    #[inline]
    pub(crate) fn insert(&mut self, point: &Point) {
        match self {
            Self::Plain(points) => _ = points.insert(point),
            Self::Spread(points) => _ = points.insert(point),
            Self::Sketch(points, sketch) => {
                if let Some(replaced) = points.insert(point) {
                    sketch.remove(replaced);
                }
                sketch.push(point.value);
            }
            Self::Panes(panes) => panes.insert(point),
        }
    }

    /// Lets everything older than `start` go.
    #[inline]
    pub(crate) fn evict(&mut self, start: i64) {
        match self {
            Self::Plain(points) => points.evict(start, |_| {}),
            Self::Spread(points) => points.evict(start, |_| {}),
            Self::Sketch(points, sketch) => points.evict(start, |value| sketch.remove(value)),
            Self::Panes(panes) => panes.evict(start),
        }
    }

    /// The last moment at which what is oldest still belongs to a window that starts there.
    #[inline]
    pub(crate) fn oldest(&self) -> Option<i64> {
        match self {
            Self::Plain(points) | Self::Sketch(points, _) => points.oldest(),
            Self::Spread(points) => points.oldest(),
            Self::Panes(panes) => panes.oldest(),
        }
    }

    /// What is to be seen of everything; `last` is the newest value.
    #[inline]
    pub(crate) fn seen(&mut self, op: Op, last: Option<f64>) -> Seen {
        match self {
            Self::Plain(points) => match op {
                Op::First => Seen::with(&points.total(), points.first().map(|first| first.value)),
                Op::Last => Seen::with(&points.total(), last),
                _ => Seen::of(&points.total(), op),
            },
            Self::Spread(points) => {
                let spread = points.total();
                Seen::with(spread.aggregate(), spread.std_dev())
            }
            Self::Sketch(points, sketch) => {
                let aggregate = points.total();
                Seen::with(&aggregate, quantile(op, sketch, &aggregate))
            }
            Self::Panes(panes) => panes.seen(op, last),
        }
    }

    /// What is to be seen without everything older than `start`, and until when what is oldest then is to be seen. `faded`
    /// is kept for it from call to call, as long as nothing else changes and `start` only grows.
    pub(crate) fn seen_since(
        &self,
        start: i64,
        op: Op,
        last: Option<f64>,
        faded: &mut Option<Faded>,
    ) -> (Seen, Option<i64>) {
        let (seen, first) = match self {
            Self::Plain(points) => {
                let (aggregate, first) = points.since(start);
                let seen = match op {
                    Op::First => Seen::with(&aggregate, first.map(|first| first.value)),
                    Op::Last => Seen::with(&aggregate, last.filter(|_| first.is_some())),
                    _ => Seen::of(&aggregate, op),
                };
                (seen, first)
            }
            Self::Spread(points) => {
                let (spread, first) = points.since(start);
                (Seen::with(spread.aggregate(), spread.std_dev()), first)
            }
            Self::Sketch(points, sketch) => {
                let (aggregate, first) = points.since(start);
                let faded = faded.get_or_insert_with(|| Faded { before: i64::MIN, sketch: sketch.clone() });
                points.between(faded.before, start, |value| faded.sketch.remove(value));
                faded.before = faded.before.max(start);
                (Seen::with(&aggregate, quantile(op, &mut faded.sketch, &aggregate)), first)
            }
            Self::Panes(panes) => return panes.seen_since(start, op, last),
        };
        (seen, first.map(|first| first.timestamp))
    }

    /// What the points add up to, once for all; nothing can leave it.
    pub(crate) fn sum(&self, op: Op) -> Sum {
        let mut sum = Sum::new(op);
        match (self, &mut sum) {
            (Self::Plain(points), Sum::Plain(total)) => *total = points.total(),
            (Self::Spread(points), Sum::Spread(total)) => *total = points.total(),
            (Self::Sketch(points, all), Sum::Sketch(total)) => {
                total.clone_from(all);
                set_range(total, &points.total());
            }
            _ => debug_assert!(false, "points are of the kind that their operator needs"),
        }
        sum
    }

    /// The first point, where points are kept.
    pub(crate) fn first(&self) -> Option<First> {
        match self {
            Self::Plain(points) | Self::Sketch(points, _) => points.first(),
            Self::Spread(points) => points.first(),
            Self::Panes(_) => None,
        }
    }

    /// Gives the points up for panes.
    pub(crate) fn go_over_to_panes(&mut self, op: Op, width: i64) {
        let mut panes = Panes::new(op, width);
        match self {
            Self::Plain(points) | Self::Sketch(points, _) => fill(&mut panes, points),
            Self::Spread(points) => fill(&mut panes, points),
            Self::Panes(_) => return,
        }
        *self = Self::Panes(panes);
    }
}

/// A sketch of what is still to be seen while time passes and nothing arrives.
#[derive(Debug)]
pub(crate) struct Faded {
    /// Everything older is taken out.
    before: i64,
    sketch: Box<Sketch>,
}

fn quantile(op: Op, sketch: &mut Sketch, aggregate: &Aggregate) -> Option<f64> {
    let Op::Quantile(quantile) = op else { return None };
    set_range(sketch, aggregate);
    sketch.quantile(quantile)
}

/// What a sketch has forgotten may have been its smallest or largest.
fn set_range(sketch: &mut Sketch, aggregate: &Aggregate) {
    if let (Some(min), Some(max)) = (aggregate.value(Op::Min), aggregate.value(Op::Max)) {
        sketch.set_range(min, max);
    }
}

fn fill<T: Total>(panes: &mut Panes, points: &Points<T>) {
    points.each_block(|timestamps, series, values| {
        for ((&timestamp, &series), &value) in timestamps.iter().zip(series).zip(values) {
            panes.insert(&Point { series, timestamp, value });
        }
    });
}
