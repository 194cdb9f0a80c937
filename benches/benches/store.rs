//! The store: points in, an average over a million of them, and all of them read again when it opens.
//!
//! On two disks: the real one, in cargo's target directory (a temporary one is often no disk at all), and one that forgets
//! everything at once, which shows what the store itself costs. `slung_store::sim` is no disk to measure on: it keeps track
//! of every 64 bytes.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput};
use slung_benches::{START, STEP, key, load, size};
use slung_model::{Aggregate, Op, Point, Seq, SeriesId, TimeRange};
use slung_store::{File, Lock, Options, OsVfs, Store, Vfs};
use tempfile::TempDir;

/// Series of the load W.
const SERIES: u32 = 10;
/// Points in one write.
const BATCH: usize = 1_000;
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

/// A disk that takes no time and keeps nothing.
struct Forgetful;

impl Vfs for Forgetful {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn open(&self, _: &Path) -> io::Result<Box<dyn File>> {
        Err(ErrorKind::NotFound.into())
    }
    fn create(&self, _: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(Self))
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, _: &Path) -> io::Result<Lock> {
        Ok(Box::new(()))
    }
}

impl File for Forgetful {
    fn size(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(ErrorKind::UnexpectedEof.into())
    }
    fn write_at(&self, _: u64, bytes: &[u8]) -> io::Result<()> {
        black_box(bytes);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn truncate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

fn open(vfs: Arc<dyn Vfs>, dir: &Path, series: u32) -> Result<Store, slung_store::Error> {
    let (store, _) = Store::open(vfs, dir, Options::default())?;
    (0..series).try_for_each(|host| store.resolve(&key(host)).map(drop))?;
    Ok(store)
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
    group.bench_function("no_disk", |bencher| {
        bencher.iter_custom(|count| total(count, || ingest(Arc::new(Forgetful), &points)));
    });
    let of_one_series: Vec<Point> = load(1).take(points.len()).collect();
    group.bench_function("no_disk_one_series", |bencher| {
        bencher.iter_custom(|count| total(count, || ingest(Arc::new(Forgetful), &of_one_series)));
    });
    group.bench_function("limit_no_disk", |bencher| bencher.iter_with_large_drop(|| encode_and_keep(&points)));
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

fn avg_1m(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let points: Vec<Point> = load(1).take(points_count()).collect();
    let store = open(Arc::new(Forgetful), Path::new("data"), 1)?;
    write(&store, &points)?;
    let end = START + STEP * (i64::try_from(points.len())? - 1);
    // Without the first and the last point two blocks have to be read, the others are answered from their summaries.
    let ranges = [("aligned", TimeRange::ALL), ("unaligned", TimeRange { start: START + STEP, end: end - STEP })];
    let mut group = criterion.benchmark_group("avg_1m");
    for (name, range) in ranges {
        let average = || store.snapshot(&[SeriesId(0)], black_box(range)).aggregate().value(Op::Avg);
        assert!(average().is_some_and(|average| (49.0..51.0).contains(&average)));
        group.bench_function(name, |bencher| bencher.iter(average));
    }
    let values: Vec<f64> = points.iter().map(|point| point.value).collect();
    group.bench_function("every_value", |bencher| bencher.iter(|| Aggregate::of(values.iter().copied())));
    group.bench_function("limit_every_value", |bencher| bencher.iter(|| plain_sum(black_box(&values))));
    group.finish();
    Ok(())
}

fn reopen_1m(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let points: Vec<Point> = load(SERIES).take(points_count()).collect();
    let dir = directory()?;
    let store = open(Arc::new(OsVfs), dir.path(), SERIES)?;
    write(&store, &points)?;
    store.close()?;
    let log = dir.path().join("log-00000001");
    let mut group = criterion.benchmark_group("reopen_1m");
    group.sample_size(10).throughput(Throughput::Elements(points.len() as u64));
    group.bench_function("disk", |bencher| {
        // The one before is closed in between, which is not part of the time.
        let open = |()| Store::open(Arc::new(OsVfs), dir.path(), Options::default()).expect("it was closed in order");
        bencher.iter_batched(|| (), open, BatchSize::PerIteration);
    });
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
    avg_1m(&mut criterion)?;
    reopen_1m(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
