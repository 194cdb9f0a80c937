//! The points of one window, in order, and what they add up to without ever taking anything away again.
//!
//! A sum from which the oldest value is subtracted drifts, and a maximum can't be subtracted from at all. So the points
//! lie in blocks, each with its own aggregate, and what leaves is left out of aggregates that are made anew now and then:
//! the two-stack queue (Tangwongsan, Hirzel, Schneider: "General Incremental Sliding-Window Aggregation", VLDB 2015, tell
//! of it and its kin), one level up. For the blocks in front there is the aggregate of each tail of them, for the first
//! block that of each tail of its points, for the blocks behind one aggregate of them all; three merges give the whole.
//! A point that arrives late is pushed into those that it belongs to. Only a replaced value makes one block and the
//! aggregates over it be computed again.

use std::collections::VecDeque;

use slung_model::{Aggregate, Point, SeriesId};

/// About the square root of a window of 100,000 points: a replaced value costs one block and one merge per block.
const BLOCK_POINTS_MAX: usize = 256;

/// 24 bytes.
#[derive(Debug, Clone, Copy)]
struct Entry {
    timestamp: i64,
    value: f64,
    series: SeriesId,
}

impl Entry {
    fn key(&self) -> (i64, SeriesId) {
        (self.timestamp, self.series)
    }
}

/// A run of points in the order of their keys; never empty while it is in a window.
#[derive(Debug)]
struct Block {
    entries: Vec<Entry>,
    /// How many at the front have left; other than 0 in the first block only, and only while it is open.
    gone: usize,
    /// Of those that are there; not kept up to date while the block is open.
    total: Aggregate,
}

impl Block {
    fn of(entries: Vec<Entry>) -> Self {
        let total = Aggregate::of(entries.iter().map(|entry| entry.value));
        Self { entries, gone: 0, total }
    }

    fn live(&self) -> &[Entry] {
        &self.entries[self.gone..]
    }

    fn first(&self) -> (i64, SeriesId) {
        self.entries[self.gone].key()
    }

    fn last(&self) -> (i64, SeriesId) {
        self.entries[self.entries.len() - 1].key()
    }
}

/// Points by (timestamp, series), each pair once.
///
/// The blocks are in up to three parts: the open one (the first block, while `open` is not empty), then `tails.len()` in
/// front, then the rest behind.
#[derive(Debug, Default)]
pub(crate) struct Points {
    blocks: VecDeque<Block>,
    len: usize,
    /// `open[i]`: aggregate of the last i + 1 points of the first block.
    open: Vec<Aggregate>,
    /// `tails[i]`: aggregate of the last i + 1 of the blocks in front.
    tails: Vec<Aggregate>,
    /// Aggregate of the blocks behind.
    behind: Aggregate,
}

impl Points {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The oldest timestamp.
    pub(crate) fn oldest(&self) -> Option<i64> {
        self.blocks.front().map(|block| block.first().0)
    }

    /// Over all of them.
    pub(crate) fn total(&self) -> Aggregate {
        let mut total = self.behind;
        for part in [self.tails.last(), self.open.last()].into_iter().flatten() {
            total.merge(part);
        }
        total
    }

    /// Over those not older than `start`, and the oldest timestamp among them. Costs a merge per block.
    pub(crate) fn since(&self, start: i64) -> (Aggregate, Option<i64>) {
        let mut total = Aggregate::EMPTY;
        let mut oldest = None;
        for (index, block) in self.blocks.iter().enumerate().rev() {
            if block.first().0 >= start {
                let whole = if index == 0 { self.open.last().unwrap_or(&block.total) } else { &block.total };
                total.merge(whole);
                oldest = Some(block.first().0);
                continue;
            }
            let rest = &block.live()[block.live().partition_point(|entry| entry.timestamp < start)..];
            total.merge(&Aggregate::of(rest.iter().map(|entry| entry.value)));
            return (total, rest.first().map(|entry| entry.timestamp).or(oldest));
        }
        (total, oldest)
    }

    /// Takes a point, in place of the one with the same series and timestamp if there is one.
    pub(crate) fn insert(&mut self, point: &Point) {
        let entry = Entry { timestamp: point.timestamp, value: point.value, series: point.series };
        match self.blocks.back() {
            Some(block) if entry.key() <= block.last() => self.insert_among(entry),
            _ => self.append(entry),
        }
    }

    /// Lets everything older than `start` go.
    pub(crate) fn evict(&mut self, start: i64) {
        while let Some(block) = self.blocks.front()
            && block.first().0 < start
        {
            if block.last().0 < start {
                self.drop_first_block();
            } else {
                let leaving = block.live().partition_point(|entry| entry.timestamp < start);
                self.drop_first_points(leaving);
            }
        }
    }

    /// Lets the oldest point go, and says when it was.
    pub(crate) fn pop_oldest(&mut self) -> Option<i64> {
        let oldest = self.oldest()?;
        self.drop_first_points(1);
        Some(oldest)
    }

