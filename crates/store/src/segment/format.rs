//! The bytes of a segment but for its payloads: made here, and believed nowhere before they were checked here.
//! `docs/format/segment.md` describes them.

use slung_model::{SeriesId, Summary, TimeRange};

use super::codec::PAYLOAD_BYTES_MAX;
use super::{CHUNK_POINTS_MAX, ChunkMeta, Effort, SegmentMeta};
use crate::fields::Fields;
use crate::format::{BadHeader, Invalid};

/// The format that this version writes, and the only one that there was.
pub(super) const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 40;
pub(super) const RECORD_BYTES: usize = 40;
pub(super) const FOOTER_BYTES: usize = 56;
/// The most chunks that an index page tells of.
pub(super) const PAGE_CHUNKS_MAX: usize = 128;

const MAGIC: [u8; 8] = *b"SLUNGSEG";
const KIND_POINT: u8 = 0;
const KIND_FLUSHED: u8 = 1;
const KIND_COMPACTED: u8 = 2;
/// What an entry of the longest kind takes.
const ENTRY_BYTES_MAX: usize = 21 + Summary::BYTES;

/// Checksums of one segment. Each begins with the store, the segment and the place, so that bytes that got there from
/// elsewhere do not pass.
#[derive(Debug, Clone)]
pub(super) struct Seal(crc32fast::Hasher);

impl Seal {
    pub(super) fn new(store: u64, number: u64) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&store.to_le_bytes());
        hasher.update(&number.to_le_bytes());
        Self(hasher)
    }

    /// Of bytes that stand at that place in the file.
    pub(super) fn crc(&self, place: u64, bytes: &[u8]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(&place.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// What a file's beginning tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) store: u64,
    pub(super) number: u64,
    pub(super) generation: u64,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.store.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.number.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.generation.to_le_bytes());
        let crc = header_crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, BadHeader> {
        let mut fields = Fields(bytes);
        if fields.bytes(8)? != MAGIC {
            return Err(Invalid("the file does not begin as a segment does").into());
        }
        let version = fields.u32()?;
        if fields.u32()? != header_crc(bytes) {
            return Err(Invalid("the checksum of the header is wrong").into());
        }
        match version {
            VERSION => {}
            newer if newer > VERSION => return Err(BadHeader::Newer(newer)),
            _ => return Err(Invalid("the format version was never used").into()),
        }
        Ok(Self { store: fields.u64()?, number: fields.u64()?, generation: fields.u64()? })
    }
}

fn header_crc(bytes: &[u8; HEADER_BYTES]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    hasher.finalize()
}

/// An index page while it fills, and what the directory tells of it.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) entries: Vec<u8>,
    pub(super) chunks: u32,
    payload_bytes: u32,
    span: Option<Span>,
}

/// Which series and times some chunks are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: SeriesId,
    pub(super) last: SeriesId,
    pub(super) range: TimeRange,
}

impl Span {
    fn of(chunk: &ChunkMeta) -> Self {
        Self { first: chunk.series, last: chunk.series, range: chunk.range() }
    }

    /// Takes a chunk that comes later in the file.
    fn push(span: &mut Option<Self>, chunk: &ChunkMeta) {
        let added = Self::of(chunk);
        match span {
            None => *span = Some(added),
            Some(span) => {
                span.last = added.last;
                span.range.start = span.range.start.min(added.range.start);
                span.range.end = span.range.end.max(added.range.end);
            }
        }
    }
}

impl Page {
    /// Appends the entry of a chunk whose payload stands where that of the one before it ended.
    pub(super) fn push(&mut self, chunk: &ChunkMeta) {
        let out = &mut self.entries;
        let single = chunk.bytes == 0;
        out.push(match chunk.effort {
            _ if single => KIND_POINT,
            Effort::Flush => KIND_FLUSHED,
            Effort::Compaction => KIND_COMPACTED,
        });
        out.extend_from_slice(&chunk.series.0.to_le_bytes());
        out.extend_from_slice(&chunk.last_seq.to_le_bytes());
        if single {
            out.extend_from_slice(&chunk.summary.start().to_le_bytes());
            out.extend_from_slice(&chunk.summary.first().to_le_bytes());
        } else {
            out.extend_from_slice(&chunk.bytes.to_le_bytes());
            out.extend_from_slice(&chunk.crc.to_le_bytes());
            chunk.summary.encode(out);
        }
        self.chunks += 1;
        self.payload_bytes += chunk.bytes;
        Span::push(&mut self.span, chunk);
    }

    pub(super) fn is_full(&self) -> bool {
        self.chunks as usize >= PAGE_CHUNKS_MAX
    }

