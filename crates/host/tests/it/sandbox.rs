//! What a guest has of the machine: memory and tables up to a limit, WASI without files, a log that it can't flood.

use slung_host::{Failure, HostOptions, StartOptions, State};

use crate::fake::Fake;
use crate::fixture::{escaped, guest, options, parse, run, start_in};

/// Prints `bytes` at 1,024 to this descriptor, `times` times.
fn printing(fd: u32, bytes: &[u8], times: u32) -> Vec<u8> {
    let length = (bytes.len() as u32).to_le_bytes();
    guest(&format!(
        r#"(data (i32.const 32) "\00\04\00\00{}") (data (i32.const 1024) "{}")
        (func (export "call") (result i32) (local i32)
            (loop $again
                (if (call $fd_write (i32.const {fd}) (i32.const 32) (i32.const 1) (i32.const 48)) (then unreachable))
                (br_if $again (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const {times}))))
            (call $say32 (i32.load (i32.const 48)))
            (i32.const 0))"#,
        escaped(&length),
        escaped(bytes),
    ))
}

#[test]
fn memory_up_to_the_limit() {
    // 64 MiB are 1,024 pages; the memory starts with 2.
    let ended = run(&guest(
        r#"(func (export "call") (result i32)
            (call $say32 (memory.grow (i32.const 1023)))
            (call $say32 (memory.grow (i32.const 1022)))
            (call $say32 (memory.grow (i32.const 1)))
            (i32.store (i32.const 67108860) (i32.const 1))
            (i32.const 0))"#,
    ));
    assert_eq!(ended.said, [u64::from(u32::MAX), 2, u64::from(u32::MAX)], "too much, just enough, too much");
    assert_eq!((ended.state, ended.stats.memory_bytes_max), (State::Done, 64 << 20));
}

/// Growing for ever ends at the limit, and touching all of it takes no more than that.
#[test]
fn a_memory_bomb() {
    let small = HostOptions { memory_bytes_max: 4 << 20, ..options() };
    let bomb = guest(
        r#"(func (export "call") (result i32)
            (loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
            (memory.fill (i32.const 65536) (i32.const 255) (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 65536)))
            (call $say32 (memory.size))
            (i32.const 0))"#,
    );
    let ended = start_in(&bomb, Fake::new(), small, StartOptions::default()).end();
    assert_eq!((ended.state, ended.said), (State::Done, vec![64]));
}

#[test]
fn a_table_bomb() {
    let ended = run(&guest(
        r#"(table $t 1 funcref)
        (func (export "call") (result i32)
            (call $say32 (table.grow $t (ref.null func) (i32.const 99999)))
            (call $say32 (table.grow $t (ref.null func) (i32.const 1)))
            (i32.const 0))"#,
    ));
    assert_eq!(ended.said, [1, u64::from(u32::MAX)]);
}

#[test]
fn deep_recursion() {
    let ended = run(&guest(
        r#"(func $deep (param i32) (result i32) (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))
        (func (export "call") (result i32) (call $deep (i32.const 0)))"#,
    ));
    let State::Failed(Failure::Trap { message, functions }) = ended.state else { panic!("it has not trapped") };
    assert!(message.contains("call stack exhausted"), "{message}");
    assert_eq!(functions, vec!["deep"; 16], "not all of it");
}

/// The host function that the deepest guest function calls has room too.
#[test]
fn a_host_call_at_the_bottom_of_the_stack() {
    let ended = run(&guest(
        r#"(func $deep (drop (call $query_history (i32.const 16))) (call $deep))
        (func (export "call") (result i32) (call $deep) (i32.const 0))"#,
    ));
    assert!(matches!(ended.state, State::Failed(Failure::Trap { .. })), "{:?}", ended.state);
}

#[test]
fn printed_lines() {
    let ended = run(&printing(1, b"one\ntwo\r\n\x1b[31mred\x07 \xff\nrest", 1));
    let expected = [
        "INFO stdout: one",
        "INFO stdout: two",
        "INFO stdout: \\u{1b}[31mred\\u{7} \u{fffd}",
        "INFO stdout: rest",
        "INFO host: done",
    ];
    assert_eq!(ended.lines, expected);
    assert_eq!(run(&printing(2, b"careful\n", 1)).lines, ["WARN stderr: careful", "INFO host: done"]);
}

