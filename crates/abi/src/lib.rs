//! What a Slung host and its WebAssembly guests agree on, bit for bit: Region, the tables of imports and exports, the
//! event payload, the codes and the limits. Frozen: later additions go into an import module of their own.
#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "serde")]
extern crate alloc;

mod codes;
#[cfg(feature = "serde")]
mod event;
pub mod limits;
mod region;
mod tables;

pub use codes::{CallResult, FAILED, HttpMethod, OK};
#[cfg(feature = "serde")]
pub use event::{Event, EventRef};
pub use region::{Region, RegionError, span};
pub use tables::{
    EXPORTS, Export, ExportKind, FUNCTIONS, HostFunction, IMPORT_MODULE, Import, Needed, Signature, ValueType,
    WASI_MODULE,
};
