//! The store as its users see it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use slung_model::{Clock, Point, Query, Seq, SeriesId, SeriesKey, TimeRange};

use crate::commit::Shared;
use crate::recover::{Recovered, recover};
use crate::tools::settled;
use crate::vfs::Vfs;
use crate::{Error, Options, Recovery, Snapshot, Stats};

/// With more points than that in memory a store is flushed when it is closed, so that the next start need not read them from
/// the log: at some 30 million a second, that takes a tenth of a second at most.
const CLOSE_POINTS_MAX: u64 = 3_000_000;

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
/// use slung_model::{Op, Point, SeriesKey, SystemClock, TimeRange};
/// use slung_store::sim::SimVfs;
/// use slung_store::{Options, Store};
///
/// // `OsVfs` instead of `SimVfs` keeps it on disk.
/// let vfs = Arc::new(SimVfs::new(1));
/// let (store, _) = Store::open(vfs, Arc::new(SystemClock), Path::new("data"), Options::default())?;
/// let key = SeriesKey::new("temp", ["sensor=1"]).expect("a valid key");
/// let (series, is_new) = store.resolve(&key)?;
/// assert!(is_new);
/// let seq = store.write(&[Point { series, timestamp: 1, value: 20.0 }, Point { series, timestamp: 2, value: 22.0 }])?;
/// assert_eq!(store.snapshot(&[series], TimeRange::ALL).aggregate()?.value(Op::Avg), Some(21.0));
/// store.wait_durable(seq)?;
/// store.close()?;
/// # Ok::<(), slung_store::Error>(())
/// ```
pub struct Store {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Also held by the threads, which may outlive the store by what they are at. `None` for a store that only reads.
    _lock: Option<Arc<crate::vfs::Lock>>,
}

/// What a deletion has taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deleted {
    /// How many points; of several with one series and timestamp all count that had not been merged.
    pub points: u64,
    /// How many segments had to be written anew, or went.
    pub segments: u64,
}

