//! The commands for workflows, run as a person would, against a server that says what the test wants.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::server::{Server, run, slung, workflow};

/// One request: its first line, and its body.
type Asked = (String, Vec<u8>);

/// Answers one request after the other as it is told, and passes on what it was asked.
fn scripted(answers: Vec<(u16, String)>) -> (String, Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, seen) = channel();
    std::thread::spawn(move || {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            asked.send(request(&mut stream)).unwrap();
            let (length, kind) = (body.len(), if body.starts_with("{\"number\"") { "x-ndjson" } else { "json" });
            let head =
                format!("HTTP/1.1 {status} x\r\nContent-Type: application/{kind}\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
    });
    (url, seen)
}

fn request(stream: &mut TcpStream) -> Asked {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (first.trim_end().to_owned(), body)
}

fn status(changes: Value) -> String {
    let mut status = json!({
        "name": "alert", "state": "running", "reason": null, "version": 2, "configured": false, "sees_after": 1207,
        "versions": [{"version": 2, "bytes": 6, "deployed": 1_700_000_000_000_000_i64, "digest": "crc32:1", "env": ["A"]}],
        "uptime_ms": 4200, "restarts": 0, "events": 380, "merged": 0, "dropped": 0, "late": 0, "waiting": 0,
        "calls": [{"function": "u_poll_handle", "ok": 412, "failed": 0}], "busy_micros": 5120,
        "memory_bytes": 1_179_648, "memory_bytes_max": 1_179_648, "writes_refused": 0, "http_calls_refused": 0,
        "throttled_micros": 0, "log_lines_dropped": 0, "reaction": {"count": 3, "p50_micros": 21, "p99_micros": 96},
    });
    for (key, value) in changes.as_object().unwrap() {
        status[key] = value.clone();
    }
    status.to_string()
}

fn refusal(message: &str) -> String {
    json!({"error": {"code": "x", "message": message}}).to_string()
}

/// Exit code, stdout and stderr.
fn outcome(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn command(args: &[&str], url: &str) -> (i32, String, String) {
    outcome(&run(slung().args(args).args(["--url", url])))
}

#[test]
fn a_module_is_deployed_and_what_the_server_says_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.wasm");
    let file = file.to_str().unwrap();
    let deploy = |url: &str| command(&["deploy", "alert", file, "--env", "A=b c&d", "--env", "B="], url);
    let (url, seen) = scripted(vec![]);
    let (code, _, error) = deploy(&url);
    assert!(code == 1 && error.contains("cannot read") && error.contains("x.wasm"), "{error}");
    std::fs::write(file, b"").unwrap();
    assert!(deploy(&url).2.contains("x.wasm is empty"));
    assert!(seen.try_recv().is_err(), "nothing was sent");

    std::fs::write(file, b"\0asm\xff\n").unwrap();
    let problems = "module alert can't be loaded\n- no export call\u{1b}[2J\n- no memory";
    let (url, seen) = scripted(vec![(200, status(json!({}))), (422, refusal(problems)), (200, "[]".to_owned())]);
    let shown = "alert: running, version 2; it sees the events after number 1207\n".to_owned();
    assert_eq!(deploy(&url), (0, shown, String::new()));
    let first = "PUT /api/v1/workflows/alert?env=A%3Db%20c%26d&env=B%3D HTTP/1.1".to_owned();
    assert_eq!(seen.recv().unwrap(), (first, b"\0asm\xff\n".to_vec()));
    // All reasons, on lines of their own, and nothing else gets to the terminal.
    let told = "slung: module alert can't be loaded\n- no export call\\u{1b}[2J\n- no memory\n".to_owned();
    assert_eq!(deploy(&url), (1, String::new(), told));
    let (code, _, error) = deploy(&url);
    assert!(code == 1 && error.contains("answers 200 and not as a Slung server does"), "{error}");
    // Usage is checked before.
    assert_eq!(command(&["deploy", "alert", file, "--env", "A"], &url).0, 2);
    assert_eq!(command(&["deploy", "alert"], &url).0, 2);
}

