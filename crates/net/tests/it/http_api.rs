//! The HTTP routes, and requests that are none.

use std::time::Duration;

use slung_net::ServerOptions;
use slung_net::client::{ClientError, delete_path, http_get, http_post, query_path};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::backend::{NOW, PATIENCE};
use crate::rig::{Rig, nobody};

/// Sends one request and takes its answer apart: status, head, body.
pub(crate) async fn ask(rig: &Rig, method: &str, path: &str, more: &str) -> (u16, String, String) {
    let answer = rig.raw(format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn each_route_answers_as_it_should() {
    let rig = Rig::start().await;
    let upgrade = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    for (method, path, more, status, wanted) in [
        ("GET", "/health", "", 200, r#"{"status":"ok"}"#),
        ("GET", "/health?verbose", "", 200, r#"{"status":"ok"}"#),
        ("GET", "/metrics", "", 200, ""),
        (
            "GET",
            "/api/v1/query?q=AVG:temp:[]",
            "",
            200,
            r#"{"value":null,"query":"AVG:temp:[]","count":0,"series":1,"range":null}"#,
        ),
        ("GET", "/api/v1/query?q=avg+%3Atemp%3A%5B%5D", "", 200, r#""query":"AVG:temp:[]""#),
        ("GET", "/api/v1/query?q=COUNT:a:[]:[5,7]", "", 200, r#""range":{"start":5,"end":7}"#),
        (
            "GET",
            "/api/v1/query?q=COUNT:a:[]:[1s]",
            "",
            200,
            r#""range":{"start":1699999999000000,"end":1700000000000000}"#,
        ),
        ("GET", "/api/v1/query?q=AVG:temp:x", "", 400, r#"{"error":{"code":"bad_query","message":"#),
        ("GET", "/api/v1/query?q=AVG:temp:x", "", 400, r#","at":9}}"#),
        ("GET", "/api/v1/query?q=", "", 400, "bad_query"),
        ("GET", "/api/v1/query", "", 400, "bad_request"),
        ("GET", "/api/v1/query?", "", 400, "/api/v1/query?q=QUERY"),
        ("GET", "/api/v1/query?q=%ff", "", 400, "not UTF-8"),
        ("GET", "/api/v1/query?q=a:[]&q=b:[]", "", 400, "twice"),
        (
            "GET",
            "/api/v1/query?q=a:[]&limit=5",
            "",
            400,
            r#"the parameter \"limit\" is not known here; known: q, step"#,
        ),
        ("GET", "/api/v1/query?q=a:[]&step=5", "", 400, "step, byte 0: expected an amount above 0 and a unit"),
        ("GET", "/api/v1/query?q=a:[]&step=0s", "", 400, "bad_request"),
        ("GET", "/api/v1/query?q=AVG:temp:x&step=5m", "", 400, r#","at":9}}"#),
        (
            "GET",
            "/api/v1/query?q=a:[]:[5,7]&step=5m",
            "",
            200,
            r#"{"query":"a:[]:[5,7]","step":300000000,"series":1,"range":{"start":5,"end":7},"buckets":[]}"#,
        ),
        ("GET", "/api/v1/points", "", 400, "/api/v1/points?q=QUERY"),
        ("GET", "/api/v1/points?q=a:[]", "", 200, r#"{"query":"a:[]","range":null,"points":[],"next":null}"#),
        ("GET", "/api/v1/points?q=:temp:x", "", 400, r#","at":6}}"#),
        (
            "GET",
            "/api/v1/points?q=AVG:a:[]",
            "",
            400,
            "AVG computes something: name what is meant without it\",\"at\":0",
        ),
        ("GET", "/api/v1/points?q=a:[]&limit=0", "", 400, "limit is a number from 1 to 100000"),
        ("GET", "/api/v1/points?q=a:[]&limit=100001", "", 400, "bad_request"),
        ("GET", "/api/v1/points?q=a:[]&format=xml", "", 400, "json, ndjson and csv are"),
        ("GET", "/api/v1/points?q=a:[]&after=5", "", 400, "bad_cursor"),
        ("GET", "/api/v1/series", "", 200, r#"{"series":[],"next":null}"#),
        ("GET", "/api/v1/series?q=a:[]:[5m]", "", 400, r#"ask without a range","at":5}}"#),
        ("GET", "/api/v1/series?q=MAX:a:[]", "", 400, "MAX computes something"),
        ("GET", "/api/v1/series?limit=10001", "", 400, "limit is a number from 1 to 10000"),
        ("GET", "/api/v1/series?after=x", "", 400, "bad_cursor"),
        ("GET", "/api/v1/tags", "", 200, r#"{"tags":[],"next":null}"#),
        ("GET", "/api/v1/tags?q=a:", "", 400, "bad_query"),
        ("GET", "/api/v1/producers", "", 200, r#"{"producers":[]}"#),
        ("GET", "/api/v1/producers?id=5", "", 400, "known: none"),
        ("GET", "/api/v1/events", "", 405, "method_not_allowed"),
        ("DELETE", "/api/v1/series", "", 405, "method_not_allowed"),
        ("GET", "/api/v1/live", "", 400, "/api/v1/live?q=QUERY"),
        ("GET", "/api/v1/live?q=AVG:temp:x", "", 400, r#","at":9}}"#),
        ("GET", "/api/v1/live?q=AVG:temp:[]:[2h,1h]", "", 400, "a live query's range is absolute"),
        ("GET", "/api/v1/live?q=AVG:temp:[]:[2h,1h]", "", 400, r#","at":12}}"#),
        ("GET", "/api/v1/live?q=a:[]&q=b:[]", "", 400, "twice"),
        ("HEAD", "/api/v1/live?q=a:x", "", 400, ""),
        ("HEAD", "/api/v1/live?q=a:[]", "", 200, ""),
        ("POST", "/api/v1/live?q=a:[]", "", 405, "method_not_allowed"),
        ("GET", "/api/v1/live/", "", 404, "not_found"),
        ("POST", "/api/v1/delete?q=a:[]", "", 200, r#"{"points":0,"segments":2}"#),
        ("POST", "/api/v1/delete?q=a:[x", "", 400, r#","at":4}}"#),
        ("POST", "/api/v1/delete", "", 400, "/api/v1/delete?q=QUERY"),
        ("POST", "/api/v1/delete?q=a:[]", "Origin: http://elsewhere\r\n", 403, "forbidden"),
        ("POST", "/api/v1/delete?q=a:[]", "Origin: null\r\n", 403, "forbidden"),
        ("GET", "/api/v1/delete?q=a:[]", "", 405, "method_not_allowed"),
        ("HEAD", "/api/v1/delete?q=a:[]", "", 405, ""),
        ("GET", "/", "", 426, "websocket_required"),
        ("GET", "/?protocol=slung.plain", "", 426, "websocket_required"),
        ("HEAD", "/", "", 426, ""),
        ("GET", "/", "Upgrade: h2c\r\n", 426, "websocket_required"),
        ("GET", "/", "Upgrade: websocket\r\n", 426, "websocket_version"),
        ("GET", "/", "Upgrade: websocket\r\nSec-WebSocket-Version: 8\r\n", 426, "websocket_version"),
        ("GET", "/", upgrade, 400, "bad_handshake"),
        ("POST", "/", "Content-Length: 0\r\n", 400, "use_websocket"),
        ("PUT", "/", "Content-Length: 0\r\n", 405, "method_not_allowed"),
        ("POST", "/health", "", 405, "method_not_allowed"),
        ("DELETE", "/metrics", "", 405, "method_not_allowed"),
        ("OPTIONS", "/api/v1/query?q=a:[]", "", 405, "method_not_allowed"),
        ("BREW", "/health", "", 405, "method_not_allowed"),
        ("GET", "/nothing/here", "", 404, "/health, /api/v1/events, /api/v1/query, "),
        ("POST", "/nothing/here", "", 404, "not_found"),
        ("GET", "/health/", "", 404, "not_found"),
        ("GET", "//", "", 404, "not_found"),
        ("GET", "/other", "", 404, "not_found"),
        ("GET", "/api/v1/query/", "", 404, "not_found"),
        ("GET", "/nothing", upgrade, 404, "not_found"),
        ("GET", "http://x/health", "", 200, r#"{"status":"ok"}"#),
    ] {
        let (answered, head, body) = ask(&rig, method, path, more).await;
        assert_eq!(answered, status, "{method} {path}: {head} {body}");
        assert!(body.contains(wanted), "{method} {path}: {body}");
        assert!(head.contains("cache-control: no-store"), "{head}");
        if status >= 400 {
            assert!(head.contains("content-type: application/json"), "{method} {path}: {head}");
            if method != "HEAD" {
                let json: serde_json::Value = serde_json::from_str(&body).unwrap();
                assert!(json["error"]["code"].is_string() && json["error"]["message"].is_string(), "{body}");
            }
        }
        match status {
            405 if path.starts_with("/api/v1/delete") || path == "/api/v1/events" => {
                assert!(head.contains("allow: post\r"), "{head}")
            }
            405 => assert!(head.contains("allow: get, head"), "{head}"),
            426 => assert!(head.contains("upgrade: websocket"), "{head}"),
            _ => {}
        }
    }
    let stats = rig.backend.counters.snapshot();
    let count = |route, class| {
        let row = stats.http_requests.iter().find(|(a, b, _)| (*a, *b) == (route, class));
        row.map_or(0, |(_, _, count)| *count)
    };
    assert_eq!((count("/health", "2xx"), count("/health", "4xx"), count("other", "4xx")), (3, 2, 8));
    assert_eq!((count("/api/v1/query", "2xx"), count("/api/v1/query", "4xx"), count("/", "4xx")), (5, 12, 9));
}

#[tokio::test]
async fn a_value_is_a_value() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    producer.event("a", &[], NOW, 1.0).await;
    producer.barrier().await;
    let (status, body) =
        http_get(&format!("http://{}{}", rig.addr, query_path("COUNT:a:[\"x y\" OR é]"))).await.unwrap();
    assert_eq!(status, 200);
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((body["value"].as_f64(), body["count"].as_u64()), (Some(1.0), Some(1)));
    assert_eq!(body["query"], "COUNT:a:[\"x y\" OR é]");
}

#[tokio::test]
async fn an_answer_that_lacks_something_says_what() {
    let rig = Rig::start().await;
    rig.backend.state(|state| state.damage = vec!["seg-00000001: damaged at byte 7".to_owned()]);
    let (status, _, body) = ask(&rig, "GET", "/api/v1/query?q=AVG:a:[]", "").await;
    let wanted = r#","series":1,"range":null,"partial":true,"damage":["seg-00000001: damaged at byte 7"]}"#;
    assert!(status == 200 && body.ends_with(wanted), "{status} {body}");
}

#[tokio::test]
async fn a_deletion_says_what_it_took() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    producer.event("a", &[], NOW, 1.0).await;
    producer.barrier().await;
    let url = format!("http://{}{}", rig.addr, delete_path("a:[]"));
    let (status, body) = http_post(&url, PATIENCE).await.unwrap();
    assert_eq!((status, &body[..]), (200, &br#"{"points":1,"segments":2}"#[..]));
    rig.backend.state(|state| state.failed = Some("the disk is full".into()));
    let (status, body) = http_post(&url, PATIENCE).await.unwrap();
    assert_eq!((status, &body[..]), (503, &br#"{"error":{"code":"query_failed","message":"the disk is full"}}"#[..]));
}

#[tokio::test]
async fn health_and_queries_say_when_they_fail() {
    let rig = Rig::start().await;
    rig.backend.state(|state| state.failed = Some("sync of log 7: no space".into()));
    let (status, _, body) = ask(&rig, "GET", "/health", "").await;
    assert_eq!(
        (status, body.as_str()),
        (503, r#"{"error":{"code":"not_writable","message":"sync of log 7: no space"}}"#)
    );
    let (status, _, body) = ask(&rig, "GET", "/api/v1/query?q=a:[]", "").await;
    assert_eq!(
        (status, body.as_str()),
        (503, r#"{"error":{"code":"query_failed","message":"sync of log 7: no space"}}"#)
    );
}

#[tokio::test]
async fn metrics_have_the_type_of_their_format() {
    let rig = Rig::start().await;
    for (text, content_type) in [
        (
            "# TYPE a counter\na_total 1\n# EOF\n",
            "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        ("# TYPE a counter\na 1\n", "content-type: text/plain; version=0.0.4; charset=utf-8"),
    ] {
        rig.backend.state(|state| state.metrics = text.into());
        let (status, head, body) = ask(&rig, "GET", "/metrics", "").await;
        assert_eq!((status, body.as_str()), (200, text));
        assert!(head.contains(content_type), "{head}");
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let rig = Rig::start().await;
    for path in ["/health", "/metrics", "/api/v1/query?q=a:[]", "/nothing"] {
        let (get_status, get_head, get_body) = ask(&rig, "GET", path, "").await;
        let (status, head, body) = ask(&rig, "HEAD", path, "").await;
        assert_eq!((status, body.as_str()), (get_status, ""), "{path}");
        if !get_body.is_empty() {
            let length = format!("content-length: {}", get_body.len());
            assert!(head.contains(&length) && get_head.contains(&length), "{head}");
        }
    }
}

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let rig = Rig::start().await;
    let requests = "GET /health HTTP/1.1\r\nHost: x\r\n\r\nPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
        GET /nothing HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answers = rig.raw(requests).await;
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(statuses, ["200", "400", "404", "200"]);
}

#[tokio::test]
async fn bodies_are_read_as_far_as_they_may_go() {
    let options = ServerOptions { body_bytes_max: 1_000, ..ServerOptions::default() };
    let rig = Rig::with(options).await;
    let post =
        |head: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n\r\n{body}");
    let chunk = |bytes: usize| format!("{bytes:x}\r\n{}\r\n", "x".repeat(bytes));
    for (request, status) in [
        (post("Content-Length: 1000", &"x".repeat(1_000)), "400"),
        (post("Content-Length: 1001", &"x".repeat(1_001)), "413"),
        (post("Content-Length: 99999999999", ""), "413"),
        (post("Transfer-Encoding: chunked", &format!("{}0\r\n\r\n", chunk(900))), "400"),
        (post("Transfer-Encoding: chunked", &format!("{}{}0\r\n\r\n", chunk(900), chunk(900))), "413"),
        (post("Transfer-Encoding: chunked", "no number\r\n"), "400"),
        (post("Content-Length: 3\r\nExpect: 100-continue", "abc"), "100"),
    ] {
        let answer = rig.raw(&request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:.80}: {answer}");
    }
}

/// Each is refused or closed, none is answered with success, and the server goes on.
#[tokio::test]
async fn what_is_no_request_is_refused() {
    let rig = Rig::start().await;
    let many_fields = format!("GET /health HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(65));
    let long_head = format!("GET /health HTTP/1.1\r\nHost: x\r\na: {}\r\n\r\n", "b".repeat(17 * 1024));
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(70_000));
    for (request, statuses) in [
        ("\r\n\r\n\r\nnonsense\r\n\r\n", &["400"][..]),
        ("GET\r\n\r\n", &["400"]),
        ("GET /health\r\n\r\n", &["400"]),
        ("GET /health HTTP/9.9\r\n\r\n", &["400"]),
        ("GET /health HTTP/2.0\r\nHost: x\r\n\r\n", &["400"]),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &["400", ""]),
        ("GET  /health HTTP/1.1\r\nHost: x\r\n\r\n", &["400"]),
        ("G\u{1}T /health HTTP/1.1\r\n\r\n", &["400"]),
        ("GET /hea\0lth HTTP/1.1\r\nHost: x\r\n\r\n", &["400"]),
        ("GET /health HTTP/1.1\r\nHost x\r\n\r\n", &["400"]),
        ("GET /health HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", &["400"]),
        ("GET /health HTTP/1.1\r\nHost : x\r\n\r\n", &["400"]),
        ("GET /health HTTP/1.1\r\nHost: x\r\na: \0\r\n\r\n", &["400"]),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", &["400"]),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", &["400"]),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x1\r\n\r\na", &["400"]),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", &["400"]),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", &["400"]),
        ("CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", &["404", "405"]),
        ("\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}", &["400"]),
        (&many_fields, &["431", "400"]),
        (&long_head, &["431"]),
        (&long_path, &["414", "431"]),
    ] {
        let mut tcp = TcpStream::connect(rig.addr).await.unwrap();
        let _ = tcp.write_all(request.as_bytes()).await;
        let _ = tcp.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("the server closes");
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(statuses.contains(&status), "{request:.60?}: {answer}");
    }
    assert_eq!(ask(&rig, "GET", "/health", "").await.0, 200);
}

#[tokio::test]
async fn who_is_slow_with_the_head_or_the_body_is_closed() {
    let limit = Duration::from_millis(100);
    let rig = Rig::with(ServerOptions { header_timeout: limit, body_timeout: limit, ..ServerOptions::default() }).await;
    for started in ["", "GET /hea", "GET /health HTTP/1.1\r\nHost: x\r\n"] {
        let mut tcp = TcpStream::connect(rig.addr).await.unwrap();
        tcp.write_all(started.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("the server closes");
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{started:?}");
    }
    let answer = rig.raw("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    // A producer is no request: it may be idle for longer.
    let mut producer = rig.connect().await;
    tokio::time::sleep(3 * limit).await;
    producer.barrier().await;
}

#[tokio::test]
async fn the_client_for_one_request_says_what_is_wrong() {
    for url in ["https://127.0.0.1:1/", "127.0.0.1:1", "/path", "http://", "not a url"] {
        let bad = http_get(url).await.unwrap_err();
        assert!(matches!(bad, ClientError::Url { .. }), "{url}: {bad:?}");
    }
    let (_held, addr) = nobody();
    assert!(matches!(http_get(&format!("http://{addr}/")).await, Err(ClientError::Connect { .. })));
    let rig = Rig::start().await;
    let (status, body) = http_get(&format!("http://localhost:{}/nothing", rig.addr.port())).await.unwrap();
    assert_eq!(status, 404);
    assert!(body.starts_with(b"{\"error\""));
}
