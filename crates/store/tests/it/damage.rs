//! Logs that are not what was written: flipped, cut, mixed, made up, or newer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use proptest::prelude::*;
use slung_model::TimeRange;
use slung_store::sim::SimVfs;
use slung_store::{Error, Recovery, Store, Vfs};

use crate::common::{Write, all_series, contents, define, dir, expected, key, log, open, points};

fn batches() -> Vec<Vec<Write>> {
    vec![vec![(0, 10, 1.0)], vec![(1, 10, 2.0), (0, 20, 3.0)], vec![(0, 10, 4.0)], vec![(2, 5, 5.0), (2, 6, 6.0)]]
}

/// How many records there are before the batches: the definitions of three series.
const DEFINITIONS: usize = 3;

/// A store's files. The log has a record for each definition and for each batch.
struct Made {
    files: Vec<(PathBuf, Vec<u8>)>,
    /// The log's second file, which has all of its records.
    log: Vec<u8>,
    /// Where each of them begins, and where the last one ends. Closing appends an empty one.
    at: Vec<usize>,
}

fn made(close: bool) -> Made {
    let disk = SimVfs::new(5);
    let (store, _) = open(&disk).unwrap();
    let end = || disk.read(&log(2)).unwrap().len();
    let mut at = vec![end()];
    for number in 0..DEFINITIONS {
        define(&store, &key(number));
        at.push(end());
    }
    for batch in batches() {
        let points = points(&store, &batch).unwrap();
        store.wait_durable(store.write(&points).unwrap()).unwrap();
        at.push(end());
    }
    if close {
        store.close().unwrap();
    }
    Made { files: disk.files(dir()), log: disk.read(&log(2)).unwrap(), at }
}

impl Made {
    /// The disk with other bytes in the log's second file.
    fn disk(&self, bytes: &[u8]) -> SimVfs {
        let disk = SimVfs::new(6);
        self.files.iter().for_each(|(path, bytes)| disk.plant(path, bytes));
        disk.plant(&log(2), bytes);
        disk
    }

    /// Opens it; a refusal leaves everything alone. What is found damaged is kept aside as it was, told in every answer, and
    /// told again at the next start.
    fn open(&self, bytes: &[u8]) -> Result<(Store, Recovery), Error> {
        let disk = self.disk(bytes);
        let before = disk.files(dir());
        let (store, recovery) = match open(&disk) {
            Ok(opened) => opened,
            Err(error) => {
                assert_eq!(disk.files(dir()), before, "what is refused is left as it was");
                return Err(error);
            }
        };
        assert_eq!(store.snapshot(&all_series(&store), TimeRange::ALL).damage().is_empty(), recovery.damage.is_empty());
        if !recovery.damage.is_empty() {
            assert_eq!(disk.read(&dir().join("quarantine/log-00000002")).as_deref(), Some(bytes), "it is kept aside");
            let found = contents(&store);
            store.close().unwrap();
            let (store, again) = open(&disk).unwrap();
            assert_eq!(contents(&store), found);
            assert_eq!(again.damage.len(), recovery.damage.len(), "it is told again");
            return Ok((store, recovery));
        }
        Ok((store, recovery))
    }
}

/// What a store may hold: the first so many batches.
fn prefixes() -> Vec<BTreeMap<(i64, String), f64>> {
    (0..=batches().len()).map(|count| expected(&batches()[..count])).collect()
}

/// What is left without the record of that number. Where it was a definition, something else stands in for the key.
fn without(record: usize) -> BTreeMap<(i64, String), f64> {
    let mut left = batches();
    if let Some(lost) = record.checked_sub(DEFINITIONS) {
        left.remove(lost);
        return expected(&left);
    }
    let lost = key(record).to_string();
    let rename = |name: String| if name == lost { format!("slung.lost{{id={record}}}") } else { name };
    expected(&left).into_iter().map(|((timestamp, name), value)| ((timestamp, rename(name)), value)).collect()
}

