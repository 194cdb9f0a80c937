//! Segments as a whole, on disks that flip bits.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use slung_model::{SeriesId, TimeRange};

use super::*;
use crate::damage::{Damage, ReadError};
use crate::sim::SimVfs;
use crate::vfs::Vfs;

const STORE: u64 = 0x1122_3344_5566_7788;

fn path() -> &'static Path {
    Path::new("d/seg-00000007")
}

/// Chunks by series, each of some points.
type Chunks = Vec<(u32, Vec<(i64, f64)>)>;
/// The same with the values' bits.
type Bits = Vec<(u32, Vec<(i64, u64)>)>;

fn write_as(disk: &SimVfs, path: &Path, number: u64, chunks: &Chunks, effort: Effort) -> SegmentMeta {
    let mut writer = SegmentWriter::create(disk, path, STORE, number, 3).unwrap();
    for (index, (series, points)) in chunks.iter().enumerate() {
        let (timestamps, values): (Vec<i64>, Vec<f64>) = points.iter().copied().unzip();
        writer.add(SeriesId(*series), index as u64 + 1, &timestamps, &values, effort).unwrap();
    }
    writer.finish().unwrap()
}

fn write(disk: &SimVfs, chunks: &Chunks) -> SegmentMeta {
    write_as(disk, path(), 7, chunks, Effort::Flush)
}

fn open(disk: &SimVfs, meta: &SegmentMeta) -> Result<Segment, ReadError> {
    Segment::open(disk, path(), STORE, meta, Arc::new(IndexCache::new(1 << 20)))
}

/// All chunks, each with its points; the order of writes as its number.
fn read_all(segment: &Segment) -> Result<Bits, ReadError> {
    let mut columns = Columns::default();
    let read = |chunk: Result<ChunkMeta, ReadError>| {
        let chunk = chunk?;
        segment.read(&chunk, &mut columns)?;
        let points = columns.timestamps.iter().copied().zip(columns.values.iter().map(|value| value.to_bits()));
        Ok((chunk.series.0, points.collect()))
    };
    segment.scan().map(read).collect()
}

fn bits(chunks: &Chunks) -> Bits {
    let bits = |points: &Vec<(i64, f64)>| points.iter().map(|(at, value)| (*at, value.to_bits())).collect();
    chunks.iter().map(|(series, points)| (*series, bits(points))).collect()
}

/// Everything that a full check finds.
fn verify(segment: &Segment) -> Vec<Damage> {
    let mut found = Vec::new();
    segment.verify(&mut Columns::default(), |damage| found.push(damage)).unwrap();
    found
}

/// One of each kind of column, in three series.
fn various() -> Chunks {
    let noisy = |n: i64| (0..n).map(|i| (i * 1000 + i * i % 7, ((i * 7919) % 1009) as f64 / 8.0)).collect::<Vec<_>>();
    vec![
        (1, vec![(5, -0.0)]),
        (1, noisy(40)[1..].to_vec()),
        (4, (0..30).map(|i| (i64::MIN + i, 1.5)).collect()),
        (4, vec![(0, 5e-324), (1, f64::MAX), (i64::MAX, f64::MIN)]),
        (u32::MAX, vec![(i64::MIN, 1.0), (i64::MAX, 2.0)]),
    ]
}

#[test]
fn what_is_written_comes_back_bit_for_bit() {
    for effort in [Effort::Flush, Effort::Compaction] {
        let disk = SimVfs::new(1);
        let meta = write_as(&disk, path(), 7, &various(), effort);
        assert_eq!((meta.points, meta.chunks, meta.series, meta.generation), (75, 5, 3, 3));
        assert_eq!((meta.start, meta.end, meta.bytes), (i64::MIN, i64::MAX, disk.read(path()).unwrap().len() as u64));
        let segment = open(&disk, &meta).unwrap();
        assert_eq!(read_all(&segment).unwrap(), bits(&various()));
        assert_eq!(verify(&segment), []);
    }
}
