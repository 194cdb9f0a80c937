//! Disks that run full, and space that comes back.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use slung_model::Seq;
use slung_store::sim::SimVfs;
use slung_store::{Error, Options, Store};

use crate::common::{
    Contents, SECOND, SetClock, Write, add, all_ids, dir, open, options, points, put, strangers, until,
};

const RESERVE: usize = 4096;

/// With threads of its own, as in a server.
fn running() -> Options {
    Options { background: true, reserve_bytes: RESERVE, commit_interval: Duration::from_millis(1), ..options() }
}

fn contents(store: &Store) -> Contents {
    crate::common::contents(store).unwrap()
}

fn batch(n: i64, count: i64) -> Vec<Write> {
    let value = |i: i64| ((n * 1000 + i) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as f64;
    (0..count).map(|i| ((i % 3) as usize, n * 1000 + i, value(i))).collect()
}

fn is_full(store: &Store) -> bool {
    match store.health() {
        Err(Error::DiskFull { failure }) => {
            assert_eq!(failure.source.kind(), ErrorKind::StorageFull);
            true
        }
        Ok(()) => false,
        Err(other) => panic!("{other}"),
    }
}

fn reserve() -> PathBuf {
    dir().join("reserve")
}

/// Takes all space but so much.
fn leave(disk: &SimVfs, bytes: u64) {
    disk.set_capacity(Some(disk.used() + bytes));
}

#[test]
fn a_full_log_refuses_writes_and_goes_on_by_itself() {
    for room in [0, 1, 40, 700, 3000] {
        let disk = SimVfs::new(room);
        let (store, _) = open(&disk, &SetClock::default(), &running()).unwrap();
        let mut all = Contents::new();
        for n in 0..5 {
            put(&store, &batch(n, 20)).unwrap();
            add(&mut all, &batch(n, 20));
        }
        leave(&disk, room);
        let mut last = Seq(0);
        for n in 5.. {
            match store.write(&points(&store, &batch(n, 20)).unwrap()) {
                Ok(seq) => {
                    add(&mut all, &batch(n, 20));
                    last = seq;
                }
                Err(Error::DiskFull { .. }) => break,
                Err(other) => panic!("{other}"),
            }
        }
        assert!(is_full(&store));
        assert!(matches!(store.wait_durable(last), Err(Error::DiskFull { .. })), "who waits is told");
        assert!(matches!(store.resolve(&crate::common::key(33)), Err(Error::DiskFull { .. })));
        assert_eq!(contents(&store), all, "reading goes on");
        let acknowledged = store.durable_through();
        assert!(acknowledged < last);
        // Too little is not enough, then there is space.
        disk.set_capacity(Some(disk.used() + 1));
        assert!(matches!(store.try_write(&points(&store, &batch(90, 3)).unwrap()), Err(Error::DiskFull { .. })));
        disk.set_capacity(None);
        until("writing to go on", || !is_full(&store));
        store.wait_durable(last).unwrap();
        put(&store, &batch(91, 20)).unwrap();
        add(&mut all, &batch(91, 20));
        store.close().unwrap();
        disk.restart();
        let (store, recovery) = open(&disk, &SetClock::default(), &running()).unwrap();
        assert_eq!((contents(&store), recovery.damage), (all, vec![]));
    }
}

#[test]
fn a_store_that_is_closed_or_killed_on_a_full_disk_keeps_what_it_acknowledged() {
    for kill in [false, true] {
        let disk = SimVfs::new(7);
        let (store, _) = open(&disk, &SetClock::default(), &running()).unwrap();
        let mut all = Contents::new();
        put(&store, &batch(0, 20)).unwrap();
        add(&mut all, &batch(0, 20));
        leave(&disk, 100);
        store.write(&points(&store, &batch(1, 20)).unwrap()).unwrap();
        until("a full disk", || is_full(&store));
        if kill {
            disk.kill();
            drop(store);
        } else {
            let error = store.close().unwrap_err();
            assert!(matches!(error, Error::DiskFull { .. }), "{error}");
        }
        disk.restart();
        disk.set_capacity(None);
        let (store, recovery) = open(&disk, &SetClock::default(), &running()).unwrap();
        assert_eq!((contents(&store), recovery.damage), (all, vec![]));
    }
}

#[test]
fn a_flush_without_space_is_tried_again_and_leaves_nothing_behind() {
    let options = Options { memtable_bytes_max: 64 << 10, ..running() };
    let disk = SimVfs::new(3);
    let (store, _) = open(&disk, &SetClock::default(), &options).unwrap();
    let mut all = Contents::new();
    let mut n = 0;
    let mut write = |store: &Store, all: &mut Contents| {
        let batch = batch(n, 50);
        let seq = store.write(&points(store, &batch).unwrap());
        if seq.is_ok() {
            add(all, &batch);
            n += 1;
        }
        seq
    };
    while store.stats().memtable_bytes < 28 << 10 {
        let seq = write(&store, &mut all).unwrap();
        store.wait_durable(seq).unwrap();
    }
    // Enough for the log, too little for a segment.
    leave(&disk, 6000);
    let mut written = 0;
    while !is_full(&store) {
        match write(&store, &mut all) {
            Ok(_) | Err(Error::DiskFull { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        written += 1;
        assert!(written < 200, "it has to run full");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(contents(&store), all, "reading goes on");
    // It is tried several times.
    std::thread::sleep(Duration::from_millis(350));
    assert!(matches!(store.flush(), Err(Error::Io { source, .. }) if source.kind() == ErrorKind::StorageFull));
    disk.set_capacity(None);
    until("writing to go on", || !is_full(&store));
    until("a flush", || store.stats().flushes > 0);
    store.wait_durable(Seq(store.stats().last)).unwrap();
    assert_eq!(contents(&store), all);
    until("the threads to rest", || !store.upkeep().unwrap());
    assert_eq!(strangers(&disk, &store), [] as [PathBuf; 0]);
    disk.restart();
    drop(store);
    let (store, _) = open(&disk, &SetClock::default(), &options).unwrap();
    assert_eq!(contents(&store), all);
}

/// However little is left: the manifest may be what does not fit.
#[test]
fn no_amount_of_space_makes_a_flush_leave_files_behind() {
    for room in (0..6000).step_by(97) {
        let disk = SimVfs::new(room);
        let quiet = Options { reserve_bytes: 0, ..options() };
        let (store, _) = open(&disk, &SetClock::default(), &quiet).unwrap();
        let mut all = Contents::new();
        for n in 0..3 {
            put(&store, &batch(n, 100)).unwrap();
            add(&mut all, &batch(n, 100));
        }
        leave(&disk, room);
        for _ in 0..3 {
            if let Err(error) = store.flush() {
                assert!(
                    matches!(&error, Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull),
                    "{error}"
                );
                assert_eq!(strangers(&disk, &store), [] as [PathBuf; 0], "with {room} bytes left");
            }
        }
        assert_eq!(contents(&store), all);
        disk.set_capacity(None);
        store.flush().unwrap();
        assert_eq!(strangers(&disk, &store), [] as [PathBuf; 0], "with {room} bytes left");
        assert_eq!(contents(&store), all);
    }
}

/// A store without threads flushes in a write that finds no room.
#[test]
fn a_write_that_has_to_flush_says_that_the_disk_is_full() {
    let disk = SimVfs::new(5);
    let options = Options { memtable_bytes_max: 64 << 10, ..options() };
    let (store, _) = open(&disk, &SetClock::default(), &options).unwrap();
    let mut n = 0;
    let error = loop {
        match put(&store, &batch(n, 100)) {
            Ok(_) => n += 1,
            Err(error) => break error,
        }
        if store.stats().memtable_bytes > 50 << 10 {
            leave(&disk, 2500);
        }
    };
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");
    disk.set_capacity(None);
    until("space", || put(&store, &batch(n, 100)).is_ok());
}

/// Segments of six partitions, and a disk that has not a byte left.
fn full_of_segments(disk: &SimVfs, clock: &SetClock) -> Contents {
    let (store, _) = open(disk, clock, &running()).unwrap();
    let mut all = Contents::new();
    for second in 0..6i64 {
        let value = |i: i64| ((second * 1000 + i) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) as f64;
        let batch: Vec<Write> = (0..300).map(|i| (0, second * SECOND + i, value(i))).collect();
        put(&store, &batch).unwrap();
        add(&mut all, &batch);
        store.flush().unwrap();
    }
    assert_eq!(store.stats().segments, 6);
    store.close().unwrap();
    assert_eq!(disk.read(&reserve()).unwrap().len(), RESERVE);
    // Somebody else took the rest.
    disk.plant(Path::new("elsewhere/filler"), &[1; 100]);
    leave(disk, 0);
    all
}

fn has_its_reserve(disk: &SimVfs) -> bool {
    disk.read(&reserve()).is_some_and(|bytes| bytes.len() == RESERVE)
}

#[test]
fn retention_frees_space_on_a_full_disk() {
    let by_age = Options { retention_micros: Some(2 * SECOND), ..running() };
    let by_size = Options { disk_bytes_max: Some(6000), ..running() };
    for options in [by_age, by_size] {
        let disk = SimVfs::new(11);
        let clock = SetClock::default();
        clock.set(5 * SECOND);
        let all = full_of_segments(&disk, &clock);
        let (store, _) = open(&disk, &clock, &options).expect("a full disk can be opened");
        until("segments to go", || store.stats().segments < 5);
        until("the reserve", || has_its_reserve(&disk));
        until("space", || !is_full(&store));
        let left = contents(&store);
        assert!(left.keys().any(|(_, at)| *at >= 5 * SECOND), "the newest stay");
        assert!(left.iter().all(|(place, bits)| all.get(place) == Some(bits)));
        put(&store, &[(0, 6 * SECOND, 1.0)]).unwrap();
        let left = contents(&store);
        drop(store);
        disk.restart();
        let (store, _) = open(&disk, &clock, &options).unwrap();
        assert_eq!(contents(&store), left);
    }
}

#[test]
fn deletion_frees_space_on_a_full_disk() {
    let disk = SimVfs::new(13);
    let clock = SetClock::default();
    full_of_segments(&disk, &clock);
    let (store, _) = open(&disk, &clock, &running()).expect("a full disk can be opened");
    let ids = all_ids(&store);
    store.delete(&ids, slung_model::TimeRange::between(0, 5 * SECOND - 1)).unwrap();
    until("the reserve", || has_its_reserve(&disk));
    put(&store, &[(0, 6 * SECOND, 1.0)]).unwrap();
    assert_eq!(contents(&store).len(), 301);
}

/// A reserve that a crash cut is none.
#[test]
fn a_reserve_that_is_too_short_is_made_again() {
    let disk = SimVfs::new(1);
    disk.plant(&reserve(), &[1; 10]);
    let (store, _) = open(&disk, &SetClock::default(), &running()).unwrap();
    assert!(has_its_reserve(&disk));
    drop(store);
}
