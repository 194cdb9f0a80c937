//! The seam between what is stored and what live queries see: one order of writes for both, and every point in exactly one
//! of a subscription's history and its stream, without a writer waiting while history is read.
//!
//! A subscription takes a snapshot and is told to [`Live`] under the lock of the writers; from there on what arrives for it is
//! recorded. It reads the snapshot without that lock, then catches up with what was recorded, and takes the last of it under
//! the lock again. A deletion goes the same way with the windows that are there, which go on meanwhile.

use std::sync::{Arc, PoisonError};

use slung_live::{HandleId, Live, Loading, Subscriber};
use slung_model::{Op, Point, ProducerId, Query, Seq, SeriesId, SeriesKey, TimeRange, Window};

use crate::Error;
use crate::sync::{Mutex, MutexGuard};

/// So few recorded events are taken under the lock: a fraction of a millisecond.
const RECORDED_POINTS_FEW: usize = 1_000;
/// How often a load catches up before it takes everything under the lock, however much it is.
const CATCH_UPS_MAX: u32 = 16;
/// How often a load begins again, because more arrived than is kept of it, before it reads under the lock.
const LOADS_MAX: u32 = 3;

/// What is stored, as far as live queries need it. A trait, so that a test can try the seam without a disk's threads.
pub(crate) trait History {
    /// The points of some series at one moment.
    type Snapshot;

    /// The series that a query means, rising.
    fn select(&self, query: &Query) -> Vec<SeriesId>;

    /// The key of a series that was given out.
    fn key(&self, series: SeriesId) -> Option<Arc<SeriesKey>>;

    /// Those series as they are now. Nothing is read here.
    fn snapshot(&self, series: &[SeriesId]) -> Self::Snapshot;

    /// Gives a window what it starts from, which may take its time. Where it may ([`Loading::keeps_points`]), it calls
    /// `catch_up` now and then, and ends where that says so.
    fn read(
        &self,
        snapshot: &Self::Snapshot,
        loading: &mut Loading,
        catch_up: &mut dyn FnMut(&mut Loading) -> bool,
    ) -> Result<(), Error>;

    /// The clock, microseconds since the Unix epoch.
    fn now_micros(&self) -> i64;
}

pub(crate) struct Seam {
    /// The lock that orders writes and subscriptions. Nothing is waited for while it is held.
    joined: Mutex<Joined>,
    /// Held by who reads for a window, so that one does at a time: what that takes of memory is bounded, who asks for the
    /// same window waits and shares it, and a deletion finds every window that began before it.
    loads: Mutex<()>,
}

struct Joined {
    live: Live,
    /// How many series, in the order of their ids, `live` was told of. Those before it was there come with a subscription.
    announced: u32,
    /// The number of the last point that `live` was told of.
    last: Seq,
}

impl Seam {
    /// `announced` series and points up to `last` were there before.
    pub(crate) fn new(live: Live, announced: u32, last: Seq) -> Self {
        Self { joined: Mutex::new(Joined { live, announced, last }), loads: Mutex::new(()) }
    }

    /// Whether a thread has panicked half-way through a change.
    pub(crate) fn is_broken(&self) -> bool {
        self.joined.lock().is_err()
    }

    /// Writes points, which `write` stores, and tells live queries.
    pub(crate) fn put(
        &self,
        history: &impl History,
        producer: Option<ProducerId>,
        points: &[Point],
        write: impl FnOnce() -> Result<Seq, Error>,
    ) -> Result<Seq, Error> {
        let mut joined = self.lock()?;
        let seq = write()?;
        if let Some(newest) = points.iter().map(|point| point.series).max() {
            joined.announce(history, newest);
        }
        let wakes = joined.live.apply(producer, points, history.now_micros(), &|id| history.key(id));
        joined.last = seq;
        drop(joined);
        // Waking is somebody else's code, and may take longer than all of the above.
        drop(wakes);
        Ok(seq)
    }

    /// Registers a live query.
    pub(crate) fn subscribe(
        &self,
        history: &impl History,
        subscriber: &Arc<Subscriber>,
        query: &Query,
    ) -> Result<HandleId, Error> {
        let window = query.window().map_err(slung_live::Error::from)?;
        if let Some(handle) = self.lock()?.live.join(subscriber, query)? {
            return Ok(handle);
        }
        let starts_empty =
            window == Window::Running || (query.op() == Op::Raw && matches!(window, Window::Absolute(_)));
        if starts_empty {
            let mut joined = self.lock()?;
            let series = history.select(query);
            return Ok(joined.live.subscribe(subscriber, query, series, [], history.now_micros())?);
        }
        let _turn = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut joined = self.lock()?;
        // Another one may have made it meanwhile.
        if let Some(handle) = joined.live.join(subscriber, query)? {
            return Ok(handle);
        }
        let series = history.select(query);
        let loading = joined.live.begin(query, &series, history.now_micros())?;
        let snapshot = history.snapshot(&series);
        drop(joined);
        let (mut joined, loading) = self.load(history, loading, snapshot)?;
        Ok(joined.live.finish(loading, subscriber, history.now_micros())?)
    }

