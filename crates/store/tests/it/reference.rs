//! What a store must answer, from sorted maps, and the comparison.

use std::collections::BTreeMap;

use slung_model::{Aggregate, Op, Point, Quantile, SeriesId, Spread, TimeRange};
use slung_store::Snapshot;

use crate::common::Write;

/// A series, and of each of its points the timestamp, the value and the place in the order of writes.
type OfSeries = (SeriesId, Vec<(i64, f64, u64)>);

/// What counts in each series: the value, and its place in the order of writes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reference {
    series: BTreeMap<usize, BTreeMap<i64, (f64, u64)>>,
}

/// What a snapshot must answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// By rising ids, each with its points in the order of time.
    series: Vec<OfSeries>,
    /// The range has the newest points of all these series, and nothing was deleted: of several with the greatest timestamp
    /// the one that was written last is known.
    last_is_known: bool,
}

/// What of a snapshot is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Aggregate,
    Ends,
    Spread,
    Rate,
    Sketch,
    Buckets { every: i64, buckets_max: usize },
    Scan,
    Points,
}

impl Reference {
    pub(crate) fn write(&mut self, batch: &[Write], first_seq: u64) {
        for (&(number, timestamp, value), seq) in std::iter::zip(batch, first_seq..) {
            self.series.entry(number).or_default().insert(timestamp, (value, seq));
        }
    }

    /// Answers how many points went that a query from `floor` on would have seen.
    pub(crate) fn delete(&mut self, numbers: &[usize], range: TimeRange, floor: i64) -> u64 {
        let mut gone = 0;
        for number in numbers {
            let points = self.series.entry(*number).or_default();
            points.retain(|timestamp, _| {
                let inside = range.contains(*timestamp);
                gone += u64::from(inside && *timestamp >= floor);
                !inside
            });
        }
        gone
    }

    /// The greatest timestamp.
    pub(crate) fn newest(&self) -> Option<i64> {
        self.series.values().filter_map(|points| Some(*points.last_key_value()?.0)).max()
    }

    pub(crate) fn answer(&self, series: &[(usize, SeriesId)], range: TimeRange, has_deleted: bool) -> Answer {
        let mut last_is_known = !has_deleted;
        let mut points_of = |(number, id): &(usize, SeriesId)| {
            let none = BTreeMap::new();
            let all = self.series.get(number).unwrap_or(&none);
            last_is_known &= all.last_key_value().is_none_or(|(newest, _)| *newest <= range.end);
            let inside = if range.start <= range.end { Some(all.range(range.start..=range.end)) } else { None };
            (*id, inside.into_iter().flatten().map(|(timestamp, (value, seq))| (*timestamp, *value, *seq)).collect())
        };
        let mut series: Vec<OfSeries> = series.iter().map(&mut points_of).collect();
        series.sort_by_key(|(id, _)| *id);
        series.dedup_by_key(|(id, _)| *id);
        Answer { series, last_is_known }
    }
}

/// Within 1e-9 of what the parts may have added up to.
fn assert_near(found: f64, expected: f64, scale: f64, what: &str) {
    assert!((found - expected).abs() <= scale * 1e-9, "{what}: {found} instead of {expected}");
}

fn assert_aggregate(found: &Aggregate, values: &[f64]) {
    assert_eq!(found.count(), values.len() as u64, "count");
    assert_eq!(found.value(Op::Min), values.iter().copied().reduce(f64::min), "minimum");
    assert_eq!(found.value(Op::Max), values.iter().copied().reduce(f64::max), "maximum");
    let scale = values.iter().map(|value| value.abs()).sum();
    assert_near(found.sum(), values.iter().sum(), scale, "sum");
}

fn assert_spread(found: &Spread, values: &[f64]) {
    assert_aggregate(found.aggregate(), values);
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count;
    let scale = values.iter().map(|value| value.abs()).fold(0.0, f64::max);
    match found.std_dev() {
        Some(deviation) => assert_near(deviation, variance.sqrt(), scale, "standard deviation"),
        None => assert!(values.is_empty()),
    }
}

impl Answer {
    pub(crate) fn count(&self) -> u64 {
        self.series.iter().map(|(_, points)| points.len() as u64).sum()
    }

    fn values(&self) -> Vec<f64> {
        self.series.iter().flat_map(|(_, points)| points).map(|(_, value, _)| *value).collect()
    }

    /// By series, then by time.
    fn points(&self) -> Vec<Point> {
        let of = |(series, points): &(SeriesId, Vec<(i64, f64, u64)>)| {
            let series = *series;
            let point = move |&(timestamp, value, _): &(i64, f64, u64)| Point { series, timestamp, value };
            points.iter().map(point).collect::<Vec<_>>()
        };
        self.series.iter().flat_map(of).collect()
    }

    pub(crate) fn compare(&self, snapshot: &Snapshot, ask: Ask) {
        match ask {
            Ask::Aggregate => assert_aggregate(&snapshot.aggregate().unwrap(), &self.values()),
            Ask::Ends => self.compare_ends(snapshot),
            Ask::Spread => assert_spread(&snapshot.spread().unwrap(), &self.values()),
            Ask::Rate => self.compare_rate(snapshot),
            Ask::Sketch => assert_eq!(snapshot.sketch().unwrap().count(), self.values().len() as u64),
            Ask::Buckets { every, buckets_max } => self.compare_buckets(snapshot, every, buckets_max),
            Ask::Scan => {
                let found: Vec<Point> = snapshot.scan().collect::<Result<_, _>>().unwrap();
                assert_eq!(found, self.points());
            }
            Ask::Points => {
                let mut expected = self.points();
                expected.sort_by_key(|point| (point.timestamp, point.series));
                let found: Vec<Point> = snapshot.points().unwrap().collect::<Result<_, _>>().unwrap();
                assert_eq!(found, expected);
            }
        }
        assert_eq!(snapshot.damage(), [], "nothing is damaged");
    }

