//! Live queries: what they keep, what feeds them and how their updates get out. No I/O, no clock.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod error;
mod live;
mod points;
mod subscriber;
mod sync;
mod time;
mod update;
mod window;

pub use error::Error;
pub use live::{Live, Options, QUEUE_UPDATES_MAX, Stats, Wakes, WindowState, WindowStats};
pub use subscriber::{HandleStats, Subscriber};
pub use update::{HandleId, PRODUCERS_MAX, Producers, Update};
