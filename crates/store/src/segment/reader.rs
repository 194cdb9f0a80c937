//! Reads a segment: its directory stays in memory, pages of the index in a cache, points are read when asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use slung_model::{SeriesId, Summary, TimeRange};

use super::format::{self, FOOTER_BYTES, Footer, HEADER_BYTES, Header, PageRecord, Seal};
use super::{ChunkMeta, Columns, SegmentMeta, codec};
use crate::damage::{Damage, ReadError};
use crate::format::{BadHeader, Invalid};
use crate::vfs::{File, Vfs};

/// Index pages that were read, of all segments of a store.
pub(crate) struct IndexCache(Cache<PageKey, Arc<[ChunkMeta]>, PageBytes>);

/// The number of the segment, which is never given twice, and that of the page.
type PageKey = (u64, usize);

#[derive(Clone)]
struct PageBytes;

impl Weighter<PageKey, Arc<[ChunkMeta]>> for PageBytes {
    fn weight(&self, _: &PageKey, page: &Arc<[ChunkMeta]>) -> u64 {
        (size_of::<PageKey>() + size_of_val::<[ChunkMeta]>(page)) as u64
    }
}

impl IndexCache {
    /// Keeps at most so many bytes of pages, of which each takes up to about 18 KiB.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let page_bytes = (size_of::<ChunkMeta>() * format::PAGE_CHUNKS_MAX) as u64;
        let pages = usize::try_from(bytes_max / page_bytes).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        Self(Cache::with_weighter(pages, bytes_max, PageBytes))
    }
}

/// A segment that is open for reading.
pub(crate) struct Segment {
    file: Box<dyn File>,
    path: PathBuf,
    meta: SegmentMeta,
    seal: Seal,
    store: u64,
    pages: Vec<PageRecord>,
    cache: Arc<IndexCache>,
}

impl Segment {
    /// Opens a segment that the manifest names, and checks all but its chunks and its pages of the index.
    pub(crate) fn open(
        vfs: &dyn Vfs,
        path: &Path,
        store: u64,
        meta: &SegmentMeta,
        cache: Arc<IndexCache>,
    ) -> Result<Self, ReadError> {
        let file = vfs.open(path).map_err(ReadError::io("opening", path, 0, None, meta.range()))?;
        let seal = Seal::new(store, meta.number);
        let mut segment = Self { file, path: path.into(), meta: meta.clone(), seal, store, pages: Vec::new(), cache };
        segment.pages = segment.read_directory()?;
        Ok(segment)
    }

    /// What the manifest says of it.
    pub(crate) fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks what holds the file together: its length, header and footer, and the directory, which is the answer.
    fn read_directory(&self) -> Result<Vec<PageRecord>, ReadError> {
        let sizing = ReadError::io("asking for the size of", &self.path, 0, None, self.meta.range());
        let size = self.file.size().map_err(sizing)?;
        if size != self.meta.bytes {
            return Err(self.damaged(0, "the file is not as long as the manifest says"));
        }
        let Some(footer_at) = size.checked_sub(FOOTER_BYTES as u64).filter(|at| *at >= HEADER_BYTES as u64) else {
            return Err(self.damaged(0, "the file is shorter than any segment"));
        };
        self.check_header()?;
        let mut bytes = [0; FOOTER_BYTES];
        self.read_at(footer_at, &mut bytes, None, self.meta.range())?;
        let invalid = |Invalid(reason)| self.damaged(footer_at, reason);
        let footer = Footer::decode(&self.seal, footer_at, &bytes, &self.meta).map_err(invalid)?;
        // Within the file by the footer's checks, so that no more is taken than there is to read.
        let too_large = |_| self.damaged(footer.directory, "the directory is larger than the address space");
        let mut bytes = vec![0; usize::try_from(footer.directory_bytes()).map_err(too_large)?];
        self.read_at(footer.directory, &mut bytes, None, self.meta.range())?;
        if self.seal.crc(footer.directory, &bytes) != footer.directory_crc {
            return Err(self.damaged(footer.directory, "the checksum of the directory is wrong"));
        }
        let invalid = |Invalid(reason)| self.damaged(footer.directory, reason);
        format::decode_directory(footer.directory, &bytes).map_err(invalid)
    }

    fn check_header(&self) -> Result<(), ReadError> {
        let mut bytes = [0; HEADER_BYTES];
        self.read_at(0, &mut bytes, None, self.meta.range())?;
        let header = Header::decode(&bytes).map_err(|bad| match bad {
            BadHeader::Newer(version) => ReadError::Newer { path: self.path.clone(), version },
            BadHeader::Invalid(Invalid(reason)) => self.damaged(0, reason),
        })?;
        let known = Header { store: self.store, number: self.meta.number, generation: self.meta.generation };
        if header == known {
            Ok(())
        } else {
            Err(self.damaged(0, "the file is not the segment that the manifest names"))
        }
    }

