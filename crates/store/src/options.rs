//! What can be set, with the reasons for the defaults, and what the store tells of itself.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Damage, Error, format};

/// The limits and the pace of a store.
///
/// ```
/// use slung_store::Options;
/// let options = Options { memtable_bytes_max: 64 << 20, ..Options::default() };
/// assert_eq!(options.commit_bytes_max, 1 << 20);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How many series there may be. Default 1,000,000: with keys of a hundred bytes they take some 800 MB of memory, and
    /// who has more has most often put something unbounded into a tag. A new series beyond it is refused; those that
    /// the log holds already are always taken.
    pub series_max: u32,
    /// How long after the beginning of one commit the next one may begin for what came while that one was written, as long
    /// as it is less than `commit_bytes_max` and nobody waits for it. Default 5 ms: a sync takes 0.2 to 4 ms, so that
    /// writers share one, and a wait that nobody sees. Longer means fewer syncs and later acknowledgements; zero means that
    /// a commit begins as soon as the one before is done. What is written while the log has nothing to do is committed at
    /// once, and so is what somebody waits for.
    pub commit_interval: Duration,
    /// With so many bytes waiting, a commit begins before the interval is over. Default 1 MiB (52,000 points): larger
    /// ones gain no speed. At least 1.
    pub commit_bytes_max: usize,
    /// How many bytes may be visible and not yet durable; also the largest single write. Default 32 MiB (1.6 million
    /// points): what a common disk takes in a quarter of a second, so that a slow sync stops no writer. Beyond it
    /// [`crate::Store::try_write`] answers [`Error::Busy`] and [`crate::Store::write`] waits. Memory for it may be taken
    /// twice. 4 KiB to 512 MiB.
    pub pending_bytes_max: usize,
    /// How long a file of the log grows, bytes, before the next one begins. Default 64 MiB (3.3 million points). An older
    /// file goes when all that is in it was flushed, so a smaller one frees space sooner; each new one takes some syncs.
    pub log_file_bytes_max: u64,
    /// What points that are not on disk as segments yet take in memory at most, bytes, 16 to 32 for a point. Default
    /// 256 MiB. At half of it they are flushed in the background; where that does not keep up, writes wait at the whole.
    /// Less means smaller segments, and more work to merge them; more means that a start after a crash takes longer (1.3
    /// bytes of log for each of these at most, some 30 million points a second). 64 KiB at least. Beside it a series takes
    /// 24 bytes, twice while a flush runs.
    pub memtable_bytes_max: usize,
    /// How much time a segment covers at most, microseconds; segments are cut where that begins anew, counted from 1970.
    /// Default a week: retention gives up whole partitions, and late data makes only those of its own time be merged again.
    /// At least a second.
    pub partition_micros: i64,
    /// What the index of segments takes in memory at most, bytes. Default 32 MiB, the summaries of some 150,000 chunks of
    /// up to 8,192 points. What does not fit is read from disk again.
    pub index_cache_bytes_max: u64,
    /// Bytes on disk that are given up when it is full, so that retention and deletion, which have to write before they free
    /// anything, still can. Default 1 MiB. 0 goes without.
    pub reserve_bytes: usize,
    /// How long points are kept after their own time, microseconds. Off by default. Seen from the newest point or from the
    /// clock, whichever is earlier, so that neither a wrong clock nor one wrong point makes all the others go; and by whole
    /// partitions, so that a point stays up to one partition longer.
    pub retention_micros: Option<i64>,
    /// What the segments take on disk at most, bytes. Off by default. Beyond it the oldest partitions go.
    pub disk_bytes_max: Option<u64>,
    /// Whether threads of the store flush, merge segments and give up old ones. Default true. Otherwise that happens only in
    /// [`crate::Store::flush`] and [`crate::Store::upkeep`], and in writes that find no room: for tests that need the same
    /// calls each time, and for who has a thread of his own for it.
    pub background: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            series_max: 1_000_000,
            commit_interval: Duration::from_millis(5),
            commit_bytes_max: 1 << 20,
            pending_bytes_max: 32 << 20,
            log_file_bytes_max: 64 << 20,
            memtable_bytes_max: 256 << 20,
            partition_micros: 7 * 24 * 3600 * 1_000_000,
            index_cache_bytes_max: 32 << 20,
            reserve_bytes: 1 << 20,
            retention_micros: None,
            disk_bytes_max: None,
            background: true,
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
        if self.memtable_bytes_max < 64 << 10 {
            let value = value(self.memtable_bytes_max);
            return Err(Error::Option { name: "memtable_bytes_max", value, must: "at least 64 KiB" });
        }
        if self.partition_micros < 1_000_000 {
            let value = u64::try_from(self.partition_micros).unwrap_or(0);
            return Err(Error::Option { name: "partition_micros", value, must: "at least a second (1000000)" });
        }
        if self.retention_micros.is_some_and(|micros| micros <= 0) {
            return Err(Error::Option {
                name: "retention_micros",
                value: 0,
                must: "above 0; without it nothing is given up",
            });
        }
        Ok(())
    }

    /// How many points one write may have: so many that they take a quarter of the memory for points, and fit into a record.
    pub(crate) fn batch_points_max(&self) -> usize {
        let in_log = (self.pending_bytes_max - format::points_entry_bytes(0)) / format::POINT_BYTES;
        in_log.min(self.memtable_bytes_max / 4 / 16)
    }
}

