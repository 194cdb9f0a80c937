//! The store on disks that fail, lie, run full and rot, and beside others that use the same directory.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should say where; not all of it is in test functions")]

mod clock;
mod common;
mod corruption;
mod disk_full;
mod sharing;
mod sweep;
