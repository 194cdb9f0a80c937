//! A clock and a disk that tests hold in their hands.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use slung_engine::{Engine, Options};
use slung_live::{HandleId, Subscriber};
use slung_model::{Clock, Query, SeriesId, SeriesKey};
use slung_store::sim::SimVfs;
use slung_store::{File, Lock, Vfs};

/// Microseconds in a second.
pub(crate) const SECOND: i64 = 1_000_000;
/// 14 November 2023.
pub(crate) const TODAY: i64 = 1_700_000_000 * SECOND;

/// Stands still unless it is told otherwise.
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn pass(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_micros(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub(crate) fn clock() -> Arc<TestClock> {
    Arc::new(TestClock(AtomicI64::new(TODAY)))
}

pub(crate) fn open(vfs: impl Vfs, options: Options) -> Engine {
    Engine::open(Arc::new(vfs), clock(), Path::new("data"), options).unwrap().0
}

pub(crate) fn query(text: &str) -> Query {
    Query::parse(text).unwrap()
}

pub(crate) fn resolve(engine: &Engine, name: &str, tag: u32) -> SeriesId {
    engine.resolve(&SeriesKey::new(name, [format!("n={tag}")]).unwrap()).unwrap()
}

/// The value of each waiting update.
pub(crate) fn values(subscriber: &Subscriber, handle: HandleId) -> Vec<f64> {
    std::iter::from_fn(|| subscriber.try_next(handle)).map(|update| update.value).collect()
}

/// A disk whose syncs wait while the gate is shut.
#[derive(Clone)]
pub(crate) struct GatedVfs {
    disk: SimVfs,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    shut: Mutex<bool>,
    opened: Condvar,
}

impl GatedVfs {
    pub(crate) fn new() -> Self {
        Self { disk: SimVfs::new(1), gate: Arc::default() }
    }

    pub(crate) fn shut(&self) {
        *self.gate.shut.lock().unwrap() = true;
    }

    pub(crate) fn open(&self) {
        *self.gate.shut.lock().unwrap() = false;
        self.gate.opened.notify_all();
    }

    fn gated(&self, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(GatedFile { file, gate: Arc::clone(&self.gate) })
    }
}

impl Vfs for GatedVfs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(self.gated(Vfs::open(&self.disk, path)?))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.disk.open_read(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(self.gated(self.disk.create(path)?))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, dir: &Path) -> io::Result<Lock> {
        self.disk.lock(dir)
    }
}

struct GatedFile {
    file: Box<dyn File>,
    gate: Arc<Gate>,
}

impl File for GatedFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        drop(self.gate.opened.wait_while(self.gate.shut.lock().unwrap(), |shut| *shut).unwrap());
        self.file.sync()
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.truncate(bytes)
    }
}
