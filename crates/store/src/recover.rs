//! Opening: what the manifest names, what the log adds, and what has to be kept aside.

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use slung_model::{Catalogue, SeriesId, TimeRange};

use crate::disk::{Change, Disk, lost_in};
use crate::format::{self, Entry, FileKind, Invalid, LogId, RecordHeader};
use crate::log::{self, Log, Position, Replayed, Take};
use crate::manifest::{Lost, Manifest};
use crate::memory::Memory;
use crate::records::{self, Beginning};
use crate::segment::{IndexCache, Segment};
use crate::series::{self, SeriesFile};
use crate::upkeep;
use crate::version::Version;
use crate::vfs::Vfs;
use crate::{
    Damage, Error, MANIFEST, Options, QUARANTINE, Recovery, SEGMENT_PREFIX, SERIES_PREFIX, segment_name, series_name,
};

/// More files of the log than that are flushed when a store is opened: each start adds one.
const LOG_FILES_MAX: usize = 8;

/// What was found, and what comes of it.
pub(crate) struct Recovered {
    pub(crate) disk: Disk,
    pub(crate) catalogue: Catalogue,
    pub(crate) memory: Memory,
    pub(crate) next_seq: u64,
    pub(crate) recovery: Recovery,
    pub(crate) replayed: Replayed,
    damage: Vec<Damage>,
}

/// Reads a directory. Nothing in it is changed, but where `vfs` has a store to write: then the points of a log that do not
/// fit into memory are flushed, a new store gets its first files, and what is damaged is kept aside.
pub(crate) fn recover(vfs: Arc<dyn Vfs>, dir: &Path, options: &Options, read_only: bool) -> Result<Recovered, Error> {
    let names = vfs.list(dir).map_err(Error::io("listing", dir))?;
    let mut manifest = match Manifest::load(&*vfs, dir)? {
        Some(manifest) => manifest,
        None => begin(&*vfs, dir, &names, options, read_only)?,
    };
    if !read_only {
        forget_removed(&*vfs, dir, &mut manifest)?;
    }
    let cache = Arc::new(IndexCache::new(options.index_cache_bytes_max));
    let mut damage = Vec::new();
    let (segments, lost) = open_segments(&*vfs, dir, &manifest, &cache)?;
    let mut catalogue = Catalogue::default();
    let series = SeriesFile::load(&*vfs, dir, manifest.store, manifest.series, &mut catalogue, &mut damage, read_only)?;
    let known = lost_in(dir, &manifest.lost);
    let version = Version::new(segments, known, manifest.floor);
    let (log_id, log_first, flushed) = (LogId(manifest.log), manifest.log_first, manifest.flushed_through);
    let disk = Disk::new(vfs, dir.into(), options.clone(), manifest, version, series, cache);
    if !lost.is_empty() && !read_only {
        let remove = lost.iter().map(|(number, _)| *number).collect();
        let lost = lost.into_iter().map(|(_, lost)| lost).collect();
        disk.change(Change { remove, lost, ..Change::default() }, &|_| None, |_| ())?;
    } else {
        // Who only reads moves nothing aside.
        let found = lost_in(dir, &lost.into_iter().map(|(_, lost)| lost).collect::<Vec<_>>());
        let in_place = |found: Damage| {
            let path = dir.join(found.path.file_name().unwrap_or_default());
            Damage { path, ..found }
        };
        damage.extend(found.into_iter().map(in_place));
    }

    let numbers = log::file_numbers(&disk.vfs.list(dir).map_err(Error::io("listing", dir))?);
    if numbers.last().is_none_or(|last| *last < log_first) {
        return Err(Error::Missing { path: dir.join(log::file_name(log_first)) });
    }
    let mut contents = Contents {
        memory: Memory::with_series(catalogue.len()),
        catalogue,
        next_seq: 1,
        flushed,
        gap: false,
        disk: &disk,
        read_only,
    };
    let replayed = log::replay(&*disk.vfs, dir, log_id, &numbers, log_first, &mut contents)?;
    let next_seq = contents.next_seq.max(flushed + 1);
    let Contents { catalogue, memory, .. } = contents;
    let recovery = Recovery {
        series: catalogue.len() as u64,
        points: memory.points() + disk.version().points(),
        log_bytes: replayed.bytes,
        trimmed: replayed.trimmed.clone(),
        damage: disk.version().lost.iter().chain(&damage).chain(&replayed.damage).cloned().collect(),
    };
    damage.extend(replayed.damage.iter().cloned());
    if read_only {
        disk.tell(&damage);
    }
    Ok(Recovered { disk, catalogue, memory, next_seq, recovery, replayed, damage })
}

impl Recovered {
    fn position(&self) -> Position {
        let series = u32::try_from(self.catalogue.len()).expect("ids are u32");
        Position { next_seq: self.next_seq, series }
    }

