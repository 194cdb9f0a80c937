//! What the host keeps for one running guest, and the ways of bytes between the two: the only place that touches a
//! guest's memory on behalf of the ABI.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use slung_abi::{FUNCTIONS, HostFunction, Region, span};
use wasmtime::{AsContext, AsContextMut, Caller, Extern, Memory, ResourceLimiter, TypedFunc, UpdateDeadline};
use wasmtime_wasi::p1::WasiP1Ctx;

use crate::bucket::{Bucket, Pace};
use crate::gate::Relieved;
use crate::journal::{Journal, Printer, Throttle};
use crate::log::LogLevel;
use crate::options::{StartOptions, TABLES_MAX};
use crate::poll::Handles;
use crate::pool::Turn;
use crate::stats::Counters;
use crate::ticker::Ticker;
use crate::wasi;
use crate::world::{Refusal, World};

/// How far ahead of its share of the processor a guest may be: enough to answer a burst of events, little enough that others do
/// not notice.
const PROCESSOR_BURST: Duration = Duration::from_millis(100);

/// Why a call does not answer what it was asked for.
pub(crate) enum Failed {
    /// The guest's call fails, with the reason for the log; the guest runs on.
    Call(String),
    /// The guest itself has ended, inside its own `allocate` or `deallocate`.
    Guest(wasmtime::Error),
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self::Call(reason)
    }
}

impl From<&'static str> for Failed {
    fn from(reason: &'static str) -> Self {
        Self::Call(reason.to_owned())
    }
}

/// The guest's side of the border, looked up once.
pub(crate) struct Exports {
    memory: Memory,
    allocate: TypedFunc<u32, u32>,
    deallocate: TypedFunc<u32, ()>,
}

/// Whether the border can be crossed.
enum Border {
    /// Not looked up yet: the guest has not called, or is still in its start function.
    Unseen,
    Open(Exports),
    /// The guest's `allocate` or `deallocate` runs, and may call nothing.
    Held,
}

/// The data of a guest's store.
pub(crate) struct Guest {
    pub(crate) wasi: WasiP1Ctx,
    pub(crate) world: Arc<dyn World>,
    pub(crate) handles: Handles,
    pub(crate) limits: Limits,
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) turn: Arc<Turn>,
    pub(crate) host_call_ms_max: NonZeroU32,
    compute_ms_max: NonZeroU32,
    /// How long it has computed since it was last seen to have called a host function, nanoseconds.
    without_call_nanos: u64,
    /// Nanoseconds of computing and host calls that the ticks have seen.
    seen: (u64, u64),
    /// What others have computed for it since the last tick, nanoseconds: reading history.
    read_nanos: u64,
    processor: Pace,
    host_calls: Pace,
    host_calls_max: u32,
    /// Whether one more pause because of host calls is logged.
    pauses: Throttle,
    writes: Bucket,
    http_calls: Bucket,
    journal: Arc<Journal>,
    pub(crate) printer: Printer,
    /// For each host function, whether one more failure is logged.
    throttles: [Throttle; FUNCTIONS.len()],
    border: Border,
    /// Data for which the guest had no room for a Region: it is given back when there is.
    unreturned: Option<Region>,
    /// When the event arrived that it was given last, by the world's clock, until it has done something about it.
    reacts_to: Option<i64>,
}

impl Guest {
    pub(crate) fn new(
        options: &StartOptions,
        world: Arc<dyn World>,
        handles: Handles,
        limits: Limits,
        ticker: Arc<Ticker>,
        turn: Arc<Turn>,
        journal: Arc<Journal>,
    ) -> Self {
        let counters = Arc::clone(&limits.counters);
        let processor_nanos = u64::from(options.processor_share_max.get().min(100)) * (1_000_000_000 / 100);
        Self {
            wasi: wasi::context(options),
            world,
            handles,
            limits,
            ticker,
            compute_ms_max: options.compute_ms_max,
            host_call_ms_max: options.host_call_ms_max,
            without_call_nanos: 0,
            seen: (counters.busy_nanos.get(), counters.calls()),
            read_nanos: 0,
            processor: Pace::new(processor_nanos, PROCESSOR_BURST),
            host_calls: Pace::new(options.host_calls_per_second_max.get().into(), Duration::from_secs(1)),
            host_calls_max: options.host_calls_per_second_max.get(),
            pauses: Throttle::default(),
            counters,
            turn,
            writes: Bucket::new(options.writes_per_second_max, Instant::now()),
            http_calls: Bucket::new(options.http_calls_per_second_max, Instant::now()),
            printer: Printer::new(Arc::clone(&journal), options.log_bytes_per_second_max),
            journal,
            throttles: std::array::from_fn(|_| Throttle::default()),
            border: Border::Unseen,
            unreturned: None,
            reacts_to: None,
        }
    }

