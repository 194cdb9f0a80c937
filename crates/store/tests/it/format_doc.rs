//! The hex dumps in `docs/format/log.md` are a log and a file of definitions, byte for byte.

use std::fs;
use std::path::{Path, PathBuf};

use slung_model::{Point, SeriesId, SeriesKey, TimeRange};
use slung_store::Store;
use slung_store::sim::SimVfs;

use crate::common::{define, dir, log, open};

/// The number of the store, as the document says.
const STORE: u64 = 0x0102_0304_0506_0708;

/// The bytes of the blocks that are marked `hex`, of the log and of the definitions: an offset, bytes, and a remark behind
/// `|` on each line.
fn documented() -> [Vec<u8>; 2] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format/log.md");
    let text = fs::read_to_string(path).unwrap();
    let blocks: Vec<Vec<u8>> = text.split("```hex\n").skip(1).map(decode).collect();
    blocks.try_into().expect("there are two dumps")
}

fn decode(text: &str) -> Vec<u8> {
    let (block, _) = text.split_once("```").expect("it ends");
    let mut bytes = Vec::new();
    for line in block.lines().filter(|line| !line.is_empty()) {
        let (line, _) = line.split_once('|').unwrap_or((line, ""));
        let mut words = line.split_whitespace();
        let offset = usize::from_str_radix(words.next().expect("an offset"), 16).unwrap();
        assert_eq!(offset, bytes.len(), "offsets count up: {line}");
        bytes.extend(words.map(|word| u8::from_str_radix(word, 16).unwrap()));
    }
    bytes
}

/// A manifest that names no segment, with so much of a file of definitions. `docs/format/manifest.md` describes it.
fn manifest(log: u64, series_bytes: u64) -> Vec<u8> {
    let count = u32::from(series_bytes > 0);
    let number = 2 * u64::from(count);
    let mut bytes = b"SLUNGMAN".to_vec();
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&116u64.to_le_bytes());
    for word in [STORE, number + 1, 1, 0, log, 1, number, series_bytes, 604_800_000_000, i64::MIN.cast_unsigned()] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for word in [count, 0, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    let crc = crc32fast::hash(&[&bytes[..12], &bytes[16..]].concat());
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A new store, whose numbers are those of the document: all else follows from them.
fn begun(log_header: &[u8], definitions: &[u8]) -> SimVfs {
    let disk = SimVfs::new(1);
    disk.plant(&log(1), log_header);
    let number = u64::from_le_bytes(*log_header[16..].first_chunk().unwrap());
    disk.plant(&dir().join("manifest"), &manifest(number, definitions.len() as u64));
    if !definitions.is_empty() {
        disk.plant(&series(), definitions);
    }
    disk
}

fn series() -> PathBuf {
    dir().join("series-00000002")
}

/// What the document says is in it.
fn write(disk: &SimVfs) -> Store {
    let (store, _) = open(disk).unwrap();
    let series = define(&store, &SeriesKey::new("temp", ["sensor=1", "env=prod"]).unwrap());
    let at = 1_700_000_000_000_000;
    let seq = store
        .write(&[
            Point { series, timestamp: at, value: 21.5 },
            Point { series, timestamp: at + 1_000_000, value: -0.5 },
        ])
        .unwrap();
    store.wait_durable(seq).unwrap();
    store
}

#[test]
fn the_documented_bytes_are_read_as_documented() {
    let [log_bytes, definitions] = documented();
    for (disk, points) in
        [(begun(&log_bytes, &[]), 2), (begun(&log_bytes, &definitions), 2), (begun(&log_bytes[..32], &definitions), 0)]
    {
        let (store, recovery) = open(&disk).unwrap();
        assert_eq!((recovery.series, recovery.points, recovery.trimmed, recovery.damage), (1, points, None, vec![]));
        assert_eq!(store.key(SeriesId(0)).unwrap().to_string(), "temp{env=prod,sensor=1}");
        let found: Vec<Point> = store.snapshot(&[SeriesId(0)], TimeRange::ALL).scan().map(Result::unwrap).collect();
        let at = 1_700_000_000_000_000;
        let expected = [(at, 21.5), (at + 1_000_000, -0.5)];
        assert_eq!(found.iter().map(|p| (p.timestamp, p.value)).collect::<Vec<_>>(), expected[..found.len()]);
        assert_eq!(found.len() as u64, points);
    }
}

#[test]
fn the_documented_bytes_are_what_is_written() {
    let [log_bytes, definitions] = documented();
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    let disk = begun(&log_bytes[..32], &[]);
    write(&disk).close().unwrap();
    assert_eq!(hex(as_first(disk.read(&log(2)).unwrap(), 2)), hex(log_bytes.clone()));
    let disk = begun(&log_bytes[..32], &[]);
    write(&disk).flush().unwrap();
    assert_eq!(hex(disk.read(&series()).unwrap()), hex(definitions));
}

/// A file with that number, as it would be if it were the first one, which is documented: its header vouches for the number.
fn as_first(mut file: Vec<u8>, number: u64) -> Vec<u8> {
    let header_crc =
        |number: u64| crc32fast::hash(&[&file[..12], &file[16..32], &number.to_le_bytes()].concat()).to_le_bytes();
    assert_eq!(file[12..16], header_crc(number));
    let first = header_crc(1);
    file[12..16].copy_from_slice(&first);
    file
}
