//! How long a workflow takes from an event to what it does about it: counts of fixed size, written by the one thread that
//! runs it, read by anybody.

use std::time::Duration;

use crate::stats::Counter;

/// Buckets of an octave, equally wide. More precision than a quarter of an octave nobody needs who looks for what is slow.
const OCTAVE_BUCKETS: u64 = 4;
/// Octaves above the first few microseconds: up to 2^26 µs, a minute.
const OCTAVES: u64 = 24;
/// Those below 4 µs are of one microsecond each.
const BUCKETS: usize = (OCTAVE_BUCKETS * (OCTAVES + 1)) as usize;

/// The counters behind [`Reactions`]: 808 bytes.
#[derive(Debug)]
pub(crate) struct Histogram {
    counts: [Counter; BUCKETS],
    micros: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| Counter::default()), micros: Counter::default() }
    }
}

impl Histogram {
    /// One more that took so long.
    pub(crate) fn add(&self, micros: u64) {
        self.counts[bucket(micros)].add(1);
        self.micros.add(micros);
    }

    pub(crate) fn reactions(&self) -> Reactions {
        Reactions { counts: std::array::from_fn(|at| self.counts[at].get()), micros: self.micros.get() }
    }
}

/// The bucket of a time; the last one has all that are longer, too.
fn bucket(micros: u64) -> usize {
    if micros < OCTAVE_BUCKETS {
        return micros as usize;
    }
    let shift = micros.ilog2() - OCTAVE_BUCKETS.ilog2();
    let at = u64::from(shift) * OCTAVE_BUCKETS + (micros >> shift);
    (at as usize).min(BUCKETS - 1)
}

/// Where a bucket begins, and how wide it is, microseconds.
fn edges(bucket: usize) -> (u64, u64) {
    let at = bucket as u64;
    if at < OCTAVE_BUCKETS {
        return (at, 1);
    }
    let shift = at / OCTAVE_BUCKETS - 1;
    ((at % OCTAVE_BUCKETS + OCTAVE_BUCKETS) << shift, 1 << shift)
}

/// How long it took from the arrival of each event that a workflow was given to what it did about it: its first write,
/// message or HTTP request afterwards that was done, or else its next poll. Of an update that others were merged into, from
/// the arrival of the oldest.
///
/// A time is known to 12.5 %, or half a microsecond where that is more; what took over 58 seconds is counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reactions {
    counts: [u64; BUCKETS],
    micros: u64,
}

impl Reactions {
    /// Becomes these and later ones together.
    pub(crate) fn go_on(&mut self, later: &Self) {
        for (count, later) in self.counts.iter_mut().zip(later.counts) {
            *count += later;
        }
        self.micros += later.micros;
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What they took together, to the microsecond.
    pub fn total(&self) -> Duration {
        Duration::from_micros(self.micros)
    }

    /// What that part of them (0.5 for the median) took at most; `None` where there were none.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let rank = (self.count() as f64 * part.clamp(0.0, 1.0)).ceil().max(1.0);
        let mut so_far = 0;
        let found = self.counts.iter().position(|count| {
            so_far += count;
            so_far as f64 >= rank
        });
        let (begin, width) = edges(found?);
        Some(Duration::from_nanos(1_000 * begin + 500 * width))
    }

    /// How many took less than that: exactly, where it is a power of two in microseconds; else without those in the bucket
    /// that it falls in.
    pub fn below(&self, limit: Duration) -> u64 {
        let limit = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let whole = |at: &usize| {
            let (begin, width) = edges(*at);
            begin + width <= limit
        };
        (0..BUCKETS - 1).take_while(whole).map(|at| self.counts[at]).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_lie_side_by_side_up_to_a_minute_in_less_than_a_kibibyte() {
        let mut end = 0;
        for at in 0..BUCKETS {
            let (begin, width) = edges(at);
            assert_eq!(begin, end);
            assert_eq!((bucket(begin), bucket(begin + width - 1)), (at, at));
            end = begin + width;
        }
        assert!(Duration::from_micros(end) > Duration::from_secs(60));
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert!(size_of::<Histogram>() <= 1_024);
    }

    #[test]
    fn none_have_no_quantile() {
        let reactions = Histogram::default().reactions();
        assert_eq!((reactions.count(), reactions.quantile(0.5), reactions.below(Duration::MAX)), (0, None, 0));
    }

    proptest! {
        /// Against the sorted times.
        #[test]
        fn quantiles_are_as_near_as_promised(
            mut times in prop::collection::vec(prop_oneof![0..20_u64, 0..5_000_u64, 0..60_000_000_u64], 1..200),
            part in 0.0..1.0_f64, power in 0..26_u32,
        ) {
            // A later version goes on.
            let histograms = [(); 2].map(|()| Histogram::default());
            times.iter().enumerate().for_each(|(at, micros)| histograms[usize::from(at >= 50)].add(*micros));
            let [mut reactions, later] = histograms.map(|histogram| histogram.reactions());
            reactions.go_on(&later);
            times.sort_unstable();
            prop_assert_eq!(reactions.count(), times.len() as u64);
            prop_assert_eq!(reactions.total(), Duration::from_micros(times.iter().sum()));
            let limit = 1 << power;
            let below = times.iter().filter(|micros| **micros < limit).count() as u64;
            prop_assert_eq!(reactions.below(Duration::from_micros(limit)), below);
            for part in [part, 0.0, 0.5, 0.99, 1.0] {
                let rank = ((times.len() as f64 * part).ceil() as usize).max(1);
                let (exact, told) = (times[rank - 1] as f64, reactions.quantile(part).unwrap().as_secs_f64() * 1e6);
                prop_assert!((told - exact).abs() <= (exact * 0.125).max(0.5) + 1e-6, "{told} for {exact}");
            }
        }
    }
}
