//! Who computes for long makes way for those who do not, and stays within what he was granted.

use std::num::NonZeroUsize;
use std::time::Duration;

use slung_host::{Failure, HostOptions, StartOptions, State};

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
    let bytes = guest(&format!(r#"(func (export "call") (result i32) {SPIN} (i32.const 0))"#));
    let Running { host, workflow, .. } = start(&bytes);
    let module = host.compile("spins", &bytes).unwrap();
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
