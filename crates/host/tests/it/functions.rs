//! What each host function does when all is well, and how it fails when the world refuses.

use std::num::NonZeroU32;

use slung_abi::HostFunction;
use slung_host::{HttpMethod, Refusal, StartOptions, State};

use crate::fake::{Asked, Fake};
use crate::fixture::{guest, options, run, start, start_in, text};

/// Says the address that is given, and sends the data of the Region there to producer 9; frees nothing.
const TELL: &str = r#"(func $tell (param i32)
    (call $say32 (local.get 0))
    (if (local.get 0) (then (drop (call $ws (i64.const 9) (local.get 0))))))"#;

#[test]
fn history() {
    let ended = run(&guest(&format!(
        r#"{} {} (func (export "call") (result i32)
            (call $say (i64.reinterpret_f64 (call $query_history (i32.const 100))))
            (call $say (i64.reinterpret_f64 (call $query_history (i32.const 200))))
            (i32.const 0))"#,
        text(100, "AVG:temp:[]:[1h]"),
        text(200, "refuse:temp:[]"),
    )));
    assert_eq!(ended.state, State::Done);
    assert_eq!(ended.said, [21.5_f64.to_bits(), 0]);
    assert_eq!(ended.world.asked()[0], Asked::History("AVG:temp:[]:[1h]".to_owned()));
    ended.line("WARN host: u_query_history failed: the test refuses refuse:temp:[]");
}

#[test]
fn write_event() {
    let ended = run(&guest(&format!(
        r#"{} {} {} {} {} (func (export "call") (result i32)
            (call $say32 (call $write_event (i32.const 100) (i32.const 200) (i32.const 300)))
            (call $say32 (call $write_event (i32.const 100) (i32.const 200) (i32.const 400)))
            (call $say32 (call $write_event (i32.const 200) (i32.const 200) (i32.const 300)))
            (call $say32 (call $write_event (i32.const 100) (i32.const 500) (i32.const 300)))
            (call $say32 (call $write_event (i32.const 100) (i32.const 200) (i32.const 100)))
            (i32.const 0))"#,
        text(100, "-1700000000000000"),
        text(200, "21.5"),
        text(300, "env=prod, series=temp.derived,muted,"),
        text(400, "series=refuse"),
        text(500, "nan"),
    )));
    assert_eq!(ended.state, State::Done);
    assert_eq!(ended.said, [0, 1, 1, 1, 1]);
    let written = Asked::Write {
        timestamp: -1_700_000_000_000_000,
        value: 21.5,
        series: "temp.derived".to_owned(),
        tags: vec!["env=prod".to_owned(), "muted".to_owned()],
    };
    assert_eq!(ended.world.asked()[0], written);
    ended.line("u_write_event failed: the test refuses refuse");
    ended.line("u_write_event failed: timestamp: \"21.5\" is no whole number of microseconds");
    ended.line("u_write_event failed: value: \"nan\" is no decimal number");
    ended.line("u_write_event failed: tags: no series=NAME");
    let calls = ended.stats.calls[HostFunction::WriteEvent.index()];
    assert_eq!((calls.ok, calls.failed), (1, 4));
}

/// One that runs away writes a burst, and is told that each further event is too many; the log hears of it once.
#[test]
fn events_beyond_the_limit_are_refused() {
    let module = guest(&format!(
        r#"{} {} {} (func (export "call") (result i32) (local $left i32)
            (local.set $left (i32.const 200))
            (loop $again
                (call $say32 (call $write_event (i32.const 100) (i32.const 200) (i32.const 300)))
                (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            (i32.const 0))"#,
        text(100, "1700000000000000"),
        text(200, "21.5"),
        text(300, "series=temp"),
    ));
    let writes_per_second_max = NonZeroU32::MIN;
    let start = StartOptions { writes_per_second_max, ..StartOptions::default() };
    let ended = start_in(&module, Fake::new(), options(), start).end();
    assert_eq!(ended.state, State::Done);
    let written = ended.world.asked().iter().filter(|asked| matches!(asked, Asked::Write { .. })).count() as u64;
    // A slow machine takes some seconds, and has some more.
    assert!((1..100).contains(&written), "{written}");
    assert_eq!((ended.said[0], ended.said.iter().sum::<u64>()), (0, 200 - written));
    assert_eq!(ended.stats.writes_refused, 200 - written);
    let calls = ended.stats.calls[HostFunction::WriteEvent.index()];
    assert_eq!((calls.ok, calls.failed), (written, 200 - written));
    let refused = "WARN host: u_write_event failed: too many events: it may write 1 a second (`writes_per_second_max`)";
    assert_eq!(ended.lines, [refused, "INFO host: done"]);
}

#[test]
fn writeback_ws() {
    let ended = run(&guest(&format!(
        r#"{} (func (export "call") (result i32)
            (call $say32 (call $ws (i64.const 8) (i32.const 100)))
            (call $say32 (call $ws (i64.const -1) (i32.const 100)))
            (i32.const 0))"#,
        text(100, b"not \xff text"),
    )));
    assert_eq!(ended.world.asked()[0], Asked::Ws(8, b"not \xff text".to_vec()));
    assert_eq!(ended.said, [8, 0, u64::MAX, 1]);
    ended.line("u_writeback_ws failed: no such producer");
}

