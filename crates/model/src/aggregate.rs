//! What is known of a set of values without keeping them: mergeable, so that parts may be computed apart.

use crate::Op;

/// Count, sum, minimum and maximum of a set of finite values. Merging two of them gives that of both sets together, so a
/// chunk on disk, a pane of a window and a query over many series are the same thing.
///
/// The sum is compensated (Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen", 1974): its
/// error does not grow with the number of values. A sum that leaves the finite range stays at the largest finite value of
/// its sign, and says so in [`Aggregate::is_saturated`].
///
/// ```
/// use slung_model::{Aggregate, Op};
/// let mut both = Aggregate::of([1.0, 2.0]);
/// both.merge(&Aggregate::of([6.0]));
/// assert_eq!(both.value(Op::Avg), Some(3.0));
/// assert_eq!(Aggregate::EMPTY.value(Op::Max), None);
/// assert_eq!(Aggregate::EMPTY.value(Op::Count), Some(0.0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Aggregate {
    count: u64,
    sum: f64,
    compensation: f64,
    min: f64,
    max: f64,
    saturated: bool,
}

impl Default for Aggregate {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Aggregate {
    /// Over no value at all.
    pub const EMPTY: Self =
        Self { count: 0, sum: 0.0, compensation: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, saturated: false };

    /// Over those values, each finite.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut all = Self::EMPTY;
        for value in values {
            all.push(value);
        }
        all
    }

    /// Takes one more value, which must be finite.
    pub fn push(&mut self, value: f64) {
        debug_assert!(value.is_finite(), "values are validated before they get here");
        self.count += 1;
        self.add(value);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    /// Takes all that the other one has seen.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.add(other.sum);
        self.add(other.compensation);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.saturated |= other.saturated;
    }

    fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if !total.is_finite() {
            self.sum = f64::MAX.copysign(total);
            self.compensation = 0.0;
            self.saturated = true;
            return;
        }
        self.compensation +=
            if self.sum.abs() >= value.abs() { (self.sum - total) + value } else { (value - total) + self.sum };
        self.sum = total;
    }

    /// How many values; exact up to 2^53 as a number of the query language.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, always finite; 0 over none.
    pub fn sum(&self) -> f64 {
        (self.sum + self.compensation).clamp(f64::MIN, f64::MAX)
    }

    /// Whether a sum left the finite range on the way.
    pub fn is_saturated(&self) -> bool {
        self.saturated
    }

    /// What an operator answers: `None` where there is nothing to tell, which is [`Op::Raw`] always, and everything but
    /// COUNT over no value at all.
    pub fn value(&self, op: Op) -> Option<f64> {
        if op == Op::Count {
            return Some(self.count as f64);
        }
        if self.count == 0 {
            return None;
        }
        match op {
            Op::Avg => Some(self.sum() / self.count as f64),
            Op::Min => Some(self.min),
            Op::Max => Some(self.max),
            Op::Sum => Some(self.sum()),
            Op::Count | Op::Raw => None,
        }
    }
}
