//! Hostile modules, as tables: what each does, what has to become of it, and what of it is counted and logged. Beside each one
//! runs a neighbour that behaves, on the only thread, and has to answer an event afterwards.

mod border;
mod compile;
mod floods;
mod loops;
mod refused;

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use slung_abi::FUNCTIONS;
use slung_host::{Host, HostOptions, Log, StartOptions, State, Stats, Workflow};

use crate::fake::{Fake, LONG};
use crate::fixture::{guest, options, text, wait};

/// How long a module that never ends is left running: twice what it may compute without a host function.
const WATCHED: Duration = Duration::from_millis(60);
/// Bytes of a line of the log.
const LINE_BYTES_MAX: usize = 200;

/// A hostile module.
struct Row {
    /// What it does.
    does: &'static str,
    module: Vec<u8>,
    /// What becomes of it: a part of its last state, or of the error with which it is refused. `stopped`: it runs for as long
    /// as it is let.
    outcome: &'static str,
    /// What has to be counted at least, see [`counted`].
    counts: Vec<(&'static str, u64)>,
    /// Parts of lines of its log, or of the error with which it is refused.
    logs: Vec<&'static str>,
}

impl Row {
    fn new(does: &'static str, module: Vec<u8>, outcome: &'static str) -> Self {
        Self { does, module, outcome, counts: Vec::new(), logs: Vec::new() }
    }

    fn counts(mut self, what: &'static str, at_least: u64) -> Self {
        self.counts.push((what, at_least));
        self
    }

    fn logs(mut self, part: &'static str) -> Self {
        self.logs.push(part);
        self
    }

    fn runs_for_ever(&self) -> bool {
        self.outcome == "stopped"
    }
}

/// A number of the statistics by its name here; the calls of a host function are `NAME ok` and `NAME failed`.
fn counted(stats: &Stats, what: &str) -> u64 {
    match what {
        "events" => stats.events,
        "sleeps" => stats.sleeps,
        "memory bytes" => stats.memory_bytes_max,
        "writes refused" => stats.writes_refused,
        "requests refused" => stats.http_calls_refused,
        "log lines dropped" => stats.log_lines_dropped,
        _ => {
            let (name, how) = what.split_once(' ').expect("a function and `ok` or `failed`");
            let import = FUNCTIONS.iter().find(|import| import.name == name).expect("a function of the host");
            let calls = stats.calls[import.function.index()];
            if how == "ok" { calls.ok } else { calls.failed }
        }
    }
}

/// `(func (export "call") ...)` with this body, which may fall through.
fn call(body: &str) -> String {
    format!(r#"(func $call (export "call") (result i32) {body} (i32.const 0))"#)
}

/// A guest that does this when it is called.
fn calling(body: &str) -> Vec<u8> {
    guest(&call(body))
}

/// Small, so that each limit is met at once; one thread, so that who holds it holds up everybody.
fn small() -> HostOptions {
    HostOptions {
        worker_threads: NonZeroUsize::MIN,
        memory_bytes_max: 4 << 20,
        table_elements_max: 1_000,
        module_bytes_max: 512 * 1024,
        handles_max: 4,
        log_lines_max: 100,
        log_line_bytes_max: LINE_BYTES_MAX,
        ..options()
    }
}

fn start_options() -> StartOptions {
    let number = |number| NonZeroU32::new(number).expect("it is not 0");
    StartOptions {
        name: "hostile".to_owned(),
        args: vec!["hostile".to_owned()],
        writes_per_second_max: number(10),
        compute_ms_max: number(30),
        log_bytes_per_second_max: number(2_000),
        ..StartOptions::default()
    }
}

/// Says 0, and then 1 for each event.
struct Neighbour {
    world: Arc<Fake>,
    workflow: Workflow,
    answers: usize,
}

impl Neighbour {
    fn start(host: &Host) -> Self {
        let answers = guest(&format!(
            r#"{} (func (export "call") (result i32)
                (drop (call $query_live (i32.const 100)))
                (call $say (i64.const 0))
                (loop $forever
                    (if (call $poll (i64.const 1)) (then (call $say (i64.const 1))))
                    (br $forever))
                unreachable)"#,
            text(100, "temp:[]")
        ));
        let module = host.compile("neighbour", &answers).expect("it is well-behaved");
        let world = Fake::new();
        let workflow = host.start(&module, StartOptions::default(), world.clone());
        world.wait_said(1);
        Self { world, workflow, answers: 1 }
    }

    /// Sends it an event and waits for the answer; how long that took.
    fn answer(&mut self) -> Duration {
        let start = Instant::now();
        self.world.push(1_001, "{}");
        self.answers += 1;
        self.world.wait_said(self.answers);
        start.elapsed()
    }
}

/// Lets a module do what it does, and the neighbour answer beside it or after it. `Err` says what is not as the row says.
fn run(host: &Host, row: &Row, neighbour: &mut Neighbour) -> Result<(), String> {
    let module = match host.compile(row.does, &row.module) {
        Ok(module) => module,
        Err(error) => {
            neighbour.answer();
            let shown = error.to_string();
            let good = row.logs.iter().chain([&row.outcome]).all(|part| shown.contains(part));
            return if good { Ok(()) } else { Err(shown) };
        }
    };
    let world = Fake::forgetful();
    world.preload(&["{}"; 3]);
    let workflow = host.start(&module, start_options(), world);
    let start = Instant::now();
    if row.runs_for_ever() {
        let there = |stats: &Stats| row.counts.iter().all(|(what, least)| counted(stats, what) >= *least);
        while start.elapsed() < WATCHED || (!there(&workflow.stats()) && start.elapsed() < LONG) {
            std::thread::sleep(Duration::from_millis(1));
            if workflow.state().is_final() {
                break;
            }
        }
    } else {
        wait(&workflow);
    }
    neighbour.answer();
    workflow.stop();
    let (state, stats, log) = (wait(&workflow), workflow.stats(), workflow.log());
    compare(row, &state, &stats, &log)
}

fn compare(row: &Row, state: &State, stats: &Stats, log: &Log) -> Result<(), String> {
    if !state.to_string().contains(row.outcome) {
        return Err(state.to_string());
    }
    let short = row.counts.iter().find(|(what, least)| counted(stats, what) < *least);
    if let Some((what, _)) = short {
        return Err(format!("{what}: {}", counted(stats, what)));
    }
    let lines = log.lines(0, usize::MAX).lines;
    if let Some(part) = row.logs.iter().find(|part| !lines.iter().any(|line| line.text.contains(**part))) {
        return Err(format!("{part:?} is not in {lines:#?}"));
    }
    let wrong = |text: &str| text.contains(char::is_control) || text.len() > LINE_BYTES_MAX + '…'.len_utf8();
    match lines.iter().find(|line| wrong(&line.text)) {
        Some(line) => Err(format!("logged: {:?}", line.text)),
        None => Ok(()),
    }
}

/// Lets all of a table run in one host, beside one neighbour.
fn check(rows: Vec<Row>) {
    let host = Host::new(small()).expect("a host");
    let mut neighbour = Neighbour::start(&host);
    let mut wrong = Vec::new();
    for row in &rows {
        if let Err(found) = run(&host, row, &mut neighbour) {
            wrong.push(format!("{}\n  expected: {}, {:?}\n  found: {found}", row.does, row.outcome, row.counts));
        }
        assert_eq!(neighbour.workflow.state(), State::Running, "{}: it took the neighbour with it", row.does);
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    host.close();
}

#[test]
fn modules_that_are_refused() {
    check(refused::rows());
}

#[test]
fn modules_that_are_hard_to_compile() {
    check(compile::rows());
}

#[test]
fn modules_that_never_come_back_or_end_badly() {
    check(loops::rows());
}

#[test]
fn modules_that_lie_at_the_border() {
    check(border::rows());
}

#[test]
fn modules_that_ask_and_print_without_end() {
    check(floods::rows());
}

/// Events before a module is started, and beside it.
const EVENTS: usize = 300;
/// What no module may make of the 99th percentile: far above what a loaded machine makes of it.
const GROSS: Duration = Duration::from_millis(250);

/// Median and 99th percentile of the neighbour's answers to that many events, a millisecond apart.
fn measured(neighbour: &mut Neighbour) -> [Duration; 2] {
    let mut took: Vec<Duration> = (0..EVENTS)
        .map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            neighbour.answer()
        })
        .collect();
    took.sort_unstable();
    [took[EVENTS / 2], took[EVENTS * 99 / 100]]
}

