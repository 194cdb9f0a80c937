//! Everything that can go wrong in the store: what, where, and what to do.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use slung_model::SeriesId;

/// Why the store did not do what it was asked to.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option is outside of what makes sense.
    #[error("option {name} is {value}, it must be {must}")]
    Option {
        /// The option's name.
        name: &'static str,
        /// What it was set to.
        value: u64,
        /// What it may be.
        must: &'static str,
    },
    /// The system failed while the store was being opened, or read.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A copy goes to a directory of its own only.
    #[error("the directory {} is not empty: nothing was changed, choose another one", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// Somebody else has the directory.
    #[error(
        "the directory {} is in use by another store, in this process or another one: stop that one first, or choose \
         another directory",
        dir.display()
    )]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// The directory holds what a newer version wrote. Nothing was changed.
    #[error(
        "{}: {what}, which this version can't read (it knows version {known}); nothing was changed, open it with the \
         version that wrote it",
        path.display(),
        known = crate::format::VERSION
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// What is new about it.
        what: String,
    },
    /// A file that the store needs is not there. Nothing was changed.
    #[error(
        "{}: the file is missing; nothing was changed: put it back, or restore the directory from a backup",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The log does not begin as one. Nothing was changed.
    #[error(
        "{}: {reason}: it is no log, or its beginning is damaged; nothing was changed: restore the file from a backup, or \
         choose another directory",
        path.display()
    )]
    NotALog {
        /// The file.
        path: PathBuf,
        /// What is wrong with its first bytes.
        reason: &'static str,
    },
    /// A file without which nothing can be told is damaged. Nothing was changed.
    #[error(
        "{}: damaged at byte {offset}: {reason}; nothing was changed: restore the directory from a backup",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged part begins, bytes.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A point of a series that the store does not know.
    #[error("point {index} is of series {}, which the store does not know: resolve its key first", series.0)]
    UnknownSeries {
        /// Which point of the batch, from 0.
        index: usize,
        /// The id.
        series: SeriesId,
    },
    /// A value that is NaN or infinite.
    #[error("point {index} has the value {value}, which is not finite")]
    NotFinite {
        /// Which point of the batch, from 0.
        index: usize,
        /// The value.
        value: f64,
    },
    /// More points in one write than can ever find room.
    #[error(
        "a write of {points} points, at most {points_max} fit at once (pending_bytes_max, memtable_bytes_max): send fewer"
    )]
    BatchTooBig {
        /// How many there were.
        points: usize,
        /// How many may be.
        points_max: usize,
    },
    /// Too much waits for the disk, in the log (`pending_bytes_max`) or in memory (`memtable_bytes_max`). Nothing was stored.
    #[error("too much waits for the disk, no more is taken: try again after the next commit")]
    Busy,
    /// The disk is full. Nothing was stored. Reading goes on, and writing goes on by itself once there is space.
    #[error("the disk is full ({failure}): free some space; writing goes on by itself then, reading goes on as it is")]
    DiskFull {
        /// What happened.
        failure: Arc<Failure>,
    },
    /// A new series beyond the limit. Nothing was stored.
    #[error("there are {series_max} series already, the most that are allowed (series_max)")]
    TooManySeries {
        /// The limit that was reached.
        series_max: u32,
    },
    /// The store is being closed, which ended what was going on. Nothing was changed.
    #[error("the store is being closed: what was going on was ended, and nothing was changed by it")]
    Closing,
    /// The disk failed. What was acknowledged is safe, reading goes on, nothing is written until the store is opened again.
    #[error(
        "the store only reads since its disk failed ({failure}): what was acknowledged is safe; see to the disk, then \
         open it again"
    )]
    ReadOnly {
        /// What happened.
        failure: Arc<Failure>,
    },
}

/// What made the store refuse writes.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {} at byte {offset}: {source}", path.display())]
pub struct Failure {
    /// What was being done.
    pub doing: &'static str,
    /// To which file.
    pub path: PathBuf,
    /// Where in it, bytes.
    pub offset: u64,
    /// What the system said. [`io::ErrorKind::StorageFull`] where the disk is full.
    pub source: io::Error,
}

impl Failure {
    /// The same once more: the system's errors can't be cloned.
    pub(crate) fn again(&self) -> Self {
        let source = io::Error::new(self.source.kind(), self.source.to_string());
        Self { doing: self.doing, path: self.path.clone(), offset: self.offset, source }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure { doing, path, source, .. } = failure;
        Self::io(doing, path)(source)
    }
}

impl Error {
    /// As what makes the store refuse writes.
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::Io { doing, path, source } => {
                let source = io::Error::new(source.kind(), source.to_string());
                Failure { doing, path, offset: 0, source }
            }
            other => Failure {
                doing: "flushing to",
                path: "segments".into(),
                offset: 0,
                source: io::Error::other(other.to_string()),
            },
        }
    }

    /// Whether it is that the disk is full.
    pub(crate) fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull)
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source: Arc::new(source) }
    }
}
