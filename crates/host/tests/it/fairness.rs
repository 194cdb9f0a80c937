//! Who computes for long makes way for those who do not, and stays within what he was granted.

use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::time::{Duration, Instant};

use slung_host::{Failure, Host, HostError, HostOptions, StartOptions, State};

use crate::fake::Fake;
use crate::fixture::{Running, guest, options, start, start_in, text, wait};

/// Computes for milliseconds on any machine, without a host function.
const COMPUTE: &str = "(func $compute (local $left i32)
    (local.set $left (i32.const 50_000_000))
    (loop $again (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))";

const SPIN: &str = "(loop $forever (br $forever))";

#[test]
fn a_guest_that_computes_is_moved_to_low_priority_and_back_when_it_sleeps() {
    const ROUNDS: usize = 10;
    let bytes = guest(&format!(
        r#"{COMPUTE} (func (export "call") (result i32) (local $left i32)
            (call $say (i64.const 1))
            (local.set $left (i32.const {ROUNDS}))
            (loop $again
                (call $compute)
                (call $say (i64.const 2))
                (drop (call $poll (i64.const 0)))
                (call $say (i64.const 3))
                (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            (i32.const 0))"#
    ));
    let ended = start(&bytes).end();
    assert_eq!(ended.state, State::Done);
    let on: Vec<_> = ended.said.iter().copied().zip(ended.world.threads()).collect();
    assert_eq!(on.len(), 1 + 2 * ROUNDS);
    let count =
        |said, thread: &str| on.iter().filter(|(number, name)| (*number, name.as_str()) == (said, thread)).count();
    assert_eq!(count(2, "slung-guest-low"), ROUNDS, "{on:?}");
    // Where the machine stands still for a tick just then, it has seemed to compute again.
    assert!(count(3, "slung-guest") > 0, "{on:?}");
    assert!(ended.stats.demotions >= ROUNDS as u64);
    assert!(ended.stats.busy > Duration::from_millis(ROUNDS as u64));
}

#[test]
fn a_panic_of_the_world_on_a_thread_of_low_priority_ends_only_that_workflow() {
    let one_thread = HostOptions { worker_threads: NonZeroUsize::MIN, ..options() };
    let panics = "(drop (call $query_history (i32.const 100))) (unreachable)";
    let bytes = guest(&format!(
        r#"{} {COMPUTE} (func (export "call") (result i32) (call $compute) (call $say (i64.const 1)) {panics})"#,
        text(100, "panic")
    ));
    let running = start_in(&bytes, Fake::new(), one_thread, StartOptions::default());
    assert_eq!(wait(&running.workflow), State::Failed(Failure::Host));
    assert_eq!(running.world.threads(), ["slung-guest-low"]);
    let next = guest(&format!(
        r#"{COMPUTE} (func (export "call") (result i32) (call $compute) (call $say (i64.const 1)) (i32.const 0))"#
    ));
    let module = running.host.compile("next", &next).unwrap();
    let world = Fake::new();
    let workflow = running.host.start(&module, StartOptions::default(), world.clone());
    assert_eq!(wait(&workflow), State::Done);
    assert_eq!(world.threads(), ["slung-guest-low"]);
}

#[test]
fn dropping_the_host_stops_those_that_compute() {
    let Running { host, workflow, .. } = start(&spinner());
    let module = host.compile("spins", &spinner()).unwrap();
    let mut workflows: Vec<_> = (0..9).map(|_| host.start(&module, StartOptions::default(), Fake::new())).collect();
    workflows.push(workflow);
    while workflows.iter().any(|workflow| workflow.stats().demotions == 0) {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(host);
    for workflow in &workflows {
        assert_eq!(wait(workflow), State::Stopped);
    }
}

fn spinner() -> Vec<u8> {
    guest(&format!(r#"(func (export "call") (result i32) {SPIN} (i32.const 0))"#))
}

#[test]
fn a_guest_has_no_more_of_a_processor_than_its_share() {
    let tenth = StartOptions {
        processor_share_max: NonZeroU8::new(10).unwrap(),
        compute_ms_max: NonZeroU32::MAX,
        ..StartOptions::default()
    };
    let begin = Instant::now();
    let running = start_in(&spinner(), Fake::new(), options(), tenth);
    while running.workflow.stats().busy < Duration::from_millis(100) {
        std::thread::sleep(Duration::from_millis(1));
    }
    // But for what it may be ahead, and what the ticks have not seen yet.
    assert!(begin.elapsed() > Duration::from_millis(800), "{:?}", begin.elapsed());
    assert!(running.workflow.stats().throttled > Duration::ZERO);
    running.workflow.stop();
    assert_eq!(running.end().state, State::Stopped);
}

/// The pause here is one of hours: it can be stopped all the same.
#[test]
fn a_guest_that_calls_too_often_is_paused_and_that_is_logged() {
    let bytes = guest(
        r#"(func (export "call") (result i32)
            (loop $forever (drop (call $free (i64.const 1))) (br $forever))
            (i32.const 0))"#,
    );
    let one = StartOptions { host_calls_per_second_max: NonZeroU32::MIN, ..StartOptions::default() };
    let running = start_in(&bytes, Fake::new(), options(), one);
    let stats = || running.workflow.stats();
    while stats().throttled == Duration::ZERO {
        std::thread::sleep(Duration::from_millis(1));
    }
    let calls = stats().calls;
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(stats().calls, calls);
    assert_eq!(running.workflow.state(), State::Running);
    running.workflow.stop();
    let ended = running.end();
    assert_eq!(ended.state, State::Stopped);
    let line = ended.line("paused: it may call 1 host functions a second");
    assert!(line.starts_with("WARN host: "), "{line}");
}

#[test]
fn a_host_function_that_takes_too_long_fails_and_the_guest_goes_on() {
    let world = Fake::new();
    world.respond(None);
    let bytes = guest(&format!(
        r#"{} {} {} {} (func (export "call") (result i32) (local $left i32)
            (local.set $left (i32.const 2))
            (loop $again
                (call $say (call $query_live (i32.const 100)))
                (call $say (i64.trunc_f64_u (call $query_history (i32.const 100))))
                (call $say32 (call $write_event (i32.const 200) (i32.const 200) (i32.const 300)))
                (call $say32 (call $http (i32.const 400) (i32.const 16) (i32.const 0)))
                (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            (i32.const 0))"#,
        text(100, "stall"),
        text(200, "1"),
        text(300, "series=stall"),
        text(400, "http://example.com/")
    ));
    let short = StartOptions { host_call_ms_max: NonZeroU32::new(20).unwrap(), ..StartOptions::default() };
    let ended = start_in(&bytes, world, options(), short).end();
    assert_eq!(ended.state, State::Done);
    let failed = slung_abi::FAILED as u64;
    assert_eq!(ended.said, [0, 0, failed, 0].repeat(2));
    let calls = ended.stats.calls.iter().map(|calls| calls.failed).sum::<u64>();
    assert_eq!(calls, 8);
    for function in ["u_query_live", "u_query_history", "u_write_event", "u_writeback_http"] {
        let line = format!("{function} failed: no answer within 20 ms (`host_call_ms_max`)");
        assert_eq!(ended.lines.iter().filter(|logged| logged.contains(&line)).count(), 1, "{:#?}", ended.lines);
    }
}

#[test]
fn the_stack_is_as_large_as_it_is_set() {
    // Not the last thing that it does: each call needs a frame of its own.
    let bytes = guest(
        r#"(func $deep (param $left i32) (result i32)
            (if (result i32) (local.get $left)
                (then (i32.add (call $deep (i32.sub (local.get $left) (i32.const 1))) (i32.const 1)))
                (else (i32.const 0))))
        (func (export "call") (result i32)
            (call $say32 (call $deep (i32.const 50_000)))
            (i32.const 0))"#,
    );
    let with = |wasm_stack_bytes_max| HostOptions { wasm_stack_bytes_max, ..options() };
    let state = |host| {
        let ended = start_in(&bytes, Fake::new(), host, StartOptions::default()).end();
        (ended.state, ended.said)
    };
    assert!(matches!(state(options()).0, State::Failed(Failure::Trap { .. })));
    assert_eq!(state(with(32 << 20)), (State::Done, vec![50_000]));
    for impossible in [0, 1_000, (1 << 30) + 1, usize::MAX] {
        let Err(HostError::Options(what)) = Host::new(with(impossible)) else { panic!("{impossible}") };
        assert_eq!(what, format!("wasm_stack_bytes_max = {impossible}: from 16384 to 1073741824 bytes"));
    }
}
