//! The join: one order for what is stored and what live queries see.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use slung_live::{HandleId, Live, Loading, Subscriber, WindowStats};
use slung_model::{
    AHEAD_MICROS_MAX, Clock, Op, Point, ProducerId, Query, Seq, SeriesId, SeriesKey, TimeRange, validate_point,
};
use slung_store::{Damage, Deleted, Recovery, Snapshot, Store, Vfs};

use crate::Error;
use crate::seam::{History, Seam};

/// What can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The store's.
    pub store: slung_store::Options,
    /// The live queries'.
    pub live: slung_live::Options,
    /// How far ahead of the clock a timestamp may be, microseconds; [`AHEAD_MICROS_MAX`], 24 hours, by default.
    pub ahead_micros_max: i64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            store: slung_store::Options::default(),
            live: slung_live::Options::default(),
            ahead_micros_max: AHEAD_MICROS_MAX,
        }
    }
}

/// What a historical query answers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// What the query's operator gives, or the latest value for a raw query. `None` where there is no point, but for COUNT, which is 0 then.
    pub value: Option<f64>,
    /// How many points the value is made of.
    pub count: u64,
    /// How many series the query means, with points in the range or without.
    pub series: u64,
    /// The time that was asked for, both ends included, with the clock as it was.
    pub range: TimeRange,
    /// The latest point, for a raw query or LAST: the greatest timestamp; of several series with the same, the one written last.
    pub latest: Option<Point>,
    /// What the answer may lack, because it is damaged; empty where it is complete.
    pub damage: Vec<Damage>,
}

/// What there is to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// In the store.
    pub store: slung_store::Stats,
    /// Among the live queries; each subscriber counts its updates.
    pub live: slung_live::Stats,
    /// Historical queries that were answered.
    pub queries: u64,
    /// Those of them whose sum left the finite range.
    pub sums_saturated: u64,
}

/// A time-series store and the live queries over what is written to it. Shared by any number of threads, usually in an
/// [`Arc`]. See the crate's documentation for an example.
///
/// A write is stored and seen by live queries under one lock, in one order. A subscription takes a snapshot of what is
/// stored, and its place in the stream, under the same lock, and reads without it: every point is in exactly one of the two.
pub struct Engine {
    pub(crate) stored: Stored,
    seam: Seam,
    ahead_micros_max: i64,
    commits: Arc<Commits>,
    pub(crate) queries: AtomicU64,
    pub(crate) sums_saturated: AtomicU64,
}

/// Points that a window which does not keep them reads until it catches up with what has arrived: a millisecond of work.
const READ_POINTS: usize = 65_536;

/// History for live queries.
pub(crate) struct Stored {
    pub(crate) store: Store,
    clock: Arc<dyn Clock>,
}

impl History for Stored {
    type Snapshot = Snapshot;

    fn select(&self, query: &Query) -> Vec<SeriesId> {
        self.store.select(query)
    }

    fn key(&self, series: SeriesId) -> Option<Arc<SeriesKey>> {
        self.store.key(series)
    }

    fn snapshot(&self, series: &[SeriesId]) -> Snapshot {
        self.store.snapshot(series, TimeRange::ALL)
    }

    fn read(
        &self,
        all: &Snapshot,
        loading: &mut Loading,
        catch_up: &mut dyn FnMut(&mut Loading) -> bool,
    ) -> Result<(), Error> {
        if let Some(end) = loading.newest_until() {
            loading.begin(all.narrow(TimeRange { start: i64::MIN, end }).last()?);
        }
        // Before it catches up, which may move the window's end past some of them.
        let mut is_damaged = false;
        if let Some(range) = loading.range_ahead() {
            let snapshot = all.narrow(range);
            loading.put_ahead(snapshot.scan())?;
            is_damaged |= !snapshot.damage().is_empty();
        }
        let mut last = None;
        if let Some(range) = loading.range() {
            let snapshot = all.narrow(range);
            loading.expect(snapshot.aggregate()?.count());
            if let Some(micros) = loading.bucket_micros() {
                for bucket in snapshot.buckets(micros, usize::MAX)? {
                    loading.put_bucket(bucket.start, &bucket.spread);
                }
            } else if loading.keeps_points() {
                loading.put(snapshot.scan())?;
            } else {
                let mut points = snapshot.scan().peekable();
                while points.peek().is_some() {
                    loading.put(points.by_ref().take(READ_POINTS))?;
                    if !catch_up(loading) {
                        return Ok(());
                    }
                }
            }
            last = snapshot.last()?;
            is_damaged |= !snapshot.damage().is_empty();
        }
        if is_damaged {
            loading.set_partial();
        }
        loading.end(last);
        Ok(())
    }

