//! Handles with the same query share one window, where it is the same.

use std::sync::Arc;

use slung_live::{Live, Options};
use slung_model::{Query, SeriesId};

use crate::support::{SECOND, World, at, keys, of};

#[test]
fn one_window_and_one_update_for_all_handles_of_a_query() {
    let mut world = World::new(2);
    let first = world.subscribe("AVG:temp:[sensor=0 AND NOT x]:[60s]");
    world.write(&[at(0, 2.0), at(SECOND, 4.0)]);
    // The same query by other words. Nobody asks for its history.
    let history = std::iter::from_fn(|| -> Option<_> { panic!("a window that is there needs no history") });
    let query = Query::parse("avg : temp : [sensor=0 not x] : [now, 1 minute]").unwrap();
    let other = world.live.subscriber();
    let second = world.live.subscribe(&other, &query, [], history, world.now).unwrap();
    let stats = world.live.stats();
    assert_eq!((stats.handles, stats.windows, stats.points), (2, 1, 2));

    world.write_as(7, &[at(2 * SECOND, 9.0)]);
    let update = other.try_next(second).unwrap();
    assert_eq!(update.value, 5.0);
    let updates = world.updates(first);
    assert_eq!(updates.len(), 3);
    assert_eq!(updates[2], update);

    // The window is there as long as anyone reads it.
    let subscriber = Arc::clone(&world.subscriber);
    assert!(!world.live.unsubscribe(&other, first) && world.live.unsubscribe(&subscriber, first));
    world.write(&[at(3 * SECOND, 5.0)]);
    assert_eq!(other.try_next(second).unwrap().value, 5.0);
    assert_eq!(world.values(first), []);
    world.live.remove(&other);
    assert_eq!((world.live.stats().handles, world.live.stats().windows, world.live.stats().points), (0, 0, 0));
    let anew = world.subscribe("AVG:temp:[sensor=0 AND NOT x]:[1m]");
    world.write(&[at(4 * SECOND, 1.0)]);
    assert_eq!(world.values(anew), [1.0]);
}

/// What the readers make of an update has one place, as long as all of them were told exactly that.
#[test]
fn those_who_were_told_the_same_share_what_they_make_of_it() {
    let mut world = World::with(1, Options { queue_updates_max: 2, ..Options::default() });
    let first = world.subscribe("COUNT:temp:[]");
    world.write(&[at(0, 1.0)]);
    assert!(world.updates(first)[0].made().is_none(), "there is one reader");

    let slow = Live::new(Options { queue_updates_max: 1, ..Options::default() }).subscriber();
    let query = Query::parse("temp:[]").unwrap();
    let [quick, raw] = [&world.subscriber, &slow]
        .map(|subscriber| world.live.subscribe(subscriber, &query, [SeriesId(0)], [], world.now).unwrap());
    world.write(&[at(1, 1.0), at(2, 2.0)]);
    let updates = world.updates(quick);
    assert!(updates[0].made().unwrap().set(Arc::from(*b"one")).is_ok());
    let update = slow.try_next(raw).unwrap();
    assert_eq!(update, updates[1], "the oldest was dropped");
    assert!(updates[1].made().unwrap().set(Arc::from(*b"two")).is_ok());
    assert_eq!(update.made().unwrap().get().map(|made| &**made), Some(&b"two"[..]));
    let also = updates[1].clone();
    assert_eq!(also.made().unwrap().get().map(|made| &**made), Some(&b"two"[..]));

    let query = Query::parse("COUNT:temp:[]").unwrap();
    let (one, other) = (world.subscribe("COUNT:temp:[]"), world.live.subscribe(&slow, &query, [SeriesId(0)], [], 0));
    let other = other.unwrap();
    world.write(&[at(3, 1.0), at(4, 2.0)]);
    let (one, other) = (world.updates(one), slow.try_next(other).unwrap());
    assert_eq!((one.len(), one[1].value, other.value), (2, 2.0, 2.0));
    assert!(one[1].made().is_some() && other.made().is_none(), "both events are in that of the slow one");
}

#[test]
fn a_running_aggregate_is_shared_until_the_first_event() {
    let mut world = World::new(1);
    let early = [0, 1].map(|_| world.subscribe("SUM:temp:[]"));
    assert_eq!(world.live.stats().windows, 1);
    world.write(&[at(0, 1.0)]);
    let late = [0, 1].map(|_| world.subscribe("SUM:temp:[]"));
    assert_eq!((world.live.stats().handles, world.live.stats().windows), (4, 2));
    world.write(&[at(1, 2.0)]);
    assert_eq!(early.map(|handle| world.values(handle)), [[1.0, 3.0], [1.0, 3.0]]);
    assert_eq!(late.map(|handle| world.values(handle)), [[2.0], [2.0]]);

    // The older window goes first, and the newer one stays what others find.
    let subscriber = Arc::clone(&world.subscriber);
    assert!(early.into_iter().all(|handle| world.live.unsubscribe(&subscriber, handle)));
    assert_eq!(world.live.stats().windows, 1);
    world.write(&[at(2, 4.0)]);
    assert_eq!(world.values(late[1]), [6.0]);
}

