//! Files in memory that lose power, run full and lie, for tests: the same seed does the same each time.
//!
//! A file has two planes: what the running system sees, and what is on the disk. [`File::sync`] brings the second to the
//! first, [`Vfs::sync_dir`] does so for the names in a directory. [`SimVfs::restart`] loses power: of what was not synced
//! each piece may have reached the disk or not, in any order, torn or as garbage. [`SimVfs::fault_at`] makes one call fail,
//! or the machine stop in the middle of it. A test counts the calls of a workload once, then repeats it with a fault at each
//! of them:
//!
//! ```
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! use slung_model::SystemClock;
//! use slung_store::sim::{Fault, SimVfs};
//! use slung_store::{Options, Store};
//!
//! let run = |disk: &SimVfs| -> Result<(), slung_store::Error> {
//!     // Without threads of its own, and the reserve, a store makes the same calls each time.
//!     let options = Options { background: false, reserve_bytes: 0, ..Options::default() };
//!     let (store, _) = Store::open(Arc::new(disk.clone()), Arc::new(SystemClock), Path::new("data"), options)?;
//!     store.close()
//! };
//! let calls = {
//!     let disk = SimVfs::new(1);
//!     run(&disk)?;
//!     disk.calls()
//! };
//! for call in 0..calls {
//!     let disk = SimVfs::new(call);
//!     disk.fault_at(call, Fault::Stop);
//!     let _ = run(&disk); // fails, but where nothing depends on that call
//!     disk.restart();
//!     assert!(run(&disk).is_ok());
//! }
//! # Ok::<(), slung_store::Error>(())
//! ```
//!
//! What a failed sync does is what systems do: some of the data reached the disk, and all of it counts as written from then
//! on, so that the next sync succeeds and writes nothing.
//!
//! [`SimVfs::set_capacity`] makes a disk that runs full: what the running system sees in all files together is no more than
//! that. A write beyond it writes what fits and fails; removing, replacing and truncating files gives space back.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::vfs::{File, Lock, Vfs};

/// What reaches the disk as one piece, bytes. Far less than a real sector, so that small logs tear in many places.
const PIECE_BYTES: usize = 64;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It answers this error. A write may have written a part, a sync may have synced a part; anything else did nothing.
    Error(ErrorKind),
    /// The machine stops in the middle of it: it may be done or not, and every later call fails until
    /// [`SimVfs::restart`].
    Stop,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimVfs {
    disk: Arc<Mutex<Disk>>,
    /// The only life of the machine in which it works; `None` for any.
    life: Option<u64>,
}

#[derive(Default)]
struct Disk {
    random: u64,
    calls: u64,
    faults: BTreeMap<u64, Fault>,
    stopped: bool,
    /// Files that were opened, and locks that were taken, in an earlier life of the machine are dead.
    life: u64,
    locks: BTreeSet<PathBuf>,
    files: Vec<Contents>,
    /// Which file a name stands for, as the running system sees it.
    names: BTreeMap<PathBuf, usize>,
    /// And on the disk.
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    capacity: Option<u64>,
}

#[derive(Default)]
struct Contents {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Pieces that the next sync is going to write.
    dirty: BTreeSet<usize>,
}

#[derive(Clone)]
struct NameChange {
    removed: Option<PathBuf>,
    added: Option<(PathBuf, usize)>,
}

