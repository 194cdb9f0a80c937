//! Segments as a whole, on disks that flip bits.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use slung_model::{SeriesId, Summary, TimeRange};

use super::format::{FOOTER_BYTES, HEADER_BYTES, Header, PAGE_CHUNKS_MAX, Page, RECORD_BYTES, Seal};
use super::*;
use crate::Error;
use crate::damage::{Damage, ReadError};
use crate::dump::{documented, hex};
use crate::sim::SimVfs;

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

#[test]
fn the_documented_bytes_are_a_segment() {
    let documented = documented(include_str!("../../../../docs/format/segment.md"));
    let at = 1_700_000_000_000_000;
    let chunks = vec![(0, vec![(at, 21.5), (at + 1_000_000, -0.5)]), (1, vec![(at, 7.0)])];
    let disk = SimVfs::new(1);
    let mut writer = SegmentWriter::create(&disk, path(), STORE, 7, 3).unwrap();
    writer.add(SeriesId(0), 2, &[at, at + 1_000_000], &[21.5, -0.5], Effort::Flush).unwrap();
    writer.add(SeriesId(1), 3, &[at], &[7.0], Effort::Flush).unwrap();
    let meta = writer.finish().unwrap();
    assert_eq!(hex(&disk.read(path()).unwrap()), hex(&documented));
    disk.plant(path(), &documented);
    let segment = open(&disk, &meta).unwrap();
    assert_eq!(read_all(&segment).unwrap(), bits(&chunks));
    assert_eq!(verify(&segment), []);
}

/// Several pages, chunks that go up to the limit, more than one write.
#[test]
fn a_large_segment_comes_back() {
    let disk = SimVfs::new(1);
    let mut random = 1_u64;
    let mut noise = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 11) as f64
    };
    let mut chunks: Chunks =
        (0..2 * PAGE_CHUNKS_MAX as u32 + 3).map(|series| (series, vec![(1, 2.0), (3, 4.0)])).collect();
    for start in 0..12 {
        let points = (start * 10_000..).zip(std::iter::repeat_with(&mut noise)).take(CHUNK_POINTS_MAX);
        chunks.push((1_000, points.collect()));
    }
    let meta = write(&disk, &chunks);
    assert_eq!((meta.chunks, meta.series), (271, 260));
    let segment = open(&disk, &meta).unwrap();
    assert_eq!(read_all(&segment).unwrap(), bits(&chunks));
    assert_eq!(verify(&segment), []);
}

#[test]
fn chunks_are_found_by_series_and_range() {
    let disk = SimVfs::new(1);
    // Series 0, 2, 4 and so on; from 1 to 9 chunks each, of 2 points, with a gap between any two.
    let chunks: Chunks = (0..100_u32)
        .flat_map(|index| {
            (0..i64::from(index % 9 + 1)).map(move |n| (index * 2, vec![(n * 10, 1.0), (n * 10 + 5, 2.0)]))
        })
        .collect();
    assert!(chunks.len() > 3 * PAGE_CHUNKS_MAX);
    let meta = write(&disk, &chunks);
    for cache_bytes in [0, 40 << 10, 1 << 20] {
        let cache = Arc::new(IndexCache::new(cache_bytes));
        let segment = Arc::new(Segment::open(&disk, path(), STORE, &meta, cache).unwrap());
        for series in 0..202 {
            for (start, end) in [(0, 0), (6, 9), (5, 10), (-9, -1), (31, 44), (86, 86), (i64::MIN, i64::MAX)] {
                let range = TimeRange { start, end };
                let wanted: Vec<i64> = chunks
                    .iter()
                    .filter(|(of, points)| *of == series && points[0].0 <= end && start <= points[1].0)
                    .map(|(_, points)| points[0].0)
                    .collect();
                let found = chunks_of(&segment, SeriesId(series), range);
                assert_eq!(found.iter().map(|chunk| chunk.summary.start()).collect::<Vec<_>>(), wanted);
                assert!(segment.may_contain(SeriesId(series), range) || wanted.is_empty());
            }
        }
        assert!(!segment.may_contain(SeriesId(300), TimeRange::ALL));
        assert!(!segment.may_contain(SeriesId(0), TimeRange { start: 200, end: 300 }));
    }
}