    fn read_at(
        &self,
        offset: u64,
        into: &mut [u8],
        series: Option<SeriesId>,
        range: TimeRange,
    ) -> Result<(), ReadError> {
        let error = ReadError::io("reading", &self.path, offset, series, range);
        self.file.read_at(offset, into).map_err(error)
    }

    /// Damage that leaves nothing to be read.
    fn damaged(&self, offset: u64, reason: &str) -> ReadError {
        self.damage(offset, reason, None, self.meta.range())
    }

    fn damage(&self, offset: u64, reason: &str, series: Option<SeriesId>, range: TimeRange) -> ReadError {
        ReadError::Damaged(Damage { path: self.path.clone(), offset, reason: reason.into(), series, range })
    }

    /// Those pages that may tell of chunks of a series in that range.
    fn pages_of(&self, series: SeriesId, range: TimeRange) -> impl Iterator<Item = usize> {
        let first = self.pages.partition_point(|page| page.span.last < series);
        let count = self.pages[first..].partition_point(|page| page.span.first <= series);
        (first..first + count).filter(move |&page| overlap(self.pages[page].span.range, range))
    }

    /// Whether there may be points of that series in that range. Reads nothing.
    pub(crate) fn may_contain(&self, series: SeriesId, range: TimeRange) -> bool {
        overlap(self.meta.range(), range) && self.pages_of(series, range).next().is_some()
    }

    /// The chunks of a series that have points in that range or around it, in the order of time, a page at a time. A page that
    /// can't be read is one error, and the next page follows.
    pub(crate) fn chunks(
        self: &Arc<Self>,
        series: SeriesId,
        range: TimeRange,
    ) -> impl Iterator<Item = Result<impl Iterator<Item = Chunk>, ReadError>> {
        self.pages_of(series, range).map(move |index| {
            let chunks = self.cached_page(index)?;
            // In a page chunks rise by series and time, and do not overlap.
            let first = chunks.partition_point(|chunk| {
                chunk.series < series || chunk.series == series && chunk.summary.end() < range.start
            });
            let count =
                chunks[first..].partition_point(|chunk| chunk.series == series && chunk.summary.start() <= range.end);
            let page = Arc::new(IndexPage { segment: Arc::clone(self), chunks });
            Ok((first..first + count).map(move |index| Chunk { page: Arc::clone(&page), index }))
        })
    }

    fn cached_page(&self, index: usize) -> Result<Arc<[ChunkMeta]>, ReadError> {
        let key = (self.meta.number, index);
        if let Some(page) = self.cache.0.get(&key) {
            return Ok(page);
        }
        let page: Arc<[ChunkMeta]> = self.page(index)?.into();
        self.cache.0.insert(key, page.clone());
        Ok(page)
    }

    fn page(&self, index: usize) -> Result<Vec<ChunkMeta>, ReadError> {
        let record = &self.pages[index];
        let (place, span) = (record.place, record.span);
        let series = (span.first == span.last).then_some(span.first);
        let mut bytes = vec![0; record.bytes as usize];
        self.read_at(place, &mut bytes, series, span.range)?;
        if self.seal.crc(place, &bytes) != record.crc {
            return Err(self.damage(place, "the checksum of an index page is wrong", series, span.range));
        }
        let invalid = |Invalid(reason)| self.damage(place, reason, series, span.range);
        format::decode_page(record, &bytes).map_err(invalid)
    }