impl SimVfs {
    /// An empty disk. The seed decides what every crash and fault leaves behind.
    pub fn new(seed: u64) -> Self {
        Self { disk: Arc::new(Mutex::new(Disk { random: seed, ..Disk::default() })), life: None }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same disk for who runs on the machine as it is now: [`SimVfs::restart`] and [`SimVfs::kill`] end it, and what its
    /// threads do afterwards fails. Without this they would go on as if they had come back with the machine.
    #[must_use]
    pub fn session(&self) -> Self {
        Self { disk: Arc::clone(&self.disk), life: Some(self.disk().life) }
    }

    /// The disk, unless the machine has ended the life in which this works.
    fn running(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk();
        if self.life.is_none_or(|life| life == disk.life) { Ok(disk) } else { Err(stopped()) }
    }

    /// How many calls there were: of [`Vfs`] and [`File`], reads too.
    pub fn calls(&self) -> u64 {
        self.disk().calls
    }

    /// Lets the call with that number (the first one is 0) meet a fault.
    pub fn fault_at(&self, call: u64, fault: Fault) {
        self.disk().faults.insert(call, fault);
    }

    /// No fault is waiting any more.
    pub fn clear_faults(&self) {
        self.disk().faults.clear();
    }

    /// The power goes, and comes back: what was not synced is lost, reordered or torn, nothing is open or locked any more,
    /// and no fault is waiting.
    pub fn restart(&self) {
        let disk = &mut *self.disk();
        disk.end_life();
        for change in std::mem::take(&mut disk.unsynced_names) {
            if chance(&mut disk.random) {
                change.apply(&mut disk.durable_names);
            }
        }
        disk.names = disk.durable_names.clone();
        for file in &mut disk.files {
            file.lose_power(&mut disk.random);
        }
    }

    /// The process is killed: nothing is open or locked any more, and no fault is waiting, but the running system keeps
    /// what was written.
    pub fn kill(&self) {
        self.disk().end_life();
    }

    /// What the running system sees in a file; `None` where there is none.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.names.get(path).map(|&file| disk.files[file].live.clone())
    }

    /// The files that the running system sees below a directory, with their contents.
    pub fn files(&self, dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let disk = self.disk();
        let below = disk.names.iter().filter(|(path, _)| path.starts_with(dir));
        below.map(|(path, &file)| (path.clone(), disk.files[file].live.clone())).collect()
    }

    /// Puts a file onto the disk, in the place of another one of that name if there is one.
    pub fn plant(&self, path: &Path, bytes: &[u8]) {
        let mut disk = self.disk();
        let file = disk.files.len();
        disk.files.push(Contents { live: bytes.to_vec(), durable: bytes.to_vec(), dirty: BTreeSet::new() });
        disk.names.insert(path.into(), file);
        disk.durable_names.insert(path.into(), file);
    }

    /// How many bytes all files together may have; `None`, as at first, for any number. With fewer than there are, nothing
    /// can grow until enough has been removed.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk().capacity = bytes;
    }

    /// How many bytes the files have that the running system sees, all together.
    pub fn used(&self) -> u64 {
        self.disk().used()
    }

    /// Whether the machine stopped by [`Fault::Stop`].
    pub fn is_stopped(&self) -> bool {
        self.disk().stopped
    }
}

/// splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014).
fn next(random: &mut u64) -> u64 {
    *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *random;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn chance(random: &mut u64) -> bool {
    next(random) >> 63 == 1
}

/// From 0 up to and including `max`.
fn up_to(random: &mut u64, max: usize) -> usize {
    usize::try_from(next(random) % (max as u64 + 1)).expect("not above a usize")
}

impl Disk {
    fn end_life(&mut self) {
        self.life += 1;
        self.stopped = false;
        self.faults.clear();
        self.locks.clear();
    }

    /// Counts a call, and tells which fault it meets.
    fn begin(&mut self) -> io::Result<Option<Fault>> {
        if self.stopped {
            return Err(stopped());
        }
        self.calls += 1;
        let fault = self.faults.remove(&(self.calls - 1));
        self.stopped = fault == Some(Fault::Stop);
        Ok(fault)
    }

    /// A call that is done as a whole or not at all: whether it is to be done, and what it answers then.
    fn begin_whole(&mut self) -> io::Result<Outcome> {
        Ok(match self.begin()? {
            None => Outcome { done: true, answer: Ok(()) },
            Some(Fault::Error(kind)) => Outcome { done: false, answer: Err(kind.into()) },
            Some(Fault::Stop) => Outcome { done: chance(&mut self.random), answer: Err(stopped()) },
        })
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    /// The bytes of all files that have a name, each once.
    fn used(&self) -> u64 {
        let files: BTreeSet<usize> = self.names.values().copied().collect();
        files.iter().map(|&file| self.files[file].live.len() as u64).sum()
    }

    /// How many bytes of a write find room.
    fn room(&self, file: usize, offset: usize, bytes: usize) -> usize {
        let Some(capacity) = self.capacity else { return bytes };
        let free = usize::try_from(capacity.saturating_sub(self.used())).unwrap_or(usize::MAX);
        // What is there already is written over.
        (self.files[file].live.len().saturating_add(free)).saturating_sub(offset).min(bytes)
    }
}

struct Outcome {
    done: bool,
    answer: io::Result<()>,
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Error(kind) => kind.into(),
            Self::Stop => stopped(),
        }
    }
}

