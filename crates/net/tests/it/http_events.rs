//! Events by HTTP: all of a request or nothing, and an answer once they are durable.

use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use slung_model::AHEAD_MICROS_MAX;
use slung_net::ServerOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::backend::{NOW, PATIENCE, State};
use crate::rig::Rig;

/// Whose points are durable at once.
async fn synced(options: ServerOptions) -> Rig {
    let rig = Rig::with(options).await;
    rig.backend.state(|state| state.sync = true);
    rig
}

/// Sends a body; status, head and the rest of the answer.
async fn post(rig: &Rig, head: &str, body: impl AsRef<[u8]>) -> (u16, String, String) {
    let body = body.as_ref();
    let length = body.len();
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n"
    );
    let answer = rig.raw([head.as_bytes(), body].concat()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

fn gzip(body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body.as_ref()).unwrap();
    encoder.finish().unwrap()
}

const GZIP: &str = "Content-Encoding: gzip\r\n";

#[tokio::test]
async fn every_form_of_events_is_taken() {
    let rig = synced(ServerOptions::default()).await;
    let one = format!(r#"{{"timestamp":{NOW},"value":1,"series":"a","tags":["x","y"]}}"#);
    let two = format!(r#"{{"tags":["y","x","y"],"series":"a","value":2.5,"timestamp":{}}}"#, NOW + 1);
    let both = format!(" [ {one} ,\r\n {two} ] \n");
    let half = both.len() / 2;
    for (head, body) in [
        ("", both.clone().into_bytes()),
        ("", format!("{one}\n{two}").into_bytes()),
        ("", format!("\r\n{one}\r\n\r\n \t\n{two}\r\n").into_bytes()),
        ("Content-Type: application/x-ndjson\r\n", format!("{one}\n{two}\n").into_bytes()),
        ("Content-Type: text/csv\r\nContent-Encoding: identity\r\n", both.clone().into_bytes()),
        (GZIP, gzip(&both)),
        ("content-encoding: GZip\r\n", gzip(format!("{one}\n{two}\n"))),
        // Several members one after the other are one file.
        (GZIP, [gzip(&both[..half]), gzip(&both[half..])].concat()),
    ] {
        rig.backend.state(|state| state.stored.clear());
        let answer = post(&rig, head, &body).await;
        assert_eq!((answer.0, answer.2.as_str()), (204, ""), "{answer:?}");
        assert!(!answer.1.contains("content-length") && answer.1.contains("cache-control: no-store"), "{answer:?}");
        let stored = rig.backend.state(|state| state.stored.clone());
        let stored: Vec<(u64, i64, f64)> = stored.iter().map(|(by, at)| (*by, at.timestamp, at.value)).collect();
        assert_eq!(stored, [(0, NOW, 1.0), (0, NOW + 1, 2.5)], "by nobody who could be answered");
        assert_eq!(rig.backend.series(), ["a{x,y}", "a{x,y}"]);
    }
    assert_eq!(rig.backend.state(|state| (state.writes.clone(), state.resolved)), (vec![2; 8], 8));
    let stats = rig.backend.counters.snapshot();
    assert_eq!((stats.http_events, stats.events), (16, 0));
    assert!(stats.http_requests.contains(&("/api/v1/events", "2xx", 8)));
    assert_eq!(rig.producers.memory().used(), 0);
}

#[tokio::test]
async fn events_without_a_time_get_one_each_in_their_order() {
    let rig = synced(ServerOptions::default()).await;
    let now =
        format!("{{\"value\":1,\"series\":\"a\"}}\n{{\"timestamp\":{NOW},\"value\":2,\"series\":\"a\"}}\n").repeat(3);
    assert_eq!(post(&rig, "", &now).await.0, 204);
    assert_eq!(post(&rig, "", r#"[{"value":3,"series":"a"},{"timestamp":null,"value":4,"series":"b"}]"#).await.0, 204);
    let times = rig.backend.state(|state| state.stored.iter().map(|(_, it)| it.timestamp - NOW).collect::<Vec<_>>());
    assert_eq!(times, [0, 0, 1, 0, 2, 0, 3, 4]);
}

#[tokio::test]
async fn what_is_wrong_is_named_and_nothing_is_stored() {
    let rig = synced(ServerOptions::default()).await;
    let good = r#"{"timestamp":1,"value":1,"series":"good"}"#;
    let key_too_long = format!(r#"{{"value":1,"series":"{}"}}"#, "a".repeat(1_025));
    let tags = vec!["\"t\""; 65].join(",");
    let too_many_tags = format!(r#"{{"value":1,"series":"a","tags":[{tags}]}}"#);
    let ahead = format!(r#"{{"timestamp":{},"value":1,"series":"a"}}"#, NOW + AHEAD_MICROS_MAX + 1);
    for (bad, code, what) in [
        ("nonsense", "bad_json", "expected ident"),
        (r#"{"value":1}"#, "bad_json", "missing field `series`"),
        (r#"{"series":"a"}"#, "bad_json", "missing field `value`"),
        (r#"{"value":1,"series":"a","time":5}"#, "bad_json", "unknown field `time`"),
        (r#"{"value":"1","series":"a"}"#, "bad_json", "invalid type: string"),
        (r#"{"value":1,"series":"a","timestamp":1.5}"#, "bad_json", "invalid type: floating point"),
        (r#"{"value":NaN,"series":"a"}"#, "bad_json", "expected value"),
        (r#"{"value":1e999,"series":"a"}"#, "bad_json", "number out of range"),
        (r#"{"value":1,"value":2,"series":"a"}"#, "bad_json", "duplicate field"),
        (r#"{"value":1,"series":""}"#, "bad_series", "the series name is empty"),
        (r#"{"value":1,"series":"a","tags":["\u0000"]}"#, "bad_series", "control character"),
        (&key_too_long, "bad_series", "1025 bytes"),
        (&too_many_tags, "bad_series", "65 tags"),
        (&ahead, "bad_timestamp", "ahead of the server's clock"),
        (r#"{"value":1,"series":"a","timestamp":9007199254740992}"#, "bad_timestamp", "2^53"),
        (r#"{"value":1,"series":"a","timestamp":-9223372036854775808}"#, "bad_timestamp", "2^53"),
    ] {
        for (body, place) in
            [(format!("{good}\n\n{bad}\n{good}\n"), "\"line\":3}}"), (format!("[{good},{bad},{good}]"), "\"item\":2}}")]
        {
            for (head, body) in [("", body.clone().into_bytes()), (GZIP, gzip(&body))] {
                let (status, _, answer) = post(&rig, head, body).await;
                let code = format!("{{\"error\":{{\"code\":\"{code}\",\"message\":\"");
                assert!(status == 400 && answer.starts_with(&code) && answer.ends_with(place), "{bad}: {answer}");
                assert!(answer.contains(what) || place.contains("item"), "{bad}: {answer}");
            }
        }
    }
    for (body, code) in [
        ("", "no_events"),
        (" \n\r\n\t", "no_events"),
        ("[]", "no_events"),
        ("[", "bad_json"),
        (r#"[{"value":1,"series":"a"}"#, "bad_json"),
        (r#"[{"value":1,"series":"a"},]"#, "bad_json"),
        (r#"[{"value":1,"series":"a"}] []"#, "bad_json"),
        (r#"[[{"value":1,"series":"a"}]]"#, "bad_json"),
        ("null", "bad_json"),
        (r#"{"value":1,"series":"a"} x"#, "bad_json"),
        (r#"[{"value":1,"series":"a"} x]"#, "bad_json"),
        ("\u{feff}{}", "bad_json"),
    ] {
        let (status, _, answer) = post(&rig, "", body).await;
        assert!(status == 400 && answer.contains(&format!("\"code\":\"{code}\"")), "{body}: {answer}");
    }
    // Not UTF-8, deep, and no gzip.
    let not_utf8 = [br#"{"value":1,"series":""#, &b"\xff"[..], br#""}"#].concat();
    for (head, body, code) in [
        ("", not_utf8, "bad_json"),
        ("", "[".repeat(100_000).into_bytes(), "bad_json"),
        (GZIP, good.as_bytes().to_vec(), "bad_encoding"),
        (GZIP, gzip(good)[..30].to_vec(), "bad_encoding"),
        (GZIP, [gzip(good), b"more".to_vec()].concat(), "bad_encoding"),
        (GZIP, Vec::new(), "bad_encoding"),
        (GZIP, gzip(""), "no_events"),
    ] {
        let (status, _, answer) = post(&rig, head, body).await;
        assert!(status == 400 && answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
    }
    rig.backend.state(|state| assert_eq!((state.resolved, state.writes.len()), (0, 0), "no series became known"));
    let stats = rig.backend.counters.snapshot();
    let refused = |code| stats.http_refused.iter().find(|(label, _)| *label == code).unwrap().1;
    assert_eq!((refused("bad_series"), refused("bad_timestamp"), refused("bad_encoding")), (16, 12, 4));
    assert_eq!(rig.producers.memory().used(), 0);
}

#[tokio::test]
async fn who_may_not_write_and_what_is_not_understood_is_refused_before_the_body() {
    let rig = synced(ServerOptions::default()).await;
    let body = r#"{"value":1,"series":"a"}"#;
    for (head, status, code) in [
        ("Origin: http://elsewhere\r\n", 403, "forbidden"),
        ("Origin: null\r\n", 403, "forbidden"),
        ("Content-Encoding: br\r\n", 415, "unsupported_encoding"),
        ("Content-Encoding: gzip, gzip\r\n", 415, "unsupported_encoding"),
        ("Content-Encoding: gzip\r\nContent-Encoding: deflate\r\n", 415, "unsupported_encoding"),
    ] {
        let (answered, answer_head, answer) = post(&rig, head, body).await;
        assert!(answered == status && answer.contains(&format!("\"code\":\"{code}\"")), "{head}: {answer}");
        assert_eq!(answer_head.contains("accept-encoding: gzip"), status == 415, "{answer_head}");
    }
    let answer = rig.raw("POST /api/v1/events?series=a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("bad_request"), "{answer}");
    let answer = rig.raw("GET /api/v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405") && answer.to_ascii_lowercase().contains("allow: post\r"), "{answer}");
    rig.backend.state(|state| assert_eq!(state.resolved, 0));
}

#[tokio::test]
async fn what_is_too_big_is_refused_and_takes_no_memory() {
    let rig = synced(ServerOptions { body_bytes_max: 100_000, ..ServerOptions::default() }).await;
    let event = r#"{"timestamp":1,"value":1,"series":"a"}"#;
    let lines = |bytes: usize| format!("{event}\n{}", " ".repeat(bytes - event.len() - 1));
    assert_eq!(post(&rig, "", lines(100_000)).await.0, 204);
    let (status, _, answer) = post(&rig, "", lines(100_001)).await;
    assert!(status == 413 && answer.contains("\"code\":\"body_too_big\""), "{answer}");
    let chunks = format!("{:x}\r\n{}\r\n", 60_000, lines(60_000)).repeat(2);
    let head = "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = rig.raw(format!("{head}{chunks}0\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // 31 MiB of blanks come in 31 kB, 33 MiB are beyond what is decoded.
    assert_eq!(post(&rig, GZIP, gzip(lines(31 << 20))).await.0, 204);
    let (status, _, answer) = post(&rig, GZIP, gzip(lines(33 << 20))).await;
    assert!(status == 413 && answer.contains("once decoded"), "{answer}");
    rig.backend.state(|state| state.points_max = Some(2));
    let (status, _, answer) = post(&rig, "", format!("{event}\n").repeat(3)).await;
    assert!(status == 413 && answer.contains("\"code\":\"too_many_points\""), "{answer}");
    assert_eq!(rig.producers.memory().used(), 0);
    assert_eq!(rig.backend.values().len(), 2);
}

#[tokio::test]
async fn a_body_takes_what_memory_there_is_and_no_more() {
    const BYTES: usize = 1 << 20;
    let rig = Rig::with_memory(ServerOptions::default(), BYTES).await;
    rig.backend.state(|state| state.sync = true);
    let event = "{\"timestamp\":1,\"value\":1,\"series\":\"a\"}\n";
    // Too large as it comes, once decoded, and as points; a quarter of that is not.
    let as_it_comes = event.repeat(BYTES / event.len() + 1);
    let decoded = gzip(&as_it_comes);
    let as_points = gzip("{\"value\":1,\"series\":\"a\"}\n".repeat(BYTES / 2 / 25));
    for (head, body) in [("", as_it_comes.into_bytes()), (GZIP, decoded), (GZIP, as_points)] {
        let (status, head, answer) = post(&rig, head, body).await;
        assert!(status == 503 && answer.contains("\"code\":\"no_memory\""), "{answer}");
        assert!(head.contains("retry-after: 1\r"), "{head}");
    }
    assert_eq!(post(&rig, "", event.repeat(BYTES / event.len() / 4)).await.0, 204);
    assert_eq!(rig.producers.memory().used(), 0);
    assert_eq!(rig.backend.values().len(), BYTES / event.len() / 4);
}

#[tokio::test]
async fn the_answer_waits_until_the_events_are_durable() {
    let rig = Rig::start().await;
    let mut tcp = TcpStream::connect(rig.addr).await.unwrap();
    let body = r#"[{"value":1,"series":"a"},{"value":2,"series":"a"}]"#;
    let head = format!("POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    tcp.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    rig.backend.until("they are stored", |state| state.stored.len() == 2).await;
    rig.backend.commit(Some(1));
    let mut answer = [0; 512];
    let early = timeout(Duration::from_millis(200), tcp.read(&mut answer)).await;
    assert!(early.is_err(), "one of two is durable");
    rig.backend.commit(None);
    let bytes = timeout(PATIENCE, tcp.read(&mut answer)).await.expect("an answer").unwrap();
    assert!(answer[..bytes].starts_with(b"HTTP/1.1 204 "), "{}", String::from_utf8_lossy(&answer[..bytes]));
}

#[tokio::test]
async fn a_write_waits_for_room_but_not_for_ever() {
    let limit = Duration::from_millis(300);
    let rig = synced(ServerOptions { write_timeout: limit, ..ServerOptions::default() }).await;
    let body = r#"{"value":1,"series":"a"}"#;
    for busy_resolving in [true, false] {
        rig.backend.state(|state| (state.busy, state.busy_resolving) = (!busy_resolving, busy_resolving));
        let (status, head, answer) = post(&rig, "", body).await;
        assert!(status == 503 && answer.contains("\"code\":\"busy\""), "{answer}");
        assert!(head.contains("retry-after: 1\r"), "{head}");
        let before = rig.backend.state(|state| std::mem::take(&mut state.times_busy));
        assert!(before > 1, "it was tried more than once");
        let (answer, ()) = tokio::join!(post(&rig, "", body), async {
            rig.backend.until("it waits", |state| state.times_busy > 0).await;
            rig.backend.make_room();
        });
        assert_eq!(answer.0, 204);
    }
    // Stored, but not on disk in time: nobody knows.
    rig.backend.state(|state| state.sync = false);
    let (status, head, answer) = post(&rig, "", body).await;
    assert!(status == 503 && answer.contains("\"code\":\"unconfirmed\""), "{answer}");
    assert!(head.contains("retry-after: 1\r"), "{head}");
    assert_eq!(rig.backend.values().len(), 3);
}

#[tokio::test]
async fn what_the_store_does_not_take_is_told() {
    let rig = synced(ServerOptions::default()).await;
    let body = r#"[{"value":1,"series":"a"},{"value":2,"series":"b"}]"#;
    for (change, status, code, retry) in [
        ((|state| state.unwanted = Some(2.0)) as fn(&mut State), 422, "refused", None),
        (|state| (state.unwanted, state.full) = (None, true), 507, "disk_full", Some("10")),
        (|state| (state.full, state.series_max) = (false, Some(1)), 422, "too_many_series", None),
        (|state| state.failed = Some("sync of log 7".into()), 503, "not_writable", None),
    ] {
        rig.backend.state(|state| {
            (state.keys, state.ids) = Default::default();
            change(state);
        });
        let (answered, head, answer) = post(&rig, "", body).await;
        assert!(answered == status && answer.contains(&format!("\"code\":\"{code}\"")), "{answered} {answer}");
        assert_eq!(head.split("retry-after: ").nth(1).and_then(|rest| rest.split("\r").next()), retry, "{head}");
    }
    assert!(rig.backend.values().is_empty());
}

/// Stored, but the disk is full, or has failed, before it has the events.
#[tokio::test]
async fn what_happens_before_the_events_are_on_disk_is_told() {
    for (is_full, status, code) in [(true, 507, "disk_full"), (false, 503, "not_writable")] {
        let rig = Rig::start().await;
        let (answer, ()) = tokio::join!(post(&rig, "", r#"{"value":1,"series":"a"}"#), async {
            rig.backend.until("it is stored", |state| state.stored.len() == 1).await;
            rig.backend.state(|state| if is_full { state.full = true } else { state.failed = Some("sync".into()) });
            rig.backend.commit(Some(0));
        });
        let code = format!("\"code\":\"{code}\"");
        assert!(
            answer.0 == status && answer.2.contains(&code) && answer.2.contains("may be there later"),
            "{answer:?}"
        );
    }
}
