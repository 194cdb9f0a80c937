//! What can be set, with unit, default and reason.

use std::fmt;
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use slung_abi::limits;

/// Bytes of each stack that a guest runs on beside those for the guest's own code: enough for the host function that the
/// deepest guest function calls.
pub(crate) const HOST_STACK_BYTES: usize = 512 * 1024;
/// With less not even a compiler's start-up code gets through.
const WASM_STACK_BYTES_MIN: usize = 16 * 1024;
/// More than any program needs, and little enough that ten thousand such stacks still have addresses.
const WASM_STACK_BYTES_MOST: usize = 1024 * 1024 * 1024;
/// Tables of one guest: compilers make one.
pub(crate) const TABLES_MAX: usize = 4;
/// Bytes of a guest's memory that one WASI call may make the host copy or look at: enough for any honest `poll_oneoff`
/// and `random_get`, and done in a few milliseconds, in which the thread is held.
pub(crate) const WASI_CALL_BYTES_MAX: usize = 1024 * 1024;

/// Options of a [`Host`](crate::Host), the same for all of its workflows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// Threads that run guests, and again as many of the lowest priority for those that compute for long in one go; by default one
    /// for each processor.
    pub worker_threads: NonZeroUsize,
    /// A guest that computes for two to three times of this in one go is moved to the threads of low priority, where each
    /// computes for so long in turn, milliseconds, at least 1; by default 1. Longer costs less (0.1 % at 1) and makes guests
    /// beside a busy one wait longer.
    pub epoch_tick_ms: u64,
    /// The longest that `u_poll_handle` sleeps when nothing arrives, milliseconds, at least 1; by default 1,000.
    pub poll_sleep_ms_max: u64,
    /// Linear memory of one workflow, bytes; by default 64 MiB. A module that starts with more is refused, growing over
    /// it fails.
    pub memory_bytes_max: usize,
    /// Stack of one workflow's own code, bytes, from 16 KiB to 1 GiB; by default 512 KiB, half of what a thread usually has and
    /// many times of what programs without deep recursion need. Beyond it the workflow traps. So much address space is taken
    /// for each that runs, and 512 KiB more for the host's functions; memory only as far as it is touched.
    pub wasm_stack_bytes_max: usize,
    /// Elements of one table of a workflow; by default 100,000 (a function pointer each; the largest programs have tens
    /// of thousands).
    pub table_elements_max: usize,
    /// Size of a module, bytes; by default 10 MiB, which compiles in a few seconds. Larger ones are refused.
    pub module_bytes_max: usize,
    /// Where what was compiled is kept, an absolute path, so that the same module is there in a millisecond the next time; by
    /// default nowhere. Nobody else may be able to write there: what lies there is run. It is bounded by wasmtime, to 512 MiB.
    pub cache_dir: Option<PathBuf>,
    /// Live queries that a workflow may have at a time; by default [`limits::HANDLES_MAX`].
    pub handles_max: usize,
    /// Lines of a workflow that are kept, to be logged and to be read; by default 1,000: some screens of what came before a
    /// failure. When there are more, the oldest go.
    pub log_lines_max: usize,
    /// Bytes of the lines of a workflow that are kept; by default 256 KiB: 1,000 lines of more than the usual length, and
    /// 256 MiB for 1,000 workflows that all talk a lot. When there are more, the oldest go.
    pub log_bytes_max: usize,
    /// Bytes of a line that a workflow prints; by default 4,096. What is longer is cut.
    pub log_line_bytes_max: usize,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            worker_threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            epoch_tick_ms: 1,
            poll_sleep_ms_max: limits::POLL_SLEEP_MS_MAX,
            memory_bytes_max: 64 * 1024 * 1024,
            wasm_stack_bytes_max: 512 * 1024,
            table_elements_max: 100_000,
            module_bytes_max: 10 * 1024 * 1024,
            cache_dir: None,
            handles_max: limits::HANDLES_MAX,
            log_lines_max: 1_000,
            log_bytes_max: 256 * 1024,
            log_line_bytes_max: 4_096,
        }
    }
}

impl HostOptions {
    /// What can't be, with the option's name.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (least, most, given) = (WASM_STACK_BYTES_MIN, WASM_STACK_BYTES_MOST, self.wasm_stack_bytes_max);
        if (least..=most).contains(&given) {
            return Ok(());
        }
        Err(format!("wasm_stack_bytes_max = {given}: from {least} to {most} bytes"))
    }

    pub(crate) fn tick(&self) -> Duration {
        Duration::from_millis(self.epoch_tick_ms.max(1))
    }
}

