//! What history is asked for besides one value: a value for each stretch of time, the points themselves, series and tags.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use slung_model::{Op, Point, Query, SeriesId, SeriesKey, TimeRange};
use slung_store::{BucketValue, Damage};

use crate::{Engine, Error};

/// Series that are looked at under one lock of the store: some ten microseconds.
const SERIES_AT_ONCE: usize = 1_024;

/// What a historical query answers for one stretch of time after the other.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Buckets {
    /// Those that have points, by rising time.
    pub buckets: Vec<BucketValue>,
    /// How many series the query means, with points in the range or without.
    pub series: u64,
    /// The time that was asked for, both ends included, with the clock as it was.
    pub range: TimeRange,
    /// What the answer may lack, because it is damaged; empty where it is complete.
    pub damage: Vec<Damage>,
}

/// Some of the points that a query means.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Page {
    /// The points, by series in the order of their ids, those of a series by time.
    pub points: Vec<Point>,
    /// Whether there are some behind them.
    pub more: bool,
    /// The time that was asked for, both ends included.
    pub range: TimeRange,
    /// What may be missing, because it is damaged; empty where nothing is.
    pub damage: Vec<Damage>,
}

impl Engine {
    /// Answers a query for each stretch of `every` microseconds, counted from 1970, that has points: at most `buckets_max` of
    /// them, from the earliest on. What [`Engine::query`] answers with the part of the stretch as its range that lies in the
    /// query's own; only the last digits of sums, means and deviations may differ, and for LAST, of several series with the
    /// same timestamp, which one counts.
    ///
    /// It may read from disk, as [`Engine::query`] does, and in one pass.
    ///
    /// # Errors
    /// [`Error::Store`] where the system fails to read.
    ///
    /// # Panics
    /// Where `every` is not above 0.
    pub fn buckets(&self, query: &Query, every: i64, buckets_max: usize) -> Result<Buckets, Error> {
        let range = query.time_range(self.now_micros());
        let series = self.stored.store.select(query);
        let snapshot = self.stored.store.snapshot(&series, range);
        self.queries.fetch_add(1, Ordering::Relaxed);
        let one = |(start, point): (i64, Point)| BucketValue { start, value: Some(point.value), count: 1 };
        let buckets = match query.op() {
            Op::Raw | Op::Last => snapshot.bucket_lasts(every, buckets_max)?.into_iter().map(one).collect(),
            Op::First => snapshot.bucket_firsts(every, buckets_max)?.into_iter().map(one).collect(),
            Op::Rate => snapshot.bucket_rates(every, buckets_max)?,
            Op::Quantile(quantile) => snapshot.bucket_quantiles(quantile, every, buckets_max)?,
            op => {
                let buckets = snapshot.buckets(every, buckets_max)?;
                let value = |bucket: &slung_store::Bucket| {
                    let total = bucket.spread.aggregate();
                    let is_sum = matches!(op, Op::Sum | Op::Avg);
                    self.sums_saturated.fetch_add(u64::from(is_sum && total.is_saturated()), Ordering::Relaxed);
                    let value = if op == Op::StdDev { bucket.spread.std_dev() } else { total.value(op) };
                    BucketValue { start: bucket.start, value, count: total.count() }
                };
                buckets.iter().map(value).collect()
            }
        };
        Ok(Buckets { buckets, series: series.len() as u64, range, damage: snapshot.damage() })
    }

    /// The points that a query means, whatever its operator: at most `points_max`, by series in the order of their ids and
    /// by time. With `after`, those behind that series and timestamp, in that range instead of the query's. Whoever asks page
    /// by page, with the last point of the one before and its range, gets every point once that is there from the first page
    /// to the last.
    ///
    /// It may read from disk. Memory for the page, and for what [`slung_store::Snapshot::scan`] holds of one series.
    ///
    /// # Errors
    /// [`Error::Store`] where the system fails to read.
    pub fn points(
        &self,
        query: &Query,
        after: Option<(SeriesId, i64, TimeRange)>,
        points_max: usize,
    ) -> Result<Page, Error> {
        let store = &self.stored.store;
        let mut page = Page { points: Vec::new(), more: false, range: TimeRange::ALL, damage: Vec::new() };
        self.queries.fetch_add(1, Ordering::Relaxed);
        let all = store.select(query);
        let (mut begun, later) = match after {
            None => {
                page.range = query.time_range(self.now_micros());
                (None, &all[..])
            }
            Some((series, timestamp, range)) => {
                page.range = range;
                let is_meant = all.binary_search(&series).is_ok();
                // Behind the greatest timestamp there is nothing.
                let start = timestamp.checked_add(1).filter(|_| is_meant).map(|start| start.max(range.start));
                let rest = start.map(|start| store.snapshot(&[series], TimeRange { start, end: range.end }));
                (rest, &all[all.partition_point(|id| *id <= series)..])
            }
        };
        // One after the other, as writers wait while a snapshot is taken: a page rarely needs many series.
        let mut later = later.chunks(SERIES_AT_ONCE);
        let next = || begun.take().or_else(|| Some(store.snapshot(later.next()?, page.range)));
        for snapshot in std::iter::from_fn(next) {
            for point in snapshot.scan() {
                let point = point?;
                if page.points.len() == points_max {
                    page.more = true;
                    break;
                }
                page.points.push(point);
            }
            for damage in snapshot.damage() {
                if !page.damage.contains(&damage) {
                    page.damage.push(damage);
                }
            }
            if page.more {
                break;
            }
        }
        Ok(page)
    }

    /// The series that a query means, whatever its operator and range, or all there are, in the order of their ids: those
    /// behind `after`, at most `series_max`.
    pub fn series(
        &self,
        query: Option<&Query>,
        after: Option<SeriesId>,
        series_max: usize,
    ) -> Vec<(SeriesId, Arc<SeriesKey>)> {
        let store = &self.stored.store;
        let Some(query) = query else { return store.series_after(after, series_max) };
        let all = store.select(query);
        let later = &all[all.partition_point(|id| Some(*id) <= after)..];
        later.iter().take(series_max).filter_map(|id| Some((*id, store.key(*id)?))).collect()
    }

    /// The tags of the series that a query means, whatever its operator and range, or of all there are, each with how many of
    /// these carry it. In byte order: those behind `after`, at most `tags_max`. Looks at every such series.
    pub fn tags(&self, query: Option<&Query>, after: Option<&str>, tags_max: usize) -> Vec<(String, u64)> {
        // The smallest so far. One that had to go does not come back, as those before it stay.
        let mut tags: BTreeMap<String, u64> = BTreeMap::new();
        let mut put = |key: &SeriesKey| {
            for tag in key.tags().filter(|tag| after.is_none_or(|after| *tag > after)) {
                if let Some(count) = tags.get_mut(tag) {
                    *count += 1;
                    continue;
                }
                let is_full = tags.len() >= tags_max;
                if is_full && tags.last_key_value().is_none_or(|(last, _)| tag > last.as_str()) {
                    continue;
                }
                tags.insert(tag.to_owned(), 1);
                if is_full {
                    tags.pop_last();
                }
            }
        };
        let store = &self.stored.store;
        if let Some(query) = query {
            store.select(query).into_iter().filter_map(|id| store.key(id)).for_each(|key| put(&key));
        } else {
            let mut last = None;
            loop {
                let page = store.series_after(last, SERIES_AT_ONCE);
                let Some((id, _)) = page.last() else { break };
                last = Some(*id);
                page.iter().for_each(|(_, key)| put(key));
            }
        }
        tags.into_iter().collect()
    }
}
