//! Live queries: what they keep, what feeds them and how their updates get out. No I/O, no clock.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod contents;
mod error;
mod feeds;
mod live;
mod loading;
mod panes;
mod points;
mod sliding;
mod subscriber;
mod sync;
mod time;
mod total;
mod update;
mod view;
mod window;

pub use error::Error;
pub use live::{Keys, Live, Options, QUEUE_UPDATES_MAX, Stats, Wakes, WindowState, WindowStats};
pub use loading::{Loading, Place, Recorded};
pub use subscriber::{HandleStats, Subscriber};
pub use update::{HandleId, PRODUCERS_MAX, Producers, Update};
