//! Files that are not what was written: each bit flipped, cut at each byte, blocks and files exchanged, files removed.
//!
//! What must hold each time: opening is refused and names a file; or each answer is complete, or says that it may not be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use slung_model::{Op, SeriesId, TimeRange};
use slung_store::sim::SimVfs;
use slung_store::{Damage, Error, Options, Recovery, Store, Vfs};

use crate::common::{Contents, SECOND, SetClock, Write, add, dir, key as key_of, number, open, options, put};

/// A directory, and what it holds.
struct Made {
    files: Vec<(PathBuf, Vec<u8>)>,
    /// After each commit that the log still has, and before the first of them.
    steps: Vec<Contents>,
    /// All that was ever written, also what was replaced later.
    ever: BTreeMap<(usize, i64), Vec<u64>>,
    closed: bool,
}

const SERIES: usize = 4;

fn planted(files: &[(PathBuf, Vec<u8>)]) -> SimVfs {
    let disk = SimVfs::new(2);
    files.iter().for_each(|(path, bytes)| disk.plant(path, bytes));
    disk
}

fn options_here() -> Options {
    Options { log_file_bytes_max: 900, ..options() }
}

/// Values that compress badly, so that segments are mostly points.
fn noise(at: i64) -> f64 {
    let mixed = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 20) as f64 / 1024.0
}

/// Three flushes, of which two overlap, and then several files of log.
fn made(closed: bool) -> Made {
    let disk = SimVfs::new(1);
    let (store, _) = open(&disk, &SetClock::default(), &options_here()).unwrap();
    let mut now = Contents::new();
    let mut ever: BTreeMap<(usize, i64), Vec<u64>> = BTreeMap::new();
    let mut write = |now: &mut Contents, batch: &[Write]| {
        put(&store, batch).unwrap();
        add(now, batch);
        batch.iter().for_each(|&(of, at, value)| ever.entry((of, at)).or_default().push(value.to_bits()));
    };
    let column = |of: usize, count: i64, step: i64, start: i64, salt: i64| {
        (0..count).map(move |i| (of, start + i * step, noise(i * 7 + of as i64 + salt)))
    };
    for (start, count, step, series, salt) in
        [(0, 100, 1500, 0..3, 0), (50_000, 150, 1000, 0..3, 1_000_000), (SECOND, 60, 1000, 0..SERIES, 2_000_000)]
    {
        for of in series {
            write(&mut now, &column(of, count, step, start, salt).collect::<Vec<_>>());
        }
        store.flush().unwrap();
    }
    let mut steps = vec![now.clone()];
    for round in 0..16i64 {
        let of = round as usize % SERIES;
        let batch: Vec<Write> = column(of, 6, 900, round * 40_000, 3_000_000 + round * 100).collect();
        write(&mut now, &batch);
        steps.push(now.clone());
    }
    // As a process that is killed leaves it.
    let mut files = disk.files(dir());
    store.close().unwrap();
    if closed {
        files = disk.files(dir());
    }
    Made { files, steps, ever, closed }
}

/// A store that was begun, closed, written to, and closed, so that two files of log begin at the same place. Or, flushed in the
/// middle of its log, killed, and opened twice since.
fn young(flush: bool) -> Made {
    let disk = SimVfs::new(3);
    let clock = SetClock::default();
    open(&disk, &clock, &options_here()).unwrap().0.close().unwrap();
    let (store, _) = open(&disk, &clock, &options_here()).unwrap();
    let mut now = Contents::new();
    let mut steps = if flush { vec![] } else { vec![Contents::new()] };
    let mut ever: BTreeMap<(usize, i64), Vec<u64>> = BTreeMap::new();
    for round in 0..4i64 {
        let batch: Vec<Write> = (0..3).map(|of| (of, round * 10, noise(round * 3 + of as i64))).collect();
        put(&store, &batch).unwrap();
        add(&mut now, &batch);
        batch.iter().for_each(|&(of, at, value)| ever.entry((of, at)).or_default().push(value.to_bits()));
        if round >= 1 || !flush {
            steps.push(now.clone());
        }
        if round == 1 && flush {
            store.flush().unwrap();
        }
    }
    let killed = disk.files(dir());
    store.close().unwrap();
    let disk = if flush { planted(&killed) } else { disk };
    if flush {
        // Closed by the next ones, which write nothing.
        for _ in 0..2 {
            open(&disk, &clock, &options_here()).unwrap().0.close().unwrap();
        }
    }
    Made { files: disk.files(dir()), steps, ever, closed: true }
}

