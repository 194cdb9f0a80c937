//! What each kind of window holds, by example.

use std::sync::Arc;

use slung_live::{Error, Options, WindowState};
use slung_model::{NotLive, Point, Query, SeriesId, SeriesKey};

use crate::support::{SECOND, World, at, key, of};

/// 1 March 2013.
const YEARS_AGO: i64 = 1_362_096_000 * SECOND;
/// Ten years later.
const TODAY: i64 = 1_677_628_800 * SECOND;

#[test]
fn running_starts_empty_and_counts_writes() {
    let mut world = World::new(1);
    let queries = ["COUNT:temp:[]", "SUM:temp:[]", "AVG:temp:[]", "MIN:temp:[]", "MAX:temp:[]", "?:temp:[]"];
    let handles = queries.map(|query| world.try_subscribe(query, &[at(0, 99.0)]).unwrap());
    world.write(&[at(5, 4.0), at(5, 6.0), at(1, 2.0)]);
    let values = handles.map(|handle| world.values(handle));
    assert_eq!(values[0], [1.0, 2.0, 3.0]);
    assert_eq!(values[1], [4.0, 10.0, 12.0]);
    assert_eq!(values[2], [4.0, 5.0, 4.0]);
    assert_eq!(values[3], [4.0, 4.0, 2.0]);
    assert_eq!(values[4], [4.0, 6.0, 6.0]);
    assert_eq!(values[5], [4.0, 6.0, 2.0]);
}

#[test]
fn an_update_says_where_it_comes_from() {
    let mut world = World::new(2);
    let handles = ["AVG:temp:[]:[1m]", "COUNT:temp:[]", "MAX:temp:[]", "temp:[]"].map(|query| world.subscribe(query));
    world.write_as(7, &[of(0, 10, 1.0)]);
    world.write(&[of(1, 8, 2.0)]);
    for (handle, state) in handles.into_iter().zip([Some((3.0, 2)), Some((3.0, 2)), None, None]) {
        let updates = world.updates(handle);
        assert_eq!(updates.iter().map(|update| update.timestamp).collect::<Vec<_>>(), [10, 8]);
        assert_eq!(updates[0].producers.iter().map(|id| id.get()).collect::<Vec<_>>(), [7]);
        assert!(updates[1].producers.is_empty());
        assert_eq!((&updates[0].key, &updates[1].key), (&key(0), &key(1)));
        assert_eq!(updates[1].state, state);
    }
}

#[test]
fn absolute_starts_from_what_is_stored_and_takes_what_falls_in() {
    let mut world = World::new(1);
    let handle = world.try_subscribe("SUM:temp:[]:[10,20]", &[at(10, 1.0), at(15, 2.0)]).unwrap();
    world.write(&[at(9, 100.0), at(20, 4.0), at(21, 100.0), at(15, 8.0)]);
    assert_eq!(world.values(handle), [7.0, 13.0], "the second value at 15 replaces the first");
    world.pass(3600 * SECOND);
    assert_eq!(world.values(handle), []);
}

#[test]
fn raw_delivers_arrivals_that_the_range_lets_through() {
    let mut world = World::new(1);
    let absolute = world.try_subscribe("temp:[]:[10,20]", &[at(10, 1.0)]).unwrap();
    let sliding = world.try_subscribe("temp:[]:[5s]", &[at(30 * SECOND, 1.0)]).unwrap();
    world.write(&[at(9, 2.0), at(10, 3.0), at(25 * SECOND - 1, 4.0), at(25 * SECOND, 5.0), at(40 * SECOND, 6.0)]);
    world.write(&[at(30 * SECOND, 7.0), at(40 * SECOND, 8.0)]);
    assert_eq!(world.values(absolute), [3.0]);
    assert_eq!(world.values(sliding), [5.0, 6.0, 8.0]);
    assert_eq!(world.subscriber.handle_stats(sliding).unwrap().late, 4);
    world.pass(100 * SECOND);
    assert_eq!(world.values(sliding), [], "time alone gives a raw query nothing");
}

