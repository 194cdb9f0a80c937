//! Each promise of the interface, by example.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

use slung_engine::{Engine, Error, Options};
use slung_model::{AHEAD_MICROS_MAX, Point, PointError, ProducerId, SeriesId, SeriesKey, TimeRange};
use slung_store::sim::{Fault, SimVfs};

use crate::support::{GatedVfs, SECOND, TODAY, clock, open, query, resolve, values};

/// Far longer than any of this takes: what runs into it is stuck.
const STUCK: Duration = Duration::from_secs(60);

/// An engine is used by many threads at once.
const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<Engine>();
};

#[test]
fn a_refused_batch_leaves_nothing_behind() {
    let engine = open(SimVfs::new(1), Options::default());
    let series = resolve(&engine, "temp", 0);
    let subscriber = engine.subscriber();
    let count = engine.subscribe(&subscriber, &query("COUNT:temp:[]")).unwrap();
    let good = Point { series, timestamp: TODAY, value: 1.0 };
    let ahead = Point { timestamp: TODAY + AHEAD_MICROS_MAX + 1, ..good };
    for write in [Engine::try_write, Engine::write] {
        let refused = write(&engine, None, &[good, ahead]).unwrap_err();
        assert!(matches!(refused, Error::Point { index: 1, reason: PointError::Ahead { .. } }), "{refused}");
        let refused = write(&engine, None, &[good, Point { value: f64::NAN, ..good }]).unwrap_err();
        assert!(matches!(refused, Error::Point { index: 1, reason: PointError::NotFinite(_) }));
        let refused = write(&engine, None, &[good, Point { timestamp: i64::MIN, ..good }]).unwrap_err();
        assert!(matches!(refused, Error::Point { index: 1, reason: PointError::OutOfRange(i64::MIN) }));
        let refused = write(&engine, None, &[good, Point { series: SeriesId(9), ..good }]).unwrap_err();
        assert_eq!(refused.to_string(), "point 1 is of series 9, which the store does not know: resolve its key first");
    }
    assert_eq!(values(&subscriber, count), []);
    assert_eq!(engine.query(&query("COUNT:temp:[]")).unwrap().value, Some(0.0));
    engine.write(None, &[good, Point { timestamp: TODAY + AHEAD_MICROS_MAX, ..good }]).unwrap();
    assert_eq!(values(&subscriber, count), [1.0, 2.0]);
}

#[test]
fn answers_over_what_is_stored() {
    let engine = open(SimVfs::new(1), Options::default());
    let (a, b) = (resolve(&engine, "temp", 0), resolve(&engine, "temp", 1));
    let at = |series, seconds_ago: i64, value| Point { series, timestamp: TODAY - seconds_ago * SECOND, value };
    engine.write(None, &[at(a, 30, 1.0), at(b, 10, 5.0), at(a, 10, 3.0)]).unwrap();

    let average = engine.query(&query("AVG:temp:[]:[20s]")).unwrap();
    assert_eq!((average.value, average.count, average.latest), (Some(4.0), 2, None));
    assert_eq!(average.range, TimeRange { start: TODAY - 20 * SECOND, end: TODAY });
    let raw = engine.query(&query("temp:[]")).unwrap();
    assert_eq!((raw.value, raw.count, raw.latest), (Some(3.0), 1, Some(at(a, 10, 3.0))), "written last");
    let hour_before = engine.query(&query("SUM:temp:[]:[2h,1h]")).unwrap();
    assert_eq!((hour_before.value, hour_before.count), (None, 0));
    assert_eq!(engine.query(&query("COUNT:none:[]")).unwrap().value, Some(0.0));

    let huge = [at(a, 1, f64::MAX), at(b, 1, f64::MAX)];
    engine.write(None, &huge).unwrap();
    assert_eq!(engine.query(&query("SUM:temp:[]:[2s]")).unwrap().value, Some(f64::MAX));
    let stats = engine.stats();
    assert_eq!((stats.queries, stats.sums_saturated, stats.store.points), (5, 1, 5));
}