#[test]
fn writeback_http() {
    for method in HttpMethod::ALL {
        let ended = run(&guest(&format!(
            r#"{} {} {TELL} (func (export "call") (result i32)
                (call $tell (call $http (i32.const 100) (i32.const 200) (i32.const {})))
                (i32.const 0))"#,
            text(100, "http://example.com/ü"),
            text(200, "{}"),
            method.code(),
        )));
        let asked = ended.world.asked();
        assert_eq!(asked[0], Asked::Http(method, "http://example.com/ü".to_owned(), b"{}".to_vec()));
        assert_eq!(asked[2], Asked::Ws(9, b"response".to_vec()), "the response comes back as a Region");
    }
}

/// As with events, and each of them has its own limit.
#[test]
fn requests_beyond_the_limit_are_refused_and_not_made() {
    let module = guest(&format!(
        r#"{} {} {} {} (func (export "call") (result i32) (local $left i32)
            (local.set $left (i32.const 200))
            (loop $again
                (drop (call $http (i32.const 100) (i32.const 16) (i32.const 1)))
                (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            (call $say32 (call $write_event (i32.const 200) (i32.const 300) (i32.const 400)))
            (drop (call $http (i32.const 100) (i32.const 16) (i32.const 9)))
            (i32.const 0))"#,
        text(100, "http://example.com/"),
        text(200, "1700000000000000"),
        text(300, "21.5"),
        text(400, "series=temp"),
    ));
    let http_calls_per_second_max = NonZeroU32::MIN;
    let start = StartOptions { http_calls_per_second_max, ..StartOptions::default() };
    let world = Fake::new();
    world.respond(Some(Ok(Vec::new())));
    let ended = start_in(&module, world, options(), start).end();
    assert_eq!(ended.state, State::Done);
    let made = ended.world.asked().iter().filter(|asked| matches!(asked, Asked::Http(..))).count() as u64;
    // A slow machine takes some seconds, and has some more.
    assert!((1..100).contains(&made), "{made}");
    assert_eq!((ended.said.as_slice(), ended.stats.http_calls_refused), ([0].as_slice(), 200 - made));
    let calls = ended.stats.calls[HostFunction::WritebackHttp.index()];
    assert_eq!((calls.ok, calls.failed), (made, 201 - made), "the last one is wrong, and takes no place");
    assert_eq!(ended.stats.writes_refused, 0);
    let refused = "too many requests: it may make 1 a second (`http_calls_per_second_max`)";
    assert_eq!(ended.lines[0], format!("WARN host: u_writeback_http failed: {refused}"));
    assert_eq!(ended.lines.iter().filter(|line| line.contains("too many requests")).count(), 1, "{:?}", ended.lines);
}

#[test]
fn http_answers_that_are_no_region() {
    let call = format!(
        r#"{} (func (export "call") (result i32)
            (call $say32 (call $http (i32.const 100) (i32.const 16) (i32.const METHOD)))
            (i32.const 0))"#,
        text(100, "http://example.com/"),
    );
    let run = |method: &str, response| {
        let world = Fake::new();
        world.respond(Some(response));
        start_in(&guest(&call.replace("METHOD", method)), world, options(), Default::default()).end()
    };
    let empty = run("0", Ok(Vec::new()));
    assert_eq!((empty.said.as_slice(), empty.lines.len()), ([0].as_slice(), 1), "an empty body is no failure");
    let refused = run("0", Err(Refusal("host not allowed".to_owned())));
    assert_eq!(refused.said, [0]);
    refused.line("u_writeback_http failed: host not allowed");
    let long = run("0", Ok(vec![b'x'; 1_048_577]));
    assert_eq!(long.said, [0]);
    long.line("u_writeback_http failed: a response of 1048577 bytes, at most 1048576 are given");
    for method in ["4", "-1"] {
        let wrong = run(method, Ok(b"x".to_vec()));
        assert_eq!((wrong.said.as_slice(), wrong.world.asked().len()), ([0].as_slice(), 1), "nothing was sent");
        wrong.line(&format!("u_writeback_http failed: method {method} is none of 0 to 3"));
    }
}

