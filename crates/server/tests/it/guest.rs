//! Guests as text, for what no example workflow does.

use std::fmt::Write;
use std::path::Path;

use slung_abi::Region;

/// What a guest of [`polling`] can call.
const IMPORTS: &str = r#"
    (import "env" "u_query_live" (func $query_live (param i32) (result i64)))
    (import "env" "u_poll_handle" (func $poll (param i64) (result i32)))
    (import "env" "u_write_event" (func $write_event (param i32 i32 i32) (result i32)))
    (import "env" "u_writeback_ws" (func $writeback_ws (param i64 i32) (result i32)))
    (import "env" "u_writeback_http" (func $writeback_http (param i32 i32 i32) (result i32)))"#;

/// What the host allocates is given up with the next poll.
const ALLOCATE: &str = r#"
    (memory (export "memory") 16)
    (global $next (mut i32) (i32.const 65536))
    (func (export "allocate") (param i32) (result i32)
        (global.get $next)
        (global.set $next (i32.add (global.get $next) (local.get 0))))
    (func (export "deallocate") (param i32))"#;

/// Writes a module that polls its only live query for ever. After each poll it does `then`, where `$event` is the
/// address of the event, or 0. Of the texts the first one is the query; each has its Region 1,024 bytes after the one
/// before, from 1,024 on.
pub(crate) fn polling(path: &Path, texts: &[&str], then: &str) {
    let mut data = String::new();
    for (at, text) in (1_024..).step_by(1_024).zip(texts) {
        let length = u32::try_from(text.len()).unwrap();
        let region = Region { offset: at + Region::SIZE as u32, capacity: length, length };
        let bytes = [&region.encode()[..], text.as_bytes()].concat();
        let escaped: String = bytes.iter().map(|byte| format!("\\{byte:02x}")).collect();
        writeln!(data, "(data (i32.const {at}) \"{escaped}\")").unwrap();
    }
    let call = format!(
        r#"(func (export "call") (result i32) (local $handle i64) (local $event i32)
            (local.set $handle (call $query_live (i32.const 1024)))
            (loop $forever
                (global.set $next (i32.const 65536))
                (local.set $event (call $poll (local.get $handle)))
                {then}
                (br $forever))
            (unreachable))"#
    );
    let module = format!("(module {IMPORTS} {ALLOCATE} {data} {call})");
    std::fs::write(path, wat::parse_str(&module).unwrap_or_else(|error| panic!("{error}\n{module}"))).unwrap();
}
