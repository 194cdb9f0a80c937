//! How often a workflow may do something in a second.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Parts of a token in which a [`Bucket`] counts: it is filled by so many in each nanosecond for a token a second.
const PARTS: i64 = 1_000_000_000;

/// A token bucket: full at first, it holds what one second brings.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: i64,
    /// At most a second's; below 0 where more was spent than there was.
    parts: i64,
    filled: Instant,
}

impl Bucket {
    /// Full.
    pub(crate) fn new(per_second: NonZeroU32, now: Instant) -> Self {
        let per_second = i64::from(per_second.get());
        Self { per_second, parts: per_second * PARTS, filled: now }
    }

    /// As it was made.
    pub(crate) fn per_second(&self) -> i64 {
        self.per_second
    }

    /// Takes one out, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let taken = self.parts >= PARTS;
        self.parts -= if taken { PARTS } else { 0 };
        taken
    }

    /// Whether anything is in it.
    pub(crate) fn any(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.parts > 0
    }

    /// Takes so many out, also more than there are: time makes up for it before there is anything again.
    pub(crate) fn spend(&mut self, tokens: u32) {
        self.parts = self.parts.saturating_sub(i64::from(tokens) * PARTS);
    }

    fn fill(&mut self, now: Instant) {
        let nanos = now.saturating_duration_since(self.filled).as_nanos();
        self.filled = self.filled.max(now);
        // What a second brings fills it, unless more was spent than there was.
        let nanos = i64::try_from(nanos).unwrap_or(i64::MAX);
        let brought = nanos.saturating_mul(self.per_second);
        self.parts = self.parts.saturating_add(brought).min(self.per_second * PARTS);
    }
}

/// How fast something may go on the average, where it is known only afterwards how much it was: then it pauses. The same as a
/// bucket that can be in debt, kept as the moment at which the debt is paid.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: u64,
    burst: Duration,
    paid: Option<Instant>,
}

impl Pace {
    /// After a rest it may do as much at once as `burst` brings. `per_second` is above 0.
    pub(crate) fn new(per_second: u64, burst: Duration) -> Self {
        Self { per_second: per_second.max(1), burst, paid: None }
    }

    /// That much was done since the last time. For how long to do nothing now.
    pub(crate) fn spend(&mut self, amount: u64, now: Instant) -> Duration {
        let nanos = u128::from(amount) * 1_000_000_000 / u128::from(self.per_second);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let ahead = self.paid.map_or(Duration::ZERO, |paid| (paid + self.burst).saturating_duration_since(now));
        // More than a day is for ever, and could be no moment any more.
        let ahead = (ahead + takes).min(self.burst + Duration::from_secs(24 * 3600));
        self.paid = (now + ahead).checked_sub(self.burst);
        ahead.saturating_sub(self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_lets_a_burst_through_and_then_pauses_for_what_is_too_much() {
        let start = Instant::now() + Duration::from_secs(10);
        let after = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::new(1_000, Duration::from_millis(100));
        assert_eq!(pace.spend(100, start), Duration::ZERO, "the burst");
        assert_eq!(pace.spend(10, start), Duration::from_millis(10));
        assert_eq!(pace.spend(0, after(10)), Duration::ZERO, "it has paused");
        assert_eq!(pace.spend(5, after(10)), Duration::from_millis(5));
        assert_eq!(pace.spend(100, after(500)), Duration::ZERO, "a rest brings the burst again, and no more");
        assert_eq!(pace.spend(1, after(500)), Duration::from_millis(1));
        // On the average it is what was granted.
        let mut pace = Pace::new(250, Duration::from_millis(100));
        let mut now = start;
        for _ in 0..1_000 {
            now += Duration::from_millis(1) + pace.spend(1, now + Duration::from_millis(1));
        }
        let took = now - start;
        assert!((Duration::from_millis(3_890)..=Duration::from_millis(4_000)).contains(&took), "{took:?}");
        assert!(Pace::new(1, Duration::ZERO).spend(u64::MAX, start) >= Duration::from_secs(3600), "no overflow");
    }

    fn limit(per_second: u32) -> NonZeroU32 {
        NonZeroU32::new(per_second).unwrap()
    }

    #[test]
    fn a_bucket_gives_a_second_at_once_and_then_what_time_brings() {
        for per_second in [1, 3, 10_000, u32::MAX] {
            let start = Instant::now();
            let mut bucket = Bucket::new(limit(per_second), start);
            let burst = per_second.min(20_000);
            assert!((0..burst).all(|_| bucket.take(start)));
            assert_eq!(bucket.take(start), per_second > burst);
        }
        let start = Instant::now();
        let mut bucket = Bucket::new(limit(10_000), start);
        let mut taken = |at| (0..30_000).filter(|_| bucket.take(start + at)).count();
        assert_eq!(taken(Duration::ZERO), 10_000);
        assert_eq!(taken(Duration::from_nanos(99_999)), 0);
        assert_eq!(taken(Duration::from_micros(100)), 1);
        assert_eq!(taken(Duration::from_millis(100)), 999);
        assert_eq!(taken(Duration::from_secs(1_000_000)), 10_000, "no more than a second is kept");
        assert_eq!(taken(Duration::ZERO), 0, "a clock that goes back brings nothing");
        // In steps as in one: nothing is lost to rounding.
        let mut bucket = Bucket::new(limit(3), start);
        let taken = (0..=10_000_000_u64).step_by(7_001).filter(|at| bucket.take(start + Duration::from_micros(*at)));
        assert_eq!(taken.count(), 3 + 29);
    }

    #[test]
    fn what_is_spent_beyond_is_made_up_for() {
        let start = Instant::now();
        let mut bucket = Bucket::new(limit(10), start);
        bucket.spend(9);
        assert!(bucket.any(start));
        bucket.spend(31);
        for (millis, any) in [(0, false), (3_000, false), (3_001, true)] {
            assert_eq!(bucket.any(start + Duration::from_millis(millis)), any, "{millis}");
        }
        let mut bucket = Bucket::new(limit(u32::MAX), start);
        for _ in 0..5 {
            bucket.spend(u32::MAX);
        }
        assert!(!bucket.any(start + Duration::from_secs(1)), "deep in debt, and not wrapped around");
        assert!(bucket.any(start + Duration::from_secs(1_000_000)));
    }
}
