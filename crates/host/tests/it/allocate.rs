//! Results: the guest's `allocate` may do what it likes.

use slung_abi::HostFunction;
use slung_host::{Failure, State};

use crate::fixture::{Ended, guest_with, run, text};

/// Fetches twice by HTTP with this allocator, says both addresses, and sends what is there to producer 9.
fn fetch(allocate: &str) -> Ended {
    run(&guest_with(
        allocate,
        &format!(
            r#"{} (func $fetch (local i32)
                (local.set 0 (call $http (i32.const 100) (i32.const 16) (i32.const 0)))
                (call $say32 (local.get 0))
                (if (local.get 0) (then (drop (call $ws (i64.const 9) (local.get 0))))))
            (func (export "call") (result i32) (call $fetch) (call $fetch) (i32.const 0))"#,
            text(100, "http://example.com/")
        ),
    ))
}

/// An `allocate` with this body, and a `deallocate` that says 77 and what it got.
fn allocator(body: &str) -> String {
    format!(
        r#"(global $calls (mut i32) (i32.const 0))
        (func (export "allocate") (param i32) (result i32)
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            {body})
        (func (export "deallocate") (param i32))"#
    )
}

#[test]
fn answers_that_are_no_place() {
    for (answer, reason) in [
        ("(i32.const 0)", "`allocate` has no room for 8 bytes"),
        ("(i32.const -1)", "`allocate` answered 4294967295 for 8 bytes, in a memory of 131072"),
        ("(i32.const 131072)", "`allocate` answered 131072 for 8 bytes, in a memory of 131072"),
        ("(i32.const 131065)", "`allocate` answered 131065 for 8 bytes, in a memory of 131072"),
        ("(i32.const 0x80000000)", "`allocate` answered 2147483648 for 8 bytes"),
        // The data fits, the Region does not.
        (
            "(select (i32.const 1000) (i32.const 131061) (i32.eq (local.get 0) (i32.const 8)))",
            "`allocate` answered 131061 for 12 bytes, in a memory of 131072",
        ),
        // One place for both, and places that touch.
        ("(i32.const 1000)", "`allocate` answered 1000 and 1000, which overlap"),
        (
            "(select (i32.const 1000) (i32.const 1007) (i32.eq (local.get 0) (i32.const 8)))",
            "`allocate` answered 1000 and 1007, which overlap",
        ),
        (
            "(select (i32.const 1000) (i32.const 989) (i32.eq (local.get 0) (i32.const 8)))",
            "`allocate` answered 1000 and 989, which overlap",
        ),
    ] {
        let ended = fetch(&allocator(answer));
        assert_eq!((ended.state.clone(), ended.said.as_slice()), (State::Done, [0, 0].as_slice()), "{answer}");
        ended.line(&format!("WARN host: u_writeback_http failed: {reason}"));
        assert_eq!(ended.stats.calls[HostFunction::WritebackHttp.index()].failed, 2);
    }
}

/// The end of the memory is as good a place as any, and so are places side by side in any order.
#[test]
fn answers_that_are_just_right() {
    for (data, region) in [(131_064, 1_000), (1_000, 131_060), (1_000, 1_008), (1_012, 1_000), (1_001, 1_009)] {
        let ended = fetch(&allocator(&format!(
            "(select (i32.const {data}) (i32.const {region}) (i32.eq (local.get 0) (i32.const 8)))"
        )));
        assert_eq!(ended.said, [region, 9, region, 9], "{data} and {region}");
        assert_eq!(ended.lines, ["INFO host: done"]);
    }
}

/// The memory moves or grows with every call; what was given before it is still there.
#[test]
fn growing() {
    let ended = fetch(&allocator("(i32.mul (memory.grow (i32.const 1)) (i32.const 65536))"));
    // 2 pages at first: data at 2, Region at 3, data at 4, Region at 5.
    assert_eq!(ended.said, [3 * 65_536, 9, 5 * 65_536, 9]);
    assert_eq!(ended.stats.memory_bytes_max, 6 * 65_536);
    let expected = crate::fake::Asked::Ws(9, b"response".to_vec());
    assert_eq!(ended.world.asked().iter().filter(|asked| **asked == expected).count(), 2);
}

