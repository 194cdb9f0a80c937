//! The store, part by part: points in, from memory to segments, segments merged, questions answered from memory and from
//! segments, series found and made known, and the log read again. `billions` has all of it at once, and large.
//!
//! On two disks: the real one, in cargo's target directory (a temporary one is often no disk at all), and one in memory,
//! which shows what the store itself costs. `slung_store::sim` is no disk to measure on: it keeps track of every 64 bytes.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput};
use slung_benches::{Random, START, STEP, key, load, size};
use slung_model::{Aggregate, Op, Point, Query, Seq, SeriesId, SeriesKey, SystemClock, TimeRange};
use slung_store::{File, Lock, Options, OsVfs, Snapshot, Store, Vfs};
use tempfile::TempDir;

/// Series of the load W.
const SERIES: u32 = 10;
/// Points in one write.
const BATCH: usize = 1_000;
/// Points of one minute: in these the shuffled load is out of order.
const MINUTE: usize = 60_000;
/// What a point takes in the log, bytes.
const POINT_BYTES: usize = 20;
/// What the store commits at once when writers are fast, bytes: `commit_bytes_max`.
const COMMIT_BYTES: usize = 1 << 20;

fn points_count() -> usize {
    size(1_000_000, 10_000)
}

fn directory() -> io::Result<TempDir> {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))
}

/// A disk that takes no time, and keeps all but the log, which is never read from it.
#[derive(Default)]
struct Ram(Mutex<HashMap<PathBuf, RamFile>>);

#[derive(Clone)]
struct RamFile {
    forgets: bool,
    bytes: Arc<RwLock<Vec<u8>>>,
}

impl Ram {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<PathBuf, RamFile>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self, path: &Path) -> io::Result<RamFile> {
        self.with(|files| files.get(path).cloned()).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Vfs for Ram {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let name = |path: &PathBuf| path.strip_prefix(dir).ok()?.to_str().map(str::to_owned);
        Ok(self.with(|files| files.keys().filter_map(name).collect()))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(self.get(path)?))
    }
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.open(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let forgets = path.file_stem().is_some_and(|name| name.to_string_lossy().starts_with("log-"));
        let file = RamFile { forgets, bytes: Arc::default() };
        self.with(|files| files.insert(path.into(), file.clone()));
        Ok(Box::new(file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.get(from)?;
        self.with(|files| {
            files.remove(from);
            files.insert(to.into(), file);
        });
        Ok(())
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.get(from)?;
        self.with(|files| files.insert(to.into(), file));
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.with(|files| files.remove(path)).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, _: &Path) -> io::Result<Lock> {
        Ok(Box::new(()))
    }
}

impl File for RamFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        let from = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)?.get(..into.len()));
        into.copy_from_slice(from.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.forgets {
            black_box(bytes);
            return Ok(());
        }
        let mut all = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let offset = usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?;
        let end = offset + bytes.len();
        let len = all.len().max(end);
        all.resize(len, 0);
        all[offset..end].copy_from_slice(bytes);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let bytes = usize::try_from(bytes).map_err(|_| ErrorKind::FileTooLarge)?;
        self.bytes.write().unwrap_or_else(PoisonError::into_inner).truncate(bytes);
        Ok(())
    }
}

fn open_with(vfs: Arc<dyn Vfs>, dir: &Path, series: u32, options: Options) -> Result<Store, slung_store::Error> {
    let (store, _) = Store::open(vfs, Arc::new(SystemClock), dir, options)?;
    (0..series).try_for_each(|host| store.resolve(&key(host)).map(drop))?;
    Ok(store)
}

fn open(vfs: Arc<dyn Vfs>, dir: &Path, series: u32) -> Result<Store, slung_store::Error> {
    open_with(vfs, dir, series, Options::default())
}

/// In memory, and flushed or merged only where it is asked for.
fn in_ram(series: u32) -> Result<Store, slung_store::Error> {
    open_with(Arc::new(Ram::default()), Path::new("data"), series, Options { background: false, ..Options::default() })
}

/// The same points, each within its minute anywhere.
fn shuffled(mut points: Vec<Point>) -> Vec<Point> {
    let mut random = Random::default();
    for minute in points.chunks_mut(MINUTE) {
        for last in (1..minute.len()).rev() {
            let other = random.below(i64::try_from(last).expect("a minute is short") + 1);
            minute.swap(last, usize::try_from(other).expect("not below 0"));
        }
    }
    points
}

