//! One large load from beginning to end, for what no repeated measurement shows: how fast points come in while segments are
//! written and merged, what they take on disk and in memory, how long the first answers and a restart take.
//!
//! `README.md` has the figures, and says what each means.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it measures is for a reader")]

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slung_benches::cost::{Spent, forget_memory_peak, memory_bytes, memory_peak_bytes, thread_cpu};
use slung_benches::{Random, START, STEP, key, load, size};
use slung_model::{Op, Point, Query, Seq, SeriesId, SeriesKey, SystemClock, TimeRange};
use slung_store::{Options, OsVfs, Snapshot, Store};
use tempfile::TempDir;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: cargo bench -p slung-benches --bench billions -- [OPTIONS]
  --points N      how many points go in (default 100000000)
  --memtable MIB  memory for points that are in no segment yet (default 64)
  --dir DIR       an empty or new directory for the store (default: one in cargo's target directory)
  --shuffled      points come in any order within each minute
  --keep          leave the store there";

/// Series of the load.
const SERIES: u32 = 10;
/// Points in one write.
const BATCH: usize = 1_000;
/// Points of one minute, all series together: so many are made at once, and shuffled where that is wanted.
const MINUTE: usize = 60_000;
/// Points of one series in an average.
const MILLION: usize = 1_000_000;
/// Points in a chunk that is full.
const CHUNK: usize = 8_192;
/// From one point of a series to the next, microseconds.
const SERIES_STEP: i64 = STEP * SERIES as i64;
/// How often something quick is done; the median counts.
const TIMES: usize = 21;

struct Arguments {
    points: usize,
    memtable_mib: usize,
    dir: Option<PathBuf>,
    shuffled: bool,
    keep: bool,
    /// Write so many points to the store in `dir`, wait until they are durable, and end as if killed.
    abandon: Option<usize>,
}

impl Arguments {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> std::result::Result<Self, String> {
        let points = size(100_000_000, 20_000);
        let mut parsed = Self { points, memtable_mib: 64, dir: None, shuffled: false, keep: false, abandon: None };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{} needs a value", argument.display()));
            let number = |value: OsString| {
                let number = value.to_str().and_then(|value| value.replace('_', "").parse().ok());
                number.filter(|number| *number > 0).ok_or_else(|| format!("{} is no number above 0", value.display()))
            };
            match argument.to_str() {
                // Cargo's own.
                Some("--bench" | "--test") => {}
                Some("--points") => parsed.points = number(value()?)?,
                Some("--memtable") => parsed.memtable_mib = number(value()?)?,
                Some("--dir") => parsed.dir = Some(value()?.into()),
                Some("--shuffled") => parsed.shuffled = true,
                Some("--keep") => parsed.keep = true,
                Some("--abandon") => parsed.abandon = Some(number(value()?)?),
                _ => return Err(format!("unknown argument {}", argument.display())),
            }
        }
        Ok(parsed)
    }

    fn options(&self) -> Options {
        Options { memtable_bytes_max: self.memtable_mib << 20, ..Options::default() }
    }
}

fn open(dir: &Path, options: &Options) -> Result<Store> {
    let (store, _) = Store::open(Arc::new(OsVfs), Arc::new(SystemClock), dir, options.clone())?;
    (0..SERIES).try_for_each(|host| store.resolve(&key(host)).map(drop))?;
    Ok(store)
}

