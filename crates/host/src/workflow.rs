//! One running workflow: its life from instantiation to its end, and the handle to it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slung_abi::CallResult;
use tokio::sync::watch;
use wasmtime::{InstancePre, Store, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::check::Entry;
use crate::gate::{Gate, Relieved};
use crate::guest::Guest;
use crate::host::Core;
use crate::journal::{Journal, printable};
use crate::log::{Log, LogLevel};
use crate::options::WASI_CALL_BYTES_MAX;
use crate::pool::{Pool, Turn};
use crate::restarts::Failures;
use crate::stats::{Counters, Stats};

/// Bytes of a trap's message, or of a function's name, that are kept.
const MESSAGE_BYTES_MAX: usize = 400;
/// Functions of a trap's backtrace that are kept, innermost first.
const FRAMES_MAX: usize = 16;

/// Between two looks at whether a workflow has taken what waited for it.
const DRAIN_PAUSE_MIN: Duration = Duration::from_micros(100);
const DRAIN_PAUSE_MAX: Duration = Duration::from_millis(10);

/// What has become of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It runs, or is about to.
    Running,
    /// It has failed, and is started again after a pause.
    Restarting(Failure),
    /// It has done its work.
    Done,
    /// It was stopped, or the host was dropped.
    Stopped,
    /// It has ended otherwise, and is not started again.
    Failed(Failure),
}

impl State {
    /// Whether nothing will come of it any more.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Running | Self::Restarting(_))
    }
}

/// Why a workflow has failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// `call` answered 1.
    #[error("it returned an error")]
    Error,
    /// `call` answered 2.
    #[error("it panicked")]
    Panic,
    /// `call` answered a number that means nothing.
    #[error("`call` answered {0}, which is none of 0, 1 and 2")]
    Unknown(i32),
    /// It called `proc_exit` with another number than 0.
    #[error("it exited with status {0}")]
    Exit(i32),
    /// It trapped.
    #[error("{message}{}", Backtrace(functions))]
    Trap {
        /// What happened.
        message: String,
        /// Where, innermost function first: names, or numbers where the module has no names.
        functions: Vec<String>,
    },
    /// It could not be instantiated.
    #[error("it can't be started: {0}")]
    Start(String),
    /// The host itself is at fault.
    #[error("the host panicked in its place")]
    Host,
}

/// The backtrace in one line.
struct Backtrace<'a>(&'a [String]);

impl fmt::Display for Backtrace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, " (in {})", self.0.join(", called by "))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Restarting(failure) => write!(f, "failed: {failure}; it starts again"),
            Self::Done => f.write_str("done"),
            Self::Stopped => f.write_str("stopped"),
            Self::Failed(failure) => write!(f, "failed: {failure}"),
        }
    }
}

/// A workflow that was started. Dropping the handle leaves it running; clones are handles of the same.
#[derive(Debug, Clone)]
pub struct Workflow {
    pub(crate) name: String,
    pub(crate) counters: Arc<Counters>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) state: watch::Receiver<State>,
    pub(crate) stop: Arc<watch::Sender<bool>>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) turn: Arc<Turn>,
}

