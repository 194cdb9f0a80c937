//! The definitions of series that the log holds no longer: one file that is appended to with each flush. How much of it counts
//! stands in the manifest.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use slung_model::{Catalogue, SeriesId, SeriesKey, TimeRange};

use crate::disk::Disk;
use crate::error::Failure;
use crate::format::{self, Entry, FILE_HEADER_BYTES, FileKind, Invalid, LogId, RECORD_HEADER_BYTES};
use crate::manifest;
use crate::records::{self, Beginning, Found, Records};
use crate::vfs::{File, Vfs};
use crate::{Damage, Error, series_name};

/// A record ends when it has so many bytes, so that neither writing nor reading takes much memory.
const RECORD_BYTES: usize = 1 << 20;

/// The file of definitions, at its end.
pub(crate) struct SeriesFile {
    /// `None` until the first series is written, and after a failure: then a new file is made.
    file: Option<Box<dyn File>>,
    number: u64,
    bytes: u64,
}

/// What stands in for a series whose definition was lost, so that its points are still there.
fn stand_in(id: SeriesId) -> SeriesKey {
    SeriesKey::new("slung.lost", [format!("id={}", id.0)]).expect("within all limits")
}

/// Makes series known up to that id, which is the next one then, where their definitions were lost.
pub(crate) fn fill(catalogue: &mut Catalogue, next: SeriesId) -> Result<(), Invalid> {
    while catalogue.len() < next.index() {
        let id = SeriesId(u32::try_from(catalogue.len()).map_err(|_| Invalid("there are too many series"))?);
        catalogue.insert(&stand_in(id)).map_err(|_| Invalid("there are too many series"))?;
        if catalogue.len() == id.index() {
            return Err(Invalid("a series stands in for itself"));
        }
    }
    Ok(())
}

/// Takes one definition. It has to follow those before, or be one that is known.
pub(crate) fn take(catalogue: &mut Catalogue, id: SeriesId, key: &SeriesKey) -> Result<(), Invalid> {
    match catalogue.key(id).cloned() {
        Some(known) if *known == *key => Ok(()),
        // The definition was lost in one file, and stands in another one.
        Some(known) if *known == stand_in(id) && catalogue.rename(id, key) => Ok(()),
        Some(_) => Err(Invalid("a series is defined anew with another key")),
        None if id.index() != catalogue.len() => Err(Invalid("a series is not defined in the order of ids")),
        None if catalogue.get(key).is_some() => Err(Invalid("a series is defined twice")),
        None => catalogue.insert(key).map(drop).map_err(|_| Invalid("there are too many series")),
    }
}

fn identity(store_id: u64) -> LogId {
    // Another number than the log's, so that a record of one never passes for one of the other.
    LogId(store_id.rotate_left(32) ^ 0x5E51_E500)
}

impl SeriesFile {
    /// What the manifest says of it.
    pub(crate) fn place(&self, count: u32) -> manifest::SeriesFile {
        manifest::SeriesFile { number: self.number, bytes: self.bytes, count }
    }

    /// Without a file, as in a new store, or where the next definitions shall go to a new one.
    pub(crate) fn none() -> Self {
        Self { file: None, number: 0, bytes: 0 }
    }

