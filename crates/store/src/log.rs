//! The log: replayed when a store is opened, and appended to. Each record in it is what one commit wrote.
//!
//! A record is written only after the one before it was synced. So a bad record that another one follows was whole once:
//! that is damage, and reported. A bad record that nothing follows is what a crash leaves, and was never acknowledged: it
//! does not count.
//!
//! The log is spread over files. Where a file begins (its header names the place) the one before it ends, whatever else
//! stands there: so a store that is opened, or whose sync has failed, goes on in a new file and leaves the old one alone.

#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slung_model::TimeRange;

use crate::error::Failure;
use crate::format::{self, FILE_HEADER_BYTES, FileKind, Invalid, LogId, RECORD_HEADER_BYTES, RecordHeader};
use crate::records::{self, Beginning, Found, Records};
use crate::vfs::{File, Vfs};
use crate::{Damage, Error, Trimmed};

const NAME_PREFIX: &str = "log-";

/// The name of the log's file of that number.
pub(crate) fn file_name(number: u64) -> String {
    format!("{NAME_PREFIX}{number:08}")
}

/// The numbers of the log's files among those names, rising.
pub(crate) fn file_numbers(names: &[String]) -> Vec<u64> {
    let number = |name: &String| {
        let number = name.strip_prefix(NAME_PREFIX)?.parse().ok()?;
        (file_name(number) == *name).then_some(number)
    };
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// What takes the records of a log.
pub(crate) trait Take {
    /// One more record.
    ///
    /// # Errors
    /// [`Invalid`] inside, where it does not follow from those before.
    fn take(&mut self, header: &RecordHeader, body: &[u8]) -> Result<Result<(), Invalid>, Error>;

    /// Records are missing before the next one.
    fn skipped(&mut self);

    /// How far it has come: the number of the next point, and how many series there are.
    fn position(&self) -> Position;
}

/// A place in the order of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Position {
    pub(crate) next_seq: u64,
    pub(crate) series: u32,
}

/// A file of the log that is not written any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) number: u64,
    /// Behind its last record.
    pub(crate) end: Position,
    pub(crate) bytes: u64,
}

/// What a log was found to be.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// All of its files.
    pub(crate) sealed: Vec<Sealed>,
    /// The last record, whole.
    last: Vec<u8>,
    /// Where the last record begins, or where the first one would.
    last_place: u64,
    /// How long the records are, bytes.
    pub(crate) bytes: u64,
    pub(crate) trimmed: Option<Trimmed>,
    pub(crate) damage: Vec<Damage>,
    /// The numbers of the files that are damaged.
    pub(crate) damaged: Vec<u64>,
}

struct LogFile {
    number: u64,
    path: PathBuf,
    file: Box<dyn File>,
    base: u64,
}

/// Reads the files of a log, oldest first. `first` is the one to begin with. Nothing is changed.
pub(crate) fn replay(
    vfs: &dyn Vfs,
    dir: &Path,
    id: LogId,
    numbers: &[u64],
    first: u64,
    into: &mut dyn Take,
) -> Result<Replayed, Error> {
    let mut replayed = Replayed { last_place: FILE_HEADER_BYTES as u64, ..Replayed::default() };
    let files = open_files(vfs, dir, id, numbers, first, &mut replayed)?;
    if files.first().is_none_or(|file| file.number != first) {
        into.skipped();
    }
    for (index, file) in files.iter().enumerate() {
        let next = files.get(index + 1).map(|next| next.base + FILE_HEADER_BYTES as u64);
        replay_file(file, id, next, into, &mut replayed)?;
        let bytes = file.file.size().map_err(Error::io("asking for the size of", &file.path))?;
        replayed.bytes += bytes;
        replayed.sealed.push(Sealed { number: file.number, end: into.position(), bytes });
    }
    Ok(replayed)
}

fn damage(path: &Path, offset: u64, reason: String) -> Damage {
    Damage { path: path.into(), offset, reason, series: None, range: TimeRange::ALL }
}

