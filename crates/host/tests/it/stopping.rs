//! A guest can be stopped wherever it is, and one that never rests does not hold up another.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use slung_host::{Failure, HostOptions, StartOptions, State};

use crate::fake::Fake;
use crate::fixture::{Running, guest, guest_with, options, start, start_in, text, wait};

/// Says 1, which tells that it runs; then does this, from which it never comes back.
fn never_ends(then: &str) -> Vec<u8> {
    guest(&format!(r#"(func (export "call") (result i32) (call $say (i64.const 1)) {then} (i32.const 0))"#))
}

const SPIN: &str = "(loop $forever (br $forever))";

/// Runs it, stops it, and it ends.
fn stops(bytes: &[u8]) {
    let running = start(bytes);
    running.world.wait_said(1);
    assert_eq!(running.workflow.state(), State::Running);
    running.workflow.stop();
    let ended = running.end();
    assert_eq!(ended.state, State::Stopped);
    assert_eq!(ended.lines.last().map(String::as_str), Some("INFO host: stopped"));
    assert_eq!(ended.world.open(), Vec::<u64>::new());
}

#[test]
fn in_a_loop() {
    stops(&never_ends(SPIN));
}

#[test]
fn in_a_loop_of_host_calls() {
    stops(&never_ends("(loop $forever (drop (call $free (i64.const 1))) (br $forever))"));
    stops(&never_ends("(loop $forever (drop (call $query_history (i32.const 16))) (br $forever))"));
    stops(&never_ends("(loop $forever (call $say (i64.const 2)) (br $forever))"));
}

#[test]
fn in_a_loop_of_memory_fills() {
    stops(&never_ends(
        "(drop (memory.grow (i32.const 1000)))
        (loop $forever (memory.fill (i32.const 0) (i32.const 1) (i32.const 65000000)) (br $forever))",
    ));
}

#[test]
fn asleep_in_a_poll() {
    let sleeps = guest(&format!(
        r#"{} (func (export "call") (result i32)
            (drop (call $query_live (i32.const 100)))
            (call $say (i64.const 1))
            (drop (call $poll (i64.const 1)))
            (i32.const 0))"#,
        text(100, "AVG:temp:[]")
    ));
    let patient = HostOptions { poll_sleep_ms_max: 3_600_000, ..options() };
    let running = start_in(&sleeps, Fake::new(), patient, StartOptions::default());
    running.world.wait_said(1);
    running.workflow.stop();
    assert_eq!(running.end().state, State::Stopped);
}

#[test]
fn asleep_in_wasi() {
    // One subscription at 1,024: clock 1 (monotonic), for a year.
    stops(&never_ends(
        r#"(i32.store (i32.const 1040) (i32.const 1))
        (i64.store (i32.const 1048) (i64.const 31536000000000000))
        (drop (call $poll_oneoff (i32.const 1024) (i32.const 2048) (i32.const 1) (i32.const 48)))"#,
    ));
}

#[test]
fn waiting_for_http() {
    let world = Fake::new();
    world.respond(None);
    let bytes = never_ends("(drop (call $http (i32.const 16) (i32.const 16) (i32.const 0)))");
    let running = start_in(&bytes, world, options(), StartOptions::default());
    running.world.wait_said(1);
    running.workflow.stop();
    assert_eq!(running.end().state, State::Stopped);
}

#[test]
fn before_its_entry() {
    let start = format!(
        r#"(func $start (call $say (i64.const 1)) {SPIN}) (start $start) (func (export "call") (result i32) (i32.const 0))"#
    );
    stops(&guest(&start));
    let initialize = format!(
        r#"(func (export "_initialize") (call $say (i64.const 1)) {SPIN}) (func (export "call") (result i32) (i32.const 0))"#
    );
    stops(&guest(&initialize));
}

#[test]
fn inside_allocate() {
    let endless = format!(
        r#"(func (export "allocate") (param i32) (result i32) {SPIN} unreachable)
        (func (export "deallocate") (param i32))"#
    );
    stops(&guest_with(
        &endless,
        r#"(func (export "call") (result i32)
            (call $say (i64.const 1))
            (drop (call $http (i32.const 16) (i32.const 16) (i32.const 0)))
            (i32.const 0))"#,
    ));
}

