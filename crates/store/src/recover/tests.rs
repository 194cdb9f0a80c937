//! Records that are whole and yet don't fit together, and gaps that have a reason.

use slung_model::{Point, SeriesKey, SystemClock};

use super::*;
use crate::Store;
use crate::format::{FILE_HEADER_BYTES, RECORD_HEADER_BYTES};
use crate::sim::SimVfs;

const ID: LogId = LogId(7);

fn dir() -> &'static Path {
    Path::new("data")
}

fn key(name: &str) -> SeriesKey {
    SeriesKey::new(name, ["a=1"]).unwrap()
}

fn series(id: u32, name: &str) -> Vec<u8> {
    let mut entry = Vec::new();
    format::encode_series(SeriesId(id), &key(name), &mut entry);
    entry
}

fn points(series: u32, timestamps: &[i64]) -> Vec<u8> {
    let point = |timestamp: &i64| Point { series: SeriesId(series), timestamp: *timestamp, value: 1.0 };
    let mut entry = Vec::new();
    format::encode_points(&timestamps.iter().map(point).collect::<Vec<_>>(), &mut entry);
    entry
}

/// A log of those records: the number of the first point, how many there are, the body.
fn log(records: &[(u64, u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = format::encode_file_header(FileKind::Log, ID, 1, 0).to_vec();
    for (first_seq, points, body) in records {
        let mut record = vec![0; RECORD_HEADER_BYTES];
        record.extend_from_slice(body);
        format::seal_record(ID, bytes.len() as u64, *first_seq, *points, &mut record);
        bytes.extend_from_slice(&record);
    }
    bytes
}

fn open(disk: &SimVfs) -> Result<(Store, Recovery), Error> {
    let options = Options { background: false, reserve_bytes: 0, ..Options::default() };
    Store::open(Arc::new(disk.clone()), Arc::new(SystemClock), dir(), options)
}

/// A disk with that log and a manifest that tells what was flushed, without segments: as if all that had been deleted.
fn disk(records: &[(u64, u32, Vec<u8>)], flushed_through: u64) -> SimVfs {
    let disk = SimVfs::new(1);
    disk.plant(&dir().join(log::file_name(1)), &log(records));
    let manifest = Manifest { flushed_through, ..Manifest::new(3, ID.0, 1_000_000) };
    manifest.store(&disk, dir()).unwrap();
    disk
}

/// Where and why.
fn refused(records: &[(u64, u32, Vec<u8>)], flushed_through: u64) -> (u64, String) {
    let disk = disk(records, flushed_through);
    let before = disk.files(dir());
    let Err(Error::Damaged { offset, reason, .. }) = open(&disk) else { panic!("it does not fit") };
    assert_eq!(disk.files(dir()), before, "nothing is changed");
    (offset, reason.strip_suffix(", though its checksum is right").unwrap().to_owned())
}

#[test]
fn records_that_do_not_fit_together_are_refused() {
    let second = (FILE_HEADER_BYTES + RECORD_HEADER_BYTES + series(0, "x").len()) as u64;
    let begin = || (1, 0, series(0, "x"));
    for (record, reason) in [
        ((2, 1, points(0, &[1])), "the number of its first point is not the next one"),
        ((0, 1, points(0, &[1])), "the number of its first point is not the next one"),
        ((1, 1, points(1, &[1])), "a point is of a series that is not defined"),
        ((1, 0, series(2, "y")), "a series is not defined in the order of ids"),
        ((1, 0, series(1, "x")), "a series is defined twice"),
        ((1, 0, series(0, "y")), "a series is defined anew with another key"),
    ] {
        assert_eq!(refused(&[begin(), record], 0), (second, reason.to_owned()));
    }
    let (store, recovery) = open(&disk(&[begin(), (1, 1, points(0, &[1])), (2, 0, series(0, "x"))], 0)).unwrap();
    assert_eq!((recovery.series, recovery.points, store.durable_through().0), (1, 1, 1));
}

/// Points may get to segments before they get to the log. A crash then loses their records, and the log goes on with the
/// number behind them.
#[test]
fn a_gap_in_the_numbers_may_be_of_flushed_points_alone() {
    let begin = || (1, 2, [series(0, "x"), points(0, &[1, 2])].concat());
    let second = (FILE_HEADER_BYTES + RECORD_HEADER_BYTES + begin().2.len()) as u64;
    for flushed in 5..9 {
        let (store, recovery) = open(&disk(&[begin(), (6, 2, points(0, &[6, 7]))], flushed)).unwrap();
        let unflushed = 7u64.saturating_sub(flushed);
        assert_eq!((recovery.points, recovery.damage.len()), (unflushed, 0), "of two points, flushed to {flushed}");
        assert_eq!(store.durable_through().0, flushed.max(7));
    }
    let reason = "the number of its first point is not the next one".to_owned();
    assert_eq!(refused(&[begin(), (6, 2, points(0, &[6, 7]))], 4), (second, reason));
}
