//! A value for each stretch of time is what the query over it answers; pages have every point once; tags are counted.

use std::collections::BTreeMap;

use proptest::prelude::*;
use slung_engine::{Engine, Options};
use slung_model::{Point, SeriesKey, TimeRange};
use slung_store::sim::SimVfs;

use crate::support::{SECOND, TODAY, open, query, resolve};

const OPS: [&str; 12] = ["AVG", "MIN", "MAX", "SUM", "COUNT", "FIRST", "LAST", "?", "STDDEV", "RATE", "P1", "P50"];

/// Series, seconds from today, value. Each series has its own microsecond, so that no two points have the same time.
fn event() -> impl Strategy<Value = (u32, i64, f64)> {
    (0..4_u32, -200..0_i64, prop_oneof![4 => -1e3..1e3, 1 => -1e12..1e12])
}

fn write(engine: &Engine, events: &[(u32, i64, f64)]) {
    let point = |&(sensor, seconds, value): &(u32, i64, f64)| {
        let timestamp = TODAY + seconds * SECOND + i64::from(sensor);
        Point { series: resolve(engine, "temp", sensor), timestamp, value }
    };
    let points: Vec<Point> = events.iter().map(point).collect();
    engine.write(None, &points).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_stretch_is_the_query_over_it(
        events in prop::collection::vec(event(), 0..150),
        op in prop::sample::select(&OPS[..]),
        every in prop::sample::select(&[1, 7, SECOND, 13 * SECOND, 1_000 * SECOND][..]),
        range in prop::option::of((-220..20_i64, -220..20_i64)),
        buckets_max in prop_oneof![1 => 0..10_usize, 3 => Just(1_000)],
    ) {
        let engine = open(SimVfs::new(5), Options::default());
        write(&engine, &events);
        let range = range.map(|(a, b)| TimeRange::between(TODAY + a * SECOND + 1, TODAY + b * SECOND + 1));
        let of = |range: TimeRange| format!("{op}:temp:[NOT n=3]:[{},{}]", range.start, range.end);
        let text = range.map_or(format!("{op}:temp:[NOT n=3]"), of);
        let answer = engine.buckets(&query(&text), every, buckets_max).unwrap();
        let range = range.unwrap_or(TimeRange::ALL);
        prop_assert_eq!((answer.range, &answer.damage), (range, &Vec::new()));
        let series = engine.query(&query(&text)).unwrap().series;
        prop_assert_eq!(answer.series, series);

        // Which there are, from the events.
        let times = events.iter().filter(|(sensor, ..)| *sensor != 3);
        let times = times.map(|(sensor, seconds, _)| TODAY + seconds * SECOND + i64::from(*sensor));
        let mut starts: Vec<i64> =
            times.filter(|time| range.contains(*time)).map(|time| time.div_euclid(every) * every).collect();
        starts.sort_unstable();
        starts.dedup();
        starts.truncate(buckets_max);
        prop_assert_eq!(answer.buckets.iter().map(|bucket| bucket.start).collect::<Vec<_>>(), starts);

        for bucket in &answer.buckets {
            let (start, end) = (bucket.start.max(range.start), (bucket.start + every - 1).min(range.end));
            let own = engine.query(&query(&of(TimeRange { start, end }))).unwrap();
            prop_assert_eq!(bucket.count, own.count, "the count at {}", bucket.start);
            let scale = events.iter().map(|(.., value)| value.abs()).sum::<f64>();
            let tolerance = match op {
                "SUM" | "AVG" | "RATE" => 1e-12 * scale,
                "STDDEV" => 1e-7 * scale,
                _ => 0.0,
            };
            let is_near = match (bucket.value, own.value) {
                (Some(found), Some(expected)) => (found - expected).abs() <= tolerance,
                (found, expected) => found == expected,
            };
            prop_assert!(is_near, "{:?} at {}, and {:?}", bucket.value, bucket.start, own.value);
        }
    }

    #[test]
    fn pages_have_every_point_once(
        events in prop::collection::vec(event(), 0..100),
        between in prop::collection::vec(prop::collection::vec(event(), 0..20), 0..20),
        page_max in 1..40_usize,
        is_relative: bool,
    ) {
        let engine = open(SimVfs::new(5), Options::default());
        write(&engine, &events);
        let text = if is_relative { "temp:[NOT n=3]:[200s]" } else { "temp:[NOT n=3]" };
        // The values that were there; those that others write later over the same times may come instead.
        let mut stays: BTreeMap<(u32, i64), Vec<f64>> = BTreeMap::new();
        let place = |sensor: u32, seconds: i64| (sensor, TODAY + seconds * SECOND + i64::from(sensor));
        for (sensor, seconds, value) in &events {
            stays.insert(place(*sensor, *seconds), vec![*value]);
        }
        stays.retain(|(sensor, time), _| *sensor != 3 && (!is_relative || *time <= TODAY));
        let mut between = between.into_iter();
        let mut found: Vec<(u32, i64)> = Vec::new();
        let mut after = None;
        loop {
            let page = engine.points(&query(text), after, page_max).unwrap();
            prop_assert!(page.points.len() <= page_max && page.damage.is_empty());
            prop_assert!(page.points.len() == page_max || !page.more);
            for point in &page.points {
                let key = engine.key(point.series).unwrap();
                let sensor: u32 = key.tags().next().unwrap()[2..].parse().unwrap();
                let place = (sensor, point.timestamp);
                prop_assert!(!found.contains(&place), "{place:?} comes twice");
                prop_assert!(stays.get(&place).is_none_or(|values| values.contains(&point.value)));
                prop_assert!(page.range.contains(point.timestamp));
                found.push(place);
            }
            let Some(last) = page.points.last().filter(|_| page.more) else { break };
            after = Some((last.series, last.timestamp, page.range));
            let more = between.next().unwrap_or_default();
            if !more.is_empty() {
                write(&engine, &more);
            }
            for (sensor, seconds, value) in more {
                if let Some(values) = stays.get_mut(&place(sensor, seconds)) {
                    values.push(value);
                }
            }
        }
        for place in stays.keys() {
            prop_assert!(found.contains(place), "{place:?} is missing");
        }
    }
}

