//! Files of a log that were put together by hand: which of their records count.

use slung_model::SeriesId;

use super::*;
use crate::format::RECORD_HEADER_BYTES;
use crate::sim::SimVfs;

const ID: LogId = LogId(7);
const START: u64 = FILE_HEADER_BYTES as u64;

fn dir() -> &'static Path {
    Path::new("data")
}

fn path(number: u64) -> PathBuf {
    dir().join(file_name(number))
}

/// A sealed record of one point that is told by its value.
fn record(place: u64, seq: u64, value: f64) -> Vec<u8> {
    let mut record = vec![0; RECORD_HEADER_BYTES];
    format::encode_points(&[slung_model::Point { series: SeriesId(0), timestamp: 1, value }], &mut record);
    format::seal_record(ID, place, seq, 1, &mut record);
    record
}

const RECORD_BYTES: u64 = (RECORD_HEADER_BYTES + 5 + 20) as u64;

/// The place of the record with that index.
fn place(index: u64) -> u64 {
    START + index * RECORD_BYTES
}

/// A file whose first record is the one with that index; [`placed`] gives it its number.
fn file(first: u64, records: &[Vec<u8>]) -> Vec<u8> {
    let base = place(first) - START;
    [&format::encode_file_header(FileKind::Log, ID, 0, base), records.concat().as_slice()].concat()
}

/// The file as it is under that number, unless its header was damaged.
fn placed(number: u64, file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    if let Ok((id, base)) = format::decode_file_header(FileKind::Log, 0, &file) {
        file[..FILE_HEADER_BYTES].copy_from_slice(&format::encode_file_header(FileKind::Log, id, number, base));
    }
    file
}

/// Takes what comes, in a row.
#[derive(Debug, Default)]
struct Taken {
    values: Vec<f64>,
    next_seq: u64,
    skipped: usize,
}

impl Take for Taken {
    fn take(&mut self, header: &RecordHeader, body: &[u8]) -> Result<Result<(), Invalid>, Error> {
        if header.first_seq < self.next_seq {
            return Ok(Err(Invalid("too low")));
        }
        self.next_seq = header.first_seq + u64::from(header.points);
        Ok(format::decode_body(header, body, |entry| {
            if let format::Entry::Points(points) = entry {
                self.values.extend(points.map(|point| point.value));
            }
            Ok(())
        }))
    }

    fn skipped(&mut self) {
        self.skipped += 1;
    }

    fn position(&self) -> Position {
        Position { next_seq: self.next_seq, series: 1 }
    }
}

/// Reads files that count up from 1.
fn read(files: &[Vec<u8>]) -> Result<(Taken, Replayed), Error> {
    let disk = SimVfs::new(1);
    for (number, bytes) in std::iter::zip(1.., files) {
        disk.plant(&path(number), &placed(number, bytes));
    }
    let numbers: Vec<u64> = (1..=files.len() as u64).collect();
    let mut taken = Taken::default();
    let replayed = replay(&disk, dir(), ID, &numbers, 1, &mut taken)?;
    Ok((taken, replayed))
}

#[test]
fn several_files_are_one_log() {
    let first = file(0, &[record(place(0), 1, 1.0), record(place(1), 2, 2.0)]);
    let second = file(2, &[record(place(2), 3, 3.0)]);
    let empty = file(3, &[]);
    let (taken, replayed) = read(&[first.clone(), second, empty]).unwrap();
    assert_eq!((taken.values, taken.skipped), (vec![1.0, 2.0, 3.0], 0));
    assert_eq!((replayed.damage.len(), &replayed.trimmed, replayed.last_place), (0, &None, place(3)));
    let ends: Vec<(u64, u64)> = replayed.sealed.iter().map(|sealed| (sealed.number, sealed.end.next_seq)).collect();
    assert_eq!(ends, [(1, 3), (2, 4), (3, 4)]);
    assert_eq!(replayed.sealed[0].bytes, first.len() as u64);
}

/// After a failed sync the record goes to a new file, and after a start the last one; what the old file has from there on
/// counts no more, be it whole, torn, or more than the new one has.
#[test]
fn where_a_file_begins_the_one_before_ends() {
    let both = || vec![record(place(0), 1, 1.0), record(place(1), 2, 2.0)];
    let again = file(1, &[record(place(1), 2, 20.0)]);
    let mut torn = file(0, &both());
    torn.truncate(torn.len() - 3);
    let long = file(0, &[both(), vec![record(place(2), 3, 3.0)]].concat());
    for old in [file(0, &both()), torn, long, file(0, &both()[..1])] {
        let (taken, replayed) = read(&[old, again.clone()]).unwrap();
        assert_eq!((taken.values, taken.skipped), (vec![1.0, 20.0], 0));
        assert_eq!((replayed.damage.len(), replayed.trimmed), (0, None));
        assert_eq!((replayed.sealed[0].end.next_seq, replayed.last), (2, record(place(1), 2, 20.0)));
    }
}

