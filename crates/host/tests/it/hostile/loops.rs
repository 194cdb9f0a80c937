//! What never comes back, takes what it can get, or ends badly.

use super::{Row, call, calling};
use crate::fixture::{guest, guest_importing, guest_with, text};

const SPIN: &str = "(loop $spin (br $spin))";
/// What ends a guest that computes for too long.
const TOO_LONG: &str = "failed: it computed for 30 ms without a host function (`compute_ms_max`)";

pub(super) fn rows() -> Vec<Row> {
    let mut rows = endless();
    rows.extend(endless_in_the_machine());
    rows.extend(recursion());
    rows.extend(bombs());
    rows.extend(ends());
    rows.extend(sleepers());
    rows
}

/// Polls for an event, for which the host calls this `allocate`; and again, for which it may have to call `deallocate`.
fn polling(allocate: &str) -> Vec<u8> {
    let polls =
        "(drop (call $query_live (i32.const 100))) (drop (call $poll (i64.const 1))) (drop (call $poll (i64.const 1)))";
    guest_with(allocate, &format!("{} {}", text(100, "temp:[]"), call(polls)))
}

/// A loop around this, without a host function.
fn again(body: &str) -> String {
    format!("(loop $again {body} (br $again))")
}

fn endless() -> Vec<Row> {
    let in_allocate = format!(
        r#"(func (export "allocate") (param i32) (result i32) {SPIN} unreachable) (func (export "deallocate") (param i32))"#
    );
    // There is room for data, none for its Region: what was given is given back at the next call.
    let in_deallocate = format!(
        r#"(global $calls (mut i32) (i32.const 0))
        (func (export "allocate") (param i32) (result i32)
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (if (i32.eq (global.get $calls) (i32.const 2)) (then (return (i32.const 0))))
            (i32.mul (global.get $calls) (i32.const 1000)))
        (func (export "deallocate") (param i32) {SPIN})"#
    );
    let nothing = call("");
    vec![
        Row::new("loops in `call`", calling(SPIN), TOO_LONG),
        Row::new("loops in `allocate`", polling(&in_allocate), TOO_LONG).counts("u_query_live ok", 1),
        Row::new("loops in `deallocate`", polling(&in_deallocate), TOO_LONG).counts("u_poll_handle failed", 1),
        Row::new(
            "loops in its start function",
            guest(&format!("(func $begin {SPIN}) (start $begin) {nothing}")),
            TOO_LONG,
        ),
        Row::new(
            "loops in `_initialize`",
            guest(&format!(r#"(func (export "_initialize") {SPIN}) {nothing}"#)),
            TOO_LONG,
        ),
        Row::new("loops in `_start`", guest(&format!(r#"(func (export "_start") {SPIN})"#)), TOO_LONG),
        Row::new(
            "loops by calling itself and returning",
            guest(&format!("(func $nothing) {}", call(&again(&"(call $nothing)".repeat(50))))),
            TOO_LONG,
        ),
        Row::new(
            "loops with host functions in between",
            calling(&again("(drop (call $free (i64.const 1)))")),
            "stopped",
        )
        .counts("u_free_handle failed", 1_000),
    ]
}

/// Single instructions and WASI functions that do a lot.
fn endless_in_the_machine() -> Vec<Row> {
    let grown = "(drop (memory.grow (i32.const 62)))";
    let wasi = |name: &str, types: &str, arguments: &str| {
        let import = format!(r#"(import "wasi_snapshot_preview1" "{name}" (func $wasi {types} (result i32)))"#);
        guest_importing(&import, &call(&again(&format!("(drop (call $wasi {arguments}))"))))
    };
    let random = |does, bytes: u32, outcome| {
        let import = r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))"#;
        let asks = again(&format!("(drop (call $random (i32.const 0) (i32.const {bytes})))"));
        Row::new(does, guest_importing(import, &call(&format!("{grown} {asks}"))), outcome)
    };
    let (i32_2, i32_4) = ("(param i32 i32)", "(param i32 i32 i32 i32)");
    vec![
        Row::new(
            "fills its memory",
            calling(&format!("{grown} {}", again("(memory.fill (i32.const 0) (i32.const 1) (i32.const 4194304))"))),
            TOO_LONG,
        )
        .counts("memory bytes", 4 << 20),
        Row::new(
            "copies its memory over itself",
            calling(&format!("{grown} {}", again("(memory.copy (i32.const 1) (i32.const 0) (i32.const 4194303))"))),
            TOO_LONG,
        ),
        Row::new(
            "fills a table",
            guest(&format!(
                "(table $t 1000 funcref) {}",
                call(&again("(table.fill $t (i32.const 0) (ref.null func) (i32.const 1000))"))
            )),
            TOO_LONG,
        ),
        Row::new("asks for memory over and over", calling(&again("(drop (memory.grow (i32.const 1)))")), TOO_LONG)
            .counts("memory bytes", 4 << 20),
        Row::new(
            "asks for the time over and over",
            wasi("clock_time_get", "(param i32 i64 i32)", "(i32.const 0) (i64.const 0) (i32.const 1024)"),
            TOO_LONG,
        ),
        Row::new("yields over and over", wasi("sched_yield", "", ""), TOO_LONG),
        Row::new(
            "asks for its arguments over and over",
            wasi("args_get", i32_2, "(i32.const 1024) (i32.const 2048)"),
            TOO_LONG,
        ),
        Row::new(
            "reads its empty input over and over",
            wasi("fd_read", i32_4, "(i32.const 0) (i32.const 1024) (i32.const 1) (i32.const 2048)"),
            TOO_LONG,
        ),
        random("asks for 60 KiB of random numbers over and over", 60_000, TOO_LONG),
        random("asks for 1 MiB of random numbers over and over", 1 << 20, TOO_LONG),
        random(
            "asks for random numbers in all of its memory",
            4 << 20,
            "failed: requested len 4194304 exceeds limit 1048576",
        ),
        random("asks for 4 GiB of random numbers", u32::MAX, "failed: requested len 4294967295 exceeds limit 1048576"),
        Row::new(
            "arguments beyond its memory",
            wasi("args_get", i32_2, "(i32.const -4) (i32.const -4)"),
            "failed: Pointer out of bounds",
        ),
    ]
}

fn recursion() -> Vec<Row> {
    let exhausted = "failed: wasm trap: call stack exhausted";
    let big_frame =
        format!("(func $big (param {0}) {1} (call $big {1}))", "i64 ".repeat(400), "(local.get 0)".repeat(400));
    let big_frame = big_frame.replacen(&"(local.get 0)".repeat(400), "", 1);
    vec![
        Row::new("calls itself", calling("(drop (call $call))"), exhausted).logs("(in call, called by call, "),
        Row::new(
            "calls itself by a table",
            guest(&format!(
                "(table funcref (elem $call)) (type $t (func (result i32))) {}",
                call("(drop (call_indirect (type $t) (i32.const 0)))")
            )),
            exhausted,
        ),
        Row::new(
            "calls itself with 400 parameters",
            guest(&format!("{big_frame} {}", call(&format!("(call $big {})", "(i64.const 1)".repeat(400))))),
            exhausted,
        ),
        Row::new(
            "calls itself, and the host at every depth",
            calling("(drop (call $query_history (i32.const 16))) (drop (call $call))"),
            exhausted,
        )
        .counts("u_query_history ok", 100),
        Row::new(
            "calls itself in `allocate`",
            polling(
                r#"(func $allocate (export "allocate") (param i32) (result i32) (call $allocate (local.get 0)))
                (func (export "deallocate") (param i32))"#,
            ),
            exhausted,
        ),
        Row::new(
            "calls itself in its start function",
            guest(&format!("(func $begin (call $begin)) (start $begin) {}", call(""))),
            exhausted,
        ),
    ]
}

fn bombs() -> Vec<Row> {
    vec![
        Row::new(
            "takes all memory that it gets, and writes to all of it",
            calling(
                "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
                (memory.fill (i32.const 65536) (i32.const 255) (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 65536)))
                (if (i32.ne (memory.size) (i32.const 64)) (then unreachable))",
            ),
            "done",
        )
        .counts("memory bytes", 4 << 20),
        Row::new(
            "takes all elements that it gets",
            guest(&format!(
                "(table $t 1 funcref) {}",
                call(
                    "(loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1))))
                    (if (i32.ne (table.size $t) (i32.const 1000)) (then unreachable))"
                )
            )),
            "done",
        ),
        Row::new("asks for 4 GiB at once", calling("(drop (memory.grow (i32.const 65534)))"), "done"),
        Row::new(
            "a data segment beyond its memory",
            guest(&format!(r#"(data (i32.const 131072) "x") {}"#, call(""))),
            "failed: wasm trap: out of bounds memory access",
        ),
        Row::new(
            "a data segment at the end of the numbers",
            guest(&format!(r#"(data (i32.const -1) "xx") {}"#, call(""))),
            "failed: wasm trap: out of bounds memory access",
        ),
        Row::new(
            "an element segment beyond its table",
            guest(&format!("(table 1 funcref) (elem (i32.const 1) $call) {}", call(""))),
            "failed: wasm trap: undefined element: out of bounds table access",
        ),
        Row::new(
            "a start function that traps",
            guest(&format!("(func $begin unreachable) (start $begin) {}", call(""))),
            "failed: wasm trap: wasm `unreachable` instruction executed (in begin)",
        ),
        Row::new(
            "an `_initialize` that traps",
            guest(&format!(r#"(func (export "_initialize") unreachable) {}"#, call(""))),
            "failed: wasm trap: wasm `unreachable` instruction executed",
        ),
        Row::new(
            "a function name that steers a terminal",
            guest(r#"(func $"\1b[2J" (result i32) unreachable) (func (export "call") (result i32) (call $"\1b[2J"))"#),
            "(in \\u{1b}[2J, called by ",
        ),
    ]
}

fn ends() -> Vec<Row> {
    let exits = |status: i64| calling(&format!("(call $exit (i32.const {status})) unreachable"));
    let no_status = "failed: exit with invalid exit status";
    let returns = |code: i64| guest(&format!(r#"(func (export "call") (result i32) (i32.const {code}))"#));
    vec![
        Row::new("ends at once", calling(""), "done"),
        Row::new("returns an error at once", returns(1), "failed: it returned an error"),
        Row::new("returns what means nothing", returns(i64::from(i32::MIN)), "failed: `call` answered -2147483648"),
        Row::new("exits well at once", exits(0), "done"),
        Row::new("exits with 1", exits(1), "failed: it exited with status 1"),
        Row::new("exits with 125, the last status that there is", exits(125), "failed: it exited with status 125"),
        Row::new("exits with 126", exits(126), no_status),
        Row::new("exits with -1", exits(-1), no_status),
        Row::new("exits with the smallest number", exits(i64::from(i32::MIN)), no_status),
        Row::new(
            "exits in its start function",
            guest(&format!("(func $begin (call $exit (i32.const 7))) (start $begin) {}", call(""))),
            "failed: it exited with status 7",
        ),
        Row::new(
            "is a host function",
            guest_importing(
                r#"(import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))"#,
                r#"(export "call" (func $yield))"#,
            ),
            "failed: it can't be started: missing required memory export",
        ),
    ]
}

/// Sleeping is not computing: nobody ends them but who stops them.
fn sleepers() -> Vec<Row> {
    let told = "(drop (call $free (i64.const 1)))";
    let sleep = |clock: u32, nanos: &str, flags: u32| {
        format!(
            "(i32.store (i32.const 1040) (i32.const {clock})) (i64.store (i32.const 1048) (i64.const {nanos}))
            (i32.store (i32.const 1064) (i32.const {flags}))
            (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 48)))"
        )
    };
    let for_ever = |body: String| calling(&format!("{told} {body} unreachable"));
    vec![
        Row::new("sleeps for a year", for_ever(sleep(1, "31536000000000000", 0)), "stopped").counts("u_free_handle failed", 1),
        Row::new("sleeps until the end of the numbers", for_ever(sleep(1, "-1", 0)), "stopped").counts("u_free_handle failed", 1),
        Row::new("sleeps until an hour that is far away", for_ever(sleep(0, "-1", 1)), "stopped").counts("u_free_handle failed", 1),
        Row::new("sleeps until an hour that has gone, over and over", calling(&again(&sleep(1, "1", 1))), TOO_LONG),
        Row::new(
            "polls a handle that it does not have",
            calling(&again("(drop (call $poll (i64.const 0)))")),
            "stopped",
        )
        .counts("sleeps", 2)
        .counts("u_poll_handle failed", 1),
        Row::new(
            "waits for half a million things",
            calling(
                "(if (i32.ne (i32.const 48)
                    (call $poll_oneoff (i32.const 1024) (i32.const 40000000) (i32.const 500000) (i32.const 48))) (then unreachable))",
            ),
            "done",
        ),
        Row::new(
            "waits for nothing",
            calling("(drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 0) (i32.const 48)))"),
            "done",
        ),
    ]
}