/// Writes everything in batches, and waits until the last of it is durable.
fn write(store: &Store, points: &[Point]) -> Result<Seq, slung_store::Error> {
    let mut last = Seq(0);
    for batch in points.chunks(BATCH) {
        last = store.write(batch)?;
    }
    store.wait_durable(last)?;
    Ok(last)
}

/// Into a new store; the time from the first write to the last one durable.
fn ingest(vfs: Arc<dyn Vfs>, points: &[Point]) -> Result<Duration, Box<dyn Error>> {
    let dir = directory()?;
    let store = open(vfs, dir.path(), SERIES)?;
    let start = Instant::now();
    write(&store, points)?;
    Ok(start.elapsed())
}

/// The same bytes, in the pieces in which the store would commit them at best, and nothing else.
fn write_and_sync(bytes: &[u8]) -> io::Result<Duration> {
    let dir = directory()?;
    let file = fs::File::create(dir.path().join("limit"))?;
    let start = Instant::now();
    for (index, piece) in bytes.chunks(COMMIT_BYTES).enumerate() {
        file.write_all_at(piece, (index * COMMIT_BYTES) as u64)?;
        file.sync_data()?;
    }
    Ok(start.elapsed())
}

#[derive(Clone, Default)]
struct Columns {
    timestamps: Vec<i64>,
    values: Vec<f64>,
}

/// What has to be done at least with each point on its way in: bytes for the log, their checksum, a place in columns.
fn encode_and_keep(points: &[Point]) -> (u32, Vec<Columns>) {
    let mut hasher = crc32fast::Hasher::new();
    let mut series = vec![Columns::default(); SERIES as usize];
    let mut bytes = Vec::with_capacity(BATCH * POINT_BYTES);
    for batch in points.chunks(BATCH) {
        bytes.clear();
        for point in batch {
            bytes.extend_from_slice(&point.series.0.to_le_bytes());
            bytes.extend_from_slice(&point.timestamp.to_le_bytes());
            bytes.extend_from_slice(&point.value.to_le_bytes());
            let columns = &mut series[point.series.index()];
            columns.timestamps.push(point.timestamp);
            columns.values.push(point.value);
        }
        hasher.update(&bytes);
    }
    (hasher.finalize(), series)
}

/// One after the other, in a sum of its own.
fn total(count: u64, mut one: impl FnMut() -> Result<Duration, Box<dyn Error>>) -> Duration {
    (0..count).map(|_| one().expect("the disk has room and does not fail")).sum()
}

fn ingest_1m(criterion: &mut Criterion) {
    let points: Vec<Point> = load(SERIES).take(points_count()).collect();
    let mut group = criterion.benchmark_group("ingest_1m");
    group.sample_size(10).throughput(Throughput::Elements(points.len() as u64));
    group.bench_function("disk", |bencher| {
        bencher.iter_custom(|count| total(count, || ingest(Arc::new(OsVfs), &points)));
    });
    let bytes = vec![0x5a; points.len() * POINT_BYTES];
    group.bench_function("limit_disk", |bencher| {
        bencher.iter_custom(|count| total(count, || Ok(write_and_sync(&bytes)?)));
    });
    group.bench_function("ram", |bencher| {
        bencher.iter_custom(|count| total(count, || ingest(Arc::new(Ram::default()), &points)));
    });
    let out_of_order = shuffled(points.clone());
    group.bench_function("ram_shuffled", |bencher| {
        bencher.iter_custom(|count| total(count, || ingest(Arc::new(Ram::default()), &out_of_order)));
    });
    let of_one_series: Vec<Point> = load(1).take(points.len()).collect();
    group.bench_function("ram_one_series", |bencher| {
        bencher.iter_custom(|count| total(count, || ingest(Arc::new(Ram::default()), &of_one_series)));
    });
    group.bench_function("limit_ram", |bencher| bencher.iter_with_large_drop(|| encode_and_keep(&points)));
    group.finish();
}

/// Eight sums side by side, which a processor can add at once.
fn plain_sum(values: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (chunks, rest) = values.as_chunks::<8>();
    for chunk in chunks {
        for (sum, value) in std::iter::zip(&mut sums, chunk) {
            *sum += value;
        }
    }
    sums.iter().sum::<f64>() + rest.iter().sum::<f64>()
}