fn per_second(points: usize, time: Duration) -> String {
    format!("{:.2} M points/s", points as f64 / time.as_secs_f64() / 1e6)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn tell(what: &str, figure: impl std::fmt::Display) {
    println!("{what:<58} {figure}");
}

/// Makes each one the last of those that are left, by chance (Fisher and Yates).
fn shuffle(points: &mut [Point], random: &mut Random) {
    for last in (1..points.len()).rev() {
        let other = random.below(i64::try_from(last).expect("a minute is short") + 1);
        points.swap(last, usize::try_from(other).expect("not below 0"));
    }
}

fn ingest(store: &Store, arguments: &Arguments) -> Result<()> {
    let mut points = load(SERIES).take(arguments.points);
    let mut random = Random::default();
    let mut making = Duration::ZERO;
    let mut minute = Vec::with_capacity(MINUTE);
    let mut last = Seq(0);
    forget_memory_peak();
    let start = Instant::now();
    let before = Spent::since(start)?;
    loop {
        let began = thread_cpu()?;
        minute.clear();
        minute.extend(points.by_ref().take(MINUTE));
        if arguments.shuffled {
            shuffle(&mut minute, &mut random);
        }
        making += thread_cpu()? - began;
        if minute.is_empty() {
            break;
        }
        for batch in minute.chunks(BATCH) {
            last = store.write(batch)?;
        }
    }
    store.wait_durable(last)?;
    let durable = Spent::since(start)? - before;
    let cpu = durable.cpu.saturating_sub(making);
    tell("in, until the last one is durable", per_second(arguments.points, durable.wall));
    tell("the same by processor time, all threads, merging aside", per_second(arguments.points, cpu));
    tell(
        "  merging took beside it",
        format!("{:.1} ns a point", durable.upkeep.as_nanos() as f64 / arguments.points as f64),
    );
    tell(
        "  making the points took, which does not count",
        format!("{:.1} ns a point", making.as_nanos() as f64 / arguments.points as f64),
    );
    tell("peak memory meanwhile", mib(memory_peak_bytes()?));
    tell("written to disk meanwhile", format!("{:.2} bytes a point", durable.written as f64 / arguments.points as f64));
    Ok(())
}

fn sizes(store: &Store, arguments: &Arguments) -> Result<()> {
    let per_point = |store: &Store| {
        let stats = store.stats();
        let per_point = stats.segment_bytes as f64 / arguments.points as f64;
        format!("{per_point:.3} bytes a point, {}, {} segments", mib(stats.segment_bytes), stats.segments)
    };
    store.flush()?;
    tell("segments after the last flush", per_point(store));
    let start = Instant::now();
    let before = Spent::since(start)?;
    while store.upkeep()? {}
    let merged = Spent::since(start)? - before;
    tell("segments when there is nothing left to merge", per_point(store));
    let cpu = merged.cpu + merged.upkeep;
    tell("  merging took after the last point", format!("{:.2} s of processor time", cpu.as_secs_f64()));
    Ok(())
}

/// Tells of the system's cache of a directory's files that they are not needed any more. Whether `dd` could is the answer.
fn drop_cached(dir: &Path) -> Result<bool> {
    let mut dropped = true;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() {
            let mut input = OsString::from("if=");
            input.push(&path);
            let mut dd = Command::new("dd");
            dd.arg(input).args(["iflag=nocache", "count=0"]).stdout(Stdio::null()).stderr(Stdio::null());
            dropped &= dd.status().is_ok_and(|status| status.success());
        }
    }
    Ok(dropped)
}

/// What something takes.
struct Time {
    /// The median of some times of doing it.
    wall: Duration,
    /// Processor time, on the average, which tells more where others have the processor in between.
    cpu: Duration,
}

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1?}", self.wall)?;
        // The system counts it by ticks of some milliseconds.
        if self.wall > Duration::from_millis(1) { write!(f, ", {:.1?} of processor time", self.cpu) } else { Ok(()) }
    }
}

fn time<T>(mut work: impl FnMut() -> Result<T>) -> Result<Time> {
    let mut walls = Vec::with_capacity(TIMES);
    let before = thread_cpu()?;
    for _ in 0..TIMES {
        let start = Instant::now();
        black_box(work()?);
        walls.push(start.elapsed());
    }
    let cpu = (thread_cpu()? - before) / u32::try_from(TIMES)?;
    walls.sort_unstable();
    Ok(Time { wall: walls[TIMES / 2], cpu })
}

fn average(snapshot: &Snapshot, points: usize) -> Result<f64> {
    let aggregate = snapshot.aggregate()?;
    assert_eq!(aggregate.count(), points as u64, "all of them are there, each once");
    let average = aggregate.value(Op::Avg).ok_or("there are points")?;
    assert!((30.0..70.0).contains(&average), "{average} is not the average of values from 0 to 100");
    Ok(average)
}

/// So many consecutive points of a series, from one of them on.
fn stretch(store: &Store, series: u32, from: usize, points: usize) -> Snapshot {
    let at = |index: usize| START + STEP * i64::from(series) + SERIES_STEP * i64::try_from(index).expect("small");
    store.snapshot(&[SeriesId(series)], TimeRange { start: at(from), end: at(from + points - 1) })
}

