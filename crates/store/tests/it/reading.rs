//! What snapshots and selections answer.

use std::sync::Arc;
use std::thread;

use slung_model::{Op, Point, Quantile, Query, SeriesId, SeriesKey, TimeRange};
use slung_store::sim::SimVfs;

use crate::common::{key, open};

fn point(series: SeriesId, timestamp: i64, value: f64) -> Point {
    Point { series, timestamp, value }
}

#[test]
fn the_last_point_is_the_newest_and_of_several_the_one_written_last() {
    let (store, _) = open(&SimVfs::new(1)).unwrap();
    let [a, b] = [0, 1].map(|number| store.resolve(&key(number)).unwrap().0);
    let last = |range| store.snapshot(&[a, b], range).last().unwrap();
    assert_eq!(last(TimeRange::ALL), None);
    store.write(&[point(b, 5, 1.0), point(a, 5, 2.0), point(b, 3, 3.0)]).unwrap();
    assert_eq!(last(TimeRange::ALL), Some(point(a, 5, 2.0)));
    store.write(&[point(b, 5, 4.0)]).unwrap();
    assert_eq!(last(TimeRange::ALL), Some(point(b, 5, 4.0)));
    assert_eq!(last(TimeRange { start: 0, end: 4 }), Some(point(b, 3, 3.0)));
    // Both points of this series lie around the range, in one block.
    store.write(&[point(a, 1, 5.0)]).unwrap();
    assert_eq!(store.snapshot(&[a], TimeRange { start: 2, end: 4 }).last().unwrap(), None);
}

#[test]
fn both_ends_belong_to_a_range_and_a_reversed_one_is_empty() {
    let (store, _) = open(&SimVfs::new(1)).unwrap();
    let (series, _) = store.resolve(&key(0)).unwrap();
    let times: Vec<i64> = [i64::MIN, -1, 0, 1, i64::MAX].into();
    store.write(&times.iter().map(|&t| point(series, t, 1.0)).collect::<Vec<_>>()).unwrap();
    let count = |start, end| store.snapshot(&[series], TimeRange { start, end }).aggregate().unwrap().count();
    assert_eq!(count(i64::MIN, i64::MAX), 5);
    assert_eq!(count(-1, 1), 3);
    assert_eq!(count(0, 0), 1);
    assert_eq!(count(2, 3), 0);
    assert_eq!(count(1, -1), 0);
    assert_eq!(count(i64::MAX, i64::MIN), 0);
}

#[test]
fn a_series_that_is_asked_for_twice_counts_once_and_an_unknown_one_not_at_all() {
    let (store, _) = open(&SimVfs::new(1)).unwrap();
    let (series, _) = store.resolve(&key(0)).unwrap();
    store.write(&[point(series, 1, 2.0)]).unwrap();
    let snapshot = store.snapshot(&[series, SeriesId(7), series, SeriesId(u32::MAX)], TimeRange::ALL);
    assert_eq!(snapshot.aggregate().unwrap().value(Op::Sum), Some(2.0));
    assert_eq!(snapshot.points().unwrap().count(), 1);
    assert_eq!(store.key(SeriesId(7)), None);
}

#[test]
fn queries_select_by_name_and_tags() {
    let (store, _) = open(&SimVfs::new(1)).unwrap();
    let resolve = |name, tags: &[&str]| store.resolve(&SeriesKey::new(name, tags).unwrap()).unwrap().0;
    let a = resolve("temp", &["sensor=1", "env=prod"]);
    let b = resolve("temp", &["sensor=2", "env=prod"]);
    let c = resolve("load", &["env=prod"]);
    let select = |text: &str| store.select(&Query::parse(text).unwrap());
    assert_eq!(select("AVG:temp:[env=prod]"), [a, b]);
    assert_eq!(select("AVG:load,temp:[NOT sensor=1]"), [b, c]);
    assert_eq!(select("AVG:nothing:[]"), []);
}

/// Each write adds two points whose values cancel out. Whenever a snapshot is taken, it holds both or neither.
#[test]
fn a_snapshot_sees_whole_writes_and_does_not_change() {
    let (store, _) = open(&SimVfs::new(1)).unwrap();
    let store = Arc::new(store);
    let [a, b] = [0, 1].map(|number| store.resolve(&key(number)).unwrap().0);
    let writer = {
        let store = Arc::clone(&store);
        thread::spawn(move || {
            for i in 0..20_000i64 {
                // Some out of order, so that blocks are copied and split under the readers.
                let timestamp = if i % 3 == 0 { -i } else { i };
                store.write(&[point(a, timestamp, i as f64), point(b, timestamp, -i as f64)]).unwrap();
            }
        })
    };
    let mut held = Vec::new();
    let mut rounds = 0;
    while !writer.is_finished() {
        let snapshot = store.snapshot(&[a, b], TimeRange::ALL);
        let aggregate = snapshot.aggregate().unwrap();
        assert_eq!(aggregate.count(), snapshot.seq().0);
        assert_eq!((aggregate.count() % 2, aggregate.sum()), (0, 0.0));
        if rounds % 64 == 0 {
            held.push((snapshot, aggregate));
        }
        rounds += 1;
    }
    writer.join().unwrap();
    for (snapshot, before) in held {
        assert_eq!(snapshot.aggregate().unwrap(), before);
        assert_eq!(snapshot.points().unwrap().count() as u64, before.count());
    }
    assert_eq!(store.snapshot(&[a, b], TimeRange::ALL).aggregate().unwrap().count(), 40_000);
}

/// Quantiles hold the values of some stretches at once, and read a long one by itself.
#[test]
fn quantiles_of_long_and_short_stretches_are_those_of_each() {
    const LONG: i64 = 1 << 21;
    let (store, _) = open(&SimVfs::new(1)).unwrap();
    let [a, b] = [0, 1].map(|number| store.resolve(&key(number)).unwrap().0);
    let value = |timestamp: i64| (timestamp.wrapping_mul(7_919) % 1_000) as f64;
    let write = |series, range: std::ops::Range<i64>, step| {
        let points: Vec<Point> = range.step_by(step).map(|at| point(series, at, value(at))).collect();
        for points in points.chunks(100_000) {
            store.write(points).unwrap();
        }
    };
    // Short stretches, one with more values than are held, and short ones again.
    write(a, -3 * LONG..0, 50_000);
    write(a, 0..700_000, 1);
    write(b, 700_000..1_400_000, 1);
    write(b, LONG..4 * LONG, 40_000);
    let snapshot = store.snapshot(&[a, b], TimeRange::ALL);
    let median = Quantile::from_percent("50").unwrap();
    let found = snapshot.bucket_quantiles(median, LONG, 100).unwrap();
    assert_eq!(found.iter().map(|bucket| bucket.start / LONG).collect::<Vec<_>>(), [-3, -2, -1, 0, 1, 2, 3]);
    assert_eq!(found[3].count, 1_400_000);
    for bucket in &found {
        let own = snapshot.narrow(TimeRange { start: bucket.start, end: bucket.start + LONG - 1 }).sketch().unwrap();
        assert_eq!((bucket.value, bucket.count), (own.quantile(median), own.count()), "{}", bucket.start);
    }
    let few = snapshot.bucket_quantiles(median, LONG, 2).unwrap();
    assert_eq!(few, found[..2]);
}
