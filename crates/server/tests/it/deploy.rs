//! Workflows that are deployed to the real server: replaced while events come in, rolled back, kept over `kill -9` at any
//! moment, with their settings and secrets.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::server::{Producer, Server, workflow};

const AT: i64 = 1_700_000_000_000_000;
/// Deploys of the ordinary test; the long one has a thousand.
const REPLACED: u64 = 30;
const REPLACED_LONG: u64 = 1_000;
/// Kills of the ordinary test.
const KILLED: u32 = 12;
const KILLED_LONG: u32 = 200;

impl Server {
    /// A request that changes something, and what the server says.
    fn change(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let mut request = format!(
            "{method} /api/v1/workflows/{path} HTTP/1.1\r\nHost: {0}\r\nConnection: close\r\nContent-Length: {1}\r\n\r\n",
            self.addr(),
            body.len()
        )
        .into_bytes();
        request.extend(body);
        let (status, body) = crate::server::http(self.addr(), request);
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status}: {body}")))
    }

    /// Deploys `threshold-alert`, which then alerts of every event of that query below the threshold.
    fn deploy_alert(&self, name: &str, query: &str, below: u64) -> Value {
        let module = std::fs::read(workflow("threshold-alert")).unwrap();
        let query = crate::server::percent_encoded(query);
        let path = format!("{name}?env=ALERT_QUERY={query}&env=ALERT_BELOW={below}");
        let (status, said) = self.change("PUT", &path, &module);
        assert!(status == 200 || status == 201, "{status}: {said}");
        said
    }

    fn status(&self, name: &str) -> Value {
        let (status, body) = self.get(&format!("/api/v1/workflows/{name}"));
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

/// The next alert: which event it is about, and by what threshold.
async fn alert(producer: &mut Producer) -> (i64, u64) {
    let message: Value = serde_json::from_str(&producer.message().await).unwrap();
    (message["timestamp"].as_i64().unwrap(), message["threshold"].as_f64().unwrap() as u64)
}

#[tokio::test]
async fn deployed_rolled_back_stopped_and_started_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &[]);
    let said = server.deploy_alert("alert", "temp:[]", 10);
    assert_eq!((&said["version"], &said["state"], &said["configured"]), (&1.into(), &"running".into(), &false.into()));
    let mut producer = server.connect().await;
    producer.event("temp", &["a"], AT, 5.0).await;
    assert_eq!(alert(&mut producer).await, (AT, 10));
    let said = server.deploy_alert("alert", "temp:[]", 20);
    assert_eq!((&said["version"], &said["sees_after"]), (&2.into(), &1.into()), "one event came before");
    assert_eq!(said["versions"][0]["env"], serde_json::json!(["ALERT_BELOW", "ALERT_QUERY"]));
    producer.event("temp", &["a"], AT + 1, 15.0).await;
    assert_eq!(alert(&mut producer).await, (AT + 1, 20));
    server.kill();

    let server = Server::start(&data, &[]);
    server.wait_until("it runs again", |server| server.metric("slung_live_handles") == 1.0);
    let mut producer = server.connect().await;
    producer.event("temp", &["a"], AT + 2, 15.0).await;
    assert_eq!(alert(&mut producer).await, (AT + 2, 20));
    let (status, said) = server.change("POST", "alert/rollback", b"");
    assert_eq!((status, &said["version"]), (200, &1.into()), "{said}");
    producer.event("temp", &["a"], AT + 3, 5.0).await;
    assert_eq!(alert(&mut producer).await, (AT + 3, 10));
    let (status, said) = server.change("POST", "alert/stop", b"");
    assert_eq!((status, &said["state"]), (200, &"stopped".into()), "{said}");
    assert!(server.terminate().success());

    let server = Server::start(&data, &[]);
    assert_eq!(server.status("alert")["state"], "stopped");
    let (status, said) = server.change("POST", "alert/start", b"");
    assert_eq!((status, &said["state"], &said["version"]), (200, &"running".into(), &1.into()), "{said}");
    let (status, _) = server.change("DELETE", "alert", b"");
    assert_eq!(status, 200);
    assert_eq!(server.get("/api/v1/workflows/alert").0, 404);
    assert_eq!(server.metric("slung_live_handles"), 0.0);
}

