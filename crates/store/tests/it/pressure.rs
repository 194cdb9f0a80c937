//! Group commit and back-pressure, with a disk that syncs when the test says so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use slung_model::{Point, Seq, SeriesId, TimeRange};
use slung_store::sim::SimVfs;
use slung_store::{Error, Options, Store};

use crate::common::{A_MINUTE, at_once, contents, define, key, open, open_with};
use crate::gate::{Gated, Keeper};

/// A store with one series that is durable.
fn gated(options: Options) -> (Arc<Store>, Keeper, SimVfs, SeriesId) {
    let disk = SimVfs::new(9);
    // The definition is committed beforehand: it would be a commit of its own, and begin an interval.
    let series = define(&open(&disk).unwrap().0, &key(0));
    let (vfs, gate) = Gated::new(disk.clone());
    let (store, _) = open_with(&vfs, options).unwrap();
    let point = Point { series, timestamp: 0, value: 0.0 };
    let seq = store.write(&[point]).unwrap();
    store.wait_durable(seq).unwrap();
    (Arc::new(store), gate, disk, series)
}

fn batch(series: SeriesId, from: i64, count: i64) -> Vec<Point> {
    (from..from + count).map(|timestamp| Point { series, timestamp, value: 1.0 }).collect()
}

const SMALL: usize = 4096;

#[test]
fn many_writes_share_one_sync() {
    let (store, gate, _, series) = gated(at_once());
    gate.shut();
    store.write(&batch(series, 1, 1)).unwrap();
    gate.wait_for_sync();
    let before = store.stats().commits;
    for i in 0..100 {
        store.write(&batch(series, 10 + i, 1)).unwrap();
    }
    assert_eq!(store.durable_through(), Seq(1), "visible is not durable");
    assert_eq!(store.snapshot(&[series], TimeRange::ALL).aggregate().unwrap().count(), 102);
    gate.open();
    store.wait_durable(Seq(102)).unwrap();
    assert_eq!(store.stats().commits, before + 2);
}

#[test]
fn where_there_is_no_room_try_write_is_busy_and_write_waits() {
    let (store, gate, disk, series) = gated(Options { pending_bytes_max: SMALL, ..at_once() });
    gate.shut();
    // One batch is on its way to the disk: it takes room until it is there.
    store.try_write(&batch(series, 1, 50)).unwrap();
    gate.wait_for_sync();
    let mut stored = 51;
    let mut from = 51;
    loop {
        match store.try_write(&batch(series, from, 50)) {
            Ok(_) => stored += 50,
            Err(Error::Busy) => break,
            Err(error) => panic!("{error}"),
        }
        from += 50;
    }
    assert_eq!(stored, 201, "four batches of a thousand bytes fit into 4096");
    assert_eq!(store.stats().points, stored, "nothing of the last one was stored");
    assert_eq!(store.stats().busy, 1);
    assert!(store.stats().pending_bytes <= SMALL as u64);

    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        thread::spawn(move || {
            for i in 0..40 {
                store.write(&batch(series, 1000 + i * 50, 50)).unwrap();
                assert!(store.stats().pending_bytes <= SMALL as u64);
            }
            done.store(true, Ordering::SeqCst);
        })
    };
    gate.wait_for_sync();
    assert!(!done.load(Ordering::SeqCst), "ten times the room, and nothing was synced");
    gate.open();
    writer.join().unwrap();
    Arc::into_inner(store).unwrap().close().unwrap();
    assert_eq!(contents(&open(&disk).unwrap().0).len() as u64, stored + 2000);
}

/// An interval of an hour: whatever happens in this test is not because it passed.
fn slow() -> Options {
    Options { commit_interval: Duration::from_secs(3600), ..at_once() }
}

