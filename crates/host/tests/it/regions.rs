//! Arguments: what a Region says is believed after it was checked, and only then.

use slung_host::State;

use crate::fixture::{Ended, guest, region, run, text};

const PAGES: u32 = 2 * 65_536;
const MAX: u32 = u32::MAX;

/// Sends the Region at `address` by `u_writeback_ws` to producer 7 and says what that answered.
fn send(data: &str, address: u32) -> Ended {
    let ended = run(&guest(&format!(
        r#"{data} (func (export "call") (result i32)
            (call $say32 (call $ws (i64.const 7) (i32.const {address})))
            (i32.const 0))"#
    )));
    assert_eq!(ended.state, State::Done, "no failure ends a guest");
    ended
}

#[test]
fn good_regions() {
    // Somewhere, at the very end, unaligned, empty, over itself.
    for (data, address) in [
        (text(101, "hello"), 101),
        (format!("{} (data (i32.const {}) \"hello\")", region(64, PAGES - 5, 5, 5), PAGES - 5), 64),
        (region(PAGES - 12, 200, 5, 0), PAGES - 12),
        (region(64, 0, 0, 0), 64),
        (region(64, PAGES, 0, 0), 64),
        (region(64, 64, 12, 12), 64),
    ] {
        let ended = send(&data, address);
        assert_eq!(ended.said, [7, 0], "{data}");
        assert_eq!(ended.lines, ["INFO host: done"]);
    }
}

#[test]
fn bad_regions() {
    for (data, address, reason) in [
        (String::new(), 0, "the address of the Region is 0".to_owned()),
        (String::new(), PAGES - 11, format!("the Region at {} ends past the memory of {PAGES} bytes", PAGES - 11)),
        (String::new(), MAX, format!("the Region at {MAX} ends past the memory of {PAGES} bytes")),
        (region(64, 100, 4, 5), 64, "the Region's length 5 is over its capacity 4".to_owned()),
        (region(64, 0, 5, 5), 64, "the Region has 5 bytes at address 0".to_owned()),
        (region(64, PAGES - 4, 5, 5), 64, format!("the Region's 5 bytes at {} end past the memory", PAGES - 4)),
        (region(64, PAGES - 4, 5, 1), 64, "the Region's 5 bytes".to_owned()),
        (region(64, PAGES + 1, 0, 0), 64, "the Region's 0 bytes".to_owned()),
        (region(64, MAX, 1, 1), 64, "the Region's 1 bytes at 4294967295".to_owned()),
        (region(64, MAX, MAX, MAX), 64, "the Region's 4294967295 bytes at 4294967295".to_owned()),
        (region(64, 1, MAX, MAX), 64, "the Region's 4294967295 bytes at 1".to_owned()),
        (region(64, 100, 1 << 31, 4), 64, "the Region's 2147483648 bytes at 100".to_owned()),
    ] {
        let ended = send(&data, address);
        assert_eq!(ended.said, [1], "nothing is sent, and 1 is failure: {reason}");
        ended.line(&format!("WARN host: u_writeback_ws failed: data: {reason}"));
        let calls = ended.stats.calls[slung_abi::HostFunction::WritebackWs.index()];
        assert_eq!((calls.ok, calls.failed), (1, 1), "{reason}");
    }
}