fn stopped() -> io::Error {
    io::Error::other("the machine has stopped")
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        if let Some(removed) = &self.removed {
            names.remove(removed);
        }
        if let Some((added, file)) = &self.added {
            names.insert(added.clone(), *file);
        }
    }

    /// The directory that has to be synced.
    fn dir(&self) -> Option<&Path> {
        self.added.as_ref().map(|(path, _)| path).or(self.removed.as_ref())?.parent()
    }
}

impl Contents {
    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if self.live.len() < end {
            self.live.resize(end, 0);
        }
        self.live[offset..end].copy_from_slice(bytes);
        if !bytes.is_empty() {
            self.dirty.extend(offset / PIECE_BYTES..=(end - 1) / PIECE_BYTES);
        }
    }

    /// Brings those dirty pieces to the disk for which `keep` says so, as far as the file reaches there.
    fn flush(&mut self, mut keep: impl FnMut() -> bool) {
        for &piece in &self.dirty {
            let start = piece * PIECE_BYTES;
            let end = (start + PIECE_BYTES).min(self.live.len()).min(self.durable.len());
            if start < end && keep() {
                self.durable[start..end].copy_from_slice(&self.live[start..end]);
            }
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.live.len(), 0);
        self.flush(|| true);
        self.dirty.clear();
    }

    /// Nothing reaches the disk, or everything, or some of the pieces and some length between the one there and the new
    /// one.
    fn sync_partly(&mut self, random: &mut u64) {
        match up_to(random, 3) {
            0 => return,
            1 => return self.sync(),
            _ => {}
        }
        let (long, short) = (self.live.len(), self.durable.len());
        let bytes = short + up_to(random, long.saturating_sub(short));
        let bytes = if chance(random) { long.max(short) } else { bytes };
        let filler = if chance(random) { 0 } else { next(random).to_le_bytes()[0] };
        self.durable.resize(bytes, filler);
        self.flush(|| chance(random));
    }

    fn lose_power(&mut self, random: &mut u64) {
        self.sync_partly(random);
        self.dirty.clear();
        self.live = self.durable.clone();
    }
}

impl Vfs for SimVfs {
    /// Directories are there by being named.
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        self.running()?.begin_whole()?.answer
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut disk = self.running()?;
        disk.begin_whole()?.answer?;
        let inside = disk.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut disk = self.running()?;
        disk.begin_whole()?.answer?;
        let file = *disk.names.get(path).ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(SimFile { vfs: self.clone(), life: disk.life, file, writable: true }))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut disk = self.running()?;
        disk.begin_whole()?.answer?;
        let file = *disk.names.get(path).ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(SimFile { vfs: self.clone(), life: disk.life, file, writable: false }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let mut disk = self.running()?;
        let outcome = disk.begin_whole()?;
        let file = disk.files.len();
        if outcome.done {
            disk.files.push(Contents::default());
            disk.change_name(NameChange { removed: None, added: Some((path.into(), file)) });
        }
        outcome.answer?;
        Ok(Box::new(SimFile { vfs: self.clone(), life: disk.life, file, writable: true }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.running()?;
        let outcome = disk.begin_whole()?;
        let file = *disk.names.get(from).ok_or(ErrorKind::NotFound)?;
        if outcome.done {
            disk.change_name(NameChange { removed: Some(from.into()), added: Some((to.into(), file)) });
        }
        outcome.answer
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.running()?;
        let outcome = disk.begin_whole()?;
        let file = *disk.names.get(from).ok_or(ErrorKind::NotFound)?;
        if disk.names.contains_key(to) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if outcome.done {
            disk.change_name(NameChange { removed: None, added: Some((to.into(), file)) });
        }
        outcome.answer
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.running()?;
        let outcome = disk.begin_whole()?;
        if !disk.names.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        if outcome.done {
            disk.change_name(NameChange { removed: Some(path.into()), added: None });
        }
        outcome.answer
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let disk = &mut *self.running()?;
        let outcome = disk.begin_whole()?;
        if outcome.done {
            let inside = |change: &mut NameChange| change.dir() == Some(dir);
            for change in disk.unsynced_names.extract_if(.., inside) {
                change.apply(&mut disk.durable_names);
            }
        }
        outcome.answer
    }

    fn lock(&self, dir: &Path) -> io::Result<Lock> {
        let mut disk = self.running()?;
        disk.begin_whole()?.answer?;
        if !disk.locks.insert(dir.into()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { vfs: self.clone(), life: disk.life, dir: dir.into() }))
    }
}

