//! The store's way to its files, small enough that a test can stand in for a disk that fails.

use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Files and directories as the store needs them. [`OsVfs`] is the real one, [`crate::sim::SimVfs`] the one for tests.
///
/// What a call has done when it returned an error is open, except for [`Vfs::lock`]. The store relies on nothing else.
pub trait Vfs: Send + Sync + 'static {
    /// Makes a directory and those above it. On return their entries are durable.
    ///
    /// # Errors
    /// What the system says. A directory that is there already is none.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// The names in a directory, in no order. Those that are not UTF-8 are left out: the store has none.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file that is there, for reading and writing.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::NotFound`] where there is none.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Opens a file that is there, for reading alone: writing to it fails. Its directory may be one that can't be written.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::NotFound`] where there is none.
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Makes an empty file, in the place of one of that name if there is one. Its entry becomes durable by
    /// [`Vfs::sync_dir`].
    ///
    /// # Errors
    /// What the system says.
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>>;

    /// Gives a file another name on the same file system, in the place of a file of that name if there is one, at once or
    /// not at all. Becomes durable by [`Vfs::sync_dir`] of the new name's directory.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name on the same file system. Becomes durable by [`Vfs::sync_dir`].
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::NotFound`] where there is no such file, [`io::ErrorKind::AlreadyExists`]
    /// where the new name is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file's name away. Who has it open may go on reading. Becomes durable by [`Vfs::sync_dir`].
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::NotFound`] where there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes durable which names there are in a directory.
    ///
    /// # Errors
    /// What the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes a directory for one writer, for as long as the answer lives or until the process ends, however it ends.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where another one has it, in this process or another. Otherwise what the system
    /// says.
    fn lock(&self, dir: &Path) -> io::Result<Lock>;
}

/// Holds a directory that [`Vfs::lock`] took; dropping it gives the directory back.
pub type Lock = Box<dyn Send + Sync>;

/// One open file.
pub trait File: Send + Sync {
    /// Its length, bytes.
    ///
    /// # Errors
    /// What the system says.
    fn size(&self) -> io::Result<u64>;

    /// Fills the buffer from that offset on.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::UnexpectedEof`] where the file ends before the buffer does.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of the bytes at that offset, or fails with any part of them written. Durable after [`File::sync`].
    ///
    /// # Errors
    /// What the system says.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the contents and the length durable. After an error it is unknown what is on the disk, and calling it again
    /// tells nothing: systems forget what they could not write.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file to that length, durable on return.
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&self, bytes: u64) -> io::Result<()>;
}

/// The operating system's files, by std alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsVfs;

/// The file that holds the lock. It stays when the store is closed: removing it would let two writers lock two files.
const LOCK_NAME: &str = "lock";

impl Vfs for OsVfs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let parent = match dir.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        if dir.is_dir() {
            // A run before this one may have made it and stopped before the sync. Where somebody else made it we may not
            // even be allowed to open what is above, so this is tried and no more.
            let _ = self.sync_dir(parent);
            return Ok(());
        }
        self.create_dir(parent)?;
        match fs::create_dir(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !dir.is_dir() => return Err(error),
            _ => {}
        }
        self.sync_dir(parent)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(OsFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(OsFile(fs::File::open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(OsFile(OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, dir: &Path) -> io::Result<Lock> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(LOCK_NAME))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

struct OsFile(fs::File);

impl File for OsFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)?;
        // Not `sync_data`: whether that writes a length that shrank is up to the file system.
        self.0.sync_all()
    }
}