#[test]
fn an_absolute_window_is_shared_as_long_as_it_keeps_its_points() {
    let mut world = World::with(1, Options { window_points_max: 2, ..Options::default() });
    let first = world.subscribe("COUNT:temp:[]:[0,9]");
    world.write(&[at(1, 1.0)]);
    let second = world.subscribe("COUNT:temp:[]:[0,9]");
    world.write(&[at(2, 1.0), at(3, 1.0), at(3, 1.0)]);
    assert_eq!(world.values(first), [1.0, 2.0, 3.0, 4.0], "the last two are writes of one point");
    assert_eq!(world.values(second), [2.0, 3.0, 4.0]);
    let third = world.try_subscribe("COUNT:temp:[]:[0,9]", &[at(1, 1.0), at(2, 1.0), at(3, 1.0)]).unwrap();
    assert_eq!(world.live.stats().windows, 2);
    world.write(&[at(4, 1.0)]);
    assert_eq!((world.values(second), world.values(third)), (vec![5.0], vec![4.0]));
}

#[test]
fn what_is_late_is_late_for_each_handle() {
    let mut world = World::new(1);
    let handles = ["COUNT:temp:[]:[1s]", "COUNT:temp:[]:[1s]", "temp:[]:[1s]", "temp:[]:[1s]"];
    let handles = handles.map(|query| world.subscribe(query));
    world.write(&[at(10 * SECOND, 1.0), at(8 * SECOND, 1.0)]);
    assert_eq!((world.live.stats().windows, world.live.stats().late), (2, 4));
    for handle in handles {
        assert_eq!(world.subscriber.handle_stats(handle).unwrap().late, 1);
    }
}

#[test]
fn the_end_of_a_shared_window_is_the_same_for_who_comes_later() {
    let mut world = World::new(1);
    world.now = 300_000_000 * SECOND;
    // Data of long ago, as it arrives.
    let first = world.subscribe("COUNT:temp:[]:[10s]");
    world.write(&[at(0, 1.0), at(8 * SECOND, 1.0)]);
    world.pass(SECOND);
    let second = world.try_subscribe("COUNT:temp:[]:[10s]", &[at(0, 1.0), at(8 * SECOND, 1.0)]).unwrap();
    world.pass(2 * SECOND);
    world.pass(9 * SECOND);
    assert_eq!(world.values(first), [1.0, 2.0, 1.0, 0.0]);
    assert_eq!(world.values(second), [1.0, 0.0], "both are told what time takes");
}

#[test]
fn full_queues_of_one_window_merge_apart() {
    let mut live = Live::new(Options { queue_updates_max: 1, ..Options::default() });
    let [slow, quick] = [0, 1].map(|_| live.subscriber());
    let query = Query::parse("SUM:temp:[]").unwrap();
    let [a, b] = [&slow, &quick].map(|subscriber| live.subscribe(subscriber, &query, [SeriesId(0)], [], 0).unwrap());
    for value in 1..=3 {
        let producer = slung_model::ProducerId::new(value);
        drop(live.apply(producer, &[of(0, value as i64, value as f64)], 0, &keys));
        let update = quick.try_next(b).unwrap();
        assert_eq!(update.producers.iter().map(|id| id.get()).collect::<Vec<_>>(), [value]);
    }
    let update = slow.try_next(a).unwrap();
    assert_eq!((update.value, update.producers.len()), (6.0, 3));
    assert_eq!((slow.stats().merged, quick.stats().merged), (2, 0));
}

#[test]
fn a_switch_gives_each_event_to_one_of_two_readers() {
    let mut world = World::new(2);
    let queries = ["temp:[]", "COUNT:temp:[]", "COUNT:temp:[]:[60s]", "MAX:temp:[sensor=1]"];
    let old = queries.map(|query| world.subscribe(query));
    let bystander = world.live.subscriber();
    let count = Query::parse(queries[1]).unwrap();
    let bystanders = world.live.subscribe(&bystander, &count, [SeriesId(0), SeriesId(1)], [], world.now).unwrap();
    world.write(&[at(0, 1.0), of(1, SECOND, 5.0)]);

    let (from, to) = (Arc::clone(&world.subscriber), world.live.subscriber());
    world.live.hold(&to);
    world.subscriber = Arc::clone(&to);
    let new = queries.map(|query| world.try_subscribe(query, &[]).unwrap());
    world.write(&[at(2 * SECOND, 2.0)]);
    assert!(new.iter().all(|handle| !to.has_waiting(*handle)), "it is held");
    // Nobody who asks now gets a part of what is to begin anew.
    let third = world.live.subscriber();
    let thirds = world.live.subscribe(&third, &count, [SeriesId(0), SeriesId(1)], [], world.now).unwrap();

    world.live.switch(Some(&from), &to);
    world.write(&[of(1, 3 * SECOND, 4.0), at(4 * SECOND, 3.0)]);
    let told = |subscriber: &slung_live::Subscriber, handle| -> Vec<f64> {
        std::iter::from_fn(|| subscriber.try_next(handle)).map(|update| update.value).collect()
    };
    assert_eq!(
        old.map(|handle| told(&from, handle)),
        [vec![1.0, 5.0, 2.0], vec![1.0, 2.0, 3.0], vec![1.0, 2.0, 3.0], vec![5.0]]
    );
    assert_eq!(
        new.map(|handle| told(&to, handle)),
        [vec![4.0, 3.0], vec![1.0, 2.0], vec![4.0, 5.0], vec![4.0]],
        "running aggregates begin with the switch, windows are what they are"
    );
    assert_eq!(told(&bystander, bystanders), [1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(told(&third, thirds), [1.0, 2.0]);
}
