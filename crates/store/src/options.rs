//! What can be set, with the reasons for the defaults, and what the store tells of itself.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::Error;

/// The limits and the pace of a store.
///
/// ```
/// use slung_store::Options;
/// let options = Options { points_max: 1_000_000, ..Options::default() };
/// assert_eq!(options.commit_bytes_max, 1 << 20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How many series there may be. Default 1,000,000: with keys of a hundred bytes they take some 800 MB of memory, and
    /// who has more has most often put something unbounded into a tag. A new series beyond it is refused; those that
    /// the log holds already are always taken.
    pub series_max: u32,
    /// How long after the beginning of one commit the next one may begin while there is less than `commit_bytes_max` to
    /// commit. Default 5 ms: a sync takes 0.2 to 4 ms, so that writers share one, and a wait that nobody sees. Longer means
    /// fewer syncs and later acknowledgements; zero means that a commit begins as soon as the one before is done, which
    /// suits a lone writer that waits for each of its writes (4,000 a second instead of 200).
    /// After a pause of this length a write is committed at once.
    pub commit_interval: Duration,
    /// With so many bytes waiting, a commit begins before the interval is over. Default 1 MiB (52,000 points): larger
    /// ones gain no speed. At least 1.
    pub commit_bytes_max: usize,
    /// How many bytes may be visible and not yet durable; also the largest single write. Default 32 MiB (1.6 million
    /// points): what a common disk takes in a quarter of a second, so that a slow sync stops no writer. Beyond it
    /// [`crate::Store::try_write`] answers [`Error::Busy`] and [`crate::Store::write`] waits. Memory for it may be taken
    /// twice. 4 KiB to 512 MiB.
    pub pending_bytes_max: usize,
    /// How many points the store may hold, all of them in memory, 24 bytes each. Default 40,000,000, about 1 GB. A write
    /// that might go beyond is refused with [`Error::Full`] (each of its points counts as a new one); what the log holds
    /// already is always loaded.
    pub points_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            series_max: 1_000_000,
            commit_interval: Duration::from_millis(5),
            commit_bytes_max: 1 << 20,
            pending_bytes_max: 32 << 20,
            points_max: 40_000_000,
        }
    }
}

impl Options {
    /// # Errors
    /// [`Error::Option`] names the first that is out of range.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let value = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        if self.commit_bytes_max == 0 {
            return Err(Error::Option { name: "commit_bytes_max", value: 0, must: "at least 1" });
        }
        // The upper end keeps the length of a record, definitions included, within its u32.
        if !(4 << 10..=512 << 20).contains(&self.pending_bytes_max) {
            let value = value(self.pending_bytes_max);
            return Err(Error::Option { name: "pending_bytes_max", value, must: "4 KiB to 512 MiB" });
        }
        Ok(())
    }
}

/// What was found when the store was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// How many series there are.
    pub series: u64,
    /// How many points there are, each series and timestamp once.
    pub points: u64,
    /// The log's length, bytes, without what was trimmed.
    pub log_bytes: u64,
    /// What a crash had left torn at the log's end, and was cut off. It had never been acknowledged.
    pub trimmed: Option<Trimmed>,
}

/// The torn end of a log, cut off when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trimmed {
    /// The log.
    pub path: PathBuf,
    /// Where it now ends, bytes.
    pub offset: u64,
    /// How many bytes were cut off.
    pub bytes: u64,
    /// What was wrong with them.
    pub reason: String,
}

impl fmt::Display for Trimmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, offset, bytes, reason } = self;
        write!(f, "{}: cut off the torn end, {bytes} bytes from byte {offset} on ({reason})", path.display())
    }
}

/// What there is to count. Everything but the first four, `durable_through` and `last` starts at 0 when the store is
/// opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Series that are known.
    pub series: u64,
    /// Points that are held, each series and timestamp once.
    pub points: u64,
    /// The log's length, bytes; what waits for the disk is not in it.
    pub log_bytes: u64,
    /// Bytes that wait for the disk.
    pub pending_bytes: u64,
    /// The last point that was written.
    pub last: u64,
    /// The last point that is durable.
    pub durable_through: u64,
    /// Writes that were taken.
    pub writes: u64,
    /// Points that were taken.
    pub points_written: u64,
    /// Those of them that replaced a point of the same series and timestamp.
    pub points_replaced: u64,
    /// Writes, and new series, that found no room and were not let wait.
    pub busy: u64,
    /// Commits that succeeded.
    pub commits: u64,
    /// Time that the system took for syncing, microseconds in all.
    pub sync_micros: u64,
    /// The longest of them, microseconds.
    pub sync_micros_max: u64,
}
