//! The commands besides `serve`, run as a person would.

use std::io::Write;
use std::process::Stdio;

use crate::server::{Server, data, run, slung, workflow};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn csv_goes_in_and_the_query_command_gets_it_out() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let readings = data("machine_temperature_system_failure.csv");
    let output = run(slung().arg("write").arg(&readings).args([
        "--series",
        "temperature",
        "--tag",
        "machine=1",
        "--wait",
        "0",
        "--url",
        &server.ws_url(),
    ]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("22695 events sent"), "{}", text(&output.stderr));
    // The file repeats twelve timestamps: one point per series and timestamp is kept.
    server.wait_until("all is stored", |server| server.query("COUNT:temperature:[machine=1]") == 22_683.0);

    let query = |args: &[&str]| run(slung().arg("query").args(args).args(["--url", &server.http_url()]));
    let output = query(&["COUNT:temperature:[]"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("22683\n", Some(0)));
    let output = query(&["AVG:temperature:[machine=2]"]);
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("null\n", Some(0)));
    let output = query(&["COUNT:temperature:[]", "--step", "4 weeks"]);
    // Stretches of four weeks since 1970 begin on these Thursdays.
    let starts = ["2013-11-07", "2013-12-05", "2014-01-02", "2014-01-30"];
    let weeks = starts.iter().zip([609, 8_064, 8_064, 5_946]).map(|(day, count)| format!("{day}T00:00:00Z {count}\n"));
    let weeks = weeks.collect::<String>();
    assert_eq!((text(&output.stdout), output.status.code()), (weeks, Some(0)));
    assert_eq!(query(&["COUNT:temperature:[]", "--step", "4"]).status.code(), Some(2));
    let output = query(&["MAX:temperature:[]", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["value"], 108.510_542_800_000_01);
    let output = query(&["MAX:temperature"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("byte"), "{}", text(&output.stderr));
}

#[test]
fn lines_from_stdin_are_sent_as_they_come_and_a_bad_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let mut child = slung()
        .args(["write", "-", "--wait", "0", "--url", &server.ws_url()])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, r#"{{"timestamp":1700000000000000,"value":1.5,"series":"s","tags":["a=1"]}}"#).unwrap();
    stdin.flush().unwrap();
    server.wait_until("the line is stored while stdin stays open", |server| server.query("COUNT:s:[a=1]") == 1.0);
    writeln!(stdin, "not json").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("line 2") && error.contains("1 event"), "{error}");
}

#[test]
fn events_are_paced_by_their_own_times() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let file = folder.path().join("three.csv");
    std::fs::write(&file, "timestamp,value\n2024-01-01T00:00:00Z,1\n2024-01-01T00:00:01Z,2\n2024-01-01T00:00:02Z,3\n")
        .unwrap();
    let started = std::time::Instant::now();
    let output = run(slung().arg("write").arg(&file).args(["--speed", "4x", "--wait", "0", "--url", &server.ws_url()]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(started.elapsed().as_millis() >= 500, "two seconds at 4x take half a second");
    server.wait_until("all is stored", |server| server.query("SUM:value:[]") == 6.0);
}

#[test]
fn nobody_listening_is_said_in_plain_words() {
    // A port that was free a moment ago.
    let addr = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (ws, http) = (format!("ws://{addr}/"), format!("http://{addr}"));
    for args in [&["write", "--url", &ws][..], &["query", "a:[]", "--url", &http], &["live", "a:[]", "--url", &http]] {
        let output = run(slung().args(args));
        assert_eq!(output.status.code(), Some(1));
        let error = text(&output.stderr);
        assert!(error.contains(&addr) && error.contains("slung serve"), "{error}");
    }
}

#[test]
fn check_says_what_a_module_is_or_what_is_wrong_with_it() {
    for name in ["threshold-alert", "anomaly", "webhook"] {
        let output = run(slung().arg("check").arg(workflow(name)));
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("u_poll_handle"), "{}", text(&output.stdout));
    }
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.wasm");
    let module = wat::parse_str(
        r#"(module (import "env" "u_query_all" (func (param i32))) (func (export "call") (result i64) i64.const 0))"#,
    );
    std::fs::write(&bad, module.unwrap()).unwrap();
    let output = run(slung().arg("check").arg(&bad));
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    for part in ["u_query_all", "memory", "allocate", "call"] {
        assert!(error.contains(part), "{part} is missing in {error}");
    }
    std::fs::write(&bad, "no wasm").unwrap();
    assert_eq!(run(slung().arg("check").arg(&bad)).status.code(), Some(1));
}

#[test]
fn the_demo_finds_the_failures_and_ends_by_itself() {
    let folder = workflow("threshold-alert");
    let output = run(slung()
        .arg("demo")
        .arg("--workflows")
        .arg(folder.parent().unwrap())
        .arg("--data")
        .arg(data("machine_temperature_system_failure.csv")));
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", text(&output.stderr));
    for part in ["22695", "22683", "4 of 4", "p99"] {
        assert!(shown.contains(part), "{part} is missing in:\n{shown}");
    }
}

#[test]
fn a_data_directory_is_used_by_one_server_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Server::start(folder.path(), &[]);
    let output = run(slung().args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path()));
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains(&folder.path().display().to_string()), "{error}");
}