#[test]
fn trapping_is_the_guests_own_end() {
    let ended = fetch(&allocator("unreachable"));
    let State::Failed(Failure::Trap { message, functions }) = &ended.state else { panic!("{:?}", ended.state) };
    assert!(message.contains("unreachable"), "{message}");
    assert_eq!(functions.len(), 3, "allocate, $fetch and call: {functions:?}");
    assert_eq!(functions[1], "fetch");
    ended.line("ERROR host: failed: wasm trap: wasm `unreachable` instruction executed (in function ");
    let calls = ended.stats.calls[HostFunction::WritebackHttp.index()];
    assert_eq!((calls.ok, calls.failed), (0, 1));
}

#[test]
fn exiting_inside_is_an_end_too() {
    let ended = fetch(&allocator("(call $exit (i32.const 3)) unreachable"));
    assert_eq!(ended.state, State::Failed(Failure::Exit(3)));
}

/// All seven functions are refused to `allocate` and `deallocate`, and everything is as before afterwards.
#[test]
fn calling_the_host_from_inside() {
    let calls = "(drop (call $query_live (i32.const 100))) (drop (call $query_history (i32.const 100)))
        (drop (call $poll (i64.const 1))) (drop (call $free (i64.const 1)))
        (drop (call $write_event (i32.const 100) (i32.const 100) (i32.const 100)))
        (drop (call $ws (i64.const 1) (i32.const 100)))
        (drop (call $http (i32.const 100) (i32.const 100) (i32.const 0)))";
    let ended = fetch(&allocator(&format!("{calls} (i32.mul (global.get $calls) (i32.const 1000))")));
    assert_eq!(ended.said, [2_000, 9, 4_000, 9]);
    for function in slung_abi::FUNCTIONS {
        ended.line(&format!("{} failed: called from inside `allocate` or `deallocate`", function.name));
        // Four times `allocate`; the guest's own polls would have slept.
        assert_eq!(ended.stats.calls[function.function.index()].failed, 4);
    }
    assert_eq!(ended.stats.sleeps, 0);
}

/// Printing from inside is harmless, and how an allocator says that it panics.
#[test]
fn printing_from_inside() {
    let ended = fetch(&format!(
        "{} (data (i32.const 600) \"\\60\\02\\00\\00\\04\\00\\00\\00oops\\n\") {}",
        "(data (i32.const 608) \"oops\")",
        allocator("(drop (call $fd_write (i32.const 2) (i32.const 600) (i32.const 1) (i32.const 700))) (i32.const 0)")
    ));
    assert_eq!(ended.said, [0, 0]);
    ended.line("WARN stderr: oops");
}

/// There is room for the data, none for its Region: the data is given back as soon as there is a Region to give it back
/// with, and is never given up.
#[test]
fn data_without_a_region_is_given_back() {
    let ended = fetch(
        r#"(global $calls (mut i32) (i32.const 0))
        (global $freed (mut i32) (i32.const 0))
        ;; Call 2 is for the first Region: no room. Call 3 gets the Region that gives the data back.
        (func (export "allocate") (param i32) (result i32)
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (if (i32.eq (global.get $calls) (i32.const 2)) (then (return (i32.const 0))))
            (i32.mul (global.get $calls) (i32.const 1000)))
        ;; The Region of the 8 bytes at 1,000; nothing else is ever freed here.
        (func (export "deallocate") (param i32)
            (if (i32.ne (i32.load (local.get 0)) (i32.const 1000)) (then unreachable))
            (if (i32.ne (i32.load offset=4 (local.get 0)) (i32.const 8)) (then unreachable))
            (if (i32.ne (local.get 0) (i32.const 3000)) (then unreachable))
            (if (global.get $freed) (then unreachable))
            (global.set $freed (i32.const 1)))"#,
    );
    assert_eq!((ended.state.clone(), ended.said.as_slice()), (State::Done, [0, 5_000, 9].as_slice()));
    ended.line("u_writeback_http failed: `allocate` has no room for 12 bytes");
}

/// While there is no room for a Region, no further data is asked for: one piece is lost at most, not one a call.
#[test]
fn without_room_for_regions_no_more_data_is_taken() {
    let ended = fetch(
        &allocator(
            "(if (result i32) (i32.eq (local.get 0) (i32.const 12)) (then (i32.const 0)) (else
            (call $said (local.get 0)) (i32.const 1000)))",
        )
        .replace(
            "(func (export \"deallocate\")",
            "(global $data (mut i32) (i32.const 0))
        (func $said (param i32) (global.set $data (i32.add (global.get $data) (i32.const 1)))
            (if (i32.gt_u (global.get $data) (i32.const 1)) (then unreachable)))
        (func (export \"deallocate\")",
        ),
    );
    assert_eq!((ended.state.clone(), ended.said.as_slice()), (State::Done, [0, 0].as_slice()));
}