/// What was found when the store was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// How many series there are.
    pub series: u64,
    /// How many points there are. Of several with one series and timestamp all count until they are merged.
    pub points: u64,
    /// The log's length, bytes: what was read again.
    pub log_bytes: u64,
    /// What a crash had left torn at the log's end. It had never been acknowledged, and does not count.
    pub trimmed: Option<Trimmed>,
    /// What is damaged and was kept aside, now or before, in the directory `quarantine`. Answers that may lack something
    /// because of it say so, until the file there is removed and the store opened again.
    pub damage: Vec<Damage>,
}

/// The torn end of a log, which does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trimmed {
    /// The log.
    pub path: PathBuf,
    /// Where the torn end begins, bytes.
    pub offset: u64,
    /// How long it is.
    pub bytes: u64,
    /// What was wrong with them.
    pub reason: String,
}

impl fmt::Display for Trimmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, offset, bytes, reason } = self;
        write!(f, "{}: left out the torn end, {bytes} bytes from byte {offset} on ({reason})", path.display())
    }
}

/// What there is to count. From `writes` on everything starts at 0 when the store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Series that are known.
    pub series: u64,
    /// Points that are held. Of several with one series and timestamp all count until they are merged.
    pub points: u64,
    /// The log's length, bytes; what waits for the disk is not in it.
    pub log_bytes: u64,
    /// Bytes that wait for the disk.
    pub pending_bytes: u64,
    /// What points that are in no segment yet take in memory, bytes.
    pub memtable_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// How long they are, bytes.
    pub segment_bytes: u64,
    /// Files that are damaged, as far as is known.
    pub damaged: u64,
    /// The last point that was written.
    pub last: u64,
    /// The last point that is durable.
    pub durable_through: u64,
    /// Writes that were taken.
    pub writes: u64,
    /// Points that were taken.
    pub points_written: u64,
    /// Those that were found to be replaced by a later one of the same series and timestamp before they got to a segment.
    pub points_replaced: u64,
    /// Writes, and new series, that found no room and were not let wait.
    pub busy: u64,
    /// Commits that succeeded.
    pub commits: u64,
    /// Time that the system took for syncing, microseconds in all.
    pub sync_micros: u64,
    /// The longest of them, microseconds.
    pub sync_micros_max: u64,
    /// Times that points went from memory to segments.
    pub flushes: u64,
    /// Times that segments were merged.
    pub compactions: u64,
    /// Times that merging or giving up old points failed, for want of space mostly. It is tried again.
    pub upkeep_failures: u64,
}