#[test]
fn the_other_changes_ask_for_what_they_say() {
    let stopped = status(json!({"state": "stopped", "reason": "by a client"}));
    let answers =
        [status(json!({"version": 1})), status(json!({"version": 7})), stopped, status(json!({})), status(json!({}))];
    let mut answers: Vec<_> = answers.map(|body| (200, body)).to_vec();
    answers.push((409, refusal("it stands in the configuration")));
    let (url, seen) = scripted(answers);
    for (args, request, shown) in [
        (
            &["rollback", "alert"][..],
            "POST /rollback",
            "alert: running, version 1; it sees the events after number 1207\n",
        ),
        (
            &["rollback", "alert", "--to", "7"],
            "POST /rollback?version=7",
            "alert: running, version 7; it sees the events after number 1207\n",
        ),
        (&["stop", "alert"], "POST /stop", "alert: stopped, version 2 (by a client)\n"),
        (&["start", "alert"], "POST /start", "alert: running, version 2; it sees the events after number 1207\n"),
        (&["remove", "alert"], "DELETE ", "alert: removed\n"),
    ] {
        assert_eq!(command(args, &url), (0, shown.to_owned(), String::new()), "{args:?}");
        let (method, rest) = request.split_once(' ').unwrap();
        let first = format!("{method} /api/v1/workflows/alert{rest} HTTP/1.1");
        assert_eq!(seen.recv().unwrap(), (first, Vec::new()));
    }
    let told = "slung: it stands in the configuration\n".to_owned();
    assert_eq!(command(&["remove", "alert"], &url), (1, String::new(), told));
    assert_eq!(command(&["rollback", "alert", "--to", "0"], &url).0, 2);
    let (code, _, error) = command(&["stop", "alert"], "http://127.0.0.1:1");
    assert!(code == 1 && error.contains("is `slung serve` running there?"), "{error}");
}

#[test]
fn ps_shows_a_table_or_one_workflow_or_json() {
    let list = format!("{{\"workflows\":[{}]}}", status(json!({"name": "a\u{7}"})));
    let one = status(json!({}));
    let (url, seen) = scripted(vec![
        (200, list.clone()),
        (200, list.clone()),
        (200, one.clone()),
        (200, one.clone()),
        (404, refusal("no")),
    ]);
    let (code, table, _) = command(&["ps"], &url);
    assert_eq!(code, 0);
    assert_eq!(table.lines().count(), 2);
    assert!(table.starts_with("NAME") && table.contains("\na\\u{7}  running    2  4.2s"), "{table}");
    let (_, shown, _) = command(&["ps", "--json"], &url);
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), serde_json::from_str::<Value>(&list).unwrap());
    let (_, shown, _) = command(&["ps", "alert"], &url);
    assert!(shown.contains("\nu_poll_handle    412 done, 0 failed\n"), "{shown}");
    assert!(shown.contains("\nversion 2        2023-11-14T22:13:20Z, 6 bytes, crc32:1, with A\n"), "{shown}");
    let (_, shown, _) = command(&["ps", "alert", "--json"], &url);
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), serde_json::from_str::<Value>(&one).unwrap());
    assert_eq!(command(&["ps", "alert"], &url), (1, String::new(), "slung: no\n".to_owned()));
    let asked: Vec<String> = seen.iter().map(|(first, _)| first).collect();
    assert_eq!(asked[1..3], ["GET /api/v1/workflows HTTP/1.1", "GET /api/v1/workflows/alert HTTP/1.1"]);
}

const LINES: &str = "{\"number\":7,\"at\":1700000000000000,\"level\":\"info\",\"from\":\"stdout\",\"text\":\"a\\u001b[1m\"}\n\n\
    {\"missed\":3}\n\
    {\"number\":11,\"at\":1700000001000000,\"level\":\"error\",\"from\":\"host\",\"text\":\"b\"}\n";
const SHOWN: &str = "2023-11-14T22:13:20Z info  stdout a\\u{1b}[1m\n2023-11-14T22:13:21Z error host   b\n";

