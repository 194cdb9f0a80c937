//! Workflows that write into their own live queries: what they write comes back to them, perhaps for ever.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use slung_model::{Query, SeriesId, SeriesKey, Window};

/// Series that are remembered as feeding no query, so that they are not looked at with each event: more than workflows
/// usually write to, and a few KiB. A workflow that writes to more is looked at again and again, and works all the same.
const APART_SERIES_MAX: usize = 1_024;

/// What one workflow reads, held against what it writes.
#[derive(Debug, Default)]
pub(crate) struct Feedback(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Its live queries, by their handles.
    queries: Vec<(u64, Query)>,
    /// Series that none of them reads.
    apart: HashSet<SeriesId>,
    /// It was told of once, and is not looked at any more.
    found: bool,
}

impl Feedback {
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
        if state.found || state.apart.contains(&series) {
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
        state.found = true;
        Some(fed)
    }

    /// No critical section here can panic half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an event of that time, in a series that the query means, can cause an update.
fn takes(query: &Query, timestamp: i64) -> bool {
    !matches!(query.window(), Ok(Window::Absolute(range)) if !range.contains(timestamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, tags: &[&str]) -> SeriesKey {
        SeriesKey::new(name, tags).unwrap()
    }

    #[test]
    fn feeding_itself_is_noticed_once() {
        let feedback = Feedback::default();
        let (mine, other) = (key("temp", &["of=me"]), key("score", &[]));
        assert_eq!(feedback.fed(SeriesId(0), &mine, 5), None, "it reads nothing");
        let query = Query::parse("AVG:temp:[]:[1h]").unwrap();
        feedback.subscribed(7, query.clone());
        assert_eq!(feedback.fed(SeriesId(1), &other, 5), None);
        assert_eq!(feedback.fed(SeriesId(0), &mine, 5), Some(query), "it reads more than before");
        assert_eq!(feedback.fed(SeriesId(0), &mine, 6), None);
    }

    #[test]
    fn what_it_does_not_read_any_more_and_what_falls_into_no_range_is_not_fed() {
        let feedback = Feedback::default();
        let mine = key("temp", &[]);
        feedback.subscribed(7, Query::parse("SUM:temp:[]").unwrap());
        feedback.freed(7);
        assert_eq!(feedback.fed(SeriesId(0), &mine, 5), None);
        let past = Query::parse("SUM:temp:[]:[10,20]").unwrap();
        feedback.subscribed(8, past.clone());
        assert_eq!(feedback.fed(SeriesId(0), &mine, 9), None);
        assert_eq!(feedback.fed(SeriesId(0), &mine, 10), Some(past), "another time in the same series");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let feedback = Feedback::default();
        for id in 0..3 * APART_SERIES_MAX as u32 {
            assert_eq!(feedback.fed(SeriesId(id), &key("a", &[]), 5), None);
        }
        assert!(feedback.lock().apart.len() <= APART_SERIES_MAX);
    }
}
