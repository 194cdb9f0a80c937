//! Keeps series and points: durable in a log, small in segments, fast to ask.

#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod commit;
mod damage;
mod disk;
#[cfg(test)]
mod dump;
mod error;
mod fields;
mod format;
mod log;
mod manifest;
mod memory;
mod options;
mod output;
mod pieces;
mod records;
mod recover;
mod segment;
mod series;
pub mod sim;
mod snapshot;
mod store;
mod stretches;
pub mod tools;
mod upkeep;
mod version;
mod vfs;
mod work;

pub use damage::Damage;
pub use error::{Error, Failure};
pub use options::{Options, Recovery, Stats, Trimmed};
pub use snapshot::Snapshot;
pub use store::{Deleted, Store};
pub use stretches::{Bucket, BucketValue};
pub use vfs::{File, Lock, OsVfs, Vfs};

/// The name of the manifest.
const MANIFEST: &str = "manifest";
/// The directory for what is damaged.
const QUARANTINE: &str = "quarantine";
const SEGMENT_PREFIX: &str = "seg-";
const SERIES_PREFIX: &str = "series-";

fn segment_name(number: u64) -> String {
    format!("{SEGMENT_PREFIX}{number:08}")
}

fn series_name(number: u64) -> String {
    format!("{SERIES_PREFIX}{number:08}")
}
