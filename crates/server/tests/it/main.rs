//! End to end: the real binary, real sockets, real files, and the workflows as `cargo xtask build-workflows` leaves them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod commands;
mod deploy;
mod directory;
mod durability;
mod feedback;
mod full;
mod guest;
mod http;
mod idle;
mod ingest;
mod kill;
mod languages;
mod live;
mod nab;
mod recipes;
mod server;
mod silence;
mod soak;
mod workflow_commands;
mod workflows;
