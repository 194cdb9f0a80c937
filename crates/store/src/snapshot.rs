//! A view of some series at one moment, which later writes do not change.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::Arc;

use slung_model::{Aggregate, Point, Seq, SeriesId, TimeRange};

use crate::memory::{Block, Memory};

/// What [`crate::Store::snapshot`] took: all points of the asked series and range that had been written up to
/// [`Snapshot::seq`], and nothing later. It needs no lock and may be kept; blocks of which a later write changes a point
/// are then copied first.
#[derive(Debug, Clone)]
pub struct Snapshot {
    seq: Seq,
    range: TimeRange,
    /// Rising by series.
    series: Vec<(SeriesId, Vec<Arc<Block>>)>,
}

impl Snapshot {
    /// `series` rises, each once.
    pub(crate) fn take(memory: &Memory, seq: Seq, series: &[SeriesId], range: TimeRange) -> Self {
        let blocks = |id: &SeriesId| Some((*id, memory.blocks(id.index(), range))).filter(|(_, b)| !b.is_empty());
        Self { seq, range, series: series.iter().filter_map(blocks).map(|(id, b)| (id, b.to_vec())).collect() }
    }

    /// The last point that had been written when it was taken, of whatever series.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Count, sum, minimum and maximum of the points. Blocks that lie inside the range are answered from their summaries.
    pub fn aggregate(&self) -> Aggregate {
        let mut all = Aggregate::EMPTY;
        for block in self.series.iter().flat_map(|(_, blocks)| blocks) {
            all.merge(&block.aggregate(self.range));
        }
        all
    }

    /// The point with the greatest timestamp; of several series with the same, the one that was written last. `None` where
    /// there is no point.
    pub fn last(&self) -> Option<Point> {
        let last = |(id, blocks): &(SeriesId, Vec<Arc<Block>>)| {
            // The last block overlaps the range, but its points may lie on both sides of it.
            let (block, at) =
                blocks.iter().rev().find_map(|block| Some((block, block.within(self.range).next_back()?)))?;
            Some((*id, block.point(at)))
        };
        let newest = self.series.iter().filter_map(last).max_by_key(|&(_, (timestamp, _, seq))| (timestamp, seq));
        newest.map(|(series, (timestamp, value, _))| Point { series, timestamp, value })
    }

    /// Every point, by timestamp, those of one timestamp by series.
    pub fn points(&self) -> impl Iterator<Item = Point> {
        Merge(self.series.iter().filter_map(|(id, blocks)| Cursor::new(*id, blocks, self.range)).collect())
    }
}

/// Where the reading of one series stands: always at a point.
struct Cursor<'a> {
    series: SeriesId,
    timestamp: i64,
    block: &'a Block,
    within: std::ops::Range<usize>,
    later: std::slice::Iter<'a, Arc<Block>>,
    range: TimeRange,
}

impl<'a> Cursor<'a> {
    fn new(series: SeriesId, blocks: &'a [Arc<Block>], range: TimeRange) -> Option<Self> {
        let mut later = blocks.iter();
        let block = later.next()?;
        let mut cursor = Self { series, timestamp: 0, block, within: block.within(range), later, range };
        cursor.settle().then_some(cursor)
    }

    /// Goes to the point that stands first in what is left. Whether there is one.
    fn settle(&mut self) -> bool {
        while self.within.is_empty() {
            let Some(block) = self.later.next() else { return false };
            self.block = block;
            self.within = block.within(self.range);
        }
        self.timestamp = self.block.point(self.within.start).0;
        true
    }
}

impl Ord for Cursor<'_> {
    /// The one to be read next is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.timestamp, other.series).cmp(&(self.timestamp, self.series))
    }
}

impl PartialOrd for Cursor<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Cursor<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Cursor<'_> {}

struct Merge<'a>(BinaryHeap<Cursor<'a>>);

impl Iterator for Merge<'_> {
    type Item = Point;

    fn next(&mut self) -> Option<Point> {
        let mut cursor = self.0.peek_mut()?;
        let (timestamp, value, _) = cursor.block.point(cursor.within.start);
        let point = Point { series: cursor.series, timestamp, value };
        cursor.within.start += 1;
        if !cursor.settle() {
            PeekMut::pop(cursor);
        }
        Some(point)
    }
}