#[test]
fn history_computes_what_no_live_query_does() {
    let engine = open(SimVfs::new(1), Options::default());
    let [a, b, c] = [0, 1, 2].map(|sensor| resolve(&engine, "requests", sensor));
    let at = |series, second: i64, value| Point { series, timestamp: TODAY + second * SECOND, value };
    engine.write(None, &[at(a, -4, 100.0), at(b, -4, 7.0), at(b, 0, 19.0), at(a, -2, 104.0), at(a, 0, 6.0)]).unwrap();
    engine.write(None, &[at(c, 0, 1.0), at(b, -3, 9.0), at(a, -4, 100.0)]).unwrap();
    let ask = |text: &str| {
        let answer = engine.query(&query(text)).unwrap();
        (answer.value, answer.count)
    };
    assert_eq!(ask("FIRST:requests:[]"), (Some(100.0), 1), "known first");
    assert_eq!(ask("LAST:requests:[]"), (Some(1.0), 1), "written last");
    assert_eq!(engine.query(&query("LAST:requests:[]")).unwrap().latest, Some(at(c, 0, 1.0)));
    assert_eq!(ask("STDDEV:requests:[n=0]:[4s,1s]"), (Some(2.0), 2));
    // 4 and, after a reset, 6 in 4 seconds; 12 in 4 seconds; nothing of a single point.
    assert_eq!(ask("RATE:requests:[]"), (Some(2.5 + 3.0), 7));
    assert_eq!(ask("RATE:requests:[n=2]"), (None, 1));
    let (p50, count) = ask("P50:requests:[]");
    assert!(p50.is_some_and(|p50| (p50 - 9.0).abs() <= 9.0 * 0.005) && count == 7, "{p50:?}");
    let subscriber = engine.subscriber();
    for op in ["FIRST", "LAST", "STDDEV", "RATE", "P99.9"] {
        assert_eq!(ask(&format!("{op}:nothing:[]")), (None, 0));
    }
    let refused = engine.subscribe(&subscriber, &query("RATE:requests:[]:[5m]")).unwrap_err();
    assert!(refused.to_string().starts_with("RATE is for historical queries only"), "{refused}");
    assert_eq!(engine.stats().live.handles, 0);
}

#[test]
fn a_window_starts_from_what_is_stored_and_time_empties_it() {
    let clock = clock();
    let disk = Arc::new(SimVfs::new(1));
    let (engine, _) =
        Engine::open(disk, Arc::clone(&clock) as _, std::path::Path::new("data"), Options::default()).unwrap();
    let series = resolve(&engine, "temp", 0);
    for old in [TODAY - 400 * 24 * 3600 * SECOND, TODAY - 30 * SECOND] {
        let at = |second: i64| Point { series, timestamp: old + second * SECOND, value: 1.0 };
        engine.write(None, &[at(-61), at(-60), at(-1), at(0)]).unwrap();
        let subscriber = engine.subscriber();
        let count = engine.subscribe(&subscriber, &query("COUNT:temp:[]:[1m]")).unwrap();
        let raw = engine.subscribe(&subscriber, &query("temp:[]:[1m]")).unwrap();
        engine.write(ProducerId::new(3), &[at(-61), at(1)]).unwrap();
        assert_eq!((values(&subscriber, count), values(&subscriber, raw)), (vec![3.0], vec![1.0]));

        clock.pass(59 * SECOND + 1);
        engine.tick();
        assert_eq!(values(&subscriber, count), [1.0]);
        clock.pass(60 * SECOND);
        engine.tick();
        assert_eq!(values(&subscriber, count), [0.0]);
        engine.remove(&subscriber);
        assert_eq!(engine.stats().live.handles, 0);
        clock.pass(-120 * SECOND);
    }
}

#[test]
fn what_can_not_be_live_is_refused() {
    let engine = open(SimVfs::new(1), Options::default());
    let refused = engine.subscribe(&engine.subscriber(), &query("AVG:temp:[]:[2h,1h]")).unwrap_err();
    assert!(matches!(refused, Error::Live(slung_live::Error::NotLive(_))), "{refused}");
}

