//! The way from the writer to whoever reads: one bounded queue per handle, one wake-up for all of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};
use crate::update::{Change, OpenProducers};
use crate::{HandleId, Update};

/// Room for so many updates stays with a queue that was longer once and is empty now; the rest goes back.
const KEPT_UPDATES_MAX: usize = 16;

/// Who reads the updates of some live queries: one workflow, or one stream of updates over HTTP.
///
/// Has a small lock of its own, which is held for a push or a pop and never while somebody else's code runs: a subscriber
/// that is slow, or gone, holds up no writer.
///
/// To wait for the next update without missing one: read [`Subscriber::arrivals`], look ([`Subscriber::try_next`]), leave
/// a waker ([`Subscriber::wake_on_arrival`]), and sleep only if `arrivals` is still the same.
#[derive(Debug)]
pub struct Subscriber {
    queue_updates_max: usize,
    arrivals: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order of their handles; a workflow has few.
    queues: Vec<Queue>,
    waker: Option<Waker>,
    /// Whether nothing arrives, see [`crate::Live::hold`].
    held: bool,
    /// Of handles that are gone.
    past: HandleStats,
}

#[derive(Debug)]
struct Queue {
    handle: HandleId,
    raw: bool,
    waiting: VecDeque<Update>,
    stats: HandleStats,
    /// See [`crate::Producers`]: the number of closings after which nothing closed was found.
    scanned: u64,
}

/// What happened to the updates of one handle, or of several together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct HandleStats {
    /// Updates that wait now.
    pub waiting: usize,
    /// Updates that were taken.
    pub delivered: u64,
    /// Updates that were merged into one that waited, because the queue was full.
    pub merged: u64,
    /// Raw updates that were dropped, because the queue was full.
    pub dropped: u64,
    /// Events that were older than the sliding window.
    pub late: u64,
}

impl HandleStats {
    fn add(&mut self, other: &Self) {
        self.waiting += other.waiting;
        self.delivered += other.delivered;
        self.merged += other.merged;
        self.dropped += other.dropped;
        self.late += other.late;
    }
}

impl Subscriber {
    /// One without handles, whose queues take so many updates each, at least 1. [`crate::QUEUE_UPDATES_MAX`] is the usual
    /// number.
    pub fn new(queue_updates_max: usize) -> Arc<Self> {
        Arc::new(Self {
            queue_updates_max: queue_updates_max.max(1),
            arrivals: AtomicU64::new(0),
            state: Mutex::default(),
        })
    }

    /// The handle's next update, in order; `None` where nothing waits or the handle is not this subscriber's.
    pub fn try_next(&self, handle: HandleId) -> Option<Update> {
        let mut state = self.lock();
        let queue = state.queue(handle)?;
        if queue.waiting.is_empty() {
            return None;
        }
        queue.stats.delivered += 1;
        let update = queue.waiting.pop_front();
        if queue.waiting.is_empty() && queue.waiting.capacity() > KEPT_UPDATES_MAX {
            queue.waiting.shrink_to(KEPT_UPDATES_MAX);
        }
        update
    }

    /// Whether an update waits for that handle.
    pub fn has_waiting(&self, handle: HandleId) -> bool {
        self.lock().queue(handle).is_some_and(|queue| !queue.waiting.is_empty())
    }

    /// How often anything has arrived, for whichever handle, merges included. Counted before the wake-up.
    pub fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Acquire)
    }

    /// Wakes `waker` once, at the next arrival for whichever handle. Only the waker that was left last is woken.
    pub fn wake_on_arrival(&self, waker: &Waker) {
        let mut state = self.lock();
        if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            let before = state.waker.replace(waker.clone());
            // A waker is somebody else's code, also where it is dropped.
            drop(state);
            drop(before);
        }
    }

    /// The handles, in the order in which they were made.
    pub fn handles(&self) -> Vec<HandleId> {
        self.lock().queues.iter().map(|queue| queue.handle).collect()
    }

    /// The counters of one handle; `None` where it is not this subscriber's.
    pub fn handle_stats(&self, handle: HandleId) -> Option<HandleStats> {
        self.lock().queue(handle).map(|queue| queue.stats_now())
    }

    /// The counters of all handles together, those that are gone included.
    pub fn stats(&self) -> HandleStats {
        let state = self.lock();
        let mut all = state.past;
        for queue in &state.queues {
            all.add(&queue.stats_now());
        }
        all
    }

    /// From now on nothing arrives, or everything again. What waits stays.
    pub(crate) fn set_held(&self, held: bool) {
        self.lock().held = held;
    }

    pub(crate) fn is_held(&self) -> bool {
        self.lock().held
    }

    pub(crate) fn add(&self, handle: HandleId, raw: bool) {
        let queue = Queue { handle, raw, waiting: VecDeque::new(), stats: HandleStats::default(), scanned: 0 };
        let mut state = self.lock();
        // Two engines may give out handles at once, so that the newest need not be the last one here.
        let at = state.queues.partition_point(|other| other.handle < handle);
        state.queues.insert(at, queue);
    }

    pub(crate) fn remove(&self, handle: HandleId) {
        let mut state = self.lock();
        if let Ok(at) = state.queues.binary_search_by_key(&handle, |queue| queue.handle) {
            let queue = state.queues.remove(at);
            state.past.add(&HandleStats { waiting: 0, ..queue.stats });
        }
    }

    pub(crate) fn count_late(&self, handle: HandleId) {
        let mut state = self.lock();
        if !state.held
            && let Some(queue) = state.queue(handle)
        {
            queue.stats.late += 1;
        }
    }

    /// Queues an update, and hands out the waker that is to be woken for it, once no lock is held any more.
    pub(crate) fn deliver(&self, handle: HandleId, change: &Change<'_>, open: &OpenProducers) -> Option<Waker> {
        // Made before the lock: the lock is held for less, and what was just written is not copied at once, which is slow.
        let update = change.update();
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.held {
            return None;
        }
        let queue = state.queue(handle)?;
        queue.push(update, self.queue_updates_max, open);
        // Before the wake-up, and before the lock is free: who sees the update sees the count. Only who has the
        // lock writes it, so it needs no locked instruction.
        self.arrivals.store(self.arrivals.load(Ordering::Relaxed) + 1, Ordering::Release);
        state.waker.take()
    }

    /// No critical section here can panic half-way, so what a panicking thread left behind is whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn queue(&mut self, handle: HandleId) -> Option<&mut Queue> {
        let at = self.queues.binary_search_by_key(&handle, |queue| queue.handle).ok()?;
        Some(&mut self.queues[at])
    }
}

impl Queue {
    fn push(&mut self, update: Update, queue_updates_max: usize, open: &OpenProducers) {
        if self.waiting.len() < queue_updates_max {
            self.waiting.push_back(update);
        } else if self.raw {
            self.waiting.pop_front();
            self.waiting.push_back(update);
            self.stats.dropped += 1;
        } else if let Some(newest) = self.waiting.back_mut() {
            newest.merge(update, open, &mut self.scanned);
            self.stats.merged += 1;
        }
    }

    fn stats_now(&self) -> HandleStats {
        HandleStats { waiting: self.waiting.len(), ..self.stats }
    }
}
