//! What is read by HTTP beside one value: pages of points in each form, series, tags, producers, and how many read at once.

use std::time::Duration;

use serde_json::{Value, json};
use slung_net::ServerOptions;
use tokio::time::timeout;

use crate::backend::{NOW, PATIENCE};
use crate::http_api::ask;
use crate::rig::Rig;

/// Three points of one series and two of another one, whose name and tags need quotes everywhere.
async fn five_points() -> Rig {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    for (offset, value) in [(2, 3.0), (0, 1.0), (1, 0.1)] {
        producer.event("a", &["k=1"], NOW + offset, value).await;
    }
    producer.event("b,\"c\"", &["x \"y\"", "k=1"], NOW - 5, -1e300).await;
    producer.event("b,\"c\"", &["x \"y\"", "k=1"], NOW, 5e-324).await;
    producer.barrier().await;
    rig
}

/// `a` and `b,"c"`, percent-encoded.
const BOTH: &str = "a,%22b,%5C%22c%5C%22%22:%5B%5D";

async fn get(rig: &Rig, path: &str) -> Value {
    let (status, _, body) = ask(rig, "GET", path, "").await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn points_come_in_every_form() {
    let rig = five_points().await;
    let a = |offset: i64, value: &str| {
        format!(r#"{{"timestamp":{},"value":{value},"series":"a","tags":["k=1"]}}"#, NOW + offset)
    };
    let b = |offset: i64, value: &str| {
        let tags = r#"["k=1","x \"y\""]"#;
        format!(r#"{{"timestamp":{},"value":{value},"series":"b,\"c\"","tags":{tags}}}"#, NOW + offset)
    };
    let points = [a(0, "1.0"), a(1, "0.1"), a(2, "3.0"), b(-5, "-1e300"), b(0, "5e-324")];
    let csv = |offset: i64, value: &str, names: &str| format!("{},{value},{names}\n", NOW + offset);
    let (of_a, of_b) = (r#"a,"[""k=1""]""#, r#""b,""c""","[""k=1"",""x \""y\""""]""#);
    let csv = [
        "timestamp,value,series,tags\n".to_owned(),
        csv(0, "1.0", of_a),
        csv(1, "0.1", of_a),
        csv(2, "3.0", of_a),
        csv(-5, "-1e300", of_b),
        csv(0, "5e-324", of_b),
    ]
    .concat();
    let json =
        format!(r#"{{"query":"a,\"b,\\\"c\\\"\":[]","range":null,"points":[{}],"next":null}}"#, points.join(","));
    let ndjson = points.join("\n") + "\n";
    for (format, accept, content_type, wanted) in [
        ("", "", "application/json\r", &json),
        ("", "Accept: */*\r\n", "application/json\r", &json),
        ("&format=json", "Accept: text/csv\r\n", "application/json\r", &json),
        ("", "Accept: text/html, application/x-ndjson;q=0.9, text/csv\r\n", "application/x-ndjson\r", &ndjson),
        ("&format=ndjson", "", "application/x-ndjson\r", &ndjson),
        ("&format=csv", "", "text/csv; charset=utf-8\r", &csv),
        ("", "Accept: text/csv\r\n", "text/csv; charset=utf-8\r", &csv),
    ] {
        let (status, head, body) = ask(&rig, "GET", &format!("/api/v1/points?q={BOTH}{format}"), accept).await;
        assert_eq!((status, &body), (200, wanted), "{format} {accept}");
        assert!(head.contains(&format!("content-type: {content_type}")) && !head.contains("slung-"), "{head}");
    }
    // What a line says can be sent again.
    rig.backend.state(|state| (state.sync, state.stored) = (true, Vec::new()));
    let length = format!("Content-Length: {}\r\nConnection: close\r\n\r\n{ndjson}", ndjson.len());
    let answer = rig.raw(format!("POST /api/v1/events HTTP/1.1\r\nHost: x\r\n{length}")).await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    let (_, _, body) = ask(&rig, "GET", &format!("/api/v1/points?q={BOTH}&format=ndjson"), "").await;
    assert_eq!(body, ndjson);
}

#[tokio::test]
async fn pages_follow_one_another_in_every_form() {
    let rig = five_points().await;
    let (_, _, all) = ask(&rig, "GET", &format!("/api/v1/points?q={BOTH}&format=ndjson"), "").await;
    for limit in 1..=6 {
        for format in ["json", "ndjson", "csv"] {
            let (mut read, mut pages, mut after) = (0, 0, String::new());
            loop {
                let path = format!("/api/v1/points?q={BOTH}&limit={limit}&format={format}{after}");
                let (status, head, body) = ask(&rig, "GET", &path, "").await;
                assert_eq!(status, 200, "{body}");
                let next = head.split("slung-next: ").nth(1).and_then(|rest| rest.split("\r\n").next());
                match format {
                    "json" => {
                        let body: Value = serde_json::from_str(&body).unwrap();
                        assert_eq!(body["next"].as_str(), next);
                        read += body["points"].as_array().unwrap().len();
                    }
                    "csv" => read += body.lines().count() - 1,
                    _ => {
                        let expected: Vec<&str> = all.lines().skip(read).take(limit).collect();
                        assert_eq!(body.lines().collect::<Vec<_>>(), expected);
                        read += body.lines().count();
                    }
                }
                pages += 1;
                match next {
                    Some(next) => after = format!("&after={next}"),
                    None => break,
                }
            }
            assert_eq!((read, pages), (5, 5_usize.div_ceil(limit)), "{limit} {format}");
        }
    }
    // One of another query is noticed.
    let (_, head, _) = ask(&rig, "GET", "/api/v1/points?q=a:[]&limit=1", "").await;
    let next = head.split("slung-next: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
    let (status, _, body) = ask(&rig, "GET", &format!("/api/v1/points?q=a:[k=1]&after={next}"), "").await;
    assert!(status == 400 && body.contains("bad_cursor"), "{body}");
    assert_eq!(get(&rig, &format!("/api/v1/points?q=:a:[]&after={next}")).await["points"][0]["value"], 0.1);
}

/// The clock goes on, and the range of the first page stays.
#[tokio::test]
async fn a_relative_range_is_that_of_the_first_page() {
    let rig = five_points().await;
    let first = get(&rig, "/api/v1/points?q=a:[]:[1us]&limit=1").await;
    assert_eq!(first["range"], json!({"start": NOW - 1, "end": NOW}));
    assert_eq!(first["next"], Value::Null, "what comes later than now is not in it");
    let first = get(&rig, &format!("/api/v1/points?q=a:[]:[0s,{}]&limit=1", NOW + 2)).await;
    rig.backend.pass(1_000_000);
    let path = format!("/api/v1/points?q=a:[]:[0s,{}]&after={}", NOW + 2, first["next"].as_str().unwrap());
    let second = get(&rig, &path).await;
    assert_eq!(second["range"], first["range"]);
    assert_eq!(second["points"].as_array().unwrap().len(), 2);
}

/// Each point names its series, whose tags may have 64 KiB: a page ends where it is long enough.
#[tokio::test]
async fn a_page_ends_where_it_is_long_enough() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    let tags: Vec<String> = (0..64).map(|index| format!("{index:02}{}", "\"".repeat(1_022))).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    for index in 0..100 {
        producer.event("a", &tags, NOW + index, 1.0).await;
    }
    producer.barrier().await;
    let (mut read, mut after) = (0, String::new());
    loop {
        let path = format!("/api/v1/points?q=a:[]&limit=100000&format=ndjson{after}");
        let (_, head, body) = ask(&rig, "GET", &path, "").await;
        assert!(body.len() <= 8 << 20 && body.len() > 1 << 20, "{}", body.len());
        read += body.lines().count();
        let Some(next) = head.split("slung-next: ").nth(1) else { break };
        after = format!("&after={}", next.split("\r\n").next().unwrap());
    }
    assert_eq!(read, 100);
    assert_eq!(rig.producers.memory().used(), 0, "what was sent is given back");
}

#[tokio::test]
async fn an_answer_takes_memory_until_it_was_sent() {
    let rig = Rig::with_memory(ServerOptions::default(), 100_000).await;
    let (status, head, body) = ask(&rig, "GET", "/api/v1/points?q=a:[]&limit=2000", "").await;
    assert!(status == 503 && body.contains("\"code\":\"no_memory\""), "{body}");
    assert!(head.contains("retry-after: 1\r"), "{head}");
    assert_eq!(get(&rig, "/api/v1/points?q=a:[]&limit=1000").await["points"], json!([]));
    assert_eq!(rig.producers.memory().used(), 0);
}

#[tokio::test]
async fn what_is_missing_is_said_in_every_form() {
    let rig = five_points().await;
    rig.backend.state(|state| state.damage = vec!["seg-00000001: damaged \"here\"".to_owned()]);
    let body = get(&rig, "/api/v1/points?q=a:[]&limit=1").await;
    assert_eq!((&body["partial"], &body["damage"]), (&json!(true), &json!(["seg-00000001: damaged \"here\""])));
    let body = get(&rig, "/api/v1/query?q=a:[]&step=1d").await;
    assert_eq!((&body["partial"], &body["damage"]), (&json!(true), &json!(["seg-00000001: damaged \"here\""])));
    let (_, head, _) = ask(&rig, "GET", "/api/v1/points?q=a:[]&format=csv", "").await;
    assert!(head.contains("slung-partial: true\r"), "{head}");
}

#[tokio::test]
async fn stretches_of_time_are_answered_up_to_so_many() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    for offset in 0..10_000 {
        producer.event("a", &[], NOW - 10 * offset, 1.0).await;
    }
    producer.event("a", &[], NOW - 5, 2.0).await;
    producer.barrier().await;
    let body = get(&rig, "/api/v1/query?q=SUM:a:[]&step=10us").await;
    let buckets = body["buckets"].as_array().unwrap();
    assert_eq!((buckets.len(), &body["step"]), (10_000, &json!(10)));
    assert_eq!(buckets[9_998], json!({"start": NOW - 10, "value": 3.0, "count": 2}));
    let (status, _, body) = ask(&rig, "GET", "/api/v1/query?q=SUM:a:[]&step=5us", "").await;
    assert!(status == 400 && body.contains("\"code\":\"too_many_buckets\""), "{body}");
    assert!(body.contains("take a longer step"), "{body}");
}

#[tokio::test]
async fn series_and_tags_are_listed_page_by_page() {
    let rig = five_points().await;
    let first = json!({"series": "a", "tags": ["k=1"]});
    let second = json!({"series": "b,\"c\"", "tags": ["k=1", "x \"y\""]});
    assert_eq!(get(&rig, "/api/v1/series").await, json!({"series": [first, second], "next": null}));
    let page = get(&rig, "/api/v1/series?limit=1").await;
    assert_eq!(page["series"], json!([first]));
    let next = page["next"].as_str().unwrap();
    assert_eq!(get(&rig, &format!("/api/v1/series?after={next}")).await, json!({"series": [second], "next": null}));
    assert_eq!(get(&rig, "/api/v1/series?q=a:[NOT+x]").await["series"], json!([first]));
    assert_eq!(get(&rig, "/api/v1/series?q=nothing:[]").await["series"], json!([]));

    let (k, x) = (json!({"tag": "k=1", "series": 2}), json!({"tag": "x \"y\"", "series": 1}));
    assert_eq!(get(&rig, "/api/v1/tags").await, json!({"tags": [k, x], "next": null}));
    let page = get(&rig, "/api/v1/tags?limit=1").await;
    assert_eq!(page, json!({"tags": [k], "next": "k=1"}));
    assert_eq!(get(&rig, "/api/v1/tags?limit=1&after=k%3D1").await, json!({"tags": [x], "next": null}));
    assert_eq!(get(&rig, "/api/v1/tags?q=a:[]").await["tags"], json!([{"tag": "k=1", "series": 1}]));
}

#[tokio::test]
async fn producers_are_listed() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    producer.event("a", &[], NOW, 1.0).await;
    producer.barrier().await;
    let other = rig.connect().await;
    let body = get(&rig, "/api/v1/producers").await;
    let [first, second] = body["producers"].as_array().unwrap().as_slice() else { panic!("{body}") };
    assert_eq!((&first["id"], &first["events"], &first["connected"]), (&json!(1), &json!(1), &json!(NOW)));
    assert_eq!((&first["protocol"], &first["queued_bytes"]), (&json!("slung.plain"), &json!(0)));
    assert!(first["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{first}");
    assert_eq!((&second["id"], &second["events"]), (&json!(2), &json!(0)));
    drop(other);
}

/// One more than may be answered at once waits until another one is done.
#[tokio::test]
async fn as_many_questions_as_may_be_are_answered_at_once() {
    let rig = Rig::with(ServerOptions { queries_max: 2, ..ServerOptions::default() }).await;
    let slow = || ask(&rig, "GET", "/api/v1/query?q=COUNT:slow:[]", "");
    let (one, two) = (slow(), slow());
    tokio::pin!(one, two);
    let third = async {
        rig.backend.until("two are asked", |state| state.resolved == 2).await;
        for path in ["/api/v1/query?q=a:[]", "/api/v1/query?q=a:[]&step=1m", "/api/v1/points?q=a:[]", "/api/v1/series"]
        {
            let waits = timeout(Duration::from_millis(100), ask(&rig, "GET", path, "")).await;
            assert!(waits.is_err(), "{path} finds no place");
        }
        assert_eq!(ask(&rig, "GET", "/health", "").await.0, 200, "what reads no history does");
    };
    tokio::select! {
        _ = &mut one => panic!("it is slow"),
        _ = &mut two => panic!("it is slow"),
        () = third => {}
    }
    rig.backend.query_gate.notify_one();
    let (status, ..) = timeout(PATIENCE, ask(&rig, "GET", "/api/v1/query?q=a:[]", "")).await.expect("there is a place");
    assert_eq!(status, 200);
    rig.backend.query_gate.notify_one();
    assert_eq!((one.await.0, two.await.0), (200, 200));
}
