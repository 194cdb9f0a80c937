//! A view of some series at one moment, which later writes do not change.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slung_model::{Aggregate, Op, Point, Seq, SeriesId, Sketch, Spread, TimeRange};

use crate::commit::{Frozen, State};
use crate::memory::Block;
use crate::pieces::{Part, Piece, SeriesReader, within};
use crate::recover::concerns;
use crate::version::Version;
use crate::{Damage, Error};

/// What a search in a list of series takes, in steps of going through it.
const SEARCH_STEPS: usize = 64;

/// What [`crate::Store::snapshot`] took: all points of the asked series and range that had been written up to
/// [`Snapshot::seq`], and nothing later. It needs no lock and may be kept, also when the store has merged or deleted what it
/// reads; blocks in memory of which a later write changes a point are then copied first.
///
/// Reading it reads from disk, as far as the points are there. What is damaged is left out: ask [`Snapshot::damage`] when
/// done, and take the answer for a partial one where that is not empty.
pub struct Snapshot {
    seq: Seq,
    range: TimeRange,
    /// Rising, each once.
    series: Arc<[SeriesId]>,
    /// Of those series, in the same order, and of each in the order of writing.
    active: Vec<(SeriesId, Arc<Block>)>,
    frozen: Option<Arc<Frozen>>,
    version: Arc<Version>,
    damage: Mutex<Vec<Damage>>,
}

impl Snapshot {
    /// `series` rises, each once.
    pub(crate) fn take(state: &State, series: Arc<[SeriesId]>, range: TimeRange) -> Self {
        let version = Arc::clone(&state.version);
        let range = TimeRange { start: range.start.max(version.floor), ..range };
        let blocks = |id: SeriesId| state.memory.blocks(id, range).map(move |block| (id, Arc::clone(block)));
        let filled = state.memory.filled();
        // Writers wait: whatever is shorter is gone through, a search in the asked ids being as long as some steps.
        let active = if filled.len() < series.len() / SEARCH_STEPS {
            let mut asked = filled.to_vec();
            asked.sort_unstable();
            asked.retain(|id| series.binary_search(id).is_ok());
            asked.into_iter().flat_map(blocks).collect()
        } else {
            let mut active = Vec::with_capacity(filled.len().min(series.len()));
            active.extend(series.iter().copied().flat_map(blocks));
            active
        };
        let frozen = state.frozen.clone();
        Self { seq: state.last(), range, series, active, frozen, version, damage: Mutex::default() }
    }

    /// The same moment and series, but nothing outside of `range`.
    #[must_use]
    pub fn narrow(&self, range: TimeRange) -> Self {
        let range = TimeRange { start: range.start.max(self.range.start), end: range.end.min(self.range.end) };
        let inside = |(_, block): &&(SeriesId, Arc<Block>)| block.start() <= range.end && block.end() >= range.start;
        let active = self.active.iter().filter(inside).cloned().collect();
        Self {
            seq: self.seq,
            range,
            series: Arc::clone(&self.series),
            active,
            frozen: self.frozen.clone(),
            version: Arc::clone(&self.version),
            damage: Mutex::default(),
        }
    }

    /// The last point that had been written when it was taken, of whatever series.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// What is missing in the answers so far, because it is damaged: what this snapshot came across, and what was lost before
    /// and may have been of its series and range. Empty where the answers are complete.
    pub fn damage(&self) -> Vec<Damage> {
        let lost = self.version.lost.iter().filter(|damage| concerns(damage, &self.series, self.range));
        lost.chain(self.found().iter()).cloned().collect()
    }

