//! Inspection, verification and copies of a directory: alone, damaged, and beside a store that writes.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should say where; not all of it is in test functions")]

mod common;
mod copies;
mod inspecting;
mod verifying;
