//! The store as its users see it.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::{self, JoinHandle};

use slung_model::{Catalogue, Point, Query, Seq, SeriesId, SeriesKey, TimeRange};

use crate::commit::Shared;
use crate::log::Log;
use crate::vfs::Vfs;
use crate::{Error, Options, Recovery, Snapshot, Stats};

/// A directory's series and points, open for writing and reading by any number of threads.
///
/// A write is visible to every snapshot that is taken after it returned, and durable once [`Store::durable_through`] has
/// reached its [`Seq`]. What is visible and not yet durable may be lost in a crash, the last written first; what is durable
/// is not lost.
///
/// ```
/// use std::path::Path;
/// use std::sync::Arc;
///
/// use slung_model::{Op, Point, SeriesKey, TimeRange};
/// use slung_store::sim::SimVfs;
/// use slung_store::{Options, Store};
///
/// // `OsVfs` instead of `SimVfs` keeps it on disk.
/// let (store, _) = Store::open(Arc::new(SimVfs::new(1)), Path::new("data"), Options::default())?;
/// let key = SeriesKey::new("temp", ["sensor=1"]).expect("a valid key");
/// let (series, is_new) = store.resolve(&key)?;
/// assert!(is_new);
/// let seq = store.write(&[Point { series, timestamp: 1, value: 20.0 }, Point { series, timestamp: 2, value: 22.0 }])?;
/// assert_eq!(store.snapshot(&[series], TimeRange::ALL).aggregate().value(Op::Avg), Some(21.0));
/// store.wait_durable(seq)?;
/// store.close()?;
/// # Ok::<(), slung_store::Error>(())
/// ```
pub struct Store {
    shared: Arc<Shared>,
    /// Locked before the shared state where both are needed.
    catalogue: RwLock<Catalogue>,
    committer: Option<JoinHandle<()>>,
    /// Also held by the committing thread, which may outlive the store by one commit.
    _lock: Arc<crate::vfs::Lock>,
}

