//! What a snapshot answers for one stretch of time after the other, in one pass.

use std::collections::BTreeMap;

use slung_model::{Aggregate, Increase, Op, Point, Quantile, SeriesId, Sketch, Spread, TimeRange};

use crate::Error;
use crate::pieces::Part;
use crate::snapshot::Snapshot;

/// How many values are held at once for quantiles: 8 MiB. A sketch may take 2.4 MB, so one is made at a time, and each of
/// the stretches that come to so many values reads them by themselves.
const VALUES_MAX: u64 = 1 << 20;

/// The values of one stretch of time, of all series together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// The first microsecond that belongs to it.
    pub start: i64,
    /// What is in it.
    pub spread: Spread,
}

/// What one stretch of time answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BucketValue {
    /// The first microsecond that belongs to it.
    pub start: i64,
    /// `None` where there is nothing to tell.
    pub value: Option<f64>,
    /// How many points it is made of.
    pub count: u64,
}

/// Of the counters in one stretch of time.
#[derive(Default)]
struct Rates {
    /// Of the series that are done.
    done: Aggregate,
    current: Option<(SeriesId, Increase)>,
    count: u64,
}

impl Rates {
    fn finish(&mut self) {
        if let Some(rate) = self.current.take().and_then(|(_, increase)| increase.rate()) {
            self.done.push(rate);
        }
    }
}

/// Each of these answers for stretches of `every` microseconds, counted from 1970, by rising time: for those that have points,
/// and for at most `buckets_max` of them, from the earliest on. All read in one pass, chunks that lie inside of one stretch
/// from their summaries, and panic where `every` is not above 0.
impl Snapshot {
    /// Count, sum, minimum, maximum and standard deviation.
    ///
    /// # Errors
    /// [`Error::Io`] where the system fails.
    ///
    /// # Panics
    /// Where `every` is not above 0.
    pub fn buckets(&self, every: i64, buckets_max: usize) -> Result<Vec<Bucket>, Error> {
        let buckets = self.fold(every, buckets_max, true, |spread: &mut Spread, _, part| match part {
            Part::Whole(piece) => spread.merge(piece.summary().spread()),
            Part::Points { values, .. } => spread.merge(&Spread::of(values)),
        })?;
        Ok(buckets.into_iter().map(|(number, spread)| Bucket { start: start(number, every), spread }).collect())
    }

    /// As [`Snapshot::first`] of each stretch.
    ///
    /// # Errors
    /// [`Error::Io`] where the system fails.
    ///
    /// # Panics
    /// Where `every` is not above 0.
    pub fn bucket_firsts(&self, every: i64, buckets_max: usize) -> Result<Vec<(i64, Point)>, Error> {
        let buckets = self.fold(every, buckets_max, true, |oldest: &mut Option<Point>, series, part| {
            let (timestamp, value) = match part {
                Part::Whole(piece) => (piece.start(), piece.summary().first()),
                Part::Points { timestamps, values, .. } => (timestamps[0], values[0]),
            };
            if oldest.is_none_or(|oldest| timestamp < oldest.timestamp) {
                *oldest = Some(Point { series, timestamp, value });
            }
        })?;
        Ok(buckets.into_iter().filter_map(|(number, oldest)| Some((start(number, every), oldest?))).collect())
    }

    /// As [`Snapshot::last`] of each stretch. Of several series with the same timestamp, which was written last is known by
    /// their chunks alone, and not always right.
    ///
    /// # Errors
    /// [`Error::Io`] where the system fails.
    ///
    /// # Panics
    /// Where `every` is not above 0.
    pub fn bucket_lasts(&self, every: i64, buckets_max: usize) -> Result<Vec<(i64, Point)>, Error> {
        let buckets = self.fold(every, buckets_max, true, |newest: &mut Option<(u64, Point)>, series, part| {
            let (timestamp, value, seq) = match part {
                Part::Whole(piece) => (piece.end(), piece.summary().last(), piece.last_seq()),
                Part::Points { timestamps, values, last_seq } => {
                    (timestamps[timestamps.len() - 1], values[values.len() - 1], last_seq)
                }
            };
            if newest.is_none_or(|(place, newest)| (timestamp, seq) >= (newest.timestamp, place)) {
                *newest = Some((seq, Point { series, timestamp, value }));
            }
        })?;
        Ok(buckets.into_iter().filter_map(|(number, newest)| Some((start(number, every), newest?.1))).collect())
    }

