//! The points of one window, in order, and what they add up to without ever taking anything away again.
//!
//! A sum from which the oldest value is subtracted drifts, and a maximum can't be subtracted from at all. So the points
//! lie in blocks, each with its own total, and what leaves is left out of totals that are made anew now and then:
//! the two-stack queue (Tangwongsan, Hirzel, Schneider: "General Incremental Sliding-Window Aggregation", VLDB 2015, tell
//! of it and its kin), one level up. For the blocks in front there is the total of each tail of them, for the first
//! block that of each tail of its points with them, for the blocks behind one total of them all; one merge gives the whole.
//! What arrives late for the blocks in front has a total of its own until the next of them is opened, which costs a merge
//! per block then. A replaced value makes one block and the totals over it be computed again.

use std::collections::VecDeque;
use std::ops::Range;

use slung_model::{Point, SeriesId};

use crate::total::{First, Total};

/// A stream in order fills blocks up to here, about the square root of a window of 100,000 points: a replaced value costs one
/// block and one merge per block.
const BLOCK_POINTS: usize = 256;
/// What comes out of order goes in between, up to here; then there are two blocks. So those that get a few late points are
/// as full as the others.
const BLOCK_POINTS_MAX: usize = 512;
/// A block starts with room for so many; in a window that has several full ones, with room for all.
const BLOCK_POINTS_FIRST: usize = 8;
/// By how much a block grows that is not small: points out of order leave blocks of any size, and no more than this may be
/// idle in each.
const BLOCK_POINTS_STEP: usize = 32;

/// A timestamp and a series: no two points of a window have both in common.
type Key = (i64, SeriesId);

/// A run of points in the order of their keys, in columns (20 bytes a point); never empty while it is in a window.
#[derive(Debug)]
struct Block<T> {
    timestamps: Vec<i64>,
    values: Vec<f64>,
    series: Vec<SeriesId>,
    /// How many at the front have left; other than 0 in the first block only, and only while it is open.
    gone: usize,
    /// The first key, of those that left too: here, so that a search reads no points of the blocks that it passes.
    begin: Key,
    /// Of those that are there; not kept up to date while the block is open, or as [`Block::is_growing`] says.
    total: T,
    /// Points are put to its end, and its total waits until somebody asks: at once it is several times as cheap.
    is_growing: bool,
}

impl<T: Total> Block<T> {
    fn with_capacity(points: usize) -> Self {
        Self {
            timestamps: Vec::with_capacity(points),
            values: Vec::with_capacity(points),
            series: Vec::with_capacity(points),
            gone: 0,
            begin: (i64::MIN, SeriesId(0)),
            total: T::default(),
            is_growing: false,
        }
    }

    fn of(points: &[Point]) -> Self {
        let mut block = Self::with_capacity(points.len());
        block.timestamps.extend(points.iter().map(|point| point.timestamp));
        block.values.extend(points.iter().map(|point| point.value));
        block.series.extend(points.iter().map(|point| point.series));
        block.begin = block.key(0);
        block.total = T::of(&block.values);
        block
    }

    /// Those that left included.
    fn len(&self) -> usize {
        self.values.len()
    }

    fn live_values(&self) -> &[f64] {
        &self.values[self.gone..]
    }

    fn key(&self, at: usize) -> Key {
        (self.timestamps[at], self.series[at])
    }

    fn first(&self) -> Key {
        self.key(self.gone)
    }

    fn last(&self) -> Key {
        self.key(self.len() - 1)
    }

    /// Where the points not older than `start` begin. The first ones are looked at first: in a stream one leaves at a time.
    #[inline]
    fn start(&self, start: i64) -> usize {
        let live = &self.timestamps[self.gone..];
        let few = live.iter().take(2).take_while(|timestamp| **timestamp < start).count();
        self.gone + if few < 2 { few } else { live.partition_point(|timestamp| *timestamp < start) }
    }

    /// Of those that are there, unless it is open.
    fn total(&self) -> T {
        if self.is_growing { T::of(&self.values) } else { self.total }
    }

    /// The same, once for all.
    fn settle(&mut self) {
        if self.is_growing {
            (self.total, self.is_growing) = (T::of(&self.values), false);
        }
    }

