//! The time-series engine as one thing: history and live queries without a gap between them.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod engine;
mod error;
mod reads;
mod seam;
mod sync;

pub use engine::{Answer, Engine, Options, Stats};
pub use error::Error;
pub use reads::{Buckets, Page};
