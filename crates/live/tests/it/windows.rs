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
        assert_eq!((updates[0].key(), updates[1].key()), (&key(0), &key(1)));
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
    assert_eq!((updates[0].timestamp, updates[0].key()), (TODAY + 8 * SECOND, &key(0)), "of the newest event");
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
            world.now = TODAY + 400 * SECOND;
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
    let handle = world.try_subscribe("COUNT:temp:[]:[1m]", &[at(TODAY, 1.0), at(TODAY + 30 * SECOND, 1.0)]).unwrap();
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
    for op in ["AVG", "COUNT", "SUM", "MIN", "MAX", "FIRST", "LAST", "STDDEV", "P50", "P99"] {
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
    for range in ["", ":[5m]", ":[1,2]"] {
        let error = world.try_subscribe(&format!("rate:temp:[]{range}"), &[]).unwrap_err();
        assert!(matches!(error, Error::NotLive(NotLive::Op(_))), "{error}");
        assert!(error.to_string().starts_with("RATE is for historical queries only"), "{error}");
    }
    let handle = world.subscribe("AVG:temp:[]");
    world.subscribe("AVG:temp:[]");
    assert_eq!(world.try_subscribe("AVG:temp:[]", &[]), Err(Error::TooManyHandles { handles_max: 2 }));
    world.live.unsubscribe(&world.subscriber, handle);
    world.subscribe("AVG:temp:[]");
}

#[test]
fn a_sliding_window_that_is_too_big_goes_over_to_panes() {
    // Panes of 10 ms: a 1,024th of the width, rounded up.
    let width = 1_024 * 10_000;
    let mut world = World::with(1, Options { window_points_max: 100, ..Options::default() });
    let queries = ["COUNT", "SUM", "AVG", "MIN", "MAX", "FIRST", "LAST", "STDDEV", "P50"];
    let handles = queries.map(|op| world.subscribe(&format!("{op}:temp:[]:[{width}us]")));
    let point = |i: i64| at(i * 100_000, i as f64);
    world.write(&(0..100).map(point).collect::<Vec<_>>());
    assert!(handles.iter().all(|handle| world.live.window_stats(*handle).unwrap().state == WindowState::Exact));
    handles.iter().for_each(|handle| drop(world.updates(*handle)));
    world.write(&[point(100)]);
    for handle in handles {
        let stats = world.live.window_stats(handle).unwrap();
        assert_eq!((stats.points, stats.state), (0, WindowState::Panes { micros: 10_000 }));
    }
    let stats = world.live.stats();
    assert_eq!((stats.windows_in_panes, stats.given_up, stats.points), (queries.len(), queries.len() as u64, 0));
    let deviation = |n: f64| ((n * n - 1.0) / 12.0).sqrt();
    let close = |values: [Vec<f64>; 9], expected: [f64; 9]| {
        for ((op, values), expected) in queries.iter().zip(values).zip(expected) {
            let tolerance = if *op == "P50" { 0.005 } else { 1e-12 } * expected;
            assert!((values.last().unwrap() - expected).abs() <= tolerance, "{op}: {values:?} is not {expected}");
        }
    };
    let seen = handles.map(|handle| world.values(handle));
    close(seen, [101.0, 5_050.0, 50.0, 0.0, 100.0, 0.0, 100.0, deviation(101.0), 50.0]);

    // The window begins at 7.5 s after 0; what it shows begins with the pane of 7.5 s, which is its own here.
    world.write(&[at(7_500_000 + width, 7.0)]);
    let seen = handles.map(|handle| world.values(handle));
    let sum = (75..=100).sum::<i64>() as f64 + 7.0;
    let values: Vec<f64> = (75..=100).map(f64::from).chain([7.0]).collect();
    let spread = slung_model::Spread::of(&values).std_dev().unwrap();
    close(seen, [27.0, sum, sum / 27.0, 7.0, 100.0, 75.0, 7.0, spread, 87.0]);
    // 10 ms less than a pane after the start of the window: the pane that it cuts stays.
    world.write(&[at(7_509_999 + width, 7.0)]);
    assert_eq!(world.values(handles[0]), [28.0]);
    world.write(&[at(7_510_000 + width, 7.0), at(7_509_999, 1.0), at(8_000_000, 1.0)]);
    assert_eq!(world.values(handles[0]), [28.0, 29.0], "the pane has left, what is older is late, and a write counts");
    assert_eq!(world.subscriber.handle_stats(handles[0]).unwrap().late, 1);

    // A further handle shares it; and time alone empties it.
    let again = world.subscribe(&format!("COUNT:temp:[]:[{width}us]"));
    assert_eq!(world.live.stats().windows, queries.len());
    handles.iter().for_each(|handle| drop(world.updates(*handle)));
    world.pass(width + 20_000);
    assert_eq!(
        (world.values(again), world.values(handles[0]), world.values(handles[2])),
        (vec![0.0], vec![0.0], vec![])
    );
}

