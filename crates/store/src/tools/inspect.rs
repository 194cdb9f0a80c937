//! What is in a directory: segments, partitions, series, the log, and what was kept aside.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slung_model::{SeriesId, SeriesKey, TimeRange};

use super::settled;
use crate::damage::ReadError;
use crate::log;
use crate::recover::{Recovered, recover};
use crate::segment::SegmentMeta;
use crate::vfs::Vfs;
use crate::{Damage, Error, Options, QUARANTINE, Trimmed, segment_name};

/// How many of the largest series are named.
const LARGEST_MAX: usize = 10;

/// What [`inspect`] has found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Inspection {
    /// The directory.
    pub dir: PathBuf,
    /// How many series are known.
    pub series: u64,
    /// How many points there are, in segments and in the log. Of several with one series and timestamp all count until they
    /// are merged.
    pub points: u64,
    /// Points that are in the log and in no segment yet.
    pub log_points: u64,
    /// The files of the log that are still needed, oldest first.
    pub log_files: Vec<FileSize>,
    /// The segments, by rising generation.
    pub segments: Vec<SegmentInfo>,
    /// The segments by partition, by rising time; those that span several partitions come first, as one group.
    pub partitions: Vec<PartitionInfo>,
    /// How long a partition is, microseconds, as the store was made with.
    pub partition_micros: u64,
    /// Points before this time have been given up by retention; `None` where none were.
    pub given_up_before: Option<i64>,
    /// The series with the most points, ten at most, largest first.
    pub largest: Vec<SeriesSize>,
    /// The length of the file with the definitions of series, as far as it counts, bytes.
    pub series_bytes: u64,
    /// The length of the manifest, bytes.
    pub manifest_bytes: u64,
    /// What a crash left torn at the log's end; beside a store that writes, the record that was just being written.
    pub trimmed: Option<Trimmed>,
    /// What is missing or damaged, as far as that shows without reading the points.
    pub damage: Vec<Damage>,
    /// The damaged files that were kept aside.
    pub quarantine: Vec<FileSize>,
}

/// A file and its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSize {
    /// Without a directory.
    pub name: String,
    /// Its length, bytes.
    pub bytes: u64,
}

/// One segment, as the manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// The file, without a directory.
    pub file: String,
    /// The number that names it; never given twice.
    pub number: u64,
    /// Of two points with the same series and timestamp, that of the higher generation counts.
    pub generation: u64,
    /// From its earliest point to its latest one.
    pub range: TimeRange,
    /// How many series have points in it.
    pub series: u64,
    /// Its points.
    pub points: u64,
    /// Its chunks, of up to 8,192 points of one series each.
    pub chunks: u64,
    /// The file's length, bytes.
    pub bytes: u64,
}

/// The segments of one partition of time together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// What the partition covers; `None` for the segments that span several.
    pub range: Option<TimeRange>,
    /// How many segments.
    pub segments: u64,
    /// Their points.
    pub points: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A series and how many points it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesSize {
    /// The series.
    pub key: Arc<SeriesKey>,
    /// Its points.
    pub points: u64,
}

impl Inspection {
    /// The length of all segments, bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The length of the log, bytes.
    pub fn log_bytes(&self) -> u64 {
        self.log_files.iter().map(|file| file.bytes).sum()
    }
}