impl Made {
    fn each(&self) -> impl Iterator<Item = (&Self, usize, &PathBuf, &Vec<u8>)> {
        self.files.iter().enumerate().map(move |(file, (path, bytes))| (self, file, path, bytes))
    }

    fn has_only_a_log(&self) -> bool {
        self.files
            .iter()
            .all(|(path, _)| ["log", "manifest", "reserve"].iter().any(|kind| name(path).starts_with(kind)))
    }

    fn truth(&self) -> &Contents {
        self.steps.last().unwrap()
    }

    fn bytes(&self) -> usize {
        self.files.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    fn last_log(&self) -> &Path {
        let logs = self.files.iter().filter(|(path, _)| name(path).starts_with("log-"));
        logs.map(|(path, _)| path).max().unwrap()
    }

    /// Opens those files, and judges all answers. `cut` where the log may end early, by any number of commits.
    fn judge(&self, files: &[(PathBuf, Vec<u8>)], cut: bool, what: &dyn Fn() -> String) -> Verdict {
        let disk = planted(files);
        match open(&disk, &SetClock::default(), &options_here()) {
            Err(error) => self.refused(&error, what),
            Ok((store, recovery)) => self.opened(&store, &recovery, cut, what),
        }
    }

    fn refused(&self, error: &Error, what: &dyn Fn() -> String) -> Verdict {
        let path = match error {
            Error::Newer { path, .. }
            | Error::NotALog { path, .. }
            | Error::Missing { path }
            | Error::Damaged { path, .. } => path,
            other => panic!("{}: {other}", what()),
        };
        assert!(path.starts_with(dir()) && error.to_string().starts_with("data/"), "{}: {error}", what());
        Verdict::Refused
    }

    fn opened(&self, store: &Store, recovery: &Recovery, cut: bool, what: &dyn Fn() -> String) -> Verdict {
        let answers = ask(store);
        for answer in &answers {
            self.plausible(answer, what);
        }
        let commits = self.steps.len();
        // What a torn end may take back.
        let back = match (&recovery.trimmed, self.closed) {
            _ if cut => commits - 1,
            (Some(_), false) => 1,
            _ => 0,
        };
        let right = |truth: &Contents| answers.iter().find(|answer| answer.told.is_empty() && !answer.is_of(truth));
        if let Some(wrong) = right(self.truth()) {
            let earlier = self.steps[commits - 1 - back..commits - 1].iter().any(|truth| right(truth).is_none());
            let lacks = wrong.lacks(self.truth());
            assert!(earlier, "{}: {:?} is wrong, and no word of it: {lacks:?}; {recovery:#?}", what(), wrong.query);
        }
        if recovery.damage.is_empty() && answers.iter().all(|answer| answer.told.is_empty()) {
            Verdict::Complete
        } else {
            Verdict::Told
        }
    }

    /// What is told concerns the question, and no value is made up.
    fn plausible(&self, answer: &Answer, what: &dyn Fn() -> String) {
        let (range, ids) = (answer.query.1, &answer.ids);
        for damage in &answer.told {
            let overlaps = damage.range.start <= range.end && range.start <= damage.range.end;
            let concerns = overlaps && damage.series.is_none_or(|id| ids.contains(&id));
            assert!(concerns, "{}: {damage} is told of {:?}", what(), answer.query);
        }
        for (place, bits) in &answer.points {
            let known = self.ever.get(place).is_some_and(|values| values.contains(bits));
            assert!(known, "{}: {place:?} never had that value", what());
        }
    }
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Refused,
    Told,
    Complete,
}

/// One question and all that was answered.
struct Answer {
    /// One series, or all of them.
    query: (Option<usize>, TimeRange),
    ids: Vec<SeriesId>,
    /// Of series whose name is known.
    points: Contents,
    count: u64,
    sum: f64,
    max: Option<f64>,
    last: Option<(i64, f64)>,
    told: Vec<Damage>,
}

impl Answer {
    fn expected(&self, truth: &Contents) -> Contents {
        let (of, range) = self.query;
        let inside =
            |&(number, at): &(usize, i64)| of.is_none_or(|of| of == number) && (range.start..=range.end).contains(&at);
        truth.iter().filter(|(place, _)| inside(place)).map(|(place, bits)| (*place, *bits)).collect()
    }

