//! Keeps series and points: durable in a log, fast to ask in memory.

#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod commit;
mod error;
mod format;
mod log;
mod memory;
mod options;
pub mod sim;
mod snapshot;
mod store;
mod vfs;

pub use error::{Error, Failure};
pub use options::{Options, Recovery, Stats, Trimmed};
pub use snapshot::Snapshot;
pub use store::Store;
pub use vfs::{File, Lock, OsVfs, Vfs};
