//! What values add up to: the aggregates that a window keeps, and what the operators answer from them.

use slung_model::{Aggregate, Op, SeriesId, Sketch, Spread};

/// An aggregate of which that of a whole can be made from those of its parts.
pub(crate) trait Total: Copy + Default {
    /// Over those values.
    fn of(values: &[f64]) -> Self;
    /// Takes one more value.
    fn push(&mut self, value: f64);
    /// Takes all that the other one has seen.
    fn merge(&mut self, other: &Self);
}

impl Total for Aggregate {
    fn of(values: &[f64]) -> Self {
        Self::of_slice(values)
    }

    fn push(&mut self, value: f64) {
        self.push(value);
    }

    fn merge(&mut self, other: &Self) {
        self.merge(other);
    }
}

impl Total for Spread {
    fn of(values: &[f64]) -> Self {
        Self::of(values)
    }

    fn push(&mut self, value: f64) {
        self.push(value);
    }

    fn merge(&mut self, other: &Self) {
        self.merge(other);
    }
}

/// What is known of values that are not kept, as far as an operator needs it.
#[derive(Debug, Clone)]
pub(crate) enum Sum {
    /// For everything that is not below.
    Plain(Aggregate),
    /// For STDDEV.
    Spread(Spread),
    /// For quantiles.
    Sketch(Box<Sketch>),
}

impl Sum {
    pub(crate) fn new(op: Op) -> Self {
        match op {
            Op::StdDev => Self::Spread(Spread::EMPTY),
            Op::Quantile(_) => Self::Sketch(Box::default()),
            _ => Self::Plain(Aggregate::EMPTY),
        }
    }

    /// Of the same kind, with nothing in it.
    pub(crate) fn emptied(&self) -> Self {
        match self {
            Self::Plain(_) => Self::Plain(Aggregate::EMPTY),
            Self::Spread(_) => Self::Spread(Spread::EMPTY),
            Self::Sketch(_) => Self::Sketch(Box::default()),
        }
    }

    pub(crate) fn push(&mut self, value: f64) {
        match self {
            Self::Plain(aggregate) => aggregate.push(value),
            Self::Spread(spread) => spread.push(value),
            Self::Sketch(sketch) => sketch.push(value),
        }
    }

    /// Takes values that are known by their spread alone. A sketch can't, and is not asked to.
    pub(crate) fn merge_spread(&mut self, other: &Spread) {
        match self {
            Self::Plain(aggregate) => aggregate.merge(other.aggregate()),
            Self::Spread(spread) => spread.merge(other),
            Self::Sketch(_) => debug_assert!(false, "a sketch takes values"),
        }
    }

    /// Both are of the same kind.
    pub(crate) fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::Plain(aggregate), Self::Plain(other)) => aggregate.merge(other),
            (Self::Spread(spread), Self::Spread(other)) => spread.merge(other),
            (Self::Sketch(sketch), Self::Sketch(other)) => sketch.merge(other),
            _ => debug_assert!(false, "the parts of a window are of one kind"),
        }
    }

    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Plain(aggregate) => aggregate.count(),
            Self::Spread(spread) => spread.aggregate().count(),
            Self::Sketch(sketch) => sketch.count(),
        }
    }

    /// Heap memory.
    pub(crate) fn bytes(&self) -> usize {
        if let Self::Sketch(sketch) = self { size_of::<Sketch>() + sketch.heap_bytes() } else { 0 }
    }

    /// What is to be seen of it; `first` and `last` are its ends.
    #[inline]
    pub(crate) fn seen(&self, op: Op, first: Option<f64>, last: Option<f64>) -> Seen {
        match (self, op) {
            (Self::Plain(aggregate), Op::First) => Seen::with(aggregate, first),
            (Self::Plain(aggregate), Op::Last) => Seen::with(aggregate, last),
            (Self::Plain(aggregate), _) => Seen::of(aggregate, op),
            (Self::Spread(spread), _) => Seen::with(spread.aggregate(), spread.std_dev()),
            (Self::Sketch(sketch), op) => {
                let value = if let Op::Quantile(quantile) = op { sketch.quantile(quantile) } else { None };
                Seen { value, count: sketch.count(), sum: None, is_saturated: false }
            }
        }
    }
}

/// What is to be seen of a window at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// What the query tells; `None` where it tells nothing of an empty window.
    pub(crate) value: Option<f64>,
    /// How many points, or writes.
    pub(crate) count: u64,
    /// The sum behind the value, for AVG, SUM and COUNT.
    pub(crate) sum: Option<f64>,
    /// Whether the sum is out of the finite range.
    pub(crate) is_saturated: bool,
}

impl Seen {
    /// For what an aggregate answers.
    #[inline]
    pub(crate) fn of(aggregate: &Aggregate, op: Op) -> Self {
        let sum = matches!(op, Op::Avg | Op::Sum | Op::Count).then(|| aggregate.sum());
        // A window that has become empty has the sum 0, where a historical query over nothing has none.
        let value = if op == Op::Sum { sum } else { aggregate.value(op) };
        Self { value, count: aggregate.count(), sum, is_saturated: aggregate.is_saturated() }
    }

    /// For everything else: its value over those points.
    #[inline]
    pub(crate) fn with(aggregate: &Aggregate, value: Option<f64>) -> Self {
        Self { value, count: aggregate.count(), sum: None, is_saturated: aggregate.is_saturated() }
    }

    /// The state behind the value, where it has one.
    pub(crate) fn state(&self) -> Option<(f64, u64)> {
        self.sum.map(|sum| (sum, self.count))
    }
}

/// The earliest point of several: the smallest timestamp, and of series with the same the one that was known first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct First {
    pub(crate) timestamp: i64,
    pub(crate) series: SeriesId,
    pub(crate) value: f64,
}

impl First {
    /// Whether this one comes before, or in place of, the other.
    pub(crate) fn precedes(&self, other: &Self) -> bool {
        (self.timestamp, self.series) <= (other.timestamp, other.series)
    }
}
