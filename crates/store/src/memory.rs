//! The memtable: per series, blocks of columns that take points in any order and that snapshots share.

use std::sync::{Arc, OnceLock};

use slung_model::{Point, SeriesId, Summary, TimeRange};

use crate::segment::CHUNK_POINTS_MAX;

/// How many points a block has at most: as many as a chunk, so that a block that came in order becomes a chunk as it is.
const BLOCK_POINTS_MAX: usize = CHUNK_POINTS_MAX;
/// What a block takes beside its points, bytes: its own fields, its counts, its place in the series and what allocating four
/// pieces costs.
const BLOCK_BYTES: usize = 280;
const POINT_BYTES: usize = size_of::<i64>() + size_of::<f64>();

/// Timestamps and values, as many of the one as of the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Points {
    pub(crate) timestamps: Vec<i64>,
    pub(crate) values: Vec<f64>,
}

/// Some points of one series, in the order in which they were written; of several with one timestamp the last one counts.
/// Never empty once it is in a series.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    columns: Points,
    /// Timestamps rise, each there once.
    in_order: bool,
    /// It takes no more points.
    closed: bool,
    start: i64,
    end: i64,
    /// The place of the newest point in the order of writes.
    last_seq: u64,
    /// What both of these are made of is there when they are asked for; a block that changes forgets them.
    ordered: OnceLock<Box<Points>>,
    summary: OnceLock<Box<Summary>>,
}

impl Block {
    fn new(first: &Point) -> Self {
        Self {
            columns: Points::default(),
            in_order: true,
            closed: false,
            start: first.timestamp,
            end: first.timestamp,
            last_seq: 0,
            ordered: OnceLock::new(),
            summary: OnceLock::new(),
        }
    }

    /// How many points were written to it; of several with one timestamp all count while they are there.
    pub(crate) fn len(&self) -> usize {
        self.columns.timestamps.len()
    }

    /// The earliest timestamp.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// The latest timestamp.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// The place of the newest point in the order of writes.
    pub(crate) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// The points by rising timestamps, each timestamp once.
    pub(crate) fn columns(&self) -> &Points {
        if self.in_order { &self.columns } else { self.ordered.get_or_init(|| Box::new(in_order(&self.columns))) }
    }

    /// Over all points.
    pub(crate) fn summary(&self) -> &Summary {
        self.summary.get_or_init(|| {
            let Points { timestamps, values } = self.columns();
            Box::new(Summary::of(timestamps, values).expect("a block is never empty"))
        })
    }

    fn capacity_bytes(&self) -> usize {
        (self.columns.timestamps.capacity() + self.columns.values.capacity()) * POINT_BYTES / 2
    }

    /// Makes room for so many more. Doubling what a copied block has would go beyond what a block ever needs.
    fn grow(&mut self, more: usize) {
        let len = self.len();
        if len + more > self.columns.timestamps.capacity() {
            let room = (len + more).next_power_of_two().clamp(4, BLOCK_POINTS_MAX);
            self.columns.timestamps.reserve_exact(room - len);
            self.columns.values.reserve_exact(room - len);
        }
    }

    /// Takes points from the front as long as there is room; says how many.
    fn extend(&mut self, points: &[Point], first_seq: u64) -> usize {
        let taken = points.len().min(BLOCK_POINTS_MAX - self.len());
        self.grow(taken);
        for (point, seq) in std::iter::zip(&points[..taken], first_seq..) {
            if point.timestamp > self.end || self.columns.timestamps.is_empty() {
                self.end = point.timestamp;
                self.last_seq = seq;
            } else {
                self.in_order = false;
                self.start = self.start.min(point.timestamp);
                if point.timestamp == self.end {
                    self.last_seq = seq;
                }
            }
            self.columns.timestamps.push(point.timestamp);
            self.columns.values.push(point.value);
        }
        if self.summary.get().is_some() {
            self.summary.take();
        }
        if self.ordered.get().is_some() {
            self.ordered.take();
        }
        taken
    }

