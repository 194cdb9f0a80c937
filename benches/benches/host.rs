//! Workflows: what it costs to cross the border, to start, and to answer an event that comes while everything sleeps.
//!
//! The guests are written in the text format, so that what is measured is the host: `allocate` adds to a pointer, and
//! nothing is parsed.

use std::error::Error;
use std::fs;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, mpsc};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use slung_abi::EventRef;
use slung_benches::{Random, key};
use slung_engine::{Engine, Options};
use slung_host::{
    BoxFuture, Host, HostOptions, HttpMethod, Module, NewEvent, Refusal, StartOptions, State, Workflow, World,
};
use slung_live::{HandleId, Subscriber};
use slung_model::{Point, ProducerId, Query, SystemClock};
use slung_store::OsVfs;
use tokio::runtime::Runtime;

// The server's own, which is a binary.
#[path = "../../crates/server/src/event.rs"]
#[expect(dead_code, reason = "here only what workflows get is measured")]
mod event;

/// What all guests have. At 16 the Region of a query, which is also what they say to a producer.
const GUEST: &str = r#"
    (import "env" "u_query_live" (func $query_live (param i32) (result i64)))
    (import "env" "u_query_history" (func $query_history (param i32) (result f64)))
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

/// Registers a query, which has the handle 1, then does `$round` as often as the answer to its second call says, then
/// answers producer 0.
const ROUNDS: &str = r#"
    (func (export "call") (result i32)
        (local $left i64)
        (drop (call $query_live (i32.const 16)))
        (local.set $left (i64.trunc_f64_u (call $query_history (i32.const 16))))
        (loop $again
            (call $round)
            (local.set $left (i64.sub (local.get $left) (i64.const 1)))
            (br_if $again (i64.ne (local.get $left) (i64.const 0))))
        (call $writeback_ws (i64.const 0) (i32.const 16)))"#;

const CALL_ROUND: &str = "(func $round (drop (call $writeback_ws (i64.const 7) (i32.const 16))))";

const POLL_ROUND: &str = "(func $round
        (if (i32.eqz (call $poll_handle (i64.const 1))) (then unreachable))
        (global.set $free (i32.const 1024)))";

/// Answers every event, for ever.
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

fn compile(host: &Host, name: &str, parts: &[&str]) -> Result<Module, Box<dyn Error>> {
    let guest = wat::parse_str(format!("(module {GUEST} {})", parts.join("\n")))?;
    Ok(host.compile(name, &guest)?)
}

/// A world that always has the same event, and looks at the clock when the guest first calls, when its rounds begin, and
/// when they are done.
struct Stopwatch {
    rounds: u64,
    event: Arc<[u8]>,
    called: OnceLock<Instant>,
    begun: OnceLock<Instant>,
    ended: OnceLock<Instant>,
}

impl Stopwatch {
    fn new(rounds: u64) -> Arc<Self> {
        let tags = ["env=prod", "host=h-0", "service=db"];
        let event = EventRef {
            timestamp: 1_700_000_000_000_000,
            value: 48.736_159_204_816_3,
            tags: &tags[..],
            producers: &[7_u64][..],
            sum: Some(4_873.615_920_481_63),
            count: Some(100),
        };
        let event = serde_json::to_vec(&event).expect("finite numbers have a JSON form").into();
        let [called, begun, ended] = Default::default();
        Arc::new(Self { rounds, event, called, begun, ended })
    }
}

