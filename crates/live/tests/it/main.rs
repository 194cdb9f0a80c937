//! What a user of the crate relies on, from outside.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod delivery;
mod model;
mod panes;
mod sharing;
mod support;
mod windows;
