//! What a workflow author writes against: live and historical queries, and what to do about their answers.
#![doc = include_str!("../README.md")]

mod calls;
#[doc(hidden)]
pub mod entry;
#[cfg(target_arch = "wasm32")]
mod guest;
mod imports;
mod region;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use calls::{
    PollState, QueryHandle, Result, WritebackMethod, free_handle, poll_handle, poll_handle_once, poll_handle_state,
    query_history, query_live, unix_micros, write_event, writeback_http, writeback_ws,
};
pub use region::Region;
pub use slung_abi::Event;
pub use slung_macros::{main, query};

/// All that a workflow needs: `use slung::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Event, PollState, QueryHandle, Result, WritebackMethod, free_handle, main, poll_handle, poll_handle_once,
        poll_handle_state, query, query_history, query_live, unix_micros, write_event, writeback_http, writeback_ws,
    };
}
