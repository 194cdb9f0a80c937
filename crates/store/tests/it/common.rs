//! What several tests need: series, batches, and what a store must hold after them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use slung_model::{Op, Point, Seq, SeriesId, SeriesKey, SystemClock, TimeRange};
use slung_store::sim::SimVfs;
use slung_store::{Error, Options, Recovery, Store, Vfs};

/// Which of [`keys`], the timestamp, the value.
pub(crate) type Write = (usize, i64, f64);

/// Never reached: a test that hangs ends by it.
pub(crate) const A_MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn dir() -> &'static Path {
    Path::new("data")
}

/// The log's file of that number. A new store begins its first one without records, and goes on in the second.
pub(crate) fn log(number: u64) -> PathBuf {
    dir().join(format!("log-{number:08}"))
}

/// Commits at once, and does nothing by itself: a test that waits for each write makes the same calls each time.
pub(crate) fn at_once() -> Options {
    Options { commit_interval: Duration::ZERO, reserve_bytes: 0, background: false, ..Options::default() }
}

pub(crate) fn open(disk: &SimVfs) -> Result<(Store, Recovery), Error> {
    open_with(&disk.session(), at_once())
}

pub(crate) fn open_with(vfs: &(impl Vfs + Clone), options: Options) -> Result<(Store, Recovery), Error> {
    Store::open(Arc::new(vfs.clone()), Arc::new(SystemClock), dir(), options)
}

pub(crate) fn key(number: usize) -> SeriesKey {
    SeriesKey::new("temp", [format!("sensor={number}")]).expect("a valid key")
}

/// Makes a series known, and waits until it is in the log: what is written then starts a record of its own.
pub(crate) fn define(store: &Store, key: &SeriesKey) -> SeriesId {
    let (told, commit) = mpsc::channel();
    store.on_commit(move |_| {
        // Later commits find nobody listening any more.
        let _ = told.send(());
    });
    let (series, is_new) = store.resolve(key).unwrap();
    assert!(is_new);
    commit.recv_timeout(A_MINUTE).expect("a commit");
    series
}

/// The points of a batch, their series made known where they are not.
pub(crate) fn points(store: &Store, batch: &[Write]) -> Result<Vec<Point>, Error> {
    let point = |&(number, timestamp, value): &Write| {
        let (series, _) = store.resolve(&key(number))?;
        Ok(Point { series, timestamp, value })
    };
    batch.iter().map(point).collect()
}

/// What is stored after those batches: the last write wins.
pub(crate) fn expected(batches: &[Vec<Write>]) -> BTreeMap<(i64, String), f64> {
    batches.iter().flatten().map(|&(number, timestamp, value)| ((timestamp, key(number).to_string()), value)).collect()
}

pub(crate) fn all_series(store: &Store) -> Vec<SeriesId> {
    (0..u32::try_from(store.stats().series).unwrap()).map(SeriesId).collect()
}

/// What is stored, by the names of the series: ids that were not durable are given anew.
pub(crate) fn contents(store: &Store) -> BTreeMap<(i64, String), f64> {
    let snapshot = store.snapshot(&all_series(store), TimeRange::ALL);
    let found: Vec<Point> = snapshot.points().unwrap().collect::<Result<_, _>>().unwrap();
    assert!(found.is_sorted_by_key(|point| (point.timestamp, point.series)), "in order");
    let named = |point: &Point| ((point.timestamp, store.key(point.series).unwrap().to_string()), point.value);
    let map: BTreeMap<_, _> = found.iter().map(named).collect();
    assert_eq!(map.len(), found.len(), "one point for each series and timestamp");
    let aggregate = snapshot.aggregate().unwrap();
    assert_eq!(aggregate.count(), map.len() as u64);
    assert_eq!(aggregate.value(Op::Max), map.values().copied().reduce(f64::max));
    assert!((aggregate.sum() - map.values().sum::<f64>()).abs() < 1e-6);
    assert!(store.stats().points >= map.len() as u64);
    map
}

/// Checks a store that was opened again: it holds the first so many of the batches, each as a whole, and all that was
/// acknowledged. Answers how many.
pub(crate) fn check_recovered(store: &Store, batches: &[Vec<Write>], acknowledged: Seq) -> usize {
    let through = store.durable_through();
    assert!(through >= acknowledged, "{acknowledged} was acknowledged, {through} is there");
    let mut seq = 0;
    let mut kept = 0;
    while seq < through.0 {
        seq += batches[kept].len() as u64;
        kept += 1;
    }
    assert_eq!(seq, through.0, "a batch is there as a whole or not at all");
    assert_eq!(contents(store), expected(&batches[..kept]), "after {kept} of {} batches", batches.len());
    kept
}