/// Reads every point: no chunk lies inside of one stretch of time, so no summary helps.
fn decode(snapshot: &Snapshot, points: usize) -> Result<()> {
    let stretch = SERIES_STEP * 1_000;
    let buckets = snapshot.buckets(stretch, usize::MAX)?;
    let count: u64 = buckets.iter().map(|bucket| bucket.spread.aggregate().count()).sum();
    assert_eq!(count, points as u64, "all of them are there, each once");
    Ok(())
}

fn ask(dir: &Path, arguments: &Arguments) -> Result<()> {
    let of_series = arguments.points / SERIES as usize;
    let million = MILLION.min(of_series);
    let dropped = drop_cached(dir)?;
    let start = Instant::now();
    let store = open(dir, &arguments.options())?;
    let how = if dropped { "nothing cached" } else { "the system may have cached it" };
    tell("reopened, closed in order", format!("{:.1?}, {how}", start.elapsed()));
    let start = Instant::now();
    average(&stretch(&store, 3, 0, million), million)?;
    let cold = start.elapsed();
    tell("AVG of 1 M points of a series, the first question", format!("{cold:.1?}, {how}"));
    let mut random = Random::default();
    let mut somewhere = || {
        let from = random.below(i64::try_from(of_series - million)? + 1);
        Ok::<_, Box<dyn Error>>(stretch(&store, 3, usize::try_from(from)?, million))
    };
    // So that all of that series is cached.
    decode(&stretch(&store, 3, 0, of_series), of_series)?;
    let warm = time(|| average(&somewhere()?, million))?;
    tell("the same somewhere in it, warm", warm);
    let every = time(|| decode(&somewhere()?, million))?;
    tell("the same with every point decoded", every);
    let all: Vec<SeriesId> = (0..SERIES).map(SeriesId).collect();
    let everything = || store.snapshot(&all, TimeRange::ALL);
    let start = Instant::now();
    average(&everything(), arguments.points)?;
    tell("AVG of everything, the first time", format!("{:.2?}", start.elapsed()));
    let warm = time(|| average(&everything(), arguments.points))?;
    tell("AVG of everything, warm", warm);
    store.close()?;
    Ok(())
}

/// A series whose chunks are all full, and a range that cuts none of them, and one that cuts two.
fn ask_aligned(dir: &Path) -> Result<()> {
    let points = size(MILLION / CHUNK * CHUNK, 2 * CHUNK);
    let store = open(dir, &Options { memtable_bytes_max: 64 << 20, ..Options::default() })?;
    let all: Vec<Point> = load(1).take(points).collect();
    all.chunks(BATCH).try_for_each(|batch| store.write(batch).map(drop))?;
    store.flush()?;
    let series = [SeriesId(0)];
    let aligned = time(|| average(&store.snapshot(&series, TimeRange::ALL), points))?;
    tell("AVG of 122 whole chunks of a series, warm", aligned);
    let cut = TimeRange { start: START + STEP, end: START + STEP * (i64::try_from(points)? - 2) };
    let unaligned = time(|| average(&store.snapshot(&series, cut), points - 2))?;
    tell("the same without the first and the last point", unaligned);
    store.close()?;
    Ok(())
}

/// The load goes on in another process, which ends without closing anything.
fn reopen_killed(dir: &Path, arguments: &Arguments) -> Result<()> {
    // As many as can be in the log alone: a little less than what begins a flush.
    let points = (arguments.memtable_mib << 20) / 2 / 16 / 10 * 9;
    let points = points.min(arguments.points);
    let mut child = Command::new(std::env::current_exe()?);
    child.arg("--abandon").arg(points.to_string()).arg("--dir").arg(dir);
    child.arg("--memtable").arg(arguments.memtable_mib.to_string()).stderr(Stdio::null());
    let status = child.status()?;
    assert!(!status.success(), "it does not end in order");
    let start = Instant::now();
    let (store, recovery) = Store::open(Arc::new(OsVfs), Arc::new(SystemClock), dir, arguments.options())?;
    let took = start.elapsed();
    assert!(recovery.points >= (arguments.points.max(points)) as u64, "what was durable is there");
    let log = recovery.log_bytes;
    tell("reopened, killed with a full log", format!("{took:.1?}, {} of log, {}", mib(log), per_second(points, took)));
    store.close()?;
    Ok(())
}