#[test]
fn sliding_goes_by_event_time_with_both_ends_in_it() {
    let mut world = World::new(2);
    let handle = world.subscribe("COUNT:temp:[]:[10s]");
    let exactly_now = world.subscribe("COUNT:temp:[]:[now]");
    world.write(&[at(0, 1.0), at(10 * SECOND, 1.0)]);
    assert_eq!(world.values(handle), [1.0, 2.0], "a point as old as the width is in");
    world.write(&[at(10 * SECOND + 1, 1.0)]);
    assert_eq!(world.values(handle), [2.0]);
    world.write(&[at(0, 1.0)]);
    assert_eq!(world.values(handle), [], "it has left for good");
    world.write(&[at(1, 1.0), of(1, 10 * SECOND, 1.0), of(1, 10 * SECOND, 5.0)]);
    assert_eq!(world.values(handle), [3.0, 4.0, 4.0], "late is fine inside, and the same point counts once");
    let late = world.subscriber.handle_stats(handle).unwrap().late;
    assert_eq!((late, world.live.stats().late), (1, 5));
    assert_eq!(world.values(exactly_now), [1.0, 1.0, 1.0]);
}

#[test]
fn a_silent_source_empties_its_window() {
    let mut world = World::new(1);
    let handles = ["COUNT", "SUM", "AVG", "MIN", "MAX"].map(|op| world.subscribe(&format!("{op}:temp:[]:[10s]")));
    for second in [0, 5, 8] {
        world.now = TODAY + second * SECOND;
        world.write_as(1, &[at(world.now, (second + 1) as f64)]);
    }
    assert!(handles.iter().all(|handle| world.values(*handle).len() == 3));

    world.pass(2 * SECOND);
    assert!(handles.iter().all(|handle| world.values(*handle).is_empty()), "10 s old: still in");
    world.pass(1);
    let updates = world.updates(handles[0]);
    assert_eq!((updates.len(), updates[0].value, updates[0].state), (1, 2.0, Some((15.0, 2))));
    assert_eq!((updates[0].timestamp, &updates[0].key), (TODAY + 8 * SECOND, &key(0)), "of the newest event");
    assert!(updates[0].producers.is_empty(), "no event is in it");
    assert_eq!(handles.map(|handle| world.values(handle)), [vec![], vec![15.0], vec![7.5], vec![6.0], vec![9.0]]);

    world.pass(60 * SECOND);
    assert_eq!(handles.map(|handle| world.values(handle)), [vec![0.0], vec![0.0], vec![], vec![], vec![]]);
    world.pass(60 * SECOND);
    assert!(handles.iter().all(|handle| world.values(*handle).is_empty()), "told once");

    world.write(&[at(TODAY + 9 * SECOND, 10.0)]);
    let back = handles.map(|handle| world.values(handle));
    assert_eq!(back, [vec![4.0], vec![26.0], vec![6.5], vec![1.0], vec![10.0]], "an event sets the end back");
}

#[test]
fn time_tells_once_a_second_at_most() {
    let mut world = World::new(1);
    let handle = world.subscribe("COUNT:temp:[]:[1s]");
    world.write(&(0..=100).map(|i| at(i * SECOND / 100, 1.0)).collect::<Vec<_>>());
    world.values(handle);
    let mut told = Vec::new();
    for _ in 0..12 {
        world.pass(SECOND / 4);
        told.push(world.values(handle));
    }
    let expected = [vec![76.0], vec![], vec![], vec![], vec![0.0], vec![], vec![], vec![], vec![], vec![]];
    assert_eq!(told[..10], expected);
    // An event, and then time again, within the second after the last one that time has caused.
    world.write(&[at(SECOND, 1.0)]);
    world.values(handle);
    world.pass(SECOND / 4);
    assert_eq!(world.values(handle), [76.0]);
    world.write(&[at(SECOND, 1.0)]);
    world.pass(SECOND / 4);
    assert_eq!(world.values(handle), [101.0], "the event's own update only");
    world.pass(SECOND * 3 / 4);
    assert_eq!(world.values(handle), [1.0], "a second after it was told");
}

#[test]
fn a_late_event_leaves_the_end_where_it_is() {
    let mut world = World::new(1);
    let handle = world.subscribe("COUNT:temp:[]:[10s]");
    world.write(&[at(100 * SECOND, 1.0)]);
    for _ in 0..4 {
        world.now += 3 * SECOND;
        world.write(&[at(50 * SECOND, 1.0)]);
    }
    world.pass(0);
    assert_eq!(world.values(handle), [1.0, 0.0], "12 s without an event that enters");
}

#[test]
fn data_of_2013_slides_as_that_of_today() {
    let stream = |start: i64| (0..500).map(move |i| at(start + (i * 37 % 400) * SECOND, (i * 31 % 17) as f64));
    for op in ["AVG", "COUNT", "SUM", "MIN", "MAX"] {
        let [old, new] = [YEARS_AGO, TODAY].map(|start| {
            let mut world = World::new(1);
            world.now = TODAY;
            let handle = world.subscribe(&format!("{op}:temp:[]:[2m]"));
            for point in stream(start) {
                world.now += 1000;
                world.write(&[point]);
            }
            world.values(handle)
        });
        assert_eq!(old, new);
        assert!(!old.is_empty());
    }
}

