//! A source that falls silent: its sliding window empties as time passes, and who follows it is told.

use serde_json::Value;

use crate::guest;
use crate::server::Server;

fn now_micros() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64
}

/// Whether the window had all five events, and is empty. On a machine that stands still between two of them it may have been
/// empty before, too.
fn is_emptied(updates: &[Value]) -> bool {
    updates.iter().any(|update| update["value"] == 5.0) && updates.last().is_some_and(|update| update["value"] == 0.0)
}

/// The update that tells of an empty window; before it came one that told of five events.
fn assert_emptied(updates: &[Value]) {
    assert!(updates.iter().any(|update| update["value"] == 5.0), "{updates:?}");
    let last = updates.last().unwrap();
    assert_eq!((&last["value"], &last["count"]), (&0.0.into(), &0.into()), "{last}");
    assert_eq!(last["producers"], Value::Array(Vec::new()), "no event has caused it");
}

#[tokio::test]
async fn a_window_that_time_has_emptied_is_told_to_a_workflow_and_to_a_watcher() {
    let folder = tempfile::tempdir().unwrap();
    let module = folder.path().join("tell.wasm");
    // Each event goes to the first producer as it came.
    let tell = "(if (local.get $event) (then (drop (call $writeback_ws (i64.const 1) (local.get $event)))))";
    guest::polling(&module, &["COUNT:temp:[sensor=1]:[1s]"], tell);
    let server = Server::start(&folder.path().join("data"), &["--workflow", &format!("tell={}", module.display())]);
    server.wait_until("it has subscribed", |server| server.metric("slung_live_handles") == 1.0);
    let mut producer = server.connect().await;
    let mut watcher = server.watch("COUNT:temp:[sensor=1]:[1s]");

    let now = now_micros();
    for index in 0..5_i64 {
        producer.event("temp", &["sensor=1"], now + index, 20.0).await;
    }
    // Connected still, and silent from here on.
    let (mut told, mut watched) = (Vec::new(), Vec::new());
    while !is_emptied(&told) {
        told.push(serde_json::from_str(&producer.message().await).unwrap());
    }
    while !is_emptied(&watched) {
        watched.push(watcher.next());
    }
    assert_emptied(&told);
    assert_emptied(&watched);
    assert_eq!(server.query("COUNT:temp:[sensor=1]:[1s]"), 0.0);
    assert_eq!(server.query("COUNT:temp:[sensor=1]"), 5.0, "history keeps them");

    // It speaks again.
    producer.event("temp", &["sensor=1"], now_micros(), 20.0).await;
    let update: Value = serde_json::from_str(&producer.message().await).unwrap();
    assert_eq!((&update["value"], &update["producers"]), (&1.0.into(), &serde_json::json!([1])));
    assert_eq!(watcher.next()["value"], 1.0);
}