/// The same points again, in the place of those that are there. Never returns in order.
fn abandon(dir: &Path, arguments: &Arguments, points: usize) -> Result<()> {
    let store = open(dir, &arguments.options())?;
    let mut last = Seq(0);
    let points: Vec<Point> = load(SERIES).take(points).collect();
    for batch in points.chunks(BATCH) {
        last = store.write(batch)?;
    }
    store.wait_durable(last)?;
    std::process::abort();
}

/// Series by a thousand regions and a thousand hosts in each, with one point each.
fn many_series(dir: &Path) -> Result<()> {
    let count = size(MILLION, 1_000);
    let before = memory_bytes()?;
    let start = Instant::now();
    let (store, _) = Store::open(Arc::new(OsVfs), Arc::new(SystemClock), dir, Options::default())?;
    let mut batch = Vec::with_capacity(BATCH);
    for number in 0..count {
        let tags = [format!("region=r-{}", number % 1_000), format!("host=h-{}", number / 1_000), "env=prod".into()];
        let (series, _) = store.resolve(&SeriesKey::new("cpu.total", tags)?)?;
        batch.push(Point { series, timestamp: START, value: number as f64 });
        if batch.len() == BATCH {
            store.write(&batch)?;
            batch.clear();
        }
    }
    let took = start.elapsed();
    let memory = memory_bytes()?.saturating_sub(before);
    tell(&format!("{count} series, one point each, in"), format!("{took:.2?}, {}", mib(memory)));
    let start = Instant::now();
    store.flush()?;
    tell("  flushed", format!("{:.2?}, {}", start.elapsed(), mib(store.stats().segment_bytes)));
    let narrow = Query::parse("AVG:cpu.total:[region=r-7 AND host=h-0]")?;
    assert_eq!(store.select(&narrow).len(), 1);
    tell("  found by two tags, one of them", time(|| Ok(store.select(&narrow)))?);
    let wide = Query::parse("AVG:cpu.total:[region=r-7 AND env=prod]")?;
    let found = store.select(&wide);
    tell(&format!("  found by two tags, {}", found.len()), time(|| Ok(store.select(&wide)))?);
    let start = Instant::now();
    assert_eq!(store.snapshot(&found, TimeRange::ALL).aggregate()?.count(), found.len() as u64);
    tell("  AVG of these, the first time", format!("{:.2?}", start.elapsed()));
    store.close()?;
    let start = Instant::now();
    let (store, _) = Store::open(Arc::new(OsVfs), Arc::new(SystemClock), dir, Options::default())?;
    tell("  reopened", format!("{:.2?}", start.elapsed()));
    store.close()?;
    Ok(())
}

fn main() -> Result<()> {
    let arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(reason) => {
            eprintln!("{reason}\n{USAGE}");
            std::process::exit(2);
        }
    };
    if let (Some(points), Some(dir)) = (arguments.abandon, &arguments.dir) {
        return abandon(dir, &arguments, points);
    }
    let temporary: Option<TempDir>;
    let dir = match &arguments.dir {
        Some(dir) => {
            temporary = None;
            dir.clone()
        }
        None => {
            let made = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
            let path = made.path().to_owned();
            temporary = Some(made);
            path
        }
    };
    let order = if arguments.shuffled { "shuffled within each minute" } else { "in order" };
    println!("{} points of {SERIES} series, {order}, memtable of {} MiB", arguments.points, arguments.memtable_mib);
    let (main, aligned, many) = (dir.join("points"), dir.join("aligned"), dir.join("series"));
    if main.exists() {
        return Err(format!("{} is there already", main.display()).into());
    }
    let store = open(&main, &arguments.options())?;
    ingest(&store, &arguments)?;
    sizes(&store, &arguments)?;
    store.close()?;
    ask(&main, &arguments)?;
    ask_aligned(&aligned)?;
    reopen_killed(&main, &arguments)?;
    many_series(&many)?;
    if arguments.keep {
        temporary.map(TempDir::keep);
        println!("left in {}", dir.display());
    } else {
        for dir in [main, aligned, many] {
            fs::remove_dir_all(dir)?;
        }
    }
    Ok(())
}
