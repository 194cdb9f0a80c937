//! The manifest: the one truth about which files of a store live. It is replaced as a whole, at once or not at all.
//! `docs/format/manifest.md` describes its bytes.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::Path;

use slung_model::{SeriesId, TimeRange};

use crate::damage::{Damage, ReadError};
use crate::error::Failure;
use crate::fields::Fields;
use crate::format::{BadHeader, Invalid};
use crate::segment::SegmentMeta;
use crate::vfs::Vfs;

/// The format that this version writes, and the only one that there was.
const VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"SLUNGMAN";
const NAME: &str = "manifest";
/// The manifest while it is made: under its own name it is always whole.
const NEW_NAME: &str = "manifest.new";
/// What stands before the segments.
const HEAD_BYTES: usize = 116;
const SEGMENT_BYTES: usize = 64;
/// Room for a million segments. A file that claims to be longer is not read into memory.
const BYTES_MAX: u64 = 64 << 20;
/// Of a file's name or a reason; what is longer is cut off when it is written.
const TEXT_BYTES_MAX: usize = 1024;

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The store's number, drawn at random when it is made; every checksum in its segments begins with it.
    pub(crate) store: u64,
    /// The number of the next segment or file of series: all that were ever given are below.
    pub(crate) next_number: u64,
    /// The generation of the next flush: all that were ever given are below.
    pub(crate) next_generation: u64,
    /// Points up to this number, in the order of writes, are in segments.
    pub(crate) flushed_through: u64,
    /// The log's number.
    pub(crate) log: u64,
    /// The number of the first log file that is still needed.
    pub(crate) log_first: u64,
    pub(crate) series: SeriesFile,
    /// How long a partition of time is, microseconds.
    pub(crate) partition_micros: u64,
    /// Points before this time have been given up.
    pub(crate) floor: i64,
    /// The segments that live, in any order.
    pub(crate) segments: Vec<SegmentMeta>,
    /// What was damaged and moved aside.
    pub(crate) lost: Vec<Lost>,
}

/// The file with the definitions of series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeriesFile {
    pub(crate) number: u64,
    /// How much of it counts.
    pub(crate) bytes: u64,
    /// How many series that defines.
    pub(crate) count: u32,
}

/// Points that are missing, because a file that had them is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    /// The file's name, without a directory.
    pub(crate) file: String,
    pub(crate) reason: String,
    /// Whose points; `None` where it may be those of any series.
    pub(crate) series: Option<SeriesId>,
    pub(crate) range: TimeRange,
}

impl Manifest {
    /// Of a store with nothing in it.
    pub(crate) fn new(store: u64, log: u64, partition_micros: u64) -> Self {
        Self {
            store,
            next_number: 1,
            next_generation: 1,
            flushed_through: 0,
            log,
            log_first: 1,
            series: SeriesFile { number: 0, bytes: 0, count: 0 },
            partition_micros,
            floor: i64::MIN,
            segments: Vec::new(),
            lost: Vec::new(),
        }
    }