    fn is_of(&self, truth: &Contents) -> bool {
        let expected = self.expected(truth);
        let values = || expected.values().map(|bits| f64::from_bits(*bits));
        let last = expected.iter().map(|(&(_, at), _)| at).max();
        self.points == expected
            && self.count == expected.len() as u64
            && self.max == values().reduce(f64::max)
            && (self.sum - values().sum::<f64>()).abs() <= 1e-9 * self.sum.abs()
            && self.last.map(|(at, _)| at) == last
            && self.last.is_none_or(|(at, value)| {
                expected.iter().any(|(&(_, time), &bits)| time == at && bits == value.to_bits())
            })
    }

    fn lacks(&self, truth: &Contents) -> Vec<(usize, i64)> {
        self.expected(truth).keys().filter(|place| !self.points.contains_key(place)).copied().collect()
    }
}

/// Everything, each series, and half of the time of each.
fn ask(store: &Store) -> Vec<Answer> {
    let half = TimeRange { start: SECOND / 4, end: SECOND };
    let series = (0..SERIES).flat_map(|of| [(Some(of), TimeRange::ALL), (Some(of), half)]);
    let names = store.series();
    let answer = |query: (Option<usize>, TimeRange)| {
        let (of, range) = query;
        let wanted = names.iter().filter(|(_, key)| of.is_none_or(|of| key_of(of) == **key));
        let ids: Vec<SeriesId> = wanted.map(|(id, _)| *id).collect();
        let mut told: Vec<Damage> = Vec::new();
        let ask = || store.snapshot(&ids, range);
        let snapshot = ask();
        let aggregate = snapshot.aggregate().unwrap();
        told.extend(snapshot.damage());
        let snapshot = ask();
        let last = snapshot.last().unwrap().map(|point| (point.timestamp, point.value));
        told.extend(snapshot.damage());
        let snapshot = ask();
        let mut points = Contents::new();
        for point in snapshot.scan() {
            let point = point.unwrap();
            // A series whose definition was lost has its points under another name.
            if let Some(number) = number(&store.key(point.series).unwrap()) {
                points.insert((number, point.timestamp), point.value.to_bits());
            }
        }
        told.extend(snapshot.damage());
        let (count, sum, max) = (aggregate.count(), aggregate.sum(), aggregate.value(Op::Max));
        Answer { query, ids, points, count, sum, max, last, told }
    };
    std::iter::once((None, TimeRange::ALL)).chain(series).map(answer).collect()
}

fn flipped(files: &[(PathBuf, Vec<u8>)], file: usize, bit: usize) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = files.to_vec();
    files[file].1[bit / 8] ^= 1 << (bit % 8);
    files
}

#[test]
fn what_is_whole_is_complete() {
    for closed in [true, false] {
        let made = made(closed);
        assert!((8_000..20_000).contains(&made.bytes()), "{} bytes", made.bytes());
        let count = |prefix| made.files.iter().filter(|(path, _)| name(path).starts_with(prefix)).count();
        assert!(count("log-") >= 3 && count("seg-") >= 3 && count("series-") == 1 && count("manifest") == 1);
        assert_eq!(made.judge(&made.files, false, &|| "untouched".into()), Verdict::Complete);
    }
}

/// Every bit of every file of a store that was closed.
#[test]
fn every_flipped_bit_is_told_or_does_no_harm() {
    let made = [young(true), young(false), made(true)];
    for (made, file, path, bytes) in made.iter().flat_map(Made::each) {
        let mut verdicts: BTreeMap<Verdict, usize> = BTreeMap::new();
        for bit in 0..bytes.len() * 8 {
            let files = flipped(&made.files, file, bit);
            let verdict = made.judge(&files, false, &|| format!("bit {bit} of {}", path.display()));
            *verdicts.entry(verdict).or_default() += 1;
        }
        let expected = match name(path) {
            "manifest" => &[Verdict::Refused][..],
            "reserve" => &[Verdict::Complete],
            _ => &[Verdict::Refused, Verdict::Told, Verdict::Complete],
        };
        // The definitions may be in the log as well; a version that is not known is the only reason to give up.
        let refused = verdicts.get(&Verdict::Refused).copied().unwrap_or(0);
        assert!(!name(path).starts_with("series-") || refused <= 32, "{}: {verdicts:?}", path.display());
        assert!(verdicts.keys().all(|verdict| expected.contains(verdict)), "{}: {verdicts:?}", path.display());
    }
}