fn chunks_of(segment: &Arc<Segment>, series: SeriesId, range: TimeRange) -> Vec<ChunkMeta> {
    segment.chunks(series, range).flat_map(Result::unwrap).map(|chunk| chunk.meta().clone()).collect()
}

/// The second time nothing is read from the disk.
#[test]
fn index_pages_are_cached() {
    let disk = SimVfs::new(1);
    let segment = Arc::new(open(&disk, &write(&disk, &various())).unwrap());
    let calls = || {
        let before = disk.calls();
        chunks_of(&segment, SeriesId(4), TimeRange::ALL);
        disk.calls() - before
    };
    assert_eq!((calls(), calls()), (1, 0));
}

/// What a reader may see of a segment with damaged bytes: the points that were written, or an error, and a full check
/// that reports it.
fn assert_noticed(disk: &SimVfs, meta: &SegmentMeta, chunks: &Chunks, what: &str) {
    let segment = match open(disk, meta) {
        Ok(segment) => segment,
        Err(ReadError::Damaged(damage)) => {
            assert_eq!((damage.series, damage.range), (None, meta.range()), "{what}");
            return;
        }
        Err(other) => panic!("{what}: {other:?}"),
    };
    assert_ne!(verify(&segment), [], "{what}");
    let wanted = bits(chunks);
    let mut columns = Columns::default();
    for chunk in segment.scan().flatten() {
        if segment.read(&chunk, &mut columns).is_ok() {
            let points: Vec<_> =
                columns.timestamps.iter().copied().zip(columns.values.iter().map(|value| value.to_bits())).collect();
            assert!(wanted.contains(&(chunk.series.0, points)), "{what}");
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let disk = SimVfs::new(1);
    let meta = write(&disk, &various());
    let good = disk.read(path()).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        disk.plant(path(), &bad);
        assert_noticed(&disk, &meta, &various(), &format!("bit {bit}"));
    }
}

#[test]
fn every_other_length_is_noticed() {
    let disk = SimVfs::new(1);
    let meta = write(&disk, &various());
    let good = disk.read(path()).unwrap();
    for length in 0..good.len() {
        disk.plant(path(), &good[..length]);
        assert!(matches!(open(&disk, &meta), Err(ReadError::Damaged(_))), "{length}");
        // Even if the manifest said so.
        let short = SegmentMeta { bytes: length as u64, ..meta.clone() };
        assert!(matches!(open(&disk, &short), Err(ReadError::Damaged(_))), "{length}");
    }
    disk.plant(path(), &[&good[..], &[0]].concat());
    assert!(matches!(open(&disk, &meta), Err(ReadError::Damaged(_))));
}

#[test]
fn a_segment_that_the_manifest_does_not_mean_is_damage() {
    let disk = SimVfs::new(1);
    let meta = write(&disk, &various());
    let other = |change: fn(&mut SegmentMeta)| {
        let mut meta = meta.clone();
        change(&mut meta);
        open(&disk, &meta).map(|_| ())
    };
    for (change, what) in [
        ((|meta| meta.number += 1) as fn(&mut SegmentMeta), "the file is not the segment that the manifest names"),
        (|meta| meta.generation += 1, "the file is not the segment that the manifest names"),
        (|meta| meta.start += 1, "the footer is not what the manifest says"),
        (|meta| meta.end -= 1, "the footer is not what the manifest says"),
        (|meta| meta.points += 1, "the footer is not what the manifest says"),
        (|meta| meta.chunks += 1, "the footer is not what the manifest says"),
        (|meta| meta.series += 1, "the footer is not what the manifest says"),
        (|meta| meta.footer_crc += 1, "the footer is not what the manifest says"),
        (|meta| meta.bytes += 1, "the file is not as long as the manifest says"),
    ] {
        match other(change) {
            Err(ReadError::Damaged(damage)) => assert_eq!(damage.reason, what),
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// A disk that lost a write shows what stood there before, or what belongs elsewhere, each whole in itself.
#[test]
fn blocks_from_elsewhere_are_noticed() {
    let disk = SimVfs::new(1);
    // Few points, so that they are kept raw and payloads are equally long.
    let raw = |series, offset: f64| (series, (0..9).map(|i| (i * 7, f64::from(i as i32) + offset)).collect::<Vec<_>>());
    let chunks = [vec![raw(1, 0.5), raw(2, 0.25)], vec![raw(1, 0.75), raw(2, 0.125)]];
    let other = Path::new("d/seg-00000008");
    let meta = write(&disk, &chunks[0]);
    let other_meta = write_as(&disk, other, 8, &chunks[1], Effort::Flush);
    let good = disk.read(path()).unwrap();
    let foreign = disk.read(other).unwrap();
    assert_eq!(good.len(), foreign.len());
    let payload = 2 + 9 * 8;
    let pages = HEADER_BYTES + 2 * payload;
    let directory = good.len() - FOOTER_BYTES - RECORD_BYTES;
    let footer = good.len() - FOOTER_BYTES;
    for (from, to) in [
        (0, HEADER_BYTES),
        (HEADER_BYTES, HEADER_BYTES + payload),
        (HEADER_BYTES + payload, pages),
        (HEADER_BYTES, pages),
        (pages, directory),
        (HEADER_BYTES, directory),
        (directory, footer),
        (footer, good.len()),
        (directory, good.len()),
        (HEADER_BYTES, good.len()),
        (0, good.len()),
    ] {
        let mut bad = good.clone();
        bad[from..to].copy_from_slice(&foreign[from..to]);
        disk.plant(path(), &bad);
        assert_noticed(&disk, &meta, &chunks[0], &format!("bytes {from} to {to} of another segment"));
    }
    let mut bad = good.clone();
    bad[HEADER_BYTES..pages].rotate_left(payload);
    disk.plant(path(), &bad);
    assert_noticed(&disk, &meta, &chunks[0], "two chunks have changed places");

    disk.plant(path(), &foreign);
    assert!(open(&disk, &other_meta).is_ok(), "the file's name is not looked at");
    let cache = Arc::new(IndexCache::new(0));
    let elsewhere = Segment::open(&disk, path(), STORE + 1, &other_meta, cache);
    assert!(matches!(elsewhere, Err(ReadError::Damaged(_))), "a segment of another store");
}

#[test]
fn a_damaged_chunk_names_its_points_and_leaves_the_others() {
    let disk = SimVfs::new(1);
    let meta = write(&disk, &various());
    let segment = Arc::new(open(&disk, &meta).unwrap());
    let victim = chunks_of(&segment, SeriesId(4), TimeRange { start: 0, end: 0 }).remove(0);
    let mut bad = disk.read(path()).unwrap();
    bad[victim.offset as usize] ^= 1;
    disk.plant(path(), &bad);
    let segment = open(&disk, &meta).unwrap();
    let damage = Damage {
        path: path().into(),
        offset: victim.offset,
        reason: "the checksum of a chunk is wrong".into(),
        series: Some(SeriesId(4)),
        range: TimeRange { start: 0, end: i64::MAX },
    };
    assert_eq!(verify(&segment), [damage]);
    let mut columns = Columns::default();
    let readable = segment.scan().flatten().filter(|chunk| segment.read(chunk, &mut columns).is_ok());
    assert_eq!(readable.count(), 4);
}

#[test]
fn neither_a_missing_file_nor_a_failing_disk_is_damage() {
    let disk = SimVfs::new(1);
    let meta = write(&disk, &various());
    assert!(matches!(open(&SimVfs::new(2), &meta), Err(ReadError::Io(Error::Missing { .. }))));
    let before = disk.calls();
    open(&disk, &meta).unwrap();
    let calls = disk.calls() - before;
    for call in 0..calls {
        disk.fault_at(disk.calls() + call, crate::sim::Fault::Error(std::io::ErrorKind::TimedOut));
        assert!(matches!(open(&disk, &meta), Err(ReadError::Io(_))), "{call}");
    }
}

#[test]
fn a_newer_segment_is_told_from_a_broken_one() {
    let disk = SimVfs::new(1);
    let meta = write(&disk, &various());
    let mut bytes = disk.read(path()).unwrap();
    bytes[8] = 2;
    disk.plant(path(), &bytes);
    assert!(matches!(open(&disk, &meta), Err(ReadError::Damaged(_))), "its checksum says that this is no version");
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..40]);
    bytes[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    disk.plant(path(), &bytes);
    assert!(matches!(open(&disk, &meta), Err(ReadError::Newer { version: 2, .. })));
}

#[test]
fn a_writer_passes_on_what_the_disk_says() {
    let calls = {
        let disk = SimVfs::new(1);
        write(&disk, &various());
        disk.calls()
    };
    assert_eq!(calls, 3, "make, write, sync");
    for call in 0..calls {
        let disk = SimVfs::new(call);
        disk.fault_at(call, crate::sim::Fault::Error(std::io::ErrorKind::StorageFull));
        let written = SegmentWriter::create(&disk, path(), STORE, 7, 3).and_then(|mut writer| {
            writer.add(SeriesId(1), 1, &[1, 2], &[1.0, 2.0], Effort::Flush)?;
            writer.finish()
        });
        assert_eq!(written.unwrap_err().source.kind(), std::io::ErrorKind::StorageFull);
    }
}

#[test]
fn copied_chunks_are_those_of_before() {
    let disk = SimVfs::new(1);
    let segment = open(&disk, &write(&disk, &various())).unwrap();
    let copy = Path::new("d/seg-00000009");
    let mut writer = SegmentWriter::create(&disk, copy, STORE, 9, 3).unwrap();
    // Before them another one, so that they move.
    let added = (0, vec![(7, 1.0), (9, 2.0)]);
    writer.add(SeriesId(0), 9, &[7, 9], &[1.0, 2.0], Effort::Flush).unwrap();
    let mut payload = Vec::new();
    for chunk in segment.scan() {
        let chunk = chunk.unwrap();
        segment.payload(&chunk, &mut payload).unwrap();
        writer.copy(&chunk, &payload).unwrap();
    }
    let meta = writer.finish().unwrap();
    let copied = Segment::open(&disk, copy, STORE, &meta, Arc::new(IndexCache::new(0))).unwrap();
    assert_eq!(verify(&copied), []);
    assert_eq!(read_all(&copied).unwrap(), bits(&[vec![added], various()].concat()));
    let known = |segment: &Segment, skip| -> Vec<_> {
        let chunks = segment.scan().skip(skip).map(Result::unwrap);
        chunks.map(|chunk| (chunk.series, chunk.summary, chunk.last_seq, chunk.effort, chunk.bytes)).collect()
    };
    assert_eq!(known(&copied, 1), known(&segment, 0));
}

/// What can't be seen by checksums: a summary that was wrong when it was written. Counts, ends and bounds are right
/// here.
#[test]
fn a_wrong_summary_is_noticed_by_a_full_check() {
    for (values, others) in [
        // The sum.
        ([1.0, 2.0, 1.5, 3.0], [1.0, 2.5, 1.5, 3.0]),
        // Only the increase.
        ([1.0, 2.0, 1.5, 3.0], [1.0, 1.5, 2.0, 3.0]),
        // Only the deviation.
        ([-4.0, 0.0, 0.0, 4.0], [-4.0, -2.0, 2.0, 4.0]),
    ] {
        let disk = SimVfs::new(1);
        let timestamps = [0, 1, 2, 4];
        let chunks = vec![(1, timestamps.into_iter().zip(values).collect())];
        let segment = open(&disk, &write(&disk, &chunks)).unwrap();
        let chunk = segment.scan().next().unwrap().unwrap();
        let mut payload = Vec::new();
        segment.payload(&chunk, &mut payload).unwrap();
        let summary = Summary::of(&timestamps, &others).unwrap();
        let mut writer = SegmentWriter::create(&disk, path(), STORE, 7, 3).unwrap();
        writer.copy(&ChunkMeta { summary, ..chunk }, &payload).unwrap();
        let segment = open(&disk, &writer.finish().unwrap()).unwrap();
        let found = verify(&segment);
        assert_eq!(found.len(), 1, "{others:?}");
        assert_eq!(found[0].reason, "a chunk's points are not those of its summary");
    }
}

/// Queries read on several threads, a flush writes on its own.
#[test]
fn segments_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Segment>();
    shared::<IndexCache>();
    sent::<SegmentWriter>();
    sent::<Columns>();
}

/// Series in order, each with chunks in order; timestamps anywhere.
fn any_chunks() -> impl Strategy<Value = Chunks> {
    let value = prop_oneof![
        any::<f64>().prop_filter("finite", |value| value.is_finite()),
        (0..100_i32).prop_map(|value| f64::from(value) / 4.0),
        proptest::sample::select(vec![-0.0, f64::MIN, f64::MAX, 5e-324]),
    ];
    let time = prop_oneof![any::<i64>(), -1_000..1_000_i64, Just(i64::MIN), Just(i64::MAX)];
    let points = proptest::collection::btree_map(time, value, 1..80);
    let cuts = proptest::collection::vec(1..40_usize, 1..8);
    proptest::collection::btree_map(0..u32::MAX, (points, cuts), 1..5).prop_map(|series| {
        let mut chunks = Vec::new();
        for (series, (points, cuts)) in series {
            let mut points = points.into_iter().peekable();
            for cut in cuts.into_iter().cycle() {
                if points.peek().is_none() {
                    break;
                }
                chunks.push((series, points.by_ref().take(cut).collect()));
            }
        }
        chunks
    })
}

proptest! {
    #[test]
    fn any_points_come_back_bit_for_bit(chunks in any_chunks(), compaction: bool) {
        let disk = SimVfs::new(1);
        let effort = if compaction { Effort::Compaction } else { Effort::Flush };
        let meta = write_as(&disk, path(), 7, &chunks, effort);
        let segment = open(&disk, &meta).unwrap();
        prop_assert_eq!(read_all(&segment).unwrap(), bits(&chunks));
        prop_assert_eq!(verify(&segment), []);
    }

    /// Behind checksums that are right: the checks of the content must hold by themselves.
    #[test]
    fn arbitrary_index_bytes_never_panic(
        bytes in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(2), any::<u8>()], 0..400),
        at in 0..1_000_u64,
    ) {
        if let Some(header) = bytes.first_chunk::<HEADER_BYTES>() {
            let _ = Header::decode(header);
        }
        let _ = format::decode_directory(HEADER_BYTES as u64 + at, &bytes);
        let seal = Seal::new(STORE, 7);
        let chunk = ChunkMeta {
            series: SeriesId(1),
            summary: Summary::of(&[1, 2], &[1.0, 2.0]).unwrap(),
            last_seq: 1,
            effort: Effort::Flush,
            offset: HEADER_BYTES as u64,
            bytes: 10,
            crc: 0,
        };
        let mut page = Page::default();
        page.push(&chunk);
        let record = page.take_record(&seal, HEADER_BYTES as u64 + 10).unwrap();
        let _ = format::decode_page(&record, &bytes);
    }

    /// A page whose bytes are changed here and there, so that most of it makes sense.
    #[test]
    fn changed_index_bytes_never_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let disk = SimVfs::new(1);
        let meta = write(&disk, &various());
        let good = disk.read(path()).unwrap();
        let segment = open(&disk, &meta).unwrap();
        let footer_at = good.len() - FOOTER_BYTES;
        let directory_at = footer_at - RECORD_BYTES;
        let mut bad = good[directory_at - 500..].to_vec();
        for (at, byte) in changes {
            let at = at.index(bad.len());
            bad[at] = byte;
        }
        let (index, rest) = bad.split_at(500);
        let (directory, footer) = rest.split_at(RECORD_BYTES);
        let _ = format::decode_directory(directory_at as u64, directory);
        // Sealed again, so that the content is all that can be wrong.
        let seal = Seal::new(STORE, 7);
        let mut footer: [u8; FOOTER_BYTES] = footer.try_into().unwrap();
        let crc = seal.crc(footer_at as u64, &footer[..FOOTER_BYTES - 4]);
        footer[FOOTER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        let known = SegmentMeta { footer_crc: crc, ..meta };
        let _ = format::Footer::decode(&seal, footer_at as u64, &footer, &known);
        let record = segment.page_record(0);
        let page = &index[500 - record.bytes as usize..];
        if let Ok(chunks) = format::decode_page(record, page) {
            for chunk in chunks {
                let _ = segment.read(&chunk, &mut Columns::default());
            }
        }
    }
}
