//! Watching a live query from outside, over HTTP and with the command: what a workflow would be told, and nothing is left
//! behind when the watcher or the server goes.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use crate::server::{Server, run, slung};

const AT: i64 = 1_700_000_000_000_000;

/// `slung live`, whose lines are read as they come.
fn command(server: &Server, args: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = slung()
        .arg("live")
        .args(args)
        .args(["--url", &server.http_url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

#[tokio::test]
async fn a_sliding_count_is_told_step_by_step_and_starts_from_history() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let mut producer = server.connect().await;
    producer.event("s", &["a=1"], AT, 1.0).await;
    server.wait_until("the first is stored", |server| server.query("COUNT:s:[]") == 1.0);

    let mut count = server.watch("COUNT:s:[]:[1h]");
    let mut raw = server.watch(":s:[a=2]");
    assert_eq!(server.metric("slung_live_handles"), 2.0);
    assert_eq!(server.metric("slung_live_streams"), 2.0);
    for index in 1..50_i64 {
        producer.event("s", &["a=2"], AT + index, 0.5 * index as f64).await;
    }
    // Written again: it replaces, and counts once.
    producer.event("s", &["a=2"], AT + 49, 7.0).await;
    // An hour later the window has left the others behind.
    producer.event("s", &["a=2", "b"], AT + 3_600_000_050, 8.0).await;
    for index in 1..50_i64 {
        let event = count.next();
        assert_eq!((&event["value"], &event["timestamp"]), (&(1.0 + index as f64).into(), &(AT + index).into()));
        assert_eq!((&event["tags"], &event["producers"]), (&serde_json::json!(["a=2"]), &serde_json::json!([1])));
        assert_eq!(event["count"], 1 + index);
        assert_eq!(raw.next()["value"], 0.5 * index as f64);
    }
    assert_eq!(count.next()["value"], 50.0);
    assert_eq!(count.next()["value"], 1.0);
    assert_eq!((raw.next()["value"].as_f64(), raw.next()["value"].as_f64()), (Some(7.0), Some(8.0)));

    // Who goes away frees what is his.
    drop(raw);
    server.wait_until("one is freed", |server| server.metric("slung_live_handles") == 1.0);
    drop(count);
    server.wait_until("both are freed", |server| server.metric("slung_live_handles") == 0.0);
    server.wait_until("both are counted out", |server| server.metric("slung_live_streams") == 0.0);
    assert_eq!(server.metric("slung_live_streams_opened_total"), 2.0);
    assert_eq!(server.metric("slung_live_stream_updates_total"), 102.0);
    assert_eq!(server.metric("slung_live_points"), 0.0);
}

#[tokio::test]
async fn the_command_prints_a_line_per_update_and_ends_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let (people, mut lines) = command(&server, &["AVG:s:[]:[1h]"]);
    let (programs, mut json) = command(&server, &["AVG:s:[]:[1h]", "--json"]);
    server.wait_until("both watch", |server| server.metric("slung_live_handles") == 2.0);
    let mut producer = server.connect().await;
    for (index, value, average) in [(0, 20.0, "20"), (1, 21.0, "20.5"), (2, 22.0, "21")] {
        producer.event("s", &["sensor=1", "env=prod"], AT + 1_000_000 * index, value).await;
        let line = lines.next().unwrap().unwrap();
        assert_eq!(line, format!("2023-11-14T22:13:2{index}Z  {average}  env=prod,sensor=1"));
        let event: Value = serde_json::from_str(&json.next().unwrap().unwrap()).unwrap();
        assert_eq!(
            (event["value"].to_string().trim_end_matches(".0"), event["count"].as_i64()),
            (average, Some(index + 1))
        );
    }
    assert!(server.terminate().success(), "streams do not keep it from closing its store");
    for (child, mut rest) in [(people, Box::new(lines) as Box<dyn Iterator<Item = _>>), (programs, Box::new(json))] {
        assert!(rest.next().is_none());
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && error.contains("has ended the stream"), "{error}");
    }
}

#[test]
fn the_command_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    for (query, wanted) in [
        ("AVG:s:x", "query, byte 6"),
        ("AVG:s:[]:[2h,1h]", "query, byte 9: a live query's range"),
        ("RATE:s:[]:[1h]", "query, byte 0: RATE is for historical queries only"),
    ] {
        let output = run(slung().args(["live", query, "--url", &server.http_url()]));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(wanted), "{error}");
    }
    assert_eq!(server.metric("slung_live_handles"), 0.0);

    // A server that is gone without a word is no orderly end.
    let (child, _lines) = command(&server, &["AVG:s:[]"]);
    server.wait_until("it watches", |server| server.metric("slung_live_handles") == 1.0);
    server.kill();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.contains("lost"), "{error}");
}
