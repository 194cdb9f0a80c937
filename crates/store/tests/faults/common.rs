//! What several tests need: a clock, keys, what a store holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use slung_model::{Clock, Op, Point, Seq, SeriesId, SeriesKey, TimeRange};
use slung_store::sim::SimVfs;
use slung_store::{Error, Options, Recovery, Snapshot, Store};

pub(crate) const SECOND: i64 = 1_000_000;

/// Which of [`key`]'s series, the timestamp, the value.
pub(crate) type Write = (usize, i64, f64);
/// What a store holds, by the names of series: ids that were not durable are given anew. Values as bits.
pub(crate) type Contents = BTreeMap<(usize, i64), u64>;

/// A clock that a test sets.
#[derive(Debug, Clone, Default)]
pub(crate) struct SetClock(Arc<AtomicI64>);

impl SetClock {
    pub(crate) fn set(&self, micros: i64) {
        self.0.store(micros, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn now_micros(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) fn dir() -> &'static Path {
    Path::new("data")
}

/// The same calls each time, where a test waits for each write.
pub(crate) fn options() -> Options {
    Options {
        commit_interval: Duration::ZERO,
        background: false,
        partition_micros: SECOND,
        reserve_bytes: 256,
        ..Options::default()
    }
}

pub(crate) fn open(disk: &SimVfs, clock: &SetClock, options: &Options) -> Result<(Store, Recovery), Error> {
    Store::open(Arc::new(disk.clone()), Arc::new(clock.clone()), dir(), options.clone())
}

pub(crate) fn key(number: usize) -> SeriesKey {
    SeriesKey::new("temp", [format!("sensor={number}")]).expect("a valid key")
}

/// Which of the series that is; `None` for one that [`key`] did not make.
pub(crate) fn number(key: &SeriesKey) -> Option<usize> {
    (0..64).find(|number| self::key(*number) == *key)
}

/// Polls until it is so.
///
/// # Panics
/// After a minute.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited for: {what}");
        thread::sleep(Duration::from_micros(200));
    }
}

/// Makes the series known, and waits until the log has them or the store writes no more: what is written then is a commit
/// of its own.
pub(crate) fn points(store: &Store, batch: &[Write]) -> Result<Vec<Point>, Error> {
    let mut points = Vec::new();
    for &(number, timestamp, value) in batch {
        let (series, is_new) = store.resolve(&key(number))?;
        if is_new {
            until("a definition in the log", || {
                store.stats().pending_bytes == 0 || matches!(store.health(), Err(Error::ReadOnly { .. }))
            });
        }
        points.push(Point { series, timestamp, value });
    }
    Ok(points)
}

/// Writes and waits until it is durable.
pub(crate) fn put(store: &Store, batch: &[Write]) -> Result<Seq, Error> {
    let seq = store.write(&points(store, batch)?)?;
    store.wait_durable(seq)?;
    Ok(seq)
}

pub(crate) fn add(contents: &mut Contents, batch: &[Write]) {
    contents.extend(batch.iter().map(|&(number, timestamp, value)| ((number, timestamp), value.to_bits())));
}

pub(crate) fn all_ids(store: &Store) -> Vec<SeriesId> {
    store.series().into_iter().map(|(id, _)| id).collect()
}

/// All points, read in several ways that have to agree.
pub(crate) fn contents(store: &Store) -> Result<Contents, Error> {
    let snapshot = store.snapshot(&all_ids(store), TimeRange::ALL);
    let found = named(store, &snapshot)?;
    let aggregate = snapshot.aggregate()?;
    assert_eq!(aggregate.count(), found.len() as u64, "the aggregate counts each point once");
    let values = || found.values().map(|bits| f64::from_bits(*bits));
    assert_eq!(aggregate.value(Op::Max), values().reduce(f64::max));
    assert_eq!(aggregate.value(Op::Min), values().reduce(f64::min));
    let merged: Vec<Point> = snapshot.points()?.collect::<Result<_, _>>()?;
    assert!(merged.is_sorted_by_key(|point| (point.timestamp, point.series)), "in order");
    assert_eq!(merged.len(), found.len());
    let last = found.keys().map(|(_, timestamp)| *timestamp).max();
    assert_eq!(snapshot.last()?.map(|point| point.timestamp), last);
    assert_eq!(snapshot.damage(), [], "nothing was planted");
    Ok(found)
}

/// The points of a snapshot by the names of their series.
pub(crate) fn named(store: &Store, snapshot: &Snapshot) -> Result<Contents, Error> {
    let mut found = Contents::new();
    for point in snapshot.scan() {
        let point = point?;
        let key = store.key(point.series).expect("a point is of a series");
        let before = found.insert((number(&key).expect("one of ours"), point.timestamp), point.value.to_bits());
        assert_eq!(before, None, "one point for each series and timestamp");
    }
    Ok(found)
}

/// What stands in the store's directory and belongs to nothing: what a crash or an error left behind and nobody removed.
pub(crate) fn strangers(disk: &SimVfs, store: &Store) -> Vec<PathBuf> {
    let mut segments = 0;
    let mut left = Vec::new();
    for (path, _) in disk.files(dir()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        match name.split('-').next().unwrap() {
            "manifest" | "reserve" | "log" | "series" if !name.ends_with(".new") => {}
            "seg" => segments += 1,
            _ => left.push(path),
        }
    }
    assert_eq!(segments, store.stats().segments, "segments that nothing names");
    left
}
