//! Guests as text, hosts to run them, and the log lines that come of it.

use std::collections::HashMap;
use std::fmt::Write;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use slung_host::{Host, HostOptions, StartOptions, State, Stats, Workflow};
use tracing::field::{Field, Visit};
use tracing::span;

use crate::fake::{Fake, LONG};

/// All imports, a memory of two pages, `$say` (tells the test a number) and the empty Region at 16 that it uses. Texts
/// go below 65,536, where `ALLOCATE` starts.
const PRELUDE: &str = r#"
    (import "env" "u_query_live" (func $query_live (param i32) (result i64)))
    (import "env" "u_query_history" (func $query_history (param i32) (result f64)))
    (import "env" "u_poll_handle" (func $poll (param i64) (result i32)))
    (import "env" "u_free_handle" (func $free (param i64) (result i32)))
    (import "env" "u_write_event" (func $write_event (param i32 i32 i32) (result i32)))
    (import "env" "u_writeback_ws" (func $ws (param i64 i32) (result i32)))
    (import "env" "u_writeback_http" (func $http (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (func $say (param i64) (drop (call $ws (local.get 0) (i32.const 16))))
    (func $say32 (param i32) (call $say (i64.extend_i32_u (local.get 0))))"#;

/// Never frees, and has no end but the memory's. `$given` counts, `$next` is the next address.
const ALLOCATE: &str = r#"
    (global $next (mut i32) (i32.const 65536))
    (func $allocate (export "allocate") (param i32) (result i32) (local i32)
        (local.set 1 (global.get $next))
        (global.set $next (i32.add (local.get 1) (local.get 0)))
        (local.get 1))
    (func (export "deallocate") (param i32))"#;

/// A guest with these contents beside imports, memory and allocator.
pub(crate) fn guest(body: &str) -> Vec<u8> {
    guest_with(ALLOCATE, body)
}

/// A guest with an allocator of its own.
pub(crate) fn guest_with(allocate: &str, body: &str) -> Vec<u8> {
    parse(&format!("(module {PRELUDE} {allocate} {body})"))
}

/// A guest with further imports.
pub(crate) fn guest_importing(imports: &str, body: &str) -> Vec<u8> {
    parse(&format!("(module {imports} {PRELUDE} {ALLOCATE} {body})"))
}

pub(crate) fn parse(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A data segment with a Region of exactly these numbers at `at`.
pub(crate) fn region(at: u32, offset: u32, capacity: u32, length: u32) -> String {
    let bytes = slung_abi::Region { offset, capacity, length }.encode();
    format!("(data (i32.const {at}) \"{}\")", escaped(&bytes))
}

/// A data segment with a Region at `at`, and this text after it.
pub(crate) fn text(at: u32, text: impl AsRef<[u8]>) -> String {
    let text = text.as_ref();
    let length = text.len() as u32;
    format!("{} (data (i32.const {}) \"{}\")", region(at, at + 16, length, length), at + 16, escaped(text))
}

pub(crate) fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "\\{byte:02x}").expect("a String takes everything");
        text
    })
}

/// Small threads, short sleeps, everything else as by default.
pub(crate) fn options() -> HostOptions {
    let worker_threads = NonZeroUsize::new(2).expect("2 is not 0");
    HostOptions { worker_threads, poll_sleep_ms_max: 20, ..HostOptions::default() }
}

/// A workflow that runs in a host of its own.
pub(crate) struct Running {
    pub(crate) host: Host,
    pub(crate) world: Arc<Fake>,
    pub(crate) workflow: Workflow,
}

/// What is left of one.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) state: State,
    /// The numbers that it said.
    pub(crate) said: Vec<u64>,
    /// Its log lines, with level.
    pub(crate) lines: Vec<String>,
    pub(crate) stats: Stats,
    pub(crate) world: Arc<Fake>,
}

impl Ended {
    /// The log line that contains this; there has to be one.
    pub(crate) fn line(&self, part: &str) -> &str {
        let found = self.lines.iter().find(|line| line.contains(part));
        found.unwrap_or_else(|| panic!("no line contains {part:?}: {:#?}", self.lines))
    }
}

/// Starts a guest in an empty world.
pub(crate) fn start(bytes: &[u8]) -> Running {
    start_in(bytes, Fake::new(), options(), StartOptions::default())
}

/// Starts a guest; its name is made unique.
pub(crate) fn start_in(bytes: &[u8], world: Arc<Fake>, host: HostOptions, mut start: StartOptions) -> Running {
    capture();
    start.name = unique_name();
    let host = Host::new(host).expect("a host");
    let module = host.compile("test", bytes).unwrap_or_else(|error| panic!("{error}"));
    let workflow = host.start(&module, start, world.clone());
    Running { host, world, workflow }
}

impl Running {
    /// Waits for its end.
    pub(crate) fn end(self) -> Ended {
        let Self { host, world, workflow } = self;
        let state = wait(&workflow);
        let (name, stats) = (workflow.name().to_owned(), workflow.stats());
        host.close();
        let lines = LINES.get().map(|lines| {
            let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.get(&name).cloned().unwrap_or_default()
        });
        Ended { state, said: world.said(), lines: lines.unwrap_or_default(), stats, world }
    }
}

/// Runs a guest in an empty world to its end.
pub(crate) fn run(bytes: &[u8]) -> Ended {
    start(bytes).end()
}

/// Waits for the end of a workflow, not for ever.
pub(crate) fn wait(workflow: &Workflow) -> State {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let state = runtime.block_on(async { tokio::time::timeout(LONG, workflow.wait()).await });
    state.unwrap_or_else(|_| panic!("{} did not end", workflow.name()))
}

fn unique_name() -> String {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    format!("workflow-{}", COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

/// The log lines of all tests, by workflow.
static LINES: OnceLock<Mutex<HashMap<String, Vec<String>>>> = OnceLock::new();

fn capture() {
    LINES.get_or_init(|| {
        tracing::subscriber::set_global_default(Capture).expect("nobody else sets it");
        Mutex::default()
    });
}

struct Capture;

#[derive(Default)]
struct Fields {
    workflow: String,
    from: String,
    message: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "workflow" => value.clone_into(&mut self.workflow),
            "from" => value.clone_into(&mut self.from),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

impl tracing::Subscriber for Capture {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "workflow" && metadata.is_event()
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = format!("{} {}: {}", event.metadata().level(), fields.from, fields.message);
        let lines = LINES.get_or_init(Mutex::default);
        lines.lock().unwrap_or_else(PoisonError::into_inner).entry(fields.workflow).or_default().push(line);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}
