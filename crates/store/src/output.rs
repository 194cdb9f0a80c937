//! Writes points, series by series, into new segments: chunks that are as full as can be, cut where partitions begin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slung_model::SeriesId;

use crate::disk::Disk;
use crate::memory::Points;
use crate::pieces::{Part, Piece, SeriesReader};
use crate::segment::{CHUNK_POINTS_MAX, ChunkMeta, Effort, Segment, SegmentMeta, SegmentWriter};
use crate::{Damage, Error, segment_name};

/// How many segments one flush or compaction writes at most. Whoever sends points of a thousand different weeks gets one
/// segment for the newest weeks each, and one for all of the others: no flood of files.
const SEGMENTS_MAX: usize = 16;

/// Which partitions get a segment of their own.
#[derive(Debug)]
pub(crate) struct Cuts {
    width: i64,
    own: BTreeSet<i64>,
}

impl Cuts {
    pub(crate) fn new(width: i64) -> Self {
        Self { width, own: BTreeSet::new() }
    }

    fn partition(&self, timestamp: i64) -> i64 {
        timestamp.div_euclid(self.width)
    }

    /// The first timestamp that is not in that partition any more; `None` where there is none.
    fn end(&self, partition: i64) -> Option<i64> {
        partition.checked_add(1)?.checked_mul(self.width)
    }

    /// There are points at these times, which rise.
    pub(crate) fn add(&mut self, mut timestamps: &[i64]) {
        while let Some(&first) = timestamps.first() {
            let partition = self.partition(first);
            self.add_partition(partition);
            let end = self.end(partition);
            let inside = end.map_or(timestamps.len(), |end| timestamps.partition_point(|&timestamp| timestamp < end));
            timestamps = &timestamps[inside..];
        }
    }

    /// There are points in the partition of that time.
    pub(crate) fn add_time(&mut self, timestamp: i64) {
        self.add_partition(self.partition(timestamp));
    }

    fn add_partition(&mut self, partition: i64) {
        if self.own.insert(partition) && self.own.len() >= SEGMENTS_MAX {
            // The oldest one goes to the others.
            self.own.pop_first();
        }
    }
}

/// New segments of one generation that are being written.
pub(crate) struct Output<'a> {
    disk: &'a Disk,
    generation: u64,
    cuts: Cuts,
    effort: Effort,
    /// By partition; `None` for those that share one.
    writers: BTreeMap<Option<i64>, SegmentWriter>,
    written: Vec<PathBuf>,
    /// The chunk that is being filled: its series, its partition, the place of its last point in the order of writes.
    filling: Option<(SeriesId, i64, u64)>,
    chunk: Points,
    payload: Vec<u8>,
    pause: &'a dyn Fn() -> Result<(), Error>,
    finished: bool,
}

impl<'a> Output<'a> {
    /// `pause` is called after each chunk.
    pub(crate) fn new(
        disk: &'a Disk,
        generation: u64,
        cuts: Cuts,
        effort: Effort,
        pause: &'a dyn Fn() -> Result<(), Error>,
    ) -> Self {
        Self {
            disk,
            generation,
            cuts,
            effort,
            writers: BTreeMap::new(),
            written: Vec::new(),
            filling: None,
            chunk: Points::default(),
            payload: Vec::new(),
            pause,
            finished: false,
        }
    }

    /// Takes all that a reader of one series gives; series come by rising ids.
    pub(crate) fn take(
        &mut self,
        series: SeriesId,
        reader: &mut SeriesReader,
        damage: &mut Vec<Damage>,
    ) -> Result<(), Error> {
        let (effort, partition_width) = (self.effort, self.cuts.width);
        loop {
            // A chunk that is as good as it gets is copied as it is.
            let finished = |piece: &Piece| match piece {
                Piece::Disk(chunk) => {
                    let chunk = chunk.meta();
                    chunk.effort == effort
                        && chunk.summary.count() > CHUNK_POINTS_MAX as u64 / 2
                        && piece.start().div_euclid(partition_width) == piece.end().div_euclid(partition_width)
                }
                Piece::Memory(_) => false,
            };
            match reader.next(finished, damage)? {
                None => break,
                Some(Part::Whole(Piece::Disk(chunk))) => self.copy(chunk.segment(), chunk.meta(), damage)?,
                Some(Part::Whole(Piece::Memory(_))) => unreachable!("blocks in memory are not asked for as they are"),
                Some(Part::Points { timestamps, values, last_seq }) => {
                    self.add(series, timestamps, values, last_seq)?
                }
            }
        }
        self.end_chunk()
    }