    /// Empties the page, whose entries now stand at that place; `None` where there were none.
    pub(super) fn take_record(&mut self, seal: &Seal, place: u64) -> Option<PageRecord> {
        let record = PageRecord {
            place,
            payload_bytes: self.payload_bytes,
            bytes: u32::try_from(self.entries.len())
                .expect("an entry has at most 117 bytes, a page at most 128 of them"),
            crc: seal.crc(place, &self.entries),
            chunks: self.chunks,
            span: self.span?,
        };
        self.entries.clear();
        (self.chunks, self.payload_bytes, self.span) = (0, 0, None);
        Some(record)
    }
}

/// What the directory tells of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageRecord {
    /// Where the page stands in the file: behind the payloads that it tells of. Not in the record: pages and payloads
    /// leave no gap.
    pub(super) place: u64,
    /// How long these are together.
    payload_bytes: u32,
    pub(super) bytes: u32,
    pub(super) crc: u32,
    pub(super) chunks: u32,
    pub(super) span: Span,
}

impl PageRecord {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (series, range) = ([self.span.first.0, self.span.last.0], self.span.range);
        for number in [self.payload_bytes, self.bytes, self.crc, self.chunks, series[0], series[1]] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&range.start.to_le_bytes());
        out.extend_from_slice(&range.end.to_le_bytes());
    }

    /// Reads the record of the page whose payloads begin at that place.
    fn decode(payload_place: u64, bytes: &[u8]) -> Result<Self, Invalid> {
        let mut fields = Fields(bytes);
        let (payload_bytes, bytes, crc, chunks) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let (first, last) = (SeriesId(fields.u32()?), SeriesId(fields.u32()?));
        let range = TimeRange { start: fields.i64()?, end: fields.i64()? };
        fields.end()?;
        let place =
            payload_place.checked_add(u64::from(payload_bytes)).ok_or(Invalid("a page lies beyond the file"))?;
        if bytes as usize > PAGE_CHUNKS_MAX * ENTRY_BYTES_MAX || !(1..=PAGE_CHUNKS_MAX).contains(&(chunks as usize)) {
            return Err(Invalid("a page is larger than any page"));
        }
        if first > last || range.start > range.end {
            return Err(Invalid("a page ends before it begins"));
        }
        Ok(Self { place, payload_bytes, bytes, crc, chunks, span: Span { first, last, range } })
    }

    /// Where the page ends, and the payloads of the next one begin.
    pub(super) fn end(&self) -> Result<u64, Invalid> {
        self.place.checked_add(u64::from(self.bytes)).ok_or(Invalid("a page lies beyond the file"))
    }
}

/// Reads the directory, which stands at that place: its pages, and the payloads before each, fill the file from the
/// header to there, in the order of series.
pub(super) fn decode_directory(place: u64, bytes: &[u8]) -> Result<Vec<PageRecord>, Invalid> {
    let (records, rest) = bytes.as_chunks::<RECORD_BYTES>();
    if !rest.is_empty() {
        return Err(Invalid("the directory is cut short"));
    }
    let mut at = HEADER_BYTES as u64;
    let mut pages: Vec<PageRecord> = Vec::with_capacity(records.len());
    for record in records {
        let page = PageRecord::decode(at, record)?;
        if pages.last().is_some_and(|before| before.span.last > page.span.first) {
            return Err(Invalid("the pages are not in the order of series"));
        }
        at = page.end()?;
        pages.push(page);
    }
    if at != place || pages.is_empty() {
        return Err(Invalid("the pages do not fill the file"));
    }
    Ok(pages)
}

/// Reads a page. Its chunks follow one another without gap, in the order of series and time, and are all that its
/// record says.
pub(super) fn decode_page(record: &PageRecord, bytes: &[u8]) -> Result<Vec<ChunkMeta>, Invalid> {
    let mut fields = Fields(bytes);
    let mut place =
        record.place.checked_sub(u64::from(record.payload_bytes)).ok_or(Invalid("a page lies before the file"))?;
    let mut chunks: Vec<ChunkMeta> = Vec::with_capacity(bytes.len().min(ENTRY_BYTES_MAX * PAGE_CHUNKS_MAX) / 29);
    let mut span = None;
    while !fields.0.is_empty() {
        let chunk = decode_entry(place, &mut fields)?;
        place += u64::from(chunk.bytes);
        if chunks.last().is_some_and(|before| !comes_before(before, &chunk)) {
            return Err(Invalid("the chunks are not in the order of series and time"));
        }
        Span::push(&mut span, &chunk);
        chunks.push(chunk);
    }
    if place != record.place || chunks.len() != record.chunks as usize || span != Some(record.span) {
        return Err(Invalid("a page is not what the directory says"));
    }
    Ok(chunks)
}

