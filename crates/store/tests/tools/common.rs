//! A store with something of everything, and what it must hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slung_model::{Point, Query, SeriesId, SeriesKey, SystemClock, TimeRange};
use slung_store::sim::SimVfs;
use slung_store::{Options, Recovery, Store, Vfs};

pub(crate) const WEEK: i64 = 7 * 24 * 3600 * 1_000_000;

/// What is stored: series, timestamp, bits of the value.
pub(crate) type Contents = BTreeMap<(String, i64), u64>;

pub(crate) fn dir() -> &'static Path {
    Path::new("data")
}

pub(crate) fn key(number: u32) -> SeriesKey {
    SeriesKey::new("temp", [format!("sensor={number}")]).unwrap()
}

/// Everything at the caller's word.
pub(crate) fn calm() -> Options {
    Options { background: false, ..Options::default() }
}

pub(crate) fn open(vfs: &SimVfs, dir: &Path) -> (Store, Recovery) {
    Store::open(Arc::new(vfs.clone()), Arc::new(SystemClock), dir, calm()).unwrap()
}

/// Values that do not compress to nothing.
pub(crate) fn write(store: &Store, number: u32, times: impl Iterator<Item = i64>) {
    let (series, _) = store.resolve(&key(number)).unwrap();
    let value = |timestamp: i64| f64::from(u32::try_from(timestamp.rem_euclid(9973)).unwrap()).sqrt();
    let points: Vec<Point> = times.map(|timestamp| Point { series, timestamp, value: value(timestamp) }).collect();
    store.write(&points).unwrap();
}

/// Three segments in two partitions and one that spans both, three series, and points that are in the log only.
pub(crate) fn fill(store: &Store) {
    write(store, 0, (0..10_000).map(|n| n * 1_000_000));
    write(store, 1, (0..500).map(|n| n * 1_000_000));
    store.flush().unwrap();
    write(store, 1, (0..300).map(|n| WEEK + n * 1_000_000));
    store.flush().unwrap();
    write(store, 2, (0..40).map(|n| 7 + n * 3));
    write(store, 0, (0..20).map(|n| WEEK + n));
    let last = store.write(&[]).unwrap();
    store.wait_durable(last).unwrap();
}

/// Everything that a store holds.
pub(crate) fn contents(store: &Store) -> Contents {
    let ids: Vec<SeriesId> = store.select(&Query::parse("temp:[]").unwrap());
    let snapshot = store.snapshot(&ids, TimeRange::ALL);
    let read = snapshot.scan().map(|point| {
        let point = point.unwrap();
        let key = store.key(point.series).unwrap();
        ((key.to_string(), point.timestamp), point.value.to_bits())
    });
    read.collect()
}

/// What a store that only reads finds there.
pub(crate) fn read(vfs: Arc<dyn Vfs>, dir: &Path) -> Contents {
    let (store, recovery) = Store::open_read_only(vfs, dir, Options::default()).unwrap();
    assert_eq!(recovery.damage, []);
    contents(&store)
}

/// The names of the files with that beginning, rising.
pub(crate) fn names(vfs: &SimVfs, prefix: &str) -> Vec<PathBuf> {
    let is_meant = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(prefix);
    vfs.files(dir()).into_iter().map(|(path, _)| path).filter(is_meant).collect()
}

/// Turns one bit of a file.
pub(crate) fn flip(vfs: &SimVfs, path: &Path, at: usize) {
    let mut bytes = vfs.read(path).unwrap();
    bytes[at] ^= 1;
    vfs.plant(path, &bytes);
}
