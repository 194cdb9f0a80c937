//! Every way in which a workflow ends, and what is said of it.

use slung_host::{Failure, StartOptions, State};

use crate::fake::Fake;
use crate::fixture::{guest, options, parse, run, start_in};

fn call(body: &str) -> Vec<u8> {
    guest(&format!(r#"(func $inner (export "call") (result i32) {body})"#))
}

#[test]
fn what_call_answers() {
    for (code, state, line) in [
        (0, State::Done, "INFO host: done"),
        (1, State::Failed(Failure::Error), "ERROR host: failed: it returned an error"),
        (2, State::Failed(Failure::Panic), "ERROR host: failed: it panicked"),
        (3, State::Failed(Failure::Unknown(3)), "ERROR host: failed: `call` answered 3, which is none of 0, 1 and 2"),
        (
            -1,
            State::Failed(Failure::Unknown(-1)),
            "ERROR host: failed: `call` answered -1, which is none of 0, 1 and 2",
        ),
    ] {
        let ended = run(&call(&format!("(i32.const {code})")));
        assert_eq!(ended.state, state);
        assert_eq!(ended.lines, [line]);
    }
}

#[test]
fn exits() {
    for (status, state) in
        [(0, State::Done), (1, State::Failed(Failure::Exit(1))), (125, State::Failed(Failure::Exit(125)))]
    {
        assert_eq!(run(&call(&format!("(call $exit (i32.const {status})) unreachable"))).state, state);
    }
    // Not a status in WASI preview 1.
    let State::Failed(Failure::Trap { message, .. }) = run(&call("(call $exit (i32.const 200)) unreachable")).state
    else {
        panic!("it has not failed")
    };
    assert!(message.contains("exit status"), "{message}");
}

#[test]
fn traps_say_what_and_where() {
    for (body, message) in [
        ("unreachable", "wasm `unreachable` instruction executed"),
        ("(i32.load (i32.const -1))", "out of bounds memory access"),
        ("(i32.div_u (i32.const 1) (i32.const 0))", "integer divide by zero"),
        ("(call $inner)", "call stack exhausted"),
        ("(call_indirect (result i32) (i32.const 0))", "uninitialized element"),
        ("(call_indirect (result i32) (i32.const 9))", "out of bounds table access"),
    ] {
        let ended = run(&guest(&format!(r#"(table 1 funcref) (func $inner (export "call") (result i32) {body})"#)));
        let State::Failed(failure) = &ended.state else { panic!("{body}: {:?}", ended.state) };
        let Failure::Trap { message: found, functions } = failure else { panic!("{body}: {failure:?}") };
        assert!(found.contains(message), "{body}: {found}");
        assert_eq!(functions[0], "inner", "{body}: {functions:?}");
        assert!(functions.len() <= 16);
        assert!(ended.line(message).starts_with("ERROR host: failed: wasm trap: "), "{:?}", ended.lines);
    }
}

/// A module that starts by running code: its start function, then `_initialize`, then `call`, each once.
#[test]
fn the_order_of_starting() {
    let ended = run(&guest(
        r#"(func $first (call $say (i64.const 1)))
        (start $first)
        (func (export "_initialize") (call $say (i64.const 2)))
        (func (export "_start") (call $say (i64.const 99)))
        (func (export "call") (result i32) (call $say (i64.const 3)) (i32.const 0))"#,
    ));
    assert_eq!((ended.state, ended.said), (State::Done, vec![1, 2, 3]));
}

#[test]
fn start_where_there_is_no_call() {
    let ended = run(&guest(
        r#"(func (export "_initialize") (call $say (i64.const 1)))
        (func (export "_start") (call $say (i64.const 2)))"#,
    ));
    assert_eq!((ended.state, ended.said), (State::Done, vec![1, 2]));
    let ended = run(&guest(r#"(func (export "_start") (call $exit (i32.const 5)))"#));
    assert_eq!(ended.state, State::Failed(Failure::Exit(5)));
}

#[test]
fn traps_before_the_entry() {
    for body in [
        r#"(func $f unreachable) (start $f) (func (export "call") (result i32) (i32.const 0))"#,
        r#"(func (export "_initialize") unreachable) (func (export "call") (result i32) (i32.const 0))"#,
        r#"(data (i32.const 131072) "x") (func (export "call") (result i32) (i32.const 0))"#,
    ] {
        let ended = run(&guest(body));
        assert!(matches!(ended.state, State::Failed(Failure::Trap { .. })), "{body}: {:?}", ended.state);
    }
}

/// `call` may be a host function that the module hands on: there is no guest behind it, and nothing happens.
#[test]
fn a_host_function_as_the_entry() {
    let module = parse(
        r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
        (export "call" (func 0)) (memory (export "memory") 1)
        (func (export "allocate") (param i32) (result i32) (i32.const 0)) (func (export "deallocate") (param i32)))"#,
    );
    let ended = run(&module);
    assert_ne!(ended.state, State::Running, "{:?}", ended.state);
}

/// As many more as one likes can be run by the same host after one has failed, and a module may be started twice.
#[test]
fn a_failure_is_one_workflows_own() {
    let running = start_in(&call("unreachable"), Fake::new(), options(), StartOptions::default());
    assert!(matches!(crate::fixture::wait(&running.workflow), State::Failed(_)));
    let module = running.host.compile("again", &call("(i32.const 0)")).unwrap();
    for _ in 0..3 {
        let again = running.host.start(&module, StartOptions::default(), Fake::new());
        assert_eq!(crate::fixture::wait(&again), State::Done);
    }
    assert!(matches!(running.end().state, State::Failed(_)));
}

/// The world is gone when the end is known: what belongs to the workflow can be cleaned up by dropping it.
#[test]
fn the_world_goes_before_the_end_is_told() {
    let world = Fake::new();
    let running = start_in(&call("(i32.const 0)"), world.clone(), options(), StartOptions::default());
    crate::fixture::wait(&running.workflow);
    // This test's two and no more.
    assert_eq!(std::sync::Arc::strong_count(&world), 2);
}

#[test]
fn a_module_of_another_host() {
    let other = slung_host::Host::new(options()).unwrap();
    let module = other.compile("foreign", &call("(i32.const 0)")).unwrap();
    let running = start_in(&call("(i32.const 0)"), Fake::new(), options(), StartOptions::default());
    let foreign = running.host.start(&module, StartOptions::default(), Fake::new());
    let expected = Failure::Start("the module was compiled by another host".to_owned());
    assert_eq!(crate::fixture::wait(&foreign), State::Failed(expected));
    assert_eq!(running.end().state, State::Done);
}

/// A world that panics takes its own workflow with it, and nothing else.
#[test]
fn a_world_that_panics() {
    let panics = guest(&format!(
        r#"{} (func (export "call") (result i32) (drop (call $query_history (i32.const 100))) (i32.const 0))"#,
        crate::fixture::text(100, "panic")
    ));
    let running = start_in(&panics, Fake::new(), options(), StartOptions::default());
    assert_eq!(crate::fixture::wait(&running.workflow), State::Failed(Failure::Host));
    let module = running.host.compile("next", &call("(i32.const 0)")).unwrap();
    let next = running.host.start(&module, StartOptions::default(), Fake::new());
    assert_eq!(crate::fixture::wait(&next), State::Done);
    running.end().line("ERROR host: failed: the host panicked in its place");
}