/// What is in memory becomes segments.
fn flush_1m(criterion: &mut Criterion) {
    let points: Vec<Point> = load(SERIES).take(points_count()).collect();
    let out_of_order = shuffled(points.clone());
    let mut group = criterion.benchmark_group("flush_1m");
    group.sample_size(10).throughput(Throughput::Elements(points.len() as u64));
    for (name, points) in [("in_order", &points), ("shuffled", &out_of_order)] {
        let full = || {
            let store = in_ram(SERIES).expect("there is memory");
            write(&store, points).expect("there is memory");
            store
        };
        let flush = |store: Store| {
            store.flush().expect("there is memory");
            store
        };
        group.bench_function(name, |bencher| bencher.iter_batched(full, flush, BatchSize::PerIteration));
    }
    group.finish();
}

/// Four segments become one: such that follow one another, most of whose chunks are copied, and such that overlap all over.
fn merge_1m(criterion: &mut Criterion) {
    let points: Vec<Point> = load(SERIES).take(points_count()).collect();
    let quarters: Vec<Vec<Point>> = points.chunks(points.len() / 4).map(<[Point]>::to_vec).collect();
    let interleaved: Vec<Vec<Point>> =
        (0..4).map(|from| points.iter().skip(from).step_by(4).copied().collect()).collect();
    let mut group = criterion.benchmark_group("merge_1m");
    group.sample_size(10).throughput(Throughput::Elements(points.len() as u64));
    for (name, parts) in [("one_after_the_other", &quarters), ("overlapping", &interleaved)] {
        let flushed = || {
            let store = in_ram(SERIES).expect("there is memory");
            for part in parts {
                write(&store, part).and_then(|_| store.flush()).expect("there is memory");
            }
            assert_eq!(store.stats().segments, 4);
            store
        };
        let merge = |store: Store| {
            while store.upkeep().expect("there is memory") {}
            store
        };
        assert_eq!(merge(flushed()).stats().segments, 1);
        group.bench_function(name, |bencher| bencher.iter_batched(flushed, merge, BatchSize::PerIteration));
    }
    group.finish();
}

/// Every point read: no chunk lies inside of one stretch of time, so that no summary helps.
fn every_value(snapshot: &Snapshot) -> usize {
    snapshot.buckets(STEP * 1_000, usize::MAX).expect("there is memory").len()
}

fn avg_1m(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    /// Points in a chunk that is full.
    const CHUNK: usize = 8_192;
    let count = points_count() / CHUNK * CHUNK;
    let points: Vec<Point> = load(1).take(count).collect();
    let end = START + STEP * (i64::try_from(count)? - 1);
    // Without the first and the last point two blocks have to be read, the others are answered from their summaries.
    let ranges = [("aligned", TimeRange::ALL), ("unaligned", TimeRange { start: START + STEP, end: end - STEP })];
    let mut group = criterion.benchmark_group("avg_1m");
    let store = in_ram(1)?;
    write(&store, &points)?;
    for place in ["memory", "segments"] {
        for (name, range) in ranges {
            let aggregate = || store.snapshot(&[SeriesId(0)], black_box(range)).aggregate().expect("there is memory");
            assert!(aggregate().value(Op::Avg).is_some_and(|average| (45.0..55.0).contains(&average)));
            group.bench_function(format!("{place}_{name}"), |bencher| bencher.iter(aggregate));
        }
        let all = || every_value(&store.snapshot(&[SeriesId(0)], TimeRange::ALL));
        group.bench_function(format!("{place}_every_value"), |bencher| bencher.iter(all));
        store.flush()?;
    }
    let values: Vec<f64> = points.iter().map(|point| point.value).collect();
    group.bench_function("every_value_in_a_slice", |bencher| bencher.iter(|| Aggregate::of_slice(black_box(&values))));
    group.bench_function("limit_every_value", |bencher| bencher.iter(|| plain_sum(black_box(&values))));
    group.finish();
    Ok(())
}