#[test]
fn what_is_bad_is_damage_where_the_log_goes_on_and_a_torn_end_where_not() {
    let mut flipped = record(place(1), 2, 2.0);
    flipped[50] ^= 1;
    let first = |second: &[u8]| file(0, &[record(place(0), 1, 1.0), second.to_vec()]);
    let next = file(2, &[record(place(2), 3, 3.0)]);
    for bad in [flipped.as_slice(), &flipped[..40], &[]] {
        let (taken, replayed) = read(&[first(bad), next.clone()]).unwrap();
        assert_eq!((taken.values, taken.skipped), (vec![1.0, 3.0], 1));
        let [damage] = replayed.damage.as_slice() else { panic!("{:?}", replayed.damage) };
        assert_eq!((&damage.path, damage.offset), (&path(1), place(1)));
        assert_eq!((replayed.damaged, replayed.trimmed), (vec![1], None));
    }
    let (taken, replayed) = read(&[first(&flipped)]).unwrap();
    assert_eq!((taken.values, taken.skipped, replayed.damage.len()), (vec![1.0], 0, 0));
    assert_eq!(replayed.trimmed.unwrap().offset, place(1));
    assert_eq!(replayed.last_place, place(0), "the log goes on behind what is good");
}

#[test]
fn a_damaged_header_costs_nothing_but_itself() {
    let first = file(0, &[record(place(0), 1, 1.0)]);
    let mut second = file(1, &[record(place(1), 2, 2.0)]);
    second[24] ^= 1;
    let third = file(2, &[record(place(2), 3, 3.0)]);
    let (taken, replayed) = read(&[first.clone(), second.clone(), third.clone()]).unwrap();
    assert_eq!((taken.values, taken.skipped), (vec![1.0, 2.0, 3.0], 0));
    assert_eq!((replayed.damage[0].offset, replayed.damaged.as_slice()), (0, &[2][..]));
    // Its first record is damaged as well: where it begins can't be told, and what comes next shows that something is
    // missing.
    second[70] ^= 1;
    second[40] ^= 1;
    let (taken, replayed) = read(&[first, second, third]).unwrap();
    assert_eq!((taken.values, taken.skipped), (vec![1.0, 3.0], 1));
    assert_eq!(replayed.damaged, [2, 1]);
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let first = file(1, &[record(place(1), 1, 1.0)]);
    let error = read(&[first, file(0, &[])]).unwrap_err();
    assert!(matches!(error, Error::NotALog { path: of, .. } if of == path(2)));
    let foreign = format::encode_file_header(FileKind::Log, LogId(8), 2, 0).to_vec();
    let error = read(&[file(0, &[]), foreign]).unwrap_err();
    assert!(matches!(error, Error::NotALog { path: of, .. } if of == path(2)));
    let series = format::encode_file_header(FileKind::Series, ID, 2, 0).to_vec();
    assert_eq!(read(&[file(0, &[]), series]).unwrap().1.damaged, [2]);
}

#[test]
fn a_missing_file_is_named() {
    let disk = SimVfs::new(1);
    for number in [1, 2, 4] {
        disk.plant(&path(number), &placed(number, &file(0, &[])));
    }
    let missing = |numbers: &[u64], first: u64| {
        let error = replay(&disk, dir(), ID, numbers, first, &mut Taken::default()).unwrap_err();
        let Error::Missing { path } = error else { panic!("{error}") };
        path
    };
    assert_eq!(missing(&[1, 2, 4], 1), path(3));
    assert_eq!(missing(&[4], 3), path(3));
}

#[test]
fn a_record_that_does_not_follow_is_refused() {
    let error = read(&[file(0, &[record(place(0), 5, 1.0), record(place(1), 2, 2.0)])]).unwrap_err();
    let Error::Damaged { offset, reason, .. } = error else { panic!("{error}") };
    assert_eq!((offset, reason.as_str()), (place(1), "too low, though its checksum is right"));
}

#[test]
fn a_log_goes_on_with_a_copy_of_its_last_record_and_from_file_to_file() {
    let disk = SimVfs::new(1);
    let old = record(place(0), 1, 1.0);
    disk.plant(&path(1), &placed(1, &file(0, std::slice::from_ref(&old))));
    let mut taken = Taken::default();
    let replayed = replay(&disk, dir(), ID, &[1], 1, &mut taken).unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let position = taken.position();
    let mut log = Log::go_on(vfs, dir(), ID, 2, &replayed, position, START + 2 * RECORD_BYTES).unwrap();
    assert_eq!(disk.read(&path(2)).unwrap(), placed(2, &file(0, std::slice::from_ref(&old))));
    let mut append = |seq: u64, value: f64| {
        // The place is filled in by the log.
        let mut record = record(0, seq, value);
        log.append(&mut record, seq, 1, Position { next_seq: seq + 1, series: 1 }).unwrap().sealed
    };
    assert_eq!(append(2, 2.0), None);
    let sealed = append(3, 3.0).expect("the file is long enough");
    assert_eq!((sealed.number, sealed.end.next_seq, sealed.bytes), (2, 3, START + 2 * RECORD_BYTES));
    assert_eq!(append(4, 4.0), None);
    assert_eq!(
        disk.read(&path(3)).unwrap(),
        placed(3, &file(2, &[record(place(2), 3, 3.0), record(place(3), 4, 4.0)]))
    );
    disk.restart();
    let mut taken = Taken::default();
    replay(&disk, dir(), ID, &[1, 2, 3], 1, &mut taken).unwrap();
    assert_eq!(taken.values, [1.0, 2.0, 3.0, 4.0]);
}