    /// Every chunk in the order of the file, a page at a time, past the cache. A page that can't be read is one error, and
    /// the next page follows.
    pub(crate) fn scan(&self) -> Scan<'_> {
        Scan { segment: self, next_page: 0, page: Vec::new().into_iter() }
    }

    /// Reads a chunk's payload as it is, and checks its checksum.
    pub(crate) fn payload(&self, chunk: &ChunkMeta, into: &mut Vec<u8>) -> Result<(), ReadError> {
        // What is longer than any payload was refused with its page.
        into.resize(chunk.bytes as usize, 0);
        if chunk.bytes == 0 {
            return Ok(());
        }
        self.read_at(chunk.offset, into, Some(chunk.series), chunk.range())?;
        if self.seal.crc(chunk.offset, into) == chunk.crc {
            return Ok(());
        }
        Err(self.damage(chunk.offset, "the checksum of a chunk is wrong", Some(chunk.series), chunk.range()))
    }

    /// Reads a chunk's points. After an error the columns hold anything.
    pub(crate) fn read(&self, chunk: &ChunkMeta, columns: &mut Columns) -> Result<(), ReadError> {
        if chunk.bytes == 0 {
            columns.timestamps.clear();
            columns.timestamps.push(chunk.summary.start());
            columns.values.clear();
            columns.values.push(chunk.summary.first());
            return Ok(());
        }
        let mut payload = std::mem::take(&mut columns.bytes);
        let result = self.payload(chunk, &mut payload).and_then(|()| {
            let invalid = |Invalid(reason)| self.damage(chunk.offset, reason, Some(chunk.series), chunk.range());
            codec::decode(&chunk.summary, &payload, columns).map_err(invalid)
        });
        columns.bytes = payload;
        result
    }

    /// Reads every byte of the file and checks it: all of [`Segment::open`], each page, each chunk, and that summaries and
    /// totals are those of the points. Reports whatever is damaged, and fails where the system does.
    pub(crate) fn verify(&self, columns: &mut Columns, mut report: impl FnMut(Damage)) -> Result<(), ReadError> {
        let mut take = |result: Result<(), ReadError>| match result {
            Err(ReadError::Damaged(damage)) => {
                report(damage);
                Ok(false)
            }
            other => other.map(|()| true),
        };
        let directory = self.read_directory().and_then(|pages| {
            let same = pages == self.pages;
            if same { Ok(()) } else { Err(self.damaged(0, "the directory is not the one that was opened")) }
        });
        let mut whole = take(directory)?;
        let mut last: Option<ChunkMeta> = None;
        let (mut chunks, mut points, mut series) = (0, 0, 0);
        for chunk in self.scan() {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    take(Err(error))?;
                    whole = false;
                    continue;
                }
            };
            take(self.verify_chunk(last.as_ref(), &chunk, columns))?;
            (chunks, points) = (chunks + 1, points + chunk.summary.count());
            series += u32::from(last.is_none_or(|last| last.series != chunk.series));
            last = Some(chunk);
        }
        if whole && (chunks, points, series) != (self.meta.chunks, self.meta.points, self.meta.series) {
            take(Err(self.damaged(0, "the totals are not those of the chunks")))?;
        }
        Ok(())
    }

    fn verify_chunk(
        &self,
        last: Option<&ChunkMeta>,
        chunk: &ChunkMeta,
        columns: &mut Columns,
    ) -> Result<(), ReadError> {
        let damaged = |reason| self.damage(chunk.offset, reason, Some(chunk.series), chunk.range());
        self.read(chunk, columns)?;
        if Summary::of(&columns.timestamps, &columns.values) != Some(chunk.summary) {
            return Err(damaged("a chunk's points are not those of its summary"));
        }
        if last.is_some_and(|last| !format::comes_before(last, chunk)) {
            return Err(damaged("the chunks are not in the order of series and time"));
        }
        Ok(())
    }
}

fn overlap(a: TimeRange, b: TimeRange) -> bool {
    a.start <= b.end && b.start <= a.end
}

/// A page of the index with the segment that it is of.
struct IndexPage {
    segment: Arc<Segment>,
    chunks: Arc<[ChunkMeta]>,
}

/// A chunk to be read when asked for. It shares its page with those beside it, as a query may take 100,000 of them.
#[derive(Clone)]
pub(crate) struct Chunk {
    page: Arc<IndexPage>,
    index: usize,
}

impl Chunk {
    /// A chunk by itself.
    pub(crate) fn new(segment: &Arc<Segment>, chunk: ChunkMeta) -> Self {
        Self { page: Arc::new(IndexPage { segment: Arc::clone(segment), chunks: Arc::new([chunk]) }), index: 0 }
    }

    /// What it is a chunk of.
    pub(crate) fn segment(&self) -> &Segment {
        &self.page.segment
    }

    /// What is known of it.
    pub(crate) fn meta(&self) -> &ChunkMeta {
        &self.page.chunks[self.index]
    }

    /// Reads its points. After an error the columns hold anything.
    pub(crate) fn read(&self, columns: &mut Columns) -> Result<(), ReadError> {
        self.segment().read(self.meta(), columns)
    }
}

/// The chunks of a segment; see [`Segment::scan`].
pub(crate) struct Scan<'a> {
    segment: &'a Segment,
    next_page: usize,
    page: std::vec::IntoIter<ChunkMeta>,
}

impl Iterator for Scan<'_> {
    type Item = Result<ChunkMeta, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(chunk) = self.page.next() {
                return Some(Ok(chunk));
            }
            if self.next_page == self.segment.pages.len() {
                return None;
            }
            self.next_page += 1;
            match self.segment.page(self.next_page - 1) {
                Ok(page) => self.page = page.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