    /// The way of a stream in order: nothing but a push.
    fn append(&mut self, entry: Entry) {
        self.len += 1;
        self.behind.push(entry.value);
        let has_room =
            self.blocks_behind() > 0 && self.blocks.back().is_some_and(|block| block.entries.len() < BLOCK_POINTS_MAX);
        if has_room && let Some(block) = self.blocks.back_mut() {
            block.entries.push(entry);
            block.total.push(entry.value);
        } else {
            self.blocks.push_back(Block::of(vec![entry]));
        }
    }

    /// Takes an entry that is not newer than the newest.
    fn insert_among(&mut self, entry: Entry) {
        let (mut index, mut found) = self.find(entry.key());
        if let Ok(at) = found {
            self.replace(index, at, entry.value);
            return;
        }
        if self.blocks[index].entries.len() >= BLOCK_POINTS_MAX {
            self.split(index);
            (index, found) = self.find(entry.key());
        }
        let (Ok(at) | Err(at)) = found;
        self.len += 1;
        let block = &mut self.blocks[index];
        block.entries.insert(at, entry);
        block.total.push(entry.value);
        let newer_points = block.entries.len() - 1 - at;
        let opened = usize::from(!self.open.is_empty());
        if index < opened {
            // The tail that begins with this point is new; the longer ones have it too.
            let mut tail = self.open[..newer_points].last().copied().unwrap_or_default();
            tail.push(entry.value);
            self.open.insert(newer_points, tail);
            for longer in &mut self.open[newer_points + 1..] {
                longer.push(entry.value);
            }
        } else if index < opened + self.tails.len() {
            let newer_blocks = opened + self.tails.len() - 1 - index;
            for tail in &mut self.tails[newer_blocks..] {
                tail.push(entry.value);
            }
        } else {
            self.behind.push(entry.value);
        }
    }

    /// The block that a key belongs to, which is never past the end, and the place of it there: found or to be put.
    fn find(&self, key: (i64, SeriesId)) -> (usize, Result<usize, usize>) {
        let index = self.blocks.partition_point(|block| block.first() <= key).saturating_sub(1);
        let block = &self.blocks[index];
        let place = block.live().binary_search_by_key(&key, Entry::key);
        (index, place.map(|at| at + block.gone).map_err(|at| at + block.gone))
    }

    fn replace(&mut self, index: usize, at: usize, value: f64) {
        let block = &mut self.blocks[index];
        if block.entries[at].value.to_bits() == value.to_bits() {
            return;
        }
        block.entries[at].value = value;
        let opened = usize::from(!self.open.is_empty());
        if index < opened {
            let newer_points = block.entries.len() - 1 - at;
            self.open_from(newer_points);
            return;
        }
        block.total = Aggregate::of(block.entries.iter().map(|entry| entry.value));
        if index < opened + self.tails.len() {
            self.tails_from(opened + self.tails.len() - 1 - index);
        } else {
            self.behind = self.merged(opened + self.tails.len()..self.blocks.len());
        }
    }

    /// Makes two blocks of one that is full. All blocks are behind afterwards.
    fn split(&mut self, index: usize) {
        if !self.open.is_empty() {
            let first = &mut self.blocks[0];
            first.entries.drain(..first.gone);
            first.gone = 0;
            first.total = self.open[self.open.len() - 1];
            self.open.clear();
        }
        self.tails.clear();
        self.behind = self.merged(0..self.blocks.len());
        // What left may have made room; two halves of it are right nevertheless, as long as none is empty.
        let block = &mut self.blocks[index];
        if block.entries.len() >= 2 {
            let newer = block.entries.split_off(block.entries.len() / 2);
            let older = std::mem::take(&mut block.entries);
            *block = Block::of(older);
            self.blocks.insert(index + 1, Block::of(newer));
        }
    }

    fn drop_first_block(&mut self) {
        if self.open.is_empty() {
            if self.tails.is_empty() {
                self.bring_to_front();
            }
            self.tails.pop();
        } else {
            self.open.clear();
        }
        if let Some(block) = self.blocks.pop_front() {
            self.len -= block.live().len();
        }
    }

    /// Lets so many points of the first block go, which are not more than it has.
    fn drop_first_points(&mut self, count: usize) {
        if self.open.is_empty() {
            if self.tails.is_empty() {
                self.bring_to_front();
            }
            self.tails.pop();
            self.open_from(0);
        }
        self.open.truncate(self.open.len() - count);
        self.len -= count;
        self.blocks[0].gone += count;
        if self.open.is_empty() {
            self.blocks.pop_front();
        }
    }

    /// All blocks are behind: makes them the ones in front.
    fn bring_to_front(&mut self) {
        self.tails.resize(self.blocks.len(), Aggregate::EMPTY);
        self.tails_from(0);
        self.behind = Aggregate::EMPTY;
    }

