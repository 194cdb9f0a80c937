//! Workflows beside workflows: what answers events and what writes them, alone and beside a thousand others of which half are
//! endless loops; how soon an endless loop is stopped.
//!
//! Each figure is told beside the same one without the others, taken in turns in one run.
#![expect(clippy::print_stdout, reason = "what it measures is for a reader")]

use std::error::Error;
use std::num::NonZeroU32;
use std::sync::{Arc, mpsc};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use slung_benches::cost::Spent;
use slung_benches::{STEP, key, load, size};
use slung_engine::{Engine, Options};
use slung_host::{BoxFuture, Host, HostOptions, HttpMethod, Module, NewEvent, Refusal, StartOptions, Workflow, World};
use slung_live::{HandleId, Subscriber};
use slung_model::{Point, ProducerId, Query, SeriesId, SystemClock};
use slung_store::OsVfs;

#[path = "../../crates/server/src/event.rs"]
#[expect(dead_code, reason = "here only what workflows get is measured")]
mod event;

/// What all guests have. At 16 the Region of a query, which is also what they say to a producer.
const GUEST: &str = r#"
    (import "env" "u_query_live" (func $query_live (param i32) (result i64)))
    (import "env" "u_poll_handle" (func $poll_handle (param i64) (result i32)))
    (import "env" "u_writeback_ws" (func $writeback_ws (param i64 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "\20\00\00\00\10\00\00\00\10\00\00\00")
    (data (i32.const 32) "AVG:cpu.total:[]")
    (global $free (mut i32) (i32.const 1024))
    (func (export "allocate") (param $bytes i32) (result i32)
        (global.get $free)
        (global.set $free (i32.add (global.get $free) (i32.and (i32.add (local.get $bytes) (i32.const 7)) (i32.const -8)))))
    (func (export "deallocate") (param i32))"#;

/// Answers every event, for ever; without events it is parked.
const ANSWER: &str = r#"
    (func (export "call") (result i32)
        (local $handle i64)
        (local.set $handle (call $query_live (i32.const 16)))
        (loop $again
            (if (call $poll_handle (local.get $handle))
                (then (drop (call $writeback_ws (i64.const 7) (i32.const 16)))))
            (global.set $free (i32.const 1024))
            (br $again))
        (unreachable))"#;

const SPIN: &str = r#"(func (export "call") (result i32) (loop $again (br $again)) (unreachable))"#;

fn tell(what: &str, figure: impl std::fmt::Display) {
    println!("{what:<58} {figure}");
}

fn compile(host: &Host, name: &str, entry: &str) -> Result<Module, Box<dyn Error>> {
    Ok(host.compile(name, &wat::parse_str(format!("(module {GUEST} {entry})"))?)?)
}

/// A world in which nothing happens, or the engine as one workflow's world, as the server has it.
struct Joined(Option<Live>);

struct Live {
    engine: Arc<Engine>,
    subscriber: Arc<Subscriber>,
    answered: mpsc::Sender<Instant>,
}

impl World for Joined {
    fn subscribe(&self, query: &str) -> BoxFuture<'_, Result<u64, Refusal>> {
        let refused = |error: &dyn std::fmt::Display| Refusal(error.to_string());
        let Some(live) = &self.0 else { return Box::pin(std::future::ready(Ok(1))) };
        let query = Query::parse(query).map_err(|error| refused(&error));
        let handle =
            query.and_then(|query| live.engine.subscribe(&live.subscriber, &query).map_err(|error| refused(&error)));
        Box::pin(std::future::ready(handle.map(HandleId::get)))
    }
    fn try_next(&self, id: u64, event: &mut Vec<u8>) -> Option<i64> {
        let update = self.0.as_ref()?.subscriber.try_next(HandleId::new(id)?)?;
        event::write(&update, event);
        Some(update.arrived)
    }
    fn now_micros(&self) -> i64 {
        self.0.as_ref().map_or(0, |live| live.engine.now_micros())
    }
    fn has_waiting(&self, id: u64) -> bool {
        let live = self.0.as_ref().zip(HandleId::new(id));
        live.is_some_and(|(live, handle)| live.subscriber.has_waiting(handle))
    }
    fn arrivals(&self) -> u64 {
        self.0.as_ref().map_or(0, |live| live.subscriber.arrivals())
    }
    fn wake_on_arrival(&self, waker: &Waker) {
        if let Some(live) = &self.0 {
            live.subscriber.wake_on_arrival(waker);
        }
    }
    fn writeback_ws(&self, _: u64, _: &[u8]) -> Result<(), Refusal> {
        let Some(live) = &self.0 else { return Ok(()) };
        live.answered.send(Instant::now()).map_err(|error| Refusal(error.to_string()))
    }
    fn free(&self, _: u64) -> bool {
        true
    }
    fn history(&self, _: &str) -> BoxFuture<'_, Result<f64, Refusal>> {
        Box::pin(std::future::ready(Ok(0.0)))
    }
    fn write(&self, _: NewEvent<'_>) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn writeback_http(&self, _: HttpMethod, _: &str, _: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, Refusal>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// Lets it run for ever, in a world in which nothing happens unless there is one.
fn start(host: &Host, module: &Module, live: Option<Live>) -> Workflow {
    let options = StartOptions { name: "bench".into(), compute_ms_max: NonZeroU32::MAX, ..StartOptions::default() };
    host.start(module, options, Arc::new(Joined(live)))
}

/// Others, as long as they are wanted.
struct Others<'a> {
    runtime: &'a tokio::runtime::Runtime,
    workflows: Vec<Workflow>,
}

impl<'a> Others<'a> {
    /// They are there when all that spin have been moved to low priority, and the rest sleeps.
    fn start(
        host: &Host,
        runtime: &'a tokio::runtime::Runtime,
        spins: (&Module, usize),
        parks: (&Module, usize),
    ) -> Self {
        let all = [spins, parks].into_iter().flat_map(|(module, count)| std::iter::repeat_n(module, count));
        let workflows: Vec<_> = all.map(|module| start(host, module, None)).collect();
        let settled = |workflow: &Workflow| {
            let stats = workflow.stats();
            stats.demotions + stats.sleeps > 0
        };
        while !workflows.iter().all(settled) {
            thread::sleep(Duration::from_millis(1));
        }
        Self { runtime, workflows }
    }
}

impl Drop for Others<'_> {
    fn drop(&mut self) {
        self.workflows.iter().for_each(Workflow::stop);
        for workflow in &self.workflows {
            self.runtime.block_on(workflow.wait());
        }
    }
}