/// What a single workflow is started with.
///
/// [`Debug`](fmt::Debug) shows neither names nor values of its environment.
#[derive(Clone, PartialEq, Eq)]
pub struct StartOptions {
    /// What the log and the operator call it.
    pub name: String,
    /// Its environment, all of it; by default empty. Neither names nor values are logged.
    pub env: Vec<(String, String)>,
    /// Its arguments; by default none. The first one is by custom the program's name.
    pub args: Vec<String>,
    /// Linear memory that it may have, bytes; by default, and where this is more, what
    /// [`HostOptions::memory_bytes_max`] says. One that starts with more can't be started.
    pub memory_bytes_max: Option<usize>,
    /// Live queries that it may have at a time; by default, and where this is more, what [`HostOptions::handles_max`] says.
    pub handles_max: Option<usize>,
    /// Events that it may write in a second, at least 1, and as many at once after a second without any; by default
    /// 10,000: many more than alerts and derived series come to, and no more than some 3.5 GB of points a day, at 4 bytes
    /// each, from one that runs away. What is beyond that is refused to the workflow, not queued.
    pub writes_per_second_max: NonZeroU32,
    /// HTTP requests that it may make in a second, at least 1, and as many at once after a second without any; by
    /// default 10, which no receiver of alerts takes for an attack. What is beyond that is refused to the workflow, not
    /// queued. A workflow waits for each of its requests, so there is never more than one of it at a time.
    pub http_calls_per_second_max: NonZeroU32,
    /// Calls of the seven host functions in a second, at least 1, and as many at once after a second without any; by default
    /// 5,000,000, which no workflow comes to that does anything with what it is told: a poll alone takes 0.3 µs. It is looked at
    /// about once a millisecond; a workflow that was faster is paused until it is at this rate again.
    pub host_calls_per_second_max: NonZeroU32,
    /// How long it waits for a live query to be registered, for history, for a write and for an HTTP response, milliseconds,
    /// at least 1; by default 30,000: three times of what an HTTP request may take, and longer than any question to history that
    /// somebody waits for. Then the call fails, and the workflow goes on.
    pub host_call_ms_max: NonZeroU32,
    /// Its share of the processors, percent of one of them, from 1 to 100 (what is above is 100); by default 100, which is
    /// all that it can take, as it is one thread: others are not held up by it in any case. A workflow that is over its share, by
    /// more than 100 ms of rest have brought, is paused.
    pub processor_share_max: NonZeroU8,
    /// How long it may compute without calling one of the seven host functions, milliseconds of processor time, at least
    /// 1; by default 2,000. What takes longer does not come to an end by itself, most likely, and is ended as a trap.
    pub compute_ms_max: NonZeroU32,
    /// Bytes that it may print in a second, at least 1, and as many at once after a second without any; by default 64 KiB:
    /// hundreds of lines, more than anybody reads, and no more than some 5.7 GB of log a day from one that runs away. A line
    /// counts as it is logged, and 64 bytes more. What is beyond that is dropped and counted, and a line says how much that
    /// was, at most one a second. What the host says of it is not held to this.
    pub log_bytes_per_second_max: NonZeroU32,
}

impl fmt::Debug for StartOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartOptions").field("name", &self.name).field("args", &self.args).finish_non_exhaustive()
    }
}

impl Default for StartOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            env: Vec::new(),
            args: Vec::new(),
            memory_bytes_max: None,
            handles_max: None,
            writes_per_second_max: NonZeroU32::new(10_000).expect("10,000 is not 0"),
            http_calls_per_second_max: NonZeroU32::new(10).expect("10 is not 0"),
            host_calls_per_second_max: NonZeroU32::new(5_000_000).expect("5,000,000 is not 0"),
            host_call_ms_max: NonZeroU32::new(30_000).expect("30,000 is not 0"),
            processor_share_max: NonZeroU8::new(100).expect("100 is not 0"),
            compute_ms_max: NonZeroU32::new(2_000).expect("2,000 is not 0"),
            log_bytes_per_second_max: NonZeroU32::new(64 * 1024).expect("65,536 is not 0"),
        }
    }
}