impl Workflow {
    /// What it was named when it was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What has become of it so far.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        self.counters.stats(self.journal.dropped())
    }

    /// What it and the host have said of late.
    pub fn log(&self) -> Log {
        Log { journal: Arc::clone(&self.journal) }
    }

    /// Ends it, wherever it is: in a loop, asleep, waiting for a host function, starting. Returns at once; it has ended
    /// a few milliseconds later, see [`wait`](Self::wait). One that has ended stays what it is.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        self.pool.hurry(&self.turn);
    }

    /// Waits until it polls for the first time, or has ended.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn first_poll(&self) {
        tokio::select! {
            () = self.gate.arrival() => {}
            _ = self.wait() => {}
        }
    }

    /// Lets it take what waits for it, and ends it then, or after that time. Nothing may arrive for it any more.
    ///
    /// # Errors
    /// It was ended in its work, and so much waited still.
    pub(crate) async fn drain(&self, waiting: impl Fn() -> usize, longest: Duration) -> Result<(), usize> {
        self.gate.close();
        let until = tokio::time::Instant::now() + longest;
        let mut pause = DRAIN_PAUSE_MIN;
        let drained = loop {
            let is_over = match self.state() {
                State::Running => false,
                // It has failed, and begins with nothing when its pause is over.
                State::Restarting(_) => true,
                ended => ended.is_final(),
            };
            // Asleep, it would stay so for up to a second. In this order: it wakes before it takes something.
            if is_over || (waiting() == 0 && self.counters.asleep.get() != 0) {
                break Ok(());
            }
            if tokio::time::Instant::now() >= until {
                // Its queues end with it.
                break Err(waiting());
            }
            // Its end is seen at once; that it has gone to sleep, at the next look.
            let _ = tokio::time::timeout(pause, self.wait()).await;
            pause = (pause * 2).min(DRAIN_PAUSE_MAX);
        };
        self.stop();
        self.wait().await;
        drained
    }

    /// Waits until it has ended, and says how. By then its instance and its [`World`](crate::World) are dropped and its
    /// last log line is on the way.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped; it may be called again, also after the end, from any runtime.
    pub async fn wait(&self) -> State {
        let mut state = self.state.clone();
        match state.wait_for(State::is_final).await {
            Ok(ended) => ended.clone(),
            Err(_) => self.state(), // not reached: the sender goes only after it has said how it ended
        }
    }
}

/// Says how a workflow ended, whatever ends its task.
pub(crate) struct Ending {
    pub(crate) gate: Arc<Gate>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) state: watch::Sender<State>,
    /// Kept so that the workflow can be stopped even if nobody holds its handle.
    pub(crate) _stop: Arc<watch::Sender<bool>>,
    /// Kept so that there are ticks and a log until the end is told.
    pub(crate) _core: Arc<Core>,
}

impl Ending {
    /// It is over.
    pub(crate) fn say(&self, state: State) {
        let level = match state {
            State::Failed(_) => LogLevel::Error,
            _ => LogLevel::Info,
        };
        self.journal.say(level, &state.to_string());
        self.state.send_replace(state);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.state.borrow().is_final() {
            let panicked = std::thread::panicking();
            self.say(if panicked { State::Failed(Failure::Host) } else { State::Stopped });
        }
    }
}

/// The task of a workflow: runs it until it ends or is stopped, and again where it fails and that is wanted.
pub(crate) async fn supervise(
    ending: Ending,
    mut stop: watch::Receiver<bool>,
    pre: InstancePre<Guest>,
    entry: Entry,
    counters: Arc<Counters>,
    guest: impl FnMut() -> Guest,
    failures: Option<Failures>,
) {
    let state = tokio::select! {
        biased;
        Ok(_) = stop.wait_for(|stop| *stop) => State::Stopped,
        state = run_again(&ending, pre, entry, &counters, guest, failures) => state,
    };
    // Store and world are gone by now.
    ending.say(state);
}

async fn run_again(
    ending: &Ending,
    pre: InstancePre<Guest>,
    entry: Entry,
    counters: &Counters,
    mut guest: impl FnMut() -> Guest,
    mut failures: Option<Failures>,
) -> State {
    loop {
        let guest = guest();
        let turn = Arc::clone(&guest.turn);
        let state = turn.timed(run(pre.clone(), entry, guest), counters).await;
        let (State::Failed(failure), Some(failures)) = (&state, &mut failures) else { return state };
        if !ending.gate.is_open() {
            // Who has shut it is told, and decides: it never came to its first poll, or another version goes on.
            return state;
        }
        let Some(pause) = failures.add(Instant::now()) else {
            ending.journal.say(LogLevel::Error, &failures.too_many());
            return state;
        };
        let text = format!("failed: {failure}; it starts again in {:.1} s", pause.as_secs_f64());
        ending.journal.say(LogLevel::Error, &text);
        ending.state.send_replace(State::Restarting(failure.clone()));
        tokio::time::sleep(pause).await;
        counters.restarts.add(1);
        ending.state.send_replace(State::Running);
    }
}