    /// Reads the manifest of a directory; `None` where there is none.
    pub(crate) fn load(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Self>, ReadError> {
        let path = &dir.join(NAME);
        let failed = |doing| ReadError::io(doing, path, 0, None, TimeRange::ALL);
        let damaged = |reason: &str| {
            let (path, reason) = (path.clone(), reason.into());
            ReadError::Damaged(Damage { path, offset: 0, reason, series: None, range: TimeRange::ALL })
        };
        let file = match vfs.open_read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed("opening"))?,
        };
        let size = file.size().map_err(failed("asking for the size of"))?;
        let bytes = usize::try_from(size).ok().filter(|_| size <= BYTES_MAX);
        let mut bytes = vec![0; bytes.ok_or_else(|| damaged("the file is longer than any manifest"))?];
        file.read_at(0, &mut bytes).map_err(failed("reading"))?;
        match Self::decode(&bytes) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(BadHeader::Newer(version)) => Err(ReadError::Newer { path: path.clone(), version }),
            Err(BadHeader::Invalid(Invalid(reason))) => Err(damaged(reason)),
        }
    }

    /// Puts this manifest in the place of the one there is, durably. After an error it is open which of the two a start
    /// would find.
    pub(crate) fn store(&self, vfs: &dyn Vfs, dir: &Path) -> Result<(), Failure> {
        self.write(vfs, dir)?;
        Self::put_in_place(vfs, dir)
    }

    /// Writes the file that [`Manifest::put_in_place`] makes the manifest. After an error the one there is counts.
    pub(crate) fn write(&self, vfs: &dyn Vfs, dir: &Path) -> Result<(), Failure> {
        let path = &dir.join(NEW_NAME);
        let failure = |doing| move |source: io::Error| Failure { doing, path: path.clone(), offset: 0, source };
        let bytes = self.encode();
        if bytes.len() as u64 > BYTES_MAX {
            return Err(failure("writing")(ErrorKind::FileTooLarge.into()));
        }
        let file = vfs.create(path).map_err(failure("making"))?;
        let written = file.write_at(0, &bytes).map_err(failure("writing"));
        let synced = written.and_then(|()| file.sync().map_err(failure("syncing")));
        if synced.is_err() {
            // Where the disk is full this may be what others need.
            let _ = vfs.remove(path);
        }
        synced
    }

    /// Makes what was written last the manifest. After an error it is open which of the two a start would find.
    pub(crate) fn put_in_place(vfs: &dyn Vfs, dir: &Path) -> Result<(), Failure> {
        let path = &dir.join(NEW_NAME);
        let failure = |source| Failure { doing: "renaming", path: path.clone(), offset: 0, source };
        vfs.rename(path, &dir.join(NAME)).map_err(failure)?;
        vfs.sync_dir(dir).map_err(|source| Failure { doing: "syncing", path: dir.into(), offset: 0, source })
    }

    /// The whole file.
    ///
    /// # Panics
    /// If there are u32::MAX segments.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.segments.len() * SEGMENT_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        // The checksum and the file's length.
        out.extend_from_slice(&[0; 12]);
        for number in [
            self.store,
            self.next_number,
            self.next_generation,
            self.flushed_through,
            self.log,
            self.log_first,
            self.series.number,
            self.series.bytes,
            self.partition_micros,
            self.floor.cast_unsigned(),
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let count = |items: usize| u32::try_from(items).expect("the memory holds fewer");
        for number in [self.series.count, count(self.segments.len()), count(self.lost.len())] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        self.segments.iter().for_each(|segment| encode_segment(segment, &mut out));
        self.lost.iter().for_each(|lost| lost.encode(&mut out));
        let bytes = out.len() as u64;
        out[16..24].copy_from_slice(&bytes.to_le_bytes());
        let crc = crc(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a whole file, and believes nothing of it before it was checked.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let mut fields = Fields(bytes);
        if fields.bytes(8)? != MAGIC {
            return Err(Invalid("the file does not begin as a manifest does").into());
        }
        let version = fields.u32()?;
        if fields.u32()? != crc(bytes) {
            return Err(Invalid("the checksum is wrong").into());
        }
        match version {
            VERSION => Ok(Self::decode_sealed(bytes.len(), fields)?),
            newer if newer > VERSION => Err(BadHeader::Newer(newer)),
            _ => Err(Invalid("the format version was never used").into()),
        }
    }

    /// What follows the checksum.
    fn decode_sealed(file_bytes: usize, mut fields: Fields<'_>) -> Result<Self, Invalid> {
        if fields.u64()? != file_bytes as u64 {
            return Err(Invalid("the file is not as long as it says"));
        }
        let (store, next_number, next_generation) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (flushed_through, log, log_first) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (number, bytes, partition_micros) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let floor = fields.i64()?;
        let series = SeriesFile { number, bytes, count: fields.u32()? };
        let (segments, lost) = (fields.u32()?, fields.u32()?);
        let segments = (0..segments).map(|_| decode_segment(&mut fields)).collect::<Result<Vec<_>, _>>()?;
        let lost = (0..lost).map(|_| Lost::decode(&mut fields)).collect::<Result<Vec<_>, _>>()?;
        fields.end()?;
        if partition_micros == 0 {
            return Err(Invalid("a partition has no length"));
        }
        let mut numbers = BTreeSet::new();
        if !segments.iter().all(|segment| numbers.insert(segment.number)) {
            return Err(Invalid("a segment is there twice"));
        }
        let given = |segment: &SegmentMeta| segment.number < next_number && segment.generation < next_generation;
        if !segments.iter().all(given) {
            return Err(Invalid("a segment has a number that was not given yet"));
        }
        Ok(Self {
            store,
            next_number,
            next_generation,
            flushed_through,
            log,
            log_first,
            series,
            partition_micros,
            floor,
            segments,
            lost,
        })
    }
}

