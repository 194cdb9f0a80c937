//! How updates get to a reader: order, full queues, wake-ups.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

use slung_live::{HandleId, Live, Options, PRODUCERS_MAX, Subscriber};
use slung_model::{Point, ProducerId, Query};

use crate::support::{SECOND, World, at, key, keys, of};

/// Far longer than any of this takes: what runs into it is stuck.
const STUCK: Duration = Duration::from_secs(60);

fn small_queues(queue_updates_max: usize) -> Options {
    Options { queue_updates_max, ..Options::default() }
}

#[test]
fn a_full_aggregate_merges_into_its_newest_update() {
    let mut world = World::with(2, small_queues(3));
    let handle = world.subscribe("SUM:temp:[]");
    for (i, producer) in [(1, 5), (2, 6), (9, 7), (4, 3), (5, 7)] {
        world.write_as(producer, &[of(i % 2, i64::from(i), f64::from(i))]);
    }
    world.write(&[of(1, 6, 100.0)]);
    let stats = world.subscriber.handle_stats(handle).unwrap();
    assert_eq!((stats.waiting, stats.merged, stats.dropped), (3, 3, 0));
    let updates = world.updates(handle);
    assert_eq!(updates.iter().map(|update| update.value).collect::<Vec<_>>(), [1.0, 3.0, 121.0]);
    let last = &updates[2];
    assert_eq!((last.timestamp, last.state, last.key()), (9, Some((121.0, 6)), &key(1)), "newest time, last cause");
    assert_eq!(last.producers.iter().map(|id| id.get()).collect::<Vec<_>>(), [3, 7]);
    assert_eq!(world.subscriber.handle_stats(handle).unwrap().delivered, 3);

    world.write(&[at(10, 1.0)]);
    assert_eq!(world.values(handle), [122.0], "an update that was taken is merged into no more");
}

/// From event to reaction is counted from the oldest event in an update; time that causes one counts as well.
#[test]
fn an_update_says_when_it_arrived_and_a_merged_one_when_its_oldest_did() {
    let mut world = World::with(1, small_queues(2));
    let began = world.now;
    let arrived =
        |world: &World, handle| world.updates(handle).iter().map(|update| update.arrived - began).collect::<Vec<_>>();
    let (count, raw) = (world.subscribe("COUNT:temp:[]:[10s]"), world.subscribe("temp:[]"));
    for passed in 0..4 {
        world.now = began + passed;
        world.write(&[at(passed, 1.0)]);
    }
    assert_eq!(arrived(&world, count), [0, 1], "3 and 4 are in the second one");
    assert_eq!(arrived(&world, raw), [2, 3], "the oldest two were dropped");
    world.pass(11 * SECOND);
    assert_eq!(arrived(&world, count), [3 + 11 * SECOND]);
}

#[test]
fn what_was_taken_does_not_change_under_the_reader() {
    let mut world = World::with(1, small_queues(1));
    let handle = world.subscribe("COUNT:temp:[]");
    world.write(&[at(0, 1.0), at(1, 1.0)]);
    let taken = world.subscriber.try_next(handle).unwrap();
    world.write(&[at(2, 1.0), at(3, 1.0)]);
    assert_eq!((taken.value, world.values(handle)), (2.0, vec![4.0]));
}

#[test]
fn a_full_raw_queue_drops_its_oldest() {
    let mut world = World::with(1, small_queues(3));
    let handle = world.subscribe("temp:[]");
    world.write_as(1, &(0..10).map(|i| at(i, i as f64)).collect::<Vec<_>>());
    assert_eq!(world.values(handle), [7.0, 8.0, 9.0]);
    let stats = world.subscriber.handle_stats(handle).unwrap();
    assert_eq!((stats.waiting, stats.delivered, stats.merged, stats.dropped), (0, 3, 0, 7));
}

#[test]
fn what_time_causes_merges_too() {
    let mut world = World::with(1, small_queues(1));
    let handle = world.subscribe("COUNT:temp:[]:[10s]");
    world.write_as(4, &[at(0, 1.0)]);
    world.pass(11 * SECOND);
    let updates = world.updates(handle);
    assert_eq!((updates.len(), updates[0].value, updates[0].timestamp), (1, 0.0, 0));
    assert_eq!(updates[0].producers.len(), 1, "an event of theirs is in it");
}

#[test]
fn producers_are_named_up_to_the_limit_closed_ones_given_up_first() {
    let mut world = World::with(1, small_queues(1));
    let handle = world.subscribe("COUNT:temp:[]");
    let max = PRODUCERS_MAX as u64;
    for producer in 1..=max {
        world.write_as(producer, &[at(0, 1.0), at(0, 1.0)]);
    }
    for closed in [17, 2, 4_000] {
        world.live.producer_closed(ProducerId::new(closed).unwrap());
    }
    world.write_as(1, &[at(0, 1.0)]);
    world.write_as(max + 1, &[at(0, 1.0)]);
    world.write_as(max + 2, &[at(0, 1.0)]);
    let named: Vec<_> = world.updates(handle)[0].producers.iter().map(|id| id.get()).collect();
    let expected: Vec<_> = (1..=max + 2).filter(|id| ![17, 2, 4_000].contains(id)).collect();
    assert_eq!(named, expected);

    for producer in 1..=max + 10 {
        world.write_as(producer, &[at(0, 1.0)]);
    }
    let named: Vec<_> = world.updates(handle)[0].producers.iter().map(|id| id.get()).collect();
    assert_eq!(named, (11..=max + 10).collect::<Vec<_>>(), "all are open: the oldest connections are given up");
}

