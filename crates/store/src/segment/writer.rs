//! Writes a segment, chunk by chunk, with little memory.

use std::path::{Path, PathBuf};

use slung_model::{SeriesId, Summary, TimeRange};

use super::format::{Footer, Header, Page, PageRecord, Seal};
use super::{CHUNK_POINTS_MAX, ChunkMeta, Effort, SegmentMeta, codec};
use crate::error::Failure;
use crate::vfs::{File, Vfs};

/// How much is collected for one call of [`File::write_at`], bytes.
const WRITE_BYTES: usize = 512 << 10;

/// A segment that is being written. Where that fails, or stops, the file stays behind, and no manifest names it.
pub(crate) struct SegmentWriter {
    file: Box<dyn File>,
    path: PathBuf,
    header: Header,
    seal: Seal,
    /// How much of the file is written, bytes; the buffer follows.
    written: u64,
    buffer: Vec<u8>,
    page: Page,
    pages: Vec<PageRecord>,
    /// The series and the end of the chunk that was added last.
    last: Option<(SeriesId, i64)>,
    range: TimeRange,
    points: u64,
    chunks: u64,
    series: u32,
}

impl SegmentWriter {
    /// Makes the file, in the place of one of that name if there is one.
    pub(crate) fn create(
        vfs: &dyn Vfs,
        path: &Path,
        store: u64,
        number: u64,
        generation: u64,
    ) -> Result<Self, Failure> {
        let failure = |source| Failure { doing: "making", path: path.into(), offset: 0, source };
        let header = Header { store, number, generation };
        Ok(Self {
            file: vfs.create(path).map_err(failure)?,
            path: path.into(),
            header,
            seal: Seal::new(store, number),
            written: 0,
            buffer: header.encode().to_vec(),
            page: Page::default(),
            pages: Vec::new(),
            last: None,
            range: TimeRange { start: i64::MAX, end: i64::MIN },
            points: 0,
            chunks: 0,
            series: 0,
        })
    }

    /// How long the file would be by now, without what follows its last chunk, bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Adds a chunk: points of one series whose newest one is number `last_seq` in the order of writes. After an error
    /// nothing may be added any more.
    ///
    /// # Panics
    /// Unless there are 1 to [`CHUNK_POINTS_MAX`] points, as many timestamps as values, and the chunk comes after the
    /// one before it in the order of series and time. That timestamps rise strictly and values are finite is not looked
    /// at: a chunk that breaks this can't be read again.
    pub(crate) fn add(
        &mut self,
        series: SeriesId,
        last_seq: u64,
        timestamps: &[i64],
        values: &[f64],
        effort: Effort,
    ) -> Result<(), Failure> {
        assert!(timestamps.len() <= CHUNK_POINTS_MAX, "a chunk has at most {CHUNK_POINTS_MAX} points");
        debug_assert!(timestamps.is_sorted_by(|a, b| a < b), "timestamps rise");
        debug_assert!(values.iter().all(|value| value.is_finite()), "values are finite");
        let summary = Summary::of(timestamps, values).expect("a chunk has points");
        let offset = self.bytes();
        let (mut effort, mut crc) = (effort, 0);
        let start = self.buffer.len();
        if timestamps.len() > 1 {
            effort = codec::encode(timestamps, values, effort, &mut self.buffer);
            crc = self.seal.crc(offset, &self.buffer[start..]);
        }
        let bytes = u32::try_from(self.buffer.len() - start).expect("below 131,075 bytes");
        self.push(&ChunkMeta { series, summary, last_seq, effort, offset, bytes, crc })
    }

    /// Adds a chunk of another segment as it is, by the payload that [`super::Segment::payload`] gave. After an error
    /// nothing may be added any more.
    ///
    /// # Panics
    /// Unless the chunk comes after the one before it in the order of series and time.
    pub(crate) fn copy(&mut self, chunk: &ChunkMeta, payload: &[u8]) -> Result<(), Failure> {
        assert_eq!(payload.len(), chunk.bytes as usize, "the payload is that of the chunk");
        let offset = self.bytes();
        let crc = if payload.is_empty() { 0 } else { self.seal.crc(offset, payload) };
        self.buffer.extend_from_slice(payload);
        self.push(&ChunkMeta { offset, crc, ..chunk.clone() })
    }

    /// Takes a chunk whose payload is in the buffer.
    fn push(&mut self, chunk: &ChunkMeta) -> Result<(), Failure> {
        let (series, range) = (chunk.series, chunk.range());
        match self.last {
            Some((last, end)) if last == series => assert!(end < range.start, "chunks of a series follow one another"),
            last => {
                assert!(last.is_none_or(|(last, _)| last < series), "series come in their order");
                self.series += 1;
            }
        }
        self.last = Some((series, range.end));
        self.range = TimeRange { start: self.range.start.min(range.start), end: self.range.end.max(range.end) };
        self.points += chunk.summary.count();
        self.chunks += 1;
        self.page.push(chunk);
        if self.page.is_full() {
            self.end_page();
        }
        if self.buffer.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn end_page(&mut self) {
        let place = self.bytes();
        self.buffer.extend_from_slice(&self.page.entries);
        self.pages.extend(self.page.take_record(&self.seal, place));
    }

    fn write(&mut self) -> Result<(), Failure> {
        let failure = |source| Failure { doing: "writing", path: self.path.clone(), offset: self.written, source };
        self.file.write_at(self.written, &self.buffer).map_err(failure)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the rest and syncs the file. Its name becomes durable by [`Vfs::sync_dir`], which is up to the caller.
    ///
    /// # Panics
    /// If there is no chunk.
    pub(crate) fn finish(mut self) -> Result<SegmentMeta, Failure> {
        assert!(self.chunks > 0, "a segment has points");
        self.end_page();
        let directory = self.bytes();
        let start = self.buffer.len();
        for record in &self.pages {
            record.encode(&mut self.buffer);
        }
        let footer = Footer {
            directory,
            pages: u32::try_from(self.pages.len())
                .expect("a page stands for at least 29 bytes, u32::MAX of them for 128 GB"),
            directory_crc: self.seal.crc(directory, &self.buffer[start..]),
            chunks: self.chunks,
            points: self.points,
            range: self.range,
            series: self.series,
        };
        let (bytes, footer_crc) = footer.encode(&self.seal);
        self.buffer.extend_from_slice(&bytes);
        self.write()?;
        let failure = |source| Failure { doing: "syncing", path: self.path.clone(), offset: self.written, source };
        self.file.sync().map_err(failure)?;
        Ok(SegmentMeta {
            number: self.header.number,
            generation: self.header.generation,
            start: self.range.start,
            end: self.range.end,
            points: self.points,
            chunks: self.chunks,
            series: self.series,
            bytes: self.written,
            footer_crc,
        })
    }
}