impl World for Stopwatch {
    fn history(&self, _: &str) -> BoxFuture<'_, Result<f64, Refusal>> {
        let _ = self.begun.set(Instant::now());
        Box::pin(std::future::ready(Ok(self.rounds as f64)))
    }
    fn writeback_ws(&self, producer: u64, _: &[u8]) -> Result<(), Refusal> {
        if producer == 0 {
            let _ = self.ended.set(Instant::now());
        }
        Ok(())
    }
    fn try_next(&self, _: u64, event: &mut Vec<u8>) -> Option<i64> {
        event.extend_from_slice(&self.event);
        Some(0)
    }
    fn now_micros(&self) -> i64 {
        0
    }
    fn subscribe(&self, _: &str) -> BoxFuture<'_, Result<u64, Refusal>> {
        let _ = self.called.set(Instant::now());
        Box::pin(std::future::ready(Ok(1)))
    }
    fn free(&self, _: u64) -> bool {
        true
    }
    fn has_waiting(&self, _: u64) -> bool {
        true
    }
    fn arrivals(&self) -> u64 {
        0
    }
    fn wake_on_arrival(&self, _: &Waker) {}
    fn write(&self, _: NewEvent<'_>) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn writeback_http(&self, _: HttpMethod, _: &str, _: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, Refusal>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

fn start(host: &Host, module: &Module, world: Arc<dyn World>) -> Workflow {
    // It is to call as often as it can.
    let options =
        StartOptions { name: "bench".into(), host_calls_per_second_max: NonZeroU32::MAX, ..StartOptions::default() };
    host.start(module, options, world)
}

/// One guest from its start to its end.
struct Run {
    to_first_call: Duration,
    rounds: Duration,
}

fn run(host: &Host, runtime: &Runtime, module: &Module, rounds: u64) -> Run {
    let world = Stopwatch::new(rounds);
    let started = Instant::now();
    let workflow = start(host, module, world.clone());
    assert_eq!(runtime.block_on(workflow.wait()), State::Done);
    let moments = [&world.called, &world.begun, &world.ended];
    let [called, begun, ended] = moments.map(|moment| *moment.get().expect("the guest has done all its calls"));
    Run { to_first_call: called - started, rounds: ended - begun }
}

fn border(criterion: &mut Criterion, host: &Host, runtime: &Runtime) -> Result<(), Box<dyn Error>> {
    let call = compile(host, "call", &[CALL_ROUND, ROUNDS])?;
    let poll = compile(host, "poll", &[POLL_ROUND, ROUNDS])?;
    let mut group = criterion.benchmark_group("guest");
    for (name, module) in [("synchronous_call", &call), ("poll_without_parsing", &poll)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| run(host, runtime, module, rounds).rounds);
        });
    }
    group.bench_function("start_to_first_call", |bencher| {
        bencher.iter_custom(|starts| (0..starts).map(|_| run(host, runtime, &call, 1).to_first_call).sum());
    });
    group.finish();
    Ok(())
}

/// The engine as one workflow's world, as the server has it.
struct Joined {
    engine: Arc<Engine>,
    subscriber: Arc<Subscriber>,
    answered: mpsc::Sender<Instant>,
    /// Updates that were taken, and whom to tell when a batch of them was.
    taken: AtomicU64,
    emptied: mpsc::Sender<Instant>,
}

impl Joined {
    fn new(engine: &Arc<Engine>) -> (Self, mpsc::Receiver<Instant>, mpsc::Receiver<Instant>) {
        let ((answered, answers), (emptied, ends)) = (mpsc::channel(), mpsc::channel());
        let (engine, subscriber) = (Arc::clone(engine), engine.subscriber());
        (Self { engine, subscriber, answered, taken: AtomicU64::new(0), emptied }, answers, ends)
    }
}

impl World for Joined {
    fn subscribe(&self, query: &str) -> BoxFuture<'_, Result<u64, Refusal>> {
        let refused = |error: &dyn std::fmt::Display| Refusal(error.to_string());
        let query = Query::parse(query).map_err(|error| refused(&error));
        let handle =
            query.and_then(|query| self.engine.subscribe(&self.subscriber, &query).map_err(|error| refused(&error)));
        Box::pin(std::future::ready(handle.map(HandleId::get)))
    }
    fn try_next(&self, id: u64, event: &mut Vec<u8>) -> Option<i64> {
        let update = self.subscriber.try_next(HandleId::new(id)?)?;
        event::write(&update, event);
        if (self.taken.fetch_add(1, Relaxed) + 1).is_multiple_of(BATCH_EVENTS) {
            // Nobody asks when single events are measured.
            let _ = self.emptied.send(Instant::now());
        }
        Some(update.arrived)
    }
    fn now_micros(&self) -> i64 {
        self.engine.now_micros()
    }
    fn has_waiting(&self, id: u64) -> bool {
        HandleId::new(id).is_some_and(|handle| self.subscriber.has_waiting(handle))
    }
    fn arrivals(&self) -> u64 {
        self.subscriber.arrivals()
    }
    fn wake_on_arrival(&self, waker: &Waker) {
        self.subscriber.wake_on_arrival(waker);
    }
    fn writeback_ws(&self, _: u64, _: &[u8]) -> Result<(), Refusal> {
        self.answered.send(Instant::now()).map_err(|error| Refusal(error.to_string()))
    }
    fn free(&self, id: u64) -> bool {
        HandleId::new(id).is_some_and(|handle| self.engine.unsubscribe(&self.subscriber, handle))
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

/// From `Engine::write` of one event to the workflow's answer. The time of a sample is the median of its events.
fn reaction(criterion: &mut Criterion, host: &Host, runtime: &Runtime) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (engine, _) = Engine::open(Arc::new(OsVfs), Arc::new(SystemClock), dir.path(), Options::default())?;
    let engine = Arc::new(engine);
    let series = engine.resolve(&key(0))?;
    let (world, answers, _ends) = Joined::new(&engine);
    let module = compile(host, "answer", &[ANSWER])?;
    let workflow = start(host, &module, Arc::new(world));
    let wait_asleep = |sleeps| {
        while workflow.stats().sleeps <= sleeps {
            thread::yield_now();
        }
    };
    wait_asleep(0);
    let react = |pause: Duration| {
        thread::sleep(pause);
        let sleeps = workflow.stats().sleeps;
        let point = Point { series, timestamp: engine.now_micros(), value: 21.5 };
        let start = Instant::now();
        engine.write(ProducerId::new(7), &[point]).expect("there is room");
        let took = answers.recv().expect("the guest answers") - start;
        wait_asleep(sleeps);
        took
    };
    let mut group = criterion.benchmark_group("event_to_writeback");
    // How long nothing happens between the answer and the next event: in a stream, the guest's thread has just gone to
    // sleep; after 10 ms the commit is done, and both processors may be asleep.
    // What criterion is told to take is without those pauses: with them it is some seconds.
    for (name, pause, time) in [("after_100_us", 100, 1_000), ("after_10_ms", 10_000, 20)] {
        let pause = Duration::from_micros(pause);
        group.sampling_mode(SamplingMode::Flat).sample_size(10);
        group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(time));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|events| {
                let mut times: Vec<Duration> = (0..events).map(|_| react(pause)).collect();
                times.sort();
                times[times.len() / 2].mul_f64(events as f64)
            });
        });
    }
    group.finish();
    workflow.stop();
    assert_eq!(runtime.block_on(workflow.wait()), State::Stopped);
    Ok(())
}

