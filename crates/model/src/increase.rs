//! What a counter did over some points of one series: how far it went up, and how fast.

/// The first and the last of some points of one series, and by how much the value went up between them. A counter that
/// falls was set back: its value from there on counts as an increase from 0, by the rule of Prometheus' `rate`. A value
/// that falls below 0 counts against it.
///
/// An increase that leaves the finite range stays at the largest finite value.
///
/// ```
/// use slung_model::Increase;
/// let second = 1_000_000;
/// let mut counter = Increase::of(&[0, 10 * second], &[100.0, 160.0]).expect("there are points");
/// // Set back, then at 20.
/// counter.push(20 * second, 20.0);
/// assert_eq!(counter.increase(), 80.0);
/// assert_eq!(counter.rate(), Some(4.0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Increase {
    start: i64,
    end: i64,
    first: f64,
    last: f64,
    /// Finite.
    increase: f64,
}

/// Sums that do not wait for one another, so that the processor adds several at once.
const LANES: usize = 8;

impl Increase {
    /// Of one point.
    pub fn new(timestamp: i64, value: f64) -> Self {
        Self { start: timestamp, end: timestamp, first: value, last: value, increase: 0.0 }
    }

    /// Of points in rising order of time, timestamps in microseconds, each value finite; `None` of none.
    ///
    /// # Panics
    /// If there are not as many timestamps as values.
    pub fn of(timestamps: &[i64], values: &[f64]) -> Option<Self> {
        assert_eq!(timestamps.len(), values.len(), "a timestamp for each value");
        let (&[start, ..], &[.., end]) = (timestamps, timestamps) else { return None };
        let (&[first, ref later @ ..], &[.., last]) = (values, values) else { return None };
        let (groups, rest) = later.as_chunks::<LANES>();
        let mut sums = [0.0; LANES];
        for (group, before) in groups.iter().zip(values.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                sums[lane] += step(before[lane], group[lane]);
            }
        }
        for (lane, (value, before)) in rest.iter().zip(&values[later.len() - rest.len()..]).enumerate() {
            sums[lane] += step(*before, *value);
        }
        let mut increase: f64 = sums.iter().sum();
        if !increase.is_finite() {
            increase = later.iter().zip(values).fold(0.0, |sum, (value, before)| in_range(sum + step(*before, *value)));
        }
        Some(Self { start, end, first, last, increase })
    }

    /// Takes the next point, which is later.
    pub fn push(&mut self, timestamp: i64, value: f64) {
        self.merge_later(&Self::new(timestamp, value));
    }

    /// Takes the points that follow, all of which are later.
    pub fn merge_later(&mut self, later: &Self) {
        let between = in_range(step(self.last, later.first));
        self.increase = in_range(in_range(self.increase + between) + later.increase);
        (self.end, self.last) = (later.end, later.last);
    }

    /// The timestamp of the first point.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// The timestamp of the last point.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// The value of the first point.
    pub fn first(&self) -> f64 {
        self.first
    }

    /// The value of the last point.
    pub fn last(&self) -> f64 {
        self.last
    }

    /// By how much the counter went up from the first point to the last, always finite; 0 of one point.
    pub fn increase(&self) -> f64 {
        self.increase
    }

    /// The increase per second from the first point to the last, always finite; `None` of one point. A query adds up
    /// those of its series.
    pub fn rate(&self) -> Option<f64> {
        let seconds = self.end.abs_diff(self.start) as f64 / 1e6;
        (self.start < self.end).then(|| in_range(self.increase / seconds))
    }

    /// For a file.
    pub(crate) fn to_words(self) -> [u64; 5] {
        let [first, last, increase] = [self.first, self.last, self.increase].map(f64::to_bits);
        [self.start.cast_unsigned(), self.end.cast_unsigned(), first, last, increase]
    }

    /// From a file, which may say anything.
    pub(crate) fn from_words([start, end, first, last, increase]: [u64; 5]) -> Option<Self> {
        let [start, end] = [start, end].map(u64::cast_signed);
        let [first, last, increase] = [first, last, increase].map(f64::from_bits);
        let is_finite = [first, last, increase].iter().all(|part| part.is_finite());
        let is_one = first == last && increase == 0.0;
        (is_finite && (start < end || start == end && is_one)).then_some(Self { start, end, first, last, increase })
    }
}

/// What a counter that goes from one value to the next adds.
fn step(before: f64, value: f64) -> f64 {
    value - if value < before { 0.0 } else { before }
}

/// Sums of finite numbers are too large or fine, never no number.
fn in_range(sum: f64) -> f64 {
    sum.clamp(f64::MIN, f64::MAX)
}