    fn copy(&mut self, segment: &Segment, chunk: &ChunkMeta, damage: &mut Vec<Damage>) -> Result<(), Error> {
        self.end_chunk()?;
        let mut payload = std::mem::take(&mut self.payload);
        let read = crate::pieces::intact(segment.payload(chunk, &mut payload), damage)?;
        if read.is_some() {
            self.writer(self.cuts.partition(chunk.summary.start()))?.copy(chunk, &payload)?;
        }
        self.payload = payload;
        (self.pause)()
    }

    fn add(&mut self, series: SeriesId, timestamps: &[i64], values: &[f64], last_seq: u64) -> Result<(), Error> {
        let (mut timestamps, mut values) = (timestamps, values);
        while let Some(&first) = timestamps.first() {
            let partition = self.cuts.partition(first);
            if self.filling.is_some_and(|(_, filling, _)| filling != partition) {
                self.end_chunk()?;
            }
            let end = self.cuts.end(partition);
            let inside = end.map_or(timestamps.len(), |end| timestamps.partition_point(|&timestamp| timestamp < end));
            let taken = inside.min(CHUNK_POINTS_MAX - self.chunk.timestamps.len());
            if taken == CHUNK_POINTS_MAX {
                // A block that came in order: no need to copy it first.
                let effort = self.effort;
                let writer = self.writer(partition)?;
                writer.add(series, last_seq, &timestamps[..taken], &values[..taken], effort)?;
                (self.pause)()?;
            } else {
                self.filling = Some((series, partition, last_seq));
                self.chunk.timestamps.extend_from_slice(&timestamps[..taken]);
                self.chunk.values.extend_from_slice(&values[..taken]);
                if self.chunk.timestamps.len() == CHUNK_POINTS_MAX {
                    self.end_chunk()?;
                }
            }
            (timestamps, values) = (&timestamps[taken..], &values[taken..]);
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), Error> {
        let Some((series, partition, last_seq)) = self.filling.take() else { return Ok(()) };
        let chunk = std::mem::take(&mut self.chunk);
        let effort = self.effort;
        let writer = self.writer(partition)?;
        writer.add(series, last_seq, &chunk.timestamps, &chunk.values, effort)?;
        self.chunk = chunk;
        self.chunk.timestamps.clear();
        self.chunk.values.clear();
        (self.pause)()
    }

    fn writer(&mut self, partition: i64) -> Result<&mut SegmentWriter, Error> {
        let key = self.cuts.own.contains(&partition).then_some(partition);
        match self.writers.entry(key) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let number = self.disk.next_number();
                let path = self.disk.dir.join(segment_name(number));
                self.written.push(path.clone());
                let writer = SegmentWriter::create(&*self.disk.vfs, &path, self.disk.store_id, number, self.generation);
                Ok(entry.insert(writer?))
            }
        }
    }

    /// Syncs all of it, with its names. It becomes part of the store by the manifest alone.
    pub(crate) fn finish(mut self) -> Result<Vec<Arc<Segment>>, Error> {
        let mut metas: Vec<SegmentMeta> = Vec::new();
        for (_, writer) in std::mem::take(&mut self.writers) {
            metas.push(writer.finish()?);
        }
        if !metas.is_empty() {
            self.disk.sync_dir()?;
        }
        let segments = metas.iter().map(|meta| self.disk.open_segment(meta)).collect::<Result<_, _>>()?;
        self.finished = true;
        Ok(segments)
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.writers.clear();
            self.written.iter().for_each(|path| remove(self.disk, path));
        }
    }
}

/// Removes a file that nothing names. One that can't be removed now is removed when the store is opened again.
pub(crate) fn remove(disk: &Disk, path: &Path) {
    let _ = disk.vfs.remove(path);
}