async fn run(pre: InstancePre<Guest>, entry: Entry, guest: Guest) -> State {
    let (ticker, counters) = (Arc::clone(&guest.ticker), Arc::clone(&guest.counters));
    let _running = Running::new(&ticker, &counters);
    let mut store = Store::new(pre.module().engine(), guest);
    store.limiter(|guest| &mut guest.limits);
    store.set_hostcall_fuel(WASI_CALL_BYTES_MAX);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|mut context| context.data_mut().tick());
    match enter(&mut store, &pre, entry).await {
        Ok(CallResult::Done) => State::Done,
        Ok(CallResult::Error) => State::Failed(Failure::Error),
        Ok(CallResult::Panic) => State::Failed(Failure::Panic),
        Err(error) => ended_by(&error),
    }
}

/// Instantiates and enters the guest.
async fn enter(store: &mut Store<Guest>, pre: &InstancePre<Guest>, entry: Entry) -> wasmtime::Result<CallResult> {
    let instance = pre.instantiate_async(&mut *store).await?;
    if let Some(initialize) = instance.get_func(&mut *store, "_initialize") {
        initialize.typed::<(), ()>(&mut *store)?.call_async(&mut *store, ()).await?;
    }
    match entry {
        Entry::Call => {
            let call = instance.get_typed_func::<(), i32>(&mut *store, "call")?;
            let code = call.call_async(&mut *store, ()).await?;
            CallResult::from_code(code).ok_or_else(|| wasmtime::Error::new(UnknownCode(code)))
        }
        Entry::Start => {
            let start = instance.get_typed_func::<(), ()>(&mut *store, "_start")?;
            start.call_async(&mut *store, ()).await?;
            Ok(CallResult::Done)
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`call` answered {0}")]
struct UnknownCode(i32);

fn ended_by(error: &wasmtime::Error) -> State {
    if error.downcast_ref::<Relieved>().is_some() {
        return State::Stopped;
    }
    if let Some(&UnknownCode(code)) = error.downcast_ref() {
        return State::Failed(Failure::Unknown(code));
    }
    if let Some(&I32Exit(status)) = error.downcast_ref() {
        return if status == 0 { State::Done } else { State::Failed(Failure::Exit(status)) };
    }
    let backtrace = error.downcast_ref::<WasmBacktrace>();
    let trap = error.downcast_ref::<Trap>();
    if trap.is_none() && backtrace.is_none() {
        return State::Failed(Failure::Start(printable(&format!("{error:#}"), MESSAGE_BYTES_MAX)));
    }
    let message = trap.map_or_else(|| error.root_cause().to_string(), Trap::to_string);
    let frames = backtrace.map_or(&[][..], WasmBacktrace::frames);
    let functions = frames.iter().take(FRAMES_MAX).map(|frame| match frame.func_name() {
        Some(name) => printable(name, MESSAGE_BYTES_MAX),
        None => format!("function {}", frame.func_index()),
    });
    State::Failed(Failure::Trap { message: printable(&message, MESSAGE_BYTES_MAX), functions: functions.collect() })
}

/// While it lives, a guest needs ticks, and its uptime counts.
struct Running<'a>(&'a crate::ticker::Ticker, &'a Counters);

impl<'a> Running<'a> {
    fn new(ticker: &'a crate::ticker::Ticker, counters: &'a Counters) -> Self {
        ticker.enter();
        counters.runs_since(Some(Instant::now()));
        Self(ticker, counters)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.leave();
        self.1.runs_since(None);
        self.1.memory_bytes.set(0);
    }
}
