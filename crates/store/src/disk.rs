//! What the store has on disk beside the end of its log: the segments, the definitions of series, the older files of the log,
//! and the manifest that says which of them live. Every change is one new manifest.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slung_model::{SeriesId, SeriesKey, TimeRange};

use crate::error::Failure;
use crate::log::{self, Position, Sealed};
use crate::manifest::{Lost, Manifest};
use crate::memory::Memory;
use crate::output::{Cuts, Output, remove};
use crate::pieces::{Piece, SeriesReader};
use crate::segment::{Effort, IndexCache, Segment, SegmentMeta};
use crate::series::SeriesFile;
use crate::version::Version;
use crate::vfs::Vfs;
use crate::{Damage, Error, Options, QUARANTINE, segment_name};

/// Bytes that are given up when the disk is full, so that retention can still write a manifest.
const RESERVE_NAME: &str = "reserve";

pub(crate) struct Disk {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) dir: PathBuf,
    pub(crate) store_id: u64,
    pub(crate) options: Options,
    cache: Arc<IndexCache>,
    numbers: AtomicU64,
    books: Mutex<Books>,
    /// The log's files that are not written any more, and the number of the one that is.
    logs: Mutex<(Vec<Sealed>, u64)>,
}

/// What the manifest says. Locked while a new one is written, so that changes come one after the other.
struct Books {
    manifest: Manifest,
    version: Arc<Version>,
    series: SeriesFile,
}

/// One change of what lives.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) add: Vec<Arc<Segment>>,
    /// The numbers of segments that go.
    pub(crate) remove: Vec<u64>,
    /// Those of them that are damaged are kept aside, and what is missing is remembered.
    pub(crate) lost: Vec<Lost>,
    pub(crate) floor: Option<i64>,
    /// What was written up to there is in segments by now.
    pub(crate) flushed: Option<Position>,
}