#[test]
fn what_comes_during_a_commit_waits_for_the_interval_or_for_enough_bytes() {
    let (store, gate, _, series) = gated(Options { commit_bytes_max: 25_000, ..slow() });
    let before = store.stats().commits;
    // The log is idle: at once.
    gate.shut();
    store.write(&batch(series, 1, 1)).unwrap();
    gate.wait_for_sync();
    store.write(&batch(series, 2, 1)).unwrap();
    gate.open();
    while store.durable_through() < Seq(2) {
        thread::yield_now();
    }
    // A write of one point takes 25 bytes. The thread that commits has every opportunity to do so too early.
    for i in 3..990 {
        store.write(&batch(series, i, 1)).unwrap();
        thread::yield_now();
    }
    assert_eq!((store.durable_through(), store.stats().commits), (Seq(2), before + 1));
    let seq = store.write(&batch(series, 990, 400)).unwrap();
    while store.durable_through() < seq {
        thread::yield_now();
    }
    assert_eq!(store.stats().commits, before + 2);
}

#[test]
fn who_finds_no_room_does_not_wait_for_the_interval() {
    let (store, _, disk, series) = gated(Options { pending_bytes_max: SMALL, ..slow() });
    for i in 0..100 {
        store.write(&batch(series, 1 + i * 100, 100)).unwrap();
    }
    assert!(store.durable_through() > Seq(1));
    // Nor does closing.
    Arc::into_inner(store).unwrap().close().unwrap();
    assert_eq!(open(&disk).unwrap().1.points, 10_001);
}

#[test]
fn what_can_never_be_stored_is_refused_as_a_whole() {
    let (store, _, _, series) = gated(Options { pending_bytes_max: SMALL, series_max: 2, ..at_once() });
    let good = batch(series, 1, 1)[0];
    let points_max = (SMALL - 5) / 20;
    assert!(matches!(
        store.write(&batch(series, 1, points_max as i64 + 1)),
        Err(Error::BatchTooBig { points: 205, points_max: 204 })
    ));
    let unknown = Point { series: SeriesId(1), ..good };
    assert!(matches!(store.write(&[good, unknown]), Err(Error::UnknownSeries { index: 1, series: SeriesId(1) })));
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert!(matches!(store.write(&[good, Point { value, ..good }]), Err(Error::NotFinite { index: 1, .. })));
    }
    assert_eq!(store.stats().points, 1, "nothing of them was stored");
    assert_eq!(store.write(&[]).unwrap(), Seq(1));

    assert_eq!(store.write(&batch(series, 1, points_max as i64)).unwrap(), Seq(205));
    assert_eq!(store.resolve(&key(1)).unwrap(), (SeriesId(1), true));
    assert!(matches!(store.resolve(&key(2)), Err(Error::TooManySeries { series_max: 2 })));
    assert_eq!(store.resolve(&key(1)).unwrap(), (SeriesId(1), false));
    store.health().unwrap();
}

/// Limits are for what is new: what the log holds is loaded, whatever they say now.
#[test]
fn a_lower_limit_does_not_lock_out_what_is_stored() {
    let (store, _, disk, series) = gated(at_once());
    for i in 0..100 {
        store.write(&batch(series, 1 + i * 100, 100)).unwrap();
    }
    store.resolve(&key(1)).unwrap();
    Arc::into_inner(store).unwrap().close().unwrap();
    let options = Options { memtable_bytes_max: 64 << 10, series_max: 1, ..at_once() };
    let (store, recovery) = open_with(&disk, options).unwrap();
    assert_eq!((recovery.points, recovery.series), (10_001, 2), "more than fit into half of the memory");
    assert!(store.stats().segments > 0 && store.stats().memtable_bytes <= 64 << 10);
    store.write(&batch(series, 20_000, 1)).unwrap();
    assert_eq!(contents(&store).len(), 10_002);
}

