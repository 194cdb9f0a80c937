//! What each call sends, answers and refuses.

use std::io::ErrorKind;

use proptest::prelude::*;
use slung::prelude::*;
use slung::testing::{Host, Message, Request, Written};

#[test]
fn a_refused_query_is_an_error_that_says_which_and_why() {
    let host = Host::new();
    let error = host.within(|| query_live("AVG:temp:x")).unwrap_err().to_string();
    assert!(error.contains("`AVG:temp:x`") && error.contains("byte 9"), "{error}");
    let error = host.within(|| query_live("AVG:temp:[]:[2h,1h]")).unwrap_err().to_string();
    assert!(error.contains("a live query's range"), "{error}");
    assert_eq!(host.log().len(), 2, "{:?}", host.log());
}

#[test]
fn history_answers_like_the_abi_with_zero_for_nothing_and_for_refusals() {
    let host = Host::new();
    host.store("temp", &["sensor=1"], [(1_000_000, 10.0), (2_000_000, 30.0)]);
    host.store("temp", &["sensor=2"], [(3_000_000, 80.0)]);
    let ask = |query: &str| host.within(|| query_history(query)).unwrap();
    assert_eq!(ask("AVG:temp:[]"), 40.0);
    assert_eq!(ask("SUM:temp:[sensor=1]"), 40.0);
    assert_eq!(ask("COUNT:temp:[]:[1s]"), 2.0, "the clock is at the newest point, and both ends belong to the range");
    assert_eq!(ask("temp:[sensor=1]"), 30.0, "the latest");
    assert_eq!(ask("MAX:nothing:[]"), 0.0);
    assert_eq!(host.log(), [""; 0], "nothing there is no failure");
    assert_eq!(ask("MAX:temp"), 0.0);
    assert_eq!(host.log().len(), 1);
}

#[test]
fn the_latest_value_of_several_series_is_the_one_written_last() {
    let host = Host::new();
    host.store("temp", &["sensor=2"], [(5, 2.0)]);
    host.store("temp", &["sensor=1"], [(5, 1.0)]);
    assert_eq!(host.query("temp:[]"), Some(1.0));
    host.store("temp", &["sensor=2"], [(5, 3.0)]);
    assert_eq!(host.query("temp:[]"), Some(3.0));
    assert_eq!(host.query("COUNT:temp:[]"), Some(2.0), "one point per series and timestamp");
}

#[test]
fn history_computes_what_no_live_query_does() {
    let host = Host::new();
    host.store("requests", &["n=1"], [(1_000_000, 100.0), (3_000_000, 104.0), (5_000_000, 6.0)]);
    host.store("requests", &["n=2"], [(1_000_000, 7.0), (2_000_000, 9.0), (5_000_000, 19.0)]);
    host.store("requests", &["n=3"], [(5_000_000, 1.0)]);
    host.store("requests", &["n=1"], [(1_000_000, 100.0)]);
    assert_eq!(host.query("FIRST:requests:[]"), Some(100.0), "known first");
    assert_eq!(host.query("LAST:requests:[]"), Some(1.0), "written last");
    assert_eq!(host.query("LAST:requests:[NOT n=3]"), Some(19.0));
    assert_eq!(host.query("STDDEV:requests:[n=1]:[1000000,3000000]"), Some(2.0));
    // 4 and, after a reset, 6 in 4 seconds; 12 in 4 seconds; nothing of a single point.
    assert_eq!(host.query("RATE:requests:[]"), Some(2.5 + 3.0));
    assert_eq!(host.query("RATE:requests:[n=3]"), None);
    let p50 = host.query("P50:requests:[]").unwrap();
    assert!((p50 - 9.0).abs() <= 9.0 * 0.005, "{p50} is about the fourth of 1, 6, 7, 9, 19, 100, 104");
    for op in ["FIRST", "LAST", "STDDEV", "RATE", "P99.9"] {
        assert_eq!(host.query(&format!("{op}:nothing:[]")), None);
    }
    let error = host.within(|| query_live("RATE:requests:[]:[5m]")).unwrap_err().to_string();
    assert!(error.contains("RATE is for historical queries only"), "{error}");
}

