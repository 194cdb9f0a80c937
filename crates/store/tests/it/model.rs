//! Random lives of a store, against sorted maps: writing, flushing, merging, giving up, deleting, stopping in any way.
//!
//! Most lives are the same each time. The store has no threads but the one that commits, and that one is waited for after
//! each write; unless the log's syncs are held up, and then it has one record under way and all later writes wait in memory.

use std::env;
use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use slung_model::{Clock, Point, Seq, SeriesId, TIMESTAMP_MAX, TIMESTAMP_MIN, TimeRange};
use slung_store::sim::{Fault, SimVfs};
use slung_store::{Deleted, Error, Options, Recovery, Snapshot, Store};

use crate::common::{Write, dir, key};
use crate::gate::{Gated, Keeper};
use crate::reference::{Answer, Ask, Reference};

const SERIES: usize = 6;
/// In the mean.
const STEPS: usize = 200;
/// Around which most points lie: 14 November 2023, where a week begins anew as little as a second.
const TODAY: i64 = 1_700_000_000_000_000;

#[derive(Debug, Clone)]
struct Setup {
    /// What a loss of power leaves behind.
    seed: u64,
    background: bool,
    partition_micros: i64,
    memtable_bytes_max: usize,
    log_file_bytes_max: u64,
    index_cache_bytes_max: u64,
    /// In partitions.
    retention: Option<i64>,
    /// Nobody asks for a flush: where one would, more is written, until the store has to flush by itself.
    fills_up: bool,
}

/// Points of one write.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// After all before.
    InOrder,
    /// Before the newest ones.
    Late,
    /// At few different times, many of them where a partition begins.
    Grid,
    /// Of very many partitions.
    Far,
    /// At the ends of time.
    Extreme,
    /// Many of one series.
    Bulk,
}

#[derive(Debug, Clone, Copy)]
struct Batch {
    shape: Shape,
    count: usize,
    seed: u64,
}

/// A range, in halves of a partition from [`TODAY`] on, and microseconds beside that.
#[derive(Debug, Clone, Copy)]
enum Span {
    All,
    Halves { from: i64, count: i64, start: i64, end: i64 },
}

#[derive(Debug, Clone)]
enum Step {
    Write(Batch),
    WaitDurable,
    /// The log's syncs are held up until somebody needs one.
    HoldUp,
    Flush,
    Upkeep,
    /// So many halves of a partition go by.
    Pass(i64),
    Delete {
        series: u8,
        span: Span,
    },
    Query {
        series: u8,
        span: Span,
        ask: Ask,
    },
    Keep {
        series: u8,
        span: Span,
    },
    AskKept(usize, Ask),
    OpenBeside,
    Close,
    Kill,
    LosePower,
    /// The machine stops in the middle of the call that comes after so many others, whoever makes it.
    StopAfter(u64),
    /// A flush or a merge that may meet an error, after so many calls.
    Fails {
        merges: bool,
        after: u64,
    },
}

fn batch() -> impl Strategy<Value = Step> {
    let few = prop_oneof![
        6 => Just(Shape::InOrder), 4 => Just(Shape::Late), 4 => Just(Shape::Grid), 1 => Just(Shape::Far),
        1 => Just(Shape::Extreme)
    ];
    let shape = prop_oneof![
        20 => (few, 0usize..24),
        1 => (Just(Shape::Bulk), 1usize..1000),
        1 => (prop_oneof![Just(Shape::InOrder), Just(Shape::Late)], 1usize..400),
    ];
    (shape, any::<u64>()).prop_map(|((shape, count), seed)| Step::Write(Batch { shape, count, seed }))
}

fn span() -> impl Strategy<Value = Span> {
    let halves = (-30i64..120, -4i64..60, -2i64..3, -2i64..3).prop_map(|(from, count, start, end)| Span::Halves {
        from,
        count,
        start,
        end,
    });
    prop_oneof![1 => Just(Span::All), 4 => halves]
}

