//! The points in memory: per series, sorted blocks of columns, which snapshots share.

use std::sync::{Arc, OnceLock};

use slung_model::{Aggregate, Point, TimeRange};

/// How many points a block has at most. A few thousand: a summary then stands for many points, and copying a block that
/// a snapshot holds (24 bytes a point) takes some microseconds. Few in unit tests, so that blocks split there.
const BLOCK_POINTS_MAX: usize = if cfg!(test) { 8 } else { 4096 };

/// Points of one series by rising timestamps, each timestamp once. Never empty once it is in a series.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    timestamps: Vec<i64>,
    values: Vec<f64>,
    /// Where each point stands in the order of writes.
    seqs: Vec<u64>,
    /// Over all values; kept while points are added, made anew by the first reader after one was replaced.
    summary: OnceLock<Aggregate>,
}

impl Block {
    fn new() -> Self {
        Self { summary: Aggregate::EMPTY.into(), ..Self::default() }
    }

    pub(crate) fn len(&self) -> usize {
        self.timestamps.len()
    }

    pub(crate) fn first(&self) -> i64 {
        self.timestamps[0]
    }

    pub(crate) fn newest(&self) -> i64 {
        self.timestamps[self.len() - 1]
    }

    /// Which of the points the range covers.
    pub(crate) fn within(&self, range: TimeRange) -> std::ops::Range<usize> {
        let start = self.timestamps.partition_point(|&timestamp| timestamp < range.start);
        let end = self.timestamps.partition_point(|&timestamp| timestamp <= range.end);
        start..end.max(start)
    }

    /// Over the points that the range covers: from the summary where these are all.
    pub(crate) fn aggregate(&self, range: TimeRange) -> Aggregate {
        if range.contains(self.first()) && range.contains(self.newest()) {
            return *self.summary.get_or_init(|| Aggregate::of(self.values.iter().copied()));
        }
        Aggregate::of(self.values[self.within(range)].iter().copied())
    }

    /// The point's timestamp, value and place in the order of writes.
    pub(crate) fn point(&self, at: usize) -> (i64, f64, u64) {
        (self.timestamps[at], self.values[at], self.seqs[at])
    }

    /// Makes room for one more, where the block is not full. Doubling the room that a copied block has would go beyond
    /// what a block ever needs.
    fn grow(&mut self) {
        let len = self.len();
        if len == self.timestamps.capacity() {
            let more = len.max(4).min(BLOCK_POINTS_MAX - len);
            self.timestamps.reserve_exact(more);
            self.values.reserve_exact(more);
            self.seqs.reserve_exact(more);
        }
    }

    /// Takes points from the front as long as they are in order and there is room; says how many.
    fn extend(&mut self, points: &[Point], first_seq: u64) -> usize {
        let mut newest = self.timestamps.last().copied();
        let mut taken = 0;
        for (point, seq) in std::iter::zip(points, first_seq..) {
            if self.len() == BLOCK_POINTS_MAX || newest.is_some_and(|newest| point.timestamp <= newest) {
                break;
            }
            self.grow();
            self.timestamps.push(point.timestamp);
            self.values.push(point.value);
            self.seqs.push(seq);
            if let Some(summary) = self.summary.get_mut() {
                summary.push(point.value);
            }
            newest = Some(point.timestamp);
            taken += 1;
        }
        taken
    }

    /// Puts one point in its place. Whether it is a new one; otherwise it replaced what was there.
    fn insert(&mut self, point: &Point, seq: u64) -> bool {
        match self.timestamps.binary_search(&point.timestamp) {
            Ok(at) => {
                self.values[at] = point.value;
                self.seqs[at] = seq;
                self.summary.take();
                false
            }
            Err(at) => {
                self.grow();
                self.timestamps.insert(at, point.timestamp);
                self.values.insert(at, point.value);
                self.seqs.insert(at, seq);
                if let Some(summary) = self.summary.get_mut() {
                    summary.push(point.value);
                }
                true
            }
        }
    }

    /// Takes the later half out.
    fn split(&mut self) -> Self {
        let half = self.len() / 2;
        self.summary.take();
        Self {
            timestamps: self.timestamps.split_off(half),
            values: self.values.split_off(half),
            seqs: self.seqs.split_off(half),
            summary: OnceLock::new(),
        }
    }
}

/// The blocks of one series, one after the other in time.
#[derive(Debug, Default)]
struct Series {
    blocks: Vec<Arc<Block>>,
}

impl Series {
    /// Takes points in the order in which they were written; says how many of them replaced another.
    fn insert(&mut self, mut points: &[Point], mut seq: u64) -> u64 {
        let mut replaced = 0;
        while let Some(point) = points.first() {
            let mut taken = self.append(points, seq);
            if taken == 0 {
                replaced += u64::from(!self.insert_between(point, seq));
                taken = 1;
            }
            points = &points[taken..];
            seq += taken as u64;
        }
        replaced
    }

    /// The fast path: takes points that are newer than all there are; says how many, 0 where the first one is not.
    fn append(&mut self, points: &[Point], seq: u64) -> usize {
        let open = match self.blocks.last() {
            Some(last) if points[0].timestamp <= last.newest() => return 0,
            Some(last) => last.len() < BLOCK_POINTS_MAX,
            None => false,
        };
        if !open {
            self.blocks.push(Arc::new(Block::new()));
        }
        let last = self.blocks.len() - 1;
        Arc::make_mut(&mut self.blocks[last]).extend(points, seq)
    }