/// Whether two chunks may follow one another.
pub(super) fn comes_before(before: &ChunkMeta, after: &ChunkMeta) -> bool {
    before.series < after.series || before.series == after.series && before.summary.end() < after.summary.start()
}

fn decode_entry(offset: u64, fields: &mut Fields<'_>) -> Result<ChunkMeta, Invalid> {
    let kind = fields.u8()?;
    let (series, last_seq) = (SeriesId(fields.u32()?), fields.u64()?);
    let effort = match kind {
        KIND_POINT => {
            let (timestamp, value) = (fields.i64()?, fields.f64()?);
            if !value.is_finite() {
                return Err(Invalid("a point's value is not finite"));
            }
            let summary = Summary::of(&[timestamp], &[value]).ok_or(Invalid("a chunk is empty"))?;
            let effort = Effort::Compaction;
            return Ok(ChunkMeta { series, summary, last_seq, effort, offset, bytes: 0, crc: 0 });
        }
        KIND_FLUSHED => Effort::Flush,
        KIND_COMPACTED => Effort::Compaction,
        _ => return Err(Invalid("a chunk is of an unknown kind")),
    };
    let (bytes, crc) = (fields.u32()?, fields.u32()?);
    let summary = Summary::decode(fields.bytes(Summary::BYTES)?).ok_or(Invalid("a chunk's summary can't be"))?;
    if !(2..=CHUNK_POINTS_MAX as u64).contains(&summary.count()) || !(2..=PAYLOAD_BYTES_MAX).contains(&(bytes as usize))
    {
        return Err(Invalid("a chunk is larger than any chunk, or smaller"));
    }
    // Each payload is far below a page's u32; offsets, checked by the sum of them, can't leave a u64.
    Ok(ChunkMeta { series, summary, last_seq, effort, offset, bytes, crc })
}

/// The end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Footer {
    /// Where the directory stands.
    pub(super) directory: u64,
    pub(super) pages: u32,
    pub(super) directory_crc: u32,
    pub(super) chunks: u64,
    pub(super) points: u64,
    pub(super) range: TimeRange,
    pub(super) series: u32,
}