    /// So long another thread has read for it: that counts to its share of the processor.
    pub(crate) fn has_read(&mut self, took: Duration) {
        self.read_nanos = self.read_nanos.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// It is given an event that arrived then.
    pub(crate) fn begin_reaction(&mut self, arrived: i64) {
        self.reacts_to = Some(arrived);
    }

    /// It has done what it does about the event that it was given last.
    pub(crate) fn end_reaction(&mut self) {
        if let Some(arrived) = self.reacts_to.take() {
            let took = self.world.now_micros().saturating_sub(arrived);
            self.counters.reactions.add(u64::try_from(took).unwrap_or(0));
        }
    }

    /// Lets one more event be written.
    ///
    /// # Errors
    /// It is one too many in this second, always in the same words: those are logged once a minute.
    pub(crate) fn admit_write(&mut self) -> Result<(), Failed> {
        if self.writes.take(Instant::now()) {
            return Ok(());
        }
        self.counters.writes_refused.add(1);
        let max = self.writes.per_second();
        Err(format!("too many events: it may write {max} a second (`writes_per_second_max`)").into())
    }

    /// Lets one more HTTP request be made.
    ///
    /// # Errors
    /// As for a write.
    pub(crate) fn admit_http_call(&mut self) -> Result<(), Failed> {
        if self.http_calls.take(Instant::now()) {
            return Ok(());
        }
        self.counters.http_calls_refused.add(1);
        let max = self.http_calls.per_second();
        Err(format!("too many requests: it may make {max} a second (`http_calls_per_second_max`)").into())
    }

    /// A tick has passed: whether it computes on, whatever it is at, or lets others do so, perhaps for a while.
    ///
    /// # Errors
    /// It has computed for too long without a host function: that ends it.
    pub(crate) fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        let seen = (self.counters.busy_nanos.get(), self.counters.calls());
        let (computed, called) = (seen.0 - self.seen.0, seen.1 - self.seen.1);
        self.seen = seen;
        self.without_call_nanos = if called == 0 { self.without_call_nanos + computed } else { 0 };
        let most = Duration::from_millis(self.compute_ms_max.get().into());
        if Duration::from_nanos(self.without_call_nanos) >= most {
            let most = most.as_millis();
            return Err(wasmtime::Error::msg(format!(
                "it computed for {most} ms without a host function (`compute_ms_max`)"
            )));
        }
        let read = std::mem::take(&mut self.read_nanos);
        let pause = self.pause(computed + read, called);
        if pause.is_none() && !self.turn.is_up() {
            // It has just begun: the tick has passed while it waited.
            return Ok(UpdateDeadline::Continue(1));
        }
        Ok(UpdateDeadline::YieldCustom(1, self.turn.end(pause)))
    }