    /// Goes on with the log, in a new file. What was damaged is flushed, and its files kept aside.
    pub(crate) fn begin_log(&mut self) -> Result<Log, Error> {
        let numbers =
            self.replayed.sealed.iter().map(|sealed| sealed.number).chain(self.replayed.damaged.iter().copied());
        let number = numbers.max().map_or(1, |last| last + 1);
        let position = self.position();
        let file_bytes_max = self.disk.options.log_file_bytes_max;
        let log_id = LogId(self.disk.log_id());
        let begin = || {
            let vfs = Arc::clone(&self.disk.vfs);
            Log::go_on(vfs, &self.disk.dir, log_id, number, &self.replayed, position, file_bytes_max)
        };
        let log = match begin() {
            // Where a disk is full, opening the store is how retention or a deletion come to free some of it.
            Err(failure) if failure.source.kind() == ErrorKind::StorageFull => {
                self.disk.give_reserve();
                begin()?
            }
            log => log?,
        };
        self.disk.log_begun(&self.replayed.sealed, number);
        let is_damaged = !self.damage.is_empty();
        if is_damaged || self.replayed.sealed.len() > LOG_FILES_MAX {
            match self.flush(position) {
                // Many files of log are only slower.
                Err(error) if error.is_disk_full() && !is_damaged => {}
                flushed => flushed?,
            }
        }
        self.disk.remove_strangers(number)?;
        Ok(log)
    }

    fn flush(&mut self, position: Position) -> Result<(), Error> {
        let add = self.disk.write_memory(&self.memory)?;
        let lost = self.damage.iter().map(upkeep::lost).collect();
        let catalogue = &self.catalogue;
        let key = |id| catalogue.key(id).cloned();
        let change = Change { add, lost, flushed: Some(position), ..Change::default() };
        self.disk.change(change, &key, |_| ())?;
        self.damage.clear();
        self.memory = Memory::with_series(self.catalogue.len());
        Ok(())
    }
}

/// A store without a manifest: a new one, or one of the first version, which was a log of one file.
fn begin(vfs: &dyn Vfs, dir: &Path, names: &[String], options: &Options, read_only: bool) -> Result<Manifest, Error> {
    let has = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
    let logs = log::file_numbers(names);
    if has(SEGMENT_PREFIX) || has(SERIES_PREFIX) || logs.first().is_some_and(|first| *first != 1) {
        return Err(Error::Missing { path: dir.join(MANIFEST) });
    }
    let random = || RandomState::new().hash_one(dir);
    let log_id = if logs.is_empty() {
        if read_only {
            return Err(Error::Missing { path: dir.join(MANIFEST) });
        }
        let id = random();
        // Before the manifest, so that one without the log is always noticed.
        log::begin_file(vfs, dir, LogId(id), 1, 0, &[])?;
        id
    } else {
        let path = dir.join(log::file_name(1));
        let file = vfs.open_read(&path).map_err(Error::io("opening", &path))?;
        match records::begin(&*file, &path, FileKind::Log, 1)? {
            Beginning::Good(id, 0) => id.0,
            Beginning::Good(..) => return Err(Error::NotALog { path, reason: "the file is not the first of its log" }),
            Beginning::Bad(Invalid(reason)) => return Err(Error::NotALog { path, reason }),
        }
    };
    let partition_micros = u64::try_from(options.partition_micros).expect("it was validated");
    let manifest = Manifest::new(random(), log_id, partition_micros);
    if !read_only {
        manifest.store(vfs, dir)?;
    }
    Ok(manifest)
}

/// What is missing is remembered until somebody has removed the damaged file.
fn forget_removed(vfs: &dyn Vfs, dir: &Path, manifest: &mut Manifest) -> Result<(), Error> {
    if manifest.lost.is_empty() {
        return Ok(());
    }
    let folder = dir.join(QUARANTINE);
    vfs.create_dir(&folder).map_err(Error::io("making the directory", &folder))?;
    let aside = vfs.list(&folder).map_err(Error::io("listing", &folder))?;
    let here = vfs.list(dir).map_err(Error::io("listing", dir))?;
    let before = manifest.lost.len();
    manifest.lost.retain(|lost| aside.contains(&lost.file) || here.contains(&lost.file));
    if manifest.lost.len() < before {
        manifest.store(vfs, dir)?;
    }
    Ok(())
}

type Opened = (Vec<Arc<Segment>>, Vec<(u64, Lost)>);

fn open_segments(vfs: &dyn Vfs, dir: &Path, manifest: &Manifest, cache: &Arc<IndexCache>) -> Result<Opened, Error> {
    let (mut segments, mut lost) = (Vec::new(), Vec::new());
    for meta in &manifest.segments {
        let path = dir.join(segment_name(meta.number));
        match Segment::open(vfs, &path, manifest.store, meta, Arc::clone(cache)) {
            Ok(segment) => segments.push(Arc::new(segment)),
            Err(error) => lost.push((meta.number, upkeep::lost_segment(&path, meta, error)?)),
        }
    }
    Ok((segments, lost))
}

/// What a log adds to the segments.
struct Contents<'a> {
    catalogue: Catalogue,
    memory: Memory,
    next_seq: u64,
    /// Points up to this number are in segments.
    flushed: u64,
    /// Records may be missing, here or before.
    gap: bool,
    disk: &'a Disk,
    read_only: bool,
}