impl Store {
    /// Opens the store in a directory, which is made if it is not there, and reads all of it. What a crash left torn at
    /// the log's end is cut off, and told.
    ///
    /// # Errors
    /// [`Error::Locked`] where another store has the directory, [`Error::Newer`], [`Error::NotALog`] and
    /// [`Error::Damaged`] where the log can't be believed (it is left as it is), [`Error::Option`] for an option out of
    /// range, [`Error::Io`] for what the system refuses.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path, options: Options) -> Result<(Self, Recovery), Error> {
        options.validate()?;
        vfs.create_dir(dir).map_err(Error::io("making the directory", dir))?;
        let lock = vfs.lock(dir).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::Locked { dir: dir.into() },
            _ => Error::io("locking", dir)(error),
        })?;
        let (log, mut contents) = Log::open(&*vfs, dir)?;
        let recovery = Recovery {
            series: contents.catalogue.len() as u64,
            points: contents.memory.points(),
            log_bytes: log.end(),
            trimmed: contents.trimmed.take(),
        };
        let catalogue = std::mem::take(&mut contents.catalogue);
        let series = u32::try_from(catalogue.len()).expect("ids are u32");
        let shared = Arc::new(Shared::new(options, contents.memory, contents.next_seq, series, log.end()));
        let lock = Arc::new(lock);
        let committer = {
            let (shared, lock) = (Arc::clone(&shared), Arc::clone(&lock));
            let run = move || {
                let _lock = lock;
                shared.run(log);
            };
            let thread = thread::Builder::new().name("slung-commit".into()).spawn(run);
            thread.map_err(Error::io("starting the committing thread for", dir))?
        };
        let store = Self { shared, catalogue: RwLock::new(catalogue), committer: Some(committer), _lock: lock };
        Ok((store, recovery))
    }

    fn catalogue(&self) -> RwLockReadGuard<'_, Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of a series, and whether it was made known by this call. A new one goes to the log before any point of it.
    ///
    /// # Errors
    /// For a new series only: [`Error::TooManySeries`]; [`Error::Busy`] where even the room that is kept for definitions
    /// (as much again as `pending_bytes_max`) is taken, try again after the next commit; [`Error::ReadOnly`].
    pub fn resolve(&self, key: &SeriesKey) -> Result<(SeriesId, bool), Error> {
        if let Some(id) = self.catalogue().get(key) {
            return Ok((id, false));
        }
        let mut catalogue = self.catalogue.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = catalogue.get(key) {
            return Ok((id, false));
        }
        let series_max = self.shared.options.series_max;
        let id = match u32::try_from(catalogue.len()) {
            Ok(id) if id < series_max => SeriesId(id),
            _ => return Err(Error::TooManySeries { series_max }),
        };
        self.shared.define(id, key)?;
        let given = catalogue.insert(key).map_err(|full| Error::TooManySeries { series_max: full.series_max })?;
        debug_assert_eq!(given, id, "the catalogue counts up");
        Ok((id, true))
    }

    /// The key of a series; `None` for an id that was not given out.
    pub fn key(&self, series: SeriesId) -> Option<Arc<SeriesKey>> {
        self.catalogue().key(series).cloned()
    }

    /// The series that a query means, rising.
    pub fn select(&self, query: &Query) -> Vec<SeriesId> {
        self.catalogue().select(query)
    }

    /// Stores points, all of them or none, in their order: of several with the same series and timestamp the last one
    /// stays, as it replaces one from before. They are visible on return. The answer is the [`Seq`] of the last of them
    /// (of the last point in the store for an empty batch).
    ///
    /// Other writers and new snapshots wait while a batch is put in, some 30 ns a point in order, half a microsecond out of
    /// order: batches of a few thousand cost least.
    ///
    /// # Errors
    /// [`Error::Busy`] where `pending_bytes_max` is reached; [`Error::Full`]; [`Error::BatchTooBig`],
    /// [`Error::UnknownSeries`] and [`Error::NotFinite`] for what can't be stored at all; [`Error::ReadOnly`] after the
    /// log failed. Nothing is stored then.
    pub fn try_write(&self, points: &[Point]) -> Result<Seq, Error> {
        self.shared.put(points, false)
    }

    /// As [`Store::try_write`], but waits for room. Not for use in a listener of [`Store::on_commit`].
    ///
    /// # Errors
    /// As [`Store::try_write`], without [`Error::Busy`].
    pub fn write(&self, points: &[Point]) -> Result<Seq, Error> {
        self.shared.put(points, true)
    }

    /// The last point of those that no crash takes back. Only grows.
    pub fn durable_through(&self) -> Seq {
        self.shared.durable()
    }

    /// Waits until the point with that number, and all before it, are durable; for one that was not written yet, until it
    /// is written too. Not for use in a listener of [`Store::on_commit`].
    ///
    /// # Errors
    /// [`Error::ReadOnly`] where the log failed before: the point may or may not be there after a restart.
    pub fn wait_durable(&self, seq: Seq) -> Result<(), Error> {
        self.shared.wait_durable(seq)
    }

    /// Calls `listener` with [`Store::durable_through`] after every commit from now on, and once more, with what it was,
    /// when the store becomes read-only ([`Store::health`] tells). It is called on the committing thread without any lock,
    /// and holds up the next commit: it should do no more than pass the number on.
    pub fn on_commit(&self, listener: impl Fn(Seq) + Send + Sync + 'static) {
        self.shared.listen(Arc::new(listener));
    }

    /// The points of those series and that range as they are now. Ids that were not given out have no points, and one
    /// that is named twice counts once. Nothing is copied and nothing computed here: writers wait while the blocks (of some
    /// 4,000 points each) that overlap the range are counted in.
    pub fn snapshot(&self, series: &[SeriesId], range: TimeRange) -> Snapshot {
        let mut series = series.to_vec();
        series.sort_unstable();
        series.dedup();
        let state = self.shared.lock();
        Snapshot::take(&state.memory, state.last(), &series, range)
    }

    /// Whether writes are accepted.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] says why not.
    pub fn health(&self) -> Result<(), Error> {
        self.shared.lock().check_writable()
    }

    /// What there is to count.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Commits what is pending and gives the directory back. Dropping the store does the same, but keeps errors to itself.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] where the log failed, now or before.
    pub fn close(mut self) -> Result<(), Error> {
        self.finish();
        self.health()
    }

    fn finish(&mut self) {
        let Some(committer) = self.committer.take() else { return };
        self.shared.close();
        // A listener that holds the last handle to the store ends up here on the committing thread itself.
        if committer.thread().id() != thread::current().id() {
            // It catches its own panics and tells of them as a failure.
            let _ = committer.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.finish();
    }
}