/// Of a store that was not closed, every bit of the log: its last commit may be taken for a torn end, and nothing else.
#[test]
fn every_flipped_bit_of_a_log_that_was_not_closed() {
    let made = made(false);
    for (file, (path, bytes)) in made.files.iter().enumerate().filter(|(_, (path, _))| name(path).starts_with("log-")) {
        for bit in 0..bytes.len() * 8 {
            made.judge(&flipped(&made.files, file, bit), false, &|| format!("bit {bit} of {}", path.display()));
        }
    }
}

#[test]
fn every_cut_is_told_but_for_the_end_of_the_log() {
    for made in [made(true), made(false), young(true), young(false)] {
        for (file, (path, bytes)) in made.files.iter().enumerate() {
            // Nothing says how long the last file was.
            let cut_off = path == made.last_log();
            for cut in 0..bytes.len() {
                let mut files = made.files.clone();
                files[file].1.truncate(cut);
                let verdict = made.judge(&files, cut_off, &|| format!("{} cut at {cut}", path.display()));
                // The rest of a log is worth having.
                let is_log = name(path).starts_with("log-") && !cut_off;
                assert!(!is_log || verdict != Verdict::Refused, "{} cut at {cut}", path.display());
            }
        }
    }
}

/// Two blocks of all files in each other's place.
#[test]
fn misplaced_blocks_are_told() {
    const BLOCK: usize = 256;
    let made = made(true);
    let blocks: Vec<(usize, usize)> = (made.files.iter().enumerate())
        .flat_map(|(file, (_, bytes))| (0..bytes.len() / BLOCK).map(move |block| (file, block * BLOCK)))
        .collect();
    for (index, &(file, at)) in blocks.iter().enumerate() {
        for &(other, other_at) in &blocks[index + 1..] {
            let mut files = made.files.clone();
            let block = made.files[other].1[other_at..other_at + BLOCK].to_vec();
            let other_block = made.files[file].1[at..at + BLOCK].to_vec();
            files[file].1[at..at + BLOCK].copy_from_slice(&block);
            files[other].1[other_at..other_at + BLOCK].copy_from_slice(&other_block);
            // A block may be all of the last records.
            let paths = [&made.files[file].0, &made.files[other].0];
            let cut_off = paths.iter().any(|path| *path == made.last_log());
            made.judge(&files, cut_off, &|| format!("{paths:?} at {at} and {other_at}"));
        }
    }
}

/// Where the payloads of a segment's chunks stand; by its format.
fn payloads(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let footer = bytes.len() - 56;
    let directory = u64::from_le_bytes(bytes[footer..footer + 8].try_into().unwrap()) as usize;
    let mut found = Vec::new();
    let mut place = 40;
    for page in 0..u32_at(footer + 8) {
        let record = directory + page * 40;
        let mut payload = place;
        let mut entry = place + u32_at(record);
        place = entry + u32_at(record + 4);
        while entry < place {
            if bytes[entry] == 0 {
                entry += 29;
                continue;
            }
            let length = u32_at(entry + 13);
            found.push(payload..payload + length);
            payload += length;
            entry += 21 + slung_model::Summary::BYTES;
        }
    }
    found
}

/// Chunks of the same length in each other's place, in one segment and in two.
#[test]
fn misplaced_chunks_are_told() {
    let made = made(true);
    let segments = made.files.iter().enumerate().filter(|(_, (path, _))| name(path).starts_with("seg-"));
    let chunks: Vec<(usize, std::ops::Range<usize>)> =
        segments.flat_map(|(file, (_, bytes))| payloads(bytes).into_iter().map(move |range| (file, range))).collect();
    let (mut within, mut between) = (0, 0);
    for (index, (file, range)) in chunks.iter().enumerate() {
        for (other, other_range) in &chunks[index + 1..] {
            // Those that are not as long by nature change as much as the shorter one has.
            let length = range.len().min(other_range.len());
            let (a, b) = (range.start..range.start + length, other_range.start..other_range.start + length);
            let mut files = made.files.clone();
            files[*file].1[a.clone()].copy_from_slice(&made.files[*other].1[b.clone()]);
            files[*other].1[b.clone()].copy_from_slice(&made.files[*file].1[a.clone()]);
            let what = || format!("{a:?} of {:?} and {b:?} of {:?}", made.files[*file].0, made.files[*other].0);
            assert_eq!(made.judge(&files, false, &what), Verdict::Told, "{}", what());
            if range.len() == other_range.len() {
                *(if file == other { &mut within } else { &mut between }) += 1;
            }
        }
    }
    assert!(chunks.len() >= 8 && within > 0, "{} chunks, {within} pairs, {between} pairs", chunks.len());
}