impl Store {
    /// Opens the store in a directory, which is made if it is not there. What a crash left torn at the log's end does not
    /// count, and is told; so is what is damaged, which is kept aside in the directory `quarantine`.
    ///
    /// It reads the log (what was not flushed before the end), the manifest, the definitions of series, and of each segment
    /// its directory; not the points in them.
    ///
    /// # Errors
    /// [`Error::Locked`] where another store has the directory; [`Error::Newer`], [`Error::NotALog`], [`Error::Missing`] and
    /// [`Error::Damaged`] where nothing can be told without what is new, missing or damaged (it is left as it is);
    /// [`Error::Option`] for an option out of range; [`Error::Io`] for what the system refuses.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        options: Options,
    ) -> Result<(Self, Recovery), Error> {
        options.validate()?;
        vfs.create_dir(dir).map_err(Error::io("making the directory", dir))?;
        let lock = vfs.lock(dir).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::Locked { dir: dir.into() },
            _ => Error::io("locking", dir)(error),
        })?;
        let lock = Arc::new(lock);
        let mut recovered = recover(vfs, dir, &options, false)?;
        let log = recovered.begin_log()?;
        recovered.disk.keep_reserve();
        let log_bytes = log.file_bytes();
        let Recovered { disk, catalogue, memory, next_seq, recovery, .. } = recovered;
        let shared = Arc::new(Shared::new(disk, clock, catalogue, memory, next_seq, log_bytes));
        let mut store = Self { shared: Arc::clone(&shared), threads: Vec::new(), _lock: Some(lock) };
        store.start("slung-commit", dir, move |shared| shared.run(log))?;
        if options.background {
            store.start("slung-flush", dir, Shared::run_flushes)?;
            store.start("slung-upkeep", dir, Shared::run_upkeep)?;
        }
        Ok((store, recovery))
    }

    /// Opens a directory for reading alone, also one that another store is writing to, or that can't be written. It shows
    /// what was there when it was opened, as far as the log's end was readable then; nothing in the directory is changed.
    /// All that the log holds is in memory, whatever `memtable_bytes_max` says.
    ///
    /// # Errors
    /// As [`Store::open`], without [`Error::Locked`]. A store that writes may remove files meanwhile: then it is tried again,
    /// and what is missing in the end is an error.
    pub fn open_read_only(vfs: Arc<dyn Vfs>, dir: &Path, options: Options) -> Result<(Self, Recovery), Error> {
        options.validate()?;
        let recovered = settled(|| recover(Arc::clone(&vfs), dir, &options, true))?;
        let Recovered { disk, catalogue, memory, next_seq, recovery, .. } = recovered;
        let log_bytes = recovery.log_bytes;
        let shared = Shared::new(disk, Arc::new(slung_model::SystemClock), catalogue, memory, next_seq, log_bytes);
        shared.read_only();
        Ok((Self { shared: Arc::new(shared), threads: Vec::new(), _lock: None }, recovery))
    }

    fn start(&mut self, name: &str, dir: &Path, run: impl FnOnce(&Shared) + Send + 'static) -> Result<(), Error> {
        let (shared, lock) = (Arc::clone(&self.shared), self._lock.clone());
        let run = move || {
            let _lock = lock;
            run(&shared);
        };
        let thread = thread::Builder::new().name(name.into()).spawn(run);
        self.threads.push(thread.map_err(Error::io("starting a thread for", dir))?);
        Ok(())
    }

    /// The id of a series, and whether it was made known by this call. A new one goes to the log before any point of it.
    ///
    /// # Errors
    /// For a new series only: [`Error::TooManySeries`]; [`Error::Busy`] where even the room that is kept for definitions
    /// (as much again as `pending_bytes_max`) is taken, try again after the next commit; [`Error::ReadOnly`].
    pub fn resolve(&self, key: &SeriesKey) -> Result<(SeriesId, bool), Error> {
        if let Some(id) = self.shared.catalogue().get(key) {
            return Ok((id, false));
        }
        let mut catalogue = self.shared.catalogue_to_change();
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

    /// The series that exist, with a name of their own each: how many names there are is up to who writes. In the order of their
    /// ids.
    pub fn series(&self) -> Vec<(SeriesId, Arc<SeriesKey>)> {
        let catalogue = self.shared.catalogue();
        let ids = (0..).map(SeriesId).take(catalogue.len());
        ids.filter_map(|id| Some((id, Arc::clone(catalogue.key(id)?)))).collect()
    }

    /// As [`Store::series`], but those behind `after` only, and at most `series_max` of them.
    pub fn series_after(&self, after: Option<SeriesId>, series_max: usize) -> Vec<(SeriesId, Arc<SeriesKey>)> {
        let catalogue = self.shared.catalogue();
        let first = after.map_or(0, |after| after.index() + 1);
        let ids = (first..catalogue.len()).take(series_max).filter_map(|index| u32::try_from(index).ok().map(SeriesId));
        ids.filter_map(|id| Some((id, Arc::clone(catalogue.key(id)?)))).collect()
    }

    /// The key of a series; `None` for an id that was not given out.
    pub fn key(&self, series: SeriesId) -> Option<Arc<SeriesKey>> {
        self.shared.catalogue().key(series).cloned()
    }

    /// The series that a query means, rising.
    pub fn select(&self, query: &Query) -> Vec<SeriesId> {
        self.shared.catalogue().select(query)
    }

    /// Stores points, all of them or none, in their order: of several with the same series and timestamp the last one
    /// stays, as it replaces one from before. They are visible on return. The answer is the [`Seq`] of the last of them
    /// (of the last point in the store for an empty batch).
    ///
    /// Other writers and new snapshots wait while a batch is put in, some 30 ns a point: batches of a few thousand cost least.
    ///
    /// # Errors
    /// [`Error::Busy`] where `pending_bytes_max` or `memtable_bytes_max` is reached; [`Error::DiskFull`];
    /// [`Error::BatchTooBig`], [`Error::UnknownSeries`] and [`Error::NotFinite`] for what can't be stored at all;
    /// [`Error::ReadOnly`] after the disk failed; [`Error::Io`] where a store without threads could not flush. Nothing is
    /// stored then.
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
    /// [`Error::ReadOnly`] where the disk failed before: the point may or may not be there after a restart.
    /// [`Error::DiskFull`] where it waits for space: it is visible, and becomes durable when writing goes on.
    pub fn wait_durable(&self, seq: Seq) -> Result<(), Error> {
        self.shared.wait_durable(seq)
    }

    /// Calls `listener` with [`Store::durable_through`] after every commit from now on; also, with what it was, when there may
    /// be room again for who was told [`Error::Busy`], and when the store becomes read-only, finds the disk full, or finds
    /// space again ([`Store::health`] tells). It is called without any lock on the store's threads, the committing one
    /// mostly, and holds up the next commit: it should do no more than pass the number on.
    pub fn on_commit(&self, listener: impl Fn(Seq) + Send + Sync + 'static) {
        self.shared.listen(Arc::new(listener));
    }

    /// The points of those series and that range as they are now. Ids that were not given out have no points, and one
    /// that is named twice counts once. Nothing is read or copied here: writers wait while the blocks in memory (of up to 8,192
    /// points each) that overlap the range are counted in.
    pub fn snapshot(&self, series: &[SeriesId], range: TimeRange) -> Snapshot {
        let series: Arc<[SeriesId]> = if series.is_sorted_by(|a, b| a < b) {
            series.into()
        } else {
            let mut series = series.to_vec();
            series.sort_unstable();
            series.dedup();
            series.into()
        };
        Snapshot::take(&self.shared.lock(), series, range)
    }

    /// Brings all that was written before to segments. Not needed for durability; it makes the next start faster, and what
    /// it leaves of the log is little. Waits until it is done.
    ///
    /// # Errors
    /// [`Error::Io`] where the disk fails or is full: nothing is lost then, it may be tried again. [`Error::ReadOnly`].
    pub fn flush(&self) -> Result<(), Error> {
        self.shared.flush()
    }

    /// Gives up what is too old or too much, as the options say, and merges segments once where that is due. Answers
    /// whether there may be more to do. A store with threads of its own does it by itself.
    ///
    /// # Errors
    /// [`Error::Io`] where the disk fails or is full: nothing is lost then, it may be tried again.
    pub fn upkeep(&self) -> Result<bool, Error> {
        self.shared.check_not_read_only()?;
        self.shared.upkeep_once()
    }

    /// Takes the points of those series and that range away that were written before, for good: on return no query sees them
    /// and no restart brings them back. All of them go, or none does. Points that are written meanwhile
    /// may go or stay.
    ///
    /// Every segment that has such points is written anew, which takes time and as much space again until it is done. Other
    /// deletions and merging wait.
    ///
    /// # Errors
    /// [`Error::Io`] where the disk fails or is full, [`Error::ReadOnly`], [`Error::Closing`]; nothing is deleted then.
    pub fn delete(&self, series: &[SeriesId], range: TimeRange) -> Result<Deleted, Error> {
        self.shared.check_not_read_only()?;
        self.shared.delete(series, range)
    }

    /// Whether writes are accepted.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] and [`Error::DiskFull`] say why not.
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
    /// [`Error::ReadOnly`] where the disk failed, now or before; [`Error::DiskFull`] where what was pending found no space.
    pub fn close(mut self) -> Result<(), Error> {
        let is_read_only = self._lock.is_none();
        self.finish();
        if is_read_only { Ok(()) } else { self.health() }
    }

    fn finish(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        if self.shared.lock().memory.points() > CLOSE_POINTS_MAX {
            // Where it fails all of it is in the log.
            let _ = self.shared.flush();
        }
        self.shared.close();
        for thread in self.threads.drain(..) {
            // A listener that holds the last handle to the store ends up here on the committing thread itself.
            if thread.thread().id() != thread::current().id() {
                // Each catches its own panics and tells of them as a failure.
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.finish();
    }
}
