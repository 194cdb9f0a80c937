//! Group commit: what writers share, and the thread that writes it to the log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, mem};

use slung_model::{Point, Seq, SeriesId, SeriesKey};

use crate::error::Failure;
use crate::format::{self, RECORD_HEADER_BYTES};
use crate::log::Log;
use crate::memory::Memory;
use crate::{Error, Options, Stats};

pub(crate) type Listener = Arc<dyn Fn(Seq) + Send + Sync>;

/// What writers, readers and the committing thread share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    state: Mutex<State>,
    /// The committing thread waits here for something to do.
    work: Condvar,
    /// Writers wait here for room, and who wants durability for it.
    progress: Condvar,
    durable: AtomicU64,
    /// How many series there are; only grows.
    series: AtomicU32,
    listeners: Mutex<Vec<Listener>>,
}

/// What the one lock guards. What is in the memory and not on the disk is in `pending`, in the same order.
pub(crate) struct State {
    pub(crate) memory: Memory,
    /// The next record: room for its header, then its body.
    pending: Vec<u8>,
    pending_points: u32,
    /// Bytes of the record that is being written.
    in_flight: usize,
    next_seq: u64,
    /// Somebody found no room: commit without waiting for more.
    hurry: bool,
    closing: bool,
    failure: Option<Arc<Failure>>,
    stats: Stats,
}

/// A record that is to be written.
struct Batch {
    record: Vec<u8>,
    first_seq: u64,
    points: u32,
}

impl State {
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        match &self.failure {
            None => Ok(()),
            Some(failure) => Err(Error::ReadOnly { failure: Arc::clone(failure) }),
        }
    }

    /// The last point that was written.
    pub(crate) fn last(&self) -> Seq {
        Seq(self.next_seq - 1)
    }

    fn waiting_bytes(&self) -> usize {
        self.in_flight + self.pending.len() - RECORD_HEADER_BYTES
    }

    fn is_idle(&self) -> bool {
        self.pending.len() == RECORD_HEADER_BYTES
    }

    fn append_points(&mut self, points: &[Point]) -> Seq {
        format::encode_points(points, &mut self.pending);
        let count = u32::try_from(points.len()).expect("a write is below 512 MiB");
        self.pending_points += count;
        let replaced = self.memory.insert(points, self.next_seq);
        self.next_seq += u64::from(count);
        self.stats.writes += 1;
        self.stats.points_written += u64::from(count);
        self.stats.points_replaced += replaced;
        self.last()
    }
}

impl Shared {
    pub(crate) fn new(options: Options, memory: Memory, next_seq: u64, series: u32, log_bytes: u64) -> Self {
        let state = State {
            memory,
            pending: vec![0; RECORD_HEADER_BYTES],
            pending_points: 0,
            in_flight: 0,
            next_seq,
            hurry: false,
            closing: false,
            failure: None,
            stats: Stats { log_bytes, ..Stats::default() },
        };
        Self {
            options,
            state: Mutex::new(state),
            work: Condvar::new(),
            progress: Condvar::new(),
            durable: AtomicU64::new(next_seq - 1),
            series: AtomicU32::new(series),
            listeners: Mutex::default(),
        }
    }

