//! A query.
#![no_main]

#[path = "../crates/net/tests/it/targets.rs"]
#[expect(dead_code, reason = "each program drives one of the targets")]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::query(bytes));