struct SimLock {
    vfs: SimVfs,
    life: u64,
    dir: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.vfs.disk();
        if disk.life == self.life {
            disk.locks.remove(&self.dir);
        }
    }
}

struct SimFile {
    vfs: SimVfs,
    life: u64,
    file: usize,
    writable: bool,
}

impl SimFile {
    fn disk(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.vfs.disk();
        if disk.life == self.life { Ok(disk) } else { Err(stopped()) }
    }

    fn disk_to_write(&self) -> io::Result<MutexGuard<'_, Disk>> {
        if self.writable { self.disk() } else { Err(ErrorKind::PermissionDenied.into()) }
    }
}

impl File for SimFile {
    fn size(&self) -> io::Result<u64> {
        let mut disk = self.disk()?;
        disk.begin_whole()?.answer?;
        Ok(disk.files[self.file].live.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut disk = self.disk()?;
        disk.begin_whole()?.answer?;
        let offset = usize::try_from(offset).map_err(|_| ErrorKind::UnexpectedEof)?;
        let rest = disk.files[self.file].live.get(offset..).unwrap_or_default();
        into.copy_from_slice(rest.get(..into.len()).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let disk = &mut *self.disk_to_write()?;
        let fault = disk.begin()?;
        let written = if fault.is_none() { bytes.len() } else { up_to(&mut disk.random, bytes.len()) };
        let offset = usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?;
        let room = disk.room(self.file, offset, written);
        if room > 0 {
            disk.files[self.file].write(offset, &bytes[..room]);
        }
        match fault {
            Some(fault) => Err(fault.error()),
            None if room < bytes.len() => Err(ErrorKind::StorageFull.into()),
            None => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let disk = &mut *self.disk()?;
        let fault = disk.begin()?;
        let file = &mut disk.files[self.file];
        match fault {
            None => file.sync(),
            Some(Fault::Error(_)) => {
                file.sync_partly(&mut disk.random);
                file.dirty.clear();
            }
            // What comes of it is decided by the restart.
            Some(Fault::Stop) => {}
        }
        fault.map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk_to_write()?;
        let outcome = disk.begin_whole()?;
        if outcome.done {
            let bytes = usize::try_from(bytes).map_err(|_| ErrorKind::FileTooLarge)?;
            let file = &mut disk.files[self.file];
            file.live.resize(bytes, 0);
            file.dirty.retain(|piece| piece * PIECE_BYTES < bytes);
            file.durable.resize(bytes, 0);
        }
        outcome.answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> &'static Path {
        Path::new("d/f")
    }

    fn disk_with_file(seed: u64) -> (SimVfs, Box<dyn File>) {
        let disk = SimVfs::new(seed);
        let file = disk.create(name()).unwrap();
        disk.sync_dir(Path::new("d")).unwrap();
        (disk, file)
    }

    /// What 64 seeds leave of a file, each different outcome once.
    fn outcomes(run: impl Fn(u64) -> Option<Vec<u8>>) -> BTreeSet<Option<Vec<u8>>> {
        (0..64).map(run).collect()
    }

    #[test]
    fn what_was_synced_survives_and_what_was_not_may_be_lost_or_torn() {
        let left = outcomes(|seed| {
            let (disk, file) = disk_with_file(seed);
            file.write_at(0, &[1; 100]).unwrap();
            file.sync().unwrap();
            file.write_at(100, &[2; 200]).unwrap();
            disk.restart();
            disk.read(name())
        });
        assert!(left.iter().flatten().all(|bytes| bytes.len() >= 100 && bytes[..100] == [1; 100]));
        assert!(left.iter().flatten().any(|bytes| bytes.len() == 100), "lost");
        assert!(left.iter().flatten().any(|bytes| bytes.len() == 300 && bytes[100..] == [2; 200]), "there");
        let reordered = |bytes: &&Vec<u8>| bytes.len() == 300 && bytes[128..192] != [2; 64] && bytes[299] == 2;
        assert!(left.iter().flatten().any(|bytes| reordered(&bytes)), "later bytes without earlier ones");
    }

    #[test]
    fn a_name_survives_only_when_its_directory_was_synced() {
        let run = |sync: bool| {
            outcomes(|seed| {
                let disk = SimVfs::new(seed);
                let file = disk.create(name()).unwrap();
                file.write_at(0, &[1]).unwrap();
                file.sync().unwrap();
                if sync {
                    disk.sync_dir(Path::new("d")).unwrap();
                }
                disk.restart();
                disk.read(name())
            })
        };
        assert_eq!(run(true), BTreeSet::from([Some(vec![1])]));
        assert_eq!(run(false), BTreeSet::from([None, Some(vec![1])]));
    }

    #[test]
    fn a_sync_that_failed_claims_success_the_next_time() {
        let left = outcomes(|seed| {
            let (disk, file) = disk_with_file(seed);
            file.write_at(0, &[1; 200]).unwrap();
            disk.fault_at(disk.calls(), Fault::Error(ErrorKind::Other));
            file.sync().unwrap_err();
            file.sync().unwrap();
            assert_eq!(disk.read(name()), Some(vec![1; 200]), "the running system sees it");
            disk.restart();
            disk.read(name())
        });
        assert!(left.iter().flatten().any(|bytes| *bytes != [1; 200]), "and yet it is not on the disk");
    }

    #[test]
    fn a_full_disk_takes_a_part_and_space_comes_back_by_removing() {
        let (disk, file) = disk_with_file(1);
        let full = |result: io::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::StorageFull);
        disk.set_capacity(Some(100));
        file.write_at(0, &[1; 80]).unwrap();
        full(file.write_at(80, &[2; 30]));
        assert_eq!(disk.read(name()).unwrap(), [[1; 80].as_slice(), &[2; 20]].concat());
        file.write_at(0, &[3; 100]).unwrap();
        let other = disk.create(Path::new("d/g")).unwrap();
        full(other.write_at(0, &[4]));
        file.truncate(50).unwrap();
        other.write_at(0, &[4; 50]).unwrap();
        full(file.write_at(50, &[5]));
        disk.remove(Path::new("d/g")).unwrap();
        assert_eq!(disk.used(), 50);
        file.write_at(50, &[5; 50]).unwrap();
    }

    #[test]
    fn a_session_ends_with_the_life_of_the_machine() {
        for end in [SimVfs::kill, SimVfs::restart] {
            let (disk, _) = disk_with_file(1);
            let session = disk.session();
            session.list(Path::new("d")).unwrap();
            end(&disk);
            session.list(Path::new("d")).unwrap_err();
            assert!(session.create(name()).is_err());
            disk.session().list(Path::new("d")).unwrap();
        }
    }

    #[test]
    fn a_stop_ends_everything_until_the_restart() {
        let (disk, file) = disk_with_file(1);
        let lock = disk.lock(Path::new("d")).unwrap();
        assert_eq!(disk.lock(Path::new("d")).err().map(|e| e.kind()), Some(ErrorKind::WouldBlock));
        disk.fault_at(disk.calls(), Fault::Stop);
        file.write_at(0, &[1]).unwrap_err();
        assert!(disk.is_stopped());
        disk.list(Path::new("d")).unwrap_err();
        disk.restart();
        file.sync().unwrap_err();
        assert_eq!(disk.list(Path::new("d")).unwrap(), ["f"]);
        let again = disk.lock(Path::new("d")).unwrap();
        drop(lock);
        assert!(disk.lock(Path::new("d")).is_err(), "a lock of before does not open the one of now");
        drop(again);
        disk.lock(Path::new("d")).unwrap();
    }
}