    pub(crate) fn found(&self) -> MutexGuard<'_, Vec<Damage>> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, damage: Vec<Damage>) {
        let mut found = self.found();
        for damage in damage {
            if !found.contains(&damage) {
                found.push(damage);
            }
        }
    }

    /// The pieces of the series with that index, in the order of writing.
    fn pieces(&self, index: usize, damage: &mut Vec<Damage>) -> Result<Vec<Piece>, Error> {
        let series = self.series[index];
        let mut pieces = Vec::new();
        self.version.pieces(series, self.range, &mut pieces, damage)?;
        let frozen = self.frozen.iter().flat_map(|frozen| frozen.memory.blocks(series, self.range));
        let from = self.active.partition_point(|(id, _)| *id < series);
        let active = self.active[from..].iter().take_while(|(id, _)| *id == series).map(|(_, block)| block);
        pieces.extend(frozen.chain(active).map(|block| Piece::Memory(Arc::clone(block))));
        Ok(pieces)
    }

    /// Hands every part of every series to `take`, series by series and in the order of time; pieces as a whole where
    /// `whole` wants them so.
    pub(crate) fn visit(
        &self,
        mut whole: impl FnMut(&Piece) -> bool,
        mut take: impl FnMut(SeriesId, Part<'_>),
    ) -> Result<(), Error> {
        let mut damage = Vec::new();
        let mut visit = || {
            let mut reader = SeriesReader::new(Vec::new(), self.range);
            for (index, series) in self.series.iter().enumerate() {
                reader.begin(self.pieces(index, &mut damage)?, self.range);
                while let Some(part) = reader.next(&mut whole, &mut damage)? {
                    take(*series, part);
                }
            }
            Ok(())
        };
        let visited = visit();
        self.note(damage);
        visited
    }

    /// Count, sum, minimum and maximum of the points. Chunks and blocks that lie inside the range are answered from their
    /// summaries.
    ///
    /// # Errors
    /// [`Error::Io`] where the system fails.
    pub fn aggregate(&self) -> Result<Aggregate, Error> {
        let mut all = Aggregate::EMPTY;
        self.visit(
            |_| true,
            |_, part| match part {
                Part::Whole(piece) => all.merge(piece.summary().aggregate()),
                Part::Points { values, .. } => all.merge(&Aggregate::of_slice(values)),
            },
        )?;
        Ok(all)
    }

    /// Count, sum, minimum, maximum and standard deviation of the points.
    ///
    /// # Errors
    /// [`Error::Io`] where the system fails.
    pub fn spread(&self) -> Result<Spread, Error> {
        let mut all = Spread::EMPTY;
        self.visit(
            |_| true,
            |_, part| match part {
                Part::Whole(piece) => all.merge(piece.summary().spread()),
                Part::Points { values, .. } => all.merge(&Spread::of(values)),
            },
        )?;
        Ok(all)
    }

    /// By how much the series, as counters, went up per second, all together; `None` where none has two points. Also how many
    /// points there are.
    ///
    /// # Errors
    /// [`Error::Io`] where the system fails.
    pub fn rate(&self) -> Result<(Option<f64>, u64), Error> {
        let mut rates = Aggregate::EMPTY;
        let mut count = 0;
        let mut current: Option<(SeriesId, slung_model::Increase)> = None;
        let finish = |current: &mut Option<(SeriesId, slung_model::Increase)>, rates: &mut Aggregate| {
            if let Some(rate) = current.take().and_then(|(_, increase)| increase.rate()) {
                rates.push(rate);
            }
        };
        self.visit(
            |_| true,
            |series, part| {
                let increase = match &part {
                    Part::Whole(piece) => {
                        count += piece.summary().count();
                        Some(*piece.summary().increase())
                    }
                    Part::Points { timestamps, values, .. } => {
                        count += timestamps.len() as u64;
                        slung_model::Increase::of(timestamps, values)
                    }
                };
                let Some(increase) = increase else { return };
                match &mut current {
                    Some((same, before)) if *same == series => before.merge_later(&increase),
                    _ => {
                        finish(&mut current, &mut rates);
                        current = Some((series, increase));
                    }
                }
            },
        )?;
        finish(&mut current, &mut rates);
        Ok((rates.value(Op::Sum), count))
    }

    /// The values' distribution. Reads every point.
    ///
    /// # Errors
    /// [`Error::Io`] where the system fails.
    pub fn sketch(&self) -> Result<Sketch, Error> {
        let mut sketch = Sketch::default();
        self.visit(
            |_| false,
            |_, part| {
                if let Part::Points { values, .. } = part {
                    values.iter().for_each(|value| sketch.push(*value));
                }
            },
        )?;
        Ok(sketch)
    }

    /// The point with the greatest timestamp; of several series with the same, the one that was written last. `None` where
    /// there is no point. Where the range ends before the newest points of those series, "written last" is known by their
    /// chunks and not by the points themselves.
    ///
    /// # Errors
    /// [`Error::Io`] where the system fails.
    pub fn last(&self) -> Result<Option<Point>, Error> {
        let mut newest: Option<(i64, u64, Point)> = None;
        let mut damage = Vec::new();
        for index in 0..self.series.len() {
            if let Some((timestamp, value, seq)) = self.end_of(index, End::Last, &mut damage)? {
                let point = Point { series: self.series[index], timestamp, value };
                if newest.is_none_or(|(time, place, _)| (timestamp, seq) >= (time, place)) {
                    newest = Some((timestamp, seq, point));
                }
            }
        }
        self.note(damage);
        Ok(newest.map(|(_, _, point)| point))
    }

    /// The point with the smallest timestamp; of several series with the same, that of the series which was known first.
    /// `None` where there is no point.
    ///
    /// # Errors
    /// [`Error::Io`] where the system fails.
    pub fn first(&self) -> Result<Option<Point>, Error> {
        let mut oldest: Option<Point> = None;
        let mut damage = Vec::new();
        for index in 0..self.series.len() {
            if let Some((timestamp, value, _)) = self.end_of(index, End::First, &mut damage)?
                && oldest.is_none_or(|oldest| timestamp < oldest.timestamp)
            {
                oldest = Some(Point { series: self.series[index], timestamp, value });
            }
        }
        self.note(damage);
        Ok(oldest)
    }

    /// The first or the last point of one series, with its place in the order of writes. Reads the points of pieces only
    /// where the range cuts them.
    fn end_of(&self, index: usize, end: End, damage: &mut Vec<Damage>) -> Result<Option<(i64, f64, u64)>, Error> {
        let mut best: Option<(i64, f64, u64)> = None;
        let is_better = |timestamp: i64, best: &Option<(i64, f64, u64)>| match (end, best) {
            (_, None) => true,
            // Of the same time the later piece counts.
            (End::First, Some((time, ..))) => timestamp <= *time,
            (End::Last, Some((time, ..))) => timestamp >= *time,
        };
        for piece in self.pieces(index, damage)? {
            let (outer, inside) = match end {
                End::First => (piece.start(), piece.start() >= self.range.start),
                End::Last => (piece.end(), piece.end() <= self.range.end),
            };
            let can_be = match end {
                End::First => outer.max(self.range.start),
                End::Last => outer.min(self.range.end),
            };
            if !is_better(can_be, &best) {
                continue;
            }
            if inside {
                let summary = piece.summary();
                let value = if end == End::First { summary.first() } else { summary.last() };
                best = Some((outer, value, piece.last_seq()));
                continue;
            }
            let Some(points) = piece.load(&mut Vec::new(), damage)? else { continue };
            let (timestamps, values) = (points.timestamps(), points.values());
            let mut within = within(timestamps, self.range);
            let at = if end == End::First { within.next() } else { within.next_back() };
            if let Some(at) = at.filter(|at| is_better(timestamps[*at], &best)) {
                best = Some((timestamps[at], values[at], piece.last_seq()));
            }
        }
        Ok(best)
    }

    /// Every point, series by series in the order of their ids, those of a series by time. Memory for no more than the pieces
    /// of one series that overlap at one time, however many points there are.
    pub fn scan(&self) -> impl Iterator<Item = Result<Point, Error>> {
        Scan { snapshot: self, next: 0, cursor: None }
    }

    /// Every point, by timestamp, those of one timestamp by series. Holds of each series what [`Snapshot::scan`] holds of
    /// one.
    ///
    /// # Errors
    /// [`Error::Io`] where the system fails, before the first point. Then, as an item, before the iterator ends.
    pub fn points(&self) -> Result<impl Iterator<Item = Result<Point, Error>>, Error> {
        let mut cursors = BinaryHeap::new();
        for index in 0..self.series.len() {
            if let Some(cursor) = Cursor::new(self, index)? {
                cursors.push(cursor);
            }
        }
        Ok(Merge { snapshot: self, cursors })
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seq, range, series, .. } = self;
        f.debug_struct("Snapshot")
            .field("seq", seq)
            .field("range", range)
            .field("series", series)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    First,
    Last,
}

