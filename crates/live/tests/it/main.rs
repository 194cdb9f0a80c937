//! What a user of the crate relies on, from outside.

mod delivery;
mod model;
mod support;
mod windows;
