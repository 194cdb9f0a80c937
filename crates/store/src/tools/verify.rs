//! Reads every byte of a directory and says what is wrong with it.

use std::path::Path;
use std::sync::Arc;

use slung_model::{Catalogue, SeriesKey};

use super::{Progress, settled};
use crate::damage::ReadError;
use crate::manifest::Manifest;
use crate::recover::{Recovered, recover};
use crate::segment::{Columns, IndexCache, Segment, SegmentMeta};
use crate::vfs::Vfs;
use crate::{Damage, Error, Options, Trimmed, segment_name};

/// What [`verify`] has found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Verified {
    /// How many segments were read.
    pub segments: u64,
    /// How many series are known.
    pub series: u64,
    /// How many points there are, in segments and in the log. Of several with one series and timestamp all count until they
    /// are merged.
    pub points: u64,
    /// How much was read, bytes.
    pub bytes: u64,
    /// Everything that is damaged or missing, also what was kept aside before.
    pub damage: Vec<Found>,
    /// What a crash left torn at the log's end; beside a store that writes, the record that was just being written. It was
    /// never acknowledged, and is no damage.
    pub trimmed: Option<Trimmed>,
    /// Why a store could not be opened on the directory at all. Then only segments were read, as far as the manifest can be.
    pub unusable: Option<Error>,
}

impl Verified {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty() && self.unusable.is_none()
    }
}

/// One damage, with the series that its number stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What, where, and what may be missing because of it.
    pub damage: Damage,
    /// The key of the series that it names, where that is known.
    pub key: Option<Arc<SeriesKey>>,
}

/// Reads everything that a directory holds, and checks it: the manifest, the definitions of series, the log, and of every
/// segment its index and all of its points. Also beside a store that has it open: files that it removes meanwhile are read to
/// their end. The log's points are held in memory, segments are read a chunk at a time. `progress` is told after each file.
///
/// # Errors
/// [`Error::Io`] where the system fails. Damage is an answer and no error.
pub fn verify(vfs: Arc<dyn Vfs>, dir: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Verified, Error> {
    match settled(|| recover(Arc::clone(&vfs), dir, &Options::default(), true)) {
        Ok(recovered) => verify_recovered(&*vfs, dir, recovered, progress),
        Err(error @ Error::Io { .. }) => Err(error),
        Err(error) => verify_unusable(&*vfs, dir, error, progress),
    }
}

fn verify_recovered(
    vfs: &dyn Vfs,
    dir: &Path,
    recovered: Recovered,
    progress: &mut dyn FnMut(Progress),
) -> Result<Verified, Error> {
    let Recovered { disk, catalogue, recovery, .. } = recovered;
    let manifest = disk.manifest();
    let version = disk.version();
    let mut reading = Reading::new(recovery.log_bytes + manifest.series.bytes, &manifest.segments, progress);
    let mut damage = recovery.damage;
    for meta in &manifest.segments {
        match version.segments().iter().find(|segment| segment.meta().number == meta.number) {
            Some(segment) => reading.segment(segment, &mut damage)?,
            None => {
                // Opening said that it is damaged, and not where.
                let name = segment_name(meta.number);
                damage.retain(|damage| damage.path.file_name().is_none_or(|file| file != name.as_str()));
                reading.open(vfs, dir, &manifest, meta, &mut damage)?;
            }
        }
    }
    Ok(Verified {
        segments: reading.segments,
        series: catalogue.len() as u64,
        points: recovery.points,
        bytes: reading.progress.done,
        damage: named(damage, &catalogue),
        trimmed: recovery.trimmed,
        unusable: None,
    })
}

/// What is left to be read where something is wrong without which no store can be opened.
fn verify_unusable(
    vfs: &dyn Vfs,
    dir: &Path,
    error: Error,
    progress: &mut dyn FnMut(Progress),
) -> Result<Verified, Error> {
    let mut damage = Vec::new();
    let mut verified = Verified {
        segments: 0,
        series: 0,
        points: 0,
        bytes: 0,
        damage: Vec::new(),
        trimmed: None,
        unusable: Some(error),
    };
    if let Ok(Some(manifest)) = Manifest::load(vfs, dir) {
        let mut reading = Reading::new(0, &manifest.segments, progress);
        for meta in &manifest.segments {
            reading.open(vfs, dir, &manifest, meta, &mut damage)?;
            verified.points += meta.points;
        }
        (verified.segments, verified.bytes) = (reading.segments, reading.progress.done);
        verified.series = manifest.series.count.into();
    }
    verified.damage = named(damage, &Catalogue::default());
    Ok(verified)
}

fn named(damage: Vec<Damage>, catalogue: &Catalogue) -> Vec<Found> {
    let named = |damage: Damage| {
        let key = damage.series.and_then(|id| catalogue.key(id).cloned());
        Found { damage, key }
    };
    damage.into_iter().map(named).collect()
}

struct Reading<'a> {
    columns: Columns,
    cache: Arc<IndexCache>,
    segments: u64,
    progress: Progress,
    tell: &'a mut dyn FnMut(Progress),
}

impl<'a> Reading<'a> {
    /// So many bytes have been read before.
    fn new(done: u64, segments: &[SegmentMeta], tell: &'a mut dyn FnMut(Progress)) -> Self {
        let total = done + segments.iter().map(|segment| segment.bytes).sum::<u64>();
        let progress = Progress { done, total };
        tell(progress);
        Self { columns: Columns::default(), cache: Arc::new(IndexCache::new(0)), segments: 0, progress, tell }
    }

    fn segment(&mut self, segment: &Segment, damage: &mut Vec<Damage>) -> Result<(), Error> {
        segment.verify(&mut self.columns, |found| damage.push(found))?;
        self.segments += 1;
        self.read(segment.meta());
        Ok(())
    }

    /// One that could not be opened before.
    fn open(
        &mut self,
        vfs: &dyn Vfs,
        dir: &Path,
        manifest: &Manifest,
        meta: &SegmentMeta,
        damage: &mut Vec<Damage>,
    ) -> Result<(), Error> {
        let path = dir.join(segment_name(meta.number));
        match Segment::open(vfs, &path, manifest.store, meta, Arc::clone(&self.cache)) {
            Ok(segment) => return self.segment(&segment, damage),
            Err(ReadError::Damaged(found)) => damage.push(found),
            Err(error) => {
                let reason = match Error::from(error) {
                    Error::Missing { .. } => "the file is missing".to_owned(),
                    Error::Newer { what, .. } => format!("{what}, which this version can't read"),
                    other => return Err(other),
                };
                damage.push(Damage { path, offset: 0, reason, series: None, range: meta.range() });
            }
        }
        self.read(meta);
        Ok(())
    }

    fn read(&mut self, meta: &SegmentMeta) {
        self.progress.done += meta.bytes;
        (self.tell)(self.progress);
    }
}
