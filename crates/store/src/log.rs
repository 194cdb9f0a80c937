//! The log: made, replayed and appended to. It is one file; each record in it is what one commit wrote.
//!
//! A record is written only after the one before it was synced. So a bad record that another one follows was whole once:
//! that is damage, and refused. A bad record that nothing follows is what a crash leaves, and was never acknowledged: it
//! is cut off.

use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use slung_model::{Catalogue, SeriesId};

use crate::error::Failure;
use crate::format::{self, BadHeader, Entry, FILE_HEADER_BYTES, Invalid, LogId, RECORD_HEADER_BYTES, RecordHeader};
use crate::memory::Memory;
use crate::vfs::{File, Vfs};
use crate::{Error, Trimmed};

/// The log's file. Names of this form with other numbers are kept for logs of several files.
const NAME: &str = "log-00000001";
/// The log while it is made: under its own name it is never without a whole header.
const NEW_NAME: &str = "log-00000001.new";
const NAME_PREFIX: &str = "log-";
/// How much is read at once when the log is replayed, bytes.
const READ_BYTES: usize = 1 << 20;

/// The log, at its end.
pub(crate) struct Log {
    file: Box<dyn File>,
    path: PathBuf,
    id: LogId,
    end: u64,
}

/// What a log held.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) catalogue: Catalogue,
    pub(crate) memory: Memory,
    /// The number of the next point.
    pub(crate) next_seq: u64,
    pub(crate) trimmed: Option<Trimmed>,
}

impl Log {
    /// Opens the log of a directory, or makes it. On return all that was read is durable.
    pub(crate) fn open(vfs: &dyn Vfs, dir: &Path) -> Result<(Self, Contents), Error> {
        let names = vfs.list(dir).map_err(Error::io("listing", dir))?;
        let strange = |name: &&String| name.starts_with(NAME_PREFIX) && *name != NAME && *name != NEW_NAME;
        if let Some(name) = names.iter().find(strange) {
            return Err(Error::Newer { path: dir.join(name), what: "a log of several files".into() });
        }
        let path = dir.join(NAME);
        if !names.iter().any(|name| name == NAME) {
            return Ok((Self::make(vfs, dir, path)?, Contents { next_seq: 1, ..Contents::default() }));
        }
        let file = vfs.open(&path).map_err(Error::io("opening", &path))?;
        let mut replay = Replay::begin(&*file, &path)?;
        let trimmed = replay.run()?;
        let Replay { id, at, last, mut contents, .. } = replay;
        contents.trimmed = trimmed;
        let log = Self { file, path, id, end: at };
        log.make_durable(last, contents.trimmed.is_some())?;
        // The run that made the file may have stopped before this.
        vfs.sync_dir(dir).map_err(Error::io("syncing", dir))?;
        Ok((log, contents))
    }

    fn make(vfs: &dyn Vfs, dir: &Path, path: PathBuf) -> Result<Self, Error> {
        let new_path = dir.join(NEW_NAME);
        let file = vfs.create(&new_path).map_err(Error::io("making", &new_path))?;
        let id = LogId(RandomState::new().hash_one(&path));
        let header = format::encode_file_header(id);
        file.write_at(0, &header).map_err(Error::io("writing", &new_path))?;
        file.sync().map_err(Error::io("syncing", &new_path))?;
        vfs.rename(&new_path, &path).map_err(Error::io("renaming", &new_path))?;
        vfs.sync_dir(dir).map_err(Error::io("syncing", dir))?;
        Ok(Self { file, path, id, end: FILE_HEADER_BYTES as u64 })
    }

    /// Makes durable what was read, and cuts off what follows it.
    ///
    /// That the last record could be read does not mean that it is on the disk: where its sync failed in an earlier run,
    /// the system may hold it in memory, believe that it is clean, and never write it. So it is written once more.
    fn make_durable(&self, last: Option<(u64, u64)>, trim: bool) -> Result<(), Error> {
        if trim {
            self.file.truncate(self.end).map_err(Error::io("cutting the torn end off", &self.path))?;
        }
        let mut buffer = Vec::new();
        let (mut at, end) = last.unwrap_or((self.end, self.end));
        while at < end {
            let bytes = usize::try_from(end - at).unwrap_or(READ_BYTES).min(READ_BYTES);
            buffer.resize(bytes, 0);
            self.file.read_at(at, &mut buffer).map_err(Error::io("reading", &self.path))?;
            self.file.write_at(at, &buffer).map_err(Error::io("writing", &self.path))?;
            at += bytes as u64;
        }
        self.file.sync().map_err(Error::io("syncing", &self.path))
    }

