//! What writers, readers and the store's threads share: the points in memory, what waits for the log, and group commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};
use std::{io, mem};

use slung_model::{Catalogue, Clock, Point, Seq, SeriesId, SeriesKey};

use crate::disk::Disk;
use crate::error::Failure;
use crate::format::{self, RECORD_HEADER_BYTES};
use crate::log::{Appended, Log, Position};
use crate::memory::Memory;
use crate::version::Version;
use crate::{Error, Options, Stats};

pub(crate) type Listener = Arc<dyn Fn(Seq) + Send + Sync>;

/// How long after a full disk has refused something it is tried again.
const FULL_RETRY: Duration = Duration::from_millis(100);

/// What writers, readers and the store's threads share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) disk: Disk,
    pub(crate) clock: Arc<dyn Clock>,
    /// Locked before the state where both are needed.
    catalogue: RwLock<Catalogue>,
    state: Mutex<State>,
    /// The committing thread waits here for something to do.
    work: Condvar,
    /// The threads of upkeep wait here.
    pub(crate) upkeep: Condvar,
    /// Writers wait here for room, and who wants durability for it.
    progress: Condvar,
    durable: AtomicU64,
    /// How many series there are; only grows.
    series: AtomicU32,
    listeners: Mutex<Vec<Listener>>,
    /// Whoever flushes holds it.
    pub(crate) flushing: Mutex<()>,
    /// Whoever merges segments, deletes or gives up points holds it.
    pub(crate) rewriting: Mutex<()>,
}

/// Points that are on their way to segments. They do not change any more.
pub(crate) struct Frozen {
    pub(crate) memory: Memory,
    pub(crate) end: Position,
}

/// What the one lock guards. What is in the memory and not on the disk is in `pending`, in the same order.
pub(crate) struct State {
    pub(crate) memory: Memory,
    pub(crate) frozen: Option<Arc<Frozen>>,
    pub(crate) version: Arc<Version>,
    /// Points up to there went to segments since the store was opened.
    pub(crate) flushed: Seq,
    /// The next record: room for its header, then its body.
    pending: Vec<u8>,
    pending_points: u32,
    /// Bytes of the record that is being written.
    in_flight: usize,
    next_seq: u64,
    /// Somebody waits for durability, or found no room: commit without waiting for more.
    hurry: bool,
    /// What waits came when the log had nothing to do.
    at_once: bool,
    pub(crate) closing: bool,
    /// Nothing is written any more.
    failure: Option<Arc<Failure>>,
    /// The disk is full, for the log or for a flush. It is tried again.
    full: [Option<Arc<Failure>>; 2],
    pub(crate) stats: Stats,
}

/// What found the disk full.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Full {
    Log,
    Flush,
}

/// A record that is to be written.
struct Batch {
    record: Vec<u8>,
    first_seq: u64,
    points: u32,
    end: Position,
}

impl State {
    pub(crate) fn check_writable(&self) -> Result<(), Error> {
        if let Some(failure) = &self.failure {
            return Err(Error::ReadOnly { failure: Arc::clone(failure) });
        }
        match self.full.iter().flatten().next() {
            Some(failure) => Err(Error::DiskFull { failure: Arc::clone(failure) }),
            None => Ok(()),
        }
    }

    /// The last point that was written.
    pub(crate) fn last(&self) -> Seq {
        Seq(self.next_seq - 1)
    }

    fn position(&self) -> Position {
        let series = u32::try_from(self.memory.series_count()).expect("ids are u32");
        Position { next_seq: self.next_seq, series }
    }

    fn waiting_bytes(&self) -> usize {
        self.in_flight + self.pending.len() - RECORD_HEADER_BYTES
    }

    fn is_idle(&self) -> bool {
        self.pending.len() == RECORD_HEADER_BYTES
    }

    fn memory_bytes(&self) -> usize {
        self.memory.bytes() + self.frozen.as_ref().map_or(0, |frozen| frozen.memory.bytes())
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

    pub(crate) fn failure(&self) -> Option<Arc<Failure>> {
        self.failure.clone()
    }

    /// Lets what is in memory go to segments, if there is anything and nothing else is on its way.
    pub(crate) fn freeze(&mut self) {
        let end = self.position();
        if self.frozen.is_none() {
            let memory = mem::replace(&mut self.memory, Memory::with_series(end.series as usize));
            self.frozen = Some(Arc::new(Frozen { memory, end }));
        }
    }
}

impl Shared {
    pub(crate) fn new(
        disk: Disk,
        clock: Arc<dyn Clock>,
        catalogue: Catalogue,
        memory: Memory,
        next_seq: u64,
        log_bytes: u64,
    ) -> Self {
        let series = u32::try_from(catalogue.len()).expect("ids are u32");
        let state = State {
            memory,
            frozen: None,
            version: disk.version(),
            flushed: Seq(0),
            pending: record_buffer(&disk.options),
            pending_points: 0,
            in_flight: 0,
            next_seq,
            hurry: false,
            at_once: false,
            closing: false,
            failure: None,
            full: [None, None],
            stats: Stats { log_bytes, ..Stats::default() },
        };
        Self {
            options: disk.options.clone(),
            disk,
            clock,
            catalogue: RwLock::new(catalogue),
            state: Mutex::new(state),
            work: Condvar::new(),
            upkeep: Condvar::new(),
            progress: Condvar::new(),
            durable: AtomicU64::new(next_seq - 1),
            series: AtomicU32::new(series),
            listeners: Mutex::default(),
            flushing: Mutex::default(),
            rewriting: Mutex::default(),
        }
    }