    /// The place of a key: found, or to be put.
    fn find(&self, key: Key) -> Result<usize, usize> {
        let from = self.start(key.0);
        let same = self.timestamps[from..].iter().take_while(|timestamp| **timestamp == key.0).count();
        let place = self.series[from..from + same].binary_search(&key.1);
        place.map(|at| at + from).map_err(|at| at + from)
    }

    /// Makes room for one more. Answers for how many more there is room now.
    fn grow(&mut self) -> usize {
        let (len, room) = (self.len(), self.values.capacity());
        if len < room {
            return 0;
        }
        let more = if room < BLOCK_POINTS / 2 { room.max(BLOCK_POINTS_FIRST) } else { BLOCK_POINTS_STEP };
        let more = more.min(BLOCK_POINTS_MAX.saturating_sub(room)).max(1);
        self.timestamps.reserve_exact(more);
        self.values.reserve_exact(more);
        self.series.reserve_exact(more);
        self.values.capacity() - room
    }

    /// Puts a point there; there is room for it.
    fn insert(&mut self, at: usize, point: &Point) {
        self.timestamps.insert(at, point.timestamp);
        self.values.insert(at, point.value);
        self.series.insert(at, point.series);
        if at == 0 {
            self.begin = self.key(0);
        }
    }

    /// Takes away what has left.
    fn close(&mut self) {
        self.timestamps.drain(..self.gone);
        self.values.drain(..self.gone);
        self.series.drain(..self.gone);
        self.gone = 0;
        self.begin = self.key(0);
    }

    /// The newer half as a block of its own.
    fn split_off(&mut self, at: usize) -> Self {
        let timestamps = self.timestamps.split_off(at);
        let values = self.values.split_off(at);
        let series = self.series.split_off(at);
        self.timestamps.shrink_to_fit();
        self.values.shrink_to_fit();
        self.series.shrink_to_fit();
        (self.total, self.is_growing) = (T::of(&self.values), false);
        let begin = (timestamps[0], series[0]);
        Self { total: T::of(&values), timestamps, values, series, gone: 0, begin, is_growing: false }
    }
}

/// Points by (timestamp, series), each pair once.
///
/// The blocks are in up to three parts: the open one (the first block, while `open` is not empty), then `tails.len()` in
/// front, then the rest behind.
#[derive(Debug, Default)]
pub(crate) struct Points<T> {
    blocks: VecDeque<Block<T>>,
    len: usize,
    /// For how many points there is memory in the blocks.
    room: usize,
    /// `open[i]`: total of the last i + 1 points of the first block, and of the blocks in front.
    open: Vec<T>,
    /// `tails[i]`: total of the last i + 1 of the blocks in front.
    tails: Vec<T>,
    /// Total of the blocks behind.
    behind: T,
    /// Of what has come into the blocks in front since their tails were computed, and which is the shortest tail without it.
    late: Option<(T, usize)>,
}