/// All points one by one, from segments: series by series, and by time through all series.
fn scan_1m(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let count = points_count();
    let points: Vec<Point> = load(SERIES).take(count).collect();
    let store = in_ram(SERIES)?;
    write(&store, &points)?;
    store.flush()?;
    let all: Vec<SeriesId> = (0..SERIES).map(SeriesId).collect();
    let snapshot = store.snapshot(&all, TimeRange::ALL);
    assert_eq!(snapshot.scan().filter(Result::is_ok).count(), count);
    let mut group = criterion.benchmark_group("scan_1m");
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("series_by_series", |bencher| bencher.iter(|| snapshot.scan().count()));
    group.bench_function("by_time", |bencher| bencher.iter(|| snapshot.points().map(Iterator::count)));
    let minutes = || snapshot.buckets(60_000_000, usize::MAX);
    group.bench_function("buckets_of_a_minute", |bencher| bencher.iter(minutes));
    group.bench_function("sketch", |bencher| bencher.iter(|| snapshot.sketch()));
    group.finish();
    Ok(())
}

/// A thousand regions with as many hosts each.
fn host(number: usize) -> SeriesKey {
    let tags = [format!("region=r-{}", number % 1_000), format!("host=h-{}", number / 1_000), "env=prod".to_owned()];
    SeriesKey::new("cpu.total", tags).expect("within the limits")
}

fn series_1m(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let keys: Vec<SeriesKey> = (0..size(1_000_000, 2_000)).map(host).collect();
    let store = in_ram(0)?;
    let register = |store: &Store, keys: &[SeriesKey]| {
        keys.iter().try_for_each(|key| store.resolve(key).map(drop)).expect("there is room for definitions");
    };
    register(&store, &keys);
    let mut group = criterion.benchmark_group("series_1m");
    let narrow = Query::parse("AVG:cpu.total:[region=r-7 AND host=h-0]")?;
    let wide = Query::parse("AVG:cpu.total:[region=r-7 AND env=prod]")?;
    for (name, query, found) in [("two_tags_one_series", narrow, 1), ("two_tags_1k_series", wide, keys.len() / 1_000)] {
        assert_eq!(store.select(&query).len(), found);
        group.bench_function(name, |bencher| bencher.iter(|| store.select(black_box(&query))));
    }
    let few = &keys[..keys.len() / 10];
    group.sample_size(10).throughput(Throughput::Elements(few.len() as u64));
    group.bench_function("resolve_100k_known", |bencher| bencher.iter(|| register(&store, few)));
    let registered = |store: Store| {
        register(&store, few);
        store
    };
    let empty = || in_ram(0).expect("there is memory");
    group.bench_function("resolve_100k_new", |bencher| {
        bencher.iter_batched(empty, registered, BatchSize::PerIteration);
    });
    group.finish();
    Ok(())
}

/// Each start begins a file of the log; that with the points is the largest.
fn largest_log(dir: &Path) -> io::Result<PathBuf> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("log-") {
            logs.push((entry.metadata()?.len(), entry.path()));
        }
    }
    logs.into_iter().max().map(|(_, path)| path).ok_or_else(|| ErrorKind::NotFound.into())
}

/// Opened for reading alone, which reads the log as any start does, and leaves it for the next time.
fn reopen_1m(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let points: Vec<Point> = load(SERIES).take(points_count()).collect();
    let dir = directory()?;
    let store = open(Arc::new(OsVfs), dir.path(), SERIES)?;
    write(&store, &points)?;
    store.close()?;
    let log = largest_log(dir.path())?;
    let mut group = criterion.benchmark_group("reopen_1m");
    group.sample_size(10).throughput(Throughput::Elements(points.len() as u64));
    let open = || Store::open_read_only(Arc::new(OsVfs), dir.path(), Options::default()).expect("it is there");
    assert_eq!(open().1.points, points.len() as u64);
    group.bench_function("log", |bencher| bencher.iter_with_large_drop(open));
    group.bench_function("limit_read_and_checksum", |bencher| {
        bencher.iter(|| crc32fast::hash(&fs::read(&log).expect("the log is there")));
    });
    group.finish();
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    // Half of criterion's own 8 seconds each: on a shared machine several short runs tell more than a long one.
    let criterion = Criterion::default().without_plots().warm_up_time(Duration::from_secs(1));
    let mut criterion = criterion.measurement_time(Duration::from_secs(3)).configure_from_args();
    ingest_1m(&mut criterion);
    flush_1m(&mut criterion);
    merge_1m(&mut criterion);
    avg_1m(&mut criterion)?;
    scan_1m(&mut criterion)?;
    series_1m(&mut criterion)?;
    reopen_1m(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
