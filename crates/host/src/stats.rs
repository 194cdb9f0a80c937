//! Counters of one workflow, written by the one thread that runs it, read by anybody.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use slung_abi::{FUNCTIONS, HostFunction};

use crate::reactions::{Histogram, Reactions};

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
    pub(crate) memory_bytes_max: Counter,
    pub(crate) writes_refused: Counter,
    pub(crate) http_calls_refused: Counter,
    pub(crate) restarts: Counter,
    pub(crate) ok: [Counter; FUNCTIONS.len()],
    pub(crate) failed: [Counter; FUNCTIONS.len()],
    pub(crate) reactions: Histogram,
    /// Of the instance that runs.
    runs_since: Mutex<Option<Instant>>,
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
    /// Since when its present instance runs; `None` while there is none.
    pub uptime: Option<Duration>,
    /// How long it was paused in all because it was over its share of the processor, or over its host calls a second.
    pub throttled: Duration,
    /// Linear memory, bytes; 0 between a failure and the next start. It never shrinks, so this is also the most that this
    /// instance had.
    pub memory_bytes: u64,
    /// The most linear memory, bytes, that any of its instances had.
    pub memory_bytes_max: u64,
    /// How long it took from events to what it did about them.
    pub reactions: Reactions,
    /// Events that it was not let write because they were too many in a second; they are among the failed calls, too.
    pub writes_refused: u64,
    /// HTTP requests that it was not let make because they were too many in a second; they are among the failed calls,
    /// too.
    pub http_calls_refused: u64,
    /// How often it was started again after it had failed.
    pub restarts: u64,
    /// Lines of its log, from the log's beginning, that were dropped: printed beyond
    /// [`StartOptions::log_bytes_per_second_max`](crate::StartOptions::log_bytes_per_second_max), or too many for a log thread
    /// that is held up.
    pub log_lines_dropped: u64,
}

impl Default for Stats {
    fn default() -> Self {
        Counters::default().stats(0)
    }
}

impl Stats {
    /// Becomes what this one and a later one of the same workflow have done together. What is of one instance is the later one's.
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
        self.uptime = later.uptime;
        self.throttled += later.throttled;
        self.memory_bytes = later.memory_bytes;
        self.memory_bytes_max = self.memory_bytes_max.max(later.memory_bytes_max);
        self.reactions.go_on(&later.reactions);
        self.writes_refused += later.writes_refused;
        self.http_calls_refused += later.http_calls_refused;
        self.restarts += later.restarts;
        // Their log is one.
        self.log_lines_dropped = self.log_lines_dropped.max(later.log_lines_dropped);
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

    /// Its linear memory has so many bytes from now on.
    pub(crate) fn memory(&self, bytes: u64) {
        self.memory_bytes.set(bytes);
        self.memory_bytes_max.set(bytes.max(self.memory_bytes_max.get()));
    }

    /// An instance runs since then, or none does.
    pub(crate) fn runs_since(&self, since: Option<Instant>) {
        *self.runs_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    pub(crate) fn count(&self, function: HostFunction, ok: bool) {
        let counters = if ok { &self.ok } else { &self.failed };
        counters[function.index()].add(1);
    }

    pub(crate) fn stats(&self, log_lines_dropped: u64) -> Stats {
        let runs_since = *self.runs_since.lock().unwrap_or_else(PoisonError::into_inner);
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
            uptime: runs_since.map(|since| since.elapsed()),
            throttled: Duration::from_nanos(self.throttled_nanos.get()),
            memory_bytes: self.memory_bytes.get(),
            memory_bytes_max: self.memory_bytes_max.get(),
            reactions: self.reactions.reactions(),
            writes_refused: self.writes_refused.get(),
            http_calls_refused: self.http_calls_refused.get(),
            restarts: self.restarts.get(),
            log_lines_dropped,
        }
    }
}