impl<T: Total> Points<T> {
    /// Of points that rise by their keys.
    pub(crate) fn of(points: &[Point]) -> Self {
        let mut all = Self::default();
        for points in points.chunks(BLOCK_POINTS) {
            let block = Block::of(points);
            all.len += block.len();
            all.room += block.values.capacity();
            all.behind.merge(&block.total());
            all.blocks.push_back(block);
        }
        all
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Heap memory.
    pub(crate) fn bytes(&self) -> usize {
        const POINT: usize = size_of::<i64>() + size_of::<f64>() + size_of::<SeriesId>();
        let totals = self.open.capacity() + self.tails.capacity();
        self.room * POINT + self.blocks.capacity() * size_of::<Block<T>>() + totals * size_of::<T>()
    }

    /// The timestamp of the first one.
    #[inline]
    pub(crate) fn oldest(&self) -> Option<i64> {
        self.blocks.front().map(|block| block.timestamps[block.gone])
    }

    /// The first one.
    pub(crate) fn first(&self) -> Option<First> {
        let block = self.blocks.front()?;
        let ((timestamp, series), value) = (block.first(), block.live_values()[0]);
        Some(First { timestamp, series, value })
    }

    /// Over all of them.
    #[inline]
    pub(crate) fn total(&self) -> T {
        let mut total = self.behind;
        if let Some(front) = self.open.last().or(self.tails.last()) {
            total.merge(front);
        }
        if let Some((late, _)) = &self.late {
            total.merge(late);
        }
        total
    }

    /// Over those not older than `start`, and the first of them. Costs a merge per block.
    pub(crate) fn since(&self, start: i64) -> (T, Option<First>) {
        let mut total = T::default();
        let mut first = None;
        for (index, block) in self.blocks.iter().enumerate().rev() {
            let at = block.start(start);
            let is_whole = at == block.gone;
            if is_whole && (index > 0 || self.open.is_empty()) {
                total.merge(&block.total());
            } else if at < block.len() {
                total.merge(&T::of(&block.values[at..]));
            }
            if at < block.len() {
                let (timestamp, series) = block.key(at);
                first = Some(First { timestamp, series, value: block.values[at] });
            }
            if !is_whole {
                break;
            }
        }
        (total, first)
    }

    /// Hands the values of those out that are not older than `from` but older than `to`.
    pub(crate) fn between(&self, from: i64, to: i64, mut take: impl FnMut(f64)) {
        for block in &self.blocks {
            if block.first().0 >= to {
                return;
            }
            if block.last().0 >= from {
                block.values[block.start(from)..block.start(to).max(block.start(from))].iter().for_each(|v| take(*v));
            }
        }
    }

    /// Those not older than `start`.
    pub(crate) fn list_since(&self, start: i64) -> Vec<Point> {
        let mut list = Vec::new();
        for block in self.blocks.iter().filter(|block| block.last().0 >= start) {
            list.extend((block.start(start)..block.len()).map(|at| Point {
                series: block.series[at],
                timestamp: block.timestamps[at],
                value: block.values[at],
            }));
        }
        list
    }

    /// Hands everything over to be kept in another form: block by block, timestamps, series and values.
    pub(crate) fn each_block(&self, mut take: impl FnMut(&[i64], &[SeriesId], &[f64])) {
        for block in &self.blocks {
            take(&block.timestamps[block.gone..], &block.series[block.gone..], block.live_values());
        }
    }

    /// Takes a point, in place of the one with the same series and timestamp if there is one, whose value it answers.
    #[inline]
    pub(crate) fn insert(&mut self, point: &Point) -> Option<f64> {
        match self.blocks.back() {
            Some(block) if (point.timestamp, point.series) <= block.last() => self.insert_among(point),
            _ => {
                self.append(point);
                None
            }
        }
    }

    /// Lets everything older than `start` go, and hands the values out.
    #[inline]
    pub(crate) fn evict(&mut self, start: i64, mut leaves: impl FnMut(f64)) {
        while let Some(block) = self.blocks.front()
            && block.timestamps[block.gone] < start
        {
            if block.timestamps[block.len() - 1] < start {
                block.live_values().iter().for_each(|value| leaves(*value));
                self.drop_first_block();
            } else {
                // In a stream in order it is one; and each is looked at once in its life.
                let live = &block.timestamps[block.gone..];
                let leaving = live.iter().take_while(|timestamp| **timestamp < start).count();
                block.live_values()[..leaving].iter().for_each(|value| leaves(*value));
                self.drop_first_points(leaving);
                return;
            }
        }
    }

    /// The way of a stream in order: nothing but a push.
    fn append(&mut self, point: &Point) {
        self.len += 1;
        self.behind.push(point.value);
        let has_room = self.blocks_behind() > 0 && self.blocks.back().is_some_and(|block| block.len() < BLOCK_POINTS);
        if !has_room {
            let first = if self.len > 4 * BLOCK_POINTS { BLOCK_POINTS } else { BLOCK_POINTS_FIRST };
            let mut block = Block::with_capacity(first);
            block.begin = (point.timestamp, point.series);
            self.room += block.values.capacity();
            self.blocks.push_back(block);
        }
        let Some(block) = self.blocks.back_mut() else { return };
        self.room += block.grow();
        block.timestamps.push(point.timestamp);
        block.values.push(point.value);
        block.series.push(point.series);
        block.is_growing = true;
    }

    /// Takes a point that is not newer than the newest.
    fn insert_among(&mut self, point: &Point) -> Option<f64> {
        let key = (point.timestamp, point.series);
        let (mut index, mut found) = self.find(key);
        if let Ok(at) = found {
            return Some(self.replace(index, at, point.value));
        }
        if self.blocks[index].len() >= BLOCK_POINTS_MAX {
            self.split(index);
            (index, found) = self.find(key);
        }
        let (Ok(at) | Err(at)) = found;
        self.len += 1;
        let block = &mut self.blocks[index];
        self.room += block.grow();
        block.insert(at, point);
        if !block.is_growing {
            block.total.push(point.value);
        }
        let newer_points = block.len() - 1 - at;
        let opened = usize::from(!self.open.is_empty());
        if index < opened {
            // The tail that begins with this point is new; the longer ones have it too.
            let mut tail = self.open[..newer_points].last().or(self.tails.last()).copied().unwrap_or_default();
            tail.push(point.value);
            self.open.insert(newer_points, tail);
            for longer in &mut self.open[newer_points + 1..] {
                longer.push(point.value);
            }
        } else if index < opened + self.tails.len() {
            let newer_blocks = opened + self.tails.len() - 1 - index;
            let (late, shortest) = self.late.get_or_insert((T::default(), newer_blocks));
            late.push(point.value);
            *shortest = newer_blocks.min(*shortest);
        } else {
            self.behind.push(point.value);
        }
        None
    }

    /// The block that a key belongs to, which is never past the end, and the place of it there: found or to be put.
    fn find(&self, key: Key) -> (usize, Result<usize, usize>) {
        let index = self.blocks.partition_point(|block| block.begin <= key).saturating_sub(1);
        (index, self.blocks[index].find(key))
    }

    fn replace(&mut self, index: usize, at: usize, value: f64) -> f64 {
        let block = &mut self.blocks[index];
        let before = std::mem::replace(&mut block.values[at], value);
        if before.to_bits() == value.to_bits() {
            return before;
        }
        let opened = usize::from(!self.open.is_empty());
        if index < opened {
            let newer_points = block.len() - 1 - at;
            self.open_from(newer_points);
            return before;
        }
        (block.total, block.is_growing) = (T::of(&block.values), false);
        if index < opened + self.tails.len() {
            self.tails_from(opened + self.tails.len() - 1 - index);
            if opened > 0 {
                self.open_from(0);
            }
        } else {
            self.behind = self.merged(opened + self.tails.len()..self.blocks.len());
        }
        before
    }

    /// Makes two blocks of one that is full. If that is the open one, all blocks are behind afterwards.
    fn split(&mut self, index: usize) {
        let opened = usize::from(!self.open.is_empty());
        if index < opened {
            let first = &mut self.blocks[0];
            first.close();
            (first.total, first.is_growing) = (T::of(&first.values), false);
            self.open.clear();
            self.tails.clear();
            self.late = None;
            self.behind = self.merged(0..self.blocks.len());
        }
        // What left may have made room; two halves of it are right nevertheless, as long as none is empty.
        let block = &mut self.blocks[index];
        if block.len() < 2 {
            return;
        }
        self.room -= block.values.capacity();
        let newer = block.split_off(block.len() / 2);
        self.room += block.values.capacity() + newer.values.capacity();
        if index >= opened && index < opened + self.tails.len() {
            // The newer half begins a tail of its own; the others stay as they are. Where it would miss what came late,
            // `late` says so already, of this tail or a shorter one.
            let newer_blocks = opened + self.tails.len() - 1 - index;
            let mut tail = self.tails[..newer_blocks].last().copied().unwrap_or_default();
            tail.merge(&newer.total);
            self.tails.insert(newer_blocks, tail);
        }
        self.blocks.insert(index + 1, newer);
    }

    fn drop_first_block(&mut self) {
        if self.open.is_empty() {
            self.pop_tail();
        } else {
            self.open.clear();
        }
        if let Some(block) = self.blocks.pop_front() {
            self.len -= block.live_values().len();
            self.room -= block.values.capacity();
        }
    }

    /// Lets so many points of the first block go, which are fewer than it has.
    fn drop_first_points(&mut self, count: usize) {
        if self.open.is_empty() {
            self.pop_tail();
            self.open_from(0);
        }
        self.open.truncate(self.open.len() - count);
        self.len -= count;
        self.blocks[0].gone += count;
    }

    /// The first block, which is not open, is none of those in front any more.
    fn pop_tail(&mut self) {
        if self.tails.is_empty() {
            self.bring_to_front();
        }
        self.tails.pop();
        if let Some((_, shortest)) = self.late {
            // The blocks' own totals have what came late. The first block is none of theirs any more, but still there.
            self.tails_of(1, shortest.min(self.tails.len()));
        }
    }

    /// All blocks are behind: makes them the ones in front.
    fn bring_to_front(&mut self) {
        self.tails.resize(self.blocks.len(), T::default());
        self.tails_from(0);
        self.behind = T::default();
    }

    /// Computes the tails of blocks again, but for the `keep` shortest, as far as nothing came late for those.
    fn tails_from(&mut self, keep: usize) {
        let keep = self.late.map_or(keep, |(_, shortest)| keep.min(shortest));
        self.tails_of(usize::from(!self.open.is_empty()), keep);
    }

    /// The same where the blocks in front begin at `first`; nothing is late afterwards.
    fn tails_of(&mut self, first: usize, keep: usize) {
        self.late = None;
        let last = first + self.tails.len();
        let mut tail = self.tails[..keep].last().copied().unwrap_or_default();
        for shorter in keep..self.tails.len() {
            let block = &mut self.blocks[last - 1 - shorter];
            block.settle();
            tail.merge(&block.total);
            self.tails[shorter] = tail;
        }
    }

    /// Computes the tails of the first block's points, with the blocks in front, but for the `keep` shortest.
    fn open_from(&mut self, keep: usize) {
        self.open.truncate(keep);
        let mut tail = self.open.last().or(self.tails.last()).copied().unwrap_or_default();
        let live = self.blocks[0].live_values();
        for value in live[..live.len() - keep].iter().rev() {
            tail.push(*value);
            self.open.push(tail);
        }
    }

    fn merged(&self, blocks: Range<usize>) -> T {
        let mut total = T::default();
        for block in self.blocks.range(blocks) {
            total.merge(&block.total());
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
    use slung_model::Aggregate;

    use super::*;

    /// What must hold of the parts after every step.
    fn check(points: &Points<Aggregate>, all: &BTreeMap<(i64, u32), f64>) {
        assert_eq!(points.len(), all.len());
        assert_eq!(points.first().map(shown), all.iter().next().map(|(key, value)| (*key, *value)));
        let mut flat = Vec::new();
        points.each_block(|timestamps, series, values| {
            assert!(!values.is_empty());
            flat.extend((0..values.len()).map(|at| ((timestamps[at], series[at].0), values[at])));
        });
        assert!(flat.into_iter().eq(all.iter().map(|(key, value)| (*key, *value))));
        assert!(points.blocks.iter().all(|block| block.len() <= BLOCK_POINTS_MAX));
        assert_eq!(points.room, points.blocks.iter().map(|block| block.values.capacity()).sum::<usize>());
        assert!(points.blocks.iter().skip(usize::from(!points.open.is_empty())).all(|block| block.gone == 0));
        assert!(points.blocks.iter().all(|block| block.begin == block.key(0)));
        if !points.open.is_empty() {
            assert_eq!(points.open.len(), points.blocks[0].live_values().len());
            let in_front = points.tails.last().map_or(0, Aggregate::count);
            assert!((1..).zip(&points.open).all(|(newer, tail)| tail.count() == newer + in_front));
        }
        assert_same(&points.total(), all.values().copied());
    }

    fn shown(first: First) -> ((i64, u32), f64) {
        ((first.timestamp, first.series.0), first.value)
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
        /// So many points, anywhere.
        Scatter(i64, u16),
        Evict(i64),
        /// Everything less than this far from the first point.
        Advance(i64),
        /// All over again, from what is there.
        Reload,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0..4_000_i64, prop_oneof![-3..0_i64, 1..4_i64], 1..600_u16).prop_map(|(from, apart, count)| Step::Run(from, apart, count)),
            8 => (0..4_000_i64, 0..3_u32, -1e6..1e6).prop_map(|(at, series, value)| Step::Insert(at, series, value)),
            4 => (0..4_000_i64, 1..100_u16).prop_map(|(seed, count)| Step::Scatter(seed, count)),
            1 => (0..4_000_i64).prop_map(Step::Evict),
            6 => (1..300_i64).prop_map(Step::Advance),
            1 => Just(Step::Reload),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec(step(), 1..60)) {
            let (mut points, mut all) = (Points::default(), BTreeMap::new());
            let insert = |points: &mut Points<Aggregate>, all: &mut BTreeMap<(i64, u32), f64>, timestamp, series, value| {
                let replaced = points.insert(&Point { series: SeriesId(series), timestamp, value });
                assert_eq!(replaced, all.insert((timestamp, series), value));
            };
            for step in steps {
                match step {
                    Step::Run(from, apart, count) => for i in 0..i64::from(count) {
                        insert(&mut points, &mut all, from + i * apart, 0, (i % 97) as f64 - 48.0);
                    },
                    Step::Insert(at, series, value) => insert(&mut points, &mut all, at, series, value),
                    Step::Scatter(seed, count) => for i in 1..=i64::from(count) {
                        insert(&mut points, &mut all, (seed + i * i * 1_789) % 4_000, 1, (i % 89) as f64);
                    },
                    Step::Evict(_) | Step::Advance(_) => {
                        let first = all.keys().next().map_or(0, |key| key.0);
                        let start = match step {
                            Step::Advance(by) => first + by,
                            Step::Evict(start) => start,
                            _ => unreachable!("an eviction"),
                        };
                        let mut left = Vec::new();
                        points.evict(start, |value| left.push(value));
                        let kept = all.split_off(&(start, 0));
                        prop_assert_eq!(left, std::mem::replace(&mut all, kept).into_values().collect::<Vec<_>>());
                    }
                    Step::Reload => {
                        let flat: Vec<Point> = all.iter().map(|(&(timestamp, series), &value)| {
                            Point { series: SeriesId(series), timestamp, value }
                        }).collect();
                        points = Points::of(&flat);
                    }
                }
                check(&points, &all);
                for start in [i64::MIN, 700, 2_000, 3_900, i64::MAX] {
                    let (total, first) = points.since(start);
                    let expected = all.range((start, 0)..).next().map(|(key, value)| (*key, *value));
                    prop_assert_eq!(first.map(shown), expected);
                    assert_same(&total, all.range((start, 0)..).map(|(_, value)| *value));
                    let mut between = Vec::new();
                    points.between(1_500, start, |value| between.push(value));
                    let expected: Vec<f64> = if start > 1_500 {
                        all.range((1_500, 0)..(start, 0)).map(|(_, value)| *value).collect()
                    } else {
                        Vec::new()
                    };
                    prop_assert_eq!(between, expected);
                }
            }
        }
    }

    /// A window that takes one value from its running sum for each that it adds is off in the fourth digit here.
    #[test]
    fn sums_do_not_drift() {
        let mut points = Points::<Aggregate>::default();
        let width = 1_000;
        let value = |i: i64| if i % 1_500 == 0 { 1e16 } else { (i % 1_000) as f64 / 7.0 };
        for i in 0..1_000_000 {
            points.insert(&Point { series: SeriesId(0), timestamp: i, value: value(i) });
            points.evict(i - width + 1, |_| {});
        }
        let last = 1_000_000 - width..1_000_000;
        let scale: f64 = last.clone().map(|i| value(i).abs()).sum();
        let exact = Aggregate::of(last.map(value)).sum();
        assert!((points.total().sum() - exact).abs() <= 1e-12 * scale);
    }

    /// What is counted is what is there, and at most 24 bytes a point, in whichever order points come.
    #[test]
    fn a_point_takes_at_most_24_bytes() {
        let count = 200_000;
        // One in so many is late, by up to so much.
        for (one_in, shuffled) in [(1, 1), (1, 60), (1, 100_000), (10, 100_000), (10, 5_000), (100, 100_000)] {
            let mut points = Points::<Aggregate>::default();
            let mut state = 7_u64;
            for i in 0..count {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let late = if i % one_in == 0 { (state >> 33) as i64 % shuffled } else { 0 };
                points.insert(&Point { series: SeriesId((state >> 60) as u32), timestamp: i - late, value: i as f64 });
            }
            let per_point = points.bytes() as f64 / points.len() as f64;
            assert!(per_point <= 24.0, "{per_point:.2} bytes a point, one in {one_in} late by {shuffled}");
        }
    }
}
