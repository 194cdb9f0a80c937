//! Workflows in the real server: alerts reach their producers and nobody else, derived series are stored, the world is
//! called only where that was allowed.

use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::guest;
use crate::server::{Server, workflow};

const AT: i64 = 1_700_000_000_000_000;

/// Name, module, environment.
type Configured<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// Writes a configuration with those workflows.
fn configure(folder: &Path, workflows: &[Configured<'_>]) -> String {
    let mut text = String::new();
    for (name, module, env) in workflows {
        text += &format!("[workflows.{name}]\nfile = {:?}\n[workflows.{name}.env]\n", workflow(module));
        for (variable, value) in *env {
            text += &format!("{variable} = {value:?}\n");
        }
    }
    let path = folder.join("slung.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_alert_reaches_only_the_producers_that_its_event_names() {
    let folder = tempfile::tempdir().unwrap();
    let config = configure(
        folder.path(),
        &[
            ("low-a", "threshold-alert", &[("ALERT_QUERY", "AVG:temp:[side=a]:[1h]"), ("ALERT_BELOW", "10")]),
            ("low-b", "threshold-alert", &[("ALERT_QUERY", "AVG:temp:[side=b]:[1h]"), ("ALERT_BELOW", "20")]),
        ],
    );
    let server = Server::start(&folder.path().join("data"), &["--config", &config]);
    server.wait_until("both have subscribed", |server| server.metric("slung_live_handles") == 2.0);
    let (mut a, mut b) = (server.connect().await, server.connect().await);
    for round in 0..50 {
        a.event("temp", &["side=a"], AT + round, 5.0).await;
        b.event("temp", &["side=b"], AT + round, 15.0).await;
        let (to_a, to_b) = (a.message().await, b.message().await);
        assert!(to_a.contains("side=a") && to_a.contains("\"threshold\":10"), "{to_a}");
        assert!(to_b.contains("side=b") && to_b.contains("\"threshold\":20"), "{to_b}");
    }
    assert!(a.has_nothing_waiting().await && b.has_nothing_waiting().await, "one alert per event, to its producer");

    // One series that both feed: whoever caused the update hears of it.
    a.event("temp", &["side=b"], AT + 100, 1.0).await;
    assert!(a.message().await.contains("side=b"));
    assert!(b.has_nothing_waiting().await);
}

#[tokio::test]
async fn anomaly_starts_from_history_and_writes_a_derived_series() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // Yesterday's readings, so that the workflow finds a history when it starts.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
    let server = Server::start(&data, &[]);
    let mut producer = server.connect().await;
    for index in 0..1_000 {
        let value = 50.0 + f64::from(index % 10);
        producer.event("temperature", &["machine=1"], now - 1_000_000 * i64::from(1_000 - index), value).await;
    }
    server.wait_until("the history is stored", |server| server.query("COUNT:temperature:[]") == 1_000.0);
    assert!(server.terminate().success());

    let path = workflow("anomaly");
    let server = Server::start(&data, &["--workflow", &format!("anomaly={}", path.display())]);
    server.wait_until("it has subscribed", |server| server.metric("slung_live_handles") == 1.0);
    let mut producer = server.connect().await;
    producer.event("temperature", &["machine=1"], now + 1, 54.0).await;
    producer.event("temperature", &["machine=1"], now + 2, 500.0).await;
    server.wait_until("both are judged", |server| server.query("COUNT:temperature.anomaly:[]") == 2.0);
    let score = server.query("MAX:temperature.anomaly:[]").as_f64().unwrap();
    assert!(score > 3.0, "500 after a thousand values from 50 to 59 scores {score}");
    let reacted = |server: &Server| server.metric("slung_workflow_reaction_seconds_count") == 2.0;
    server.wait_until("its writes are its reactions", reacted);
    let total = server.metric("slung_workflow_reaction_seconds_sum");
    assert!(total > 0.0 && total < 2.0 * 60.0, "{total} s from two events to what was written of them");
    assert!(!server.log().contains("own live query"), "it writes under another name than it reads");
}

/// Answers the first request with 200 and all others with 503, each with that body, and hands over what it was asked.
async fn http_server(body: &'static str) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (requests, received) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut status = "200 OK";
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            // The workflow's bodies are small JSON objects: the closing brace ends the request.
            while !request.ends_with(b"}") {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => request.extend_from_slice(&buffer[..read]),
                }
            }
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            status = "503 Service Unavailable";
            if requests.send(String::from_utf8_lossy(&request).into_owned()).is_err() {
                return;
            }
        }
    });
    (port, received)
}

