//! What keeps the segments few: which of them to merge, which to give up, decided as values; and the merging itself.

use std::iter::Peekable;
use std::path::Path;
use std::sync::Arc;

use slung_model::{SeriesId, TimeRange};

use crate::damage::ReadError;
use crate::disk::Disk;
use crate::manifest::Lost;
use crate::output::{Cuts, Output};
use crate::pieces::{Piece, SeriesReader, intact};
use crate::segment::{Chunk, ChunkMeta, Effort, Scan, Segment, SegmentMeta};
use crate::{Damage, Error, Options};

/// Segments of the newest partition are merged when there are so many of a size: that many are read at once where a query
/// needs all of them, and a point is written again once for each doubling of its segment.
const RUN_MIN: usize = 4;
/// Of partitions that get late data only, everything is merged that is not much smaller than what it is merged with.
const RUN_MIN_OLD: usize = 2;
/// Larger ones are not merged any more, bytes: it would take minutes and as much space again, and gain little.
const MERGED_BYTES_MAX: u64 = 1 << 30;
/// The most that are merged at once.
const RUN_MAX: usize = 64;

/// Which segments to merge next, by their numbers, oldest generation first. `None` where all is well.
///
/// The result takes the highest generation among them. So no other segment that overlaps them in time may have a generation
/// in between: its points would count as older than all of the result, or as newer.
pub(crate) fn plan_merge(segments: &[SegmentMeta], partition_micros: i64) -> Option<Vec<u64>> {
    let partition = |timestamp: i64| timestamp.div_euclid(partition_micros);
    let newest = segments.iter().map(|segment| partition(segment.end)).max()?;
    let mut groups: std::collections::BTreeMap<Option<i64>, Vec<&SegmentMeta>> = std::collections::BTreeMap::new();
    for segment in segments {
        let (first, last) = (partition(segment.start), partition(segment.end));
        groups.entry((first == last).then_some(first)).or_default().push(segment);
    }
    for (group, mut members) in groups {
        // The newest generation first.
        members.sort_by_key(|segment| std::cmp::Reverse((segment.generation, segment.number)));
        let run_min = if group.is_none() || group == Some(newest) { RUN_MIN } else { RUN_MIN_OLD };
        for from in 0..members.len() {
            let run = run(&members[from..], segments);
            if run.len() >= run_min {
                return Some(run.iter().rev().map(|segment| segment.number).collect());
            }
        }
    }
    None
}

/// The longest run from the newest on in which none is larger than all newer ones together, but for an eighth: flushes of one
/// size give segments that differ by some bytes.
fn run<'a>(members: &[&'a SegmentMeta], all: &[SegmentMeta]) -> Vec<&'a SegmentMeta> {
    let mut run: Vec<&SegmentMeta> = Vec::new();
    let mut bytes = 0;
    for &member in members.iter().take(RUN_MAX) {
        let is_larger = !run.is_empty() && member.bytes - member.bytes / 8 > bytes;
        if is_larger || member.bytes > MERGED_BYTES_MAX {
            break;
        }
        run.push(member);
        if !is_seamless(&run, all) {
            run.pop();
            break;
        }
        bytes += member.bytes;
    }
    run
}

fn is_seamless(run: &[&SegmentMeta], all: &[SegmentMeta]) -> bool {
    let generations = || run.iter().map(|segment| segment.generation);
    let (Some(oldest), Some(newest)) = (generations().min(), generations().max()) else { return true };
    let start = run.iter().map(|segment| segment.start).min().unwrap_or(i64::MAX);
    let end = run.iter().map(|segment| segment.end).max().unwrap_or(i64::MIN);
    !all.iter().any(|other| {
        let overlaps = other.start <= end && start <= other.end;
        let between = oldest <= other.generation && other.generation <= newest;
        overlaps && between && !run.iter().any(|member| member.number == other.number)
    })
}

/// The time before which points are given up now; `None` where that is as it was.
pub(crate) fn plan_retention(segments: &[SegmentMeta], floor: i64, now: i64, options: &Options) -> Option<i64> {
    let newest = segments.iter().map(|segment| segment.end).max()?;
    let by_age = options.retention_micros.map(|age| {
        let width = options.partition_micros;
        // Rounding down to where a partition begins can't leave the range of a timestamp that is accepted.
        now.min(newest).saturating_sub(age).div_euclid(width).saturating_mul(width)
    });
    let by_size = options.disk_bytes_max.and_then(|bytes_max| {
        let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let mut by_end: Vec<&SegmentMeta> = segments.iter().collect();
        by_end.sort_by_key(|segment| segment.end);
        let mut floor = None;
        // The newest one stays, however large it is.
        for segment in by_end.iter().take(segments.len().saturating_sub(1)) {
            if bytes <= bytes_max {
                break;
            }
            bytes -= segment.bytes;
            floor = Some(segment.end.saturating_add(1));
        }
        floor
    });
    by_age.into_iter().chain(by_size).max().filter(|new| *new > floor)
}

