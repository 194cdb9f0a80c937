//! Segments: immutable files of compressed chunks. Whoever writes one names it in the manifest, and it never changes.
//!
//! Nothing here knows of the log, the points in memory or which segments live. `docs/format/segment.md` describes the
//! bytes; [`mod@format`] makes and checks those of the index, [`codec`] those of the points.

mod codec;
mod format;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use slung_model::{SeriesId, Summary, TimeRange};

pub(crate) use self::codec::{Columns, Effort};
pub(crate) use self::reader::{Chunk, IndexCache, Scan, Segment};
pub(crate) use self::writer::SegmentWriter;

/// The most points in one chunk, a property of the format. At 64k points chunks are 5 % smaller, at 1k pco takes twice
/// as long for a point.
pub(crate) const CHUNK_POINTS_MAX: usize = 8192;

/// What is known of a chunk without reading its points.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChunkMeta {
    pub(crate) series: SeriesId,
    pub(crate) summary: Summary,
    /// The number, in the order of writes, of the newest point in it.
    pub(crate) last_seq: u64,
    pub(crate) effort: Effort,
    /// Where its payload stands in the file. A single point is kept in the index and has none, of 0 bytes.
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
    pub(crate) crc: u32,
}

impl ChunkMeta {
    /// From its first point to its last one.
    pub(crate) fn range(&self) -> TimeRange {
        TimeRange { start: self.summary.start(), end: self.summary.end() }
    }
}

/// What the manifest keeps of a segment, enough to notice that its file is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentMeta {
    /// Names the file; never given twice.
    pub(crate) number: u64,
    /// Of two points with the same series and timestamp, that of the higher generation counts.
    pub(crate) generation: u64,
    /// The earliest timestamp in it.
    pub(crate) start: i64,
    /// The latest one.
    pub(crate) end: i64,
    pub(crate) points: u64,
    pub(crate) chunks: u64,
    /// How many series have points in it.
    pub(crate) series: u32,
    /// The file's length.
    pub(crate) bytes: u64,
    pub(crate) footer_crc: u32,
}

impl SegmentMeta {
    /// From its earliest point to its latest one.
    pub(crate) fn range(&self) -> TimeRange {
        TimeRange { start: self.start, end: self.end }
    }
}