#[test]
fn stored_points_of_2013_are_hidden_until_an_event_of_that_time() {
    let mut world = World::new(1);
    world.now = TODAY;
    let history = [at(YEARS_AGO, 1.0), at(YEARS_AGO + 30 * SECOND, 2.0), at(YEARS_AGO + 60 * SECOND, 4.0)];
    let handle = world.try_subscribe("SUM:temp:[]:[1m]", &history).unwrap();
    world.pass(10 * SECOND);
    assert_eq!(world.values(handle), [], "they were out of sight from the start, so nothing has changed");
    world.write(&[at(YEARS_AGO - 1, 100.0)]);
    assert_eq!(world.values(handle), [], "late");
    world.write(&[at(YEARS_AGO + 61 * SECOND, 8.0)]);
    assert_eq!(world.values(handle), [14.0]);
}

#[test]
fn recent_stored_points_are_seen_and_left_behind() {
    let mut world = World::new(1);
    world.now = TODAY;
    let history = [at(TODAY - 70 * SECOND, 8.0), at(TODAY - 50 * SECOND, 1.0), at(TODAY - 20 * SECOND, 2.0)];
    let handle = world.try_subscribe("SUM:temp:[]:[1m]", &history).unwrap();
    assert_eq!(world.live.window_stats(handle).unwrap().points, 3, "the first is within a minute before the newest");
    world.pass(10 * SECOND);
    assert_eq!(world.values(handle), [], "the one that was 70 s old was never seen");
    world.pass(1);
    assert_eq!(world.values(handle), [2.0]);
    world.write(&[at(TODAY - 19 * SECOND, 16.0)]);
    assert_eq!(world.values(handle), [27.0], "back, as they are not too old for the newest event");
}

#[test]
fn a_stored_point_ahead_of_the_clock_is_the_end_until_time_gets_there() {
    let mut world = World::new(1);
    world.now = TODAY;
    let handle = world.try_subscribe("COUNT:temp:[]:[1m]", &[at(TODAY, 1.0), at(TODAY + 60 * SECOND, 1.0)]).unwrap();
    world.pass(60 * SECOND);
    assert_eq!(world.values(handle), []);
    world.pass(1);
    assert_eq!(world.values(handle), [1.0]);
}

#[test]
fn a_clock_that_is_set_back_stops_no_window() {
    let mut world = World::new(1);
    world.now = TODAY;
    let handle = world.subscribe("COUNT:temp:[]:[10s]");
    world.write(&[at(TODAY, 1.0)]);
    world.pass(6 * SECOND);
    world.pass(-3600 * SECOND);
    world.pass(4 * SECOND);
    assert_eq!(world.values(handle), [1.0]);
    world.pass(1);
    assert_eq!(world.values(handle), [0.0]);
}

#[test]
fn order_and_repetition_end_in_the_same_window() {
    let width = 60;
    let stream: Vec<Point> =
        (0..2_000).map(|i| of((i % 3) as u32, i * SECOND / 10, ((i * 7919) % 1009) as f64)).collect();
    // Each point up to 50 seconds out of its place, which is less than the width.
    let mut shuffled = stream.clone();
    shuffled.sort_by_key(|point| point.timestamp + (point.timestamp / 100_000 * 7919) % 500 * SECOND / 10);
    assert_ne!(shuffled, stream);
    let doubled: Vec<Point> = stream.iter().flat_map(|point| [*point, *point]).collect();
    for op in ["AVG", "COUNT", "SUM", "MIN", "MAX"] {
        let [plain, shuffled, doubled] = [&stream, &shuffled, &doubled].map(|stream| {
            let mut world = World::new(3);
            let handle = world.subscribe(&format!("{op}:temp:[]:[{width}s]"));
            for batch in stream.chunks(7) {
                world.write(batch);
            }
            assert_eq!(world.live.stats().late, 0);
            // One more event, so that all have the same last one.
            world.updates(handle);
            world.write(&[of(0, 200 * SECOND, 5.0)]);
            world.values(handle)[0]
        });
        assert!((plain - shuffled).abs() <= 1e-12 * plain.abs(), "{op}: {plain} in order, {shuffled} shuffled");
        assert!((plain - doubled).abs() <= 1e-12 * plain.abs(), "{op}: {plain} once, {doubled} twice");
    }
}

