//! Workflows over HTTP: what is asked gets to the backend as it is, what is refused does not, and logs are followed without
//! anything growing.

use std::time::Duration;

use serde_json::{Value, json};
use slung_net::client::{ClientError, LogReader, change_workflow, workflow, workflows};
use slung_net::{LogEntry, ServerOptions, WorkflowChange, WorkflowRefused, WorkflowState};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::backend::PATIENCE;
use crate::http_api::ask;
use crate::rig::Rig;
use crate::shelf::LINES_KEPT;

const MODULE: &[u8] = b"\0asm\x01\0\0\0 and \xff\xfe whatever \r\n\r\n else";

impl Rig {
    fn server(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Deploys something under that name.
    async fn deploy(&self, name: &str) {
        let change = WorkflowChange::Deploy { module: MODULE.into(), env: Vec::new() };
        change_workflow(&self.server(), name, change).await.unwrap();
    }

    /// Sends a module with that behind the path's last slash: status, head, body.
    async fn put(&self, target: &str, head: &str, module: &[u8]) -> (u16, String, String) {
        let length = module.len();
        let head = format!(
            "PUT /api/v1/workflows/{target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\
             {head}\r\n"
        );
        let answer = self.raw([head.as_bytes(), module].concat()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    fn print(&self, name: &str, text: &str) {
        self.backend.state(|state| state.shelf.print(name, text));
    }

    /// What was asked of the backend.
    fn changes(&self) -> Vec<(String, WorkflowChange)> {
        self.backend.state(|state| state.shelf.changes.clone())
    }

    async fn follow(&self, name: &str, lines: usize) -> LogReader {
        LogReader::connect(&self.server(), name, lines, true).await.unwrap()
    }

    /// Waits until nobody reads that log any more.
    async fn until_unread(&self, name: &str) {
        let unread = async {
            while self.backend.state(|state| state.shelf.readers(name)) > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, unread).await.expect("its stream is dropped");
    }
}

async fn next(log: &mut LogReader) -> Option<LogEntry> {
    timeout(PATIENCE, log.next()).await.expect("something comes in time").unwrap()
}

/// The number and the text of a line.
fn line(entry: Option<LogEntry>) -> (u64, String) {
    match entry {
        Some(LogEntry::Line(line)) => (line.number, line.text),
        other => panic!("{other:?} is no line"),
    }
}

#[tokio::test]
async fn each_route_answers_as_it_should() {
    let rig = Rig::start().await;
    assert_eq!(rig.put("a", "", MODULE).await.0, 200);
    let row = "/api/v1/workflows";
    for (method, path, status, wanted) in [
        ("GET", "", 200, r#"{"workflows":[{"name":"a","state":"running","reason":null,"version":1,"#),
        ("HEAD", "", 200, ""),
        ("GET", "?name=a", 400, "known: none"),
        ("POST", "", 405, "method_not_allowed"),
        ("PUT", "", 405, "method_not_allowed"),
        ("DELETE", "", 405, "method_not_allowed"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/a", 200, r#"{"name":"a","state":"running","#),
        ("HEAD", "/a", 200, ""),
        ("GET", "/%61", 200, r#"{"name":"a","#),
        ("GET", "/a?x", 400, "known: none"),
        ("GET", "/b", 404, r#"{"error":{"code":"no_such_workflow","message":"there is no workflow b"}}"#),
        ("GET", "/.a", 404, "no_such_workflow"),
        ("GET", "/a%2Flog", 404, "no_such_workflow"),
        ("GET", "/%ff", 404, "no_such_workflow"),
        ("GET", "/{name}", 404, "no_such_workflow"),
        ("POST", "/a", 405, "this path answers GET, HEAD, PUT, DELETE only"),
        ("PATCH", "/a", 405, "method_not_allowed"),
        ("GET", "/a/", 404, r#""code":"not_found""#),
        ("GET", "/a/stop", 405, "this path answers POST only"),
        ("PUT", "/a/stop", 405, "method_not_allowed"),
        ("POST", "/a/stop?now", 400, "known: none"),
        ("POST", "/b/stop", 404, "no_such_workflow"),
        ("POST", "/a/stop", 200, r#""state":"stopped""#),
        ("POST", "/a/start", 200, r#""state":"running""#),
        ("POST", "/a/restart", 404, r#""code":"not_found""#),
        ("POST", "/a/stop/now", 404, r#""code":"not_found""#),
        ("POST", "/a/rollback?version=0", 400, "version is a number from 1 to "),
        ("POST", "/a/rollback?version=x", 400, "bad_request"),
        ("POST", "/a/rollback?version=1&version=2", 400, "version is given twice"),
        ("POST", "/a/rollback?to=1", 400, "known: version"),
        ("POST", "/a/rollback?version=1", 200, r#""version":1"#),
        ("DELETE", "/a/rollback", 405, "method_not_allowed"),
        ("GET", "/a/log", 200, ""),
        ("GET", "/b/log", 404, "no_such_workflow"),
        ("GET", "/b/log?follow=true", 404, "no_such_workflow"),
        ("GET", "/a/log?lines=10001", 400, "lines is a number from 0 to 10000"),
        ("GET", "/a/log?follow=yes", 400, "follow is true or false"),
        ("GET", "/a/log?tail=5", 400, "known: lines, follow"),
        ("HEAD", "/a/log?follow=true", 200, ""),
        ("DELETE", "/a/log", 405, "method_not_allowed"),
        ("DELETE", "/a?x", 400, "known: none"),
        ("DELETE", "/b", 404, "no_such_workflow"),
        ("DELETE", "/a", 200, r#"{"name":"a","#),
        ("DELETE", "/a", 404, "no_such_workflow"),
        ("GET", "", 200, r#"{"workflows":[]}"#),
    ] {
        let (answered, head, body) = ask(&rig, method, &format!("{row}{path}"), "").await;
        assert_eq!(answered, status, "{method} {path}: {head} {body}");
        assert!(body.contains(wanted), "{method} {path}: {body}");
        let allowed = match path.split('/').collect::<Vec<_>>()[..] {
            [_] | [_, _, "log"] => "allow: get, head\r",
            [_, _] => "allow: get, head, put, delete\r",
            _ => "allow: post\r",
        };
        assert_eq!(head.contains(allowed), status == 405, "{method} {path}: {head}");
    }
    // Whatever the names, the labels are those of the routes.
    let stats = rig.backend.counters.snapshot();
    let mut labels: Vec<&str> = stats.http_requests.iter().map(|(route, _, _)| *route).collect();
    labels.dedup();
    let below = ["", "/{name}", "/{name}/rollback", "/{name}/stop", "/{name}/start", "/{name}/log"];
    let mut wanted: Vec<String> = below.iter().map(|rest| format!("{row}{rest}")).collect();
    wanted.push("other".to_owned());
    assert_eq!(labels, wanted);
}

#[tokio::test]
async fn a_module_and_its_environment_get_there_as_they_are() {
    let rig = Rig::start().await;
    let env = [("LIMIT", "80"), ("TEXT", "a b+c&d=é\n\"%41"), ("EMPTY", ""), ("_x1", "=")];
    let env: Vec<_> = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let change = WorkflowChange::Deploy { module: MODULE.into(), env };
    let status = change_workflow(&rig.server(), "temp-alert_v1.2", change.clone()).await.unwrap();
    assert_eq!(rig.changes(), [("temp-alert_v1.2".to_owned(), change)]);
    assert_eq!((status.name.as_str(), status.version, status.sees_after), ("temp-alert_v1.2", Some(1), Some(7)));
    let version = &status.versions[0];
    assert_eq!((version.bytes, version.env.join(" ")), (MODULE.len() as u64, "LIMIT TEXT EMPTY _x1".to_owned()));

    // Values are in no answer, and not in what is logged of a change.
    let (_, _, shown) = ask(&rig, "GET", "/api/v1/workflows/temp-alert_v1.2", "").await;
    assert!(shown.contains("\"TEXT\"") && !shown.contains("80") && !shown.contains("a b"), "{shown}");
    let (_, change) = rig.changes().remove(0);
    assert_eq!(format!("{change:?}"), r#"Deploy { bytes: 34, env: ["LIMIT", "TEXT", "EMPTY", "_x1"] }"#);

    // Chunked, and by other hands; `+` is a blank as in every parameter.
    let chunked = "PUT /api/v1/workflows/c%2D1?env=A=b+c&env=B%3D%C3%A9 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
        Transfer-Encoding: chunked\r\n\r\n4\r\n\0asm\r\n2\r\nxy\r\n0\r\n\r\n";
    assert!(rig.raw(chunked).await.starts_with("HTTP/1.1 200 "));
    let env = [("A", "b c"), ("B", "é")].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let change = WorkflowChange::Deploy { module: b"\0asmxy"[..].into(), env };
    assert_eq!(rig.changes()[1], ("c-1".to_owned(), change));
}

#[tokio::test]
async fn the_client_does_all_that_there_is() {
    let rig = Rig::start().await;
    let server = rig.server() + "/";
    assert_eq!(workflows(&server).await.unwrap(), []);
    rig.deploy("b").await;
    rig.deploy("a").await;
    rig.deploy("a").await;
    let names: Vec<_> = workflows(&server).await.unwrap().into_iter().map(|status| status.name).collect();
    assert_eq!(names, ["a", "b"]);
    let all = rig.backend.state(|state| state.shelf.workflows["a"].clone());
    assert_eq!(workflow(&server, "a").await.unwrap(), all);
    let changes = [
        (WorkflowChange::Rollback { version: None }, WorkflowState::Running, Some(1)),
        (WorkflowChange::Rollback { version: Some(2) }, WorkflowState::Running, Some(2)),
        (WorkflowChange::Stop, WorkflowState::Stopped, Some(2)),
        (WorkflowChange::Start, WorkflowState::Running, Some(2)),
        (WorkflowChange::Remove, WorkflowState::Running, Some(2)),
    ];
    for (change, state, version) in changes.clone() {
        let status = change_workflow(&server, "a", change.clone()).await.unwrap();
        assert_eq!((status.state, status.version), (state, version), "{change:?}");
    }
    assert_eq!(rig.changes()[3..], changes.map(|(change, _, _)| ("a".to_owned(), change)));
    let gone = workflow(&server, "a").await.unwrap_err();
    assert!(matches!(&gone, ClientError::Answered { status: 404, code, .. } if code == "no_such_workflow"), "{gone:?}");
    assert_eq!(gone.to_string(), "there is no workflow a");
    // A name that needs encoding is not another path.
    assert!(matches!(workflow(&server, "b/log?x").await, Err(ClientError::Answered { status: 404, .. })));
    assert!(LogReader::connect(&server, "a", 5, true).await.is_err());
}

#[tokio::test]
async fn what_the_backend_refuses_is_told() {
    let rig = Rig::start().await;
    for (refused, status, code, again) in [
        (WorkflowRefused::NotFound("no version 7".into()), 404, "no_such_workflow", false),
        (WorkflowRefused::Invalid("- this\n- that".into()), 422, "invalid_workflow", false),
        (WorkflowRefused::Conflict("it stands in the configuration".into()), 409, "workflow_conflict", false),
        (WorkflowRefused::Failed("the disk".into()), 500, "workflow_failed", false),
        (WorkflowRefused::Busy, 409, "workflow_busy", true),
    ] {
        rig.backend.state(|state| state.shelf.refuse = Some(refused.clone()));
        let (answered, head, body) = rig.put("a", "", MODULE).await;
        let wanted = json!({"error": {"code": code, "message": refused.to_string()}});
        assert_eq!((answered, serde_json::from_str::<Value>(&body).unwrap()), (status, wanted));
        assert_eq!(head.contains("retry-after: 1\r"), again, "{head}");
    }
    assert_eq!(rig.backend.state(|state| state.shelf.workflows.len()), 0);
}

/// All that is wrong with a deployment is told at once, before the module is read, and nothing is asked of the backend.
#[tokio::test]
async fn a_name_or_an_environment_that_is_none_is_refused() {
    let rig = Rig::start().await;
    let long = format!("{}?env={}=1", "n".repeat(65), "N".repeat(129));
    let most: String = (0..64).map(|index| format!("&env=V{index}=")).collect();
    for (target, wanted) in [
        (".a", &["\".a\" is none"][..]),
        ("a%2Fb", &["\"a/b\" is none"]),
        ("%C3%A9", &["a workflow's name is 1 to 64 of A-Z a-z 0-9 - _ ."]),
        (&long, &["a workflow's name is", "a variable's name is 1 to 128"]),
        (
            "a%0A?env=1A=secret&env=secret&env=B=1&env=B=2",
            &["a workflow's name is", "\"1A\" is none", "one has no `=`", "B is given twice"],
        ),
        ("a?env==secret", &["\"\" is none"]),
        ("a?env=A=secret%00", &["A has a NUL"]),
        (&format!("a?env=A={}", "x".repeat(4_097)), &["A has 4097 bytes, and 4096 are the most"]),
        (&format!("a?env=A=1{most}"), &["65 variables, and 64 are the most"]),
    ] {
        let (status, head, body) = rig.put(target, "", MODULE).await;
        assert!(status == 422 && body.contains("\"code\":\"invalid_workflow\""), "{target}: {body}");
        assert!(head.contains("connection: close"), "{head}");
        assert!(!body.contains("secret"), "{body}");
        for wanted in wanted {
            let wanted = wanted.replace('"', "\\\"");
            assert!(body.contains(&wanted), "{target}: {body} without {wanted}");
        }
        assert_eq!(body.matches("\\n- ").count(), wanted.len(), "{body}");
    }
    assert_eq!(rig.put("a?limit=5", "", MODULE).await.0, 400);
    assert_eq!(rig.changes(), []);
    for good in [format!("a?{}", &most[1..]), format!("{}?env=A={}", "n".repeat(64), "x".repeat(4_096))] {
        assert_eq!(rig.put(&good, "", MODULE).await.0, 200, "{good}");
    }
}

#[tokio::test]
async fn no_web_page_changes_a_workflow() {
    let rig = Rig::start().await;
    rig.deploy("a").await;
    for origin in ["Origin: http://elsewhere\r\n", "Origin: null\r\n"] {
        for (method, rest) in [("POST", "/stop"), ("POST", "/start"), ("POST", "/rollback"), ("DELETE", "")] {
            let (status, _, body) = ask(&rig, method, &format!("/api/v1/workflows/a{rest}"), origin).await;
            assert!(status == 403 && body.contains("\"code\":\"forbidden\""), "{method} {rest}: {body}");
        }
        let (status, head, body) = rig.put("b", origin, MODULE).await;
        assert!(status == 403 && body.contains("\"code\":\"forbidden\""), "{body}");
        assert!(head.contains("connection: close"), "{head}");
        // Nobody is told that another origin may.
        let (status, head, _) = ask(&rig, "OPTIONS", "/api/v1/workflows/a", origin).await;
        assert!(status == 405 && !head.contains("access-control"), "{head}");
        // Looking changes nothing.
        for rest in ["", "/a", "/a/log"] {
            assert_eq!(ask(&rig, "GET", &format!("/api/v1/workflows{rest}"), origin).await.0, 200);
        }
    }
    assert_eq!(rig.changes().len(), 1);
}

#[tokio::test]
async fn a_module_that_is_too_big_is_refused_and_takes_no_memory() {
    let rig = Rig::with(ServerOptions { module_bytes_max: 1 << 20, ..ServerOptions::default() }).await;
    let module = vec![7; (1 << 20) + 1];
    assert_eq!(rig.put("a", "", &module[1..]).await.0, 200);
    let (status, _, body) = rig.put("a", "", &module).await;
    assert!(status == 413 && body.contains("\"code\":\"body_too_big\""), "{body}");
    assert!(body.contains("the module is larger than 1048576 bytes"), "{body}");
    let chunk = format!("{:x}\r\n{}\r\n", 700_000, "x".repeat(700_000));
    let head = "PUT /api/v1/workflows/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = rig.raw(format!("{head}{chunk}{chunk}0\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // The client gets to read why, however much it still has to send.
    let change = WorkflowChange::Deploy { module: vec![7; 32 << 20].into(), env: Vec::new() };
    let refused = change_workflow(&rig.server(), "a", change).await.unwrap_err();
    assert!(matches!(refused, ClientError::Answered { status: 413, .. }), "{refused:?}");
    // What breaks off is no module.
    let mut tcp = TcpStream::connect(rig.addr).await.unwrap();
    tcp.write_all(b"PUT /api/v1/workflows/a HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n\0asm").await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut answer = String::new();
    let _ = timeout(PATIENCE, tcp.read_to_string(&mut answer)).await.expect("the server closes");
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(rig.changes().len(), 1);

    // Modules are among what is in flight, for as long as the backend has them.
    rig.backend.state(|state| state.shelf.changes.clear());
    assert_eq!(rig.producers.memory().used(), 0);
    let rig = Rig::with_memory(ServerOptions::default(), 1 << 20).await;
    let (status, head, body) = rig.put("a", "", &module).await;
    assert!(status == 503 && body.contains("\"code\":\"no_memory\""), "{body}");
    assert!(head.contains("retry-after: 1\r") && head.contains("connection: close\r"), "{head}");
    assert_eq!((rig.put("a", "", &module[..300_000]).await.0, rig.changes().len()), (200, 1));
    assert!(rig.producers.memory().used() >= 300_000);
}

/// Who asks and goes away has asked.
#[tokio::test]
async fn what_was_begun_is_done_although_nobody_waits() {
    let mut rig = Rig::start().await;
    let mut tcp = TcpStream::connect(rig.addr).await.unwrap();
    tcp.write_all(b"PUT /api/v1/workflows/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n\0asm").await.unwrap();
    rig.backend.until("it is asked", |state| state.shelf.waiting == 1).await;
    drop(tcp);
    let gone = async {
        while rig.backend.counters.snapshot().connections_now > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the connection is gone");
    assert_eq!(rig.changes(), []);
    rig.backend.query_gate.notify_one();
    rig.backend.until("it is done", |state| state.shelf.workflows.contains_key("slow")).await;

    // And is answered when the server stops meanwhile.
    let mut tcp = TcpStream::connect(rig.addr).await.unwrap();
    tcp.write_all(b"POST /api/v1/workflows/slow/stop HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    rig.backend.until("it is asked", |state| state.shelf.waiting == 2).await;
    rig.stop();
    let early = timeout(Duration::from_millis(100), &mut rig.running).await;
    assert!(early.is_err(), "it waits for the answer");
    rig.backend.query_gate.notify_one();
    let mut answer = String::new();
    timeout(PATIENCE, tcp.read_to_string(&mut answer)).await.expect("the server closes").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"state\":\"stopped\""), "{answer}");
    rig.ended().await;
}

#[tokio::test]
async fn a_log_is_its_last_lines() {
    let rig = Rig::start().await;
    rig.deploy("a").await;
    (1..=3).for_each(|number| rig.print("a", &format!("line {number} \u{1b}[31m\n{{")));
    let (status, head, body) = ask(&rig, "GET", "/api/v1/workflows/a/log?lines=2", "").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/x-ndjson") && head.contains("content-length: "), "{head}");
    let wanted = |number: u64| {
        format!(
            "{{\"number\":{number},\"at\":1700000000000000,\"level\":\"info\",\"from\":\"stdout\",\
             \"text\":\"line {number} \\u001b[31m\\n{{\"}}\n"
        )
    };
    assert_eq!(body, wanted(2) + &wanted(3));
    assert_eq!(ask(&rig, "GET", "/api/v1/workflows/a/log", "").await.2.lines().count(), 3);
    assert_eq!(ask(&rig, "GET", "/api/v1/workflows/a/log?lines=0&follow=false", "").await.2, "");
    // More than are asked for by default, and than are kept.
    (0..LINES_KEPT).for_each(|_| rig.print("a", "x"));
    let lines = async |query: &str| {
        let (_, _, body) = ask(&rig, "GET", &format!("/api/v1/workflows/a/log{query}"), "").await;
        body.lines().count()
    };
    assert_eq!((lines("").await, lines("?lines=10000").await, lines("?lines=7").await), (100, LINES_KEPT, 7));

    let mut log = LogReader::connect(&rig.server(), "a", 1, false).await.unwrap();
    assert_eq!(line(next(&mut log).await).0, 103);
    assert_eq!(next(&mut log).await, None);
    assert_eq!(rig.backend.counters.snapshot().live_streams_total, 0);
}

#[tokio::test]
async fn a_followed_log_goes_on_until_one_side_has_enough() {
    let mut rig = Rig::start().await;
    for name in ["a", "b", "c"] {
        rig.deploy(name).await;
        rig.print(name, "before");
    }
    let mut log = rig.follow("a", 10).await;
    assert_eq!(line(next(&mut log).await), (1, "before".to_owned()));
    for number in 2..500 {
        // Each is there before the next one is logged.
        rig.print("a", "now");
        assert_eq!(line(next(&mut log).await), (number, "now".to_owned()));
    }
    let mut later = rig.follow("a", 0).await;
    rig.print("a", "then");
    assert_eq!(line(next(&mut later).await), (500, "then".to_owned()));
    let stats = rig.backend.counters.snapshot();
    assert_eq!((stats.live_streams_now, stats.live_streams_total, stats.live_updates), (2, 2, 0));

    // The reader goes.
    drop((log, later));
    rig.until_unread("a").await;
    // The workflow goes.
    let mut log = rig.follow("b", 1).await;
    assert_eq!(line(next(&mut log).await).0, 1);
    change_workflow(&rig.server(), "b", WorkflowChange::Remove).await.unwrap();
    assert_eq!(next(&mut log).await, None);
    // The server goes.
    let mut log = rig.follow("c", 1).await;
    assert_eq!(line(next(&mut log).await).0, 1);
    rig.stop();
    assert_eq!(next(&mut log).await, None);
    rig.ended().await;
}

/// A client that reads nothing takes no more lines than sockets hold. Later it gets those, is told how many it has missed, and
/// gets the last ones.
#[tokio::test]
async fn a_slow_reader_of_a_log_misses_lines_and_is_told_how_many() {
    const LINES: u64 = 2_000;
    let rig = Rig::start().await;
    rig.deploy("a").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut slow = socket.connect(rig.addr).await.unwrap();
    slow.write_all(b"GET /api/v1/workflows/a/log?lines=0&follow=true HTTP/1.0\r\n\r\n").await.unwrap();
    rig.backend.until("it is read", |state| state.shelf.readers("a") == 1).await;
    let mut quick = rig.follow("a", 0).await;
    let text = "x".repeat(64 * 1024);
    for number in 1..=LINES {
        rig.print("a", &text);
        assert_eq!(line(next(&mut quick).await).0, number, "it holds up nobody else");
    }
    // Now it reads, up to the last line.
    let mut lines = BufReader::new(slow).lines();
    let mut next_line = async || timeout(PATIENCE, lines.next_line()).await.expect("a line").unwrap().expect("no end");
    while !next_line().await.is_empty() {}
    let (mut next, mut missed_all) = (1, 0);
    while next <= LINES {
        match serde_json::from_str(&next_line().await).unwrap() {
            LogEntry::Line(line) => {
                assert_eq!(line.number, next);
                next += 1;
            }
            LogEntry::Missed { missed } => {
                next += missed;
                missed_all += missed;
            }
        }
    }
    assert_eq!(next, LINES + 1, "each line came or was counted");
    assert!(missed_all > LINES / 2, "{missed_all}: sockets do not hold 128 MB");
}

#[tokio::test]
async fn a_silent_log_shows_that_it_is_there() {
    let limit = Duration::from_millis(20);
    let rig = Rig::with(ServerOptions { live_keep_alive: limit, ..ServerOptions::default() }).await;
    rig.deploy("a").await;
    let mut tcp = TcpStream::connect(rig.addr).await.unwrap();
    tcp.write_all(b"GET /api/v1/workflows/a/log?follow=true HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n\n\n\n") {
        answer.push(timeout(PATIENCE, tcp.read_u8()).await.expect("an empty line").unwrap());
    }
    // The product's own client skips them.
    let mut log = rig.follow("a", 0).await;
    tokio::time::sleep(5 * limit).await;
    rig.print("a", "x");
    assert_eq!(line(next(&mut log).await), (1, "x".to_owned()));
    // Who is gone is noticed, although nothing is logged.
    drop((tcp, log));
    rig.until_unread("a").await;
}

#[tokio::test]
async fn followed_logs_are_among_the_streams_that_there_may_be() {
    let rig = Rig::with(ServerOptions { live_streams_max: 1, ..ServerOptions::default() }).await;
    rig.deploy("a").await;
    let log = rig.follow("a", 0).await;
    for path in ["/api/v1/workflows/a/log?follow=true", "/api/v1/live?q=a:[]"] {
        let (status, head, body) = ask(&rig, "GET", path, "").await;
        assert!(status == 503 && body.contains("\"code\":\"too_many_streams\""), "{body}");
        assert!(head.contains("retry-after: 10\r"), "{head}");
    }
    let refused = LogReader::connect(&rig.server(), "a", 0, true).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Answered { status: 503, code, .. } if code == "too_many_streams"));
    assert_eq!(rig.backend.counters.snapshot().live_streams_refused, 3);
    // One that ends by itself needs no place.
    assert_eq!(ask(&rig, "GET", "/api/v1/workflows/a/log", "").await.0, 200);
    drop(log);
    let again = async { while LogReader::connect(&rig.server(), "a", 0, true).await.is_err() {} };
    timeout(PATIENCE, again).await.expect("there is room again");
}