    fn now_micros(&self) -> i64 {
        self.clock.now_micros()
    }
}

/// Counts commits, so that a writer without room can wait for one.
#[derive(Default)]
struct Commits {
    count: Mutex<u64>,
    next: Condvar,
}

impl Commits {
    fn count(&self) -> MutexGuard<'_, u64> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self) {
        *self.count() += 1;
        self.next.notify_all();
    }

    fn wait_past(&self, seen: u64) {
        let passed = self.next.wait_while(self.count(), |count| *count == seen);
        drop(passed.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Engine {
    /// Opens the engine on a directory, which is made if it is not there. All of what is stored is read first.
    ///
    /// # Errors
    /// [`Error::Store`], as [`Store::open`] says.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        options: Options,
    ) -> Result<(Self, Recovery), Error> {
        let (store, recovery) = Store::open(vfs, Arc::clone(&clock), dir, options.store)?;
        let commits = Arc::new(Commits::default());
        store.on_commit({
            let commits = Arc::clone(&commits);
            move |_| commits.add()
        });
        let announced = u32::try_from(recovery.series).expect("series ids are u32");
        let last = store.durable_through();
        let engine = Self {
            stored: Stored { store, clock },
            seam: Seam::new(Live::new(options.live), announced, last),
            ahead_micros_max: options.ahead_micros_max,
            commits,
            queries: AtomicU64::new(0),
            sums_saturated: AtomicU64::new(0),
        };
        Ok((engine, recovery))
    }

    /// The id of a series, which is made known if it was not.
    ///
    /// # Errors
    /// [`Error::Busy`] and [`Error::Store`], as [`Store::resolve`] says.
    pub fn resolve(&self, key: &SeriesKey) -> Result<SeriesId, Error> {
        // Live queries hear of a new one with the first write of it, under the lock that they need for it.
        Ok(self.stored.store.resolve(key)?.0)
    }

    /// The key of a series; `None` for an id that was not given out.
    pub fn key(&self, series: SeriesId) -> Option<Arc<SeriesKey>> {
        self.stored.store.key(series)
    }

    /// Writes points, all of them or none, in their order. On return they are visible to every query, and every live query
    /// that they feed has its updates; durable once [`Engine::durable_through`] has reached the answer. `producer` is the
    /// connection that they came by.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Point`], [`Error::Store`] as [`Store::try_write`] says, [`Error::Panicked`]. Nothing has
    /// happened then.
    pub fn try_write(&self, producer: Option<ProducerId>, points: &[Point]) -> Result<Seq, Error> {
        self.validate(points)?;
        self.put(producer, points)
    }

    /// As [`Engine::try_write`], but waits for room. Others write and subscribe while it waits. Not for use in a listener
    /// of [`Engine::on_commit`].
    ///
    /// # Errors
    /// As [`Engine::try_write`], without [`Error::Busy`].
    pub fn write(&self, producer: Option<ProducerId>, points: &[Point]) -> Result<Seq, Error> {
        self.validate(points)?;
        loop {
            // Read before the attempt: the commit that makes room may be done right after it.
            let seen = *self.commits.count();
            match self.put(producer, points) {
                Err(Error::Busy) => self.commits.wait_past(seen),
                done => return done,
            }
        }
    }

    fn validate(&self, points: &[Point]) -> Result<(), Error> {
        let now = self.stored.clock.now_micros();
        for (index, point) in points.iter().enumerate() {
            validate_point(point.timestamp, point.value, now, self.ahead_micros_max)
                .map_err(|reason| Error::Point { index, reason })?;
        }
        Ok(())
    }

    fn put(&self, producer: Option<ProducerId>, points: &[Point]) -> Result<Seq, Error> {
        self.seam.put(&self.stored, producer, points, || Ok(self.stored.store.try_write(points)?))
    }

    /// Answers a query over what is stored now. It may read from disk, and takes its time then: some microseconds where
    /// summaries answer it, 5 ms for a million points of which each value is needed.
    ///
    /// # Errors
    /// [`Error::Store`] where the system fails to read. What is damaged is no error: the answer is partial then.
    pub fn query(&self, query: &Query) -> Result<Answer, Error> {
        let range = query.time_range(self.stored.clock.now_micros());
        let series = self.stored.store.select(query);
        let snapshot = self.stored.store.snapshot(&series, range);
        self.queries.fetch_add(1, Ordering::Relaxed);
        let mut answer =
            Answer { value: None, count: 0, series: series.len() as u64, range, latest: None, damage: Vec::new() };
        match query.op() {
            Op::Raw | Op::Last => {
                answer.latest = snapshot.last()?;
                answer.value = answer.latest.map(|point| point.value);
                answer.count = answer.latest.iter().len() as u64;
            }
            Op::First => {
                answer.value = snapshot.first()?.map(|point| point.value);
                answer.count = answer.value.iter().len() as u64;
            }
            Op::StdDev => {
                let spread = snapshot.spread()?;
                (answer.value, answer.count) = (spread.std_dev(), spread.aggregate().count());
            }
            Op::Rate => (answer.value, answer.count) = snapshot.rate()?,
            Op::Quantile(quantile) => {
                let sketch = snapshot.sketch()?;
                (answer.value, answer.count) = (sketch.quantile(quantile), sketch.count());
            }
            op => {
                let total = snapshot.aggregate()?;
                if total.is_saturated() && matches!(op, Op::Sum | Op::Avg) {
                    self.sums_saturated.fetch_add(1, Ordering::Relaxed);
                }
                (answer.value, answer.count) = (total.value(op), total.count());
            }
        }
        answer.damage = snapshot.damage();
        Ok(answer)
    }

    /// Takes the points away that a query means, whatever its operator, for good, as [`Store::delete`] says. The windows of live
    /// queries that may have some of them are made anew from what is left, and their readers are told where that changes
    /// anything; running aggregates keep what arrived.
    ///
    /// # Errors
    /// [`Error::Store`], also where the points are gone and the system fails to read what is left for a window; [`Error::Panicked`].
    pub fn delete(&self, query: &Query) -> Result<Deleted, Error> {
        let range = query.time_range(self.now_micros());
        let series = self.stored.store.select(query);
        let deleted = self.stored.store.delete(&series, range)?;
        self.seam.deleted(&self.stored, &series, range)?;
        Ok(deleted)
    }

    /// A subscriber with queues as the options say; [`Subscriber::new`] makes one with others.
    pub fn subscriber(&self) -> Arc<Subscriber> {
        self.seam.with_live(|live| live.subscriber())
    }

    /// Registers a live query: its updates come to `subscriber`. It starts from what is stored, where its range says so, and
    /// sees every later write; no point is in both, none is in neither. What happens before it returns gives no update.
    ///
    /// Where what is stored is damaged, the window starts from the rest, and [`Engine::window_stats`] says so.
    ///
    /// It may read from disk, and takes its time then: some 30 ns for each stored point of the window; nothing where it shares
    /// the window of a handle with the same query ([`Live::join`]). Writers don't wait meanwhile, other subscriptions that read
    /// do.
    ///
    /// # Errors
    /// [`Error::Live`], [`Error::Panicked`], [`Error::Store`] where the system fails to read.
    pub fn subscribe(&self, subscriber: &Arc<Subscriber>, query: &Query) -> Result<HandleId, Error> {
        self.seam.subscribe(&self.stored, subscriber, query)
    }

    /// Ends one of the subscriber's live queries, with what waits of it. Answers whether there was such a one.
    pub fn unsubscribe(&self, subscriber: &Arc<Subscriber>, handle: HandleId) -> bool {
        self.seam.with_live(|live| live.unsubscribe(subscriber, handle))
    }

    /// Ends all of the subscriber's live queries.
    pub fn remove(&self, subscriber: &Arc<Subscriber>) {
        self.seam.with_live(|live| live.remove(subscriber));
    }

    /// Nothing arrives at that subscriber until [`Engine::switch`]: its queries are registered, and their windows follow what
    /// is written.
    pub fn hold(&self, subscriber: &Arc<Subscriber>) {
        self.seam.with_live(|live| live.hold(subscriber));
    }

    /// Between two writes nothing arrives at `from` any more, and everything at `to`, which was held. Answers the number of
    /// the last point before: `from` was told of every one up to it, and `to` is told of every one after it. What waits for
    /// `from` can still be taken. Running aggregates of `to` begin here; its windows are what they are for everybody.
    pub fn switch(&self, from: Option<&Arc<Subscriber>>, to: &Arc<Subscriber>) -> Seq {
        self.seam.switch(from, to)
    }

    /// One live query as it is now; `None` where there is no such handle.
    pub fn window_stats(&self, handle: HandleId) -> Option<WindowStats> {
        self.seam.with_live(|live| live.window_stats(handle))
    }

    /// A connection is gone, after its last write: where an update can't name all producers, it goes first.
    pub fn producer_closed(&self, producer: ProducerId) {
        self.seam.with_live(|live| live.producer_closed(producer));
    }

    /// Lets live queries see that time passes: sliding windows whose source is silent. To be called about four times a
    /// second.
    pub fn tick(&self) {
        self.seam.tick(&self.stored);
    }

    /// The last point of those that no crash takes back. Only grows.
    pub fn durable_through(&self) -> Seq {
        self.stored.store.durable_through()
    }

    /// Waits until the point with that number, and all before it, are durable.
    ///
    /// # Errors
    /// [`Error::Store`] where the log failed before: the point may or may not be there after a restart.
    pub fn wait_durable(&self, seq: Seq) -> Result<(), Error> {
        Ok(self.stored.store.wait_durable(seq)?)
    }

    /// Calls `listener` with [`Engine::durable_through`] after every commit, as [`Store::on_commit`] says.
    pub fn on_commit(&self, listener: impl Fn(Seq) + Send + Sync + 'static) {
        self.stored.store.on_commit(listener);
    }

    /// Whether writes are accepted.
    ///
    /// # Errors
    /// [`Error::Store`] or [`Error::Panicked`] says why not.
    pub fn health(&self) -> Result<(), Error> {
        self.stored.store.health()?;
        if self.seam.is_broken() { Err(Error::Panicked) } else { Ok(()) }
    }

    /// The clock, microseconds since the Unix epoch.
    pub fn now_micros(&self) -> i64 {
        self.stored.clock.now_micros()
    }

    /// How far ahead of the clock a timestamp may be, microseconds.
    pub fn ahead_micros_max(&self) -> i64 {
        self.ahead_micros_max
    }

    /// What there is to count.
    pub fn stats(&self) -> Stats {
        Stats {
            store: self.stored.store.stats(),
            live: self.seam.with_live(|live| live.stats()),
            queries: self.queries.load(Ordering::Relaxed),
            sums_saturated: self.sums_saturated.load(Ordering::Relaxed),
        }
    }

    /// Commits what is pending and gives the directory back. Dropping the engine does the same, but keeps errors to itself.
    ///
    /// # Errors
    /// [`Error::Store`] where the log failed, now or before.
    pub fn close(self) -> Result<(), Error> {
        Ok(self.stored.store.close()?)
    }
}
