//! The points of one series, put together from the pieces that hold them: blocks in memory and chunks on disk, which may
//! overlap. In time order, each timestamp once, with no more in memory than the pieces that overlap at one time.

use std::sync::Arc;

use slung_model::{Summary, TimeRange};

use crate::damage::ReadError;
use crate::memory::{Block, Points};
use crate::segment::{Chunk, Columns};
use crate::{Damage, Error};

/// How many merged points are given at once.
const RUN_POINTS: usize = crate::segment::CHUNK_POINTS_MAX;

/// Some points of one series, in time order, each timestamp once.
#[derive(Clone)]
pub(crate) enum Piece {
    Memory(Arc<Block>),
    Disk(Chunk),
}

impl Piece {
    pub(crate) fn start(&self) -> i64 {
        match self {
            Self::Memory(block) => block.start(),
            Self::Disk(chunk) => chunk.meta().summary.start(),
        }
    }

    pub(crate) fn end(&self) -> i64 {
        match self {
            Self::Memory(block) => block.end(),
            Self::Disk(chunk) => chunk.meta().summary.end(),
        }
    }

    /// The place of the newest point in the order of writes.
    pub(crate) fn last_seq(&self) -> u64 {
        match self {
            Self::Memory(block) => block.last_seq(),
            Self::Disk(chunk) => chunk.meta().last_seq,
        }
    }

    /// Over all points.
    pub(crate) fn summary(&self) -> &Summary {
        match self {
            Self::Memory(block) => block.summary(),
            Self::Disk(chunk) => &chunk.meta().summary,
        }
    }

    pub(crate) fn lies_in(&self, range: TimeRange) -> bool {
        range.start <= self.start() && self.end() <= range.end
    }

    /// The points, in room that `spare` has where it does. `None` where they are damaged, which is then in `damage`.
    pub(crate) fn load(&self, spare: &mut Vec<Columns>, damage: &mut Vec<Damage>) -> Result<Option<Loaded>, Error> {
        match self {
            Self::Memory(block) => Ok(Some(Loaded::Memory(Arc::clone(block)))),
            Self::Disk(chunk) => {
                let mut columns = spare.pop().unwrap_or_default();
                Ok(intact(chunk.read(&mut columns), damage)?.map(|()| Loaded::Disk(columns)))
            }
        }
    }
}

/// What was read, or nothing where it was damaged, which is noted.
pub(crate) fn intact<T>(read: Result<T, ReadError>, damage: &mut Vec<Damage>) -> Result<Option<T>, Error> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(ReadError::Damaged(found)) => {
            damage.push(found);
            Ok(None)
        }
        Err(other) => Err(other.into()),
    }
}

/// The points of a piece.
pub(crate) enum Loaded {
    Memory(Arc<Block>),
    Disk(Columns),
}

impl Loaded {
    /// Gives the room back.
    fn spare(self) -> Option<Columns> {
        match self {
            Self::Memory(_) => None,
            Self::Disk(columns) => Some(columns),
        }
    }

    pub(crate) fn timestamps(&self) -> &[i64] {
        match self {
            Self::Memory(block) => &block.columns().timestamps,
            Self::Disk(columns) => &columns.timestamps,
        }
    }

    pub(crate) fn values(&self) -> &[f64] {
        match self {
            Self::Memory(block) => &block.columns().values,
            Self::Disk(columns) => &columns.values,
        }
    }
}

/// Which of the timestamps, which rise, the range covers.
pub(crate) fn within(timestamps: &[i64], range: TimeRange) -> std::ops::Range<usize> {
    let start = timestamps.partition_point(|&timestamp| timestamp < range.start);
    let end = timestamps.partition_point(|&timestamp| timestamp <= range.end);
    start..end.max(start)
}

/// Reads the pieces of one series in time order, then perhaps those of the next one, with the same room.
pub(crate) struct SeriesReader {
    /// By their start.
    pieces: Vec<Piece>,
    /// Of each of them, whose points replace those of others: the greater one's. Empty where that is their order.
    ranks: Vec<usize>,
    /// The next one that was not touched yet.
    next: usize,
    range: TimeRange,
    /// Those that are read at present because they overlap.
    open: Vec<Open>,
    /// One that is read alone.
    alone: Option<Loaded>,
    merged: Points,
    spare: Vec<Columns>,
}

struct Open {
    rank: usize,
    last_seq: u64,
    points: Loaded,
    within: std::ops::Range<usize>,
}

impl Open {
    fn head(&self) -> i64 {
        self.points.timestamps()[self.within.start]
    }
}

/// What comes next in a series.
pub(crate) enum Part<'a> {
    /// A piece all of which is in the range, and which overlaps with no other.
    Whole(&'a Piece),
    /// Points by rising timestamps, at least one.
    Points {
        timestamps: &'a [i64],
        values: &'a [f64],
        /// The place of the last of them in the order of writes, or later where it is not the newest of its piece.
        last_seq: u64,
    },
}