/// Where the reading of one series stands: always at a point.
struct Cursor {
    series: SeriesId,
    reader: SeriesReader,
    /// What the reader gave last, from the next point on. Only what is in the range is kept of a chunk.
    timestamps: Vec<i64>,
    values: Vec<f64>,
    at: usize,
}

impl Cursor {
    fn new(snapshot: &Snapshot, index: usize) -> Result<Option<Self>, Error> {
        let mut damage = Vec::new();
        let pieces = snapshot.pieces(index, &mut damage)?;
        snapshot.note(damage);
        let mut cursor = Self {
            series: snapshot.series[index],
            reader: SeriesReader::new(pieces, snapshot.range),
            timestamps: Vec::new(),
            values: Vec::new(),
            at: 0,
        };
        Ok(cursor.settle(snapshot)?.then_some(cursor))
    }

    /// Goes to the point that stands first in what is left. Whether there is one.
    fn settle(&mut self, snapshot: &Snapshot) -> Result<bool, Error> {
        if self.at < self.timestamps.len() {
            return Ok(true);
        }
        let mut damage = Vec::new();
        let part = self.reader.next(|_| false, &mut damage);
        snapshot.note(damage);
        let Some(Part::Points { timestamps, values, .. }) = part? else { return Ok(false) };
        self.at = 0;
        self.timestamps.clear();
        self.timestamps.extend_from_slice(timestamps);
        self.values.clear();
        self.values.extend_from_slice(values);
        Ok(true)
    }

