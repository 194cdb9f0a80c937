//! Reading a file of records: one good record after the other, and what to do at one that is not.

use std::io::ErrorKind;
use std::path::Path;

use crate::Error;
use crate::format::{
    self, BadHeader, FILE_HEADER_BYTES, FileKind, Invalid, LogId, PLACE_MAX, RECORD_HEADER_BYTES, RecordHeader,
};
use crate::vfs::File;

/// How much is read at once, bytes.
pub(crate) const READ_BYTES: usize = 1 << 20;

/// A file of records, read from its beginning. Places are those of the log, of which the file may be a part.
pub(crate) struct Records<'a> {
    reader: Reader<'a>,
    pub(crate) id: LogId,
    /// The place of the file's first byte.
    base: u64,
    /// Where the next record begins.
    pub(crate) at: u64,
    /// Where the last one may end.
    pub(crate) end: u64,
}

/// What stands at a place.
pub(crate) enum Found<'a> {
    /// A record: its place, header and body. The next one is read next.
    Record(u64, RecordHeader, &'a [u8]),
    /// Something else. [`Records::find_next`] goes on behind it.
    Bad(Invalid),
    End,
}

/// What the first bytes of a file of records tell.
pub(crate) enum Beginning {
    Good(LogId, u64),
    Bad(Invalid),
}

/// Reads the header of the file of records with that number.
pub(crate) fn begin(file: &dyn File, path: &Path, kind: FileKind, number: u64) -> Result<Beginning, Error> {
    let size = size(file, path)?;
    let mut bytes = [0; FILE_HEADER_BYTES];
    let length = usize::try_from(size).unwrap_or(usize::MAX).min(FILE_HEADER_BYTES);
    file.read_at(0, &mut bytes[..length]).map_err(Error::io("reading", path))?;
    match format::decode_file_header(kind, number, &bytes[..length]) {
        Ok((id, base)) => Ok(Beginning::Good(id, base)),
        Err(BadHeader::Invalid(invalid)) => Ok(Beginning::Bad(invalid)),
        Err(BadHeader::Newer(version)) => {
            Err(Error::Newer { path: path.into(), what: format!("a file of format version {version}") })
        }
    }
}

/// What the first record says of the place of the file's first byte; for a header that can't be read. `None` where there is
/// no good record at the beginning either.
pub(crate) fn base_by_first_record(file: &dyn File, path: &Path, id: LogId) -> Result<Option<u64>, Error> {
    let mut bytes = [0; RECORD_HEADER_BYTES];
    if size(file, path)? < (FILE_HEADER_BYTES + RECORD_HEADER_BYTES) as u64 {
        return Ok(None);
    }
    file.read_at(FILE_HEADER_BYTES as u64, &mut bytes).map_err(Error::io("reading", path))?;
    let place = format::place_of_record(&bytes);
    let good = format::decode_record_header(id, place, &bytes).is_ok();
    Ok(place.checked_sub(FILE_HEADER_BYTES as u64).filter(|base| good && *base <= PLACE_MAX))
}

fn size(file: &dyn File, path: &Path) -> Result<u64, Error> {
    file.size().map_err(Error::io("asking for the size of", path))
}

impl<'a> Records<'a> {
    /// Those of a file whose header was read, as far as `end`, or to its own end.
    pub(crate) fn new(
        file: &'a dyn File,
        path: &'a Path,
        id: LogId,
        base: u64,
        end: Option<u64>,
    ) -> Result<Self, Error> {
        let size = size(file, path)?;
        let file_end = base.saturating_add(size);
        Ok(Self {
            reader: Reader { file, path, size, at: 0, buffer: Vec::new() },
            id,
            base,
            at: base + FILE_HEADER_BYTES as u64,
            end: end.map_or(file_end, |end| end.min(file_end)),
        })
    }

    /// Where a place is in the file.
    pub(crate) fn offset(&self, place: u64) -> u64 {
        place - self.base
    }

    /// What comes next.
    pub(crate) fn read(&mut self) -> Result<Found<'_>, Error> {
        if self.at >= self.end {
            return Ok(Found::End);
        }
        let left = self.end - self.at;
        let offset = self.offset(self.at);
        let bytes = self.reader.get(offset, left.min(RECORD_HEADER_BYTES as u64))?;
        let header = match format::decode_record_header(self.id, self.at, bytes) {
            Ok(header) => header,
            Err(invalid) => return Ok(Found::Bad(invalid)),
        };
        if header.record_bytes() > left {
            return Ok(Found::Bad(Invalid("the file ends within the record's body")));
        }
        let body = self.reader.get(offset + RECORD_HEADER_BYTES as u64, u64::from(header.body_bytes))?;
        if let Err(invalid) = header.check_body(body) {
            return Ok(Found::Bad(invalid));
        }
        let place = self.at;
        self.at += header.record_bytes();
        Ok(Found::Record(place, header, body))
    }

    /// Goes to the next place behind this one where a record begins, or to the end. Whether there is such a one.
    pub(crate) fn find_next(&mut self) -> Result<bool, Error> {
        let mut at = self.at + 1;
        while at + RECORD_HEADER_BYTES as u64 <= self.end {
            let offset = self.offset(at);
            let bytes = self.reader.get(offset, (self.end - at).min(READ_BYTES as u64))?;
            let mut candidates = std::iter::zip(at.., bytes.windows(RECORD_HEADER_BYTES));
            if let Some((found, _)) =
                candidates.find(|(at, bytes)| format::decode_record_header(self.id, *at, bytes).is_ok())
            {
                self.at = found;
                return Ok(true);
            }
            at += (bytes.len() - RECORD_HEADER_BYTES + 1) as u64;
        }
        self.at = self.end.max(self.at);
        Ok(false)
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
