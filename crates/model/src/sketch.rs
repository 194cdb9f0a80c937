//! Quantiles of a set of values without keeping them.

use crate::Quantile;

/// Counts values by size, so finely that every quantile is known within a relative error of 0.5 %: a DDSketch (Masson, Rim,
/// Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees", VLDB 2019). Merging two of
/// them gives, to the last count, what one that had seen everything would know.
///
/// Each value falls into the bucket `i` with `1.01^(i-1) < |value| <= 1.01^i`, negative ones mirrored; zeros are counted by
/// themselves. There are 146,149 buckets on either side for all finite numbers, of which the stretch that is in use has 8
/// bytes a bucket: some 2 to 5 kB for values within a factor of ten, never more than 2.4 MB. No bucket is ever given up.
///
/// ```
/// use slung_model::{Quantile, Sketch};
/// let mut sketch = Sketch::default();
/// for value in 1..=1000 {
///     sketch.push(f64::from(value));
/// }
/// let p99 = sketch.quantile(Quantile::from_percent("99").expect("between 0 and 100")).expect("there are values");
/// assert!((p99 - 990.0).abs() <= 990.0 * Sketch::RELATIVE_ERROR);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Sketch {
    negative: Buckets,
    zeros: u64,
    positive: Buckets,
    count: u64,
    min: f64,
    max: f64,
}

/// Of 1.01, by which each bucket is larger than the one before.
const LN_GAMMA: f64 = 0.009_950_330_853_168_083;
/// Of `2 / (1.01 + 1)`: what has the same relative distance from both ends of a bucket lies so far below the upper one.
const LN_MIDDLE: f64 = -0.004_987_541_511_039_074;
/// The buckets of the smallest number above 0 and of the largest one.
const INDEX_MIN: i32 = -74_815;
const INDEX_MAX: i32 = 71_333;

/// Buckets on either side of the first value: a factor of 1.4 each way, in 512 bytes.
const FIRST_SLACK: i32 = 32;

