//! Copies of a store: of one that may be running, without its help, and back.
//!
//! All files are opened before the first is copied: what is open stays readable when the store that writes removes it. What
//! the manifest names and what the log held a moment later is what a crash could have left, so it can be opened; and it holds
//! every point that was durable when the copy began.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Progress, settled};
use crate::format::{FileKind, LogId};
use crate::manifest::Manifest;
use crate::records::{self, Beginning, Found, READ_BYTES, Records};
use crate::vfs::{File, Vfs};
use crate::{Error, MANIFEST, QUARANTINE, log, segment_name, series_name};

/// The file of the lock, which an empty directory may have.
const LOCK: &str = "lock";

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Copied {
    /// How many files there are, the manifest included.
    pub files: u64,
    /// Those of them that are second names of the same files.
    pub linked: u64,
    /// How long all are, bytes.
    pub bytes: u64,
    /// How much was written for it, bytes.
    pub bytes_written: u64,
}

/// Makes a copy of a store, also of one that is running, in a directory that is absent or empty. It holds every point that was
/// durable when it began, and may hold later ones. On return it is durable.
///
/// Segments never change, so that a second name for each (a hard link) is a copy that takes no space; where the file system
/// has none, or `to` is on another one, they are copied. A link protects from deletion and mistakes, not from a disk that
/// fails.
///
/// # Errors
/// [`Error::NotEmpty`]; [`Error::Locked`] where somebody else is writing to `to`; [`Error::Missing`] where `from` is no store,
/// [`Error::Damaged`] where its manifest is; [`Error::Io`]. What had been copied is removed then.
pub fn backup(vfs: &dyn Vfs, from: &Path, to: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Copied, Error> {
    copy(vfs, from, to, true, progress)
}

/// Makes a store out of a backup, in a directory that is absent or empty. All files are copied, so that nothing that happens
/// to the one happens to the other.
///
/// # Errors
/// As [`backup`].
pub fn restore(vfs: &dyn Vfs, from: &Path, to: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Copied, Error> {
    copy(vfs, from, to, false, progress)
}

fn copy(
    vfs: &dyn Vfs,
    from: &Path,
    to: &Path,
    link: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Copied, Error> {
    // Before anything is made.
    let Source { manifest, files } = settled(|| Source::open(vfs, from))?;
    check_empty(vfs, to)?;
    vfs.create_dir(to).map_err(Error::io("making the directory", to))?;
    let _lock = vfs.lock(to).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => Error::Locked { dir: to.into() },
        _ => Error::io("locking", to)(error),
    })?;
    check_empty(vfs, to)?;
    let mut target = Target { vfs, dir: to, made: Vec::new(), copied: Copied::default() };
    let made = target.fill(from, &files, link, progress).and_then(|()| {
        // The last one: without it the directory is no store.
        target.made.extend([to.join(MANIFEST), to.join(MANIFEST).with_extension("new")]);
        manifest.store(vfs, to)?;
        target.copied.files += 1;
        let bytes = manifest.encode().len() as u64;
        target.copied.bytes += bytes;
        target.copied.bytes_written += bytes;
        Ok(target.copied)
    });
    if made.is_err() {
        target.remove();
    }
    made
}

fn check_empty(vfs: &dyn Vfs, dir: &Path) -> Result<(), Error> {
    match vfs.list(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("listing", dir)(error)),
        Ok(names) if names.iter().all(|name| name == LOCK) => Ok(()),
        Ok(_) => Err(Error::NotEmpty { dir: dir.into() }),
    }
}

/// What there is to copy, open.
struct Source {
    manifest: Manifest,
    files: Vec<SourceFile>,
}

struct SourceFile {
    /// Where it is, below the directory.
    name: PathBuf,
    file: Box<dyn File>,
    /// How much of it counts.
    bytes: u64,
    /// It never changes.
    is_final: bool,
    is_log: bool,
}