    pub(crate) fn catalogue(&self) -> RwLockReadGuard<'_, Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn catalogue_to_change(&self) -> RwLockWriteGuard<'_, Catalogue> {
        self.catalogue.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock. Where a thread panicked while it held it, memory and log may have parted: nothing is written any more.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| after_panic(poisoned.into_inner()))
    }

    fn wait<'a>(&self, condvar: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        condvar.wait(state).unwrap_or_else(|poisoned| after_panic(poisoned.into_inner()))
    }

    /// Waits at one of the shared places, for so long at most.
    pub(crate) fn wait_for<'a>(
        &self,
        condvar: &Condvar,
        state: MutexGuard<'a, State>,
        time: Duration,
    ) -> MutexGuard<'a, State> {
        match condvar.wait_timeout(state, time) {
            Ok((state, _)) => state,
            Err(poisoned) => after_panic(poisoned.into_inner().0),
        }
    }

    pub(crate) fn durable(&self) -> Seq {
        Seq(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn stats(&self) -> Stats {
        let sealed_bytes = self.disk.sealed_bytes();
        let state = self.lock();
        let frozen = state.frozen.as_ref().map_or(0, |frozen| frozen.memory.points());
        Stats {
            series: u64::from(self.series.load(Ordering::Acquire)),
            points: state.memory.points() + frozen + state.version.points(),
            log_bytes: state.stats.log_bytes + sealed_bytes,
            pending_bytes: state.waiting_bytes() as u64,
            memtable_bytes: state.memory_bytes() as u64,
            segments: state.version.segments().len() as u64,
            segment_bytes: state.version.bytes(),
            damaged: state.version.lost.len() as u64,
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
            // A point takes 16 bytes, and as much again where its block has just doubled.
            let memory_bytes = state.memory_bytes() + points.len() * 2 * 16;
            let log_has_room = state.waiting_bytes() + bytes <= self.options.pending_bytes_max;
            if memory_bytes <= self.options.memtable_bytes_max && log_has_room {
                break;
            }
            if !log_has_room {
                self.hurry(&mut state);
            } else if state.frozen.is_none() {
                state.freeze();
                self.upkeep.notify_all();
            }
            if !self.options.background && log_has_room {
                drop(state);
                self.flush_frozen().map_err(|error| match error.is_disk_full() {
                    true => Error::DiskFull { failure: Arc::new(error.into_failure()) },
                    false => error,
                })?;
                state = self.lock();
                continue;
            }
            if !wait {
                return Err(busy(&mut state));
            }
            state = self.wait(&self.progress, state);
        }
        let was_idle = state.is_idle();
        let seq = state.append_points(points);
        if state.memory.bytes() >= self.options.memtable_bytes_max / 2 && state.frozen.is_none() {
            state.freeze();
            self.upkeep.notify_all();
        }
        self.wake(was_idle, state);
        Ok(seq)
    }

    /// What can be known about a batch without the lock; says how many bytes it takes in the log.
    fn check(&self, points: &[Point]) -> Result<usize, Error> {
        let points_max = self.options.batch_points_max();
        if points.len() > points_max {
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
        Ok(format::points_entry_bytes(points.len()))
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
            return Err(busy(&mut state));
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

    fn wake(&self, was_idle: bool, mut state: MutexGuard<'_, State>) {
        state.at_once |= was_idle && state.in_flight == 0;
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
            // Who waits gains nothing by waiting for others to come.
            if seq <= state.last() && !state.hurry {
                self.hurry(&mut state);
            }
            state = self.wait(&self.progress, state);
        }
        Ok(())
    }

    /// Tells the threads to finish.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
        self.upkeep.notify_all();
    }

    /// What the committing thread does, until the store is closed or fails.
    pub(crate) fn run(&self, log: Log) {
        if catch_unwind(AssertUnwindSafe(|| self.commit_all(log))).is_err() {
            self.fail(panicked());
        }
    }

    fn commit_all(&self, mut log: Log) {
        let mut spare = record_buffer(&self.options);
        let mut began: Option<Instant> = None;
        while let Some(mut batch) = self.next(&mut spare, began) {
            began = Some(Instant::now());
            match self.append(&mut log, &mut batch) {
                Ok(appended) => self.succeed(&log, &batch, appended),
                // The store is being closed, and has told that the disk is full.
                Err(failure) if failure.source.kind() == io::ErrorKind::StorageFull => return,
                Err(failure) => return self.fail(failure),
            }
            // What a burst took is given back.
            let is_large = batch.record.len() > self.options.commit_bytes_max.saturating_mul(2);
            spare = if is_large { record_buffer(&self.options) } else { batch.record };
        }
        // An empty record at the end proves that the one before was synced: damage to it is then never taken for a torn
        // end.
        let (end, failed) = {
            let state = self.lock();
            (state.position(), state.failure.is_some())
        };
        if !log.proven && !failed {
            match log.append(&mut [0; RECORD_HEADER_BYTES], end.next_seq, 0, end) {
                Ok(_) => self.lock().stats.log_bytes = log.file_bytes(),
                // All that was pending is durable.
                Err(failure) if failure.source.kind() == io::ErrorKind::StorageFull => {}
                Err(failure) => self.fail(failure),
            }
        }
    }

    /// Writes a record; while the disk is full again and again, until there is space or the store is closed.
    fn append(&self, log: &mut Log, batch: &mut Batch) -> Result<Appended, Failure> {
        loop {
            match log.append(&mut batch.record, batch.first_seq, batch.points, batch.end) {
                Err(failure) if failure.source.kind() == io::ErrorKind::StorageFull => {
                    let state = self.found_full(Full::Log, &failure);
                    if state.closing {
                        return Err(failure);
                    }
                    drop(self.wait_for(&self.work, state, FULL_RETRY));
                }
                done => {
                    self.found_space(Full::Log);
                    return done;
                }
            }
        }
    }

    /// Writes are refused from now on, as the disk is full.
    pub(crate) fn found_full(&self, full: Full, failure: &Failure) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if state.full[full as usize].is_none() {
            state.full[full as usize] = Some(Arc::new(failure.again()));
            self.progress.notify_all();
            drop(state);
            self.tell(self.durable());
            state = self.lock();
        }
        state
    }

    /// Writing goes on.
    pub(crate) fn found_space(&self, full: Full) {
        let had_been_full = self.lock().full[full as usize].take().is_some();
        if had_been_full {
            self.progress.notify_all();
            self.tell(self.durable());
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
                // Nobody waits for what is not there, but somebody may have before the last commit.
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
            if left.is_zero() || enough || state.hurry || state.at_once || state.closing {
                break;
            }
            state = self.wait_for(&self.work, state, left);
        }
        spare.truncate(RECORD_HEADER_BYTES);
        (state.hurry, state.at_once) = (false, false);
        state.in_flight = state.pending.len() - RECORD_HEADER_BYTES;
        let points = mem::take(&mut state.pending_points);
        let record = mem::replace(&mut state.pending, mem::take(spare));
        Some(Batch { record, first_seq: state.next_seq - u64::from(points), points, end: state.position() })
    }

    fn succeed(&self, log: &Log, batch: &Batch, appended: Appended) {
        if let Some(sealed) = appended.sealed {
            self.disk.log_begun(&[sealed], sealed.number + 1);
        }
        let through = Seq(batch.first_seq + u64::from(batch.points) - 1);
        let mut state = self.lock();
        state.in_flight = 0;
        state.stats.log_bytes = log.file_bytes();
        state.stats.commits += 1;
        let micros = u64::try_from(appended.sync.as_micros()).unwrap_or(u64::MAX);
        state.stats.sync_micros += micros;
        state.stats.sync_micros_max = state.stats.sync_micros_max.max(micros);
        self.durable.store(through.0, Ordering::Release);
        drop(state);
        self.progress.notify_all();
        self.tell(through);
    }

    /// Nothing is written any more.
    pub(crate) fn fail(&self, failure: Failure) {
        self.lock().failure.get_or_insert_with(|| Arc::new(failure));
        self.progress.notify_all();
        self.work.notify_one();
        self.upkeep.notify_all();
        self.tell(self.durable());
    }

    /// For a store without threads, which is only read.
    pub(crate) fn read_only(&self) {
        let source = io::Error::from(io::ErrorKind::ReadOnlyFilesystem);
        let failure = Failure { doing: "opened for reading alone:", path: self.disk.dir.clone(), offset: 0, source };
        self.lock().failure = Some(Arc::new(failure));
    }

    /// # Errors
    /// [`Error::ReadOnly`] where nothing may be changed.
    pub(crate) fn check_not_read_only(&self) -> Result<(), Error> {
        match self.lock().failure() {
            Some(failure) => Err(Error::ReadOnly { failure }),
            None => Ok(()),
        }
    }

    /// There may be room again for who waits for it.
    pub(crate) fn made_room(&self) {
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

/// A record without a body, with room for all that may wait: memory that the system gives when it is used. Growing step by
/// step instead would leave holes as large as what waits.
fn record_buffer(options: &Options) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD_HEADER_BYTES + options.pending_bytes_max);
    record.resize(RECORD_HEADER_BYTES, 0);
    record
}

fn busy(state: &mut State) -> Error {
    state.stats.busy += 1;
    Error::Busy
}

fn after_panic(mut state: MutexGuard<'_, State>) -> MutexGuard<'_, State> {
    state.failure.get_or_insert_with(|| Arc::new(panicked()));
    state
}

/// What is told of a thread that panicked.
pub(crate) fn panicked() -> Failure {
    let source = io::Error::other("a thread panicked, which is a bug");
    Failure { doing: "committing to", path: "the log".into(), offset: 0, source }
}