/// A workflow that answers events.
struct Busy {
    engine: Arc<Engine>,
    series: SeriesId,
    answers: mpsc::Receiver<Instant>,
    workflow: Workflow,
}

impl Busy {
    fn start(host: &Host, module: &Module, engine: &Arc<Engine>) -> Result<Self, Box<dyn Error>> {
        let (answered, answers) = mpsc::channel();
        let series = engine.resolve(&key(0))?;
        let live = Live { engine: Arc::clone(engine), subscriber: engine.subscriber(), answered };
        let workflow = start(host, module, Some(live));
        while workflow.stats().sleeps == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(Self { engine: Arc::clone(engine), series, answers, workflow })
    }

    /// From `Engine::write` of an event to the answer.
    fn react(&self) -> Duration {
        // A stream of some hundred events a second; the guest has gone to sleep again, in any case.
        thread::sleep(Duration::from_millis(2));
        let point = Point { series: self.series, timestamp: self.engine.now_micros(), value: 21.5 };
        let start = Instant::now();
        self.engine.write(ProducerId::new(7), &[point]).expect("there is room");
        self.answers.recv().expect("the guest answers") - start
    }
}

fn percentile(durations: &mut [Duration], percent: usize) -> Duration {
    durations.sort_unstable();
    durations[(durations.len() * percent / 100).min(durations.len() - 1)]
}

/// Tells both, and what it has become.
fn compare(what: &str, unit: &str, alone: f64, beside: f64) {
    tell(what, format!("{alone:.1} {unit} alone, {beside:.1} {unit} beside them, {:.2} of it", beside / alone));
}