    /// The log's length, bytes.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Writes and syncs one record; says how long the sync took. After an error nothing may be appended any more.
    pub(crate) fn append(&mut self, record: &mut [u8], first_seq: u64, points: u32) -> Result<Duration, Failure> {
        format::seal_record(self.id, self.end, first_seq, points, record);
        let (path, offset) = (&self.path, self.end);
        let failure = |doing| move |source| Failure { doing, path: path.clone(), offset, source };
        self.file.write_at(self.end, record).map_err(failure("writing"))?;
        let start = Instant::now();
        self.file.sync().map_err(failure("syncing"))?;
        self.end += record.len() as u64;
        Ok(start.elapsed())
    }
}

/// The reading of a log from its beginning.
struct Replay<'a> {
    path: &'a Path,
    reader: Reader<'a>,
    id: LogId,
    /// Where the next record begins.
    at: u64,
    /// The last whole record, from byte to byte.
    last: Option<(u64, u64)>,
    contents: Contents,
}

impl<'a> Replay<'a> {
    fn begin(file: &'a dyn File, path: &'a Path) -> Result<Self, Error> {
        let size = file.size().map_err(Error::io("asking for the size of", path))?;
        let mut reader = Reader { file, path, size, at: 0, buffer: Vec::new() };
        let header_bytes = size.min(FILE_HEADER_BYTES as u64);
        let id = format::decode_file_header(reader.get(0, header_bytes)?).map_err(|bad| match bad {
            BadHeader::Newer(version) => {
                Error::Newer { path: path.into(), what: format!("a log of format version {version}") }
            }
            BadHeader::Invalid(Invalid(reason)) => Error::NotALog { path: path.into(), reason },
        })?;
        let contents = Contents { next_seq: 1, ..Contents::default() };
        Ok(Self { path, reader, id, at: FILE_HEADER_BYTES as u64, last: None, contents })
    }

    /// Takes every record; answers what is to be cut off at the end.
    fn run(&mut self) -> Result<Option<Trimmed>, Error> {
        while self.at < self.reader.size {
            let header = match self.check_record()? {
                Ok(header) => header,
                Err(invalid) => return self.torn_or_damaged(invalid).map(Some),
            };
            let body_at = self.at + RECORD_HEADER_BYTES as u64;
            let body = self.reader.get(body_at, u64::from(header.body_bytes))?;
            // Behind right checksums: what is wrong here was written like this, by a bug or by a version with other rules.
            self.contents.take(&header, body).map_err(|Invalid(reason)| Error::Damaged {
                path: self.path.into(),
                offset: self.at,
                reason: format!("{reason}, though its checksum is right"),
            })?;
            let end = self.at + header.record_bytes();
            self.last = Some((self.at, end));
            self.at = end;
        }
        Ok(None)
    }

    /// Whether a whole record stands at the present place.
    fn check_record(&mut self) -> Result<Result<RecordHeader, Invalid>, Error> {
        let left = self.reader.size - self.at;
        let bytes = self.reader.get(self.at, left.min(RECORD_HEADER_BYTES as u64))?;
        let header = match format::decode_record_header(self.id, self.at, bytes) {
            Ok(header) => header,
            Err(invalid) => return Ok(Err(invalid)),
        };
        if header.record_bytes() > left {
            return Ok(Err(Invalid("the file ends within the record's body")));
        }
        let body = self.reader.get(self.at + RECORD_HEADER_BYTES as u64, u64::from(header.body_bytes))?;
        Ok(header.check_body(body).map(|()| header))
    }

    /// The record at the present place is bad. Does a record follow it anywhere?
    fn torn_or_damaged(&mut self, Invalid(reason): Invalid) -> Result<Trimmed, Error> {
        let (size, id) = (self.reader.size, self.id);
        let mut at = self.at + 1;
        while at + RECORD_HEADER_BYTES as u64 <= size {
            let bytes = self.reader.get(at, (size - at).min(READ_BYTES as u64))?;
            let mut candidates = std::iter::zip(at.., bytes.windows(RECORD_HEADER_BYTES));
            let found = candidates.find(|(at, bytes)| format::decode_record_header(id, *at, bytes).is_ok());
            if let Some((later, _)) = found {
                let reason = format!("{reason}, yet another record follows at byte {later}");
                return Err(Error::Damaged { path: self.path.into(), offset: self.at, reason });
            }
            at += (bytes.len() - RECORD_HEADER_BYTES + 1) as u64;
        }
        Ok(Trimmed { path: self.path.into(), offset: self.at, bytes: size - self.at, reason: reason.into() })
    }
}