#[test]
fn stopping_twice_or_after_the_end_changes_nothing() {
    let running = start(&guest(r#"(func (export "call") (result i32) (i32.const 0))"#));
    assert_eq!(wait(&running.workflow), State::Done);
    running.workflow.stop();
    running.workflow.stop();
    assert_eq!(running.end().state, State::Done);
}

#[test]
fn dropping_the_handle_leaves_it_running() {
    let Running { host, world, workflow } =
        start(&never_ends("(drop (call $poll (i64.const 0))) (call $say (i64.const 2))"));
    drop(workflow);
    world.wait_said(2);
    host.close();
}

/// Every guest ends with its host, and who waits for one is told.
#[test]
fn dropping_the_host_stops_all() {
    let Running { host, world, workflow } = start(&never_ends(SPIN));
    let module =
        host.compile("sleeper", &never_ends("(loop $forever (drop (call $poll (i64.const 0))) (br $forever))"));
    let sleepers: Vec<_> =
        (0..10).map(|_| host.start(module.as_ref().unwrap(), StartOptions::default(), Fake::new())).collect();
    world.wait_said(1);
    drop(host);
    assert_eq!(wait(&workflow), State::Stopped);
    for sleeper in &sleepers {
        assert_eq!(wait(sleeper), State::Stopped);
    }
}

/// On a single thread, between endless loops, a guest that answers events answers each of them.
#[test]
fn spinning_guests_do_not_hold_up_another() {
    let one_thread = HostOptions { worker_threads: NonZeroUsize::MIN, poll_sleep_ms_max: 60_000, ..options() };
    let spinner = never_ends(SPIN);
    let for_ever = StartOptions { compute_ms_max: NonZeroU32::MAX, ..StartOptions::default() };
    let running = start_in(&spinner, Fake::new(), one_thread, for_ever);
    running.world.wait_said(1);
    let answers = guest(&format!(
        r#"{} (func (export "call") (result i32)
            (drop (call $query_live (i32.const 100)))
            (call $say (i64.const 0))
            (loop $forever
                (if (call $poll (i64.const 1)) (then (call $say (i64.const 1))))
                (br $forever))
            unreachable)"#,
        text(100, "temp:[]")
    ));
    let world = Fake::new();
    let module = running.host.compile("answers", &answers).unwrap();
    let workflow = running.host.start(&module, StartOptions::default(), world.clone());
    world.wait_said(1);
    let start = Instant::now();
    for event in 0..50 {
        world.push(1_001, "{}");
        world.wait_said(event + 2);
    }
    // 50 turns of a millisecond each, on any machine that is not standing still.
    assert!(start.elapsed() < Duration::from_secs(20));
    let stats = workflow.stats();
    assert_eq!((stats.events, stats.event_bytes), (50, 100));
    assert!(running.workflow.stats().busy > Duration::ZERO);
    running.workflow.stop();
    assert_eq!(running.end().state, State::Stopped);
}

fn at_most_50_ms() -> StartOptions {
    StartOptions { compute_ms_max: NonZeroU32::new(50).expect("50 is not 0"), ..StartOptions::default() }
}

#[test]
fn computing_without_end_is_ended_wherever_it_is() {
    let inside_allocate = guest_with(
        &format!(
            r#"(func (export "allocate") (param i32) (result i32) {SPIN} unreachable)
            (func (export "deallocate") (param i32))"#
        ),
        &format!(
            r#"{} (func (export "call") (result i32)
                (drop (call $query_live (i32.const 100)))
                (drop (call $poll (i64.const 1)))
                (i32.const 0))"#,
            text(100, "temp:[]")
        ),
    );
    let at_the_start =
        guest(&format!(r#"(func $begin {SPIN}) (start $begin) (func (export "call") (result i32) (i32.const 0))"#));
    let initializing =
        guest(&format!(r#"(func (export "_initialize") {SPIN}) (func (export "call") (result i32) (i32.const 0))"#));
    for bytes in [&never_ends(SPIN), &inside_allocate, &at_the_start, &initializing] {
        let world = Fake::new();
        world.preload(&["{}"]);
        let ended = start_in(bytes, world, options(), at_most_50_ms()).end();
        let State::Failed(Failure::Trap { message, .. }) = &ended.state else { panic!("{:?}", ended.state) };
        assert_eq!(message, "it computed for 50 ms without a host function (`compute_ms_max`)");
        assert!(ended.stats.busy >= Duration::from_millis(50));
    }
}

#[test]
fn computing_with_host_functions_in_between_is_not_ended() {
    let calls = never_ends("(loop $forever (drop (call $free (i64.const 1))) (br $forever))");
    let running = start_in(&calls, Fake::new(), options(), at_most_50_ms());
    while running.workflow.stats().busy < Duration::from_millis(300) {
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(running.workflow.state(), State::Running);
    }
    running.workflow.stop();
    assert_eq!(running.end().state, State::Stopped);
}