/// A writer that finds no room is told so, or waits, and neither is in anybody's way.
#[test]
fn waiting_for_room_holds_up_nobody() {
    let disk = GatedVfs::new();
    let mut options = Options::default();
    options.store.pending_bytes_max = 4 << 10;
    let engine = Arc::new(open(disk.clone(), options));
    let series = resolve(&engine, "temp", 0);
    let subscriber = engine.subscriber();
    let count = engine.subscribe(&subscriber, &query("COUNT:temp:[]")).unwrap();

    disk.shut();
    let mut written = 0;
    let point = move |i: i64| Point { series, timestamp: TODAY - i, value: 1.0 };
    let refused = loop {
        match engine.try_write(None, &[point(written)]) {
            Ok(_) => written += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Error::Busy), "{refused}");
    assert_eq!(values(&subscriber, count).last(), Some(&(written as f64)), "a refused point reached no live query");
    assert_eq!(engine.query(&query("COUNT:temp:[]")).unwrap().value, Some(written as f64));

    let busy = engine.stats().store.busy;
    let writer = thread::spawn({
        let engine = Arc::clone(&engine);
        move || engine.write(None, &[point(written)])
    });
    let (done, is_done) = mpsc::channel();
    thread::spawn({
        let engine = Arc::clone(&engine);
        move || {
            // Once it was refused, all that it can do is wait.
            while engine.stats().store.busy == busy {
                thread::yield_now();
            }
            let subscriber = engine.subscriber();
            let handle = engine.subscribe(&subscriber, &query("COUNT:temp:[]:[1h]")).unwrap();
            engine.tick();
            engine.producer_closed(ProducerId::new(1).unwrap());
            engine.resolve(&SeriesKey::new("other", [""; 0]).unwrap()).unwrap();
            assert!(matches!(engine.try_write(None, &[point(written + 1)]), Err(Error::Busy)));
            done.send(engine.unsubscribe(&subscriber, handle)).unwrap();
        }
    });
    let others = is_done.recv_timeout(STUCK);
    disk.open();
    assert!(others.expect("a waiting writer holds the lock"));
    let seq = writer.join().unwrap().unwrap();
    assert_eq!(seq.0, written as u64 + 1);
    engine.wait_durable(seq).unwrap();
    assert_eq!(values(&subscriber, count), [written as f64 + 1.0]);
}

#[test]
fn a_waiting_writer_hears_that_the_disk_failed() {
    let disk = SimVfs::new(1);
    let mut options = Options::default();
    options.store.pending_bytes_max = 4 << 10;
    let engine = open(disk.clone(), options);
    let series = resolve(&engine, "temp", 0);
    for call in disk.calls()..disk.calls() + 20 {
        disk.fault_at(call, Fault::Stop);
    }
    let subscriber = engine.subscriber();
    let count = engine.subscribe(&subscriber, &query("COUNT:temp:[]")).unwrap();
    let mut written = 0;
    let refused = loop {
        match engine.write(None, &[Point { series, timestamp: TODAY - written, value: 1.0 }]) {
            Ok(_) => written += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, Error::Store(slung_store::Error::ReadOnly { .. })), "{refused}");
    assert!(matches!(engine.health(), Err(Error::Store(_))));
    assert_eq!(values(&subscriber, count).len() as i64, written, "what was refused reached no live query");
    assert_eq!(engine.query(&query("COUNT:temp:[]")).unwrap().value, Some(written as f64), "reading goes on");
    assert!(engine.close().is_err());
}

/// A reader that does on the spot, while it is being woken, whatever it likes.
struct Rash {
    engine: Arc<Engine>,
    series: SeriesId,
    writes: AtomicU64,
}

impl Wake for Rash {
    fn wake(self: Arc<Self>) {
        let subscriber = self.engine.subscriber();
        let handle = self.engine.subscribe(&subscriber, &query("COUNT:temp:[]:[1m]")).unwrap();
        let point = Point { series: self.series, timestamp: TODAY + 1, value: 1.0 };
        self.engine.try_write(None, &[point]).unwrap();
        assert_eq!(values(&subscriber, handle), [2.0]);
        self.engine.remove(&subscriber);
        self.writes.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn readers_are_woken_without_a_lock() {
    let engine = Arc::new(open(SimVfs::new(1), Options::default()));
    let series = resolve(&engine, "temp", 0);
    let subscriber = engine.subscriber();
    let handle = engine.subscribe(&subscriber, &query("COUNT:temp:[]")).unwrap();
    let rash = Arc::new(Rash { engine: Arc::clone(&engine), series, writes: AtomicU64::new(0) });
    subscriber.wake_on_arrival(&Waker::from(Arc::clone(&rash)));
    let (done, is_done) = mpsc::channel();
    thread::spawn({
        let engine = Arc::clone(&engine);
        move || done.send(engine.write(None, &[Point { series, timestamp: TODAY, value: 1.0 }])).unwrap()
    });
    is_done.recv_timeout(STUCK).expect("the waker waits for a lock of its writer").unwrap();
    assert_eq!((rash.writes.load(Ordering::SeqCst), values(&subscriber, handle)), (1, vec![1.0, 2.0]));
}