/// Of all but itself.
fn crc(file: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(file.get(..12).unwrap_or_default());
    hasher.update(file.get(16..).unwrap_or_default());
    hasher.finalize()
}

fn encode_segment(segment: &SegmentMeta, out: &mut Vec<u8>) {
    out.extend_from_slice(&segment.number.to_le_bytes());
    out.extend_from_slice(&segment.generation.to_le_bytes());
    out.extend_from_slice(&segment.start.to_le_bytes());
    out.extend_from_slice(&segment.end.to_le_bytes());
    out.extend_from_slice(&segment.points.to_le_bytes());
    out.extend_from_slice(&segment.chunks.to_le_bytes());
    out.extend_from_slice(&segment.bytes.to_le_bytes());
    out.extend_from_slice(&segment.series.to_le_bytes());
    out.extend_from_slice(&segment.footer_crc.to_le_bytes());
}

fn decode_segment(fields: &mut Fields<'_>) -> Result<SegmentMeta, Invalid> {
    let (number, generation, start, end) = (fields.u64()?, fields.u64()?, fields.i64()?, fields.i64()?);
    let (points, chunks, bytes) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let (series, footer_crc) = (fields.u32()?, fields.u32()?);
    if start > end {
        return Err(Invalid("a segment ends before it begins"));
    }
    if !(1 <= series && u64::from(series) <= chunks && chunks <= points) {
        return Err(Invalid("a segment has fewer points than chunks, or fewer chunks than series"));
    }
    Ok(SegmentMeta { number, generation, start, end, points, chunks, series, bytes, footer_crc })
}

impl Lost {
    fn encode(&self, out: &mut Vec<u8>) {
        for text in [&self.file, &self.reason] {
            let text = &text.as_bytes()[..text.floor_char_boundary(TEXT_BYTES_MAX)];
            out.extend_from_slice(&u16::try_from(text.len()).expect("it was cut").to_le_bytes());
            out.extend_from_slice(text);
        }
        out.push(u8::from(self.series.is_some()));
        out.extend_from_slice(&self.series.map_or(0, |series| series.0).to_le_bytes());
        out.extend_from_slice(&self.range.start.to_le_bytes());
        out.extend_from_slice(&self.range.end.to_le_bytes());
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        let mut text = || {
            let bytes = usize::from(fields.u16()?);
            let text = std::str::from_utf8(fields.bytes(bytes)?).map_err(|_| Invalid("a text is not UTF-8"))?;
            if bytes > TEXT_BYTES_MAX { Err(Invalid("a text is longer than any")) } else { Ok(text.to_owned()) }
        };
        let (file, reason) = (text()?, text()?);
        // It becomes part of a path.
        if Path::new(&file).file_name().is_none_or(|name| name != file.as_str()) {
            return Err(Invalid("a lost file's name is none"));
        }
        let series = match (fields.u8()?, fields.u32()?) {
            (0, 0) => None,
            (1, series) => Some(SeriesId(series)),
            _ => return Err(Invalid("it is open whose points are lost")),
        };
        let range = TimeRange { start: fields.i64()?, end: fields.i64()? };
        if range.start > range.end {
            return Err(Invalid("what is lost ends before it begins"));
        }
        Ok(Self { file, reason, series, range })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dump::{documented, hex};
    use crate::sim::{Fault, SimVfs};

    fn dir() -> &'static Path {
        Path::new("d")
    }