#[test]
fn every_flipped_bit_of_a_closed_log_is_noticed() {
    let made = made(true);
    let all = expected(&batches());
    assert_eq!(contents(&made.open(&made.log).unwrap().0), all);
    for bit in 0..made.log.len() * 8 {
        let mut flipped = made.log.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (store, recovery) = match made.open(&flipped) {
            Ok(opened) => opened,
            Err(Error::Newer { .. }) if (64..96).contains(&bit) => continue,
            Err(error) => panic!("bit {bit}: {error}"),
        };
        if bit / 8 >= made.at[7] {
            // Only the empty record at the end may be taken for a torn one: nothing is in it.
            assert!(recovery.trimmed.is_some() && recovery.damage.is_empty(), "bit {bit}");
            assert_eq!(contents(&store), all);
            continue;
        }
        let [damage] = recovery.damage.as_slice() else { panic!("bit {bit}: {:?}", recovery.damage) };
        if bit / 8 < made.at[0] {
            assert_eq!(damage.offset, 0, "bit {bit}");
            assert_eq!(contents(&store), all, "each record knows its own place");
        } else {
            let record = made.at.partition_point(|&start| start <= bit / 8) - 1;
            assert_eq!(damage.offset as usize, made.at[record], "bit {bit}");
            assert_eq!(contents(&store), without(record), "bit {bit}");
        }
    }
}

#[test]
fn a_flipped_bit_in_a_log_that_was_not_closed_takes_back_no_more_than_the_last_commit() {
    let made = made(false);
    for bit in made.at[0] * 8..made.log.len() * 8 {
        let mut flipped = made.log.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (store, recovery) = made.open(&flipped).unwrap();
        let record = made.at.partition_point(|&start| start <= bit / 8) - 1;
        assert_eq!(recovery.trimmed.is_some(), record == 6, "bit {bit}");
        assert_eq!(recovery.damage.is_empty(), record == 6, "bit {bit}");
        assert_eq!(contents(&store), without(record), "bit {bit}");
    }
}

#[test]
fn a_log_that_was_cut_anywhere_holds_the_records_before_the_cut() {
    let made = made(true);
    for cut in 0..made.log.len() {
        let (store, recovery) = made.open(&made.log[..cut]).unwrap();
        let records = made.at.partition_point(|&end| end <= cut).saturating_sub(1);
        assert_eq!(contents(&store), prefixes()[records.saturating_sub(DEFINITIONS)], "cut at {cut}");
        assert_eq!(recovery.damage.is_empty(), cut >= made.at[0], "cut at {cut}");
    }
}

#[test]
fn a_record_in_a_wrong_place_is_noticed() {
    let made = made(true);
    let Made { log: bytes, at, .. } = &made;
    let opened = |bytes: &[u8]| {
        let (store, recovery) = made.open(bytes).unwrap();
        let damaged = recovery.damage.iter().map(|damage| damage.offset as usize).collect::<Vec<_>>();
        (contents(&store), damaged)
    };
    // The first record once more behind itself, in the place of the others.
    let mut repeated = bytes[..at[4]].to_vec();
    repeated.extend_from_slice(&bytes[at[3]..at[4]]);
    assert_eq!(opened(&repeated), (prefixes()[1].clone(), vec![]));
    // A record cut out: all that follows moves up.
    let mut moved = bytes[..at[4]].to_vec();
    moved.extend_from_slice(&bytes[at[5]..]);
    assert_eq!(opened(&moved), (prefixes()[1].clone(), vec![]));
    // Two pieces of a record exchanged.
    let mut mixed = bytes.clone();
    mixed.copy_within(at[4] + 32..at[4] + 40, at[4] + 40);
    assert_eq!(opened(&mixed), (without(4), vec![at[4]]));
    // The same record at the same place of another log, which was drawn another number.
    let other = self::made(true);
    assert_eq!(*at, other.at);
    let mut foreign = bytes.clone();
    foreign[at[5]..at[6]].copy_from_slice(&other.log[at[5]..at[6]]);
    assert_eq!(opened(&foreign), (without(5), vec![at[5]]));
}

#[test]
fn a_file_of_another_store_is_refused() {
    let made = made(true);
    let error = made.open(&self::made(true).log).err().unwrap().to_string();
    assert!(error.starts_with("data/log-00000002: the file belongs to another store: "), "{error}");
}

#[test]
fn damage_is_told_with_its_place_and_what_is_missing() {
    let made = made(true);
    let mut bytes = made.log.clone();
    bytes[made.at[5] + 40] ^= 1;
    let (_, recovery) = made.open(&bytes).unwrap();
    assert_eq!(
        recovery.damage[0].to_string(),
        format!(
            "data/log-00000002: damaged at byte {}: the checksum of the record's body is wrong, yet another record follows \
             at byte {}; points of any series from {} to {} may be missing",
            made.at[5],
            made.at[6],
            i64::MIN,
            i64::MAX,
        )
    );
}

