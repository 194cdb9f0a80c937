//! The rules of `u_poll_handle` as guests see them; `src/poll.rs` has them one by one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slung_abi::HostFunction;
use slung_host::{HostOptions, StartOptions, State};

use crate::fake::{Asked, Fake};
use crate::fixture::{Running, guest, options, start_in, text};

/// Two live queries; says 0 when it has them. `$show` says 0 for no event, and sends an event to producer 9.
fn two_queries(then: &str) -> Vec<u8> {
    guest(&format!(
        r#"{} (func $show (param i32)
            (if (local.get 0) (then (drop (call $ws (i64.const 9) (local.get 0)))) (else (call $say (i64.const 0)))))
        (func (export "call") (result i32)
            (drop (call $query_live (i32.const 100)))
            (drop (call $query_live (i32.const 100)))
            (call $say (i64.const 0))
            {then}
            (i32.const 0))"#,
        text(100, "temp:[]")
    ))
}

fn start_with_sleep(bytes: &[u8], poll_sleep_ms_max: u64) -> Running {
    start_with(Fake::new(), bytes, poll_sleep_ms_max)
}

fn start_with(world: Arc<Fake>, bytes: &[u8], poll_sleep_ms_max: u64) -> Running {
    let host = HostOptions { poll_sleep_ms_max, ..options() };
    let running = start_in(bytes, world, host, StartOptions::default());
    running.world.wait_said(1);
    running
}

const A: u64 = 1_001;
const B: u64 = 1_002;
const HOUR: u64 = 3_600_000;

#[test]
fn updates_come_in_order_and_wake() {
    let running = start_with_sleep(
        &two_queries(
            "(call $show (call $poll (i64.const 1))) (call $show (call $poll (i64.const 1))) (call $show (call $poll (i64.const 1)))",
        ),
        HOUR,
    );
    running.world.push(A, "one");
    running.world.wait_said(2);
    running.world.push(A, "two");
    running.world.push(A, "three");
    let ended = running.end();
    let events: Vec<_> = ended.world.asked().into_iter().filter(|asked| matches!(asked, Asked::Ws(9, _))).collect();
    assert_eq!(events, ["one", "two", "three"].map(|event| Asked::Ws(9, event.as_bytes().to_vec())));
    assert_eq!((ended.stats.events, ended.stats.event_bytes), (3, 11));
    let calls = ended.stats.calls[HostFunction::PollHandle.index()];
    assert_eq!((calls.ok, calls.failed), (3, 0));
}

/// Something for another handle wakes too; the answer is then 0, and the other one has it.
#[test]
fn an_arrival_for_another_handle_ends_the_sleep() {
    let running = start_with_sleep(
        &two_queries("(call $show (call $poll (i64.const 1))) (call $show (call $poll (i64.const 2)))"),
        HOUR,
    );
    // Before the sleep it would be something that waits for a handle that is never polled, which wakes nobody.
    running.world.wait_listening();
    running.world.push(B, "b");
    let ended = running.end();
    assert_eq!(ended.said, [0, 0, 9]);
}

/// Nothing comes: 0 after the time, and a poll of nothing is no failure.
#[test]
fn the_sleep_has_an_end() {
    let running = start_with_sleep(&two_queries("(call $show (call $poll (i64.const 1)))"), 30);
    let start = Instant::now();
    let ended = running.end();
    assert_eq!((ended.said.as_slice(), ended.stats.sleeps), ([0, 0].as_slice(), 1));
    assert_eq!(ended.stats.calls[HostFunction::PollHandle.index()].failed, 0);
    assert!(start.elapsed() < Duration::from_secs(20));
}

/// An unknown handle sleeps too, and fails in words.
#[test]
fn unknown_handles_sleep_and_fail() {
    let start = Instant::now();
    let running = start_with_sleep(
        &two_queries(
            "(call $show (call $poll (i64.const 0)))
            (drop (call $free (i64.const 2))) (call $show (call $poll (i64.const 2)))
            (call $show (call $poll (i64.const 1001)))",
        ),
        30,
    );
    // It is woken by nothing, as it has never polled a handle that something could arrive for.
    running.world.push(A, "never polled");
    let ended = running.end();
    assert!(start.elapsed() >= Duration::from_millis(90), "each one took its time");
    assert_eq!((ended.state.clone(), ended.said.as_slice()), (State::Done, [0, 0, 0, 0].as_slice()));
    ended.line("u_poll_handle failed: handle 0 is unknown or freed");
    ended.line("u_poll_handle failed: handle 2 is unknown or freed");
    ended.line("u_poll_handle failed: handle 1001 is unknown or freed");
    assert_eq!((ended.stats.sleeps, ended.stats.events), (3, 0));
}

/// Two handles and an unknown one in turn, one of them busy: the others never hold it up. With sleeps of an hour, one
/// that slept when it should not would be seen.
#[test]
fn taking_turns_with_an_empty_handle() {
    let world = Fake::new();
    world.preload(&["x"; 100]);
    let running = start_with(
        world,
        &two_queries(
            "(loop $forever
                (if (call $poll (i64.const 1)) (then (call $say (i64.const 1))))
                (drop (call $poll (i64.const 2)))
                (drop (call $poll (i64.const 77)))
                (br $forever))",
        ),
        HOUR,
    );
    running.world.wait_said(1 + 100);
    running.workflow.stop();
    let ended = running.end();
    assert_eq!(ended.stats.events, 100);
    // After the last event nothing waits: the poll of the second handle sleeps, if it comes to that before the stop.
    assert!(ended.stats.sleeps <= 1, "it slept {} times", ended.stats.sleeps);
}

/// A handle that is full and never polled does not turn the sleeps of another into a loop: each lasts its time.
#[test]
fn a_handle_that_is_never_polled_does_not_keep_it_awake() {
    let world = Fake::new();
    world.preload(&["never polled"; 50]);
    let start = Instant::now();
    let running = start_with(
        world,
        &two_queries("(loop $forever (drop (call $poll (i64.const 2))) (call $say (i64.const 1)) (br $forever))"),
        25,
    );
    running.world.wait_said(1 + 4);
    assert!(start.elapsed() >= Duration::from_millis(100), "4 sleeps of 25 ms took {:?}", start.elapsed());
    running.workflow.stop();
    assert_eq!(running.end().stats.events, 0);
}