    /// What `docs/format/manifest.md` shows.
    fn manifest() -> Manifest {
        let segment = SegmentMeta {
            number: 7,
            generation: 3,
            start: 1_700_000_000_000_000,
            end: 1_700_000_001_000_000,
            points: 3,
            chunks: 2,
            series: 2,
            bytes: 300,
            footer_crc: 0xd0fa_3746,
        };
        let lost = Lost {
            file: "seg-00000002".into(),
            reason: "the file is missing".into(),
            series: None,
            range: TimeRange { start: -5, end: 9 },
        };
        Manifest {
            store: 0x1122_3344_5566_7788,
            floor: i64::MIN,
            next_number: 8,
            next_generation: 4,
            flushed_through: 3,
            log: 0x99aa_bbcc_ddee_ff00,
            log_first: 2,
            series: SeriesFile { number: 1, bytes: 90, count: 2 },
            partition_micros: 604_800_000_000,
            segments: vec![segment],
            lost: vec![lost],
        }
    }

    #[test]
    fn the_documented_bytes_are_a_manifest() {
        let documented = documented(include_str!("../../../docs/format/manifest.md"));
        assert_eq!(hex(&manifest().encode()), hex(&documented));
        assert_eq!(Manifest::decode(&documented), Ok(manifest()));
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_noticed() {
        let good = manifest().encode();
        let refused = |bytes: &[u8]| matches!(Manifest::decode(bytes), Err(BadHeader::Invalid(_)));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&bad), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(refused(&good[..length]), "{length}");
        }
        assert!(refused(&[&good[..], &[0]].concat()));
    }

    /// The checksum and the length put right.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let length = bytes.len() as u64;
        bytes[16..24].copy_from_slice(&length.to_le_bytes());
        let crc = crc(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn a_newer_manifest_is_told_from_a_broken_one() {
        let mut newer = manifest().encode();
        newer[8] = 2;
        assert!(matches!(Manifest::decode(&newer), Err(BadHeader::Invalid(_))));
        assert_eq!(Manifest::decode(&sealed(newer.clone())), Err(BadHeader::Newer(2)));
        let disk = SimVfs::new(1);
        disk.plant(&dir().join(NAME), &sealed(newer));
        assert!(matches!(Manifest::load(&disk, dir()), Err(ReadError::Newer { version: 2, .. })));
    }

    #[test]
    fn a_manifest_that_breaks_a_rule_is_refused() {
        let changed = |change: fn(&mut Manifest)| {
            let mut manifest = manifest();
            change(&mut manifest);
            Manifest::decode(&manifest.encode())
        };
        let again = |manifest: &mut Manifest| manifest.segments.push(manifest.segments[0].clone());
        for (found, reason) in [
            (changed(|manifest| manifest.partition_micros = 0), "a partition has no length"),
            (changed(again), "a segment is there twice"),
            (changed(|manifest| manifest.next_number = 7), "a segment has a number that was not given yet"),
            (changed(|manifest| manifest.next_generation = 3), "a segment has a number that was not given yet"),
            (changed(|manifest| manifest.segments[0].end = 0), "a segment ends before it begins"),
            (
                changed(|manifest| manifest.segments[0].points = 1),
                "a segment has fewer points than chunks, or fewer chunks than series",
            ),
            (changed(|manifest| manifest.lost[0].file = "../seg".into()), "a lost file's name is none"),
            (changed(|manifest| manifest.lost[0].range.end = -6), "what is lost ends before it begins"),
        ] {
            assert_eq!(found, Err(BadHeader::Invalid(Invalid(reason))));
        }
        // Counts that the file is too short for take no memory.
        for at in [108, 112] {
            let mut bytes = manifest().encode();
            bytes[at..at + 4].fill(0xff);
            assert!(matches!(Manifest::decode(&sealed(bytes)), Err(BadHeader::Invalid(_))));
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let mut long = manifest();
        long.lost[0].reason = "ä".repeat(TEXT_BYTES_MAX);
        let mut cut = long.clone();
        cut.lost[0].reason = "ä".repeat(TEXT_BYTES_MAX / 2);
        assert_eq!(Manifest::decode(&long.encode()), Ok(cut));
    }

    /// Whatever call fails, and if the machine stops there: a start finds the manifest of before or the new one.
    #[test]
    fn a_manifest_is_replaced_as_a_whole() {
        let (before, after) = (manifest(), Manifest { flushed_through: 2_000, segments: vec![], ..manifest() });
        let calls = {
            let disk = SimVfs::new(1);
            before.store(&disk, dir()).unwrap();
            disk.calls()
        };
        let mut found = [0, 0];
        for seed in 0..calls * 20 {
            let disk = SimVfs::new(seed);
            assert_eq!(Manifest::load(&disk, dir()).unwrap(), None);
            before.store(&disk, dir()).unwrap();
            let fault = if seed % 2 == 0 { Fault::Stop } else { Fault::Error(ErrorKind::StorageFull) };
            disk.fault_at(disk.calls() + seed / 2 % calls, fault);
            after.store(&disk, dir()).unwrap_err();
            disk.restart();
            let loaded = Manifest::load(&disk, dir()).unwrap().unwrap();
            found[usize::from(loaded == after)] += 1;
            assert!(loaded == before || loaded == after, "{loaded:?}");
            after.store(&disk, dir()).unwrap();
            disk.restart();
            assert_eq!(Manifest::load(&disk, dir()).unwrap(), Some(after.clone()));
        }
        assert!(found[0] > 0 && found[1] > 0, "{found:?}");
    }

    prop_compose! {
        fn any_segment()(
            ends: (i64, i64), generation in 0..u64::MAX,
            series in 1..u32::MAX, more: (u32, u32), bytes: u64, footer_crc: u32,
        ) -> SegmentMeta {
            let chunks = u64::from(series) + u64::from(more.0);
            let points = chunks + u64::from(more.1);
            let (start, end) = (ends.0.min(ends.1), ends.0.max(ends.1));
            SegmentMeta { number: 0, generation, start, end, points, chunks, series, bytes, footer_crc }
        }
    }

    prop_compose! {
        fn any_lost()(
            file in "[a-z0-9 ]{1,20}", reason: String, series: Option<u32>, ends: (i64, i64),
        ) -> Lost {
            Lost { file, reason, series: series.map(SeriesId), range: TimeRange::between(ends.0, ends.1) }
        }
    }

    prop_compose! {
        fn any_manifest()(
            numbers: [u64; 6], count: u32, partition_micros in 1..u64::MAX,
            mut segments in proptest::collection::vec(any_segment(), 0..9),
            lost in proptest::collection::vec(any_lost(), 0..5),
        ) -> Manifest {
            let [store, flushed_through, log, log_first, number, bytes] = numbers;
            for (number, segment) in (0..).zip(&mut segments) {
                segment.number = number;
            }
            let series = SeriesFile { number, bytes, count };
            let of = manifest();
            let (next_number, next_generation) = (9, u64::MAX);
            let of = Manifest { next_number, next_generation, partition_micros, segments, lost, ..of };
            Manifest { store, flushed_through, log, log_first, series, floor: bytes.cast_signed(), ..of }
        }
    }

    proptest! {
        #[test]
        fn any_manifest_comes_back(manifest in any_manifest()) {
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest.clone()));
            let disk = SimVfs::new(1);
            manifest.store(&disk, dir()).unwrap();
            disk.restart();
            prop_assert_eq!(Manifest::load(&disk, dir()).unwrap(), Some(manifest));
        }

        /// Behind a checksum that is right: the checks of the content must hold by themselves.
        #[test]
        fn changed_bytes_never_panic(
            manifest in any_manifest(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            end in proptest::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = manifest.encode();
            for (at, byte) in changes {
                let at = 24 + at.index(bytes.len() - 24);
                bytes[at] = byte;
            }
            if let Some(end) = end {
                bytes.truncate(24 + end.index(bytes.len() - 24));
            }
            // What passes is what it says, in its one form.
            if let Ok(manifest) = Manifest::decode(&sealed(bytes.clone())) {
                prop_assert_eq!(manifest.encode(), sealed(bytes));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Manifest::decode(&bytes);
            let head = &manifest().encode()[..24];
            let _ = Manifest::decode(&sealed([head, &bytes[..]].concat()));
        }
    }
}