/// Handles are the workflow's own numbers from 1, gone with it.
#[test]
fn handles() {
    let ended = run(&guest(&format!(
        r#"{} {} (func (export "call") (result i32)
            (call $say (call $query_live (i32.const 100)))
            (call $say (call $query_live (i32.const 200)))
            (call $say (call $query_live (i32.const 100)))
            (call $say32 (call $free (i64.const 1)))
            (call $say32 (call $free (i64.const 1)))
            (call $say32 (call $free (i64.const 0)))
            (call $say32 (call $free (i64.const 1001)))
            (call $say32 (call $free (i64.const -1)))
            (call $say (call $query_live (i32.const 100)))
            (i32.const 0))"#,
        text(100, "AVG:temp:[]"),
        text(200, "refuse"),
    )));
    assert_eq!(ended.state, State::Done);
    assert_eq!(ended.said, [1, 0, 2, 0, 1, 1, 1, 1, 3], "never a number twice, the world's ids unknown");
    ended.line("u_query_live failed: the test refuses refuse");
    ended.line("u_free_handle failed: handle 1 is unknown or freed");
    ended.line("u_free_handle failed: handle 1001 is unknown or freed");
    ended.line("u_free_handle failed: handle 18446744073709551615 is unknown or freed");
    assert_eq!(ended.world.open(), Vec::<u64>::new(), "what it left open was freed with it");
}

#[test]
fn as_many_handles_as_allowed() {
    let ended = run(&guest(&format!(
        r#"{} (func (export "call") (result i32) (local i32)
            (loop $again
                (drop (call $query_live (i32.const 100)))
                (br_if $again (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 100))))
            (call $say (call $query_live (i32.const 100)))
            (drop (call $free (i64.const 50)))
            (call $say (call $query_live (i32.const 100)))
            (i32.const 0))"#,
        text(100, "AVG:temp:[]"),
    )));
    assert_eq!(ended.said, [0, 101]);
    ended.line("u_query_live failed: 100 handles are open, which is as many as a workflow may have");
}

/// One workflow's handle is nothing to another one in the same host, and its end leaves the other's alone.
#[test]
fn handles_of_others() {
    let subscribes = format!(
        r#"{} (func (export "call") (result i32)
            (call $say (call $query_live (i32.const 100)))
            (call $say (call $query_live (i32.const 100)))
            (loop $forever (drop (call $poll (i64.const 2))) (br $forever)) unreachable)"#,
        text(100, "AVG:temp:[]")
    );
    let one = start(&guest(&subscribes));
    one.world.wait_said(2);
    let takes = guest(
        r#"(func (export "call") (result i32)
            (call $say32 (call $poll (i64.const 1)))
            (call $say32 (call $poll (i64.const 1001)))
            (call $say32 (call $free (i64.const 1)))
            (i32.const 0))"#,
    );
    let world = Fake::new();
    let module = one.host.compile("other", &takes).unwrap();
    let other = one.host.start(&module, Default::default(), world.clone());
    assert_eq!(crate::fixture::wait(&other), State::Done);
    assert_eq!(world.said(), [0, 0, 1]);
    assert_eq!(one.world.open(), [1_001, 1_002]);
    one.workflow.stop();
    assert_eq!(one.end().state, State::Stopped);
}