impl Default for Sketch {
    fn default() -> Self {
        Self {
            negative: Buckets::default(),
            zeros: 0,
            positive: Buckets::default(),
            count: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl Sketch {
    /// The most by which a quantile is off, as a fraction of its absolute value. Below 2.2e-308, where numbers lie further
    /// and further apart, rounding to one of them comes on top.
    pub const RELATIVE_ERROR: f64 = 0.005;

    /// Takes one more value, which must be finite.
    #[inline]
    pub fn push(&mut self, value: f64) {
        debug_assert!(value.is_finite(), "values are validated before they get here");
        self.count += 1;
        self.min = if value < self.min { value } else { self.min };
        self.max = if value > self.max { value } else { self.max };
        if value > 0.0 {
            self.positive.count(index(value));
        } else if value < 0.0 {
            self.negative.count(index(-value));
        } else {
            self.zeros += 1;
        }
    }

    /// Takes all that the other one has seen.
    pub fn merge(&mut self, other: &Self) {
        self.negative.merge(&other.negative);
        self.positive.merge(&other.positive);
        self.zeros += other.zeros;
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Forgets one value that it was given before, exactly: what is counted then is what the others alone would give. Only
    /// the smallest and the largest stay as they were while any is left, as counts don't tell the next ones: see [`Sketch::set_range`].
    /// A value that it was never given changes nothing, or makes it forget another one of about that size.
    pub fn remove(&mut self, value: f64) {
        let forgotten = if value > 0.0 {
            self.positive.uncount(index(value))
        } else if value < 0.0 {
            self.negative.uncount(index(-value))
        } else {
            forget_one(&mut self.zeros)
        };
        self.count -= u64::from(forgotten);
        if self.count == 0 {
            (self.min, self.max) = (f64::INFINITY, f64::NEG_INFINITY);
        }
    }

    /// Says what the smallest and the largest value are, for who knows that after [`Sketch::remove`].
    ///
    /// # Panics
    /// Where the smallest is above the largest.
    pub fn set_range(&mut self, min: f64, max: f64) {
        assert!(min <= max, "the smallest value is not above the largest one");
        (self.min, self.max) = (min, max);
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Memory beyond the size of the type.
    pub fn heap_bytes(&self) -> usize {
        (self.negative.counts.capacity() + self.positive.counts.capacity()) * size_of::<u64>()
    }

    /// The value of the nearest rank ([`Quantile::rank`]), within [`Sketch::RELATIVE_ERROR`] and never outside of what was
    /// seen; the smallest and the largest are exact. `None` over no value.
    pub fn quantile(&self, quantile: Quantile) -> Option<f64> {
        let rank = quantile.rank(self.count);
        match rank {
            0 => None,
            1 => Some(self.min),
            _ if rank == self.count => Some(self.max),
            _ => Some(self.value_at(rank).clamp(self.min, self.max)),
        }
    }

    /// About the value of that rank, from 1.
    fn value_at(&self, rank: u64) -> f64 {
        let mut left = rank;
        let mut is_there = |count: u64| {
            let found = left <= count;
            left = left.saturating_sub(count);
            found
        };
        if let Some((index, _)) = self.negative.iter().rev().find(|(_, count)| is_there(*count)) {
            return -middle(index);
        }
        if is_there(self.zeros) {
            return 0.0;
        }
        self.positive.iter().find(|(_, count)| is_there(*count)).map_or(self.max, |(index, _)| middle(index))
    }
}

/// The bucket of a value above 0. Rounding may put one that lies at the edge into the next, which is far less than what a
/// bucket of 1.01 leaves of the stated error.
#[inline]
fn index(value: f64) -> i32 {
    ((value.ln() * (1.0 / LN_GAMMA)).ceil() as i32).clamp(INDEX_MIN, INDEX_MAX)
}

/// What stands for every value of a bucket. May be infinite in the last one.
fn middle(index: i32) -> f64 {
    (f64::from(index) * LN_GAMMA + LN_MIDDLE).exp()
}

/// One less, if there is one.
fn forget_one(count: &mut u64) -> bool {
    let is_there = *count > 0;
    *count -= u64::from(is_there);
    is_there
}

/// Counts by index, from the lowest that may be in use to the highest.
#[derive(Debug, Clone, Default)]
struct Buckets {
    /// The index of the first count.
    low: i32,
    counts: Vec<u64>,
}

impl PartialEq for Buckets {
    /// How far they are laid out is no part of what is counted.
    fn eq(&self, other: &Self) -> bool {
        let used = |buckets: &Self| buckets.iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>();
        used(self) == used(other)
    }
}

impl Buckets {
    #[inline]
    fn count(&mut self, index: i32) {
        if let Some(count) = self.counts.get_mut(index.wrapping_sub(self.low) as usize) {
            *count += 1;
        } else {
            self.cover(index, index);
            self.counts[(index - self.low) as usize] += 1;
        }
    }

    /// Answers whether there was one.
    #[inline]
    fn uncount(&mut self, index: i32) -> bool {
        self.counts.get_mut(index.wrapping_sub(self.low) as usize).is_some_and(forget_one)
    }

    fn merge(&mut self, other: &Self) {
        let (Some((low, _)), Some((high, _))) = (other.iter().next(), other.iter().next_back()) else { return };
        self.cover(low, high);
        let from = (low - self.low) as usize;
        for (count, more) in self.counts[from..].iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// Lays counts out for at least those indices. Where there are some already it takes as much again in the direction of
    /// growth, so that values that come in order of size are not copied each time.
    #[cold]
    fn cover(&mut self, low: i32, high: i32) {
        if self.counts.is_empty() {
            self.low = (low - FIRST_SLACK).max(INDEX_MIN);
            self.counts.resize(((high + FIRST_SLACK).min(INDEX_MAX) - self.low) as usize + 1, 0);
            return;
        }
        let len = self.counts.len() as i32;
        let end = self.low + len - 1;
        if high > end {
            let new_end = high.max(end + len).min(INDEX_MAX);
            let more = (new_end - end) as usize;
            self.counts.reserve_exact(more);
            self.counts.extend(std::iter::repeat_n(0, more));
        }
        if low < self.low {
            let new_low = low.min(self.low - len).max(INDEX_MIN);
            let more = (self.low - new_low) as usize;
            self.counts.reserve_exact(more);
            self.counts.splice(0..0, std::iter::repeat_n(0, more));
            self.low = new_low;
        }
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (i32, u64)> {
        self.counts.iter().enumerate().map(|(at, count)| (self.low + at as i32, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded() {
        let sizes = || (-1074..1024).map(|exponent| 2f64.powi(exponent)).chain([f64::MAX]);
        let rising = sizes().collect::<Vec<_>>();
        let falling = sizes().rev().collect::<Vec<_>>();
        let outwards = rising[1000..].iter().zip(&falling[1000..]).flat_map(|(up, down)| [*up, *down]).collect();
        for values in [rising, falling, outwards] {
            let mut sketch = Sketch::default();
            values.iter().for_each(|value| sketch.push(*value));
            values.iter().for_each(|value| sketch.push(-*value));
            let buckets = sketch.positive.counts.capacity() + sketch.negative.counts.capacity();
            assert!(buckets <= 2 * 146_149, "{buckets} buckets");
        }
        let mut small = Sketch::default();
        (0..1000).for_each(|i| small.push(1.0 + f64::from(i) / 100.0));
        assert!(small.positive.counts.capacity() <= 600, "{} buckets", small.positive.counts.capacity());
    }
}