impl Disk {
    pub(crate) fn new(
        vfs: Arc<dyn Vfs>,
        dir: PathBuf,
        options: Options,
        manifest: Manifest,
        version: Version,
        series: SeriesFile,
        cache: Arc<IndexCache>,
    ) -> Self {
        Self {
            vfs,
            dir,
            store_id: manifest.store,
            options,
            cache,
            numbers: AtomicU64::new(manifest.next_number),
            logs: Mutex::new((Vec::new(), manifest.log_first)),
            books: Mutex::new(Books { manifest, version: Arc::new(version), series }),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // A change is made on a copy first: after a panic what is here is still what the last manifest said.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logs(&self) -> MutexGuard<'_, (Vec<Sealed>, u64)> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no file of the store ever had.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// What the last manifest says.
    pub(crate) fn manifest(&self) -> Manifest {
        self.books().manifest.clone()
    }

    /// The number that every checksum in the log begins with.
    pub(crate) fn log_id(&self) -> u64 {
        self.books().manifest.log
    }

    pub(crate) fn version(&self) -> Arc<Version> {
        Arc::clone(&self.books().version)
    }

    /// Answers say that this may be missing, for a store that can't keep it aside.
    pub(crate) fn tell(&self, damage: &[Damage]) {
        let mut books = self.books();
        let lost = books.version.lost.iter().chain(damage).cloned().collect();
        books.version = Arc::new(Version::new(books.version.segments().to_vec(), lost, books.version.floor));
    }

    /// The width of a partition, microseconds.
    pub(crate) fn partition_micros(&self) -> i64 {
        self.options.partition_micros
    }

    pub(crate) fn sync_dir(&self) -> Result<(), Error> {
        let failure = |source| Failure { doing: "syncing", path: self.dir.clone(), offset: 0, source };
        Ok(self.vfs.sync_dir(&self.dir).map_err(failure)?)
    }

    /// Opens a segment that was just written.
    pub(crate) fn open_segment(&self, meta: &SegmentMeta) -> Result<Arc<Segment>, Error> {
        let path = self.dir.join(segment_name(meta.number));
        Ok(Arc::new(Segment::open(&*self.vfs, &path, self.store_id, meta, Arc::clone(&self.cache))?))
    }

    /// The log goes on in the file with that number.
    pub(crate) fn log_begun(&self, sealed: &[Sealed], number: u64) {
        let (files, current) = &mut *self.logs();
        files.extend_from_slice(sealed);
        *current = number;
    }

    /// How many bytes the log's older files have.
    pub(crate) fn sealed_bytes(&self) -> u64 {
        self.logs().0.iter().map(|sealed| sealed.bytes).sum()
    }

    /// The generation of the next flush.
    pub(crate) fn next_generation(&self) -> u64 {
        self.books().manifest.next_generation
    }

    /// Writes what is in memory into segments, which are durable and not yet part of the store.
    pub(crate) fn write_memory(&self, memory: &Memory) -> Result<Vec<Arc<Segment>>, Error> {
        let mut cuts = Cuts::new(self.partition_micros());
        for (_, blocks) in memory.series() {
            blocks.iter().for_each(|block| cuts.add(&block.columns().timestamps));
        }
        let mut output = Output::new(self, self.next_generation(), cuts, Effort::Flush, &|| Ok(()));
        let mut damage = Vec::new();
        for (series, blocks) in memory.series() {
            let pieces = blocks.iter().map(|block| Piece::Memory(Arc::clone(block))).collect();
            output.take(series, &mut SeriesReader::new(pieces, TimeRange::ALL), &mut damage)?;
        }
        debug_assert!(damage.is_empty(), "what is in memory can't be damaged");
        output.finish()
    }

    /// Makes one change: writes a manifest that says so, and hands the new version to `publish` before another change can
    /// come. `key` knows the series that a flush makes durable. Files that are not needed any more are removed.
    ///
    /// # Errors
    /// Nothing has changed then; but whether the disk says so is open until another change has succeeded, so no file that
    /// either of the two needs is removed before.
    pub(crate) fn change(
        &self,
        change: Change,
        key: &dyn Fn(SeriesId) -> Option<Arc<SeriesKey>>,
        publish: impl FnOnce(&Arc<Version>),
    ) -> Result<(), Error> {
        let mut books = self.books();
        let books = &mut *books;
        let prepared = self.prepare(&change, key, books);
        let (manifest, segments) = prepared.inspect_err(|_| {
            // No manifest names them, and none ever will.
            change.add.iter().for_each(|segment| remove(self, segment.path()));
        })?;
        match Manifest::put_in_place(&*self.vfs, &self.dir) {
            // Whether it was renamed is open: all of it once more.
            Err(failure) if failure.source.kind() == ErrorKind::StorageFull => {
                self.give_reserve();
                manifest.store(&*self.vfs, &self.dir)?;
            }
            placed => placed?,
        }
        let version = Arc::new(Version::new(segments, lost_in(&self.dir, &manifest.lost), manifest.floor));
        publish(&version);
        books.version = version;
        books.manifest = manifest;
        self.remove_old(&change, books);
        Ok(())
    }

    /// Writes the manifest that makes a change, and all that it names, without putting it in place; answers it with the
    /// segments that live then.
    fn prepare(
        &self,
        change: &Change,
        key: &dyn Fn(SeriesId) -> Option<Arc<SeriesKey>>,
        books: &mut Books,
    ) -> Result<(Manifest, Vec<Arc<Segment>>), Error> {
        let mut manifest = books.manifest.clone();
        if let Some(position) = change.flushed {
            let count = manifest.series.count;
            books.series.append(self, count, position.series, key)?;
            manifest.series = books.series.place(count.max(position.series));
            manifest.flushed_through = manifest.flushed_through.max(position.next_seq - 1);
            manifest.next_generation += u64::from(!change.add.is_empty());
            let (sealed, current) = &*self.logs();
            let needed = |file: &&Sealed| {
                file.end.next_seq - 1 > manifest.flushed_through || file.end.series > manifest.series.count
            };
            manifest.log_first =
                sealed.iter().find(needed).map_or(*current, |file| file.number).max(manifest.log_first);
        }
        manifest.floor = change.floor.map_or(manifest.floor, |floor| floor.max(manifest.floor));
        manifest.lost.extend(change.lost.iter().cloned());
        let kept = books.version.segments().iter().filter(|segment| !change.remove.contains(&segment.meta().number));
        let segments: Vec<Arc<Segment>> = kept.chain(&change.add).cloned().collect();
        manifest.segments = segments.iter().map(|segment| segment.meta().clone()).collect();
        manifest.next_number = self.numbers.load(Ordering::Relaxed);
        match manifest.write(&*self.vfs, &self.dir) {
            Err(failure) if failure.source.kind() == ErrorKind::StorageFull => {
                self.give_reserve();
                manifest.write(&*self.vfs, &self.dir)?;
            }
            written => written?,
        }
        Ok((manifest, segments))
    }

    /// Removes the files of what has gone; damaged ones are moved aside.
    fn remove_old(&self, change: &Change, books: &Books) {
        for number in &change.remove {
            let path = self.dir.join(segment_name(*number));
            if change.lost.iter().any(|lost| lost.file == segment_name(*number)) {
                self.quarantine(&path);
            } else {
                remove(self, &path);
            }
        }
        let mut logs = self.logs();
        logs.0.retain(|file| {
            let needed = file.number >= books.manifest.log_first;
            if !needed {
                let name = log::file_name(file.number);
                let path = self.dir.join(&name);
                let damaged = books.manifest.lost.iter().any(|lost| lost.file == name);
                if damaged { self.quarantine(&path) } else { remove(self, &path) }
            }
            needed
        });
    }

    /// Moves a damaged file aside. Where that fails it stays, and is moved when the store is opened again.
    pub(crate) fn quarantine(&self, path: &Path) {
        let folder = self.dir.join(QUARANTINE);
        let moved = self.vfs.create_dir(&folder).and_then(|()| {
            let name = path.file_name().ok_or(ErrorKind::InvalidInput)?;
            self.vfs.rename(path, &folder.join(name))?;
            self.vfs.sync_dir(&folder)
        });
        drop(moved);
    }

    /// Gives up the bytes that were put aside.
    pub(crate) fn give_reserve(&self) {
        remove(self, &self.dir.join(RESERVE_NAME));
    }

    /// Puts bytes aside for when the disk is full, unless they are there. Without room for all it takes what there is.
    pub(crate) fn keep_reserve(&self) {
        let path = self.dir.join(RESERVE_NAME);
        let bytes = self.options.reserve_bytes;
        let size = self.vfs.open_read(&path).and_then(|file| file.size()).ok();
        // A crash or a full disk may have cut it.
        let there = size.map_or(0, |size| usize::try_from(size).unwrap_or(usize::MAX));
        if there >= bytes {
            return;
        }
        // Not zeros, which some file systems don't store.
        let filler = vec![0xA5; bytes - there];
        let file = if size.is_some() { self.vfs.open(&path) } else { self.vfs.create(&path) };
        // Less of it is better than none.
        let _ = file.and_then(|file| {
            file.write_at(there as u64, &filler)?;
            file.sync()
        });
    }

    /// The segments by number, for who works on some of them.
    pub(crate) fn segments(&self, numbers: &[u64]) -> BTreeMap<u64, Arc<Segment>> {
        let version = self.version();
        let wanted = version.segments().iter().filter(|segment| numbers.contains(&segment.meta().number));
        wanted.map(|segment| (segment.meta().number, Arc::clone(segment))).collect()
    }
}

/// What is missing, as an answer tells it.
pub(crate) fn lost_in(dir: &Path, lost: &[Lost]) -> Vec<Damage> {
    let damage = |lost: &Lost| {
        // As it was told when it was found, so that it is not told twice now.
        let told = lost.reason.strip_prefix("damaged at byte ").and_then(|rest| rest.split_once(": "));
        let told = told.and_then(|(offset, reason)| Some((offset.parse().ok()?, reason)));
        let (offset, reason) = told.unwrap_or((0, &lost.reason));
        let path = dir.join(QUARANTINE).join(&lost.file);
        Damage { path, offset, reason: reason.into(), series: lost.series, range: lost.range }
    };
    lost.iter().map(damage).collect()
}