/// What came of rewriting segments.
pub(crate) struct Rewritten {
    pub(crate) segments: Vec<Arc<Segment>>,
    /// What could not be read, and is in none of the new ones.
    pub(crate) lost: Vec<Lost>,
}

/// Reads segments, oldest generation first, and writes what `keep` says of each series into new ones of that generation.
/// They are durable, and not yet part of the store. `pause` is called after each chunk: it may wait, or end the work.
pub(crate) fn rewrite(
    disk: &Disk,
    inputs: &[Arc<Segment>],
    generation: u64,
    keep: &dyn Fn(SeriesId) -> Vec<TimeRange>,
    pause: &dyn Fn() -> Result<(), Error>,
) -> Result<Rewritten, Error> {
    let mut damage = Vec::new();
    let mut cuts = Cuts::new(disk.partition_micros());
    for chunk in inputs.iter().flat_map(|segment| segment.scan()) {
        // Damage is found again below, and noted there.
        if let Some(chunk) = intact(chunk, &mut Vec::new())? {
            cuts.add_time(chunk.summary.start());
            cuts.add_time(chunk.summary.end());
        }
    }
    let mut output = Output::new(disk, generation, cuts, Effort::Compaction, pause);
    let mut scans: Vec<Peekable<Scan<'_>>> = inputs.iter().map(|segment| segment.scan().peekable()).collect();
    while let Some(series) = next_series(&mut scans, &mut damage)? {
        let mut pieces = Vec::new();
        for (segment, scan) in std::iter::zip(inputs, &mut scans) {
            while let Some(chunk) = next_of(scan, series, &mut damage)? {
                pieces.push(Piece::Disk(Chunk::new(segment, chunk)));
            }
        }
        for range in keep(series) {
            let inside = |piece: &&Piece| piece.start() <= range.end && range.start <= piece.end();
            let pieces = pieces.iter().filter(inside).cloned().collect();
            output.take(series, &mut SeriesReader::new(pieces, range), &mut damage)?;
        }
    }
    Ok(Rewritten { segments: output.finish()?, lost: damage.iter().map(lost).collect() })
}