    /// For how long it has to do nothing after it has computed for so many nanoseconds and called so many host functions.
    fn pause(&mut self, computed: u64, called: u64) -> Option<Duration> {
        let now = Instant::now();
        let for_calls = self.host_calls.spend(called, now);
        let pause = self.processor.spend(computed, now).max(for_calls);
        if pause.is_zero() {
            return None;
        }
        if !for_calls.is_zero() {
            let max = self.host_calls_max;
            let line = format!("paused: it may call {max} host functions a second (`host_calls_per_second_max`)");
            if self.pauses.pass(&line, now).is_some() {
                self.journal.say(LogLevel::Warn, &line);
            }
        }
        self.counters.throttled_nanos.add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX));
        Some(pause)
    }

    /// Counts a call and logs why it failed. What the guest sees is `Ok`; `Err` ends it.
    ///
    /// Inlined, as it costs more to hand the result over than to look at it.
    #[inline]
    pub(crate) fn settle<T>(
        &mut self,
        function: HostFunction,
        result: Result<T, Failed>,
        failed: T,
    ) -> wasmtime::Result<T> {
        match result {
            Ok(answer) => {
                self.counters.count(function, true);
                if matches!(
                    function,
                    HostFunction::WriteEvent | HostFunction::WritebackWs | HostFunction::WritebackHttp
                ) {
                    self.end_reaction();
                }
                Ok(answer)
            }
            Err(failure) => self.settle_failed(function, failure).map(|()| failed),
        }
    }

    #[cold]
    fn settle_failed(&mut self, function: HostFunction, failure: Failed) -> wasmtime::Result<()> {
        let reason = match failure {
            Failed::Call(reason) => reason,
            // A poll that has nothing more to wait for has not failed.
            Failed::Guest(error) if error.is::<Relieved>() => return Err(error),
            Failed::Guest(error) => {
                self.counters.count(function, false);
                return Err(error);
            }
        };
        self.counters.count(function, false);
        if let Some(hidden) = self.throttles[function.index()].pass(&reason, Instant::now()) {
            let name = function.name();
            let line = match hidden {
                0 => format!("{name} failed: {reason}"),
                _ => format!("{name} failed: {reason} ({hidden} failures before this one were not logged)"),
            };
            self.journal.say(LogLevel::Warn, &line);
        }
        Ok(())
    }
}

/// Waits for what the world answers, but not for ever.
///
/// # Errors
/// What it refuses, or that it takes too long, always in the same words: those are logged once a minute.
pub(crate) async fn within<T>(
    milliseconds: NonZeroU32,
    answer: BoxFuture<'_, Result<T, Refusal>>,
) -> Result<T, String> {
    match tokio::time::timeout(Duration::from_millis(milliseconds.get().into()), answer).await {
        Ok(answer) => answer.map_err(|refusal| refusal.0),
        Err(_) => Err(format!("no answer within {milliseconds} ms (`host_call_ms_max`)")),
    }
}

/// The guest's memory, at any time.
pub(crate) fn memory(caller: &mut Caller<'_, Guest>) -> Result<Memory, Failed> {
    if let Border::Open(exports) = &caller.data().border {
        return Ok(exports.memory);
    }
    match caller.get_export("memory") {
        Some(Extern::Memory(memory)) => Ok(memory),
        _ => Err("the caller exports no memory".into()),
    }
}

/// The guest's memory for a function of the ABI; refused while the guest's `allocate` or `deallocate` runs.
#[inline]
pub(crate) fn open(caller: &mut Caller<'_, Guest>) -> Result<Memory, Failed> {
    match &caller.data().border {
        Border::Open(exports) => Ok(exports.memory),
        Border::Held => Err("called from inside `allocate` or `deallocate`".into()),
        Border::Unseen => look_up(caller),
    }
}

#[cold]
fn look_up(caller: &mut Caller<'_, Guest>) -> Result<Memory, Failed> {
    let memory = memory(caller)?;
    let function = |caller: &mut Caller<'_, Guest>, name| match caller.get_export(name) {
        Some(Extern::Func(function)) => Ok(function),
        _ => Err(Failed::Call(format!("the caller exports no function `{name}`"))),
    };
    let typed = |error: wasmtime::Error| Failed::Call(format!("{error:#}"));
    let allocate = function(caller, "allocate")?.typed(caller.as_context()).map_err(typed)?;
    let deallocate = function(caller, "deallocate")?.typed(caller.as_context()).map_err(typed)?;
    caller.data_mut().border = Border::Open(Exports { memory, allocate, deallocate });
    Ok(memory)
}

/// The data of the Region at that address, at most `bytes_max` of it.
#[inline]
pub(crate) fn argument<'m>(memory: &'m [u8], address: u32, what: &str, bytes_max: usize) -> Result<&'m [u8], Failed> {
    let data = Region::data(memory, address).map_err(|error| format!("{what}: {error}"))?;
    if data.len() > bytes_max {
        return Err(format!("{what}: {} bytes, at most {bytes_max} are allowed", data.len()).into());
    }
    Ok(data)
}