    /// The lock. Where a thread panicked while it held it, memory and log may have parted: nothing is written any more.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| after_panic(poisoned.into_inner()))
    }

    fn wait<'a>(&self, condvar: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        condvar.wait(state).unwrap_or_else(|poisoned| after_panic(poisoned.into_inner()))
    }

    fn wait_for<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        match self.work.wait_timeout(state, time) {
            Ok((state, _)) => state,
            Err(poisoned) => after_panic(poisoned.into_inner().0),
        }
    }

    pub(crate) fn durable(&self) -> Seq {
        Seq(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn stats(&self) -> Stats {
        let state = self.lock();
        Stats {
            series: u64::from(self.series.load(Ordering::Acquire)),
            points: state.memory.points(),
            pending_bytes: state.waiting_bytes() as u64,
            last: state.last().0,
            durable_through: self.durable().0,
            ..state.stats
        }
    }

    pub(crate) fn listen(&self, listener: Listener) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// Stores a batch, all of it or nothing. Where there is no room it waits, or answers [`Error::Busy`].
    pub(crate) fn put(&self, points: &[Point], wait: bool) -> Result<Seq, Error> {
        let bytes = self.check(points)?;
        let mut state = self.lock();
        loop {
            state.check_writable()?;
            if points.is_empty() {
                return Ok(state.last());
            }
            if state.memory.points().saturating_add(points.len() as u64) > self.options.points_max {
                return Err(Error::Full { points_max: self.options.points_max });
            }
            if state.waiting_bytes() + bytes <= self.options.pending_bytes_max {
                break;
            }
            self.hurry(&mut state);
            if !wait {
                return Err(self.busy(&mut state));
            }
            state = self.wait(&self.progress, state);
        }
        let was_idle = state.is_idle();
        let seq = state.append_points(points);
        self.wake(was_idle, state);
        Ok(seq)
    }

    /// What can be known about a batch without the lock; says how many bytes it takes.
    fn check(&self, points: &[Point]) -> Result<usize, Error> {
        let bytes = format::points_entry_bytes(points.len());
        if bytes > self.options.pending_bytes_max {
            let points_max = (self.options.pending_bytes_max - format::points_entry_bytes(0)) / format::POINT_BYTES;
            return Err(Error::BatchTooBig { points: points.len(), points_max });
        }
        let series = self.series.load(Ordering::Acquire);
        for (index, point) in points.iter().enumerate() {
            if point.series.0 >= series {
                return Err(Error::UnknownSeries { index, series: point.series });
            }
            if !point.value.is_finite() {
                return Err(Error::NotFinite { index, value: point.value });
            }
        }
        Ok(bytes)
    }

    /// Puts the definition of the next series into the log, before any point of it can be. `id` is what the caller, who
    /// holds the catalogue, is going to give it.
    pub(crate) fn define(&self, id: SeriesId, key: &SeriesKey) -> Result<(), Error> {
        let mut entry = Vec::new();
        format::encode_series(id, key, &mut entry);
        let mut state = self.lock();
        state.check_writable()?;
        // Definitions have as much room again as points have, so that only a flood of new series is told to wait.
        if state.waiting_bytes() + entry.len() > self.options.pending_bytes_max.saturating_mul(2) {
            self.hurry(&mut state);
            return Err(self.busy(&mut state));
        }
        let was_idle = state.is_idle();
        state.pending.extend_from_slice(&entry);
        state.memory.add_series();
        self.series.store(id.0 + 1, Ordering::Release);
        self.wake(was_idle, state);
        Ok(())
    }

    fn hurry(&self, state: &mut State) {
        state.hurry = true;
        self.work.notify_one();
    }

    fn busy(&self, state: &mut State) -> Error {
        state.stats.busy += 1;
        Error::Busy { pending_bytes_max: self.options.pending_bytes_max }
    }

    fn wake(&self, was_idle: bool, state: MutexGuard<'_, State>) {
        let enough = state.pending.len() >= self.options.commit_bytes_max;
        drop(state);
        if was_idle || enough {
            self.work.notify_one();
        }
    }

    /// Waits until that point is durable.
    pub(crate) fn wait_durable(&self, seq: Seq) -> Result<(), Error> {
        if self.durable() >= seq {
            return Ok(());
        }
        let mut state = self.lock();
        while self.durable() < seq {
            state.check_writable()?;
            state = self.wait(&self.progress, state);
        }
        Ok(())
    }

    /// Tells the committing thread to finish.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
    }

    /// What the committing thread does, until the store is closed or fails.
    pub(crate) fn run(&self, log: Log) {
        if catch_unwind(AssertUnwindSafe(|| self.commit_all(log))).is_err() {
            self.fail(panicked());
        }
    }

    fn commit_all(&self, mut log: Log) {
        let mut spare = Vec::new();
        let mut began: Option<Instant> = None;
        while let Some(mut batch) = self.next(&mut spare, began) {
            began = Some(Instant::now());
            match log.append(&mut batch.record, batch.first_seq, batch.points) {
                Ok(sync) => self.succeed(&log, &batch, sync),
                Err(failure) => return self.fail(failure),
            }
            // What a burst made large is given back.
            spare = batch.record;
            spare.clear();
            spare.shrink_to(self.options.commit_bytes_max.saturating_mul(2));
        }
        // An empty record at the end proves that the one before was synced: damage to it is then never taken for a torn
        // end. A log to which nothing was added has its proof already.
        let (first_seq, failed) = {
            let state = self.lock();
            (state.next_seq, state.failure.is_some())
        };
        if began.is_some() && !failed {
            match log.append(&mut [0; RECORD_HEADER_BYTES], first_seq, 0) {
                Ok(_) => self.lock().stats.log_bytes = log.end(),
                Err(failure) => self.fail(failure),
            }
        }
    }

    /// Waits until a commit is due, and takes what there is to commit. `None` when the store is closed, or has failed.
    fn next(&self, spare: &mut Vec<u8>, began: Option<Instant>) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() {
                return None;
            }
            if state.is_idle() {
                // Nobody waits for room then, but somebody may have before the last commit.
                state.hurry = false;
                if state.closing {
                    return None;
                }
                state = self.wait(&self.work, state);
                continue;
            }
            let left =
                began.map_or(Duration::ZERO, |began| self.options.commit_interval.saturating_sub(began.elapsed()));
            let enough = state.pending.len() >= self.options.commit_bytes_max;
            if left.is_zero() || enough || state.hurry || state.closing {
                break;
            }
            state = self.wait_for(state, left);
        }
        spare.resize(RECORD_HEADER_BYTES, 0);
        state.hurry = false;
        state.in_flight = state.pending.len() - RECORD_HEADER_BYTES;
        let points = mem::take(&mut state.pending_points);
        let record = mem::replace(&mut state.pending, mem::take(spare));
        Some(Batch { record, first_seq: state.next_seq - u64::from(points), points })
    }

    fn succeed(&self, log: &Log, batch: &Batch, sync: Duration) {
        let through = Seq(batch.first_seq + u64::from(batch.points) - 1);
        let mut state = self.lock();
        state.in_flight = 0;
        state.stats.log_bytes = log.end();
        state.stats.commits += 1;
        let micros = u64::try_from(sync.as_micros()).unwrap_or(u64::MAX);
        state.stats.sync_micros += micros;
        state.stats.sync_micros_max = state.stats.sync_micros_max.max(micros);
        self.durable.store(through.0, Ordering::Release);
        drop(state);
        self.progress.notify_all();
        self.tell(through);
    }

    fn fail(&self, failure: Failure) {
        self.lock().failure.get_or_insert_with(|| Arc::new(failure));
        self.progress.notify_all();
        self.tell(self.durable());
    }

    fn tell(&self, through: Seq) {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for listener in listeners {
            listener(through);
        }
    }
}

fn after_panic(mut state: MutexGuard<'_, State>) -> MutexGuard<'_, State> {
    state.failure.get_or_insert_with(|| Arc::new(panicked()));
    state
}

fn panicked() -> Failure {
    let source = io::Error::other("a thread panicked, which is a bug");
    Failure { doing: "committing to", path: "the log".into(), offset: 0, source }
}