    fn compare_ends(&self, snapshot: &Snapshot) {
        let points = self.points();
        let first = points.iter().min_by_key(|point| (point.timestamp, point.series)).copied();
        assert_eq!(snapshot.first().unwrap(), first, "the first point");
        let found = snapshot.last().unwrap();
        let newest = points.iter().map(|point| point.timestamp).max();
        assert_eq!(found.map(|point| point.timestamp), newest, "the time of the last point");
        if let Some(found) = found {
            assert!(points.contains(&found), "the last point is one: {found:?}");
            let ends = self.series.iter().filter_map(|(id, points)| Some((id, points.last()?)));
            let tied = ends.filter(|(_, (timestamp, ..))| Some(*timestamp) == newest);
            let last = tied.max_by_key(|(_, (_, _, seq))| *seq).map(|(id, _)| *id);
            assert!(!self.last_is_known || last == Some(found.series), "of those with one time the one written last");
        }
    }

    fn compare_rate(&self, snapshot: &Snapshot) {
        let (found, count) = snapshot.rate().unwrap();
        assert_eq!(count, self.values().len() as u64, "the count of the rate");
        let (mut expected, mut scale) = (None, 0.0);
        for (_, points) in &self.series {
            let [(start, ..), .., (end, ..)] = points.as_slice() else { continue };
            let seconds = (*end as f64 - *start as f64) / 1e6;
            let step = |pair: &[(i64, f64, u64)]| pair[1].1 - if pair[1].1 < pair[0].1 { 0.0 } else { pair[0].1 };
            let steps = || points.windows(2).map(step);
            *expected.get_or_insert(0.0) += steps().sum::<f64>() / seconds;
            scale += steps().map(f64::abs).sum::<f64>() / seconds;
        }
        assert_eq!(found.is_some(), expected.is_some(), "there is a rate: {found:?}, {expected:?}");
        assert_near(found.unwrap_or(0.0), expected.unwrap_or(0.0), scale, "rate");
    }

    fn compare_buckets(&self, snapshot: &Snapshot, every: i64, buckets_max: usize) {
        let mut expected: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        for point in self.points() {
            expected.entry(point.timestamp.div_euclid(every) * every).or_default().push(point.value);
        }
        let found = snapshot.buckets(every, buckets_max).unwrap();
        let starts: Vec<i64> = found.iter().map(|bucket| bucket.start).collect();
        assert_eq!(starts, expected.keys().copied().take(buckets_max).collect::<Vec<_>>(), "which buckets there are");
        for (bucket, values) in std::iter::zip(&found, expected.values()) {
            assert_spread(&bucket.spread, values);
        }
        self.compare_bucket_values(snapshot, every, buckets_max, &starts);
    }

    /// Each stretch answers what its own snapshot does.
    fn compare_bucket_values(&self, snapshot: &Snapshot, every: i64, buckets_max: usize, starts: &[i64]) {
        let median = Quantile::from_percent("50").unwrap();
        let firsts = snapshot.bucket_firsts(every, buckets_max).unwrap();
        let lasts = snapshot.bucket_lasts(every, buckets_max).unwrap();
        let rates = snapshot.bucket_rates(every, buckets_max).unwrap();
        let medians = snapshot.bucket_quantiles(median, every, buckets_max).unwrap();
        assert_eq!(firsts.iter().map(|(start, _)| *start).collect::<Vec<_>>(), starts);
        assert_eq!(lasts.iter().map(|(start, _)| *start).collect::<Vec<_>>(), starts);
        assert_eq!(rates.iter().map(|bucket| bucket.start).collect::<Vec<_>>(), starts);
        assert_eq!(medians.iter().map(|bucket| bucket.start).collect::<Vec<_>>(), starts);
        let points = self.points();
        // Some of them: each is read five times.
        for (index, start) in starts.iter().enumerate().step_by(7) {
            let own = snapshot.narrow(TimeRange { start: *start, end: start.saturating_add(every - 1) });
            assert_eq!(Some(firsts[index].1), own.first().unwrap(), "the first of a stretch");
            let (found, last) = (lasts[index].1, own.last().unwrap().unwrap());
            assert_eq!(found.timestamp, last.timestamp, "the time of the last of a stretch");
            let ends: Vec<&Point> = points.iter().filter(|point| point.timestamp == last.timestamp).collect();
            assert!(ends.contains(&&found) && (ends.len() > 1 || found == last), "the last of a stretch");
            let (rate, count) = own.rate().unwrap();
            assert_eq!((rates[index].count, rates[index].value.is_some()), (count, rate.is_some()));
            let (found, expected) = (rates[index].value.unwrap_or(0.0), rate.unwrap_or(0.0));
            // Values are up to 1e3, and points lie at least a microsecond apart.
            assert_near(found, expected, count as f64 * 1e9, "the rate of a stretch");
            let sketch = own.sketch().unwrap();
            assert_eq!((medians[index].value, medians[index].count), (sketch.quantile(median), sketch.count()));
        }
    }
}
