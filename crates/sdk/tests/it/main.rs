//! The SDK as a workflow uses it, against the host that ships with it.

mod calls;
mod entry;
mod host;
mod polling;