    fn point(&self) -> Point {
        Point { series: self.series, timestamp: self.timestamps[self.at], value: self.values[self.at] }
    }
}

struct Scan<'a> {
    snapshot: &'a Snapshot,
    next: usize,
    cursor: Option<Cursor>,
}

impl Iterator for Scan<'_> {
    type Item = Result<Point, Error>;

    // The way of nearly every point is short, so that it becomes part of the caller's loop.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(cursor) = &mut self.cursor
                && let (Some(&timestamp), Some(&value)) =
                    (cursor.timestamps.get(cursor.at), cursor.values.get(cursor.at))
            {
                cursor.at += 1;
                return Some(Ok(Point { series: cursor.series, timestamp, value }));
            }
            match self.go_on() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    (self.cursor, self.next) = (None, usize::MAX);
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Scan<'_> {
    /// Goes to the next points, of this series or the next one that has any. Whether there are some.
    fn go_on(&mut self) -> Result<bool, Error> {
        loop {
            if let Some(cursor) = &mut self.cursor
                && cursor.settle(self.snapshot)?
            {
                return Ok(true);
            }
            if self.next >= self.snapshot.series.len() {
                self.cursor = None;
                return Ok(false);
            }
            self.next += 1;
            self.cursor = Cursor::new(self.snapshot, self.next - 1)?;
        }
    }
}

impl Ord for Cursor {
    /// The one to be read next is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |cursor: &Self| (cursor.timestamps[cursor.at], cursor.series);
        place(other).cmp(&place(self))
    }
}

impl PartialOrd for Cursor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Cursor {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Cursor {}

struct Merge<'a> {
    snapshot: &'a Snapshot,
    cursors: BinaryHeap<Cursor>,
}

impl Iterator for Merge<'_> {
    type Item = Result<Point, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut cursor = self.cursors.peek_mut()?;
        let point = cursor.point();
        cursor.at += 1;
        match cursor.settle(self.snapshot) {
            Ok(true) => {}
            Ok(false) => {
                PeekMut::pop(cursor);
            }
            Err(error) => {
                PeekMut::pop(cursor);
                self.cursors.clear();
                return Some(Err(error));
            }
        }
        Some(Ok(point))
    }
}
