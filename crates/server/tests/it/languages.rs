//! The same workflow in two languages: what one tells a producer, the other one tells it too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::nab::readings;
use crate::server::{Server, workflow};

/// Writes the configuration of `threshold-alert` in Rust and in C with these variables. `None`, and says so, where there was no
/// clang to build the one in C.
#[expect(clippy::print_stderr, reason = "a test that can't be run says so")]
fn both(folder: &Path, env: &[(&str, &str)]) -> Option<String> {
    let rust = workflow("threshold-alert");
    let c: PathBuf = rust.with_file_name("threshold-alert-c.wasm");
    if !c.exists() {
        eprintln!("not tested: {} was not built", c.display());
        return None;
    }
    let mut text = String::new();
    for (name, file) in [("in-rust", rust), ("in-c", c)] {
        text += &format!("[workflows.{name}]\nfile = {file:?}\n[workflows.{name}.env]\n");
        for (variable, value) in env {
            text += &format!("{variable} = {value:?}\n");
        }
    }
    let path = folder.join("slung.toml");
    std::fs::write(&path, text).unwrap();
    Some(path.to_str().unwrap().to_owned())
}

/// An alert, with its two floats apart: how they are written is each language's own.
fn parsed(alert: &str) -> (f64, f64, Value) {
    let mut alert: Value = serde_json::from_str(alert).unwrap_or_else(|error| panic!("{error}: {alert}"));
    let mut number = |field| alert[field].take().as_f64().unwrap();
    (number("value"), number("threshold"), alert)
}

/// 400 readings of a real machine, of which 51 come to an average below the threshold.
#[tokio::test]
async fn the_workflow_in_c_alerts_as_the_one_in_rust() {
    let folder = tempfile::tempdir().unwrap();
    let query = ("ALERT_QUERY", "AVG:temperature:[]:[1h]");
    let Some(config) = both(folder.path(), &[query, ("ALERT_BELOW", "55.0625")]) else { return };
    let server = Server::start(&folder.path().join("data"), &["--config", &config]);
    server.wait_until("both have subscribed", |server| server.metric("slung_live_handles") == 2.0);
    let mut producer = server.connect().await;
    // Sorted, as an event names them.
    let tags = ["back=\\", "brackets=]}[{", "machine=1", "quote=\"", "ü=\u{1f321}"];
    let readings = &readings()[16_000..16_400];
    for (time, value) in readings {
        producer.event("temperature", &tags, *time, *value).await;
    }
    // One that is alerted for certain is the last.
    let last = readings[399].0 + 1;
    producer.event("temperature", &["last"], last, -1e300).await;

    let mut alerts: BTreeMap<i64, Vec<(f64, f64, Value)>> = BTreeMap::new();
    while alerts.get(&last).is_none_or(|both| both.len() < 2) {
        let alert = parsed(&producer.message().await);
        alerts.entry(alert.2["timestamp"].as_i64().unwrap()).or_default().push(alert);
    }
    assert!(alerts.len() > 30, "{} alerts", alerts.len());
    for both in alerts.values() {
        assert_eq!((both.len(), &both[0]), (2, both.last().unwrap()));
    }
    let (value, threshold, rest) = &alerts.values().next().unwrap()[0];
    assert!(*value < 55.0625 && *threshold == 55.0625);
    assert_eq!((&rest["alert"], &rest["tags"]), (&"below".into(), &tags.map(Value::from).to_vec().into()));
    assert!(producer.has_nothing_waiting().await);
    server.wait_until("both still run", |server| server.metric("slung_live_handles") == 2.0);
}

#[test]
fn what_is_no_number_is_refused_in_both() {
    for wrong in ["warm", "", " 55", "0x37", "55 "] {
        let folder = tempfile::tempdir().unwrap();
        let Some(config) = both(folder.path(), &[("ALERT_BELOW", wrong)]) else { return };
        let server = Server::start(&folder.path().join("data"), &["--config", &config]);
        server.wait_until("both have said so", |server| {
            let log = server.log();
            let said =
                |name: &str| log.lines().any(|line| line.contains(name) && line.contains("ALERT_BELOW is no number"));
            said("in-rust") && said("in-c")
        });
    }
}