#[test]
fn written_events_are_visible_at_once_in_history_and_live() {
    let host = Host::new();
    let echo = || {
        let handle = query_live(query!("SUM:score:[]"))?;
        write_event(7, 1.5, ["sensor=1", "series=score"])?;
        assert_eq!(query_history("score:[sensor=1]")?, 1.5);
        write_event(8, 2.0, vec![String::from("series=score"), String::from("sensor=2")])?;
        let first = poll_handle_once(handle)?.unwrap();
        assert_eq!((first.value, first.timestamp, first.tags), (1.5, 7, vec!["sensor=1".to_owned()]));
        assert_eq!(first.producers, [0; 0]);
        let state = poll_handle_state(handle)?.unwrap();
        assert_eq!(state, PollState { value: 3.5, sum: Some(3.5), count: Some(2) });
        Ok::<(), std::io::Error>(())
    };
    host.run(echo).unwrap();
    let written = |timestamp, value, tag: &str| Written {
        timestamp,
        value,
        series: "score".to_owned(),
        tags: vec![tag.to_owned()],
    };
    assert_eq!(host.written(), [written(7, 1.5, "sensor=1"), written(8, 2.0, "sensor=2")]);
}

#[test]
fn what_the_abi_can_not_carry_is_refused_and_nothing_is_sent() {
    let host = Host::new();
    let write = |value: f64, tags: &[&str]| host.within(|| write_event(0, value, tags)).unwrap_err();
    for (value, tags, what) in [
        (f64::NAN, &["series=a"][..], "NaN is not finite"),
        (f64::NEG_INFINITY, &["series=a"], "-inf is not finite"),
        (1.0, &["series=a", "x,y"], "`x,y` has a comma"),
        (1.0, &["series=a,b"], "`series=a,b` has a comma"),
        (1.0, &["series=a", ""], "empty"),
        (1.0, &["series=a", " x"], "blank"),
        (1.0, &["series=a", "x\t"], "blank"),
        (1.0, &["series= a"], "blank"),
        (1.0, &["x"], "none of the tags `x` is `series=NAME`"),
        (1.0, &[], "none of the tags `` is `series=NAME`"),
        (1.0, &["series="], "no name"),
        (1.0, &["series=a", "series=b"], "more than one series"),
    ] {
        let error = write(value, tags);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{tags:?}");
        assert!(error.to_string().contains(what), "{tags:?}: {error}");
    }
    assert_eq!(host.log(), [""; 0], "the host has seen none of it");
    assert_eq!(host.written(), []);
}