impl SeriesReader {
    /// As [`SeriesReader::begin`].
    pub(crate) fn new(pieces: Vec<Piece>, range: TimeRange) -> Self {
        let (open, merged) = (Vec::new(), Points::default());
        let (none, ranks, spare) = (Vec::new(), Vec::new(), Vec::new());
        let mut reader = Self { pieces: none, ranks, next: 0, range, open, alone: None, merged, spare };
        reader.begin(pieces, range);
        reader
    }

    /// Begins with a series. `pieces` all overlap the range, and stand in the order in which they were written: a later one's
    /// points replace those of earlier ones.
    pub(crate) fn begin(&mut self, mut pieces: Vec<Piece>, range: TimeRange) {
        self.ranks.clear();
        if !pieces.is_sorted_by_key(Piece::start) {
            let mut ranked: Vec<(usize, Piece)> = pieces.into_iter().enumerate().collect();
            ranked.sort_by_key(|(_, piece)| piece.start());
            (self.ranks, pieces) = ranked.into_iter().unzip();
        }
        (self.pieces, self.next, self.range) = (pieces, 0, range);
        self.spare.extend(self.open.drain(..).filter_map(|open| open.points.spare()));
    }

    /// What comes next. `whole` says of a piece whether it is wanted as it is, rather than its points. Damaged pieces are
    /// left out, and added to `damage`.
    pub(crate) fn next(
        &mut self,
        mut whole: impl FnMut(&Piece) -> bool,
        damage: &mut Vec<Damage>,
    ) -> Result<Option<Part<'_>>, Error> {
        loop {
            if self.open.is_empty() {
                let Some(piece) = self.pieces.get(self.next) else { return Ok(None) };
                if self.pieces.get(self.next + 1).is_none_or(|other| other.start() > piece.end()) {
                    self.next += 1;
                    if piece.lies_in(self.range) && whole(piece) {
                        return Ok(Some(Part::Whole(&self.pieces[self.next - 1])));
                    }
                    let last_seq = piece.last_seq();
                    self.spare.extend(self.alone.take().and_then(Loaded::spare));
                    self.alone = piece.load(&mut self.spare, damage)?;
                    let Some(loaded) = &self.alone else { continue };
                    let within = within(loaded.timestamps(), self.range);
                    if within.is_empty() {
                        continue;
                    }
                    let loaded = self.alone.as_ref().expect("it has points");
                    let (timestamps, values) = (&loaded.timestamps()[within.clone()], &loaded.values()[within]);
                    return Ok(Some(Part::Points { timestamps, values, last_seq }));
                }
            }
            let last_seq = self.merge(damage)?;
            if !self.merged.timestamps.is_empty() {
                return Ok(Some(Part::Points {
                    timestamps: &self.merged.timestamps,
                    values: &self.merged.values,
                    last_seq,
                }));
            }
            // All of what overlapped was damaged, or outside of the range.
        }
    }

    /// Merges what overlaps, as long as it does or until there is enough; answers the place of the last point.
    fn merge(&mut self, damage: &mut Vec<Damage>) -> Result<u64, Error> {
        self.merged.timestamps.clear();
        self.merged.values.clear();
        let mut last_seq = 0;
        while self.merged.timestamps.len() < RUN_POINTS {
            self.open_due(damage)?;
            let Some(first) = self.open.iter().map(Open::head).min() else { break };
            // Of those with the same timestamp the one that was written last gives the point, and all of them go on.
            let mut winner = None;
            let mut limit = self.pieces.get(self.next).map(Piece::start);
            for (index, open) in self.open.iter_mut().enumerate() {
                let head = open.points.timestamps()[open.within.start];
                if head != first {
                    limit = Some(limit.map_or(head, |limit| limit.min(head)));
                    continue;
                }
                match winner {
                    None => winner = Some((index, open.rank)),
                    Some((_, rank)) => {
                        // More than one: only this point is sure.
                        limit = Some(first);
                        if open.rank > rank {
                            winner = Some((index, open.rank));
                        }
                    }
                }
            }
            let Some((winner, _)) = winner else { break };
            let room = RUN_POINTS - self.merged.timestamps.len();
            let open = &self.open[winner];
            last_seq = open.last_seq;
            let rest = &open.points.timestamps()[open.within.clone()];
            let run = match limit {
                Some(limit) => leap(rest, limit).max(1),
                None => rest.len(),
            };
            let taken = open.within.start..open.within.start + run.min(room);
            self.merged.timestamps.extend_from_slice(&open.points.timestamps()[taken.clone()]);
            self.merged.values.extend_from_slice(&open.points.values()[taken.clone()]);
            for (index, open) in self.open.iter_mut().enumerate() {
                if index == winner {
                    open.within.start = taken.end;
                } else if open.points.timestamps()[open.within.start] == first {
                    open.within.start += 1;
                }
            }
            let done = self.open.extract_if(.., |open| open.within.is_empty());
            self.spare.extend(done.filter_map(|open| open.points.spare()));
            if self.open.is_empty() {
                break;
            }
        }
        Ok(last_seq)
    }

    /// Opens the pieces that begin not later than what comes next.
    fn open_due(&mut self, damage: &mut Vec<Damage>) -> Result<(), Error> {
        while let Some(piece) = self.pieces.get(self.next) {
            let head = self.open.iter().map(Open::head).min();
            // Where nothing is open, this is the first of those that overlap.
            if head.is_some_and(|head| piece.start() > head) || (head.is_none() && !self.merged.timestamps.is_empty()) {
                break;
            }
            let rank = self.ranks.get(self.next).copied().unwrap_or(self.next);
            self.next += 1;
            if let Some(points) = piece.load(&mut self.spare, damage)? {
                let within = within(points.timestamps(), self.range);
                if !within.is_empty() {
                    self.open.push(Open { rank, last_seq: piece.last_seq(), points, within });
                }
            }
        }
        Ok(())
    }
}

