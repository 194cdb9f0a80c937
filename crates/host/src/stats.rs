//! Counters of one workflow, written by the one thread that runs it, read by anybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slung_abi::{FUNCTIONS, HostFunction};

/// A number with one writer at a time: no locked instruction is needed to add to it.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) events: Counter,
    pub(crate) event_bytes: Counter,
    pub(crate) sleeps: Counter,
    /// 1 while a poll sleeps.
    pub(crate) asleep: Counter,
    pub(crate) busy_nanos: Counter,
    pub(crate) demotions: Counter,
    pub(crate) throttled_nanos: Counter,
    pub(crate) memory_bytes: Counter,
    pub(crate) writes_refused: Counter,
    pub(crate) http_calls_refused: Counter,
    pub(crate) restarts: Counter,
    pub(crate) ok: [Counter; FUNCTIONS.len()],
    pub(crate) failed: [Counter; FUNCTIONS.len()],
}

/// How often a host function was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    /// Which one.
    pub function: HostFunction,
    /// Calls that did what they were asked for; a poll without an event is one.
    pub ok: u64,
    /// Calls that failed.
    pub failed: u64,
}

/// What a workflow has done so far. The numbers are read one after the other while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Events given to it.
    pub events: u64,
    /// Their JSON, bytes.
    pub event_bytes: u64,
    /// Calls of each host function, in the order of [`FUNCTIONS`].
    pub calls: [Calls; FUNCTIONS.len()],
    /// How often a poll slept.
    pub sleeps: u64,
    /// Processor time, host functions included, as near as it is told without asking the system at each event.
    pub busy: Duration,
    /// How often it was moved to the threads of low priority, as it computed for too long in one go.
    pub demotions: u64,
    /// How long it was paused in all because it was over its share of the processor, or over its host calls a second.
    pub throttled: Duration,
    /// Linear memory, bytes; 0 between a failure and the next start. It never shrinks, so this is also the most that this
    /// instance had.
    pub memory_bytes: u64,
    /// Events that it was not let write because they were too many in a second; they are among the failed calls, too.
    pub writes_refused: u64,
    /// HTTP requests that it was not let make because they were too many in a second; they are among the failed calls,
    /// too.
    pub http_calls_refused: u64,
    /// How often it was started again after it had failed.
    pub restarts: u64,
    /// Lines that were not logged because there were too many.
    pub log_lines_dropped: u64,
}

impl Default for Stats {
    fn default() -> Self {
        Counters::default().stats(0)
    }
}

impl Stats {
    /// Becomes what this one and a later one of the same workflow have done together. Memory is the later one's.
    pub(crate) fn go_on(&mut self, later: &Self) {
        self.events += later.events;
        self.event_bytes += later.event_bytes;
        for (calls, later) in self.calls.iter_mut().zip(later.calls) {
            calls.ok += later.ok;
            calls.failed += later.failed;
        }
        self.sleeps += later.sleeps;
        self.busy += later.busy;
        self.demotions += later.demotions;
        self.throttled += later.throttled;
        self.memory_bytes = later.memory_bytes;
        self.writes_refused += later.writes_refused;
        self.http_calls_refused += later.http_calls_refused;
        self.restarts += later.restarts;
        self.log_lines_dropped += later.log_lines_dropped;
    }
}

impl Counters {
    /// Processor time.
    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_nanos.get())
    }

    /// Calls of host functions so far.
    pub(crate) fn calls(&self) -> u64 {
        self.ok.iter().chain(&self.failed).map(Counter::get).sum()
    }

    pub(crate) fn count(&self, function: HostFunction, ok: bool) {
        let counters = if ok { &self.ok } else { &self.failed };
        counters[function.index()].add(1);
    }

    pub(crate) fn stats(&self, log_lines_dropped: u64) -> Stats {
        Stats {
            events: self.events.get(),
            event_bytes: self.event_bytes.get(),
            calls: FUNCTIONS.map(|import| {
                let at = import.function.index();
                Calls { function: import.function, ok: self.ok[at].get(), failed: self.failed[at].get() }
            }),
            sleeps: self.sleeps.get(),
            busy: self.busy(),
            demotions: self.demotions.get(),
            throttled: Duration::from_nanos(self.throttled_nanos.get()),
            memory_bytes: self.memory_bytes.get(),
            writes_refused: self.writes_refused.get(),
            http_calls_refused: self.http_calls_refused.get(),
            restarts: self.restarts.get(),
            log_lines_dropped,
        }
    }
}