/// Runs the module, again and again where it ends, until it is told that it is enough.
fn run_on(host: &Host, row: &Row, enough: &AtomicBool) {
    let Ok(module) = host.compile(row.does, &row.module) else { return };
    while !enough.load(Ordering::Relaxed) {
        let world = Fake::forgetful();
        world.preload(&["{}"; 3]);
        let start = StartOptions { name: "hostile".to_owned(), ..StartOptions::default() };
        let workflow = host.start(&module, start, world);
        while !workflow.state().is_final() && !enough.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        workflow.stop();
        wait(&workflow);
    }
}

/// With the limits and the threads that a server has.
#[test]
#[ignore = "measures time for minutes; part of `cargo xtask test --long`"]
fn what_each_module_does_to_the_neighbour() {
    println!("from event to answer, us        before: p50     p99   beside it: p50     p99");
    let mut gross = Vec::new();
    for row in [loops::rows(), border::rows(), floods::rows()].into_iter().flatten() {
        let host = Host::new(HostOptions::default()).expect("a host");
        let mut neighbour = Neighbour::start(&host);
        let before = measured(&mut neighbour);
        let enough = AtomicBool::new(false);
        let beside = std::thread::scope(|scope| {
            scope.spawn(|| run_on(&host, &row, &enough));
            let beside = measured(&mut neighbour);
            enough.store(true, Ordering::Relaxed);
            beside
        });
        let [a, b, c, d] = [before[0], before[1], beside[0], beside[1]].map(|took| took.as_micros());
        println!("{:<39.39} {a:>6} {b:>7} {c:>16} {d:>7}", row.does);
        if beside[1] > before[1] + GROSS {
            gross.push(row.does);
        }
    }
    assert!(gross.is_empty(), "{gross:?}");
}