#[test]
fn what_the_host_refuses_is_another_kind() {
    let host = Host::at(0);
    let day = 24 * 60 * 60 * 1_000_000;
    let error = host.within(|| write_event(day + 1, 1.0, ["series=a"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(error.to_string().contains("`series=a`") && error.to_string().contains("ahead"), "{error}");
    let error = host.within(|| write_event(0, 1.0, ["series=a", "bell=\u{7}"])).unwrap_err();
    assert!(error.to_string().contains("control character"), "{error}");
    assert_eq!(host.query("COUNT:a:[]"), Some(0.0));
    host.within(|| write_event(day, 1.0, ["series=a"])).unwrap();
}

#[test]
fn messages_reach_the_producer_that_is_named() {
    let host = Host::new();
    let (first, second) = (host.producer(), host.producer());
    host.within(|| {
        writeback_ws(second.id(), "text")?;
        writeback_ws(second.id(), [0xff, 0])?;
        writeback_ws(first.id(), String::from("more"))
    })
    .unwrap();
    let message = |producer, data: &[u8]| Message { producer, data: data.to_vec() };
    assert_eq!(host.messages(), [message(2, b"text"), message(2, b"\xff\0"), message(1, b"more")]);
    assert_eq!(first.received(), ["more"]);
    for nobody in [0, 3, u64::MAX] {
        let error = host.within(|| writeback_ws(nobody, "hello")).unwrap_err().to_string();
        assert!(error.contains(&format!("5 bytes to producer {nobody}")), "{error}");
    }
    let too_much = vec![0; slung_abi::limits::WS_BYTES_MAX + 1];
    assert!(host.within(|| writeback_ws(1, &too_much)).is_err());
    assert!(host.within(|| writeback_ws(1, &too_much[1..])).is_ok());
}

#[test]
fn http_answers_come_in_their_order_and_none_is_empty_or_failed() {
    let host = Host::new();
    host.respond("first");
    host.respond("");
    host.respond([0xff]);
    let get = || host.within(|| writeback_http("http://plant/x", "body", WritebackMethod::PUT)).unwrap();
    assert_eq!([get(), get(), get(), get()], [Some(b"first".to_vec()), None, Some(vec![0xff]), None]);
    let request = Request { method: WritebackMethod::PUT, url: "http://plant/x".to_owned(), body: b"body".to_vec() };
    assert_eq!(host.requests(), [request.clone(), request.clone(), request.clone(), request]);
    let methods = [WritebackMethod::GET, WritebackMethod::POST, WritebackMethod::PUT, WritebackMethod::DELETE];
    for method in methods {
        host.within(|| writeback_http("u", b"", method)).unwrap();
    }
    assert_eq!(host.requests()[4..].iter().map(|request| request.method).collect::<Vec<_>>(), methods);
}

#[test]
fn handles_are_freed_once() {
    let host = Host::new();
    host.within(|| {
        let handle = query_live("temp:[]").unwrap();
        assert_ne!(handle, 0);
        free_handle(handle).unwrap();
        let error = free_handle(handle).unwrap_err().to_string();
        assert!(error.contains(&format!("handle {handle}")), "{error}");
        assert!(free_handle(0).is_err());
    });
}

#[test]
fn a_workflow_has_so_many_handles_and_no_more() {
    let host = Host::new();
    host.within(|| {
        let handles: Vec<QueryHandle> =
            (0..slung_abi::limits::HANDLES_MAX).map(|_| query_live("temp:[]").unwrap()).collect();
        assert!(query_live("temp:[]").is_err());
        free_handle(handles[0]).unwrap();
        assert!(query_live("temp:[]").is_ok());
    });
}

#[test]
fn without_a_host_calls_say_so() {
    let error = query_live("temp:[]").unwrap_err().to_string();
    assert!(error.contains("slung::testing::Host"), "{error}");
    assert!(poll_handle_once(1).is_err());
    assert!(write_event(0, 0.0, ["series=a"]).is_err());
    assert_eq!(query_history("temp:[]").unwrap(), 0.0);
    assert!(unix_micros() > 1_700_000_000_000_000, "the machine's own clock");
}

#[test]
fn the_clock_is_the_tests() {
    let host = Host::at(1_700_000_000_000_000);
    assert_eq!(host.within(unix_micros), 1_700_000_000_000_000);
}

proptest! {
    /// Whatever the ABI's text can carry arrives as it was, to the last bit.
    #[test]
    fn events_are_carried_exactly(
        timestamp in -(1_i64 << 53) + 1..1 << 53,
        value in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO,
        name in "[^,\\p{C}\\s]{1,20}",
        tags in proptest::collection::vec("[^,\\p{C}\\s]([^,\\p{C}]{0,20}[^,\\p{C}\\s])?", 0..6),
    ) {
        prop_assume!(!tags.iter().any(|tag| tag.starts_with("series=")));
        let host = Host::at((1 << 53) - 1);
        let series = format!("series={name}");
        host.within(|| write_event(timestamp, value, tags.iter().chain([&series]))).unwrap();
        let mut sorted = tags;
        sorted.sort_unstable();
        sorted.dedup();
        let written = &host.written()[0];
        prop_assert_eq!(written.value.to_bits(), value.to_bits());
        prop_assert_eq!(written, &Written { timestamp, value, series: name, tags: sorted });
    }
}