#[test]
fn a_new_series_feeds_what_it_matches() {
    let mut world = World::new(0);
    let narrow = world.subscribe("COUNT:temp,load:[sensor=1]");
    let wide = world.subscribe("COUNT:temp:[]");
    let load = Arc::new(SeriesKey::new("load", ["sensor=1"]).unwrap());
    let other = Arc::new(SeriesKey::new("other", ["sensor=1"]).unwrap());
    for (id, key) in [(0, key(0)), (1, key(1)), (5, load), (6, other)] {
        world.live.series_added(SeriesId(id), &key);
        world.live.series_added(SeriesId(id), &key);
    }
    world.write(&[of(0, 1, 0.0), of(1, 2, 0.0), of(5, 3, 0.0), of(6, 4, 0.0), of(900, 5, 0.0)]);
    assert_eq!(world.values(narrow), [1.0, 2.0]);
    assert_eq!(world.values(wide), [1.0, 2.0]);

    assert!(world.live.unsubscribe(&world.subscriber, wide));
    world.live.series_added(SeriesId(7), &key(7));
    let again = world.subscribe("COUNT:temp:[]");
    world.live.series_added(SeriesId(8), &key(8));
    world.write(&[of(1, 9, 0.0), of(7, 9, 0.0), of(8, 9, 0.0)]);
    assert_eq!(world.values(narrow), [3.0]);
    assert_eq!(world.values(again), [1.0], "only what was there or added since");
}

#[test]
fn handles_belong_to_who_made_them() {
    let mut world = World::new(1);
    let handle = world.subscribe("COUNT:temp:[]:[1m]");
    world.write(&[at(0, 1.0)]);
    let other = world.live.subscriber();
    assert!(!world.live.unsubscribe(&other, handle));
    assert!(other.try_next(handle).is_none() && !other.has_waiting(handle));
    world.live.remove(&other);
    assert!(world.subscriber.has_waiting(handle));
    assert!(world.live.unsubscribe(&world.subscriber, handle));
    assert!(!world.live.unsubscribe(&world.subscriber, handle));
    assert!(world.subscriber.try_next(handle).is_none());
    assert_ne!(world.subscribe("COUNT:temp:[]:[1m]"), handle);
    world.subscribe("COUNT:temp:[]");
    world.write(&[at(0, 1.0)]);
    world.live.remove(&world.subscriber.clone());
    assert_eq!(world.live.stats(), Default::default());
    assert!(world.subscriber.handles().is_empty());
}

#[test]
fn what_can_not_be_live_is_refused() {
    let mut world = World::with(1, Options { handles_max: 2, ..Options::default() });
    for range in ["[2h,1h]", "[100,5m]", "[100,now]"] {
        let error = world.try_subscribe(&format!("AVG:temp:[]:{range}"), &[]).unwrap_err();
        assert_eq!(error, Error::NotLive(NotLive::Range));
    }
    for (op, shown) in
        [("first", "FIRST"), ("LAST", "LAST"), ("STDDEV", "STDDEV"), ("RATE", "RATE"), ("p99.90", "P99.9")]
    {
        for range in ["", ":[5m]", ":[1,2]"] {
            let error = world.try_subscribe(&format!("{op}:temp:[]{range}"), &[]).unwrap_err();
            assert!(matches!(error, Error::NotLive(NotLive::Op(_))), "{error}");
            assert!(error.to_string().starts_with(&format!("{shown} is for historical queries only")), "{error}");
        }
    }
    let handle = world.subscribe("AVG:temp:[]");
    world.subscribe("AVG:temp:[]");
    assert_eq!(world.try_subscribe("AVG:temp:[]", &[]), Err(Error::TooManyHandles { handles_max: 2 }));
    world.live.unsubscribe(&world.subscriber, handle);
    world.subscribe("AVG:temp:[]");
}

