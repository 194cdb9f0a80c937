//! All that queries ask of a run of points of one series, so that a file can tell it without the points being read.

use crate::{Aggregate, Increase, Spread};

/// What is known of at least one point of one series, in rising order of time, each timestamp once.
///
/// ```
/// use slung_model::{Op, Summary};
/// let summary = Summary::of(&[0, 1_000_000], &[20.0, 22.0]).expect("there are points");
/// assert_eq!(summary.spread().aggregate().value(Op::Avg), Some(21.0));
/// assert_eq!(summary.increase().rate(), Some(2.0));
/// let mut bytes = Vec::new();
/// summary.encode(&mut bytes);
/// assert_eq!((bytes.len(), Summary::decode(&bytes)), (Summary::BYTES, Some(summary)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    spread: Spread,
    increase: Increase,
}

/// Eight bytes each.
const WORDS: usize = 12;

impl Summary {
    /// How many bytes [`Summary::encode`] writes.
    pub const BYTES: usize = WORDS * size_of::<u64>();

    /// Of points in rising order of time, timestamps in microseconds, each once, each value finite; `None` of none.
    ///
    /// # Panics
    /// If there are not as many timestamps as values.
    pub fn of(timestamps: &[i64], values: &[f64]) -> Option<Self> {
        Some(Self { increase: Increase::of(timestamps, values)?, spread: Spread::of(values) })
    }

    /// Takes the points that follow, all of which are later.
    pub fn merge_later(&mut self, later: &Self) {
        self.spread.merge(&later.spread);
        self.increase.merge_later(&later.increase);
    }

    /// What AVG, MIN, MAX, SUM and COUNT are answered from.
    pub fn aggregate(&self) -> &Aggregate {
        self.spread.aggregate()
    }

    /// What STDDEV is answered from.
    pub fn spread(&self) -> &Spread {
        &self.spread
    }

    /// What RATE is answered from.
    pub fn increase(&self) -> &Increase {
        &self.increase
    }

    /// How many points; at least one.
    pub fn count(&self) -> u64 {
        self.aggregate().count()
    }

    /// The timestamp of the first point.
    pub fn start(&self) -> i64 {
        self.increase.start()
    }

    /// The timestamp of the last point.
    pub fn end(&self) -> i64 {
        self.increase.end()
    }

    /// The value of the first point.
    pub fn first(&self) -> f64 {
        self.increase.first()
    }

    /// The value of the last point.
    pub fn last(&self) -> f64 {
        self.increase.last()
    }

    /// Appends its [`Summary::BYTES`] bytes, little-endian, eight each: count, sum, compensation of the sum, carry of the
    /// sum (signed, each stands for 2^1024), minimum, maximum, sum of the squared differences from the mean, first and
    /// last timestamp, first and last value, increase.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for word in self.spread.to_words().into_iter().chain(self.increase.to_words()) {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// Reads what [`Summary::encode`] has written, bit for bit. `None` for anything else in length, and for what no points
    /// could have given: the one place where such bytes are judged. That the numbers are those of the points it can't know.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let words: &[[u8; 8]; WORDS] = bytes.as_chunks().0.try_into().ok().filter(|_| bytes.len() == Self::BYTES)?;
        let [a, b, c, d, e, f, g, h, i, j, k, l] = words.map(u64::from_le_bytes);
        let spread = Spread::from_words([a, b, c, d, e, f, g])?;
        let increase = Increase::from_words([h, i, j, k, l])?;
        let (min, max) = spread.aggregate().min_max();
        let among = |value: f64| min <= value && value <= max;
        // Each timestamp once, so that there are no more points than microseconds; one point is all that it has.
        let count = spread.aggregate().count();
        let micros = increase.end().abs_diff(increase.start());
        let fits = if count == 1 { micros == 0 && min == max } else { micros >= count - 1 };
        (fits && among(increase.first()) && among(increase.last())).then_some(Self { spread, increase })
    }
}
