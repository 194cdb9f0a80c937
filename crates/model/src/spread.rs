//! How far a set of values lies apart, without keeping them: an aggregate that also knows the standard deviation.

use crate::Aggregate;

/// An [`Aggregate`] and the sum of the squared differences from the mean. Merges as an aggregate does (Chan, Golub,
/// LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979): sums of squares, from
/// which that of the mean is taken at the end, would lose every digit where the mean is large.
///
/// A sum of squares that leaves the finite range, from differences of about 1e154 on, stays at the largest finite value,
/// and so does the standard deviation then. Differences below about 1e-162 count as none.
///
/// ```
/// use slung_model::Spread;
/// let mut both = Spread::of(&[2.0, 4.0, 4.0, 4.0]);
/// both.merge(&Spread::of(&[5.0, 5.0, 7.0, 9.0]));
/// assert_eq!(both.std_dev(), Some(2.0));
/// assert_eq!(Spread::EMPTY.std_dev(), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    aggregate: Aggregate,
    /// Sum of the squared differences from the mean; finite, not negative.
    m2: f64,
}

impl Default for Spread {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// Sums that do not wait for one another, so that the processor adds several at once.
const LANES: usize = 8;

impl Spread {
    /// Over no value at all.
    pub const EMPTY: Self = Self { aggregate: Aggregate::EMPTY, m2: 0.0 };

    /// Over those values, each finite, which are looked at twice: more precise than [`Spread::push`] and several times as
    /// fast.
    pub fn of(values: &[f64]) -> Self {
        let aggregate = Aggregate::of_slice(values);
        if values.is_empty() {
            return Self::EMPTY;
        }
        let mean = aggregate.mean();
        let mut squares = [0.0; LANES];
        let mut plain = [0.0; LANES];
        let (groups, rest) = values.as_chunks::<LANES>();
        for group in groups {
            for lane in 0..LANES {
                let difference = group[lane] - mean;
                squares[lane] += difference * difference;
                plain[lane] += difference;
            }
        }
        for (lane, value) in rest.iter().enumerate() {
            let difference = value - mean;
            squares[lane] += difference * difference;
            plain[lane] += difference;
        }
        // The mean is rounded; the differences from the true one are smaller by this.
        let off: f64 = plain.iter().sum();
        let m2 = squares.iter().sum::<f64>() - off * (off / values.len() as f64);
        Self { aggregate, m2: in_range(m2) }
    }

    /// Takes one more value, which must be finite. Off by about 1e-16 of the mean: better is [`Spread::of`] and a merge.
    pub fn push(&mut self, value: f64) {
        let count = self.aggregate.count() as f64;
        if count > 0.0 {
            let apart = value - self.aggregate.mean();
            self.m2 = in_range(self.m2 + apart * apart * (count / (count + 1.0)));
        }
        self.aggregate.push(value);
    }

    /// Takes all that the other one has seen.
    pub fn merge(&mut self, other: &Self) {
        let (count, other_count) = (self.aggregate.count() as f64, other.aggregate.count() as f64);
        if count > 0.0 && other_count > 0.0 {
            let apart = other.aggregate.mean() - self.aggregate.mean();
            let between = apart * apart * (count / (count + other_count)) * other_count;
            self.m2 = in_range(self.m2 + other.m2 + between);
        } else {
            self.m2 += other.m2;
        }
        self.aggregate.merge(&other.aggregate);
    }

    /// What AVG, MIN, MAX, SUM and COUNT are answered from.
    pub fn aggregate(&self) -> &Aggregate {
        &self.aggregate
    }

    /// The standard deviation of the population, always finite: 0 over one value, `None` over none.
    pub fn std_dev(&self) -> Option<f64> {
        match self.aggregate.count() {
            0 => None,
            _ if self.is_saturated() => Some(f64::MAX),
            count => Some((self.m2 / count as f64).sqrt()),
        }
    }

    /// Whether the differences are too large to be squared, so that [`Spread::std_dev`] answers the largest finite value.
    pub fn is_saturated(&self) -> bool {
        self.m2 == f64::MAX
    }

    /// For a file.
    pub(crate) fn to_words(self) -> [u64; 7] {
        let [a, b, c, d, e, f] = self.aggregate.to_words();
        [a, b, c, d, e, f, self.m2.to_bits()]
    }

    /// From a file, which may say anything.
    pub(crate) fn from_words([a, b, c, d, e, f, m2]: [u64; 7]) -> Option<Self> {
        let aggregate = Aggregate::from_words([a, b, c, d, e, f])?;
        let m2 = f64::from_bits(m2);
        let is_possible = m2.is_finite() && m2 >= 0.0 && (aggregate.count() > 1 || m2 == 0.0);
        is_possible.then_some(Self { aggregate, m2 })
    }
}

/// Infinite, or no number, is what comes of squares that are too large; rounding may leave less than nothing.
fn in_range(m2: f64) -> f64 {
    if m2.is_finite() { m2.max(0.0) } else { f64::MAX }
}