/// How many of the timestamps, which rise, are below the limit: steps that double, then a binary search, so that short runs
/// cost little.
fn leap(timestamps: &[i64], limit: i64) -> usize {
    let mut step = 1;
    while step < timestamps.len() && timestamps[step] < limit {
        step *= 2;
    }
    let (from, to) = (step / 2, timestamps.len().min(step));
    from + timestamps[from..to].partition_point(|&timestamp| timestamp < limit)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use slung_model::{Point, SeriesId};

    use super::*;
    use crate::memory::Memory;

    /// A piece of those points, which were written from that place on.
    fn piece(points: &[(i64, f64)], seq: u64) -> Piece {
        let mut memory = Memory::with_series(1);
        let points: Vec<Point> =
            points.iter().map(|&(timestamp, value)| Point { series: SeriesId(0), timestamp, value }).collect();
        memory.insert(&points, seq);
        let mut blocks = memory.blocks(SeriesId(0), TimeRange::ALL).cloned();
        Piece::Memory(blocks.next().expect("there are points"))
    }

    proptest! {
        #[test]
        fn it_reads_what_a_sorted_map_holds(
            written in proptest::collection::vec(
                (-40i64..40, proptest::collection::vec((0i64..30, -1e3..1e3f64), 1..20)), 0..8),
            range in (-45i64..80, -45i64..80),
            takes_whole: bool,
        ) {
            let range = TimeRange { start: range.0, end: range.1 };
            let mut map = BTreeMap::new();
            let mut pieces = Vec::new();
            let mut last = (i64::MIN, 0);
            let mut seq = 1;
            for (from, points) in written {
                let points: Vec<(i64, f64)> = points.into_iter().map(|(at, value)| (from + at, value)).collect();
                for (&(timestamp, value), seq) in std::iter::zip(&points, seq..) {
                    map.insert(timestamp, value);
                    last = last.max((timestamp, seq));
                }
                let piece = piece(&points, seq);
                seq += points.len() as u64;
                if piece.start() <= range.end && range.start <= piece.end() {
                    pieces.push(piece);
                }
            }
            let all = pieces.clone();
            let mut reader = SeriesReader::new(pieces, range);
            let mut found = Vec::new();
            let mut newest = 0;
            while let Some(part) = reader.next(|_| takes_whole, &mut Vec::new()).unwrap() {
                match part {
                    Part::Whole(piece) => {
                        prop_assert!(takes_whole && piece.lies_in(range));
                        // Whoever has points around it alone is in nobody's way.
                        let span = TimeRange { start: piece.start(), end: piece.end() };
                        let has_points_there = |other: &&Piece| {
                            let loaded = other.load(&mut Vec::new(), &mut Vec::new()).unwrap().unwrap();
                            !within(loaded.timestamps(), span).is_empty()
                        };
                        prop_assert_eq!(all.iter().filter(has_points_there).count(), 1, "none but itself");
                        let loaded = piece.load(&mut Vec::new(), &mut Vec::new()).unwrap().unwrap();
                        found.extend(std::iter::zip(loaded.timestamps().to_vec(), loaded.values().to_vec()));
                        newest = piece.last_seq();
                    }
                    Part::Points { timestamps, values, last_seq } => {
                        prop_assert!(!timestamps.is_empty() && timestamps.len() == values.len());
                        found.extend(std::iter::zip(timestamps.to_vec(), values.to_vec()));
                        newest = last_seq;
                    }
                }
            }
            let expected: Vec<(i64, f64)> =
                map.into_iter().filter(|(timestamp, _)| range.contains(*timestamp)).collect();
            prop_assert_eq!(&found, &expected);
            if range.contains(last.0) {
                prop_assert_eq!(newest, last.1, "the place of the newest point is exact");
            }
        }
    }
}