    /// Computes the tails of blocks again, but for the `keep` shortest.
    fn tails_from(&mut self, keep: usize) {
        let last = usize::from(!self.open.is_empty()) + self.tails.len();
        let mut tail = self.tails[..keep].last().copied().unwrap_or_default();
        for shorter in keep..self.tails.len() {
            tail.merge(&self.blocks[last - 1 - shorter].total);
            self.tails[shorter] = tail;
        }
    }

    /// Computes the tails of the first block's points, but for the `keep` shortest.
    fn open_from(&mut self, keep: usize) {
        self.open.truncate(keep);
        let mut tail = self.open.last().copied().unwrap_or_default();
        let live = self.blocks[0].live();
        for entry in live[..live.len() - keep].iter().rev() {
            tail.push(entry.value);
            self.open.push(tail);
        }
    }

    fn merged(&self, blocks: std::ops::Range<usize>) -> Aggregate {
        let mut total = Aggregate::EMPTY;
        for block in self.blocks.range(blocks) {
            total.merge(&block.total);
        }
        total
    }

    fn blocks_behind(&self) -> usize {
        self.blocks.len() - usize::from(!self.open.is_empty()) - self.tails.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// What must hold of the parts after every step.
    fn check(points: &Points, all: &BTreeMap<(i64, u32), f64>) {
        assert_eq!(points.len(), all.len());
        assert_eq!(points.oldest(), all.keys().next().map(|key| key.0));
        let flat: Vec<_> = points.blocks.iter().flat_map(|block| block.live()).collect();
        assert!(flat.iter().map(|entry| (entry.timestamp, entry.series.0)).eq(all.keys().copied()));
        assert!(points.blocks.iter().all(|block| !block.live().is_empty() && block.entries.len() <= BLOCK_POINTS_MAX));
        assert!(points.blocks.iter().skip(usize::from(!points.open.is_empty())).all(|block| block.gone == 0));
        if !points.open.is_empty() {
            assert_eq!(points.open.len(), points.blocks[0].live().len());
        }
        assert_same(&points.total(), all.values().copied());
    }

    fn assert_same(total: &Aggregate, values: impl Iterator<Item = f64> + Clone) {
        use slung_model::Op;
        let exact = Aggregate::of(values.clone());
        for op in [Op::Count, Op::Min, Op::Max] {
            assert_eq!(total.value(op), exact.value(op));
        }
        let scale: f64 = values.map(f64::abs).sum();
        assert!((total.sum() - exact.sum()).abs() <= 1e-12 * scale, "{} is not {}", total.sum(), exact.sum());
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// So many points, this far apart, from there on.
        Run(i64, i64, u16),
        Insert(i64, u32, f64),
        Evict(i64),
        PopOldest,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0..4_000_i64, 1..4_i64, 1..600_u16).prop_map(|(from, apart, count)| Step::Run(from, apart, count)),
            8 => (0..4_000_i64, 0..3_u32, -1e6..1e6).prop_map(|(at, series, value)| Step::Insert(at, series, value)),
            3 => (0..4_000_i64).prop_map(Step::Evict),
            2 => Just(Step::PopOldest),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec(step(), 1..60)) {
            let (mut points, mut all) = (Points::default(), BTreeMap::new());
            let insert = |points: &mut Points, all: &mut BTreeMap<_, _>, timestamp, series, value| {
                points.insert(&Point { series: SeriesId(series), timestamp, value });
                all.insert((timestamp, series), value);
            };
            for step in steps {
                match step {
                    Step::Run(from, apart, count) => for i in 0..i64::from(count) {
                        insert(&mut points, &mut all, from + i * apart, 0, (i % 97) as f64 - 48.0);
                    },
                    Step::Insert(at, series, value) => insert(&mut points, &mut all, at, series, value),
                    Step::Evict(start) => {
                        points.evict(start);
                        all = all.split_off(&(start, 0));
                    }
                    Step::PopOldest => prop_assert_eq!(points.pop_oldest(), all.pop_first().map(|(key, _)| key.0)),
                }
                check(&points, &all);
                for start in [i64::MIN, 700, 2_000, 3_900, i64::MAX] {
                    let (total, oldest) = points.since(start);
                    prop_assert_eq!(oldest, all.range((start, 0)..).next().map(|(key, _)| key.0));
                    assert_same(&total, all.range((start, 0)..).map(|(_, value)| *value));
                }
            }
        }
    }

    /// A window that takes one value from its running sum for each that it adds is off in the fourth digit here.
    #[test]
    fn sums_do_not_drift() {
        let mut points = Points::default();
        let width = 1_000;
        let value = |i: i64| if i % 1_500 == 0 { 1e16 } else { (i % 1_000) as f64 / 7.0 };
        for i in 0..1_000_000 {
            points.insert(&Point { series: SeriesId(0), timestamp: i, value: value(i) });
            points.evict(i - width + 1);
        }
        let last = 1_000_000 - width..1_000_000;
        let scale: f64 = last.clone().map(|i| value(i).abs()).sum();
        let exact = Aggregate::of(last.map(value)).sum();
        assert!((points.total().sum() - exact).abs() <= 1e-12 * scale);
    }
}