#[test]
fn a_page_after_a_series_that_is_not_meant_goes_on_with_the_next() {
    let engine = open(SimVfs::new(5), Options::default());
    write(&engine, &[(0, -3, 1.0), (1, -2, 2.0), (2, -1, 3.0)]);
    let values = |after| {
        let page = engine.points(&query("temp:[NOT n=1]"), after, 10).unwrap();
        page.points.iter().map(|point| point.value).collect::<Vec<_>>()
    };
    assert_eq!(values(None), [1.0, 3.0]);
    assert_eq!(values(Some((resolve(&engine, "temp", 1), i64::MIN, TimeRange::ALL))), [3.0]);
    assert_eq!(values(Some((resolve(&engine, "temp", 0), i64::MAX, TimeRange::ALL))), [3.0]);
    assert_eq!(values(Some((resolve(&engine, "temp", 0), i64::MIN, TimeRange { start: TODAY, end: 0 }))), []);
}

/// More series than are looked at under one lock, most of them without points.
#[test]
fn pages_go_over_many_series() {
    let engine = open(SimVfs::new(5), Options::default());
    for sensor in 0..5_000 {
        resolve(&engine, "temp", sensor);
    }
    let events: Vec<(u32, i64, f64)> = (0..5_000).step_by(37).map(|sensor| (sensor, -1, f64::from(sensor))).collect();
    write(&engine, &events);
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = engine.points(&query("temp:[]"), after, 50).unwrap();
        found.extend(page.points.iter().map(|point| point.value));
        let Some(last) = page.points.last().filter(|_| page.more) else { break };
        after = Some((last.series, last.timestamp, page.range));
    }
    assert_eq!(found, events.iter().map(|(.., value)| *value).collect::<Vec<_>>());
}

#[test]
fn series_and_tags_are_listed_from_where_it_is_asked() {
    let engine = open(SimVfs::new(5), Options::default());
    let key = |name: &str, tags: &[&str]| SeriesKey::new(name, tags).unwrap();
    let ids: Vec<_> = [
        key("temp", &["room=hall", "floor=1"]),
        key("temp", &["room=attic"]),
        key("load", &["floor=1"]),
        key("load", &[]),
    ]
    .iter()
    .map(|key| engine.resolve(key).unwrap())
    .collect();
    let series = |text: Option<&str>, after, max| {
        let text = text.map(query);
        engine.series(text.as_ref(), after, max).into_iter().map(|(id, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(series(None, None, 10), ids);
    assert_eq!(series(None, Some(ids[1]), 1), ids[2..3]);
    assert_eq!(series(None, Some(ids[3]), 1), []);
    assert_eq!(series(Some("temp,load:[floor=1]"), None, 10), [ids[0], ids[2]]);
    assert_eq!(series(Some("temp,load:[floor=1]"), Some(ids[1]), 10), [ids[2]]);
    assert_eq!(series(Some("temp,load:[]"), Some(ids[0]), 2), ids[1..3]);

    let tags = |text: Option<&str>, after, max| {
        let text = text.map(query);
        engine.tags(text.as_ref(), after, max)
    };
    let count = |tag: &str, count| (tag.to_owned(), count);
    let all = [count("floor=1", 2), count("room=attic", 1), count("room=hall", 1)];
    assert_eq!(tags(None, None, 10), all);
    assert_eq!(tags(None, None, 1), all[..1]);
    assert_eq!(tags(None, Some("floor=1"), 1), all[1..2]);
    assert_eq!(tags(None, Some("room=hall"), 10), []);
    assert_eq!(tags(None, None, 0), []);
    assert_eq!(tags(Some("temp:[]"), None, 10), [count("floor=1", 1), count("room=attic", 1), count("room=hall", 1)]);
}

/// However many tags there are, those of the page are counted right.
#[test]
fn tags_are_counted_beyond_what_a_page_holds() {
    let engine = open(SimVfs::new(5), Options::default());
    // Falling, so that the page is full of others before the smallest come.
    for number in (0..2_000_u32).rev() {
        let tags = [format!("t{:04}", number / 2), format!("u{:02}", number % 7), "all".to_owned()];
        engine.resolve(&SeriesKey::new(&format!("s{number}"), tags).unwrap()).unwrap();
    }
    let mut found = Vec::new();
    loop {
        let last = found.last().map(|(tag, _): &(String, u64)| tag.clone());
        let page = engine.tags(None, last.as_deref(), 100);
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    assert_eq!(found.len(), 1 + 1_000 + 7);
    assert_eq!(found[0], ("all".to_owned(), 2_000));
    assert!(found[1..1_001].iter().all(|(_, count)| *count == 2));
    assert_eq!(found[1_001..].iter().map(|(_, count)| count).sum::<u64>(), 2_000);
}