#[test]
fn exchanged_and_missing_files_are_told() {
    for made in [made(true), made(false), young(true), young(false)] {
        for (file, (path, _)) in made.files.iter().enumerate() {
            let mut files = made.files.clone();
            files.remove(file);
            // Nothing says that there was one more.
            let cut_off = path == made.last_log();
            let verdict = made.judge(&files, cut_off, &|| format!("without {}", path.display()));
            // A manifest that names nothing but the log is made anew.
            let harmless = name(path) == "reserve" || cut_off || made.has_only_a_log();
            let expected = if harmless { Verdict::Complete } else { Verdict::Refused };
            assert!(verdict == expected || verdict == Verdict::Refused, "without {}: {verdict:?}", path.display());
            for other in file + 1..made.files.len() {
                let mut files = made.files.clone();
                files[file].1 = made.files[other].1.clone();
                files[other].1 = made.files[file].1.clone();
                let what = || format!("{} and {} exchanged", path.display(), made.files[other].0.display());
                // Files of log that hold nothing but a copy of the last record are equal.
                let verdict = made.judge(&files, false, &what);
                assert!(verdict != Verdict::Complete || files[file].1 == files[other].1, "{}", what());
            }
        }
    }
}

/// Merging, and starting again and again, does not make an answer look complete. Removing what was kept aside does, which
/// is how an operator says that he knows.
#[test]
fn damage_is_told_until_the_file_kept_aside_is_removed() {
    let made = made(true);
    let quarantine = dir().join("quarantine");
    let (mut kept_aside, mut merged) = (0, 0);
    for (file, (path, bytes)) in made.files.iter().enumerate() {
        if ["manifest", "reserve"].contains(&name(path)) {
            continue;
        }
        for at in (0..bytes.len()).step_by(37) {
            let what = || format!("byte {at} of {}", path.display());
            let files = flipped(&made.files, file, at * 8 + at % 8);
            let disk = planted(&files);
            let clock = SetClock::default();
            let Ok((store, recovery)) = open(&disk, &clock, &options_here()) else { continue };
            made.opened(&store, &recovery, false, &what);
            let first = ask(&store);
            let mut told = first.iter().any(|answer| !answer.told.is_empty());
            while store.upkeep().unwrap() {}
            for start in 0..3 {
                made.opened(&store, &recovery, false, &|| format!("{}, start {start}", what()));
            }
            merged += store.stats().compactions;
            store.close().unwrap();
            for start in 0..3 {
                let (store, recovery) = open(&disk, &clock, &options_here()).unwrap();
                made.opened(&store, &recovery, false, &|| format!("{}, start {start}", what()));
                let now = ask(&store);
                told |= now.iter().any(|answer| !answer.told.is_empty());
                for (before, now) in std::iter::zip(&first, &now) {
                    assert!(before.told.is_empty() || !now.told.is_empty(), "{}: forgotten", what());
                }
                // Some are written to, some are not.
                if start == 1 {
                    store.flush().unwrap();
                }
            }
            let aside = disk.files(&quarantine);
            assert!(aside.len() <= 1 && (aside.is_empty() || told), "{}", what());
            let Some((aside, _)) = aside.first() else {
                // It is still there, and found each time.
                continue;
            };
            kept_aside += 1;
            disk.remove(aside).unwrap();
            let (store, recovery) = open(&disk, &clock, &options_here()).unwrap();
            assert_eq!(recovery.damage, [], "{}", what());
            assert!(ask(&store).iter().all(|answer| answer.told.is_empty()), "{}", what());
        }
    }
    assert!(kept_aside > 100 && merged > 50, "{kept_aside} were kept aside, {merged} mergers");
}
