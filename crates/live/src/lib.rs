//! Live queries: what they keep, what feeds them and how their updates get out. No I/O, no clock.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod contents;
mod error;
mod feeds;
mod live;
mod loading;
mod options;
mod panes;
mod points;
mod sliding;
mod stats;
mod subscriber;
mod sync;
mod time;
mod total;
mod update;
mod view;
mod window;

pub use error::Error;
pub use live::{Keys, Live, Wakes};
pub use loading::{Loading, Place, Recorded};
pub use options::{Options, QUEUE_UPDATES_MAX};
pub use stats::{Stats, WindowState, WindowStats};
pub use subscriber::{HandleStats, Subscriber};
pub use update::{HandleId, PRODUCERS_MAX, Producers, Update};