    /// Takes one point that is not newer than all there are. Whether it is a new one.
    fn insert_between(&mut self, point: &Point, seq: u64) -> bool {
        let find =
            |blocks: &[Arc<Block>]| blocks.partition_point(|block| block.first() <= point.timestamp).saturating_sub(1);
        let mut at = find(&self.blocks);
        if self.blocks[at].len() == BLOCK_POINTS_MAX {
            let later = Arc::make_mut(&mut self.blocks[at]).split();
            self.blocks.insert(at + 1, Arc::new(later));
            at = find(&self.blocks);
        }
        Arc::make_mut(&mut self.blocks[at]).insert(point, seq)
    }

    fn overlapping(&self, range: TimeRange) -> &[Arc<Block>] {
        let start = self.blocks.partition_point(|block| block.newest() < range.start);
        let end = self.blocks.partition_point(|block| block.first() <= range.end);
        self.blocks.get(start..end).unwrap_or_default()
    }
}

/// The points of all series; ids count up from 0.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    series: Vec<Series>,
    points: u64,
}

impl Memory {
    /// One more series, without points.
    pub(crate) fn add_series(&mut self) {
        self.series.push(Series::default());
    }

    /// How many points there are.
    pub(crate) fn points(&self) -> u64 {
        self.points
    }

    /// Takes points of series that are there, in the order in which they were written; says how many of them replaced
    /// another.
    pub(crate) fn insert(&mut self, mut points: &[Point], mut seq: u64) -> u64 {
        let mut replaced = 0;
        while let Some(point) = points.first() {
            let run = points.iter().take_while(|other| other.series == point.series).count();
            let (same, rest) = points.split_at(run);
            replaced += self.series[point.series.index()].insert(same, seq);
            seq += run as u64;
            self.points += run as u64;
            points = rest;
        }
        self.points -= replaced;
        replaced
    }

    /// The blocks of a series that overlap the range; none of a series that is not there.
    pub(crate) fn blocks(&self, series: usize, range: TimeRange) -> &[Arc<Block>] {
        self.series.get(series).map_or(&[], |series| series.overlapping(range))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use slung_model::SeriesId;

    use super::*;

    fn point(series: u32, timestamp: i64, value: f64) -> Point {
        Point { series: SeriesId(series), timestamp, value }
    }

    /// All that is stored, as (series, timestamp) to (value, place in the order of writes), with what must always hold.
    fn contents(memory: &Memory) -> BTreeMap<(usize, i64), (f64, u64)> {
        let mut all = BTreeMap::new();
        for id in 0..memory.series.len() {
            let mut newest = None;
            for block in memory.blocks(id, TimeRange::ALL) {
                assert!((1..=BLOCK_POINTS_MAX).contains(&block.len()));
                assert!(block.timestamps.capacity() <= BLOCK_POINTS_MAX);
                let summary = block.aggregate(TimeRange::ALL);
                let fresh = Aggregate::of(block.values.iter().copied());
                assert_eq!(summary.count(), fresh.count());
                assert_eq!(summary.value(slung_model::Op::Min), fresh.value(slung_model::Op::Min));
                assert_eq!(summary.value(slung_model::Op::Max), fresh.value(slung_model::Op::Max));
                assert!((summary.sum() - fresh.sum()).abs() < 1e-9);
                for (timestamp, value, seq) in (0..block.len()).map(|at| block.point(at)) {
                    assert!(newest < Some(timestamp), "timestamps rise, across blocks too");
                    newest = Some(timestamp);
                    all.insert((id, timestamp), (value, seq));
                }
            }
        }
        all
    }

    proptest! {
        #[test]
        fn it_holds_what_a_sorted_map_holds(
            batches in proptest::collection::vec(
                proptest::collection::vec((0u32..3, -30i64..30, -100.0..100.0f64), 0..20), 0..20),
            range in (-35i64..35, -35i64..35),
            held_at in 0usize..20,
        ) {
            let mut memory = Memory::default();
            (0..3).for_each(|_| memory.add_series());
            let mut map = BTreeMap::new();
            let mut seq = 1;
            let mut held = None;
            for (at, batch) in batches.iter().enumerate() {
                if at == held_at {
                    let blocks: Vec<Arc<Block>> = memory.blocks(0, TimeRange::ALL).to_vec();
                    let before: Vec<_> = blocks.iter().flat_map(|b| (0..b.len()).map(|at| b.point(at))).collect();
                    held = Some((blocks, before));
                }
                let points: Vec<Point> = batch.iter().map(|&(s, t, v)| point(s, t, v)).collect();
                let before = map.len();
                for (&(s, t, v), seq) in std::iter::zip(batch, seq..) {
                    map.insert((s as usize, t), (v, seq));
                }
                let replaced = memory.insert(&points, seq);
                prop_assert_eq!(replaced as usize, before + points.len() - map.len());
                seq += points.len() as u64;
            }
            prop_assert_eq!(memory.points() as usize, map.len());
            prop_assert_eq!(&contents(&memory), &map);
            if let Some((blocks, before)) = held {
                let after: Vec<_> = blocks.iter().flat_map(|b| (0..b.len()).map(|at| b.point(at))).collect();
                prop_assert_eq!(before, after, "what somebody holds does not change");
            }
            let range = TimeRange { start: range.0, end: range.1 };
            for id in 0..3 {
                let found: usize = memory.blocks(id, range).iter().map(|block| block.within(range).len()).sum();
                let counted: u64 = memory.blocks(id, range).iter().map(|block| block.aggregate(range).count()).sum();
                let expected = map.keys().filter(|&&(s, t)| s == id && range.contains(t)).count();
                prop_assert_eq!(found, expected);
                prop_assert_eq!(counted as usize, expected);
            }
        }
    }
}