#[test]
fn a_window_that_is_too_big_from_the_start_has_panes_at_once() {
    let mut world = World::with(1, Options { window_points_max: 3, ..Options::default() });
    let stored: Vec<_> = (0..10).map(|i| at(i * SECOND, i as f64)).collect();
    for (op, value) in
        [("COUNT", 11.0), ("SUM", 145.0), ("FIRST", 0.0), ("LAST", 100.0), ("P50", 5.0), ("STDDEV", 27.59)]
    {
        let handle = world.try_subscribe(&format!("{op}:temp:[]:[20s]"), &stored).unwrap();
        assert_eq!(world.live.window_stats(handle).unwrap().state, WindowState::Panes { micros: 19_532 });
        world.write(&[at(10 * SECOND, 100.0)]);
        let told = world.values(handle)[0];
        assert!((told - value).abs() <= 0.005 * value, "{op}: {told} is not {value}");
        assert!(world.live.unsubscribe(&world.subscriber, handle));
    }
    assert_eq!(world.live.stats().bytes, 0);
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
fn windows_give_up_their_points_the_largest_first_and_then_new_ones_are_refused() {
    let windows_bytes_max = 1 << 20;
    let mut world = World::with(2, Options { windows_bytes_max, ..Options::default() });
    // 20 bytes a point, and a little; spread over the width, so that no pane is empty.
    let stored = |count: i64, width: i64| (0..count).map(|i| at(i * width * SECOND / count, 1.0)).collect::<Vec<_>>();
    let big = world.try_subscribe("SUM:temp:[sensor=0]:[1s]", &stored(20_000, 1)).unwrap();
    let middle = world.try_subscribe("AVG:temp:[sensor=0]:[1s]", &stored(15_000, 1)).unwrap();
    let absolute = world.try_subscribe("AVG:temp:[sensor=0]:[0,1000000]", &stored(12_000, 1)).unwrap();
    let state = |world: &World, handle| world.live.window_stats(handle).unwrap().state;
    assert_eq!(state(&world, big), WindowState::Exact);
    let small = world.try_subscribe("MAX:temp:[sensor=0]:[1s]", &stored(10_000, 1)).unwrap();
    assert!(matches!(state(&world, big), WindowState::Panes { .. }), "the largest one makes room");
    for handle in [middle, absolute, small] {
        assert_eq!(state(&world, handle), WindowState::Exact);
    }
    assert_eq!(world.live.stats().given_up, 1);
    let mut handles = vec![big, middle, absolute, small];
    let mut refused = None;
    for width in 2..100 {
        match world.try_subscribe(&format!("MIN:temp:[sensor=0]:[{width}s]"), &stored(10_000, width)) {
            Ok(handle) => handles.push(handle),
            Err(error) => {
                refused = Some(error);
                break;
            }
        }
        assert!(world.live.stats().bytes <= windows_bytes_max);
    }
    assert_eq!(refused, Some(Error::NoRoom { windows_bytes_max }));
    assert_eq!(state(&world, absolute), WindowState::CountsWrites);
    let stats = world.live.stats();
    assert!(stats.bytes <= windows_bytes_max && stats.windows == handles.len(), "a refused one leaves nothing behind");

    // Those that are there grow: their panes become longer, and none of them loses anything.
    let count = 1_000;
    let points: Vec<_> = (0..count).map(|i| at(SECOND * i / count + 7, 1.0)).collect();
    world.write(&points);
    assert!(world.live.stats().bytes <= windows_bytes_max);
    assert_eq!(world.live.window_stats(big).map(|stats| matches!(stats.state, WindowState::Panes { .. })), Some(true));
    assert_eq!(world.values(big).last(), Some(&((20_000 + count) as f64)));

    for handle in handles {
        assert!(world.live.unsubscribe(&world.subscriber, handle));
    }
    assert_eq!(world.live.stats().bytes, 0);
    world.try_subscribe("MIN:temp:[sensor=0]:[99s]", &stored(10_000, 99)).unwrap();
}

#[test]
fn memory_stays_bounded_however_many_windows_grow() {
    let windows_bytes_max = 300_000;
    let mut world = World::with(1, Options { windows_bytes_max, ..Options::default() });
    let handles: Vec<_> = (1..=100).map(|width| world.subscribe(&format!("SUM:temp:[]:[{width}d]"))).collect();
    let count = 5_000;
    for i in 0..count {
        world.write(&[at(i * 10 * SECOND, 1.0)]);
        assert!(world.live.stats().bytes <= windows_bytes_max);
        if i % 100 == 0 {
            handles.iter().for_each(|handle| drop(world.updates(*handle)));
        }
    }
    for handle in handles {
        assert_eq!(world.values(handle).last(), Some(&(count as f64)), "all of it is within a day");
    }
}

#[test]
fn a_clock_that_runs_ahead_deafens_no_window() {
    let mut world = World::new(2);
    let queries = ["COUNT", "SUM", "MAX", "LAST"].map(|op| format!("{op}:temp:[]:[5m]"));
    let handles = [0, 1, 2, 3].map(|i| world.subscribe(&queries[i]));
    let raw = world.subscribe("temp:[]:[5m]");
    world.now = TODAY;
    world.write(&[at(TODAY, 1.0)]);
    // An hour ahead, then two minutes, which is less than half of the width.
    world.write(&[of(1, TODAY + 3600 * SECOND, 1000.0), of(1, TODAY + 120 * SECOND, 10.0)]);
    world.now += SECOND;
    world.write(&[at(TODAY + SECOND, 2.0)]);
    let values = |world: &World| handles.map(|handle| world.values(handle));
    assert_eq!(
        values(&world),
        [vec![1.0, 1.0, 3.0], vec![1.0, 1000.0, 13.0], vec![1.0, 1000.0, 10.0], vec![1.0, 1000.0, 10.0]],
        "the window goes to an hour from now, and comes back with what is on time"
    );
    assert_eq!(world.values(raw), [1.0, 1000.0, 2.0]);
    assert_eq!(
        (world.live.stats().ahead, world.live.stats().late),
        (0, 5),
        "two minutes ahead is late for an hour ahead"
    );
    // From now on such a clock is not believed, as long as it goes on.
    for minute in 1..=20 {
        world.now = TODAY + minute * 60 * SECOND;
        world.write(&[of(1, world.now + 2400 * SECOND, 500.0), at(world.now, 1.0)]);
        assert_eq!(values(&world).map(|values| values.len()), [1; 4]);
        assert_eq!(world.values(raw).len(), 2);
    }
    assert_eq!((world.live.stats().ahead, world.live.stats().late), (80, 5));
    world.now = TODAY + 1201 * SECOND;
    world.write(&[at(world.now, 2.0)]);
    assert_eq!(values(&world), [vec![6.0], vec![7.0], vec![2.0], vec![2.0]]);
    assert_eq!(world.values(raw), [2.0]);
    // Once its time has come it is in the window.
    world.now = TODAY + 2459 * SECOND;
    world.write(&[at(world.now, 3.0)]);
    assert_eq!(values(&world), [vec![1.0], vec![3.0], vec![3.0], vec![3.0]]);
    world.pass(SECOND);
    assert_eq!(values(&world), [vec![2.0], vec![503.0], vec![500.0], vec![500.0]]);
    assert_eq!(world.values(raw), [3.0], "a raw one was told before");
}

#[test]
fn a_stream_that_is_ahead_as_a_whole_slides_as_any_other() {
    let mut world = World::new(2);
    world.now = TODAY;
    let handle = world.subscribe("COUNT:temp:[]:[10s]");
    for i in 0..100 {
        world.write(&[of(i as u32 % 2, TODAY + i * SECOND, 1.0)]);
    }
    let expected: Vec<f64> = (1..=100).map(|count: i32| f64::from(count.min(11))).collect();
    assert_eq!(world.values(handle), expected);

    // A clock that goes too fast gets ahead little by little, until it is ahead of one that is right.
    let mut world = World::new(2);
    world.now = TODAY;
    let handle = world.subscribe("COUNT:temp:[]:[10s]");
    for i in 0..100 {
        world.now += SECOND;
        world.write(&[of(1, world.now + i * SECOND / 4, 1.0), of(0, world.now, 1.0)]);
    }
    assert_eq!((world.live.stats().late, world.values(handle).len() > 100), (0, true));
}

#[test]
fn stored_points_ahead_of_the_clock_wait_for_their_time() {
    let mut world = World::new(1);
    world.now = TODAY;
    let stored = [at(TODAY - SECOND, 1.0), at(TODAY + 3600 * SECOND, 100.0)];
    let handle = world.try_subscribe("SUM:temp:[]:[1m]", &stored).unwrap();
    let alone = world.try_subscribe("COUNT:temp:[]:[1m]", &stored[1..]).unwrap();
    world.write(&[at(TODAY, 2.0)]);
    assert_eq!((world.values(handle), world.values(alone)), (vec![3.0], vec![1.0]));
    world.pass(61 * SECOND);
    assert_eq!((world.values(handle), world.values(alone)), (vec![0.0], vec![0.0]));
    world.pass(3539 * SECOND);
    assert_eq!((world.values(handle), world.values(alone)), (vec![100.0], vec![1.0]));
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

#[test]
fn a_window_of_panes_catches_up_while_it_is_read() {
    let mut world = World::with(1, Options { window_points_max: 1, ..Options::default() });
    for (op, expected) in [("COUNT", 3.0), ("SUM", 20.0 + 25.0 + 24.0), ("FIRST", 20.0), ("LAST", 25.0)] {
        let query = Query::parse(&format!("{op}:temp:[]:[10s]")).unwrap();
        let second = |second: i64| at(second * SECOND, second as f64);
        let put = |seconds: &[i64]| seconds.iter().map(|at| Ok::<_, Error>(second(*at))).collect::<Vec<_>>();
        let mut loading = world.live.begin(&query, &[SeriesId(0)], world.now).unwrap();
        loading.begin(Some(second(20)));
        assert_eq!(loading.range_ahead().map(|range| range.start), Some(20 * SECOND + 1));
        loading.put_ahead(put(&[])).unwrap();
        loading.expect(4);
        assert!(!loading.keeps_points());
        loading.put(put(&[11, 12])).unwrap();
        // What arrives meanwhile makes the rest of it older than the window, but for the last one.
        world.write(&[second(25)]);
        assert!(loading.catch_up(world.live.recorded(&loading).as_ref()) && !loading.has_missed());
        loading.put(put(&[13, 20])).unwrap();
        loading.end(Some(second(20)));
        let handle = world.live.finish(loading, &world.subscriber, world.now).unwrap();
        // One that does not move the window.
        world.write(&[second(24)]);
        assert_eq!(world.values(handle), [expected], "{op}");
        assert!(world.live.unsubscribe(&world.subscriber, handle));
    }
}

#[test]
fn stored_points_ahead_are_kept_as_far_as_a_window_keeps_points() {
    let mut world = World::with(1, Options { window_points_max: 3, ..Options::default() });
    world.now = TODAY;
    let stored: Vec<_> = (1..=9).map(|hour| at(TODAY + hour * 3600 * SECOND, hour as f64)).collect();
    let handle = world.try_subscribe("LAST:temp:[]:[1m]", &stored).unwrap();
    let stats = world.live.window_stats(handle).unwrap();
    assert_eq!((stats.points, stats.is_partial, world.live.stats().windows_partial), (3, true, 1));
    // Those whose time comes first.
    for hour in 1..=4 {
        world.pass(3600 * SECOND);
        assert_eq!(world.values(handle).last(), (hour <= 3).then_some(&f64::from(hour)));
    }
    let whole = world.try_subscribe("COUNT:temp:[]:[1m]", &stored[..3]).unwrap();
    assert!(!world.live.window_stats(whole).unwrap().is_partial);
}

/// One reading is ahead of the clock; while the others are read the clock comes near, and an event takes the window past it.
#[test]
fn what_is_ahead_is_there_before_a_window_catches_up() {
    let mut world = World::with(1, Options { window_points_max: 2, ..Options::default() });
    world.now = TODAY;
    let query = Query::parse("COUNT:temp:[]:[10s]").unwrap();
    let put = |seconds: &[i64]| {
        seconds.iter().map(|second| Ok::<_, Error>(at(TODAY + second * SECOND, 1.0))).collect::<Vec<_>>()
    };
    let mut loading = world.live.begin(&query, &[SeriesId(0)], world.now).unwrap();
    loading.begin(Some(at(TODAY, 1.0)));
    loading.put_ahead(put(&[7])).unwrap();
    loading.expect(3);
    loading.put(put(&[-2, -1])).unwrap();
    world.now = TODAY + 6 * SECOND;
    world.write(&[at(TODAY + 8 * SECOND, 1.0)]);
    assert!(loading.catch_up(world.live.recorded(&loading).as_ref()));
    loading.put(put(&[0])).unwrap();
    loading.end(Some(at(TODAY, 1.0)));
    let handle = world.live.finish(loading, &world.subscriber, world.now).unwrap();
    world.write(&[at(TODAY + 9 * SECOND, 1.0)]);
    assert_eq!(world.values(handle), [5.0], "those from -1 s to 9 s");
}