    /// Orders the points of a full block, and closes it unless that made much room again. Says how many of them were
    /// replaced by later ones.
    fn finish(&mut self) -> usize {
        let before = self.len();
        if !self.in_order {
            self.columns = in_order(&self.columns);
            self.in_order = true;
        }
        self.closed = self.len() > BLOCK_POINTS_MAX / 2;
        before - self.len()
    }
}

/// The same points by rising timestamps, of several with one timestamp the last one.
fn in_order(columns: &Points) -> Points {
    let mut points: Vec<(i64, f64)> =
        std::iter::zip(columns.timestamps.iter().copied(), columns.values.iter().copied()).collect();
    // Stable, and quick where most of it is in order already.
    points.sort_by_key(|&(timestamp, _)| timestamp);
    let (mut timestamps, mut values) = (Vec::with_capacity(points.len()), Vec::with_capacity(points.len()));
    for (index, &(timestamp, value)) in points.iter().enumerate() {
        if points.get(index + 1).is_none_or(|&(next, _)| next != timestamp) {
            timestamps.push(timestamp);
            values.push(value);
        }
    }
    Points { timestamps, values }
}

/// The points of all series that were written since the last flush; ids count up from 0.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Of each series its blocks in the order in which they were begun: a later one's points replace those of one before.
    series: Vec<Vec<Arc<Block>>>,
    /// Those of them that have any, as they came to it.
    filled: Vec<SeriesId>,
    points: u64,
    bytes: usize,
}

impl Memory {
    /// Without points, with room for so many series.
    pub(crate) fn with_series(count: usize) -> Self {
        let mut memory = Self::default();
        memory.series.resize_with(count, Vec::new);
        memory
    }

    /// One more series, without points.
    pub(crate) fn add_series(&mut self) {
        self.series.push(Vec::new());
    }

    /// How many series may have points.
    pub(crate) fn series_count(&self) -> usize {
        self.series.len()
    }

    /// How many points there are. Of several with one series and timestamp all count until their block is put in order.
    pub(crate) fn points(&self) -> u64 {
        self.points
    }

    /// What the points take, with the room that is kept for more. What a series without points takes, 24 bytes, is no part of
    /// it: no flush would make that less.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes points of series that are there, in the order in which they were written. Says how many points were found to
    /// have been replaced meanwhile.
    pub(crate) fn insert(&mut self, mut points: &[Point], mut seq: u64) -> u64 {
        let mut replaced = 0;
        while let Some(point) = points.first() {
            let run = points.iter().take_while(|other| other.series == point.series).count();
            let (same, rest) = points.split_at(run);
            replaced += self.insert_run(same, seq);
            seq += run as u64;
            points = rest;
        }
        replaced
    }

    fn insert_run(&mut self, mut points: &[Point], mut seq: u64) -> u64 {
        let mut replaced = 0;
        let blocks = &mut self.series[points[0].series.index()];
        if blocks.is_empty() {
            self.filled.push(points[0].series);
        }
        while let Some(first) = points.first() {
            if blocks.last().is_none_or(|block| block.closed) {
                blocks.push(Arc::new(Block::new(first)));
                self.bytes += BLOCK_BYTES;
            }
            let last = blocks.len() - 1;
            let block = Arc::make_mut(&mut blocks[last]);
            let before = block.capacity_bytes();
            let taken = block.extend(points, seq);
            if block.len() == BLOCK_POINTS_MAX {
                let gone = block.finish() as u64;
                replaced += gone;
                self.points -= gone;
            }
            self.bytes = self.bytes + block.capacity_bytes() - before;
            self.points += taken as u64;
            seq += taken as u64;
            points = &points[taken..];
        }
        replaced
    }

    /// The blocks of a series that overlap the range, older ones first; none of a series that is not there.
    pub(crate) fn blocks(&self, series: SeriesId, range: TimeRange) -> impl Iterator<Item = &Arc<Block>> {
        let blocks = self.series.get(series.index()).map_or(&[][..], Vec::as_slice);
        blocks.iter().filter(move |block| block.start <= range.end && block.end >= range.start)
    }

    /// The series that have points, in no order, each once.
    pub(crate) fn filled(&self) -> &[SeriesId] {
        &self.filled
    }

