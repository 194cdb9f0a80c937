//! Logs that are not what was written: flipped, cut, mixed, made up, or newer.

use std::collections::BTreeMap;

use proptest::prelude::*;
use slung_store::sim::SimVfs;
use slung_store::{Error, Store};

use crate::common::{Write, contents, define, expected, key, log, open, points};

fn batches() -> Vec<Vec<Write>> {
    vec![vec![(0, 10, 1.0)], vec![(1, 10, 2.0), (0, 20, 3.0)], vec![(0, 10, 4.0)], vec![(2, 5, 5.0), (2, 6, 6.0)]]
}

/// How many records there are before the batches: the definitions of three series.
const DEFINITIONS: usize = 3;

/// A log with a record for each definition and for each batch, where each of them begins, and where the last one ends.
/// Closing appends an empty one.
fn made(close: bool) -> (Vec<u8>, Vec<usize>) {
    let disk = SimVfs::new(5);
    let (store, _) = open(&disk).unwrap();
    let end = || disk.read(log()).unwrap().len();
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
    (disk.read(log()).unwrap(), at)
}

/// Opens a store over those bytes. A refusal leaves them alone.
fn open_bytes(bytes: &[u8]) -> Result<Store, Error> {
    let disk = SimVfs::new(6);
    disk.plant(log(), bytes);
    let opened = open(&disk);
    if opened.is_err() {
        assert_eq!(disk.read(log()).unwrap(), bytes, "a log that is refused is left as it was");
    }
    Ok(opened?.0)
}

/// What a store may hold: the first so many batches.
fn prefixes() -> Vec<BTreeMap<(i64, String), f64>> {
    (0..=batches().len()).map(|count| expected(&batches()[..count])).collect()
}

#[test]
fn every_flipped_bit_of_a_closed_log_is_noticed() {
    let (bytes, at) = made(true);
    let all = expected(&batches());
    assert_eq!(contents(&open_bytes(&bytes).unwrap()), all);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match open_bytes(&flipped) {
            // Only the empty record at the end may be taken for a torn one: nothing is in it.
            Ok(store) => {
                assert!(bit / 8 >= at[7], "bit {bit}");
                assert_eq!(contents(&store), all);
            }
            Err(error) => assert!(bit / 8 < at[7], "bit {bit}: {error}"),
        }
    }
}

#[test]
fn a_flipped_bit_in_a_log_that_was_not_closed_takes_back_no_more_than_the_last_commit() {
    let (bytes, at) = made(false);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match open_bytes(&flipped) {
            Ok(store) => {
                assert!(bit / 8 >= at[6], "bit {bit}");
                assert_eq!(contents(&store), prefixes()[3]);
            }
            Err(Error::NotALog { .. } | Error::Newer { .. }) => assert!(bit / 8 < at[0], "bit {bit}"),
            Err(Error::Damaged { offset, .. }) => {
                let record = at.partition_point(|&start| start <= bit / 8) - 1;
                assert_eq!(offset as usize, at[record], "bit {bit}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_log_that_was_cut_anywhere_holds_the_records_before_the_cut() {
    let (bytes, at) = made(true);
    for cut in 0..bytes.len() {
        match open_bytes(&bytes[..cut]) {
            Ok(store) => {
                let records = at.partition_point(|&end| end <= cut) - 1;
                assert_eq!(contents(&store), prefixes()[records.saturating_sub(DEFINITIONS)], "cut at {cut}");
            }
            Err(error) => {
                assert!(cut < at[0], "cut at {cut}: {error}");
                assert!(matches!(error, Error::NotALog { .. }));
            }
        }
    }
}

#[test]
fn a_record_in_a_wrong_place_is_noticed() {
    let (bytes, at) = made(true);
    // The first record once more behind itself, in the place of the others.
    let mut repeated = bytes[..at[4]].to_vec();
    repeated.extend_from_slice(&bytes[at[3]..at[4]]);
    assert_eq!(contents(&open_bytes(&repeated).unwrap()), prefixes()[1]);
    // A record cut out: all that follows moves up.
    let mut without = bytes[..at[4]].to_vec();
    without.extend_from_slice(&bytes[at[5]..]);
    assert_eq!(contents(&open_bytes(&without).unwrap()), prefixes()[1]);
    // Two pieces of a record exchanged.
    let mut mixed = bytes.clone();
    mixed.copy_within(at[4] + 32..at[4] + 40, at[4] + 40);
    assert!(matches!(open_bytes(&mixed), Err(Error::Damaged { offset, .. }) if offset as usize == at[4]));
    // The same record at the same place of another log, which was drawn another number.
    let (other, other_at) = made(true);
    assert_eq!(at, other_at);
    let mut foreign = bytes.clone();
    foreign[at[5]..at[6]].copy_from_slice(&other[at[5]..at[6]]);
    assert!(matches!(open_bytes(&foreign), Err(Error::Damaged { offset, .. }) if offset as usize == at[5]));
}

#[test]
fn damage_is_told_with_its_place_and_what_to_do() {
    let (mut bytes, at) = made(true);
    bytes[at[5] + 40] ^= 1;
    let error = open_bytes(&bytes).err().unwrap().to_string();
    assert_eq!(
        error,
        format!(
            "data/log-00000001: damaged at byte {start}: the checksum of the record's body is wrong, yet another record \
             follows at byte {later}; this is not the torn end that a crash leaves, so nothing was changed: restore the \
             file from a backup, or, to give up all that follows, cut a copy of it to {start} bytes",
            start = at[5],
            later = at[6],
        )
    );
}

#[test]
fn a_newer_store_is_refused() {
    let (mut bytes, _) = made(true);
    bytes[8] = 2;
    let error = open_bytes(&bytes).err().unwrap();
    assert!(matches!(error, Error::Newer { .. }));
    assert!(
        error.to_string().contains("format version 2, which this version can't read (it knows version 1)"),
        "{error}"
    );
    // A later version's log has several files. Starting a new log beside them would be the end of them.
    let disk = SimVfs::new(1);
    disk.plant(&log().with_file_name("log-00000007"), &bytes);
    let error = open(&disk).err().unwrap();
    assert!(matches!(error, Error::Newer { .. }), "{error}");
    assert_eq!(disk.read(log()), None);
}

/// A producer chooses the bytes of its points: they must not pass for a record when the real one around them is torn.
#[test]
fn bytes_that_a_client_chose_do_not_pass_for_a_record() {
    let (bytes, at) = made(false);
    let mut torn = bytes[..at[6]].to_vec();
    torn.extend_from_slice(&[0; 100]);
    // A whole record of this format, true to its place, but sealed without the number of this log.
    let place = torn.len() as u64;
    let mut forged = [0u8; 32];
    forged[8..16].copy_from_slice(&place.to_le_bytes());
    forged[16..24].copy_from_slice(&5u64.to_le_bytes());
    let crc = crc32fast::hash(&forged[4..]);
    forged[..4].copy_from_slice(&crc.to_le_bytes());
    torn.extend_from_slice(&forged);
    assert_eq!(contents(&open_bytes(&torn).unwrap()), prefixes()[3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn arbitrary_bytes_are_refused_or_cut_off(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        keep in 0usize..400,
        at in 0usize..400,
    ) {
        prop_assert!(open_bytes(&bytes).is_err());
        // A real log with rubbish in it, or behind it.
        let (mut real, _) = made(true);
        real.truncate(keep);
        let at = at.min(real.len());
        real.splice(at..(at + bytes.len()).min(real.len()), bytes);
        if let Ok(store) = open_bytes(&real) {
            prop_assert!(prefixes().contains(&contents(&store)));
        }
    }
}
