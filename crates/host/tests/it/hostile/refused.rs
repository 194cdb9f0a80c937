//! What is never run: `check.rs` has all ways of being wrong, here are those that somebody would try.

use super::{Row, call, calling};
use crate::fixture::{guest, guest_importing, parse};

/// All that has to be exported, but for the memory.
const EXPORTS: &str = r#"(func (export "allocate") (param i32) (result i32) (i32.const 0))
    (func (export "deallocate") (param i32)) (func (export "call") (result i32) (i32.const 0))"#;

/// A module with this, and all that it needs otherwise.
fn module(part: &str) -> Vec<u8> {
    parse(&format!(r#"(module {part} (memory (export "memory") 1) {EXPORTS})"#))
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = bytes();
    rows.extend(contract());
    rows.extend(features());
    rows.extend(sizes());
    rows
}

fn bytes() -> Vec<Row> {
    let no_module = "this is no WebAssembly module";
    let cut = calling("").split_last_chunk::<20>().expect("it is longer").0.to_vec();
    let mut flipped = calling("");
    flipped[8] = 0xff;
    vec![
        Row::new("an empty file", Vec::new(), no_module),
        Row::new("the text format", b"(module)".to_vec(), no_module),
        Row::new("a program for this machine", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec(), no_module),
        Row::new("a component", parse("(component)"), "this is a WebAssembly component"),
        Row::new(
            "a module cut off",
            cut,
            "the module is malformed: failed to parse WebAssembly module: unexpected end-of-file",
        ),
        Row::new("a section of an unknown kind", flipped, "malformed section id"),
        Row::new("a function that lies about its type", module("(func (result i64) (i32.const 0))"), "type mismatch"),
        Row::new("a stack that runs empty", module("(func drop)"), "expected a type but nothing on stack"),
        Row::new("a call into nowhere", module("(func call 4000000000)"), "unknown function 4000000000"),
        Row::new("two exports of one name", module(r#"(func (export "a")) (func (export "a"))"#), "duplicate export"),
    ]
}

fn contract() -> Vec<Row> {
    let memory = r#"(memory (export "memory") 1)"#;
    let without = |name: &str| {
        let hidden = format!("{memory} {EXPORTS}").replace(&format!("(export \"{name}\")"), "");
        parse(&format!("(module {hidden})"))
    };
    vec![
        Row::new(
            "asks for a host function that there is not",
            module(r#"(import "env" "system" (func (param i32)))"#),
            "unknown import `env.system`",
        ),
        Row::new(
            "asks for files by an older name of WASI",
            module(r#"(import "wasi_unstable" "path_open" (func))"#),
            "unknown import `wasi_unstable.path_open`",
        ),
        Row::new(
            "a host function of another signature",
            module(r#"(import "env" "u_poll_handle" (func (param i32) (result i32)))"#),
            "import `env.u_poll_handle` is a function (i32) -> i32, provided is a function (i64) -> i32",
        ),
        Row::new(
            "the host's memory",
            parse(&format!(r#"(module (import "env" "memory" (memory 1)) (export "memory" (memory 0)) {EXPORTS})"#)),
            "unknown import `env.memory`",
        ),
        Row::new("no memory", without("memory"), "export `memory` is missing"),
        Row::new("no `allocate`", without("allocate"), "export `allocate` is missing"),
        Row::new("no `deallocate`", without("deallocate"), "export `deallocate` is missing"),
        Row::new("no way in", without("call"), "nothing to start"),
        Row::new(
            "a way in that asks for something",
            guest(r#"(func (export "call") (param i32) (result i32) (i32.const 0))"#),
            "export `call` is a function (i32) -> i32, needed is a function () -> i32",
        ),
        Row::new(
            "names that steer a terminal",
            guest_importing(r#"(import "\1b[2J" "\1b]0;x\07" (func))"#, &call("")),
            "unknown import `\\u{1b}[2J.\\u{1b}]0;x\\u{7}`",
        ),
    ]
}

/// Everything that is switched off, by the reason with which it is refused.
fn features() -> Vec<Row> {
    [
        ("memory64", "(memory i64 1)", "memory64"),
        ("multi-memory", "(memory 1) (memory 1)", "multiple memories"),
        ("tail calls", "(func (return_call 0))", "tail calls support is not enabled"),
        (
            "relaxed SIMD",
            "(func (param v128 v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 1))))",
            "relaxed SIMD support is not enabled",
        ),
        ("threads", "(memory 1 1 shared)", "threads must be enabled"),
        ("atomics", "(memory 1) (func (drop (i32.atomic.load (i32.const 0))))", "threads support is not enabled"),
        ("custom page sizes", "(memory 1 (pagesize 1))", "custom page sizes"),
        ("exceptions", "(tag)", "exceptions"),
        (
            "function references",
            "(type (func)) (func (param (ref 0)) (call_ref 0 (local.get 0)))",
            "function references",
        ),
        ("garbage collection", "(type (struct))", "gc"),
        ("stack switching", "(type $f (func)) (type (cont $f))", "stack switching"),
        (
            "wide arithmetic",
            "(func (param i64 i64 i64 i64) (result i64 i64)
            (i64.add128 (local.get 0) (local.get 1) (local.get 2) (local.get 3)))",
            "wide arithmetic support is not enabled",
        ),
    ]
    .map(|(does, part, reason)| {
        let off = "the module uses a WebAssembly feature that this host does not have: ";
        Row::new(does, parse(&format!("(module {part})")), off).logs(reason)
    })
    .into()
}

fn sizes() -> Vec<Row> {
    let locals = format!("(func (local {}))", "i64 ".repeat(50_001));
    let long_name = format!(r#"(import "env" "{}" (func))"#, "x".repeat(100_001));
    vec![
        Row::new(
            "a module over the limit",
            module(&format!(r#"(@custom "padding" "{}")"#, "x".repeat(512 * 1024))),
            "at most 524288 are allowed",
        ),
        Row::new(
            "4 GiB of memory from the start",
            parse(&format!("(module (memory (export \"memory\") 65536) {EXPORTS})")),
            "the memory starts with 4294967296 bytes, at most 4194304 are allowed",
        ),
        Row::new("a table of four billion elements", module("(table 4000000000 funcref)"), "elements"),
        Row::new("a hundred tables", module(&"(table 1 funcref)".repeat(100)), "100 tables of up to 1 elements"),
        Row::new("more locals than there may be", module(&locals), "too many locals"),
        Row::new("a name of 100,001 bytes", module(&long_name), "string size out of bounds"),
        Row::new(
            "more parameters than there may be",
            module(&format!("(func (param {}))", "i32 ".repeat(1_001))),
            "function params size is out of bounds",
        ),
    ]
}