impl Footer {
    /// Answers the footer and its checksum, its last field.
    pub(super) fn encode(&self, seal: &Seal) -> ([u8; FOOTER_BYTES], u32) {
        let mut bytes = [0; FOOTER_BYTES];
        bytes[..8].copy_from_slice(&self.directory.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.pages.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.directory_crc.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.chunks.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.points.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.range.start.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.range.end.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.series.to_le_bytes());
        let place = self.directory + self.directory_bytes();
        let crc = seal.crc(place, &bytes[..FOOTER_BYTES - 4]);
        bytes[FOOTER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// Reads the footer, which stands at that place, and holds it against what the manifest knows.
    pub(super) fn decode(
        seal: &Seal,
        place: u64,
        bytes: &[u8; FOOTER_BYTES],
        known: &SegmentMeta,
    ) -> Result<Self, Invalid> {
        let (sealed, crc) = bytes.split_at(FOOTER_BYTES - 4);
        let crc = Fields(crc).u32()?;
        if crc != seal.crc(place, sealed) {
            return Err(Invalid("the checksum of the footer is wrong"));
        }
        let mut fields = Fields(sealed);
        let footer = Self {
            directory: fields.u64()?,
            pages: fields.u32()?,
            directory_crc: fields.u32()?,
            chunks: fields.u64()?,
            points: fields.u64()?,
            range: TimeRange { start: fields.i64()?, end: fields.i64()? },
            series: fields.u32()?,
        };
        if footer.directory.checked_add(footer.directory_bytes()) != Some(place) {
            return Err(Invalid("the directory does not reach from the pages to the footer"));
        }
        let told = (footer.chunks, footer.points, footer.range, footer.series, crc);
        if told != (known.chunks, known.points, known.range(), known.series, known.footer_crc) {
            return Err(Invalid("the footer is not what the manifest says"));
        }
        Ok(footer)
    }

    pub(super) fn directory_bytes(&self) -> u64 {
        u64::from(self.pages) * RECORD_BYTES as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER_END: u64 = HEADER_BYTES as u64;

    fn chunk(series: u32, timestamps: &[i64], bytes: u32) -> ChunkMeta {
        let summary = Summary::of(timestamps, &vec![1.0; timestamps.len()]).unwrap();
        let (effort, crc) = (Effort::Flush, 5);
        ChunkMeta { series: SeriesId(series), summary, last_seq: 9, effort, offset: HEADER_END, bytes, crc }
    }

    fn page(chunks: &[ChunkMeta]) -> (PageRecord, Vec<u8>) {
        let mut page = Page::default();
        chunks.iter().for_each(|chunk| page.push(chunk));
        let entries = page.entries.clone();
        let payloads: u64 = chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum();
        (page.take_record(&Seal::new(1, 7), HEADER_END + payloads).unwrap(), entries)
    }

    #[test]
    fn a_checksum_is_that_of_its_store_segment_and_place() {
        let crc = Seal::new(1, 7).crc(40, b"bytes");
        assert_eq!(Seal::new(1, 7).crc(40, b"bytes"), crc);
        for other in
            [Seal::new(2, 7).crc(40, b"bytes"), Seal::new(1, 8).crc(40, b"bytes"), Seal::new(1, 7).crc(41, b"bytes")]
        {
            assert_ne!(other, crc);
        }
    }

    /// Behind checksums that are right.
    #[test]
    fn a_page_that_breaks_a_rule_is_refused() {
        let good = [chunk(3, &[1, 2], 10), chunk(3, &[3, 4, 5], 20), chunk(8, &[0], 0)];
        let (record, bytes) = page(&good);
        let read = decode_page(&record, &bytes).unwrap();
        assert_eq!(read.iter().map(|chunk| chunk.offset).collect::<Vec<_>>(), [40, 50, 70]);
        let other = |change: fn(&mut PageRecord)| {
            let mut record = record;
            change(&mut record);
            decode_page(&record, &bytes)
        };
        let chunks = |chunks: &[ChunkMeta]| {
            let (record, bytes) = page(chunks);
            decode_page(&record, &bytes)
        };
        let changed = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            decode_page(&record, &bytes)
        };
        const NOT_AS_TOLD: &str = "a page is not what the directory says";
        const SIZE: &str = "a chunk is larger than any chunk, or smaller";
        const ORDER: &str = "the chunks are not in the order of series and time";
        let many: Vec<i64> = (0..=CHUNK_POINTS_MAX as i64).collect();
        for (found, reason) in [
            (other(|record| record.payload_bytes -= 1), NOT_AS_TOLD),
            (other(|record| record.chunks = 2), NOT_AS_TOLD),
            (other(|record| record.span.last = SeriesId(9)), NOT_AS_TOLD),
            (other(|record| record.span.range.start = -1), NOT_AS_TOLD),
            (other(|record| record.place = 29), "a page lies before the file"),
            (changed(0, 3), "a chunk is of an unknown kind"),
            // The count of the first chunk's points, then its payload's length.
            (changed(21, 1), "a chunk's summary can't be"),
            (changed(13, 1), SIZE),
            (changed(15, 3), SIZE),
            (chunks(&[chunk(3, &many, 10)]), SIZE),
            (chunks(&[chunk(3, &[1, 2], 10), chunk(3, &[2, 3], 10)]), ORDER),
            (chunks(&[chunk(3, &[1, 2], 10), chunk(2, &[3, 4], 10)]), ORDER),
            (decode_page(&record, &bytes[..bytes.len() - 1]), "it is cut short"),
        ] {
            assert_eq!(found, Err(Invalid(reason)));
        }
    }

    #[test]
    fn a_directory_that_breaks_a_rule_is_refused() {
        let first = page(&[chunk(3, &[1, 2], 10)]).0;
        let end = first.end().unwrap();
        let second = PageRecord { place: end + 10, ..first };
        let whole = second.end().unwrap();
        let directory = |records: &[PageRecord]| {
            let mut bytes = Vec::new();
            records.iter().for_each(|record| record.encode(&mut bytes));
            bytes
        };
        let good = directory(&[first, second]);
        assert_eq!(decode_directory(whole, &good), Ok(vec![first, second]));
        let other = |change: fn(&mut PageRecord)| {
            let mut changed = second;
            change(&mut changed);
            decode_directory(whole, &directory(&[first, changed]))
        };
        const FILL: &str = "the pages do not fill the file";
        for (found, reason) in [
            (decode_directory(whole + 1, &good), FILL),
            (decode_directory(end, &good), FILL),
            (decode_directory(HEADER_END, &[]), FILL),
            (decode_directory(whole, &good[1..]), "the directory is cut short"),
            (other(|record| record.payload_bytes += 1), FILL),
            (other(|record| record.bytes = u32::MAX), "a page is larger than any page"),
            (other(|record| record.chunks = 0), "a page is larger than any page"),
            (other(|record| record.chunks = 129), "a page is larger than any page"),
            (other(|record| record.span.last = SeriesId(2)), "a page ends before it begins"),
            (other(|record| record.span.range.end = 0), "a page ends before it begins"),
            (other(|record| record.span.first = SeriesId(2)), "the pages are not in the order of series"),
        ] {
            assert_eq!(found, Err(Invalid(reason)));
        }
    }
}
