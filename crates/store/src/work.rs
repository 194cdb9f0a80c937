//! What happens to points after they were written: flushing, merging, deleting and giving up, by the store's own threads or
//! by who asks for it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use slung_model::{Seq, SeriesId, SeriesKey, TimeRange};

use crate::commit::{Full, Shared, panicked};
use crate::disk::Change;
use crate::segment::{Segment, SegmentMeta};
use crate::upkeep::{self, Rewritten};
use crate::{Deleted, Error};

/// How often a flush that fails is tried again before the store refuses writes.
const FLUSH_TRIES_MAX: u32 = 3;
/// How long to wait after a flush or a merge has failed.
const RETRY: Duration = Duration::from_millis(100);
/// How often there is a look at what is too old.
const LOOK: Duration = Duration::from_secs(1);
/// The same at the most, where upkeep fails again and again.
const LOOK_MAX: Duration = Duration::from_secs(60);
/// How long merging waits for a flush, which needs the disk and the processor more, and at most how often in a row.
const YIELD: Duration = Duration::from_millis(5);
const YIELDS_MAX: u32 = 40;

impl Shared {
    fn key(&self, series: SeriesId) -> Option<Arc<SeriesKey>> {
        self.catalogue().key(series).cloned()
    }

    /// Brings to segments what is on its way there. Answers whether there was anything.
    pub(crate) fn flush_frozen(&self) -> Result<bool, Error> {
        let _flushing = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(frozen) = self.lock().frozen.clone() else { return Ok(false) };
        let add = self.disk.write_memory(&frozen.memory)?;
        let change = Change { add, flushed: Some(frozen.end), ..Change::default() };
        self.disk.change(change, &|id| self.key(id), |version| {
            let mut state = self.lock();
            state.version = Arc::clone(version);
            state.frozen = None;
            state.flushed = Seq(frozen.end.next_seq - 1);
            state.stats.flushes += 1;
            drop(state);
            // It does not count any more, so it should not be there any more either; freeing it takes a while.
            drop(frozen);
        })?;
        self.made_room();
        self.upkeep.notify_all();
        Ok(true)
    }

    /// Brings to segments all that was written before.
    pub(crate) fn flush(&self) -> Result<(), Error> {
        let through = self.lock().last();
        loop {
            {
                let mut state = self.lock();
                if let Some(failure) = state.failure() {
                    return Err(Error::ReadOnly { failure });
                }
                if state.flushed >= through || (state.frozen.is_none() && state.memory.points() == 0) {
                    return Ok(());
                }
                state.freeze();
            }
            self.flush_frozen()?;
        }
    }

    /// What the flushing thread does.
    pub(crate) fn run_flushes(&self) {
        if catch_unwind(AssertUnwindSafe(|| self.flush_all())).is_err() {
            self.fail(panicked());
        }
    }

    fn flush_all(&self) {
        let mut failed = 0;
        loop {
            {
                let mut state = self.lock();
                while state.frozen.is_none() {
                    if state.closing || state.failure().is_some() {
                        return;
                    }
                    state = self.wait_for(&self.upkeep, state, LOOK);
                }
            }
            match self.flush_frozen() {
                Ok(_) => {
                    failed = 0;
                    self.found_space(Full::Flush);
                }
                Err(error) if error.is_disk_full() => {
                    let state = self.found_full(Full::Flush, &error.into_failure());
                    if state.closing {
                        // All of it is in the log.
                        return;
                    }
                    drop(self.wait_for(&self.upkeep, state, RETRY));
                }
                Err(error) => {
                    failed += 1;
                    if failed == FLUSH_TRIES_MAX {
                        return self.fail(error.into_failure());
                    }
                    let state = self.lock();
                    if state.closing {
                        // All of it is in the log.
                        return;
                    }
                    drop(self.wait_for(&self.upkeep, state, RETRY));
                }
            }
        }
    }

    /// What the thread does that merges segments and gives up old ones.
    pub(crate) fn run_upkeep(&self) {
        if catch_unwind(AssertUnwindSafe(|| self.keep_up())).is_err() {
            self.fail(panicked());
        }
    }

    fn keep_up(&self) {
        let mut wait = LOOK;
        loop {
            let done = self.upkeep_once();
            let mut state = self.lock();
            // What fails is tried again, less and less often: nothing is lost by it but space, and merging takes space.
            wait = match &done {
                Ok(true) => Duration::ZERO,
                Ok(false) => LOOK,
                Err(_) => (wait * 2).clamp(LOOK, LOOK_MAX),
            };
            state.stats.upkeep_failures += u64::from(done.is_err());
            let until = Instant::now() + wait;
            loop {
                if state.closing || state.failure().is_some() {
                    return;
                }
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                // A flush wakes everybody: there may be something to merge, unless that has just failed.
                state = self.wait_for(&self.upkeep, state, left);
                if done.is_ok() && state.frozen.is_none() {
                    break;
                }
            }
        }
    }

