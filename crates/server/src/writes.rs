//! What a workflow writes: so many events a second, and none into its own live queries unnoticed.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use slung_model::{Query, SeriesId, SeriesKey, Window};

/// Series that are remembered as feeding no query, so that they are not looked at with each event: more than workflows
/// usually write to, and a few KiB. A workflow that writes to more is looked at again and again, and works all the same.
const APART_SERIES_MAX: usize = 1_024;

/// The writes of one workflow.
#[derive(Debug)]
pub(crate) struct Writes {
    per_second_max: NonZeroU32,
    state: Mutex<State>,
    over_limit: AtomicU64,
}

#[derive(Debug)]
struct State {
    bucket: Bucket,
    /// Its live queries, by their handles.
    queries: Vec<(u64, Query)>,
    /// Series that none of them reads.
    apart: HashSet<SeriesId>,
    /// It was told of once, and is not looked at any more.
    feeds_itself: bool,
}

impl Writes {
    /// Of a workflow that starts now, and may write so many events a second.
    pub(crate) fn new(per_second_max: NonZeroU32) -> Self {
        let state = State {
            bucket: Bucket::new(per_second_max, Instant::now()),
            queries: Vec::new(),
            apart: HashSet::new(),
            feeds_itself: false,
        };
        Self { per_second_max, state: Mutex::new(state), over_limit: AtomicU64::new(0) }
    }

    /// Events that were refused because they were too many.
    pub(crate) fn over_limit(&self) -> u64 {
        self.over_limit.load(Relaxed)
    }

    /// Lets one more event pass, or says why not.
    pub(crate) fn admit(&self) -> Result<(), String> {
        if self.lock().bucket.take(Instant::now()) {
            return Ok(());
        }
        self.over_limit.fetch_add(1, Relaxed);
        // The same text each time: that is how the host knows that it need not log it again.
        Err(format!("more than {} events in a second, see `writes_per_second_max` in slung.toml", self.per_second_max))
    }

    /// The workflow reads this from now on.
    pub(crate) fn subscribed(&self, handle: u64, query: Query) {
        let mut state = self.lock();
        state.queries.push((handle, query));
        state.apart.clear();
    }

    /// It reads that no more.
    pub(crate) fn freed(&self, handle: u64) {
        self.lock().queries.retain(|(other, _)| *other != handle);
    }

    /// The live query that this event would come back by, the first time that there is one.
    pub(crate) fn fed(&self, series: SeriesId, key: &SeriesKey, timestamp: i64) -> Option<Query> {
        let mut state = self.lock();
        if state.feeds_itself || state.apart.contains(&series) {
            return None;
        }
        let mut reading = state.queries.iter().map(|(_, query)| query).filter(|query| query.matches(key)).peekable();
        if reading.peek().is_none() {
            if state.apart.len() >= APART_SERIES_MAX {
                state.apart.clear();
            }
            state.apart.insert(series);
            return None;
        }
        let fed = reading.find(|query| takes(query, timestamp))?.clone();
        state.feeds_itself = true;
        Some(fed)
    }

    /// No critical section here can panic half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an event of that time, in a series that the query means, can cause an update.
fn takes(query: &Query, timestamp: i64) -> bool {
    !matches!(query.window(), Ok(Window::Absolute(range)) if !range.contains(timestamp))
}

/// Parts of an event in which a [`Bucket`] counts: it is filled by so many in each nanosecond for an event a second.
const PARTS: u64 = 1_000_000_000;

/// A token bucket: full at first, it holds what one second brings.
#[derive(Debug)]
struct Bucket {
    per_second: u64,
    parts: u64,
    filled: Instant,
}

impl Bucket {
    fn new(per_second: NonZeroU32, now: Instant) -> Self {
        let per_second = u64::from(per_second.get());
        Self { per_second, parts: per_second * PARTS, filled: now }
    }

    /// Takes one event out, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        let nanos = now.saturating_duration_since(self.filled).as_nanos();
        // After a second it is full.
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX).min(PARTS);
        self.filled = self.filled.max(now);
        self.parts = (self.parts + nanos * self.per_second).min(self.per_second * PARTS);
        let taken = self.parts.checked_sub(PARTS);
        self.parts = taken.unwrap_or(self.parts);
        taken.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

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
    fn who_is_over_the_limit_is_counted_and_told_the_same_each_time() {
        let writes = Writes::new(limit(1));
        assert_eq!(writes.admit(), Ok(()));
        let refused = writes.admit().unwrap_err();
        assert!(refused.contains("more than 1 events") && refused.contains("writes_per_second_max"), "{refused}");
        assert_eq!((writes.admit(), writes.over_limit()), (Err(refused), 2));
    }

    fn key(name: &str, tags: &[&str]) -> SeriesKey {
        SeriesKey::new(name, tags).unwrap()
    }

    #[test]
    fn feeding_itself_is_noticed_once() {
        let writes = Writes::new(limit(1));
        let (mine, other) = (key("temp", &["of=me"]), key("score", &[]));
        assert_eq!(writes.fed(SeriesId(0), &mine, 5), None, "it reads nothing");
        let query = Query::parse("AVG:temp:[]:[1h]").unwrap();
        writes.subscribed(7, query.clone());
        assert_eq!(writes.fed(SeriesId(1), &other, 5), None);
        assert_eq!(writes.fed(SeriesId(0), &mine, 5), Some(query), "it reads more than before");
        assert_eq!(writes.fed(SeriesId(0), &mine, 6), None);
    }

    #[test]
    fn what_it_does_not_read_any_more_and_what_falls_into_no_range_is_not_fed() {
        let writes = Writes::new(limit(1));
        let mine = key("temp", &[]);
        writes.subscribed(7, Query::parse("SUM:temp:[]").unwrap());
        writes.freed(7);
        assert_eq!(writes.fed(SeriesId(0), &mine, 5), None);
        let past = Query::parse("SUM:temp:[]:[10,20]").unwrap();
        writes.subscribed(8, past.clone());
        assert_eq!(writes.fed(SeriesId(0), &mine, 9), None);
        assert_eq!(writes.fed(SeriesId(0), &mine, 10), Some(past), "another time in the same series");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let writes = Writes::new(limit(1));
        for id in 0..3 * APART_SERIES_MAX as u32 {
            assert_eq!(writes.fed(SeriesId(id), &key("a", &[]), 5), None);
        }
        assert!(writes.lock().apart.len() <= APART_SERIES_MAX);
    }
}