/// The text of the Region at that address, at most `bytes_max` of it.
pub(crate) fn text<'m>(memory: &'m [u8], address: u32, what: &str, bytes_max: usize) -> Result<&'m str, Failed> {
    let data = argument(memory, address, what, bytes_max)?;
    str::from_utf8(data).map_err(|error| format!("{what}: not UTF-8 at byte {}", error.valid_up_to()).into())
}

/// Gives data to the guest: `allocate` for the data and again for its Region, both written, the Region's address
/// answered. Of no data, the answer is 0.
///
/// Where `allocate` has room for the data but then none for the Region, the data can't be given back: `deallocate` takes
/// the address of a Region. It is remembered, and given back by the next call that gets a Region for it; until then
/// every further call fails, so that no more than this one piece is ever lost to the guest.
pub(crate) async fn give(caller: &mut Caller<'_, Guest>, data: &[u8]) -> Result<u32, Failed> {
    open(caller)?;
    if data.is_empty() {
        return Ok(0);
    }
    let Border::Open(exports) = std::mem::replace(&mut caller.data_mut().border, Border::Held) else {
        return Err("the border is not open".into());
    };
    let answer = hand_over(caller, &exports, data).await;
    caller.data_mut().border = Border::Open(exports);
    answer
}

async fn hand_over(caller: &mut Caller<'_, Guest>, exports: &Exports, data: &[u8]) -> Result<u32, Failed> {
    let length = u32::try_from(data.len()).map_err(|_| "more than 4 GiB".to_owned())?;
    if let Some(region) = caller.data().unreturned {
        let address = allocate(caller, exports, Region::SIZE as u32).await?;
        write(caller, exports, address, &region.encode())?;
        caller.data_mut().unreturned = None;
        exports.deallocate.call_async(caller.as_context_mut(), address).await.map_err(Failed::Guest)?;
    }
    let offset = allocate(caller, exports, length).await?;
    let region = Region { offset, capacity: length, length };
    let address = match allocate(caller, exports, Region::SIZE as u32).await {
        Err(Failed::Call(reason)) => {
            caller.data_mut().unreturned = Some(region);
            return Err(Failed::Call(reason));
        }
        other => other?,
    };
    if u64::from(address) < u64::from(offset) + u64::from(length)
        && u64::from(offset) < u64::from(address) + Region::SIZE as u64
    {
        return Err(format!("`allocate` answered {offset} and {address}, which overlap").into());
    }
    write(caller, exports, offset, data)?;
    write(caller, exports, address, &region.encode())?;
    Ok(address)
}

/// An address with room for that many bytes, as far as the guest can be believed: not 0, and in its memory as it is now.
async fn allocate(caller: &mut Caller<'_, Guest>, exports: &Exports, bytes: u32) -> Result<u32, Failed> {
    let address = exports.allocate.call_async(caller.as_context_mut(), bytes).await.map_err(Failed::Guest)?;
    if address == 0 {
        return Err(format!("`allocate` has no room for {bytes} bytes").into());
    }
    let memory_bytes = exports.memory.data_size(caller.as_context());
    if span(address, bytes, memory_bytes).is_none() {
        return Err(format!("`allocate` answered {address} for {bytes} bytes, in a memory of {memory_bytes}").into());
    }
    Ok(address)
}

/// Copies into the memory as it is now: it may have grown since, but never shrinks.
fn write(caller: &mut Caller<'_, Guest>, exports: &Exports, address: u32, bytes: &[u8]) -> Result<(), Failed> {
    let memory = exports.memory.data_mut(caller.as_context_mut());
    let place = address as usize..address as usize + bytes.len();
    memory.get_mut(place).ok_or("what `allocate` answered is outside the memory")?.copy_from_slice(bytes);
    Ok(())
}

/// What wasmtime asks before a guest's memory or tables grow.
pub(crate) struct Limits {
    pub(crate) memory_bytes_max: usize,
    pub(crate) table_elements_max: usize,
    pub(crate) counters: Arc<Counters>,
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, _now: usize, wanted: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = wanted <= self.memory_bytes_max;
        if allowed {
            self.counters.memory(wanted as u64);
        }
        Ok(allowed)
    }

    fn table_growing(&mut self, _now: usize, wanted: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(wanted <= self.table_elements_max)
    }

    fn instances(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }
}