#[test]
fn a_sliding_window_that_is_too_big_is_refused_or_loses_its_oldest() {
    let mut world = World::with(1, Options { window_points_max: 3, ..Options::default() });
    let stored: Vec<_> = (0..4).map(|i| at(i * SECOND, 1.0)).collect();
    let refused = world.try_subscribe("COUNT:temp:[]:[10s]", &stored);
    assert_eq!(refused, Err(Error::WindowTooBig { window_points_max: 3 }));
    assert_eq!(world.live.stats(), Default::default());

    let handle = world.try_subscribe("SUM:temp:[]:[10s]", &stored[1..]).unwrap();
    world.write(&[at(4 * SECOND, 5.0)]);
    assert_eq!(world.values(handle), [7.0], "the oldest of three went");
    let stats = world.live.window_stats(handle).unwrap();
    assert_eq!((stats.points, stats.state), (3, WindowState::Shortened));
    assert_eq!((world.live.stats().points_cut, world.live.stats().windows_shortened), (1, 1));

    world.write(&[at(13 * SECOND, 1.0)]);
    assert_eq!(world.values(handle).last(), Some(&7.0));
    let stats = world.live.window_stats(handle).unwrap();
    assert_eq!((stats.points, stats.state), (3, WindowState::Exact), "what was cut would have left by now");
}

#[test]
fn an_absolute_window_that_is_too_big_counts_writes() {
    let mut world = World::with(1, Options { window_points_max: 3, ..Options::default() });
    let handle = world.try_subscribe("COUNT:temp:[]:[0,100]", &[at(1, 1.0), at(2, 1.0)]).unwrap();
    world.write(&[at(2, 2.0), at(3, 1.0), at(3, 2.0), at(4, 1.0), at(4, 1.0), at(101, 1.0)]);
    assert_eq!(world.values(handle), [2.0, 3.0, 3.0, 4.0, 5.0]);
    let stats = world.live.window_stats(handle).unwrap();
    assert_eq!((stats.points, stats.state), (0, WindowState::CountsWrites));
    assert_eq!((world.live.stats().points, world.live.stats().windows_counting_writes), (0, 1));

    let stored: Vec<_> = (0..10).map(|i| at(i, 1.0)).collect();
    let big = world.try_subscribe("COUNT:temp:[]:[0,100]", &stored).unwrap();
    world.write(&[at(3, 2.0)]);
    assert_eq!(world.values(big), [11.0]);
}

#[test]
fn all_windows_together_have_a_limit() {
    let mut world = World::with(1, Options { points_max: 5, ..Options::default() });
    let stored: Vec<_> = (0..3).map(|i| at(i, 1.0)).collect();
    let first = world.try_subscribe("COUNT:temp:[]:[1s]", &stored).unwrap();
    assert_eq!(world.try_subscribe("SUM:temp:[]:[1s]", &stored), Err(Error::NoRoom { points_max: 5 }));
    assert_eq!(world.live.stats().points, 3, "a refused window leaves nothing behind");
    world.write(&[at(3, 1.0), at(4, 1.0), at(5, 1.0)]);
    assert_eq!(world.values(first), [4.0, 5.0, 5.0]);
    assert_eq!(world.try_subscribe("SUM:temp:[]:[1s]", &[]), Err(Error::NoRoom { points_max: 5 }));
    world.try_subscribe("COUNT:temp:[]:[0,9]", &stored).unwrap();
    world.live.unsubscribe(&world.subscriber, first);
    assert_eq!(world.live.stats().points, 0);
    world.try_subscribe("COUNT:temp:[]:[1s]", &stored).unwrap();
}

#[test]
fn a_sum_that_leaves_the_finite_range_is_counted() {
    let mut world = World::new(1);
    let handle = world.subscribe("SUM:temp:[]:[10s]");
    world.write(&[at(0, f64::MAX), at(1, f64::MAX), at(2, f64::MAX)]);
    assert_eq!(world.values(handle), [f64::MAX; 3]);
    assert_eq!(world.live.stats().sums_saturated, 1);
    world.write(&[at(100 * SECOND, -f64::MAX), at(100 * SECOND + 1, -1e308)]);
    assert_eq!(world.values(handle), [-f64::MAX; 2]);
    assert_eq!(world.live.stats().sums_saturated, 2);
}

#[test]
fn extreme_times_do_no_harm() {
    let extremes = [i64::MIN, slung_model::TIMESTAMP_MIN, -1, 0, 1, slung_model::TIMESTAMP_MAX, i64::MAX];
    for width in ["now", "1us", "9000000000000000000us"] {
        let query = Query::parse(&format!("COUNT:temp:[]:[{width}]"));
        let Ok(query) = query else { continue };
        for now in extremes {
            for stored in extremes {
                let mut world = World::new(1);
                world.now = now;
                let handle = world.try_subscribe(&query.to_string(), &[at(stored, 1.0)]).unwrap();
                for later in extremes {
                    world.write(&[at(later, 1.0)]);
                    world.now = later;
                    world.pass(0);
                }
                assert!(world.values(handle).iter().all(|count| (0.0..=8.0).contains(count)));
            }
        }
    }
}
