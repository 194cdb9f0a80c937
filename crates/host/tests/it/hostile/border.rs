//! What lies where host and guest meet: Regions, texts, `allocate`, handles, producers.

use super::{Row, call};
use crate::fixture::{guest, guest_with, region, text};

const MAX: u32 = u32::MAX;
/// The memory that the fixture's guests start with, bytes.
const MEMORY: u32 = 2 * 65_536;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = regions();
    rows.extend(texts());
    rows.extend(allocators());
    rows.extend(guesses());
    rows
}

/// Sends the Region at 64 to producer 7.
fn sends(data: &str) -> Vec<u8> {
    guest(&format!("{data} {}", call("(drop (call $ws (i64.const 7) (i32.const 64)))")))
}

fn regions() -> Vec<Row> {
    let refused = |does, module, reason| Row::new(does, module, "done").counts("u_writeback_ws failed", 1).logs(reason);
    let at = |address: u32| guest(&call(&format!("(drop (call $ws (i64.const 7) (i32.const {address})))")));
    vec![
        refused("no Region", at(0), "the address of the Region is 0"),
        refused("a Region that ends beyond the memory", at(MEMORY - 11), "the Region at 131061 ends past the memory"),
        refused("a Region at the end of the numbers", at(MAX), "the Region at 4294967295 ends past the memory"),
        refused("data at 0", sends(&region(64, 0, 5, 5)), "the Region has 5 bytes at address 0"),
        refused("more bytes than there is room for", sends(&region(64, 100, 4, 5)), "length 5 is over its capacity 4"),
        refused("data beyond the memory", sends(&region(64, MEMORY, 1, 0)), "the Region's 1 bytes at 131072 end past"),
        refused("4 GiB of data", sends(&region(64, 1, MAX, MAX)), "the Region's 4294967295 bytes at 1 end past"),
        refused("data that wraps around", sends(&region(64, MAX - 3, 8, 8)), "the Region's 8 bytes at 4294967292 end past"),
        refused("4 GiB of room for a little data", sends(&region(64, 100, MAX, 4)), "the Region's 4294967295 bytes at 100"),
        Row::new("a Region that is its own data", sends(&region(64, 64, 12, 12)), "done").counts("u_writeback_ws ok", 1),
        Row::new(
            "the same Region for everything",
            guest(&format!(
                "{} {}",
                text(64, "http://x/"),
                call("(drop (call $http (i32.const 64) (i32.const 64) (i32.const 1))) (drop (call $write_event (i32.const 64) (i32.const 64) (i32.const 64)))")
            )),
            "done",
        )
        .counts("u_writeback_http ok", 1)
        .counts("u_write_event failed", 1),
        Row::new(
            "writes over the Region that it got, and hands it on",
            guest(&format!(
                "{} {}",
                text(100, "http://x/"),
                call(
                    "(local i32) (local.set 0 (call $http (i32.const 100) (i32.const 16) (i32.const 0)))
                    (i32.store (local.get 0) (i32.const -1))
                    (drop (call $ws (i64.const 7) (local.get 0)))"
                )
            )),
            "done",
        )
        .counts("u_writeback_http ok", 1)
        .counts("u_writeback_ws failed", 1),
    ]
}

fn texts() -> Vec<Row> {
    let queries = |data: &str| {
        let both = "(drop (call $query_live (i32.const 64))) (drop (call $query_history (i32.const 64)))";
        guest(&format!("(memory.grow_is_not_here) {data} {}", call(both)).replace("(memory.grow_is_not_here)", ""))
    };
    let writes = |time: &str, value: &str, tags: &str| {
        let data = format!("{} {} {}", text(1_000, time), text(3_000, value), text(5_000, tags));
        guest(&format!(
            "{data} {}",
            call("(drop (call $write_event (i32.const 1000) (i32.const 3000) (i32.const 5000)))")
        ))
    };
    let refused = |does, module, reason| Row::new(does, module, "done").counts("u_write_event failed", 1).logs(reason);
    let digits = "9".repeat(1_000);
    vec![
        Row::new("a query that is not UTF-8", queries(&text(64, b"AVG:\xff\xfe")), "done")
            .counts("u_query_live failed", 1)
            .counts("u_query_history failed", 1)
            .logs("u_query_history failed: query: not UTF-8 at byte 4"),
        Row::new("a query cut in the middle of a character", queries(&text(64, b"\xe2\x82")), "done")
            .logs("not UTF-8 at byte 0"),
        Row::new("a query one byte too long", queries(&region(64, 1_000, 4_097, 4_097)), "done")
            .counts("u_query_live failed", 1)
            .logs("4097 bytes, at most 4096 are allowed"),
        Row::new("a query of zeros", queries(&region(64, 1_000, 4_096, 4_096)), "done").counts("u_query_live ok", 1),
        Row::new(
            "a query that steers the log's terminal",
            queries(&text(64, "refuse \u{1b}[2J\u{7}\r\nERROR host: all is lost\u{202e}")),
            "done",
        )
        .logs(
            "u_query_live failed: the test refuses refuse \\u{1b}[2J\\u{7}\\u{d}\\u{a}ERROR host: all is lost\\u{202e}",
        ),
        refused("a time of a thousand digits", writes(&digits, "1", "series=s"), "u_write_event failed: timestamp"),
        refused("a value that is no number", writes("1", "nan", "series=s"), "is no decimal number"),
        refused("a value that is infinite", writes("1", "1e999", "series=s"), "u_write_event failed: value"),
        refused("tags without a series", writes("1", "1", ",,, ,,"), "no series=NAME"),
        refused("tags with two series", writes("1", "1", "series=a,series=b"), "u_write_event failed: tags"),
        Row::new(
            "a method that there is not",
            guest(&format!(
                "{} {}",
                text(64, "http://x/"),
                call("(drop (call $http (i32.const 64) (i32.const 16) (i32.const -1)))")
            )),
            "done",
        )
        .counts("u_writeback_http failed", 1)
        .logs("method -1 is none of 0 to 3"),
    ]
}

