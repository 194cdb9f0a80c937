//! Keeps series and points: durable in a log, fast to ask in memory.

#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod commit;
#[allow(dead_code, reason = "the store does not write segments yet")]
mod damage;
#[cfg(test)]
mod dump;
mod error;
#[allow(dead_code, reason = "the store does not write segments yet")]
mod fields;
mod format;
mod log;
#[allow(dead_code, reason = "the store does not write segments yet")]
mod manifest;
mod memory;
mod options;
#[allow(dead_code, unused_imports, reason = "the store does not write segments yet")]
mod segment;
pub mod sim;
mod snapshot;
mod store;
mod vfs;

pub use damage::Damage;
pub use error::{Error, Failure};
pub use options::{Options, Recovery, Stats, Trimmed};
pub use snapshot::Snapshot;
pub use store::Store;
pub use vfs::{File, Lock, OsVfs, Vfs};