    /// As [`Live::switch`], between two writes: answers the number of the last point before.
    pub(crate) fn switch(&self, from: Option<&Arc<Subscriber>>, to: &Arc<Subscriber>) -> Seq {
        let mut joined = self.lock_anyhow();
        joined.live.switch(from, to);
        joined.last
    }

    /// Points of those series in that range were taken away from what is stored: makes the windows anew that may have some.
    pub(crate) fn deleted(&self, history: &impl History, series: &[SeriesId], range: TimeRange) -> Result<(), Error> {
        let _turn = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        let places = self.lock()?.live.holding(series, range);
        // One that can't be read keeps no other one from being made anew.
        let mut result = Ok(());
        for place in places {
            let mut joined = self.lock()?;
            let Some(loading) = joined.live.begin_again(place, history.now_micros()) else { continue };
            let snapshot = history.snapshot(&history.select(loading.query()));
            drop(joined);
            match self.load(history, loading, snapshot) {
                Ok((mut joined, loading)) => {
                    let wakes = joined.live.replace(loading, history.now_micros(), &|id| history.key(id));
                    drop(joined);
                    drop(wakes);
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }

    /// Reads what a window starts from, and what arrived meanwhile but for the last few events, which are recorded still when
    /// this returns with the lock.
    fn load<H: History>(
        &self,
        history: &H,
        mut loading: Loading,
        mut snapshot: H::Snapshot,
    ) -> Result<(MutexGuard<'_, Joined>, Loading), Error> {
        for _ in 0..LOADS_MAX {
            let mut catch_up = |loading: &mut Loading| {
                let recorded = self.lock_anyhow().live.recorded(loading);
                loading.catch_up(recorded.as_ref())
            };
            if let Err(error) = history.read(&snapshot, &mut loading, &mut catch_up) {
                self.lock_anyhow().live.abandon(loading);
                return Err(error);
            }
            for catch_up in 0.. {
                let mut joined = self.lock()?;
                let recorded = joined.live.recorded(&loading).filter(|_| !loading.has_missed());
                let Some(recorded) = recorded else {
                    // More than is kept; all of it is stored, so that another snapshot has it.
                    if !joined.live.restart(&mut loading, history.now_micros()) {
                        return Ok((joined, loading));
                    }
                    snapshot = history.snapshot(&history.select(loading.query()));
                    break;
                };
                if recorded.len() <= RECORDED_POINTS_FEW || catch_up == CATCH_UPS_MAX {
                    loading.catch_up(Some(&recorded));
                    return Ok((joined, loading));
                }
                drop(joined);
                loading.catch_up(Some(&recorded));
            }
        }
        let mut joined = self.lock()?;
        if !joined.live.restart(&mut loading, history.now_micros()) {
            return Ok((joined, loading));
        }
        snapshot = history.snapshot(&history.select(loading.query()));
        // Nothing arrives meanwhile.
        if let Err(error) = history.read(&snapshot, &mut loading, &mut |_| true) {
            joined.live.abandon(loading);
            return Err(error);
        }
        Ok((joined, loading))
    }

    /// Lets live queries see that time passes.
    pub(crate) fn tick(&self, history: &impl History) {
        let Ok(mut joined) = self.lock() else { return };
        let wakes = joined.live.tick(history.now_micros(), &|id| history.key(id));
        drop(joined);
        drop(wakes);
    }

    /// What takes away, or only looks.
    pub(crate) fn with_live<T>(&self, look: impl FnOnce(&mut Live) -> T) -> T {
        look(&mut self.lock_anyhow().live)
    }

    /// For what must not go on once a thread has panicked half-way through a change: live queries might miss points.
    fn lock(&self) -> Result<MutexGuard<'_, Joined>, Error> {
        self.joined.lock().map_err(|_| Error::Panicked)
    }

    fn lock_anyhow(&self) -> MutexGuard<'_, Joined> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Joined {
    /// Tells the live queries of every series up to that one, before its first point gets to them.
    fn announce(&mut self, history: &impl History, newest: SeriesId) {
        while self.announced <= newest.0 {
            let id = SeriesId(self.announced);
            if let Some(key) = history.key(id) {
                self.live.series_added(id, &key);
            }
            self.announced += 1;
        }
    }
}
