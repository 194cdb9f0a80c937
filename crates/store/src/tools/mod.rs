//! Looking at a store's directory from outside, also while another process has it open and writes: what is in it, whether
//! every byte of it is right, and copies of it. Nothing here changes the directory that it looks at.

mod copy;
mod inspect;
mod verify;

use std::io::ErrorKind;

pub use self::copy::{Copied, backup, restore};
pub use self::inspect::{FileSize, Inspection, PartitionInfo, SegmentInfo, SeriesSize, inspect};
pub use self::verify::{Found, Verified, verify};

use crate::Error;

/// How far a tool has come, bytes. `total` may grow while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// What is done.
    pub done: u64,
    /// What there is to do.
    pub total: u64,
}

/// Tries again where a file is missing: a store that writes removes what it has merged or flushed, and has named what took
/// its place in the manifest before. It may do so once more meanwhile, but not as often as this is tried; what is missing shows
/// before the log is read, which is what takes time.
pub(crate) fn settled<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    const TRIES: usize = 100;
    let mut tries = 0;
    loop {
        tries += 1;
        match attempt() {
            Err(Error::Missing { .. }) if tries < TRIES => {}
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound && tries < TRIES => {}
            done => return done,
        }
    }
}