#[test]
fn counters_outlive_their_handle() {
    let mut world = World::with(1, small_queues(2));
    let (first, second) = (world.subscribe("COUNT:temp:[]"), world.subscribe("temp:[]"));
    world.write(&[at(0, 1.0), at(1, 1.0), at(2, 1.0)]);
    world.values(first);
    world.live.unsubscribe(&world.subscriber, first);
    let stats = world.subscriber.stats();
    assert_eq!((stats.waiting, stats.delivered, stats.merged, stats.dropped), (2, 2, 1, 1));
    assert_eq!(world.subscriber.handles(), [second]);
    assert_eq!(world.subscriber.handle_stats(first), None);
}

/// Counts its wakes, and on each looks at whatever it could dead-lock with.
struct Nosy {
    wakes: AtomicU64,
    subscriber: Arc<Subscriber>,
    handle: HandleId,
    live: Arc<Mutex<Live>>,
    seen: AtomicBool,
}

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        let free = self.live.try_lock().is_ok();
        self.seen.store(free && self.subscriber.try_next(self.handle).is_some(), Ordering::SeqCst);
    }
}

#[test]
fn one_wake_for_all_handles_after_the_count_and_without_a_lock() {
    let world = World::new(1);
    let World { mut live, subscriber, .. } = world;
    let query = Query::parse("COUNT:temp:[]").unwrap();
    let series = [slung_model::SeriesId(0)];
    let handles = [(); 3].map(|()| live.subscribe(&subscriber, &query, series, [], 0).unwrap());
    let live = Arc::new(Mutex::new(live));
    let nosy = Arc::new(Nosy {
        wakes: AtomicU64::new(0),
        subscriber: Arc::clone(&subscriber),
        handle: handles[2],
        live: Arc::clone(&live),
        seen: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&nosy));
    subscriber.wake_on_arrival(&waker);
    subscriber.wake_on_arrival(&waker);

    let mut locked = live.lock().unwrap();
    let wakes = locked.apply(None, &[at(0, 1.0), at(1, 1.0)], 0, &keys);
    assert_eq!((subscriber.arrivals(), nosy.wakes.load(Ordering::SeqCst)), (6, 0));
    drop(locked);
    drop(wakes);
    assert_eq!(nosy.wakes.load(Ordering::SeqCst), 1);
    assert!(nosy.seen.load(Ordering::SeqCst), "the update was there and both locks were free");

    drop(live.lock().unwrap().apply(None, &[at(2, 1.0)], 0, &keys));
    assert_eq!(nosy.wakes.load(Ordering::SeqCst), 1, "a waker is used once");
    subscriber.wake_on_arrival(&waker);
    subscriber.wake_on_arrival(Waker::noop());
    drop(live.lock().unwrap().apply(None, &[at(3, 1.0)], 0, &keys));
    assert_eq!(nosy.wakes.load(Ordering::SeqCst), 1, "the last waker counts");
    assert_eq!(subscriber.arrivals(), 12);
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Reads until the handle's update says `last`, sleeping as the subscriber's documentation says.
fn read_until(subscriber: &Subscriber, handle: HandleId, last: f64) -> Vec<f64> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut values = Vec::new();
    while values.last() != Some(&last) {
        let before = subscriber.arrivals();
        if let Some(update) = subscriber.try_next(handle) {
            values.push(update.value);
            continue;
        }
        subscriber.wake_on_arrival(&waker);
        if subscriber.arrivals() == before {
            thread::park();
        }
    }
    values
}

#[test]
fn no_wake_up_is_lost() {
    const EVENTS: u32 = 20_000;
    let mut live = Live::new(small_queues(4));
    let query = Query::parse("COUNT:temp:[]").unwrap();
    let (done, is_done) = mpsc::channel();
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let subscriber = live.subscriber();
            let series = [slung_model::SeriesId(0)];
            let handle = live.subscribe(&subscriber, &query, series, [], 0).unwrap();
            let done = done.clone();
            thread::spawn(move || done.send(read_until(&subscriber, handle, f64::from(EVENTS))).unwrap())
        })
        .collect();
    let point: Point = at(0, 1.0);
    for event in 0..EVENTS {
        drop(live.apply(None, &[point], 0, &keys));
        if event % 64 == 0 {
            // Lets readers run dry and fall asleep now and then.
            thread::yield_now();
        }
    }
    for _ in &readers {
        let values = is_done.recv_timeout(STUCK).expect("a reader sleeps although an update waits for it");
        assert!(values.is_sorted_by(|a, b| a < b), "in order, each once");
    }
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn a_reader_that_never_reads_holds_up_nobody() {
    let mut world = World::with(1, small_queues(2));
    let stuck = world.subscribe("temp:[]");
    let stuck_too = world.subscribe("AVG:temp:[]:[1m]");
    let other = world.live.subscriber();
    let query = Query::parse("COUNT:temp:[]").unwrap();
    let series = [slung_model::SeriesId(0)];
    let handle = world.live.subscribe(&other, &query, series, [], 0).unwrap();
    for i in 0..10_000 {
        world.write(&[at(i, 1.0)]);
        assert_eq!(other.try_next(handle).map(|update| update.value), Some((i + 1) as f64));
    }
    for handle in [stuck, stuck_too] {
        assert_eq!(world.subscriber.handle_stats(handle).unwrap().waiting, 2);
    }
}
