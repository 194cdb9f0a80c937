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
    /// The system failed while the store was being opened.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
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
    /// The log is damaged elsewhere than at the end that a crash may tear. Nothing was changed.
    #[error(
        "{}: damaged at byte {offset}: {reason}; this is not the torn end that a crash leaves, so nothing was changed: \
         restore the file from a backup, or, to give up all that follows, cut a copy of it to {offset} bytes",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged record begins, bytes.
        offset: u64,
        /// What is wrong with it, and how it is known that it is not the torn end.
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
    #[error("a write of {points} points, at most {points_max} fit at once (pending_bytes_max): send fewer")]
    BatchTooBig {
        /// How many there were.
        points: usize,
        /// How many may be.
        points_max: usize,
    },
    /// Too much waits for the disk. Nothing was stored.
    #[error("{pending_bytes_max} bytes wait for the disk, no more are taken: try again after the next commit")]
    Busy {
        /// The limit that was reached.
        pending_bytes_max: usize,
    },
    /// The store holds as many points as it may. Nothing was stored.
    #[error(
        "the store is full: it keeps its points in memory and may hold {points_max} of them (points_max); reading goes \
         on, to write raise the limit and open it again, or start with a new directory"
    )]
    Full {
        /// The limit that was reached.
        points_max: u64,
    },
    /// A new series beyond the limit. Nothing was stored.
    #[error("there are {series_max} series already, the most that are allowed (series_max)")]
    TooManySeries {
        /// The limit that was reached.
        series_max: u32,
    },
    /// The log could not be written. What was acknowledged is safe, reading goes on, nothing is written until the store
    /// is opened again.
    #[error(
        "the store only reads since its log failed ({failure}): what was acknowledged is safe; see to the disk, then \
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

impl Error {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source: Arc::new(source) }
    }
}