/// Answers stop being partial when somebody has seen to it.
#[test]
fn damage_is_forgotten_when_its_file_is_removed() {
    let made = made(true);
    let mut bytes = made.log.clone();
    bytes[made.at[5] + 40] ^= 1;
    let disk = made.disk(&bytes);
    for _ in 0..2 {
        let (store, recovery) = open(&disk).unwrap();
        assert_eq!(recovery.damage.len(), 1);
        assert_eq!(store.stats().damaged, 1);
    }
    Vfs::remove(&disk, &dir().join("quarantine/log-00000002")).unwrap();
    for _ in 0..2 {
        let (store, recovery) = open(&disk).unwrap();
        assert_eq!(recovery.damage, []);
        assert_eq!(store.snapshot(&all_series(&store), TimeRange::ALL).damage(), []);
    }
}

#[test]
fn a_newer_store_is_refused() {
    let made = made(true);
    let mut bytes = made.log.clone();
    bytes[8] = 3;
    let error = made.open(&bytes).err().unwrap();
    assert!(matches!(error, Error::Newer { .. }));
    assert!(
        error.to_string().contains("format version 3, which this version can't read (it knows version 2)"),
        "{error}"
    );
}

/// Without its manifest a store is not begun anew beside what is there.
#[test]
fn a_file_that_is_missing_is_named() {
    let made = made(true);
    let names = [dir().join("manifest"), log(1), log(2)];
    for gone in &names {
        let disk = SimVfs::new(1);
        made.files.iter().filter(|(path, _)| path != gone).for_each(|(path, bytes)| disk.plant(path, bytes));
        let before = disk.files(dir());
        match open(&disk) {
            Err(Error::Missing { path }) => {
                assert_eq!(&path, gone);
                assert_eq!(disk.files(dir()), before);
            }
            Ok((store, _)) if *gone == names[0] => assert_eq!(contents(&store), expected(&batches())),
            // The end of a log is missing without a trace.
            Ok((store, _)) if *gone == names[2] => assert_eq!(contents(&store), prefixes()[0]),
            Ok(_) => panic!("{} is missing", gone.display()),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A producer chooses the bytes of its points: they must not pass for a record when the real one around them is torn.
#[test]
fn bytes_that_a_client_chose_do_not_pass_for_a_record() {
    let made = made(false);
    let mut torn = made.log[..made.at[6]].to_vec();
    torn.extend_from_slice(&[0; 100]);
    // A whole record of this format, true to its place, but sealed without the number of this log.
    let place = torn.len() as u64;
    let mut forged = [0u8; 32];
    forged[8..16].copy_from_slice(&place.to_le_bytes());
    forged[16..24].copy_from_slice(&5u64.to_le_bytes());
    let crc = crc32fast::hash(&forged[4..]);
    forged[..4].copy_from_slice(&crc.to_le_bytes());
    torn.extend_from_slice(&forged);
    let (store, recovery) = made.open(&torn).unwrap();
    assert_eq!((contents(&store), recovery.damage), (prefixes()[3].clone(), vec![]));
}

/// The first version had one log of one file and nothing else.
#[test]
fn a_store_of_the_first_version_is_taken_over() {
    let made = made(true);
    let mut bytes = made.log;
    bytes[8] = 1;
    let crc = crc32fast::hash(&[&bytes[..12], &bytes[16..32]].concat());
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    let disk = SimVfs::new(1);
    disk.plant(&log(1), &bytes);
    for _ in 0..3 {
        let (store, recovery) = open(&disk).unwrap();
        assert_eq!((contents(&store), recovery.damage), (expected(&batches()), vec![]));
        store.flush().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn arbitrary_bytes_are_refused_or_told(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        keep in 0usize..400,
        at in 0usize..400,
    ) {
        let disk = SimVfs::new(1);
        disk.plant(&log(1), &bytes);
        prop_assert!(open(&disk).is_err());
        // A real log with rubbish in it, or behind it.
        let made = made(true);
        let mut real = made.log.clone();
        real.truncate(keep);
        let at = at.min(real.len());
        real.splice(at..(at + bytes.len()).min(real.len()), bytes);
        if let Ok((store, recovery)) = made.open(&real) {
            let written: BTreeSet<(i64, u64)> =
                batches().iter().flatten().map(|(_, timestamp, value)| (*timestamp, value.to_bits())).collect();
            let found = contents(&store);
            prop_assert!(found.iter().all(|((timestamp, _), value)| written.contains(&(*timestamp, value.to_bits()))));
            prop_assert!(!recovery.damage.is_empty() || prefixes().contains(&found));
        }
    }
}
