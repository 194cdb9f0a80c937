//! The commands besides `serve`, run as a person would.

use std::io::{BufRead, BufReader, Write};
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
    assert!(text(&output.stderr).contains("22695 events acknowledged in "), "{}", text(&output.stderr));
    // At once, as acknowledged is what queries see. The file repeats twelve timestamps: one point per series and timestamp
    // is kept.
    assert_eq!(server.query("COUNT:temperature:[machine=1]"), 22_683.0);

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
    assert!(error.contains("line 2") && error.contains("1 event acknowledged in "), "{error}");
}

/// The others of its message are stored, and so is what comes after.
#[test]
fn refused_events_are_told_with_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let file = folder.path().join("events.csv");
    let mut csv = std::fs::File::create(&file).unwrap();
    writeln!(csv, "timestamp,value").unwrap();
    for index in 0..5_000_u32 {
        let year = if index % 250 == 111 { 2100 } else { 2024 };
        let (minute, second) = (index / 60 % 60, index % 60);
        writeln!(csv, "{year}-01-01T{:02}:{minute:02}:{second:02}Z,{index}", index / 3_600).unwrap();
        // Blank lines are no events.
        write!(csv, "{}", if index == 1_000 { "\n\n" } else { "" }).unwrap();
    }
    drop(csv);
    let output = run(slung().arg("write").arg(&file).args(["--wait", "0", "--url", &server.ws_url()]));
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    for part in ["line 113 is refused", "line 1115 is refused", "ahead of the server's clock"] {
        assert!(error.contains(part), "{part} is missing in:\n{error}");
    }
    assert!(error.contains("4980 events acknowledged in ") && error.contains(", 20 refused"), "{error}");
    assert!(error.ends_with("the server has refused 20 events\n"), "{error}");
    assert_eq!(server.query("COUNT:value:[]"), 4_980.0);
}

#[test]
fn what_workflows_answer_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("slung.toml");
    let env = "ALERT_QUERY = \"AVG:value:[]:[1h]\"\nALERT_BELOW = \"10\"\n";
    let alert = format!("[workflows.alert]\nfile = {:?}\n[workflows.alert.env]\n{env}", workflow("threshold-alert"));
    std::fs::write(&config, alert).unwrap();
    let server = Server::start(&folder.path().join("data"), &["--config", config.to_str().unwrap()]);
    server.wait_until("it has subscribed", |server| server.metric("slung_live_handles") == 1.0);
    let mut child = slung()
        .args(["write", "-", "--wait", "0", "--url", &server.ws_url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "timestamp,value\n2024-01-01,5").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("\"value\":5") && line.ends_with('\n'), "{line}");
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_interrupted_write_tells_what_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let mut child = slung()
        .args(["write", "-", "--wait", "0", "--url", &server.ws_url()])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "timestamp,value\n1700000000000000,1\n1700000000000001,2").unwrap();
    stdin.flush().unwrap();
    server.wait_until("both are stored", |server| server.query("COUNT:value:[]") == 2.0);
    assert!(run(std::process::Command::new("kill").args(["-INT", &child.id().to_string()])).status.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("2 events acknowledged in ") && error.contains("interrupted"), "{error}");
    drop(stdin);
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
