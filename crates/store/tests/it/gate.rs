//! A disk whose log syncs when the test says so.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use slung_store::sim::SimVfs;
use slung_store::{File, Lock, Vfs};

use crate::common::A_MINUTE;

/// Syncs of the log wait while the gate is shut.
#[derive(Clone)]
pub(crate) struct Gated(SimVfs, Arc<Gate>);

impl Gated {
    /// The gate is open.
    pub(crate) fn new(disk: SimVfs) -> (Self, Keeper) {
        let gate = Arc::<Gate>::default();
        (Self(disk, Arc::clone(&gate)), Keeper(gate))
    }

    /// Another disk, or another session of the same, behind the same gate.
    pub(crate) fn with(&self, disk: SimVfs) -> Self {
        Self(disk, Arc::clone(&self.1))
    }

    fn gated(&self, path: &Path, file: Box<dyn File>) -> Box<dyn File> {
        let is_log = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("log-"));
        if is_log { Box::new(GatedFile(file, Arc::clone(&self.1))) } else { file }
    }
}

#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    shut: bool,
    waiting: bool,
}

impl Gate {
    pub(crate) fn shut(&self) {
        self.state.lock().unwrap().shut = true;
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().shut = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting = state.shut;
        self.changed.notify_all();
        state = self.changed.wait_while(state, |state| state.shut).unwrap();
        state.waiting = false;
    }

    /// Until a sync has come and waits.
    pub(crate) fn wait_for_sync(&self) {
        let state = self.state.lock().unwrap();
        let (state, timeout) = self.changed.wait_timeout_while(state, A_MINUTE, |state| !state.waiting).unwrap();
        drop(state);
        assert!(!timeout.timed_out(), "a sync");
    }
}

/// The test's side of the gate. It opens when a test ends, so that one that failed does not hang in closing its store.
pub(crate) struct Keeper(Arc<Gate>);

impl std::ops::Deref for Keeper {
    type Target = Gate;

    fn deref(&self) -> &Gate {
        &self.0
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.open();
    }
}

struct GatedFile(Box<dyn File>, Arc<Gate>);

impl Vfs for Gated {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(self.gated(path, Vfs::open(&self.0, path)?))
    }
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.0.open_read(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(self.gated(path, self.0.create(path)?))
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.link(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn lock(&self, dir: &Path) -> io::Result<Lock> {
        self.0.lock(dir)
    }
}

impl File for GatedFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, into)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync()
    }
    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.truncate(bytes)
    }
}