/// Events of one batch, which wait in the queue until the guest has taken them: fewer than it holds.
const BATCH_EVENTS: u64 = 1_000;

/// The whole way of an event, one part after the other, as if there were one core: written, put into the queue, made JSON,
/// given to a guest that parses it (serde_json, as in all workflows in Rust) and compares a number.
fn parsing(criterion: &mut Criterion, host: &Host, runtime: &Runtime) -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (engine, _) = Engine::open(Arc::new(OsVfs), Arc::new(SystemClock), dir.path(), Options::default())?;
    let engine = Arc::new(engine);
    let series = engine.resolve(&key(0))?;
    let (world, _answers, ends) = Joined::new(&engine);
    let subscriber = Arc::clone(&world.subscriber);
    let module = host.compile("threshold-alert", &fs::read(slung_benches::workflow("threshold-alert")?)?)?;
    // Nothing is below that, so that it never answers.
    let env = [("ALERT_QUERY", "AVG:cpu.total:[]"), ("ALERT_BELOW", "-1")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let options = StartOptions { name: "bench".into(), env, ..StartOptions::default() };
    let workflow = host.start(&module, options, Arc::new(world));
    while workflow.stats().sleeps == 0 {
        thread::yield_now();
    }
    let mut random = Random::default();
    let mut timestamp = engine.now_micros();
    let mut batch = || {
        let point = |_| {
            timestamp += 1;
            Point { series, timestamp, value: random.value() }
        };
        let points: Vec<Point> = (0..BATCH_EVENTS).map(point).collect();
        let start = Instant::now();
        engine.write(ProducerId::new(7), &points).expect("there is room");
        let written = Instant::now();
        let end = ends.recv().expect("the guest takes all of them");
        (end - start, end.saturating_duration_since(written))
    };
    let mut group = criterion.benchmark_group("1k_events_parsed");
    group.throughput(Throughput::Elements(BATCH_EVENTS));
    group.bench_function("written_and_parsed", |bencher| {
        bencher.iter_custom(|batches| (0..batches).map(|_| batch().0).sum());
    });
    group.bench_function("from_the_queue_on", |bencher| {
        bencher.iter_custom(|batches| (0..batches).map(|_| batch().1).sum());
    });
    group.finish();
    let missing = subscriber.stats().merged;
    workflow.stop();
    assert_eq!((runtime.block_on(workflow.wait()), missing), (State::Stopped, 0));
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    // Half of criterion's own 8 seconds each: on a shared machine several short runs tell more than a long one.
    let criterion = Criterion::default().without_plots().warm_up_time(Duration::from_secs(1));
    let mut criterion = criterion.measurement_time(Duration::from_secs(3)).configure_from_args();
    let host = Host::new(HostOptions::default())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    // These compute all the time, and would be moved to the lowest priority, where others on the machine are measured, too.
    let steady = Host::new(HostOptions { epoch_tick_ms: 60_000, ..HostOptions::default() })?;
    border(&mut criterion, &steady, &runtime)?;
    parsing(&mut criterion, &steady, &runtime)?;
    reaction(&mut criterion, &host, &runtime)?;
    criterion.final_summary();
    Ok(())
}