fn ask() -> impl Strategy<Value = Ask> {
    let buckets = (prop_oneof![Just(1i64), Just(7), Just(250_000), Just(1_000_000), Just(3_600_000_000)], 0usize..40);
    prop_oneof![
        Just(Ask::Aggregate),
        Just(Ask::Ends),
        Just(Ask::Spread),
        Just(Ask::Rate),
        Just(Ask::Sketch),
        buckets.prop_map(|(every, buckets_max)| Ask::Buckets { every, buckets_max }),
        Just(Ask::Scan),
        Just(Ask::Points),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        44 => batch(),
        4 => Just(Step::WaitDurable),
        6 => Just(Step::HoldUp),
        8 => Just(Step::Flush),
        5 => Just(Step::Upkeep),
        3 => (1i64..8).prop_map(Step::Pass),
        2 => (any::<u8>(), span()).prop_map(|(series, span)| Step::Delete { series, span }),
        36 => (any::<u8>(), span(), ask()).prop_map(|(series, span, ask)| Step::Query { series, span, ask }),
        3 => (any::<u8>(), span()).prop_map(|(series, span)| Step::Keep { series, span }),
        6 => (any::<usize>(), ask()).prop_map(|(which, ask)| Step::AskKept(which, ask)),
        1 => Just(Step::OpenBeside),
        2 => Just(Step::Close),
        2 => Just(Step::Kill),
        3 => Just(Step::LosePower),
        3 => prop_oneof![0u64..8, 0u64..60].prop_map(Step::StopAfter),
        3 => (any::<bool>(), prop_oneof![0u64..20, 0u64..100]).prop_map(|(merges, after)| Step::Fails { merges, after }),
    ]
}

fn setup(background: bool) -> impl Strategy<Value = Setup> {
    (
        any::<u64>(),
        prop_oneof![3 => Just(1_000_000i64), 1 => Just(60_000_000), 1 => Just(7 * 24 * 3600 * 1_000_000)],
        prop_oneof![3 => Just(64usize << 10), 1 => Just(1 << 20)],
        prop_oneof![Just(600u64), Just(8 << 10), Just(64 << 20)],
        prop_oneof![Just(0u64), Just(64 << 10), Just(32 << 20)],
        prop_oneof![2 => Just(None), 1 => (1i64..30).prop_map(Some)],
        prop_oneof![3 => Just(false), 1 => Just(true)],
    )
        .prop_map(move |(seed, partition_micros, memtable, log_file, index_cache, retention, fills_up)| Setup {
            seed,
            background,
            partition_micros,
            memtable_bytes_max: memtable,
            log_file_bytes_max: log_file,
            index_cache_bytes_max: index_cache,
            // When a thread of its own gives points up can't be told.
            retention: if background { None } else { retention },
            fills_up,
        })
}

/// What a failure prints: a step on each line.
#[derive(Clone)]
struct Steps(Vec<Step>);

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| f.write_str(&format!("\n{step:?}")))
    }
}