/// Says what is in a directory, also beside a store that has it open. It reads the manifest, the definitions of series, the
/// index of each segment and the log, whose points it holds in memory meanwhile; not the points in segments: for that there
/// is [`super::verify`].
///
/// ```
/// use std::path::Path;
/// use std::sync::Arc;
///
/// use slung_model::SystemClock;
/// use slung_store::sim::SimVfs;
/// use slung_store::{Options, Store, tools};
///
/// let vfs = Arc::new(SimVfs::new(1));
/// let (store, _) = Store::open(vfs.clone(), Arc::new(SystemClock), Path::new("data"), Options::default())?;
/// let found = tools::inspect(vfs, Path::new("data"))?;
/// assert_eq!((found.series, found.points), (0, 0));
/// # store.close()?;
/// # Ok::<(), slung_store::Error>(())
/// ```
///
/// # Errors
/// As [`crate::Store::open_read_only`].
pub fn inspect(vfs: Arc<dyn Vfs>, dir: &Path) -> Result<Inspection, Error> {
    let recovered = settled(|| recover(Arc::clone(&vfs), dir, &Options::default(), true))?;
    let Recovered { disk, catalogue, memory, recovery, replayed, .. } = recovered;
    let manifest = disk.manifest();
    let mut damage = recovery.damage;
    let mut sizes: BTreeMap<SeriesId, u64> = BTreeMap::new();
    for (series, blocks) in memory.series() {
        sizes.insert(series, blocks.iter().map(|block| block.columns().timestamps.len() as u64).sum());
    }
    let version = disk.version();
    for chunk in version.segments().iter().flat_map(|segment| segment.scan()) {
        match chunk {
            Ok(chunk) => *sizes.entry(chunk.series).or_default() += chunk.summary.count(),
            Err(ReadError::Damaged(found)) => damage.push(found),
            Err(error) => return Err(error.into()),
        }
    }
    let mut largest: Vec<SeriesSize> = sizes
        .into_iter()
        .filter_map(|(id, points)| Some(SeriesSize { key: Arc::clone(catalogue.key(id)?), points }))
        .collect();
    largest.sort_by_key(|size| std::cmp::Reverse(size.points));
    largest.truncate(LARGEST_MAX);
    let metas = || version.segments().iter().map(|segment| segment.meta());
    let log_file = |sealed: &log::Sealed| FileSize { name: log::file_name(sealed.number), bytes: sealed.bytes };
    Ok(Inspection {
        dir: dir.into(),
        series: catalogue.len() as u64,
        points: recovery.points,
        log_points: memory.points(),
        log_files: replayed.sealed.iter().map(log_file).collect(),
        segments: metas().map(segment_info).collect(),
        partitions: partitions(metas(), manifest.partition_micros),
        partition_micros: manifest.partition_micros,
        given_up_before: Some(manifest.floor).filter(|floor| *floor > i64::MIN),
        largest,
        series_bytes: manifest.series.bytes,
        manifest_bytes: manifest.encode().len() as u64,
        trimmed: recovery.trimmed,
        damage,
        quarantine: quarantine(&*vfs, dir)?,
    })
}

fn segment_info(meta: &SegmentMeta) -> SegmentInfo {
    SegmentInfo {
        file: segment_name(meta.number),
        number: meta.number,
        generation: meta.generation,
        range: meta.range(),
        series: meta.series.into(),
        points: meta.points,
        chunks: meta.chunks,
        bytes: meta.bytes,
    }
}

fn partitions<'a>(metas: impl Iterator<Item = &'a SegmentMeta>, partition_micros: u64) -> Vec<PartitionInfo> {
    let width = i64::try_from(partition_micros).unwrap_or(i64::MAX);
    let mut partitions: BTreeMap<Option<i64>, PartitionInfo> = BTreeMap::new();
    for meta in metas {
        let (first, last) = (meta.start.div_euclid(width), meta.end.div_euclid(width));
        let place = (first == last).then_some(first);
        let range = place.map(|number| {
            let start = number.saturating_mul(width);
            TimeRange { start, end: start.saturating_add(width - 1) }
        });
        let empty = PartitionInfo { range, segments: 0, points: 0, bytes: 0 };
        let partition = partitions.entry(place).or_insert(empty);
        partition.segments += 1;
        partition.points += meta.points;
        partition.bytes += meta.bytes;
    }
    partitions.into_values().collect()
}

fn quarantine(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<FileSize>, Error> {
    let folder = dir.join(QUARANTINE);
    let mut names = match vfs.list(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        names => names.map_err(Error::io("listing", &folder))?,
    };
    names.sort_unstable();
    let size = |name: String| {
        let path = folder.join(&name);
        let bytes = vfs.open_read(&path).and_then(|file| file.size()).map_err(Error::io("opening", &path))?;
        Ok(FileSize { name, bytes })
    };
    names.into_iter().map(size).collect()
}
