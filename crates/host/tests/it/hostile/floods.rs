//! What asks the host for something, or prints, without end.

use super::{Row, call};
use crate::fixture::{escaped, guest, guest_importing, text};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = calls();
    rows.extend(prints());
    rows
}

/// Over and over.
fn floods(data: &str, body: &str) -> Vec<u8> {
    guest(&format!("{data} {}", call(&format!("(loop $again {body} (br $again))"))))
}

/// Each of the host's functions, as often as it can.
fn calls() -> Vec<Row> {
    let (query, refused) = (text(100, "temp:[]"), text(200, "refuse\u{1b}"));
    let event = format!("{} {} {}", text(100, "1"), text(200, "2.5"), text(300, "series=s"));
    let url = text(100, "http://example.com/");
    vec![
        Row::new("asks for live queries", floods(&query, "(drop (call $query_live (i32.const 100)))"), "stopped")
            .counts("u_query_live ok", 4)
            .counts("u_query_live failed", 1_000)
            .logs("4 handles are open, which is as many as a workflow may have"),
        Row::new(
            "asks for live queries that are refused",
            floods(&refused, "(drop (call $query_live (i32.const 200)))"),
            "stopped",
        )
        .counts("u_query_live failed", 1_000),
        Row::new(
            "asks for live queries and frees them",
            floods(&query, "(drop (call $free (call $query_live (i32.const 100))))"),
            "stopped",
        )
        .counts("u_query_live ok", 1_000)
        .counts("u_free_handle ok", 1_000),
        Row::new("asks for history", floods(&query, "(drop (call $query_history (i32.const 100)))"), "stopped")
            .counts("u_query_history ok", 1_000),
        Row::new(
            "polls what it has, and what it does not have",
            floods(&query, "(drop (call $poll (call $query_live (i32.const 100)))) (drop (call $poll (i64.const -1)))"),
            "stopped",
        )
        .counts("events", 1)
        .counts("sleeps", 2)
        .counts("u_poll_handle failed", 1),
        Row::new("frees", floods("", "(drop (call $free (i64.const 1)))"), "stopped")
            .counts("u_free_handle failed", 1_000),
        Row::new(
            "writes events",
            floods(&event, "(drop (call $write_event (i32.const 100) (i32.const 200) (i32.const 300)))"),
            "stopped",
        )
        .counts("u_write_event ok", 10)
        .counts("writes refused", 1_000)
        .logs("it may write 10 a second"),
        Row::new(
            "sends 256 KiB to a producer",
            floods(
                "",
                &format!("(drop (memory.grow (i32.const 8))) {}", "(drop (call $ws (i64.const 7) (i32.const 16)))"),
            ),
            "stopped",
        )
        .counts("u_writeback_ws ok", 1_000),
        Row::new("sends to nobody", floods("", "(drop (call $ws (i64.const -1) (i32.const 16)))"), "stopped")
            .counts("u_writeback_ws failed", 1_000),
        Row::new(
            "sends HTTP requests",
            floods(&url, "(drop (call $http (i32.const 100) (i32.const 16) (i32.const 0)))"),
            "stopped",
        )
        .counts("u_writeback_http ok", 10)
        .counts("requests refused", 1_000),
        Row::new(
            "fails with another reason each time",
            floods(
                "(global $n (mut i64) (i64.const 0))",
                "(global.set $n (i64.add (global.get $n) (i64.const 1))) (drop (call $free (global.get $n)))",
            ),
            "stopped",
        )
        .counts("u_free_handle failed", 1_000)
        .logs("u_free_handle failed: handle 20 is unknown or freed"),
    ]
}

/// Prints what is at 1,024, with a host function in between, so that it is let go on.
fn prints_on(bytes: &[u8], times: u32) -> Vec<u8> {
    let length = (bytes.len() as u32).to_le_bytes();
    let piece = format!("\\00\\04\\00\\00{}", escaped(&length));
    let data = format!("(data (i32.const 1024) \"{}\")", escaped(bytes));
    let list = format!("(data (i32.const 32768) \"{}\")", piece.repeat(times as usize));
    floods(
        &format!("{data} {list}"),
        &format!(
            "(drop (call $fd_write (i32.const 1) (i32.const 32768) (i32.const {times}) (i32.const 48))) (drop (call $free (i64.const 1)))"
        ),
    )
}

fn prints() -> Vec<Row> {
    let told = "lines dropped: more than it may print in a second (`log_bytes_per_second_max`)";
    let flood = |does, bytes: &[u8], times| {
        Row::new(does, prints_on(bytes, times), "stopped").counts("log lines dropped", 1_000).logs(told)
    };
    let once = |bytes: &str, list: &str, count: u32| {
        guest(&format!(
            "(data (i32.const 1024) \"{bytes}\") (data (i32.const 32) \"{list}\") {}",
            call(&format!("(drop (call $fd_write (i32.const 2) (i32.const 32) (i32.const {count}) (i32.const 512)))"))
        ))
    };
    vec![
        flood("prints lines", b"flood\n", 1),
        flood("prints lines that steer a terminal", "\u{1b}]0;title\u{7}\u{1b}[2Jflood\r\u{202e}\n".as_bytes(), 10),
        flood("prints empty lines", &[b'\n'; 2_000], 1),
        flood("prints bytes that are not UTF-8", b"\xff\xfe\x80\x00\n", 100),
        flood("prints long lines", &[[b'x'; 1_000].as_slice(), b"\n"].concat(), 10),
        Row::new("prints one line without end", prints_on(&[b'x'; 16_000], 4), "stopped").logs("xxx…"),
        Row::new("prints a line without an end, and ends", once("oh", r"\00\04\00\00\02\00\00\00", 1), "done")
            .logs("oh"),
        Row::new("prints 4 GiB from the end of the numbers", once("", r"\ff\ff\ff\ff\ff\ff\ff\ff", 1), "done"),
        Row::new("prints four billion pieces", once("", "", u32::MAX), "done"),
        Row::new(
            "prints to a descriptor that it does not have",
            guest(&call(
                "(if (i32.ne (call $fd_write (i32.const 77) (i32.const 32) (i32.const 1) (i32.const 48)) (i32.const 8)) (then unreachable))",
            )),
            "done",
        ),
        Row::new(
            "opens files, and whatever is open",
            guest_importing(
                r#"(import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
                (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))"#,
                &call(
                    r#"(local i32)
                    (loop $next
                        (if (i32.eqz (call $open (local.get 0) (i32.const 0) (i32.const 64) (i32.const 11) (i32.const 0)
                            (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 48))) (then unreachable))
                        (drop (call $close (local.get 0)))
                        (br_if $next (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 100))))"#,
                ),
            ),
            "done",
        ),
    ]
}