fn life(background: bool) -> impl Strategy<Value = (Setup, Steps)> {
    (setup(background), proptest::collection::vec(step(), 1..2 * STEPS).prop_map(Steps))
}

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now_micros(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

struct Life {
    setup: Setup,
    disk: SimVfs,
    vfs: Gated,
    gate: Keeper,
    clock: Arc<TestClock>,
    store: Option<Store>,
    ids: Vec<Option<SeriesId>>,
    all: Reference,
    /// What no crash takes back, up to that point.
    safe: Reference,
    safe_seq: u64,
    /// What was written since, and may be lost, the last first.
    at_risk: Vec<Vec<Write>>,
    last: u64,
    floor: i64,
    has_deleted: bool,
    /// The gate is shut; and a record waits there.
    held_up: bool,
    under_way: bool,
    newest: i64,
    /// Of all time, each with the range that it is asked for later.
    kept: Vec<(Snapshot, TimeRange, Answer)>,
    stops_soon: bool,
    /// What was being done when the machine stopped: it may have been done.
    interrupted: Interrupted,
}

#[derive(Debug, Default)]
enum Interrupted {
    #[default]
    Nothing,
    Delete(Vec<usize>, TimeRange),
    Upkeep,
}

/// splitmix64.
fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *random;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// From 0 up to and not including `end`.
fn below(random: &mut u64, end: i64) -> i64 {
    (next(random) % end.unsigned_abs()).cast_signed()
}

impl Life {
    fn new(setup: Setup) -> Self {
        let disk = SimVfs::new(setup.seed);
        let (vfs, gate) = Gated::new(disk.clone());
        let mut life = Self {
            setup,
            disk,
            vfs,
            gate,
            clock: Arc::new(TestClock(AtomicI64::new(TODAY))),
            store: None,
            ids: vec![None; SERIES],
            all: Reference::default(),
            safe: Reference::default(),
            safe_seq: 0,
            at_risk: Vec::new(),
            last: 0,
            floor: i64::MIN,
            has_deleted: false,
            held_up: false,
            under_way: false,
            newest: TODAY,
            kept: Vec::new(),
            stops_soon: false,
            interrupted: Interrupted::Nothing,
        };
        life.open().expect("nothing is there");
        life
    }

    fn options(&self) -> Options {
        Options {
            commit_interval: Duration::ZERO,
            memtable_bytes_max: self.setup.memtable_bytes_max,
            log_file_bytes_max: self.setup.log_file_bytes_max,
            partition_micros: self.setup.partition_micros,
            index_cache_bytes_max: self.setup.index_cache_bytes_max,
            reserve_bytes: 0,
            retention_micros: self.setup.retention.map(|partitions| partitions * self.setup.partition_micros),
            background: self.setup.background,
            ..Options::default()
        }
    }

    fn open(&mut self) -> Result<Recovery, Error> {
        let clock = Arc::clone(&self.clock);
        let vfs = self.vfs.with(self.disk.session());
        let (store, recovery) = Store::open(Arc::new(vfs), clock, dir(), self.options())?;
        assert_eq!(recovery.damage, [], "a crash damages nothing");
        self.ids = (0..SERIES).map(|number| find(&store, number)).collect();
        self.store = Some(store);
        self.check_files();
        Ok(recovery)
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open between steps")
    }

    /// Waits until the thread that commits has nothing more to do, or can't.
    fn settle(&mut self) {
        if self.setup.background {
            return;
        }
        if !self.held_up {
            while self.store().stats().pending_bytes > 0 && self.store().health().is_ok() {
                thread::yield_now();
            }
        } else if !self.under_way {
            self.gate.wait_for_sync();
            self.under_way = true;
        }
    }

    fn let_pass(&mut self) {
        self.gate.open();
        (self.held_up, self.under_way) = (false, false);
    }

    fn id(&mut self, number: usize) -> Result<SeriesId, Error> {
        if let Some(id) = self.ids[number] {
            return Ok(id);
        }
        let (id, is_new) = self.store().resolve(&key(number))?;
        assert!(is_new);
        self.ids[number] = Some(id);
        self.settle();
        Ok(id)
    }

    fn writes(&mut self, batch: Batch) -> Vec<Write> {
        let width = self.setup.partition_micros;
        let mut random = batch.seed;
        let one = below(&mut random, SERIES as i64);
        let from = TODAY + below(&mut random, 40) * width / 2;
        let step = 1 + below(&mut random, width / 100);
        let mut writes = Vec::with_capacity(batch.count);
        for i in 0..batch.count as i64 {
            let any = below(&mut random, SERIES as i64);
            let (series, timestamp) = match batch.shape {
                Shape::InOrder => {
                    self.newest += 1 + below(&mut random, width / 16);
                    (any, self.newest)
                }
                Shape::Late => (any, self.newest - below(&mut random, 8 * width)),
                Shape::Grid => (any, TODAY + below(&mut random, 120) * (width / 4) - below(&mut random, 2)),
                Shape::Far => (any, TODAY + (below(&mut random, 400) - 200) * 7 * width),
                Shape::Extreme => match below(&mut random, 2) {
                    0 => (any, TIMESTAMP_MIN + below(&mut random, 3)),
                    _ => (any, TIMESTAMP_MAX - below(&mut random, 3)),
                },
                Shape::Bulk => (one, from + i * step),
            };
            let value = below(&mut random, 2_000_001) as f64 / 1000.0 - 1000.0;
            writes.push((usize::try_from(series).unwrap(), timestamp, value));
        }
        writes
    }

    fn range(&self, span: Span) -> TimeRange {
        let half = self.setup.partition_micros / 2;
        match span {
            Span::All => TimeRange::ALL,
            Span::Halves { from, count, start, end } => {
                let from = TODAY + from * half;
                TimeRange { start: from + start, end: from + count * half + end }
            }
        }
    }

    /// Those of the series that are known, by the bits of a number.
    fn chosen(&self, bits: u8) -> Vec<(usize, SeriesId)> {
        let is_chosen = |number: &usize| bits >> number & 1 == 1;
        (0..SERIES).filter(is_chosen).filter_map(|number| Some((number, self.ids[number]?))).collect()
    }

    fn ask(&self, series: u8, span: Span) -> (Snapshot, Answer) {
        let chosen = self.chosen(series);
        let mut ids: Vec<SeriesId> = chosen.iter().map(|(_, id)| *id).collect();
        if series >> 7 == 1 {
            // Many ids that were not given out, and one twice, in no order.
            ids.extend((1000..1500).map(SeriesId));
            ids.extend(ids.first().copied());
            ids.reverse();
        }
        let range = self.range(span);
        let snapshot = if self.last.is_multiple_of(2) {
            self.store().snapshot(&ids, range)
        } else {
            self.store().snapshot(&ids, TimeRange::ALL).narrow(range)
        };
        assert_eq!(snapshot.seq(), Seq(self.last));
        let visible = TimeRange { start: range.start.max(self.floor), end: range.end };
        (snapshot, self.all.answer(&chosen, visible, self.has_deleted))
    }

    fn take(&mut self, step: &Step) {
        if let Err(error) = self.try_take(step) {
            assert!(self.disk.is_stopped(), "{error}");
            self.stop(SimVfs::restart);
        }
    }

    fn try_take(&mut self, step: &Step) -> Result<(), Error> {
        match *step {
            Step::Write(batch) => self.write(batch)?,
            Step::WaitDurable => {
                self.let_pass();
                let seq = Seq(self.last);
                self.store().wait_durable(seq)?;
                assert!(self.store().durable_through() >= seq);
                self.all_is_safe();
            }
            Step::Flush if self.setup.fills_up => {
                self.write(Batch { shape: Shape::Bulk, count: 700, seed: self.last })?;
            }
            Step::Flush => self.flush()?,
            Step::Upkeep => {
                self.interrupted = Interrupted::Upkeep;
                self.upkeep()?;
            }
            Step::Pass(halves) => {
                self.clock.0.fetch_add(halves * self.setup.partition_micros / 2, Ordering::SeqCst);
            }
            Step::Delete { series, span } => self.delete(series, span)?,
            Step::Close => {
                self.let_pass();
                self.store.take().expect("it is open between steps").close()?;
                self.all_is_safe();
                let recovery = self.open()?;
                assert_eq!(recovery.trimmed, None, "closing leaves nothing torn");
            }
            Step::Kill => self.stop(SimVfs::kill),
            Step::LosePower => self.stop(SimVfs::restart),
            // With threads of its own a store is hardly ever where the stop was meant to be.
            Step::StopAfter(calls) if !self.setup.background => {
                self.let_pass();
                self.settle();
                self.disk.fault_at(self.disk.calls() + calls, Fault::Stop);
                self.stops_soon = true;
            }
            // Who only reads is not meant to meet the stop.
            _ if self.stops_soon => {}
            Step::HoldUp if !self.setup.background => {
                self.let_pass();
                self.settle();
                self.gate.shut();
                self.held_up = true;
            }
            Step::Query { series, span, ask } => {
                let (snapshot, answer) = self.ask(series, span);
                answer.compare(&snapshot, ask);
            }
            Step::Keep { series, span } => {
                if self.kept.len() == 4 {
                    self.kept.remove(0);
                }
                let range = self.range(span);
                let (_, answer) = self.ask(series, span);
                let (wide, _) = self.ask(series, Span::All);
                self.kept.push((wide, range, answer));
            }
            Step::AskKept(which, ask) => {
                if let Some((snapshot, range, answer)) = self.kept.get(which % self.kept.len().max(1)) {
                    answer.compare(&snapshot.narrow(*range), ask);
                }
            }
            Step::OpenBeside => self.open_beside(),
            Step::Fails { merges, after } if !self.setup.background => self.fail(merges, after),
            Step::HoldUp | Step::StopAfter(_) | Step::Fails { .. } => {}
        }
        self.interrupted = Interrupted::Nothing;
        if matches!(step, Step::Close) && !self.stops_soon {
            self.check();
        }
        Ok(())
    }

    fn write(&mut self, batch: Batch) -> Result<(), Error> {
        let writes = self.writes(batch);
        let mut points = Vec::with_capacity(writes.len());
        for &(number, timestamp, value) in &writes {
            points.push(Point { series: self.id(number)?, timestamp, value });
        }
        let seq = self.store().write(&points)?;
        assert_eq!(seq, Seq(self.last + writes.len() as u64));
        if !writes.is_empty() {
            self.settle();
            self.all.write(&writes, self.last + 1);
            self.last = seq.0;
            self.at_risk.push(writes);
        }
        Ok(())
    }

    fn is_safe_through(&mut self, seq: u64) {
        let mut batches = std::mem::take(&mut self.at_risk).into_iter();
        while self.safe_seq < seq {
            let batch = batches.next().expect("it was written");
            self.safe.write(&batch, self.safe_seq + 1);
            self.safe_seq += batch.len() as u64;
        }
        assert!(self.safe_seq <= seq || seq == 0, "a write is durable as a whole");
        self.at_risk = batches.collect();
    }

    fn all_is_safe(&mut self) {
        self.is_safe_through(self.last);
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.store().flush()?;
        assert!(self.setup.background || self.store().stats().memtable_bytes == 0);
        self.all_is_safe();
        Ok(())
    }

    fn upkeep(&mut self) -> Result<(), Error> {
        let mut floor = self.floor;
        if let Some(partitions) = self.setup.retention {
            // What is in memory does not count for what is given up: afterwards it is known what does.
            self.flush()?;
            if let Some(newest) = self.all.newest() {
                let width = self.setup.partition_micros;
                let newest = newest.min(self.clock.now_micros());
                floor = floor.max((newest - partitions * width).div_euclid(width) * width);
            }
        }
        let mut rounds = 0;
        while self.store().upkeep()? {
            rounds += 1;
            assert!(rounds < 1000, "merging comes to an end");
        }
        self.floor = floor;
        Ok(())
    }

    /// Whatever fails, and whatever the disk says then: nothing is lost to the eye.
    fn fail(&mut self, merges: bool, after: u64) {
        self.let_pass();
        self.settle();
        self.disk.fault_at(self.disk.calls() + after, Fault::Error(ErrorKind::Other));
        // What is given up would be unknown after an error.
        let done = if merges && self.setup.retention.is_none() { self.upkeep() } else { self.flush() };
        self.disk.clear_faults();
        assert!(matches!(done, Ok(()) | Err(Error::Io { .. })), "{done:?}");
        self.store().health().expect("it may be tried again");
        self.check();
    }

    fn delete(&mut self, series: u8, span: Span) -> Result<(), Error> {
        let chosen = self.chosen(series);
        let (numbers, ids): (Vec<usize>, Vec<SeriesId>) = chosen.into_iter().unzip();
        let range = self.range(span);
        self.interrupted = Interrupted::Delete(numbers.clone(), range);
        let deleted = self.store().delete(&ids, range)?;
        if range.start > range.end {
            assert_eq!(deleted, Deleted::default());
            return Ok(());
        }
        let gone = self.deleted(&numbers, range);
        assert!(deleted.points >= gone, "{} of {gone} were deleted", deleted.points);
        Ok(())
    }

    fn deleted(&mut self, numbers: &[usize], range: TimeRange) -> u64 {
        self.all_is_safe();
        self.safe.delete(numbers, range, self.floor);
        self.has_deleted = true;
        self.all.delete(numbers, range, self.floor)
    }

    /// Another one reads the directory meanwhile.
    fn open_beside(&mut self) {
        if self.held_up || self.setup.background {
            return;
        }
        let vfs = Arc::new(self.disk.clone());
        let before = self.disk.files(dir());
        let (store, recovery) = Store::open_read_only(vfs, dir(), self.options()).unwrap();
        assert_eq!(recovery.damage, []);
        let ids: Vec<SeriesId> = store.series().iter().map(|(id, _)| *id).collect();
        let chosen = self.chosen(u8::MAX);
        assert_eq!(ids.len(), chosen.len());
        let visible = TimeRange { start: self.floor, end: i64::MAX };
        self.all.answer(&chosen, visible, false).compare(&store.snapshot(&ids, TimeRange::ALL), Ask::Scan);
        store.close().unwrap();
        assert_eq!(self.disk.files(dir()), before, "who only reads changes nothing");
    }

    fn stop(&mut self, how: fn(&SimVfs)) {
        let acknowledged = self.store.as_ref().map_or(self.safe_seq, |store| store.durable_through().0);
        if acknowledged > self.safe_seq {
            self.is_safe_through(acknowledged);
        }
        how(&self.disk);
        self.stops_soon = false;
        self.let_pass();
        self.kept.clear();
        self.store = None;
        self.open().expect("it can be opened");
        let through = self.store().durable_through().0;
        assert!(through >= self.safe_seq, "{} points were safe, {through} are there", self.safe_seq);
        self.is_safe_through(through);
        let has_lost = !self.at_risk.is_empty();
        if has_lost {
            self.at_risk.clear();
            self.all = self.safe.clone();
        }
        self.last = through;
        match std::mem::take(&mut self.interrupted) {
            Interrupted::Delete(numbers, range) if !has_lost && self.count() != self.store_count() => {
                self.deleted(&numbers, range);
            }
            // What is given up is known when it is through.
            Interrupted::Upkeep => self.upkeep().expect("nothing stops it any more"),
            _ => {}
        }
        self.check();
    }

    fn count(&self) -> u64 {
        let visible = TimeRange { start: self.floor, end: i64::MAX };
        self.all.answer(&self.chosen(u8::MAX), visible, false).count()
    }

    fn store_count(&self) -> u64 {
        self.ask(u8::MAX, Span::All).0.aggregate().unwrap().count()
    }

    fn check(&self) {
        let (snapshot, answer) = self.ask(u8::MAX, Span::All);
        answer.compare(&snapshot, Ask::Scan);
        let (snapshot, answer) = self.ask(0x7F, Span::All);
        answer.compare(&snapshot, Ask::Aggregate);
    }

    /// No file is left that belongs to nobody.
    fn check_files(&self) {
        if self.setup.background {
            return;
        }
        let files = self.disk.files(dir());
        let names = || files.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap());
        assert_eq!(names().filter(|name| name.starts_with("seg-")).count() as u64, self.store().stats().segments);
        assert!(names().filter(|name| name.starts_with("series-")).count() <= 1);
        assert!(!names().any(|name| name.ends_with(".new")));
    }
}

