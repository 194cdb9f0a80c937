//! What can be set, with unit, default and reason.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use slung_abi::limits;

/// Bytes of stack that a guest's own code may use: below [`ASYNC_STACK_BYTES`], so that what is left is enough for the
/// host function that the deepest guest function calls.
pub(crate) const WASM_STACK_BYTES_MAX: usize = 512 * 1024;
/// Bytes of address space of each stack that a guest runs on; only what is touched takes memory.
pub(crate) const ASYNC_STACK_BYTES: usize = 1024 * 1024;
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
    /// A guest that computes for longer than this and twice this in one go is moved to the threads of low priority, where each
    /// computes for so long in turn, milliseconds, at least 1; by default 1. Longer costs less (0.1 % at 1) and makes guests
    /// beside a busy one wait longer.
    pub epoch_tick_ms: u64,
    /// The longest that `u_poll_handle` sleeps when nothing arrives, milliseconds, at least 1; by default 1,000.
    pub poll_sleep_ms_max: u64,
    /// Linear memory of one workflow, bytes; by default 64 MiB. A module that starts with more is refused, growing over
    /// it fails.
    pub memory_bytes_max: usize,
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
    /// Lines that a workflow has said or caused and that wait to be logged; by default 256. They are logged at least 100
    /// ms apart, so this is also the most that one can put into the log in that time. When it is full, the oldest go.
    pub log_lines_max: usize,
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
            table_elements_max: 100_000,
            module_bytes_max: 10 * 1024 * 1024,
            cache_dir: None,
            handles_max: limits::HANDLES_MAX,
            log_lines_max: 256,
            log_line_bytes_max: 4_096,
        }
    }
}

impl HostOptions {
    pub(crate) fn tick(&self) -> Duration {
        Duration::from_millis(self.epoch_tick_ms.max(1))
    }
}

/// What a single workflow is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartOptions {
    /// What the log and the operator call it.
    pub name: String,
    /// Its environment, all of it; by default empty. Neither names nor values are logged.
    pub env: Vec<(String, String)>,
    /// Its arguments; by default none. The first one is by custom the program's name.
    pub args: Vec<String>,
    /// Events that it may write in a second, at least 1, and as many at once after a second without any; by default
    /// 10,000: many more than alerts and derived series come to, and no more than some 3.5 GB of points a day, at 4 bytes
    /// each, from one that runs away. What is beyond that is refused to the workflow, not queued.
    pub writes_per_second_max: NonZeroU32,
    /// HTTP requests that it may make in a second, at least 1, and as many at once after a second without any; by
    /// default 10, which no receiver of alerts takes for an attack. What is beyond that is refused to the workflow, not
    /// queued. A workflow waits for each of its requests, so there is never more than one of it at a time.
    pub http_calls_per_second_max: NonZeroU32,
    /// How long it may compute without calling one of the seven host functions, milliseconds of time on a thread, at least
    /// 1; by default 2,000. What takes longer does not come to an end by itself, most likely, and is ended as a trap.
    pub compute_ms_max: NonZeroU32,
}

impl Default for StartOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            env: Vec::new(),
            args: Vec::new(),
            writes_per_second_max: NonZeroU32::new(10_000).expect("10,000 is not 0"),
            http_calls_per_second_max: NonZeroU32::new(10).expect("10 is not 0"),
            compute_ms_max: NonZeroU32::new(2_000).expect("2,000 is not 0"),
        }
    }
}
