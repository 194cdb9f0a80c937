//! What can't be read, and what is missing because of it.

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use slung_model::{SeriesId, TimeRange};

use crate::Error;

/// A part of a file that can't be believed any more. An answer that needs it is partial; all else is unharmed.
///
/// ```
/// use slung_model::{SeriesId, TimeRange};
/// use slung_store::Damage;
/// let damage = Damage {
///     path: "data/seg-00000007".into(),
///     offset: 4096,
///     reason: "the checksum of a chunk is wrong".into(),
///     series: Some(SeriesId(3)),
///     range: TimeRange::between(1_000, 2_000),
/// };
/// assert_eq!(
///     damage.to_string(),
///     "data/seg-00000007: damaged at byte 4096: the checksum of a chunk is wrong; points of series 3 from 1000 to 2000 \
///      may be missing"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where the damaged part begins, bytes.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: String,
    /// Whose points may be missing; `None` where it may be those of any series.
    pub series: Option<SeriesId>,
    /// From when to when points may be missing, both included.
    pub range: TimeRange,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: damaged at byte {}: {}; points of ", self.path.display(), self.offset, self.reason)?;
        match self.series {
            Some(series) => write!(f, "series {}", series.0)?,
            None => f.write_str("any series")?,
        }
        write!(f, " from {} to {} may be missing", self.range.start, self.range.end)
    }
}

/// Why a segment or a manifest was not read.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ReadError {
    /// The system failed. Trying again may help.
    #[error(transparent)]
    Io(Error),
    /// The bytes are not those that were written. Nothing was changed.
    #[error("{0}")]
    Damaged(Damage),
    /// A newer version wrote it. Nothing was changed.
    #[error("{}: format version {version}, which this version can't read", path.display())]
    Newer { path: PathBuf, version: u32 },
}

/// For what must be good: damage is an error like any other.
impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => error,
            ReadError::Damaged(Damage { path, offset, reason, .. }) => Self::Damaged { path, offset, reason },
            ReadError::Newer { path, version } => {
                Self::Newer { path, what: format!("a file of format version {version}") }
            }
        }
    }
}

impl ReadError {
    /// What the system said about reading a file that must be so long: that it isn't is damage.
    pub(crate) fn io(
        doing: &'static str,
        path: &Path,
        offset: u64,
        series: Option<SeriesId>,
        range: TimeRange,
    ) -> impl FnOnce(std::io::Error) -> Self {
        move |source| {
            if source.kind() != ErrorKind::UnexpectedEof {
                return Self::Io(Error::io(doing, path)(source));
            }
            let reason = "the file ends too early".into();
            Self::Damaged(Damage { path: path.into(), offset, reason, series, range })
        }
    }
}