    /// Reads as much of the file as counts into the catalogue. Whose definitions are damaged gets a stand-in.
    pub(crate) fn load(
        vfs: &dyn Vfs,
        dir: &Path,
        store_id: u64,
        place: manifest::SeriesFile,
        catalogue: &mut Catalogue,
        damage: &mut Vec<Damage>,
        read_only: bool,
    ) -> Result<Self, Error> {
        let manifest::SeriesFile { number, bytes, count } = place;
        if count == 0 {
            return Ok(Self::none());
        }
        let path = dir.join(series_name(number));
        let opened = if read_only { vfs.open_read(&path) } else { vfs.open(&path) };
        let file = opened.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Missing { path: path.clone() },
            _ => Error::io("opening", &path)(error),
        })?;
        let before = damage.len();
        let mut report = |offset: u64, reason: &str| {
            damage.push(Damage {
                path: path.clone(),
                offset,
                reason: reason.into(),
                series: None,
                range: TimeRange::ALL,
            });
        };
        match records::begin(&*file, &path, FileKind::Series, number)? {
            Beginning::Good(id, 0) if id == identity(store_id) => {}
            Beginning::Good(..) => report(0, "the file belongs to another store"),
            Beginning::Bad(Invalid(reason)) => report(0, reason),
        }
        let mut records = Records::new(&*file, &path, identity(store_id), 0, Some(bytes))?;
        if records.end < bytes {
            report(records.end, "the file ends too early");
        }
        loop {
            match records.read()? {
                Found::End => break,
                Found::Bad(Invalid(reason)) => {
                    report(records.at, reason);
                    records.find_next()?;
                }
                Found::Record(place, header, body) => {
                    let invalid =
                        |Invalid(reason)| Error::Damaged { path: path.clone(), offset: place, reason: reason.into() };
                    let first = u32::try_from(header.first_seq).map_err(|_| invalid(Invalid("an id is too large")))?;
                    fill(catalogue, SeriesId(first.min(count))).map_err(invalid)?;
                    let taken = format::decode_body(&header, body, |entry| match entry {
                        Entry::Series(id, key) => take(catalogue, id, &key),
                        Entry::Points(_) => Err(Invalid("there are points among the definitions of series")),
                    });
                    taken.map_err(invalid)?;
                }
            }
        }
        if catalogue.len() < count as usize && damage.len() == before {
            damage.push(Damage {
                path: path.clone(),
                offset: bytes,
                reason: "definitions are missing".into(),
                series: None,
                range: TimeRange::ALL,
            });
        }
        fill(catalogue, SeriesId(count)).map_err(|Invalid(reason)| Error::Damaged {
            path: path.clone(),
            offset: bytes,
            reason: reason.into(),
        })?;
        // A damaged file is not written to: the next flush begins a new one, with all that is known.
        let file = (damage.len() == before).then_some(file);
        Ok(Self { file, number, bytes })
    }

    /// Makes the definitions up to `end` durable, of which those before `from` are so already.
    pub(crate) fn append(
        &mut self,
        disk: &Disk,
        from: u32,
        end: u32,
        key: &dyn Fn(SeriesId) -> Option<Arc<SeriesKey>>,
    ) -> Result<(), Error> {
        if from >= end && (self.file.is_some() || end == 0) {
            return Ok(());
        }
        if let Some(file) = self.file.take() {
            let path = disk.dir.join(series_name(self.number));
            match write(&*file, &path, disk.store_id, self.bytes, from..end, key) {
                Ok(bytes) => {
                    (self.file, self.bytes) = (Some(file), bytes);
                    return Ok(());
                }
                Err(failure)
                    if failure.source.kind() == std::io::ErrorKind::StorageFull && failure.doing != "syncing" =>
                {
                    self.file = Some(file);
                    return Err(failure.into());
                }
                // What is on the disk is unknown: all of it goes to a new file.
                Err(_) => {}
            }
        }
        let number = disk.next_number();
        let path: PathBuf = disk.dir.join(series_name(number));
        let written = begin(disk, number, 0..end.max(from), key);
        match written {
            Ok((file, bytes)) => {
                *self = Self { file: Some(file), number, bytes };
                Ok(())
            }
            Err(failure) => {
                crate::output::remove(disk, &path);
                Err(failure.into())
            }
        }
    }
}

fn begin(
    disk: &Disk,
    number: u64,
    ids: std::ops::Range<u32>,
    key: &dyn Fn(SeriesId) -> Option<Arc<SeriesKey>>,
) -> Result<(Box<dyn File>, u64), Failure> {
    let failure = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| Failure { doing, path, offset: 0, source }
    };
    let path = &disk.dir.join(series_name(number));
    let file = disk.vfs.create(path).map_err(failure("making", path))?;
    let header = format::encode_file_header(FileKind::Series, identity(disk.store_id), number, 0);
    file.write_at(0, &header).map_err(failure("writing", path))?;
    let bytes = write(&*file, path, disk.store_id, FILE_HEADER_BYTES as u64, ids, key)?;
    disk.vfs.sync_dir(&disk.dir).map_err(failure("syncing", &disk.dir))?;
    Ok((file, bytes))
}

/// Writes definitions at a place, and syncs them; answers where they end.
fn write(
    file: &dyn File,
    path: &Path,
    store_id: u64,
    mut at: u64,
    ids: std::ops::Range<u32>,
    key: &dyn Fn(SeriesId) -> Option<Arc<SeriesKey>>,
) -> Result<u64, Failure> {
    let mut record = vec![0; RECORD_HEADER_BYTES];
    let mut first = ids.start;
    let failure = |doing, offset| move |source| Failure { doing, path: path.into(), offset, source };
    for id in ids.clone() {
        let known = key(SeriesId(id)).expect("a series is known before it is flushed");
        format::encode_series(SeriesId(id), &known, &mut record);
        if record.len() >= RECORD_BYTES || id + 1 == ids.end {
            format::seal_record(identity(store_id), at, u64::from(first), 0, &mut record);
            file.write_at(at, &record).map_err(failure("writing", at))?;
            at += record.len() as u64;
            record.truncate(RECORD_HEADER_BYTES);
            first = id + 1;
        }
    }
    file.sync().map_err(failure("syncing", at))?;
    Ok(at)
}