/// Every event is answered once, in order, by the version that was there when it came.
async fn replace(times: u64) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("slung.toml");
    // However long the machine takes for the hand-over, nothing is dropped for want of room.
    std::fs::write(&config, "[workflows.alert]\nqueue_updates_max = 1000000\n").unwrap();
    let server = Server::start(&folder.path().join("data"), &["--config", config.to_str().unwrap()]);
    server.deploy_alert("alert", "temp:[]", 1_000);
    let mut producer = server.connect().await;
    let (done, mut is_done) = tokio::sync::watch::channel(false);
    let deploying = tokio::task::spawn_blocking(move || {
        let mut sees_after = vec![0];
        for time in 1..=times {
            let said = server.deploy_alert("alert", "temp:[]", 1_000 + time);
            assert_eq!(said["version"].as_u64(), Some(1 + time));
            sees_after.push(said["sees_after"].as_u64().unwrap());
        }
        done.send_replace(true);
        (server, sees_after)
    });
    let (mut sent, mut seen) = (0_u64, Vec::new());
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !*is_done.borrow_and_update() {
        pace.tick().await;
        for _ in 0..8 {
            producer.event("temp", &["a"], AT + sent as i64, 1.0).await;
            sent += 1;
        }
        for _ in 0..8 {
            seen.push(alert(&mut producer).await);
        }
    }
    let (server, sees_after) = deploying.await.unwrap();
    assert!(producer.has_nothing_waiting().await, "nothing is answered twice");
    assert_eq!(seen.len() as u64, sent, "everything is answered");
    for (number, (timestamp, threshold)) in seen.iter().enumerate() {
        let number = number as u64 + 1;
        assert_eq!(*timestamp, AT + number as i64 - 1, "in order");
        // Numbers of events begin with 1, and nobody else writes.
        let version = sees_after.iter().rposition(|after| number > *after).unwrap() as u64;
        assert_eq!(*threshold, 1_000 + version, "event {number} with versions after {sees_after:?}");
    }
    let checksum: i64 = seen.iter().map(|(timestamp, _)| timestamp - AT).sum();
    assert_eq!(checksum, (sent * (sent - 1) / 2) as i64);
    assert_eq!(server.metric("slung_workflow_events_total"), sent as f64);
    assert_eq!(server.metric("slung_workflow_dropped_total"), 0.0);
    assert_eq!(server.metric("slung_live_handles"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workflow_is_replaced_under_load() {
    replace(REPLACED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; part of `cargo xtask test --long`"]
async fn a_workflow_is_replaced_a_thousand_times_under_load() {
    replace(REPLACED_LONG).await;
}

/// Kills the server at a moment of a deploy, a later one each time: one of the two versions runs afterwards.
fn kill_in_the_middle(times: u32) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &[]);
    let begin = std::time::Instant::now();
    server.deploy_alert("alert", "temp:[]", 1_000);
    let whole = begin.elapsed();
    server.kill();
    let (mut current, mut kept, mut replaced) = (1, 0, 0);
    for time in 0..times {
        let server = Server::start(&data, &[]);
        let addr = server.addr();
        let next = 1_000 + u64::from(time) + 1;
        let deploying = std::thread::spawn(move || {
            let module = std::fs::read(workflow("threshold-alert")).unwrap();
            let mut request = format!(
                "PUT /api/v1/workflows/alert?env=ALERT_BELOW={next} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\
                 Content-Length: {}\r\n\r\n",
                module.len()
            )
            .into_bytes();
            request.extend(module);
            use std::io::{Read, Write};
            // Whatever becomes of the connection: the server is killed.
            let Ok(mut stream) = std::net::TcpStream::connect(addr) else { return };
            let _ = stream.write_all(&request);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let deploying = if time + 1 == times {
            // The last one is done, however slow the machine is.
            deploying.join().unwrap();
            None
        } else {
            std::thread::sleep(whole.mul_f64(1.25 * f64::from(time) / f64::from(times)));
            Some(deploying)
        };
        server.kill();
        if let Some(deploying) = deploying {
            deploying.join().unwrap();
        }

        let server = Server::start(&data, &[]);
        server.wait_until("a version runs", |server| server.status("alert")["state"] == "running");
        server.wait_until("it has subscribed", |server| server.metric("slung_live_handles") == 1.0);
        let status = server.status("alert");
        let version = status["version"].as_u64().unwrap();
        match version - current {
            0 => kept += 1,
            1 => replaced += 1,
            _ => panic!("version {version} after {current}"),
        }
        current = version;
        // What lies there is what is named: nothing of what was not finished.
        let files = std::fs::read_dir(data.join("workflows/alert")).unwrap().count();
        assert_eq!(files, 1 + status["versions"].as_array().unwrap().len());
        server.kill();
    }
    assert_eq!(kept + replaced, times);
    assert!(kept > 0 && replaced > 0, "{kept} were killed before it counted, {replaced} after");
}

#[test]
fn a_kill_during_a_deploy_leaves_one_of_the_two_versions() {
    kill_in_the_middle(KILLED);
}

#[test]
#[ignore = "takes minutes; part of `cargo xtask test --long`"]
fn kills_during_deploys_at_many_moments() {
    kill_in_the_middle(KILLED_LONG);
}

#[test]
fn what_is_no_workflow_is_refused_with_the_reason_and_the_old_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &[]);
    server.deploy_alert("alert", "temp:[]", 10);
    let refused = |module: &[u8], query: &str| {
        let (status, said) = server.change("PUT", &format!("alert{query}"), module);
        assert_eq!(status, 422, "{said}");
        said["error"]["message"].as_str().unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    assert!(refused(b"no module", "").contains("no WebAssembly module"));
    let unknown = wat::parse_str(r#"(module (import "env" "u_format_disk" (func)))"#).unwrap();
    let said = refused(&unknown, "");
    assert!(said.contains("u_format_disk") && said.contains("memory"), "all that is wrong: {said}");
    let module = std::fs::read(workflow("threshold-alert")).unwrap();
    let said = refused(&module, "?env=ALERT_BELOW=much");
    assert!(said.contains("before its first poll") && said.contains("ALERT_BELOW is no number"), "{said}");
    assert_eq!(server.status("alert")["version"], 1);
    assert_eq!(server.status("alert")["state"], "running");
}

#[tokio::test]
async fn settings_and_secrets_of_the_configuration_hold_for_what_is_deployed() {
    let folder = tempfile::tempdir().unwrap();
    let config = |text: &str| {
        let path = folder.path().join("slung.toml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    std::fs::write(folder.path().join("below"), "31337\n").unwrap();
    let text = "[workflows.alert]\nsecrets = { ALERT_BELOW = { file = \"below\" } }\n";
    let server = Server::start(&folder.path().join("data"), &["--config", &config(text)]);
    let said = server.deploy_alert("alert", "temp:[]", 10);
    let mut producer = server.connect().await;
    producer.event("temp", &["a"], AT, 5.0).await;
    assert_eq!(alert(&mut producer).await, (AT, 31_337), "the secret goes before what it was deployed with");
    let all = server.get("/api/v1/workflows").1 + &server.get("/metrics").1 + &server.log() + &said.to_string();
    assert!(!all.contains("31337"), "it is never shown");
    let kept = std::fs::read_to_string(folder.path().join("data/workflows/alert/deployment.json")).unwrap();
    assert!(!kept.contains("31337"), "nor kept");

    // Where it is not there, nothing is changed, and the reason is told.
    std::fs::remove_file(folder.path().join("below")).unwrap();
    let module = std::fs::read(workflow("threshold-alert")).unwrap();
    let (status, said) = server.change("PUT", "alert", &module);
    assert_eq!(status, 422, "{said}");
    assert!(said.to_string().contains("the secret ALERT_BELOW: "), "{said}");
    producer.event("temp", &["a"], AT + 1, 5.0).await;
    assert_eq!(alert(&mut producer).await, (AT + 1, 31_337));
}

#[test]
fn the_data_directory_of_workflows_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &[]);
    server.deploy_alert("alert", "temp:[]", 10);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for (path, expected) in [("cache", 0o700), ("workflows/alert", 0o700), ("workflows/alert/1.wasm", 0o600)] {
        assert_eq!(mode(&data.join(path)), expected, "{path}");
    }
    assert!(
        std::fs::read_dir(data.join("cache")).unwrap().count() > 0,
        "what was compiled in the other process is there"
    );
}

/// A log that is followed has the lines of all versions, and ends with the workflow.
#[test]
fn a_followed_log_goes_on_over_versions_and_ends_with_the_workflow() {
    use std::io::{BufRead, BufReader, Write};
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &[]);
    server.deploy_alert("alert", "temp:[]", 10);
    let mut stream = std::net::TcpStream::connect(server.addr()).unwrap();
    stream.set_read_timeout(Some(crate::server::PATIENCE)).unwrap();
    // HTTP/1.0 has no chunks.
    stream.write_all(b"GET /api/v1/workflows/alert/log?follow=true HTTP/1.0\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut until = |text: &str| {
        let found = lines.find(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("no line has {text:?}"))
    };
    until("version 1 runs, and sees the events after number 0");
    server.deploy_alert("alert", "temp:[]", 20);
    until("version 2 runs");
    server.change("POST", "alert/stop", b"");
    until("\"text\":\"stopped\"");
    server.change("DELETE", "alert", b"");
    assert_eq!(lines.filter(|line| !line.is_empty()).count(), 0, "it ends");
}

#[test]
fn what_takes_too_long_to_compile_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("slung.toml");
    std::fs::write(&config, "[host]\ncompile_timeout = \"300ms\"\n").unwrap();
    let server = Server::start(&folder.path().join("data"), &["--config", config.to_str().unwrap()]);
    // Each loop lies in the one before: 60 KB that keep the compiler busy for half a minute.
    let (begin, end) = ("(loop ".repeat(20_000), ")".repeat(20_000));
    let nested = wat::parse_str(format!(
        r#"(module (memory (export "memory") 1)
            (func (export "allocate") (param i32) (result i32) (i32.const 0))
            (func (export "deallocate") (param i32))
            (func (export "call") (result i32) (i32.const 0))
            (func {begin}{end}))"#
    ));
    let nested = nested.unwrap();
    let (status, said) = server.change("PUT", "-nasty", &nested);
    assert_eq!(status, 422, "{said}");
    let said = said["error"]["message"].as_str().unwrap();
    assert!(said.contains("longer to compile than 0.3 s (`compile_timeout`)"), "{said}");
    assert_eq!(server.get("/api/v1/workflows").0, 200);
}
