//! A workflow that writes into its own live query: the operator is told once, and it takes no more than its share.

use std::time::Instant;

use crate::guest;
use crate::server::Server;

const AT: i64 = 1_700_000_000_000_000;

/// Events that the workflow may write in a second.
const PER_SECOND_MAX: u32 = 100;

#[tokio::test]
async fn a_workflow_that_feeds_itself_is_told_of_once_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    // Two events for each update that there is, so that there are ever more; and two where there is none, for a second.
    let write = "(drop (call $write_event (i32.const 2048) (i32.const 3072) (i32.const 4096)))".repeat(2);
    let texts = [":temp:[sensor=1 OR of=loop]", "1700000000000000", "1.5", "series=temp,of=loop"];
    guest::polling(&folder.path().join("loop.wasm"), &texts, &write);
    let config = folder.path().join("slung.toml");
    let section = format!("[workflows.round]\nfile = \"loop.wasm\"\nwrites_per_second_max = {PER_SECOND_MAX}\n");
    std::fs::write(&config, section).unwrap();
    let started = Instant::now();
    let server = Server::start(&folder.path().join("data"), &["--config", config.to_str().unwrap()]);
    server.wait_until("it has subscribed", |server| server.metric("slung_live_handles") == 1.0);

    let mut producer = server.connect().await;
    producer.event("temp", &["sensor=1"], AT, 20.0).await;
    let line = server.wait_for_log("own live query");
    for part in ["WARN", "workflow round", "temp{of=loop}", " temp:[sensor=1 OR of=loop] ", "under a name or tag"] {
        assert!(line.contains(part), "{part} is missing in {line}");
    }

    // It goes round and round, and others come through: what it reads, and what it does not.
    for index in 1..5_000 {
        producer.event("temp", &["sensor=1"], AT + index, 20.0).await;
        producer.event("other", &[], AT + index, 20.0).await;
    }
    server.wait_until("others are stored", |server| server.query("COUNT:other:[]") == 4_999.0);
    assert_eq!(server.query("COUNT:temp:[sensor=1]"), 5_000.0);
    let written = r#"slung_workflow_calls_total{workflow="round",function="u_write_event",outcome="ok"}"#;
    server.wait_until("its burst is over, and it writes on", |server| {
        server.metric(written) >= 2.5 * f64::from(PER_SECOND_MAX)
    });
    let written = server.metric(written);
    let seconds = started.elapsed().as_secs_f64();
    assert!(written <= f64::from(PER_SECOND_MAX) * (1.0 + seconds), "{written} events in {seconds} s");
    assert!(server.metric("slung_workflow_writes_refused_total") > 0.0, "it has tried to write more");
    assert_eq!(server.get("/health").0, 200);

    let log = server.log();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("own live query"), 1, "{log}");
    let refused = "u_write_event failed: too many events: it may write 100 a second (`writes_per_second_max`)";
    // A reason that repeats is logged again after a minute.
    assert!((1..=1 + seconds as usize / 60).contains(&lines(refused)), "{log}");
    assert_eq!(lines("u_write_event failed"), lines(refused), "{log}");
    assert!(server.terminate().success());
}