    /// As [`Snapshot::rate`] of each stretch: what goes up from the last point of one to the first of the next is in neither.
    ///
    /// # Errors
    /// [`Error::Io`] where the system fails.
    ///
    /// # Panics
    /// Where `every` is not above 0.
    pub fn bucket_rates(&self, every: i64, buckets_max: usize) -> Result<Vec<BucketValue>, Error> {
        let buckets = self.fold(every, buckets_max, true, |rates: &mut Rates, series, part| {
            let increase = match part {
                Part::Whole(piece) => {
                    rates.count += piece.summary().count();
                    Some(*piece.summary().increase())
                }
                Part::Points { timestamps, values, .. } => {
                    rates.count += timestamps.len() as u64;
                    Increase::of(timestamps, values)
                }
            };
            let Some(increase) = increase else { return };
            match &mut rates.current {
                Some((same, before)) if *same == series => before.merge_later(&increase),
                _ => {
                    rates.finish();
                    rates.current = Some((series, increase));
                }
            }
        })?;
        let value = |(number, mut rates): (i64, Rates)| {
            rates.finish();
            BucketValue { start: start(number, every), value: rates.done.value(Op::Sum), count: rates.count }
        };
        Ok(buckets.into_iter().map(value).collect())
    }

    /// As a quantile of [`Snapshot::sketch`] of each stretch. Reads every point, those of long stretches by themselves.
    ///
    /// # Errors
    /// [`Error::Io`] where the system fails.
    ///
    /// # Panics
    /// Where `every` is not above 0.
    pub fn bucket_quantiles(
        &self,
        quantile: Quantile,
        every: i64,
        buckets_max: usize,
    ) -> Result<Vec<BucketValue>, Error> {
        let counts = self.fold(every, buckets_max, true, |count: &mut u64, _, part| match part {
            Part::Whole(piece) => *count += piece.summary().count(),
            Part::Points { values, .. } => *count += values.len() as u64,
        })?;
        let counts: Vec<(i64, u64)> = counts.into_iter().collect();
        let mut answers = Vec::with_capacity(counts.len());
        let mut put = |number, sketch: &Sketch| {
            let (value, count) = (sketch.quantile(quantile), sketch.count());
            // Nothing is left of it where its points turn out to be damaged.
            if count > 0 {
                answers.push(BucketValue { start: start(number, every), value, count });
            }
        };
        let mut rest = &counts[..];
        while let Some(&(first, _)) = rest.first() {
            let mut values = 0;
            let fits = |(_, count): &&(i64, u64)| {
                values += count;
                values <= VALUES_MAX
            };
            let together = rest.iter().take_while(fits).count().max(1);
            let last = rest[together - 1].0;
            rest = &rest[together..];
            let range = TimeRange { start: start(first, every), end: start(last, every).saturating_add(every - 1) };
            let part = self.narrow(range);
            if together == 1 {
                put(first, &part.sketch()?);
            } else {
                let values = part.fold(every, together, false, |kept: &mut Vec<f64>, _, part| {
                    if let Part::Points { values, .. } = part {
                        kept.extend_from_slice(values);
                    }
                })?;
                for (number, values) in values {
                    let mut sketch = Sketch::default();
                    values.iter().for_each(|value| sketch.push(*value));
                    put(number, &sketch);
                }
            }
            self.note(part.found().clone());
        }
        Ok(answers)
    }

    /// Gives `add` every part of every series, cut where stretches meet, with what belongs to its stretch; pieces as a whole
    /// where `takes_whole` says so. Answers it by the stretches' numbers.
    fn fold<A: Default>(
        &self,
        every: i64,
        buckets_max: usize,
        takes_whole: bool,
        mut add: impl FnMut(&mut A, SeriesId, Part<'_>),
    ) -> Result<BTreeMap<i64, A>, Error> {
        assert!(every > 0, "a stretch of time has a length");
        let mut buckets: BTreeMap<i64, A> = BTreeMap::new();
        let number = |timestamp: i64| timestamp.div_euclid(every);
        let mut put = |number: i64, series: SeriesId, part: Part<'_>| {
            let is_beyond = |last: &i64| number > *last;
            if buckets.len() == buckets_max && buckets.keys().next_back().is_none_or(is_beyond) {
                return;
            }
            add(buckets.entry(number).or_default(), series, part);
            if buckets.len() > buckets_max {
                buckets.pop_last();
            }
        };
        self.visit(
            |piece| takes_whole && number(piece.start()) == number(piece.end()),
            |series, part| match part {
                Part::Whole(piece) => put(number(piece.start()), series, Part::Whole(piece)),
                Part::Points { mut timestamps, mut values, last_seq } => {
                    while let Some(&first) = timestamps.first() {
                        let bucket = number(first);
                        let inside = timestamps.partition_point(|&timestamp| number(timestamp) == bucket);
                        let (now, later) = timestamps.split_at(inside);
                        let (now_values, later_values) = values.split_at(inside);
                        put(bucket, series, Part::Points { timestamps: now, values: now_values, last_seq });
                        (timestamps, values) = (later, later_values);
                    }
                }
            },
        )?;
        Ok(buckets)
    }
}

/// The first microsecond of the stretch with that number.
fn start(number: i64, every: i64) -> i64 {
    number.saturating_mul(every)
}