/// Fetches by HTTP twice, with this `allocate`; the data has 8 bytes, a Region 12.
fn fetches(allocate: &str) -> Vec<u8> {
    let fetches = "(drop (call $http (i32.const 100) (i32.const 16) (i32.const 0))) (drop (call $http (i32.const 100) (i32.const 16) (i32.const 0)))";
    let allocate = format!(
        r#"(global $calls (mut i32) (i32.const 0))
        (func (export "allocate") (param i32) (result i32)
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            {allocate})
        (func (export "deallocate") (param i32))"#
    );
    guest_with(&allocate, &format!("{} {}", text(100, "http://example.com/"), call(fetches)))
}

fn allocators() -> Vec<Row> {
    let lies = |does, allocate, reason| {
        Row::new(does, fetches(allocate), "done").counts("u_writeback_http failed", 2).logs(reason)
    };
    let inside = "failed: called from inside `allocate` or `deallocate`";
    vec![
        lies("`allocate` has no room", "(i32.const 0)", "`allocate` has no room for 8 bytes"),
        lies("`allocate` answers an address beyond the memory", "(i32.const -8)", "`allocate` answered 4294967288 for 8 bytes, in a memory of 131072"),
        lies("`allocate` answers the last bytes", "(i32.const 131070)", "`allocate` answered 131070 for 8 bytes"),
        lies("`allocate` answers one address for everything", "(i32.const 1000)", "answered 1000 and 1000, which overlap"),
        lies(
            "`allocate` answers addresses that overlap",
            "(select (i32.const 1000) (i32.const 1007) (i32.eq (local.get 0) (i32.const 8)))",
            "answered 1000 and 1007, which overlap",
        ),
        Row::new("`allocate` answers odd addresses", fetches("(i32.add (i32.const 1001) (i32.mul (global.get $calls) (i32.const 13)))"), "done")
            .counts("u_writeback_http ok", 2),
        Row::new("`allocate` answers where the URL is", fetches("(i32.add (i32.const 90) (i32.mul (local.get 0) (i32.const 2)))"), "done")
            .counts("u_writeback_http ok", 1),
        Row::new("`allocate` traps", fetches("unreachable"), "failed: wasm trap: wasm `unreachable` instruction executed")
            .counts("u_writeback_http failed", 1),
        Row::new("`allocate` exits", fetches("(call $exit (i32.const 3)) unreachable"), "failed: it exited with status 3"),
        lies(
            "`allocate` asks the host for everything",
            "(drop (call $query_live (i32.const 100))) (drop (call $query_history (i32.const 100))) (drop (call $poll (i64.const 1)))
            (drop (call $free (i64.const 1))) (drop (call $write_event (i32.const 100) (i32.const 100) (i32.const 100)))
            (drop (call $ws (i64.const 1) (i32.const 100))) (drop (call $http (i32.const 100) (i32.const 100) (i32.const 0)))
            (i32.const 0)",
            inside,
        )
        .counts("u_query_live failed", 2)
        .counts("u_query_history failed", 2)
        .counts("u_poll_handle failed", 2)
        .counts("u_free_handle failed", 2)
        .counts("u_write_event failed", 2)
        .counts("u_writeback_ws failed", 2),
        Row::new("`allocate` prints", fetches("(drop (call $fd_write (i32.const 1) (i32.const 100) (i32.const 1) (i32.const 60000))) (i32.const 0)"), "done")
            .counts("u_writeback_http failed", 2),
        Row::new(
            "`allocate` takes more memory each time",
            fetches(
                "(if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
                (i32.sub (i32.mul (memory.size) (i32.const 65536)) (local.get 0))",
            ),
            "failed: wasm trap",
        )
        .counts("memory bytes", 3 << 20)
        .counts("u_writeback_http ok", 1),
        Row::new(
            "`allocate` answers the new memory's end, which is no place",
            fetches("(drop (memory.grow (i32.const 1))) (i32.mul (memory.size) (i32.const 65536))"),
            "done",
        )
        .counts("u_writeback_http failed", 2),
    ]
}

fn guesses() -> Vec<Row> {
    let numbers = |function: &str, rest: &str| {
        let numbers = ["-1", "0", "2", "1001", "4294967297", "9223372036854775807", "-9223372036854775808"];
        let calls: String =
            numbers.iter().map(|number| format!("(drop (call {function} (i64.const {number}) {rest}))")).collect();
        guest(&call(&calls))
    };
    vec![
        Row::new("frees handles that it guesses", numbers("$free", ""), "done")
            .counts("u_free_handle failed", 7)
            .logs("handle 18446744073709551615 is unknown or freed"),
        Row::new("polls handles that it guesses", numbers("$poll", ""), "done")
            .counts("u_poll_handle failed", 7)
            .counts("sleeps", 7)
            .logs("handle 1001 is unknown or freed"),
        Row::new("answers producers that it guesses", numbers("$ws", "(i32.const 16)"), "done")
            .counts("u_writeback_ws failed", 1)
            .logs("no such producer"),
    ]
}