#[test]
fn a_flood_of_new_series_is_told_to_wait() {
    let (store, gate, disk, _) = gated(Options { pending_bytes_max: SMALL, ..at_once() });
    gate.shut();
    let mut made = 0;
    let busy = loop {
        match store.resolve(&key(1000 + made)) {
            Ok((_, is_new)) => assert!(is_new),
            Err(error) => break error,
        }
        made += 1;
    };
    assert!(matches!(busy, Error::Busy), "{busy}");
    assert!((200..400).contains(&made), "{made} of some 27 bytes in twice 4 KiB");
    assert!(store.resolve(&key(1000)).is_ok());
    gate.open();
    while let Err(Error::Busy) = store.resolve(&key(1000 + made)) {
        thread::yield_now();
    }
    Arc::into_inner(store).unwrap().close().unwrap();
    assert_eq!(open(&disk).unwrap().1.series, made as u64 + 2);
}

#[test]
fn options_out_of_range_are_named() {
    for (options, name) in [
        (Options { commit_bytes_max: 0, ..at_once() }, "commit_bytes_max"),
        (Options { pending_bytes_max: 4095, ..at_once() }, "pending_bytes_max"),
        (Options { pending_bytes_max: 1 << 30, ..at_once() }, "pending_bytes_max"),
        (Options { memtable_bytes_max: (64 << 10) - 1, ..at_once() }, "memtable_bytes_max"),
        (Options { partition_micros: 999_999, ..at_once() }, "partition_micros"),
        (Options { retention_micros: Some(0), ..at_once() }, "retention_micros"),
    ] {
        let error = open_with(&SimVfs::new(1), options).err().unwrap();
        assert!(error.to_string().starts_with(&format!("option {name} is ")), "{error}");
    }
}

#[test]
fn listeners_hear_of_every_commit_and_may_use_the_store() {
    let (store, _, _, series) = gated(at_once());
    let (told, heard) = mpsc::channel();
    let weak = Arc::downgrade(&store);
    store.on_commit(move |seq| {
        // No lock is held: asking back does not hang, and the number is already true.
        let store = weak.upgrade().expect("the test waits for the last call");
        assert!(store.durable_through() >= seq);
        assert!(store.stats().points > 0);
        told.send(seq).unwrap();
    });
    for i in 0..20 {
        let seq = store.write(&batch(series, 1 + i, 1)).unwrap();
        store.wait_durable(seq).unwrap();
        // Waiters are woken first: the first call may be for the commit before.
        while heard.recv_timeout(A_MINUTE).unwrap() < seq {
            assert_eq!(i, 0);
        }
    }
}

#[test]
fn a_listener_that_panics_stops_writing_but_nobody_waits_for_ever() {
    let (store, _, _, series) = gated(at_once());
    store.on_commit(|seq| assert!(seq < Seq(2), "on purpose"));
    store.write(&batch(series, 1, 1)).unwrap();
    let error = loop {
        match store.write(&batch(series, 2, 1)).and_then(|seq| store.wait_durable(seq)) {
            Ok(()) => thread::yield_now(),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("a thread panicked, which is a bug"), "{error}");
    assert!(store.snapshot(&[series], TimeRange::ALL).aggregate().unwrap().count() >= 2, "reading goes on");
}

#[test]
fn a_listener_that_drops_the_last_handle_closes_the_store() {
    let (store, _, disk, series) = gated(at_once());
    let (told, done) = mpsc::channel();
    let slot: Arc<Mutex<Option<Arc<Store>>>> = Arc::default();
    let held = Arc::clone(&slot);
    store.on_commit(move |_| {
        if let Some(last) = held.lock().unwrap().take() {
            drop(last);
            told.send(()).unwrap();
        }
    });
    let also = Arc::clone(&store);
    *slot.lock().unwrap() = Some(store);
    also.write(&batch(series, 1, 1)).unwrap();
    drop(also);
    done.recv_timeout(A_MINUTE).expect("it does not wait for itself");
    // The directory is given back once the thread has ended.
    loop {
        match open(&disk) {
            Ok((_, recovery)) => break assert_eq!(recovery.points, 2),
            Err(Error::Locked { .. }) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}