/// Every function checks every Region that it takes.
#[test]
fn each_argument_of_each_function_is_checked() {
    let good = format!("{} {} {}", text(100, "12"), text(200, "series=s"), text(300, "x"));
    for (call, answer, reason) in [
        ("(call $say (call $query_live (i32.const -1)))", 0, "u_query_live failed: query: the Region at 4294967295"),
        (
            "(call $say (i64.trunc_f64_u (call $query_history (i32.const 0))))",
            0,
            "u_query_history failed: query: the address",
        ),
        (
            "(call $say32 (call $write_event (i32.const 0) (i32.const 100) (i32.const 200)))",
            1,
            "failed: timestamp: the",
        ),
        ("(call $say32 (call $write_event (i32.const 100) (i32.const 0) (i32.const 200)))", 1, "failed: value: the"),
        ("(call $say32 (call $write_event (i32.const 100) (i32.const 100) (i32.const 0)))", 1, "failed: tags: the"),
        (
            "(call $say32 (call $http (i32.const 0) (i32.const 300) (i32.const 0)))",
            0,
            "u_writeback_http failed: URL: the",
        ),
        (
            "(call $say32 (call $http (i32.const 300) (i32.const 0) (i32.const 0)))",
            0,
            "u_writeback_http failed: body: the",
        ),
    ] {
        let ended = run(&guest(&format!(r#"{good} (func (export "call") (result i32) {call} (i32.const 0))"#)));
        assert_eq!((ended.state.clone(), ended.said.as_slice()), (State::Done, [answer].as_slice()), "{call}");
        ended.line(reason);
    }
}

/// Arguments may overlap: the host only reads them.
#[test]
fn the_same_region_twice() {
    let ended = run(&guest(&format!(
        r#"{} (func (export "call") (result i32)
            (call $say32 (call $http (i32.const 100) (i32.const 100) (i32.const 1)))
            (i32.const 0))"#,
        text(100, "http://x/")
    )));
    assert_eq!(ended.state, State::Done);
    assert!(ended.said[0] >= 65_536, "{ended:?}");
}

#[test]
fn too_long_and_not_text() {
    for (data, call, reason) in [
        (
            region(64, 1_000, 4_097, 4_097),
            "(call $say (call $query_live (i32.const 64)))",
            "query: 4097 bytes, at most 4096 are allowed",
        ),
        (text(64, b"AVG:\xff\xfe"), "(call $say (call $query_live (i32.const 64)))", "query: not UTF-8 at byte 4"),
        (
            region(64, 1_000, 1_101, 1_101),
            "(drop (call $write_event (i32.const 64) (i32.const 64) (i32.const 64)))",
            "timestamp: 1101 bytes, at most 1100 are allowed",
        ),
        (
            region(64, 1_000, 8_001, 8_001),
            "(drop (call $http (i32.const 64) (i32.const 64) (i32.const 0)))",
            "URL: 8001 bytes, at most 8000 are allowed",
        ),
        (
            format!("{} {}", text(64, "u"), region(100, 1_000, 262_145, 262_145)),
            "(drop (memory.grow (i32.const 8))) (drop (call $http (i32.const 64) (i32.const 100) (i32.const 0)))",
            "body: 262145 bytes, at most 262144 are allowed",
        ),
        (
            region(64, 1_000, 262_145, 262_145),
            "(drop (memory.grow (i32.const 8))) (drop (call $ws (i64.const 1) (i32.const 64)))",
            "data: 262145 bytes, at most 262144 are allowed",
        ),
    ] {
        let ended = run(&guest(&format!(r#"{data} (func (export "call") (result i32) {call} (i32.const 0))"#)));
        assert_eq!(ended.state, State::Done);
        ended.line(reason);
    }
}

/// All triples of numbers at which something changes, through a real guest: the host takes exactly those that fit.
#[test]
fn the_extremes_in_every_combination() {
    const NUMBERS: [u32; 15] = [
        0,
        1,
        12,
        65_535,
        65_536,
        PAGES - 12,
        PAGES - 1,
        PAGES,
        PAGES + 1,
        (1 << 31) - 1,
        1 << 31,
        MAX - PAGES,
        MAX - 12,
        MAX - 1,
        MAX,
    ];
    let triples = || {
        NUMBERS.into_iter().flat_map(|offset| {
            NUMBERS
                .into_iter()
                .flat_map(move |capacity| NUMBERS.into_iter().map(move |length| (offset, capacity, length)))
        })
    };
    let bytes: Vec<u8> = triples()
        .flat_map(|(offset, capacity, length)| slung_abi::Region { offset, capacity, length }.encode())
        .collect();
    let count = bytes.len() / slung_abi::Region::SIZE;
    let ended = run(&guest(&format!(
        r#"(data (i32.const 1024) "{}") (func (export "call") (result i32) (local i32)
            (loop $again
                (drop (call $ws (i64.extend_i32_u (local.get 0)) (i32.add (i32.const 1024) (i32.mul (local.get 0) (i32.const 12)))))
                (br_if $again (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const {count}))))
            (i32.const 0))"#,
        crate::fixture::escaped(&bytes)
    )));
    let fits = |(offset, capacity, length): (u32, u32, u32)| {
        length <= capacity
            && u64::from(offset) + u64::from(capacity) <= u64::from(PAGES)
            && (offset > 0 || capacity == 0)
    };
    let expected: Vec<u64> = (0..).zip(triples()).filter(|(_, triple)| fits(*triple)).map(|(index, _)| index).collect();
    assert_eq!((ended.state, ended.said), (State::Done, expected));
}