impl Source {
    fn open(vfs: &dyn Vfs, dir: &Path) -> Result<Self, Error> {
        let manifest = Manifest::load(vfs, dir)?;
        let manifest = manifest.ok_or_else(|| Error::Missing { path: dir.join(MANIFEST) })?;
        let mut files = Vec::new();
        for segment in &manifest.segments {
            files.push(open(vfs, dir, segment_name(segment.number).into(), true)?);
        }
        if manifest.series.count > 0 {
            let mut series = open(vfs, dir, series_name(manifest.series.number).into(), false)?;
            series.bytes = series.bytes.min(manifest.series.bytes);
            files.push(series);
        }
        let numbers = log::file_numbers(&vfs.list(dir).map_err(Error::io("listing", dir))?);
        let needed: Vec<u64> = numbers.into_iter().filter(|number| *number >= manifest.log_first).collect();
        for number in manifest.log_first..=needed.last().copied().unwrap_or(manifest.log_first) {
            let name = log::file_name(number);
            if !needed.contains(&number) {
                return Err(Error::Missing { path: dir.join(name) });
            }
            let mut file = open(vfs, dir, name.into(), false)?;
            if Some(&number) == needed.last() {
                file.bytes = whole_records(&file, &dir.join(&file.name), LogId(manifest.log), number)?;
            }
            file.is_log = true;
            files.push(file);
        }
        // As long as they are there, answers say what they lack. One that could not be moved stands where it was.
        for lost in &manifest.lost {
            for name in [Path::new(QUARANTINE).join(&lost.file), PathBuf::from(&lost.file)] {
                if files.iter().any(|known: &SourceFile| known.name == name) {
                    continue;
                }
                match open(vfs, dir, name, true) {
                    Ok(file) => files.push(file),
                    Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        // The first file of a log alone passes for a store of the first version, which had no manifest: it comes last.
        files.reverse();
        files.sort_by_key(|file| file.is_log);
        Ok(Self { manifest, files })
    }
}

fn open(vfs: &dyn Vfs, dir: &Path, name: PathBuf, is_final: bool) -> Result<SourceFile, Error> {
    let path = dir.join(&name);
    let file = vfs.open_read(&path).map_err(Error::io("opening", &path))?;
    let bytes = file.size().map_err(Error::io("asking for the size of", &path))?;
    Ok(SourceFile { name, file, bytes, is_final, is_log: false })
}

/// Where the last whole record of the log's last file ends. What is damaged in between is copied as it is.
fn whole_records(source: &SourceFile, path: &Path, id: LogId, number: u64) -> Result<u64, Error> {
    let Beginning::Good(_, base) = records::begin(&*source.file, path, FileKind::Log, number)? else {
        return Ok(source.bytes);
    };
    let mut records = Records::new(&*source.file, path, id, base, Some(base.saturating_add(source.bytes)))?;
    loop {
        match records.read()? {
            Found::Record(..) => {}
            Found::End => return Ok(records.offset(records.at)),
            Found::Bad(_) => {
                let end = records.offset(records.at);
                if !records.find_next()? {
                    return Ok(end);
                }
            }
        }
    }
}

/// The copy while it is made.
struct Target<'a> {
    vfs: &'a dyn Vfs,
    dir: &'a Path,
    made: Vec<PathBuf>,
    copied: Copied,
}

impl Target<'_> {
    fn fill(
        &mut self,
        from: &Path,
        files: &[SourceFile],
        link: bool,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let mut progress = Progress { done: 0, total: files.iter().map(|file| file.bytes).sum() };
        tell(progress);
        let aside = self.dir.join(QUARANTINE);
        let has_aside = files.iter().any(|file| file.name.starts_with(QUARANTINE));
        if has_aside {
            self.vfs.create_dir(&aside).map_err(Error::io("making the directory", &aside))?;
        }
        for (index, source) in files.iter().enumerate() {
            if index + 1 == files.len() {
                self.vfs.sync_dir(self.dir).map_err(Error::io("syncing", self.dir))?;
            }
            let path = self.dir.join(&source.name);
            self.made.extend([path.clone(), path.with_extension("new")]);
            // Whatever the reason is that it can't be linked, the file is open.
            if link && source.is_final && self.vfs.link(&from.join(&source.name), &path).is_ok() {
                self.copied.linked += 1;
                progress.done += source.bytes;
                tell(progress);
            } else {
                self.copy(source, &path, &mut progress, tell)?;
                self.copied.bytes_written += source.bytes;
            }
            self.copied.files += 1;
            self.copied.bytes += source.bytes;
        }
        for dir in [Some(&*aside).filter(|_| has_aside), Some(self.dir)].into_iter().flatten() {
            self.vfs.sync_dir(dir).map_err(Error::io("syncing", dir))?;
        }
        Ok(())
    }

    fn copy(
        &self,
        source: &SourceFile,
        path: &Path,
        progress: &mut Progress,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        // Under its own name it is whole.
        let new_path = &path.with_extension("new");
        let file = self.vfs.create(new_path).map_err(Error::io("making", new_path))?;
        let mut buffer = vec![0; READ_BYTES];
        let mut at = 0;
        while at < source.bytes {
            let length = usize::try_from(source.bytes - at).unwrap_or(usize::MAX).min(buffer.len());
            let buffer = &mut buffer[..length];
            source.file.read_at(at, buffer).map_err(Error::io("reading", &source.name))?;
            file.write_at(at, buffer).map_err(Error::io("writing", new_path))?;
            at += length as u64;
            progress.done += length as u64;
            tell(*progress);
        }
        file.sync().map_err(Error::io("syncing", new_path))?;
        self.vfs.rename(new_path, path).map_err(Error::io("renaming", new_path))
    }

    /// Best effort: what is left keeps the directory from being taken for an empty one.
    fn remove(&self) {
        for path in &self.made {
            let _ = self.vfs.remove(path);
        }
    }
}
