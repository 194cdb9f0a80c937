//! End to end: the real binary, real sockets, real files, and the workflows as `cargo xtask build-workflows` leaves them.

mod commands;
mod durability;
mod idle;
mod ingest;
mod server;
mod workflows;