fn find(store: &Store, number: usize) -> Option<SeriesId> {
    store.series().iter().find(|(_, known)| **known == key(number)).map(|(id, _)| *id)
}

fn live(setup: Setup, Steps(steps): &Steps) {
    let mut life = Life::new(setup);
    for step in steps {
        life.take(step);
    }
    if life.stops_soon {
        life.take(&Step::LosePower);
    }
    life.check();
    life.take(&Step::Close);
    for (snapshot, range, answer) in &life.kept {
        answer.compare(&snapshot.narrow(*range), Ask::Points);
    }
}

fn config() -> Config {
    Config { cases: 500, max_shrink_iters: 5_000, max_shrink_time: 60_000, ..Config::default() }
}

// Several tests, so that they run at one time.
proptest! {
    #![proptest_config(config())]
    #[test]
    fn it_answers_what_sorted_maps_do_1((setup, steps) in life(false)) {
        live(setup, &steps);
    }

    #[test]
    fn it_answers_what_sorted_maps_do_2((setup, steps) in life(false)) {
        live(setup, &steps);
    }

    #[test]
    fn it_answers_what_sorted_maps_do_3((setup, steps) in life(false)) {
        live(setup, &steps);
    }

    #[test]
    fn it_answers_what_sorted_maps_do_4((setup, steps) in life(false)) {
        live(setup, &steps);
    }

    #[test]
    fn it_answers_what_sorted_maps_do_with_threads_of_its_own((setup, steps) in life(true)) {
        live(setup, &steps);
    }
}

fn number_in(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Of the life with that number.
fn runner(seed: u64) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases: 1, failure_persistence: None, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

/// One life after the other for as long as `SLUNG_SIM_MINUTES` says (one at least), from `SLUNG_SIM_SEED` on.
#[test]
#[ignore = "as long as it is told to; `cargo xtask simulate` starts it"]
fn simulate() {
    let first = number_in("SLUNG_SIM_SEED", 0);
    let time = Duration::from_secs(number_in("SLUNG_SIM_MINUTES", 1) * 60);
    let start = Instant::now();
    let mut seed = first;
    loop {
        let lived = runner(seed).run(&life(false), |(setup, steps)| {
            live(setup, &steps);
            Ok(())
        });
        if let Err(failure) = lived {
            panic!("seed {seed}: {failure}\nAgain: cargo xtask simulate --seed {seed} --minutes 0");
        }
        seed += 1;
        if start.elapsed() >= time {
            break;
        }
    }
    println!("{} lives, seeds {first} to {}, nothing was wrong", seed - first, seed - 1);
}