/// The lowest series that any of the scans comes to next.
fn next_series(scans: &mut [Peekable<Scan<'_>>], damage: &mut Vec<Damage>) -> Result<Option<SeriesId>, Error> {
    let mut lowest: Option<SeriesId> = None;
    for scan in scans {
        skip_damage(scan, damage)?;
        if let Some(Ok(chunk)) = scan.peek() {
            lowest = Some(lowest.map_or(chunk.series, |lowest| lowest.min(chunk.series)));
        }
    }
    Ok(lowest)
}

fn next_of(
    scan: &mut Peekable<Scan<'_>>,
    series: SeriesId,
    damage: &mut Vec<Damage>,
) -> Result<Option<ChunkMeta>, Error> {
    skip_damage(scan, damage)?;
    match scan.next_if(|next| matches!(next, Ok(chunk) if chunk.series == series)) {
        Some(Ok(chunk)) => Ok(Some(chunk)),
        _ => Ok(None),
    }
}

fn skip_damage(scan: &mut Peekable<Scan<'_>>, damage: &mut Vec<Damage>) -> Result<(), Error> {
    while let Some(Err(error)) = scan.next_if(Result::is_err) {
        intact::<()>(Err(error), damage)?;
    }
    Ok(())
}

/// What the manifest keeps of a damage.
pub(crate) fn lost(damage: &Damage) -> Lost {
    let file = damage.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let reason = format!("damaged at byte {}: {}", damage.offset, damage.reason);
    Lost { file, reason, series: damage.series, range: damage.range }
}

/// What the manifest keeps of a file that can't be opened.
pub(crate) fn lost_segment(path: &Path, meta: &SegmentMeta, error: ReadError) -> Result<Lost, Error> {
    match error {
        ReadError::Damaged(damage) => Ok(Lost { range: meta.range(), ..lost(&Damage { path: path.into(), ..damage }) }),
        other => Err(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WEEK: i64 = 1_000;

    fn segment(number: u64, generation: u64, start: i64, end: i64, bytes: u64) -> SegmentMeta {
        SegmentMeta { number, generation, start, end, points: 10, chunks: 1, series: 1, bytes, footer_crc: 0 }
    }

    #[test]
    fn four_of_a_size_in_the_newest_partition_are_merged() {
        let three: Vec<SegmentMeta> = (1..=3).map(|n| segment(n, n, 0, 999, 100)).collect();
        assert_eq!(plan_merge(&three, WEEK), None);
        let four: Vec<SegmentMeta> = (1..=4).map(|n| segment(n, n, 0, 999, 100)).collect();
        assert_eq!(plan_merge(&four, WEEK), Some(vec![1, 2, 3, 4]));
        // What was merged already is left alone until as much has come again.
        let mut with_large = four;
        with_large[0].bytes = 1_000;
        assert_eq!(plan_merge(&with_large, WEEK), None);
        with_large.push(segment(5, 5, 0, 999, 100));
        assert_eq!(plan_merge(&with_large, WEEK), Some(vec![2, 3, 4, 5]));
    }

    #[test]
    fn two_are_enough_in_a_partition_that_only_gets_late_data() {
        let segments = [segment(1, 1, 0, 10, 100), segment(2, 2, 5, 20, 100), segment(3, 3, 1_000, 1_010, 100)];
        assert_eq!(plan_merge(&segments, WEEK), Some(vec![1, 2]));
        // Each partition for itself.
        let apart = [segment(1, 1, 0, 10, 100), segment(2, 2, 1_000, 1_010, 100), segment(3, 3, 2_000, 2_010, 100)];
        assert_eq!(plan_merge(&apart, WEEK), None);
    }

    /// Merging 1 and 3 would make points of 1 count as newer than those of 2, which replaced them.
    #[test]
    fn nothing_is_merged_across_a_segment_that_lies_between() {
        let mixed = segment(2, 2, -5_000, 500, 100);
        let segments = [segment(1, 1, 0, 10, 100), mixed, segment(3, 3, 0, 10, 100), segment(4, 4, 1_000, 1_001, 1)];
        assert_eq!(plan_merge(&segments, WEEK), None);
        let elsewhere = segment(2, 2, -5_000, -1, 100);
        let segments =
            [segment(1, 1, 0, 10, 100), elsewhere, segment(3, 3, 0, 10, 100), segment(4, 4, 1_000, 1_001, 1)];
        assert_eq!(plan_merge(&segments, WEEK), Some(vec![1, 3]));
    }

    #[test]
    fn the_largest_are_left_alone() {
        let large = MERGED_BYTES_MAX + 1;
        let segments: Vec<SegmentMeta> = (1..=5).map(|n| segment(n, n, 0, 999, large)).collect();
        assert_eq!(plan_merge(&segments, WEEK), None);
    }

    #[test]
    fn retention_follows_the_events_and_the_clock_whichever_is_behind() {
        let segments = [segment(1, 1, 0, 999, 100), segment(2, 2, 5_000, 5_999, 100)];
        let options = Options { partition_micros: WEEK, retention_micros: Some(3_000), ..Options::default() };
        // The clock is at 6,100: what is before 3,100 is too old, by whole partitions.
        assert_eq!(plan_retention(&segments, i64::MIN, 6_100, &options), Some(2_000));
        assert_eq!(plan_retention(&segments, 2_000, 6_100, &options), None, "nothing new");
        // It jumps ahead by years: the events say that it is wrong.
        assert_eq!(plan_retention(&segments, i64::MIN, 1 << 50, &options), Some(2_000));
        // It jumps back, or one event is far ahead.
        assert_eq!(plan_retention(&segments, 0, 500, &options), None);
        assert_eq!(plan_retention(&segments, i64::MIN, i64::MIN, &options), None);
    }

    #[test]
    fn retention_by_size_gives_up_the_oldest_and_never_the_newest() {
        let segments = [segment(1, 1, 0, 999, 100), segment(2, 2, 500, 1_500, 100), segment(3, 3, 5_000, 5_999, 100)];
        let with = |bytes_max| Options { disk_bytes_max: Some(bytes_max), ..Options::default() };
        assert_eq!(plan_retention(&segments, i64::MIN, 0, &with(300)), None);
        assert_eq!(plan_retention(&segments, i64::MIN, 0, &with(299)), Some(1_000));
        assert_eq!(plan_retention(&segments, i64::MIN, 0, &with(100)), Some(1_501));
        assert_eq!(plan_retention(&segments, i64::MIN, 0, &with(0)), Some(1_501));
        assert_eq!(plan_retention(&[], i64::MIN, 0, &with(0)), None);
    }

    proptest! {
        /// Whatever there is: merging ends, and no plan crosses a segment in between.
        #[test]
        fn plans_are_seamless_and_come_to_an_end(
            all in proptest::collection::vec((0i64..5_000, 0i64..2_000, 1u64..1_000_000), 0..40),
        ) {
            let mut segments: Vec<SegmentMeta> = std::iter::zip(1.., all)
                .map(|(n, (start, length, bytes))| segment(n, n, start, start + length, bytes))
                .collect();
            let mut rounds = 0;
            while let Some(plan) = plan_merge(&segments, WEEK) {
                rounds += 1;
                prop_assert!(rounds <= 40 && plan.len() >= RUN_MIN_OLD);
                let (inputs, others): (Vec<SegmentMeta>, Vec<SegmentMeta>) =
                    segments.into_iter().partition(|segment| plan.contains(&segment.number));
                prop_assert_eq!(inputs.len(), plan.len());
                let generations = || inputs.iter().map(|segment| segment.generation);
                let (low, high) = (generations().min().unwrap(), generations().max().unwrap());
                let start = inputs.iter().map(|segment| segment.start).min().unwrap();
                let end = inputs.iter().map(|segment| segment.end).max().unwrap();
                for other in &others {
                    let overlaps = other.start <= end && start <= other.end;
                    prop_assert!(!overlaps || other.generation < low || other.generation > high);
                }
                segments = others;
                let bytes = inputs.iter().map(|segment| segment.bytes).sum();
                segments.push(segment(1_000 + rounds, high, start, end, bytes));
            }
        }
    }
}