    /// The series that have points, rising, each with all its blocks.
    pub(crate) fn series(&self) -> impl Iterator<Item = (SeriesId, &[Arc<Block>])> {
        let numbered = std::iter::zip((0..).map(SeriesId), &self.series);
        numbered.filter(|(_, blocks)| !blocks.is_empty()).map(|(id, blocks)| (id, blocks.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// What a series holds, as timestamp to value, with what must always hold of its blocks.
    fn contents(memory: &Memory, series: u32) -> BTreeMap<i64, f64> {
        let mut all = BTreeMap::new();
        for block in memory.blocks(SeriesId(series), TimeRange::ALL) {
            let Points { timestamps, values } = block.columns();
            assert!((1..=BLOCK_POINTS_MAX).contains(&block.len()));
            assert!(timestamps.is_sorted_by(|a, b| a < b), "timestamps rise");
            assert_eq!((block.start(), block.end()), (timestamps[0], timestamps[timestamps.len() - 1]));
            assert_eq!(*block.summary(), Summary::of(timestamps, values).unwrap());
            all.extend(std::iter::zip(timestamps.iter().copied(), values.iter().copied()));
        }
        all
    }

    proptest! {
        #[test]
        fn it_holds_what_a_sorted_map_holds(
            batches in proptest::collection::vec(
                proptest::collection::vec((0u32..3, -30i64..30, -100.0..100.0f64), 0..20), 0..20),
            held_at in 0usize..20,
        ) {
            let mut memory = Memory::with_series(2);
            memory.add_series();
            let mut maps = [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()];
            let mut newest = [(i64::MIN, 0); 3];
            let mut seq = 1;
            let mut replaced = 0;
            let mut held = None;
            for (at, batch) in batches.iter().enumerate() {
                if at == held_at {
                    let blocks: Vec<Arc<Block>> = memory.blocks(SeriesId(0), TimeRange::ALL).cloned().collect();
                    let before: Vec<Points> = blocks.iter().map(|block| block.columns().clone()).collect();
                    held = Some((blocks, before));
                }
                let points: Vec<Point> =
                    batch.iter().map(|&(s, timestamp, value)| Point { series: SeriesId(s), timestamp, value }).collect();
                for (point, seq) in std::iter::zip(&points, seq..) {
                    maps[point.series.index()].insert(point.timestamp, point.value);
                    let newest = &mut newest[point.series.index()];
                    *newest = (*newest).max((point.timestamp, seq));
                }
                replaced += memory.insert(&points, seq);
                seq += points.len() as u64;
            }
            prop_assert_eq!(memory.points() + replaced, seq - 1);
            for series in 0..3 {
                prop_assert_eq!(&contents(&memory, series), &maps[series as usize]);
                let last = memory.blocks(SeriesId(series), TimeRange::ALL).map(|block| (block.end(), block.last_seq())).max();
                prop_assert_eq!(last.unwrap_or((i64::MIN, 0)), newest[series as usize]);
            }
            if let Some((blocks, before)) = held {
                let after: Vec<Points> = blocks.iter().map(|block| block.columns().clone()).collect();
                prop_assert_eq!(before, after, "what somebody holds does not change");
            }
        }
    }

    /// The extremes of time are ordinary timestamps.
    #[test]
    fn the_ends_of_time() {
        let mut memory = Memory::with_series(1);
        for (seq, timestamp) in [(1, i64::MIN), (2, i64::MAX), (3, i64::MIN)] {
            memory.insert(&[Point { series: SeriesId(0), timestamp, value: seq as f64 }], seq);
        }
        assert_eq!(contents(&memory, 0), BTreeMap::from([(i64::MIN, 3.0), (i64::MAX, 2.0)]));
    }

    /// A gauge that is overwritten all the time must not fill the memory.
    #[test]
    fn replaced_points_make_room() {
        let mut memory = Memory::with_series(1);
        for seq in 1..=BLOCK_POINTS_MAX as u64 * 20 {
            memory.insert(&[Point { series: SeriesId(0), timestamp: 7, value: seq as f64 }], seq);
        }
        assert!(memory.points() <= BLOCK_POINTS_MAX as u64);
        assert_eq!(contents(&memory, 0), BTreeMap::from([(7, BLOCK_POINTS_MAX as f64 * 20.0)]));
    }
}
