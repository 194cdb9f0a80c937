//! What is known of a set of values without keeping them: mergeable, so that parts may be computed apart.

use crate::Op;

/// Count, sum, minimum and maximum of a set of finite values. Merging two of them gives that of both sets together, so
/// a chunk on disk, a pane of a window and a query over many series are the same thing.
///
/// The sum is compensated (Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen", 1974):
/// its error does not grow with the number of values. It may leave the finite range on the way and come back; one that
/// ends outside answers the largest finite value of its sign, and [`Aggregate::is_saturated`] says so.
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
    /// The sum is `carry * 2^1024 + sum + compensation`.
    sum: f64,
    compensation: f64,
    carry: i64,
    min: f64,
    max: f64,
}

/// 2^1022, a quarter of what one carry stands for: 2^1024 itself is no finite number.
const QUARTER_CARRY: f64 = f64::from_bits(0x7FD0_0000_0000_0000);

impl Default for Aggregate {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Aggregate {
    /// Over no value at all.
    pub const EMPTY: Self =
        Self { count: 0, sum: 0.0, compensation: 0.0, carry: 0, min: f64::INFINITY, max: f64::NEG_INFINITY };

    /// Over those values, each finite.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut all = Self::EMPTY;
        for value in values {
            all.push(value);
        }
        all
    }

    /// Over those values, each finite: as [`Aggregate::of`], several times as fast.
    pub fn of_slice(values: &[f64]) -> Self {
        let mut lanes = Lanes { sums: [0.0; LANES], lost: [0.0; LANES], min: Self::EMPTY.min, max: Self::EMPTY.max };
        let rest = lanes.take(values);
        if [lanes.sums, lanes.lost].as_flattened().iter().any(|part| !part.is_finite()) {
            return Self::of(values.iter().copied());
        }
        let mut all = Self { count: (values.len() - rest.len()) as u64, min: lanes.min, max: lanes.max, ..Self::EMPTY };
        for part in [lanes.sums, lanes.lost].as_flattened() {
            all.add(*part);
        }
        for value in rest {
            all.push(*value);
        }
        all
    }

    /// Takes one more value, which must be finite.
    #[inline]
    pub fn push(&mut self, value: f64) {
        debug_assert!(value.is_finite(), "values are validated before they get here");
        self.count += 1;
        self.add(value);
        self.min = smaller(self.min, value);
        self.max = larger(self.max, value);
    }

    /// Takes all that the other one has seen.
    pub fn merge(&mut self, other: &Self) {
        // Those that come from files may say anything, and must not stop a query by an overflow.
        self.count = self.count.saturating_add(other.count);
        self.carry = self.carry.saturating_add(other.carry);
        self.add(other.sum);
        // What was lost is so small that what is lost of it does not count.
        self.compensation += other.compensation;
        self.min = smaller(self.min, other.min);
        self.max = larger(self.max, other.max);
    }

    #[inline]
    fn add(&mut self, value: f64) {
        let total = self.sum + value;
        if total.is_infinite() {
            return self.add_and_carry(value);
        }
        self.compensation += rounded_off(self.sum, value, total);
        self.sum = total;
    }

    /// The same by halves, where the sum leaves the finite range. Nothing more is lost: halving such numbers is exact,
    /// and so is taking 2^1023 from a half that lies between that and its double.
    #[cold]
    fn add_and_carry(&mut self, value: f64) {
        let (a, b) = (self.sum / 2.0, value / 2.0);
        let half = a + b;
        self.compensation += 2.0 * rounded_off(a, b, half);
        self.sum = 2.0 * (half - (2.0 * QUARTER_CARRY).copysign(half));
        self.carry += if half > 0.0 { 1 } else { -1 };
    }

    /// The sum, infinite where it is out of range.
    fn total(&self) -> f64 {
        if self.carry == 0 {
            return self.sum + self.compensation;
        }
        4.0 * (self.carry as f64 * QUARTER_CARRY + self.sum / 4.0 + self.compensation / 4.0)
    }

    /// The mean, which is finite and among the values; of none, no number.
    pub(crate) fn mean(&self) -> f64 {
        let count = self.count as f64;
        let mean = if self.carry == 0 {
            self.sum() / count
        } else {
            4.0 * (self.carry as f64 / count * QUARTER_CARRY + self.sum / count / 4.0 + self.compensation / count / 4.0)
        };
        // Rounding must not carry it past the values: the mean of 0.1, 0.1 and 0.1 is 0.1.
        mean.max(self.min).min(self.max)
    }