/// A flood neither fails the guest nor grows the host nor fills the log: the newest lines stay, and the number of those
/// that went is told.
#[test]
fn a_flood_of_lines() {
    let ended = run(&printing(1, "\u{1b}]0;title\u{7}flood\n".repeat(40).as_bytes(), 5_000));
    assert_eq!((ended.state.clone(), ended.said.len()), (State::Done, 1));
    let logged = ended.lines.iter().filter(|line| line.contains("flood")).count();
    assert!(ended.stats.log_lines_dropped > 0 && logged < 200_000, "{logged} lines logged");
    let told: u64 = ended
        .lines
        .iter()
        .filter_map(|line| line.split(" lines dropped").next()?.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(told, ended.stats.log_lines_dropped);
    assert_eq!(logged as u64 + told, 200_000, "each line was logged or counted");
    assert!(ended.lines.iter().all(|line| !line.contains('\u{1b}')));
    assert_eq!(ended.lines.last().map(String::as_str), Some("INFO host: done"));
}

/// One write takes a bounded part of a giant piece, and a giant line is cut.
#[test]
fn giant_lines() {
    let ended = run(&printing(1, &[b'x'; 60_000], 3));
    assert_eq!(ended.said, [16_384], "what is written is what is said");
    assert_eq!(ended.lines.len(), 2);
    assert_eq!(ended.lines[0].len(), "INFO stdout: ".len() + 4_096 + '…'.len_utf8());
}

#[test]
fn writes_that_point_nowhere() {
    let ended = run(&guest(
        r#"(data (i32.const 32) "\ff\ff\ff\ff\ff\ff\ff\ff\00\04\00\00\04\00\00\00")
        (func (export "call") (result i32)
            (call $say32 (call $fd_write (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 48)))
            (call $say32 (call $fd_write (i32.const 1) (i32.const -1) (i32.const 1) (i32.const 48)))
            (call $say32 (call $fd_write (i32.const 1) (i32.const 40) (i32.const 1) (i32.const -1)))
            (call $say32 (call $fd_write (i32.const 1) (i32.const 40) (i32.const -1) (i32.const 48)))
            (call $say32 (call $fd_write (i32.const 0) (i32.const 40) (i32.const 1) (i32.const 48)))
            (call $say32 (call $fd_write (i32.const 3) (i32.const 40) (i32.const 1) (i32.const 48)))
            (i32.const 0))"#,
    ));
    assert_eq!((ended.state, ended.said), (State::Done, vec![21, 21, 21, 28, 8, 8]), "FAULT, INVAL, BADF");
}

/// No files, no sockets, an input that is at its end; clocks and random numbers.
#[test]
fn what_wasi_has() {
    let module = parse(
        r#"(module
        (import "env" "u_writeback_ws" (func $ws (param i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 32) "\00\04\00\00\04\00\00\00") (data (i32.const 64) "/etc/passwd")
        (func $say32 (param i32) (drop (call $ws (i64.extend_i32_u (local.get 0)) (i32.const 16))))
        (func (export "allocate") (param i32) (result i32) (i32.const 0))
        (func (export "deallocate") (param i32))
        (func (export "call") (result i32)
            (call $say32 (call $path_open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 11) (i32.const 0)
                (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 48)))
            (call $say32 (call $prestat (i32.const 3) (i32.const 48)))
            (call $say32 (call $accept (i32.const 3) (i32.const 0) (i32.const 48)))
            (call $say32 (call $read (i32.const 0) (i32.const 32) (i32.const 1) (i32.const 48)))
            (call $say32 (i32.load (i32.const 48)))
            (call $say32 (call $clock (i32.const 0) (i64.const 0) (i32.const 1024)))
            (call $say32 (i64.gt_u (i64.load (i32.const 1024)) (i64.const 1700000000000000000)))
            (call $say32 (call $random (i32.const 2048) (i32.const 16)))
            (call $say32 (i64.ne (i64.load (i32.const 2048)) (i64.load (i32.const 2056))))
            (i32.const 0)))"#,
    );
    let ended = run(&module);
    assert_eq!(ended.state, State::Done);
    assert_eq!(ended.said[..2], [8, 8], "BADF: nothing is open there");
    assert_ne!(ended.said[2], 0);
    assert_eq!(ended.said[3..], [0, 0, 0, 1, 0, 1]);
}

#[test]
fn arguments_and_environment_as_given() {
    let module = parse(
        r#"(module
        (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 32) "\00\04\00\00\06\00\00\00") (data (i32.const 40) "\00\08\00\00\0a\00\00\00")
        (func (export "allocate") (param i32) (result i32) (i32.const 0))
        (func (export "deallocate") (param i32))
        (func (export "call") (result i32)
            (drop (call $args (i32.const 512) (i32.const 1024)))
            (drop (call $environ (i32.const 600) (i32.const 2048)))
            (drop (call $sizes (i32.const 700) (i32.const 704)))
            (if (i32.ne (i32.load (i32.const 700)) (i32.const 1)) (then unreachable))
            (drop (call $fd_write (i32.const 1) (i32.const 32) (i32.const 2) (i32.const 48)))
            (i32.const 0)))"#,
    );
    let start = StartOptions {
        args: vec!["me".to_owned(), "-v".to_owned()],
        env: vec![("TOKEN".to_owned(), "top".to_owned())],
        ..StartOptions::default()
    };
    let ended = start_in(&module, Fake::new(), options(), start).end();
    assert_eq!(ended.lines[0], "INFO stdout: me\\u{0}-v\\u{0}TOKEN=top\\u{0}");
}

/// A call that would make the host look at a great many subscriptions is refused, not served.
#[test]
fn a_giant_poll_oneoff() {
    let ended = run(&guest(
        r#"(func (export "call") (result i32)
            (drop (memory.grow (i32.const 1000)))
            (call $say32 (call $poll_oneoff (i32.const 1024) (i32.const 40000000) (i32.const 500000) (i32.const 48)))
            (i32.const 0))"#,
    ));
    assert_eq!((ended.state, ended.said), (State::Done, vec![48]), "NOMEM");
}