fn open_files(
    vfs: &dyn Vfs,
    dir: &Path,
    id: LogId,
    numbers: &[u64],
    first: u64,
    replayed: &mut Replayed,
) -> Result<Vec<LogFile>, Error> {
    let mut files: Vec<LogFile> = Vec::new();
    for (expected, &number) in (first..).zip(numbers.iter().filter(|number| **number >= first)) {
        let path = dir.join(file_name(number));
        if number != expected {
            return Err(Error::Missing { path: dir.join(file_name(expected)) });
        }
        let file = vfs.open_read(&path).map_err(Error::io("opening", &path))?;
        let base = match records::begin(&*file, &path, FileKind::Log, number)? {
            Beginning::Good(found, base) if found == id => Some(base),
            Beginning::Good(..) => return Err(Error::NotALog { path, reason: "the file belongs to another store" }),
            Beginning::Bad(Invalid(reason)) => {
                // Each record knows its place, so only the header itself is lost, or a file without any record.
                replayed.damage.push(damage(&path, 0, reason.into()));
                replayed.damaged.push(number);
                records::base_by_first_record(&*file, &path, id)?
            }
        };
        if let Some(base) = base {
            if files.last().is_some_and(|before| base < before.base) {
                return Err(Error::NotALog { path, reason: "the file begins before the one before it" });
            }
            files.push(LogFile { number, path, file, base });
        }
    }
    Ok(files)
}

fn replay_file(
    file: &LogFile,
    id: LogId,
    next: Option<u64>,
    into: &mut dyn Take,
    replayed: &mut Replayed,
) -> Result<(), Error> {
    let mut records = Records::new(&*file.file, &file.path, id, file.base, next)?;
    let offset = |place: u64| place - file.base;
    let mut report = |place: u64, reason: String| {
        replayed.damage.push(damage(&file.path, offset(place), reason));
        if replayed.damaged.last() != Some(&file.number) {
            replayed.damaged.push(file.number);
        }
    };
    let mut last = None;
    loop {
        match records.read()? {
            Found::Record(place, header, body) => {
                // Behind right checksums: what is wrong was written like this, by a bug or by a version with other rules.
                into.take(&header, body)?.map_err(|Invalid(reason)| Error::Damaged {
                    path: file.path.clone(),
                    offset: offset(place),
                    reason: format!("{reason}, though its checksum is right"),
                })?;
                last = Some((place, header.record_bytes()));
            }
            Found::Bad(Invalid(reason)) => {
                let (bad, end) = (records.at, records.end);
                if records.find_next()? {
                    report(bad, format!("{reason}, yet another record follows at byte {}", offset(records.at)));
                    into.skipped();
                } else if next.is_some() {
                    report(bad, format!("{reason}, yet the log goes on in another file"));
                    into.skipped();
                    break;
                } else {
                    replayed.trimmed = Some(Trimmed {
                        path: file.path.clone(),
                        offset: offset(bad),
                        bytes: end - bad,
                        reason: reason.into(),
                    });
                    break;
                }
            }
            Found::End => {
                if next.is_some_and(|next| records.end < next) {
                    report(records.end, "the file ends before the next one begins".into());
                    into.skipped();
                }
                break;
            }
        }
    }
    match last {
        Some((place, bytes)) => {
            let length =
                usize::try_from(bytes).map_err(|_| Error::io("reading", &file.path)(ErrorKind::OutOfMemory.into()))?;
            replayed.last.resize(length, 0);
            file.file.read_at(offset(place), &mut replayed.last).map_err(Error::io("reading", &file.path))?;
            replayed.last_place = place;
        }
        // A file that begins with a copy of what the one before ended with, and lost it.
        None if file.base + FILE_HEADER_BYTES as u64 >= replayed.last_place => {
            replayed.last.clear();
            replayed.last_place = file.base + FILE_HEADER_BYTES as u64;
        }
        None => {}
    }
    Ok(())
}

/// The log at its end, to be appended to.
pub(crate) struct Log {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    id: LogId,
    file_bytes_max: u64,
    number: u64,
    path: PathBuf,
    file: Box<dyn File>,
    /// The place of the file's first byte.
    base: u64,
    /// Where the next record goes.
    end: u64,
    /// What is behind the last record in this file.
    position: Position,
    /// The file's sync has failed: nothing more is believed of it.
    given_up: bool,
    /// The last record is an empty one, or there is none: damage to what is before is never taken for a torn end.
    pub(crate) proven: bool,
}