    /// Gives up what is too old or too much, and merges once where that is due. Answers whether there may be more to do.
    pub(crate) fn upkeep_once(&self) -> Result<bool, Error> {
        let _rewriting = self.rewriting.lock().unwrap_or_else(PoisonError::into_inner);
        // On a full disk what little becomes free is for the log.
        if self.lock().check_writable().is_ok() {
            self.disk.keep_reserve();
        }
        let metas = self.retain()?;
        let Some(numbers) = upkeep::plan_merge(&metas, self.options.partition_micros) else { return Ok(false) };
        let segments = self.disk.segments(&numbers);
        let inputs: Vec<Arc<Segment>> = numbers.iter().filter_map(|number| segments.get(number).cloned()).collect();
        let generation = inputs.iter().map(|segment| segment.meta().generation).max().unwrap_or(0);
        let floor = self.disk.version().floor;
        let keep = |_| vec![TimeRange { start: floor, end: i64::MAX }];
        let Rewritten { segments: add, lost } =
            upkeep::rewrite(&self.disk, &inputs, generation, &keep, &|| self.pause())?;
        self.publish(Change { add, remove: numbers, lost, ..Change::default() })?;
        self.lock().stats.compactions += 1;
        Ok(true)
    }

    /// Gives up what is too old, or too much; answers what is left.
    fn retain(&self) -> Result<Vec<SegmentMeta>, Error> {
        let version = self.disk.version();
        let metas: Vec<SegmentMeta> = version.segments().iter().map(|segment| segment.meta().clone()).collect();
        if self.options.retention_micros.is_none() && self.options.disk_bytes_max.is_none() {
            return Ok(metas);
        }
        let floor = upkeep::plan_retention(&metas, version.floor, self.clock.now_micros(), &self.options);
        // Late points may have come to a segment of their own that is too old from the beginning.
        let before = floor.unwrap_or(version.floor);
        let (gone, left): (Vec<_>, Vec<_>) = metas.into_iter().partition(|segment| segment.end < before);
        if floor.is_some() || !gone.is_empty() {
            let remove = gone.iter().map(|segment| segment.number).collect();
            self.publish(Change { remove, floor, ..Change::default() })?;
        }
        Ok(left)
    }

    fn publish(&self, change: Change) -> Result<(), Error> {
        self.disk.change(change, &|id| self.key(id), |version| self.lock().version = Arc::clone(version))
    }

    /// Lets flushes go first, and ends the work when the store is closed.
    fn pause(&self) -> Result<(), Error> {
        for _ in 0..YIELDS_MAX {
            let state = self.lock();
            if state.closing {
                return Err(Error::Closing);
            }
            if state.frozen.is_none() || !self.options.background {
                break;
            }
            drop(self.wait_for(&self.upkeep, state, YIELD));
        }
        Ok(())
    }

    /// Takes the points of those series and that range away which were written before. `series` rises.
    pub(crate) fn delete(&self, series: &[SeriesId], range: TimeRange) -> Result<Deleted, Error> {
        if range.start > range.end {
            return Ok(Deleted::default());
        }
        let _rewriting = self.rewriting.lock().unwrap_or_else(PoisonError::into_inner);
        self.flush()?;
        let series: BTreeSet<SeriesId> = series.iter().copied().collect();
        let version = self.disk.version();
        let mut change = Change::default();
        let (mut before, mut after) = (0, 0);
        let keep = |id: SeriesId| {
            if !series.contains(&id) {
                return vec![TimeRange::ALL];
            }
            let earlier = range.start.checked_sub(1).map(|end| TimeRange { start: i64::MIN, end });
            let later = range.end.checked_add(1).map(|start| TimeRange { start, end: i64::MAX });
            earlier.into_iter().chain(later).collect()
        };
        for segment in version.segments() {
            let concerns = |id: &SeriesId| segment.may_contain(*id, range);
            if !series.iter().any(concerns) {
                continue;
            }
            let meta = segment.meta();
            let inputs = [Arc::clone(segment)];
            let rewritten = upkeep::rewrite(&self.disk, &inputs, meta.generation, &keep, &|| self.pause())?;
            before += meta.points;
            after += rewritten.segments.iter().map(|segment| segment.meta().points).sum::<u64>();
            change.add.extend(rewritten.segments);
            change.lost.extend(rewritten.lost);
            change.remove.push(meta.number);
        }
        let segments = change.remove.len() as u64;
        if segments > 0 {
            self.publish(change)?;
        }
        Ok(Deleted { points: before - after, segments })
    }
}