    /// How many values; exact up to 2^53 as a number of the query language.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their sum, always finite; 0 over none.
    pub fn sum(&self) -> f64 {
        self.total().clamp(f64::MIN, f64::MAX)
    }

    /// Whether the sum is outside of the finite range, so that [`Aggregate::sum`] answers the nearest number inside.
    pub fn is_saturated(&self) -> bool {
        self.total().is_infinite()
    }

    /// The smallest value and the largest; of none, infinities the wrong way round.
    pub(crate) fn min_max(&self) -> (f64, f64) {
        (self.min, self.max)
    }

    /// What AVG, MIN, MAX, SUM and COUNT answer: `None` over no value at all, but for COUNT. Of everything else an
    /// aggregate knows nothing and answers `None` always; see [`Spread`](crate::Spread), [`Summary`](crate::Summary) and
    /// [`Sketch`](crate::Sketch).
    pub fn value(&self, op: Op) -> Option<f64> {
        let is_empty = self.count == 0;
        match op {
            Op::Count => Some(self.count as f64),
            Op::Avg => (!is_empty).then(|| self.mean()),
            Op::Min => (!is_empty).then_some(self.min),
            Op::Max => (!is_empty).then_some(self.max),
            Op::Sum => (!is_empty).then(|| self.sum()),
            Op::Raw | Op::First | Op::Last | Op::StdDev | Op::Rate | Op::Quantile(_) => None,
        }
    }

    /// For a file; each is 8 bytes.
    pub(crate) fn to_words(self) -> [u64; 6] {
        let [sum, compensation, min, max] = [self.sum, self.compensation, self.min, self.max].map(f64::to_bits);
        [self.count, sum, compensation, self.carry.cast_unsigned(), min, max]
    }

    /// From a file, which may say anything. `None` for what no values at all could have given: nothing, numbers that are
    /// not finite, a minimum above the maximum, a sum further out than that many values reach.
    pub(crate) fn from_words([count, sum, compensation, carry, min, max]: [u64; 6]) -> Option<Self> {
        let carry = carry.cast_signed();
        let [sum, compensation, min, max] = [sum, compensation, min, max].map(f64::from_bits);
        let is_finite = [sum, compensation, min, max].iter().all(|part| part.is_finite());
        let has_count = (1..=COUNT_MAX).contains(&count);
        // Each value is less than one carry; the sum and what it lost may take one more each.
        let is_within = carry.unsigned_abs() <= count.saturating_add(2);
        let all = Self { count, sum, compensation, carry, min, max };
        (is_finite && has_count && is_within && min <= max).then_some(all)
    }
}

/// The most that a file may say, which is where a number of the query language stops being exact.
const COUNT_MAX: u64 = 1 << 53;

/// Sums that do not wait for one another, so that the processor adds several at once.
const LANES: usize = 8;

struct Lanes {
    sums: [f64; LANES],
    /// What was rounded off, by lane.
    lost: [f64; LANES],
    min: f64,
    max: f64,
}

impl Lanes {
    /// Takes all but the last few values, and gives those back. Where a sum leaves the finite range it stays outside, or is
    /// no number from then on.
    fn take<'v>(&mut self, values: &'v [f64]) -> &'v [f64] {
        let (groups, rest) = values.as_chunks::<LANES>();
        let (mut sums, mut lost) = (self.sums, self.lost);
        let (mut min, mut max) = ([self.min; LANES], [self.max; LANES]);
        for group in groups {
            for lane in 0..LANES {
                let (sum, value) = (sums[lane], group[lane]);
                // What `rounded_off` gives, without the comparison (Knuth, "The Art of Computer Programming", 4.2.2).
                let total = sum + value;
                let added = total - sum;
                lost[lane] += (sum - (total - added)) + (value - added);
                sums[lane] = total;
                min[lane] = smaller(min[lane], value);
                max[lane] = larger(max[lane], value);
            }
        }
        (self.sums, self.lost) = (sums, lost);
        self.min = min.into_iter().fold(self.min, smaller);
        self.max = max.into_iter().fold(self.max, larger);
        rest
    }
}

/// What is lost where `a + b` is rounded to `total`, exactly.
fn rounded_off(a: f64, b: f64, total: f64) -> f64 {
    let (large, small) = if a.abs() >= b.abs() { (a, b) } else { (b, a) };
    (large - total) + small
}

/// One comparison: `f64::min` takes more instructions, for NaN, which is not among the values.
fn smaller(a: f64, b: f64) -> f64 {
    if b < a { b } else { a }
}

fn larger(a: f64, b: f64) -> f64 {
    if b > a { b } else { a }
}