#[test]
fn logs_are_shown_as_they_are_and_the_servers_end_is_an_error_where_they_are_followed() {
    let (url, seen) = scripted(vec![(200, LINES.to_owned()), (200, LINES.to_owned()), (404, refusal("there is none"))]);
    let missing = "slung: 3 lines are missing here: they came too fast\n";
    assert_eq!(command(&["logs", "alert"], &url), (0, SHOWN.to_owned(), missing.to_owned()));
    let (code, shown, error) = command(&["logs", "alert", "-f", "-n", "5"], &url);
    assert!(code == 1 && shown == SHOWN && error.contains("has ended the log"), "{error}");
    assert_eq!(command(&["logs", "alert"], &url), (1, String::new(), "slung: there is none\n".to_owned()));
    let asked: Vec<String> = seen.iter().map(|(first, _)| first).collect();
    let first = |lines, follow| format!("GET /api/v1/workflows/alert/log?lines={lines}&follow={follow} HTTP/1.1");
    assert_eq!(asked, [first(100, false), first(5, true), first(100, false)]);
    assert_eq!(command(&["logs", "alert", "-n", "10001"], &url).0, 2);
}

#[test]
fn ctrl_c_ends_a_followed_log_in_good_order() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut child = slung()
        .args(["logs", "alert", "--follow", "--url", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    request(&mut stream);
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n").unwrap();
    stream.write_all(LINES.as_bytes()).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let shown: String = lines.by_ref().take(2).map(|line| line.unwrap() + "\n").collect();
    assert_eq!(shown, SHOWN);
    let interrupt = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(lines.next().is_none());
}

/// The real server, and a real workflow from its first version to its end.
#[test]
fn a_workflow_is_deployed_replaced_taken_back_stopped_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &[]);
    let url = server.http_url();
    let done = |args: &[&str]| {
        let (code, shown, error) = command(args, &url);
        assert_eq!((code, error.as_str()), (0, ""), "{args:?}");
        shown
    };
    let refused = |args: &[&str]| {
        let (code, shown, error) = command(args, &url);
        assert_eq!((code, shown.as_str()), (1, ""), "{args:?}");
        error
    };
    let header = "NAME  STATE  VER  UP  RESTARTS  EVENTS  P50/P99  MEMORY  CPU\n";
    assert_eq!(done(&["ps"]), header);
    for args in
        [&["ps", "alert"][..], &["logs", "alert"], &["stop", "alert"], &["rollback", "alert"], &["remove", "alert"]]
    {
        assert_eq!(refused(args), "slung: there is no workflow alert\n", "{args:?}");
    }
    assert!(refused(&["stop", "../alert"]).contains("\"../alert\" is none"));

    let module = workflow("threshold-alert");
    let module = module.to_str().unwrap();
    let first = done(&["deploy", "alert", module]);
    assert!(first.starts_with("alert: running, version 1; it sees the events after number "), "{first}");
    let second = done(&["deploy", "alert", module, "--env", "LIMIT=a secret"]);
    assert!(second.starts_with("alert: running, version 2; it sees the events after number "), "{second}");
    let table = done(&["ps"]);
    assert!(table.lines().nth(1).is_some_and(|row| row.starts_with("alert  running    2  ")), "{table}");
    let shown = done(&["ps", "alert"]);
    assert!(shown.contains("\nversion 1        20") && shown.ends_with('\n'), "{shown}");
    assert!(shown.contains(", with LIMIT\n") && !shown.contains("secret"), "{shown}");

    // What is no workflow changes nothing.
    let file = folder.path().join("none.wasm");
    std::fs::write(&file, "(module)").unwrap();
    let told = refused(&["deploy", "alert", file.to_str().unwrap()]);
    assert!(told.starts_with("slung: ") && told.contains("alert"), "{told}");
    let shown = done(&["ps", "alert", "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["state"], &shown["version"], &shown["restarts"]), (&json!("running"), &json!(2), &json!(0)));

    assert!(done(&["rollback", "alert"]).starts_with("alert: running, version 1; "));
    assert!(refused(&["rollback", "alert", "--to", "7"]).contains("version 7"));
    assert!(done(&["rollback", "alert", "--to", "2"]).starts_with("alert: running, version 2; "));
    assert!(done(&["stop", "alert"]).starts_with("alert: stopped, version 2"));
    assert!(done(&["start", "alert"]).starts_with("alert: running, version 2; "));
    assert_eq!(done(&["remove", "alert"]), "alert: removed\n");
    assert_eq!(done(&["ps"]), header);
}
