//! A sliding window that does not keep its points: what they add up to in stretches of equal length, its panes.
//!
//! Panes are counted from 1970 in steps of their length, so that those of the store's buckets of that length are the same.
//! The oldest pane is let go once all of it is older than the window, so that what is to be seen is the window and up to one
//! pane more at its trailing edge. A point that is written again counts again.

use std::collections::VecDeque;

use slung_model::{Op, Point, Spread};

use crate::total::{First, Seen, Sum};

/// How many panes a window has, unless memory runs short: an error of a thousandth of the width, in 100 kB.
pub(crate) const PANES: i64 = 1_024;

#[derive(Debug, Clone)]
struct Pane {
    /// Its place, counted in panes from 1970.
    number: i64,
    sum: Sum,
    first: First,
}

/// The panes that have any points, by time.
#[derive(Debug, Clone)]
pub(crate) struct Panes {
    /// Of one pane, microseconds.
    micros: i64,
    panes: VecDeque<Pane>,
    /// Of all panes. Made anew from them whenever one leaves, so that nothing is ever subtracted but whole counts.
    total: Sum,
    /// Heap memory of the sums, those in `panes` and `total`.
    sum_bytes: usize,
}

impl Panes {
    /// None yet, each as long as a part of a window of that width.
    pub(crate) fn new(op: Op, width: i64) -> Self {
        let micros = (width / PANES + i64::from(width % PANES > 0)).max(1);
        Self { micros, panes: VecDeque::new(), total: Sum::new(op), sum_bytes: 0 }
    }

    /// How long a pane is, microseconds.
    pub(crate) fn micros(&self) -> i64 {
        self.micros
    }

    /// Heap memory.
    pub(crate) fn bytes(&self) -> usize {
        self.panes.capacity() * size_of::<Pane>() + self.sum_bytes
    }

    /// The last moment that belongs to the oldest pane: after it, the pane is left behind.
    pub(crate) fn oldest(&self) -> Option<i64> {
        self.panes.front().map(|pane| self.end(pane.number))
    }

    fn end(&self, number: i64) -> i64 {
        number.saturating_add(1).saturating_mul(self.micros).saturating_sub(1)
    }

    /// Takes a point wherever it belongs. Its memory may grow only where the pane is new, or a sketch has to.
    pub(crate) fn insert(&mut self, point: &Point) {
        let first = First { timestamp: point.timestamp, series: point.series, value: point.value };
        let number = point.timestamp.div_euclid(self.micros);
        let (pane, before) = Self::pane(&mut self.panes, number, &self.total, first);
        pane.sum.push(point.value);
        let grown = pane.sum.bytes() - before;
        let before = self.total.bytes();
        self.total.push(point.value);
        self.sum_bytes += grown + self.total.bytes() - before;
    }

    /// Takes all that the store knows of one pane. Where a window needs to know more, it takes each point.
    pub(crate) fn insert_bucket(&mut self, start: i64, spread: &Spread) {
        let first = First { timestamp: start, series: slung_model::SeriesId(0), value: 0.0 };
        let (pane, _) = Self::pane(&mut self.panes, start.div_euclid(self.micros), &self.total, first);
        pane.sum.merge_spread(spread);
        self.total.merge_spread(spread);
    }

    /// The pane of that number, made if it was not there with a sum of the kind of `total`, and how much heap memory its sum
    /// had.
    fn pane<'p>(panes: &'p mut VecDeque<Pane>, number: i64, total: &Sum, first: First) -> (&'p mut Pane, usize) {
        let at = match panes.back() {
            Some(last) if last.number == number => panes.len() - 1,
            Some(last) if last.number > number => panes.partition_point(|pane| pane.number < number),
            _ => panes.len(),
        };
        if panes.get(at).is_none_or(|pane| pane.number != number) {
            panes.insert(at, Pane { number, sum: total.emptied(), first });
            return (&mut panes[at], 0);
        }
        let pane = &mut panes[at];
        if first.precedes(&pane.first) {
            pane.first = first;
        }
        let before = pane.sum.bytes();
        (pane, before)
    }

    /// Lets the panes go of which everything is older than `start`.
    pub(crate) fn evict(&mut self, start: i64) {
        if self.oldest().is_none_or(|oldest| oldest >= start) {
            return;
        }
        let leaving = self.panes.partition_point(|pane| self.end(pane.number) < start);
        self.panes.drain(..leaving);
        self.sum_again();
    }

    fn sum_again(&mut self) {
        let mut total = self.total.emptied();
        self.sum_bytes = 0;
        for pane in &self.panes {
            total.merge(&pane.sum);
            self.sum_bytes += pane.sum.bytes();
        }
        self.sum_bytes += total.bytes();
        self.total = total;
    }

    /// What is to be seen of all of them; `last` is the newest value.
    pub(crate) fn seen(&self, op: Op, last: Option<f64>) -> Seen {
        self.total.seen(op, self.panes.front().map(|pane| pane.first.value), last)
    }

    /// What is to be seen without the panes of which everything is older than `start`, and the last moment of the oldest
    /// one of the rest.
    pub(crate) fn seen_since(&self, start: i64, op: Op, last: Option<f64>) -> (Seen, Option<i64>) {
        let from = self.panes.partition_point(|pane| self.end(pane.number) < start);
        let mut total = self.total.emptied();
        self.panes.range(from..).for_each(|pane| total.merge(&pane.sum));
        let oldest = self.panes.get(from);
        let seen = total.seen(op, oldest.map(|pane| pane.first.value), last.filter(|_| oldest.is_some()));
        (seen, oldest.map(|pane| self.end(pane.number)))
    }

    /// Makes one pane of each two: half of the memory, twice the error. Answers whether that was possible, or there was room
    /// that panes have left.
    pub(crate) fn coarsen(&mut self) -> bool {
        let room = self.panes.capacity();
        let Some(micros) = self.micros.checked_mul(2).filter(|_| self.panes.len() > 1) else {
            self.panes.shrink_to_fit();
            return self.panes.capacity() < room;
        };
        let fine = std::mem::take(&mut self.panes);
        let mut coarse: VecDeque<Pane> = VecDeque::with_capacity(fine.len() / 2 + 1);
        for mut pane in fine {
            pane.number = pane.number.div_euclid(2);
            match coarse.back_mut() {
                Some(last) if last.number == pane.number => last.sum.merge(&pane.sum),
                _ => coarse.push_back(pane),
            }
        }
        self.micros = micros;
        self.panes = coarse;
        self.sum_again();
        true
    }
}
