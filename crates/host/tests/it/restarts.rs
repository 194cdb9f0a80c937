//! Workflows that fail and are started again, and those that are not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use slung_host::{Failure, Host, RestartOptions, StartOptions, State, Workflow};

use crate::fake::{Fake, LONG};
use crate::fixture::{Running, guest, options, wait};

/// Pauses that a test can wait for.
fn short() -> RestartOptions {
    let (pause_min, pause_max) = (Duration::from_millis(4), Duration::from_millis(8));
    RestartOptions { pause_min, pause_max, failures_max: 5, failures_within: LONG }
}

/// One that runs again where it fails, in that world each time; and how often it was given one.
fn supervise(bytes: &[u8], restarts: RestartOptions) -> (Running, Arc<AtomicUsize>) {
    let (world, lives) = (Fake::new(), Arc::new(AtomicUsize::new(0)));
    let host = Host::new(options()).expect("a host");
    let module = host.compile("test", bytes).unwrap_or_else(|error| panic!("{error}"));
    let next = {
        let (world, lives) = (Arc::clone(&world), Arc::clone(&lives));
        move || {
            lives.fetch_add(1, SeqCst);
            Arc::clone(&world) as Arc<dyn slung_host::World>
        }
    };
    let named = StartOptions { name: "restarted".to_owned(), ..StartOptions::default() };
    let workflow = host.supervise(&module, named, restarts, next);
    (Running { host, world, workflow }, lives)
}

fn until(workflow: &Workflow, what: &str, wish: impl Fn(&Workflow) -> bool) {
    let end = std::time::Instant::now() + LONG;
    while !wish(workflow) {
        assert!(std::time::Instant::now() < end, "never: {what}, but {}", workflow.state());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Says how much of its memory was written before, which is nothing in a new instance; and fails.
const FAILS: &str = r#"(func (export "call") (result i32)
    (call $say (i64.load (i32.const 4096)))
    (i64.store (i32.const 4096) (i64.const 7))
    (i32.const 1))"#;

#[test]
fn one_that_fails_is_started_again_and_set_aside_in_the_end() {
    let (running, lives) = supervise(&guest(FAILS), short());
    assert_eq!(wait(&running.workflow), State::Failed(Failure::Error));
    assert_eq!((lives.load(SeqCst), running.workflow.stats().restarts), (5, 4));
    // Each in an instance of its own.
    assert_eq!(running.world.said(), [0; 5]);
    let stats = running.workflow.stats();
    assert_eq!(stats.calls.iter().map(|calls| calls.ok).sum::<u64>(), 5, "counters go on");
    assert_eq!((stats.memory_bytes_max, stats.uptime), (2 << 16, None), "no instance is left");
}

#[test]
fn one_that_traps_or_panics_is_started_again_too() {
    for (body, restarts) in [("unreachable", 4), ("(i32.const 2)", 4), ("(call $exit (i32.const 3)) unreachable", 4)] {
        let (running, _) = supervise(&guest(&format!(r#"(func (export "call") (result i32) {body})"#)), short());
        let state = wait(&running.workflow);
        assert!(matches!(state, State::Failed(_)), "{body}: {state}");
        assert_eq!(running.workflow.stats().restarts, restarts, "{body}");
    }
}

#[test]
fn one_that_has_done_its_work_is_not() {
    let (running, lives) = supervise(&guest(r#"(func (export "call") (result i32) (i32.const 0))"#), short());
    assert_eq!(wait(&running.workflow), State::Done);
    assert_eq!((lives.load(SeqCst), running.workflow.stats().restarts), (1, 0));
}

#[test]
fn one_can_be_stopped_in_its_pause() {
    let long = RestartOptions { pause_min: LONG * 2, pause_max: LONG * 2, ..short() };
    let (running, lives) = supervise(&guest(FAILS), long);
    until(&running.workflow, "it waits", |it| it.state() == State::Restarting(Failure::Error));
    assert_eq!(running.workflow.stats().memory_bytes, 0, "nothing of it is left");
    running.workflow.stop();
    assert_eq!(wait(&running.workflow), State::Stopped);
    assert_eq!(lives.load(SeqCst), 1);
}

#[test]
fn a_host_that_is_closed_waits_for_no_pause() {
    let long = RestartOptions { pause_min: LONG * 2, pause_max: LONG * 2, ..short() };
    let (running, _) = supervise(&guest(FAILS), long);
    until(&running.workflow, "it waits", |it| it.state() == State::Restarting(Failure::Error));
    let Running { host, workflow, .. } = running;
    host.close();
    assert_eq!(workflow.state(), State::Stopped);
}