impl Contents {
    fn take(&mut self, header: &RecordHeader, body: &[u8]) -> Result<(), Invalid> {
        if header.first_seq != self.next_seq {
            return Err(Invalid("the number of its first point is not the next one"));
        }
        let series_known = u32::try_from(self.catalogue.len()).map_err(|_| Invalid("there are too many series"))?;
        let mut batch = Vec::new();
        format::decode_body(header, series_known, body, |entry| {
            match entry {
                Entry::Series(id, key) => {
                    if self.catalogue.get(&key).is_some() {
                        return Err(Invalid("a series is defined twice"));
                    }
                    let given: Option<SeriesId> = self.catalogue.insert(&key).ok();
                    if given != Some(id) {
                        return Err(Invalid("there are too many series"));
                    }
                    self.memory.add_series();
                }
                Entry::Points(points) => {
                    batch.clear();
                    batch.extend(points);
                    self.memory.insert(&batch, self.next_seq);
                    self.next_seq += batch.len() as u64;
                }
            }
            Ok(())
        })
    }
}

/// Reads a file through a buffer, within its size.
struct Reader<'a> {
    file: &'a dyn File,
    path: &'a Path,
    size: u64,
    /// Where the buffer's bytes stand in the file.
    at: u64,
    buffer: Vec<u8>,
}

impl Reader<'_> {
    /// So many bytes from there on, all of which lie within the file's size.
    fn get(&mut self, at: u64, bytes: u64) -> Result<&[u8], Error> {
        debug_assert!(at + bytes <= self.size, "lengths are checked against the file's size before they are believed");
        let held = at >= self.at && at + bytes <= self.at + self.buffer.len() as u64;
        if !held {
            let fill = bytes.max((self.size - at).min(READ_BYTES as u64));
            // A record that the address space can't hold is no reason to panic.
            let too_large = |_| Error::io("reading", self.path)(ErrorKind::OutOfMemory.into());
            self.buffer.resize(usize::try_from(fill).map_err(too_large)?, 0);
            self.at = at;
            self.file.read_at(at, &mut self.buffer).map_err(Error::io("reading", self.path))?;
        }
        let start = usize::try_from(at - self.at).expect("within the buffer");
        Ok(&self.buffer[start..start + usize::try_from(bytes).expect("within the buffer")])
    }
}

#[cfg(test)]
mod tests {
    use slung_model::{Point, SeriesKey};

    use super::*;
    use crate::sim::SimVfs;

    /// A log of records with right checksums: each the number of its first point, how many points, and its body.
    fn opened(records: &[(u64, u32, Vec<u8>)]) -> Result<Contents, Error> {
        let log = LogId(3);
        let mut bytes = format::encode_file_header(log).to_vec();
        for (first_seq, points, body) in records {
            let mut record = vec![0; RECORD_HEADER_BYTES];
            record.extend_from_slice(body);
            format::seal_record(log, bytes.len() as u64, *first_seq, *points, &mut record);
            bytes.extend_from_slice(&record);
        }
        let disk = SimVfs::new(1);
        disk.plant(&Path::new("d").join(NAME), &bytes);
        let opened = Log::open(&disk, Path::new("d"));
        assert_eq!(disk.read(&Path::new("d").join(NAME)), Some(bytes), "nothing to cut off, and damage is left alone");
        opened.map(|(_, contents)| contents)
    }

    /// Two records that follow the rules one by one may still not follow one another.
    #[test]
    fn records_that_do_not_fit_together_are_damage() {
        let define = |id| {
            let mut body = Vec::new();
            format::encode_series(SeriesId(id), &SeriesKey::new("a", ["x"]).unwrap(), &mut body);
            body
        };
        let write = |series, timestamp| {
            let mut body = Vec::new();
            format::encode_points(&[Point { series: SeriesId(series), timestamp, value: 1.0 }], &mut body);
            body
        };
        let good = [(1, 0, define(0)), (1, 1, write(0, 1)), (2, 0, vec![]), (2, 1, write(0, 2))];
        let contents = opened(&good).unwrap();
        assert_eq!((contents.next_seq, contents.memory.points()), (3, 2));
        for (last, reason) in [
            ((4, 1, write(0, 3)), "the number of its first point is not the next one"),
            ((2, 1, write(0, 3)), "the number of its first point is not the next one"),
            ((3, 1, write(1, 3)), "a point is of a series that is not defined"),
            ((3, 0, define(1)), "a series is defined twice"),
            ((3, 0, define(2)), "a series is not defined in the order of ids"),
        ] {
            let records = [&good[..], &[last]].concat();
            match opened(&records) {
                Err(Error::Damaged { reason: found, .. }) => {
                    assert_eq!(found, format!("{reason}, though its checksum is right"));
                }
                other => panic!("{reason}: {other:?}"),
            }
        }
    }
}