impl Contents<'_> {
    fn take_points(&mut self, points: format::Points<'_>) -> Result<(), Invalid> {
        let mut batch: Vec<_> = points.collect();
        let mut first = self.next_seq;
        self.next_seq += batch.len() as u64;
        let known = self.catalogue.len();
        if batch.iter().any(|point| point.series.index() >= known) {
            if !self.gap {
                return Err(Invalid("a point is of a series that is not defined"));
            }
            let last = batch.iter().map(|point| point.series.0).max().unwrap_or(0);
            let next = last.checked_add(1).ok_or(Invalid("there are too many series"))?;
            series::fill(&mut self.catalogue, SeriesId(next))?;
        }
        while self.memory.series_count() < self.catalogue.len() {
            self.memory.add_series();
        }
        if first <= self.flushed {
            let flushed = usize::try_from(self.flushed - first + 1).unwrap_or(usize::MAX).min(batch.len());
            batch.drain(..flushed);
            first += flushed as u64;
        }
        self.memory.insert(&batch, first);
        Ok(())
    }

    fn take_series(&mut self, id: SeriesId, key: &slung_model::SeriesKey) -> Result<(), Invalid> {
        if self.gap {
            series::fill(&mut self.catalogue, id)?;
        }
        series::take(&mut self.catalogue, id, key)?;
        while self.memory.series_count() < self.catalogue.len() {
            self.memory.add_series();
        }
        Ok(())
    }

    /// Points that do not fit into memory go to segments at once.
    fn make_room(&mut self) -> Result<(), Error> {
        if self.read_only || self.memory.bytes() < self.disk.options.memtable_bytes_max / 2 {
            return Ok(());
        }
        let add = self.disk.write_memory(&self.memory)?;
        let catalogue = &self.catalogue;
        let key = |id| catalogue.key(id).cloned();
        self.disk.change(Change { add, flushed: Some(self.position()), ..Change::default() }, &key, |_| ())?;
        self.flushed = self.next_seq - 1;
        self.memory = Memory::with_series(self.catalogue.len());
        Ok(())
    }
}

impl Take for Contents<'_> {
    fn take(&mut self, header: &RecordHeader, body: &[u8]) -> Result<Result<(), Invalid>, Error> {
        // A file may begin with a copy of the record that the one before ended with.
        let follows = header.first_seq == self.next_seq;
        // Points may get to segments before they get to the log, and are then missing from it after a crash.
        let is_flushed = header.first_seq > self.next_seq && header.first_seq <= self.flushed + 1;
        let may_be_missing = self.gap && header.first_seq > self.next_seq;
        if !(follows || is_flushed || may_be_missing) {
            return Ok(Err(Invalid("the number of its first point is not the next one")));
        }
        self.next_seq = header.first_seq;
        let taken = format::decode_body(header, body, |entry| match entry {
            Entry::Series(id, key) => self.take_series(id, &key),
            Entry::Points(points) => self.take_points(points),
        });
        if let Err(invalid) = taken {
            return Ok(Err(invalid));
        }
        self.make_room()?;
        Ok(Ok(()))
    }

    fn skipped(&mut self) {
        self.gap = true;
    }

    fn position(&self) -> Position {
        let series = u32::try_from(self.catalogue.len()).expect("ids are u32");
        Position { next_seq: self.next_seq, series }
    }
}

/// Whether what is missing may be of those series and that range.
pub(crate) fn concerns(damage: &Damage, series: &[SeriesId], range: TimeRange) -> bool {
    let overlaps = damage.range.start <= range.end && range.start <= damage.range.end;
    overlaps && damage.series.is_none_or(|id| series.binary_search(&id).is_ok())
}

/// Names that the store gives: what stands beside them is somebody else's and left alone.
pub(crate) fn is_ours(name: &str) -> bool {
    let number = |prefix: &str| {
        name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let is_new_log =
        |name: &str| name.strip_suffix(".new").is_some_and(|name| log::file_numbers(&[name.into()]).len() == 1);
    number(SEGMENT_PREFIX) || number(SERIES_PREFIX) || number("log-") || name == "manifest.new" || is_new_log(name)
}

impl Disk {
    /// Removes what a crash left behind: files that no manifest names, and files that were never finished.
    fn remove_strangers(&self, log_number: u64) -> Result<(), Error> {
        let manifest = self.manifest();
        let mut known: Vec<String> = manifest.segments.iter().map(|segment| segment_name(segment.number)).collect();
        known.push(series_name(manifest.series.number));
        known.extend((manifest.log_first..=log_number).map(log::file_name));
        for name in self.vfs.list(&self.dir).map_err(Error::io("listing", &self.dir))? {
            if !is_ours(&name) || known.contains(&name) {
                continue;
            }
            // A file that is damaged, and that a crash kept from being moved.
            if manifest.lost.iter().any(|lost| lost.file == name) {
                self.quarantine(&self.dir.join(&name));
            } else {
                crate::output::remove(self, &self.dir.join(&name));
            }
        }
        Ok(())
    }
}