fn reaction<'a>(what: &str, busy: &Busy, rounds: usize, events: usize, others: &dyn Fn() -> Others<'a>) {
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        alone.extend((0..events).map(|_| busy.react()));
        let others = others();
        beside.extend((0..events).map(|_| busy.react()));
        drop(others);
    }
    for percent in [50, 99] {
        let [alone, beside] = [&mut alone, &mut beside].map(|all| percentile(all, percent).as_secs_f64() * 1e6);
        compare(&format!("event to writeback, p{percent}, {what}"), "µs", alone, beside);
    }
    tell("  of which it was taken for one that spins, so far", busy.workflow.stats().demotions);
}

/// A million points in batches of a thousand, again and again, by one writer.
fn ingest<'a>(
    engine: &Engine,
    rounds: usize,
    batches: usize,
    others: &dyn Fn() -> Others<'a>,
) -> Result<(), Box<dyn Error>> {
    let series: Vec<_> = (1..11).map(|host| engine.resolve(&key(host))).collect::<Result<_, _>>()?;
    let mut points: Vec<Point> = load(10).take(1_000).collect();
    for point in &mut points {
        point.series = series[point.series.0 as usize];
    }
    let mut write = || {
        let start = Instant::now();
        for _ in 0..batches {
            for point in &mut points {
                point.timestamp += STEP * 1_000;
            }
            engine.write(None, &points).expect("there is room");
        }
        (batches * 1_000) as f64 / start.elapsed().as_secs_f64() / 1e6
    };
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        alone.push(write());
        let others = others();
        beside.push(write());
        drop(others);
    }
    let [alone, beside] = [alone, beside].map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    });
    compare("ingest, median, 500 spin and 499 are parked", "M points/s", alone, beside);
    Ok(())
}

fn stopping(host: &Host, runtime: &tokio::runtime::Runtime, spin: &Module, times: usize) -> Vec<Duration> {
    let stop = |_| {
        let spinner = Others::start(host, runtime, (spin, 1), (spin, 0));
        let start = Instant::now();
        drop(spinner);
        start.elapsed()
    };
    (0..times).map(stop).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let (spinning, parked) = (size(500, 5), size(499, 5));
    let (rounds, events) = (size(5, 1), size(400, 5));
    let host = Host::new(HostOptions::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (answer, spin) = (compile(&host, "answer", ANSWER)?, compile(&host, "spin", SPIN)?);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (engine, _) = Engine::open(Arc::new(OsVfs), Arc::new(SystemClock), dir.path(), Options::default())?;
    let engine = Arc::new(engine);
    let busy = Busy::start(&host, &answer, &engine)?;

    let crowd = |spins, parks| Others::start(&host, &runtime, (&spin, spins), (&answer, parks));
    reaction("1 spins", &busy, rounds, events, &|| crowd(1, 0));
    reaction("500 spin and 499 are parked", &busy, rounds, events, &|| crowd(spinning, parked));
    ingest(&engine, rounds, size(2_000, 2), &|| crowd(spinning, parked))?;

    let mut times = stopping(&host, &runtime, &spin, size(100, 2));
    tell(
        "a spinner is stopped, alone, p50 and p99",
        format!("{:?} {:?}", percentile(&mut times, 50), percentile(&mut times, 99)),
    );
    let others = crowd(spinning, parked);
    let mut times = stopping(&host, &runtime, &spin, size(100, 2));
    tell("the same beside 500 spinners", format!("{:?} {:?}", percentile(&mut times, 50), percentile(&mut times, 99)));
    drop(others);

    let others = crowd(0, size(999, 5));
    // What starting them has left behind is done by then.
    thread::sleep(Duration::from_millis(size(2_000, 1) as u64));
    let begin = Instant::now();
    let before = Spent::since(begin)?;
    thread::sleep(Duration::from_millis(size(5_000, 10) as u64));
    let spent = Spent::since(begin)? - before;
    tell(
        "999 are parked",
        format!("{:.2} % of a processor", 100.0 * spent.cpu.as_secs_f64() / spent.wall.as_secs_f64()),
    );
    drop(others);
    Ok(())
}