#[tokio::test]
async fn webhook_calls_out_only_where_the_operator_allowed_it() {
    let folder = tempfile::tempdir().unwrap();
    let (port, mut requests) = http_server(r#"{"message":"seen"}"#).await;
    let url = format!("http://127.0.0.1:{port}/hook");
    let config = configure(folder.path(), &[("webhook", "webhook", &[("WEBHOOK_URL", &url)])]);

    let refused = Server::start(&folder.path().join("refused"), &["--config", &config]);
    refused.wait_until("it has subscribed", |server| server.metric("slung_live_handles") == 1.0);
    let mut producer = refused.connect().await;
    producer.event("temperature", &["machine=1"], AT, 50.0).await;
    producer.event("temperature", &["machine=1"], AT + 1, 500.0).await;
    let line = refused.wait_for_log("--allow-host");
    assert!(line.contains(&format!("127.0.0.1:{port}")), "{line}");
    assert!(requests.try_recv().is_err(), "nothing may reach the address");
    drop(refused);

    let allow = format!("127.0.0.1:{port}");
    let allowed = Server::start(&folder.path().join("allowed"), &["--config", &config, "--allow-host", &allow]);
    allowed.wait_until("it has subscribed", |server| server.metric("slung_live_handles") == 1.0);
    let mut producer = allowed.connect().await;
    producer.event("temperature", &["machine=1"], AT, 50.0).await;
    producer.event("temperature", &["machine=1"], AT + 1, 500.0).await;
    let request = tokio::time::timeout(crate::server::PATIENCE, requests.recv()).await.unwrap().unwrap();
    assert!(request.starts_with("POST /hook HTTP/1.1"), "{request}");
    assert!(request.contains(r#""now":"above","value":275.0"#), "{request}");
    // It uses the response, whatever its status; the operator is told of one that is no success.
    assert!(producer.message().await.contains("seen"));
    producer.event("temperature", &["machine=1"], AT + 2, -500.0).await;
    assert!(producer.message().await.contains("seen"));
    let line = allowed.wait_for_log("status 503");
    assert!(line.contains(&url), "{line}");
}

/// A workflow that calls without a pause what it may not, and what nobody has named: the operator hears of each once, with
/// what he has to set.
#[tokio::test]
async fn a_workflow_that_calls_too_often_is_refused_and_told_of_once() {
    let folder = tempfile::tempdir().unwrap();
    let call = |at: u32| format!("(drop (call $writeback_http (i32.const {at}) (i32.const 4096) (i32.const 1)))");
    let texts = [":temp:[]", "http://198.41.0.4/", "http://127.0.0.1:9/", "{}"];
    guest::polling(&folder.path().join("caller.wasm"), &texts, &(call(2048) + &call(3072)).repeat(10));
    let config = folder.path().join("slung.toml");
    let section = "allow_public = false\n[workflows.caller]\nfile = \"caller.wasm\"\nhttp_calls_per_second_max = 2\n";
    std::fs::write(&config, section).unwrap();
    let started = std::time::Instant::now();
    let server = Server::start(&folder.path().join("data"), &["--config", config.to_str().unwrap()]);
    server.wait_until("it has called for some seconds", |server| {
        server.metric(r#"slung_workflow_calls_total{workflow="caller",function="u_writeback_http",outcome="failed"}"#)
            > 40.0
    });
    let (refused, seconds) = (server.metric("slung_outbound_calls_total{outcome=\"refused\"}"), started.elapsed());
    assert!(refused >= 2.0 && refused <= 2.0 * (1.0 + seconds.as_secs_f64()), "{refused} calls in {seconds:?}");
    assert!(server.metric("slung_workflow_http_calls_refused_total") >= 20.0);
    let log = server.log();
    for reason in [
        "198.41.0.4 is not named (allow_public is false); --allow-host 198.41.0.4:80 allows it",
        "127.0.0.1 is at 127.0.0.1, a special address (loopback); --allow-host 127.0.0.1:9 allows it",
        "too many requests: it may make 2 a second (`http_calls_per_second_max`)",
    ] {
        let lines = log.lines().filter(|line| line.contains(&format!("u_writeback_http failed: {reason}"))).count();
        // A reason that repeats is logged again after a minute.
        assert!((1..=1 + seconds.as_secs() as usize / 60).contains(&lines), "{lines} of {reason} in {log}");
    }
    assert!(server.terminate().success());
}

#[tokio::test]
async fn a_workflow_that_traps_is_reported_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.wasm");
    let module = r#"(module (memory (export "memory") 1)
        (func (export "allocate") (param i32) (result i32) i32.const 0)
        (func (export "deallocate") (param i32))
        (func (export "call") (result i32) unreachable))"#;
    std::fs::write(&bad, wat::parse_str(module).unwrap()).unwrap();
    let server = Server::start(&folder.path().join("data"), &["--workflow", &format!("bad={}", bad.display())]);
    let line = server.wait_for_log("unreachable");
    assert!(line.contains("bad"), "{line}");
    let mut producer = server.connect().await;
    producer.event("s", &[], AT, 1.0).await;
    server.wait_until("events go on", |server| server.query("COUNT:s:[]") == 1.0);
}

#[tokio::test]
async fn a_workflow_that_fails_is_started_again_and_sees_the_stream() {
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("fails.wasm");
    guest::polling(&module, &["COUNT:temp:[]"], "(if (local.get $event) (then unreachable))");
    let named = format!("fails={}", module.display());
    let server = Server::start(&folder.path().join("data"), &["--workflow", &named]);
    let mut producer = server.connect().await;
    for life in 0..2 {
        server.wait_until("it has subscribed", |server| server.metric("slung_live_handles") == 1.0);
        assert_eq!(server.metric("slung_workflow_restarts_total"), f64::from(life));
        assert_eq!(server.metric("slung_workflow_running"), 1.0);
        producer.event("temp", &[], AT + i64::from(life), 1.0).await;
        // It waits a second, or nearly.
        server.wait_until("it has failed", |server| server.metric("slung_workflow_running") == 0.0);
        assert_eq!(server.metric("slung_live_handles"), 0.0);
    }
    let line = server.wait_for_log("it starts again in");
    assert!(line.contains("unreachable") && line.contains("fails"), "{line}");
    server.wait_until("it is there again", |server| server.metric("slung_workflow_restarts_total") == 2.0);
    assert_eq!(server.metric("slung_workflow_events_total"), 2.0, "its counters go on");
}

/// Ids count up from 1, so that they are easily guessed.
#[tokio::test]
async fn a_workflow_answers_those_whose_events_it_has_seen() {
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("guesses.wasm");
    let to = |producer| format!("(drop (call $writeback_ws (i64.const {producer}) (i32.const 2048)))");
    let both = format!("(if (local.get $event) (then {} {}))", to(2), to(1));
    guest::polling(&module, &[":mine:[]", "hello"], &both);
    for anybody in [false, true] {
        let config = folder.path().join("slung.toml");
        std::fs::write(&config, format!("[workflows.guesses]\nfile = {module:?}\nanswers_anybody = {anybody}\n"))
            .unwrap();
        let data = folder.path().join(format!("data-{anybody}"));
        let server = Server::start(&data, &["--config", config.to_str().unwrap()]);
        server.wait_until("it has subscribed", |server| server.metric("slung_live_handles") == 1.0);
        let (mut seen, mut unseen) = (server.connect().await, server.connect().await);
        unseen.event("other", &[], AT, 1.0).await;
        assert!(unseen.has_nothing_waiting().await);
        seen.event("mine", &[], AT, 1.0).await;
        // The last one that it answers.
        assert_eq!(seen.message().await, "hello");
        if anybody {
            assert_eq!(unseen.message().await, "hello");
        } else {
            assert!(unseen.has_nothing_waiting().await);
            let line = server.wait_for_log("it has seen no event of that producer");
            assert!(line.contains("u_writeback_ws failed") && line.contains("answers_anybody"), "{line}");
        }
    }
}
