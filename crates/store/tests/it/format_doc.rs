//! The hex dump in `docs/format/log.md` is a log, byte for byte.

use std::fs;
use std::path::Path;

use slung_model::{Point, SeriesId, SeriesKey, TimeRange};
use slung_store::sim::SimVfs;

use crate::common::{define, log, open};

/// The bytes of the block that is marked `hex`: an offset, bytes, and a remark behind `|` on each line.
fn documented() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format/log.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, block) = text.split_once("```hex\n").expect("there is a dump");
    let (block, _) = block.split_once("```").expect("it ends");
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

/// What the document says is in it.
fn write(disk: &SimVfs) {
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
    store.close().unwrap();
}

#[test]
fn the_documented_bytes_are_read_as_documented() {
    let disk = SimVfs::new(1);
    disk.plant(log(), &documented());
    let (store, recovery) = open(&disk).unwrap();
    assert_eq!((recovery.series, recovery.points, recovery.trimmed), (1, 2, None));
    assert_eq!(store.key(SeriesId(0)).unwrap().to_string(), "temp{env=prod,sensor=1}");
    let points: Vec<_> = store.snapshot(&[SeriesId(0)], TimeRange::ALL).points().collect();
    let at = 1_700_000_000_000_000;
    assert_eq!(points.iter().map(|p| (p.timestamp, p.value)).collect::<Vec<_>>(), [(at, 21.5), (at + 1_000_000, -0.5)]);
}

#[test]
fn the_documented_bytes_are_what_is_written() {
    let documented = documented();
    let disk = SimVfs::new(1);
    // The header has the number that was drawn for this log; all else follows from it.
    disk.plant(log(), &documented[..32]);
    write(&disk);
    let written = disk.read(log()).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    assert_eq!(hex(&written), hex(&documented));
}