/// A log's record that was written and synced.
pub(crate) struct Appended {
    pub(crate) sync: Duration,
    /// The file before, where a new one was begun.
    pub(crate) sealed: Option<Sealed>,
}

impl Log {
    /// Begins a new file behind what was replayed. Its first record is a copy of the last one there.
    ///
    /// That the last record could be read does not mean that it is on the disk: where its sync failed in an earlier run,
    /// the system may hold it in memory, believe that it is clean, and never write it. So it is written once more.
    pub(crate) fn go_on(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        id: LogId,
        number: u64,
        replayed: &Replayed,
        position: Position,
        file_bytes_max: u64,
    ) -> Result<Self, Failure> {
        let base = replayed.last_place - FILE_HEADER_BYTES as u64;
        let (file, path) = begin_file(&*vfs, dir, id, number, base, &replayed.last)?;
        let end = replayed.last_place + replayed.last.len() as u64;
        let (dir, proven) = (dir.into(), replayed.last.len() <= RECORD_HEADER_BYTES);
        Ok(Self { vfs, dir, id, file_bytes_max, number, path, file, base, end, position, given_up: false, proven })
    }

    /// The length of the present file, bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.end - self.base
    }

    /// Writes and syncs one record. `position` is what is behind it.
    ///
    /// # Errors
    /// Where the disk is full, the same record may be tried again, and nothing else. After any other error nothing may be
    /// appended any more.
    pub(crate) fn append(
        &mut self,
        record: &mut [u8],
        first_seq: u64,
        points: u32,
        position: Position,
    ) -> Result<Appended, Failure> {
        format::seal_record(self.id, self.end, first_seq, points, record);
        let start = Instant::now();
        if !self.given_up && self.file_bytes() < self.file_bytes_max {
            let synced = match self.file.write_at(self.end - self.base, record) {
                // No sync has failed, so the same place may be written again.
                Err(source) if source.kind() == ErrorKind::StorageFull => return Err(self.failure(source)),
                Err(_) => false,
                Ok(()) => self.file.sync().is_ok(),
            };
            if synced {
                self.end += record.len() as u64;
                self.position = position;
                self.proven = record.len() == RECORD_HEADER_BYTES;
                return Ok(Appended { sync: start.elapsed(), sealed: None });
            }
            self.given_up = true;
        }
        let base = self.end - FILE_HEADER_BYTES as u64;
        let (file, path) = begin_file(&*self.vfs, &self.dir, self.id, self.number + 1, base, record)?;
        let sealed = Sealed { number: self.number, end: self.position, bytes: self.file_bytes() };
        (self.file, self.path, self.base, self.given_up) = (file, path, base, false);
        self.number += 1;
        self.end += record.len() as u64;
        self.position = position;
        self.proven = record.len() == RECORD_HEADER_BYTES;
        Ok(Appended { sync: start.elapsed(), sealed: Some(sealed) })
    }

    fn failure(&self, source: std::io::Error) -> Failure {
        Failure { doing: "writing", path: self.path.clone(), offset: self.end - self.base, source }
    }
}

/// Makes a file of the log with one record or none. Under its own name it is never without a whole header.
pub(crate) fn begin_file(
    vfs: &dyn Vfs,
    dir: &Path,
    id: LogId,
    number: u64,
    base: u64,
    record: &[u8],
) -> Result<(Box<dyn File>, PathBuf), Failure> {
    let path = dir.join(file_name(number));
    let new_path = path.with_extension("new");
    let failure = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| Failure { doing, path, offset: 0, source }
    };
    let file = vfs.create(&new_path).map_err(failure("making", &new_path))?;
    let header = format::encode_file_header(FileKind::Log, id, number, base);
    file.write_at(0, &header).map_err(failure("writing", &new_path))?;
    // Apart, as it may be long and putting both together would take as much memory again.
    file.write_at(FILE_HEADER_BYTES as u64, record).map_err(failure("writing", &new_path))?;
    file.sync().map_err(failure("syncing", &new_path))?;
    vfs.rename(&new_path, &path).map_err(failure("renaming", &new_path))?;
    vfs.sync_dir(dir).map_err(failure("syncing", dir))?;
    Ok((file, path))
}
