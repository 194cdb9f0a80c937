//! Readings of a real machine, with repeated and unordered times: after every thousand, each sliding window has told what a
//! historical query answers over the same range, and what plain arithmetic gives.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::server::{Server, Updates, data, run, slung};

const MINUTE: i64 = 60 * 1_000_000;

/// Operator, width as it is written, width in microseconds.
const WINDOWS: [(&str, &str, i64); 5] = [
    ("COUNT", "5m", 5 * MINUTE),
    ("MIN", "1h", 60 * MINUTE),
    ("MAX", "6h", 6 * 60 * MINUTE),
    ("AVG", "1d", 24 * 60 * MINUTE),
    ("SUM", "1w", 7 * 24 * 60 * MINUTE),
];

/// The readings as they stand in the file: microseconds since 1970, value.
pub(crate) fn readings() -> Vec<(i64, f64)> {
    let text = std::fs::read_to_string(data("machine_temperature_system_failure.csv")).unwrap();
    let reading = |line: &str| {
        let (time, value) = line.split_once(',').unwrap();
        let time: jiff::Timestamp = format!("{time}Z").parse().unwrap();
        (time.as_microsecond(), value.parse().unwrap())
    };
    text.lines().skip(1).map(reading).collect()
}

/// What the operator gives, and how far an answer may be from it.
fn computed(op: &str, values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let sum: f64 = values.iter().sum();
    let rounding = 1e-12 * values.iter().map(|value| value.abs()).sum::<f64>();
    match op {
        "COUNT" => (count, 0.0),
        "MIN" => (values.iter().copied().fold(f64::INFINITY, f64::min), 0.0),
        "MAX" => (values.iter().copied().fold(f64::NEG_INFINITY, f64::max), 0.0),
        "AVG" => (sum / count, rounding / count),
        "SUM" => (sum, rounding),
        other => unreachable!("{other}"),
    }
}

/// The value after the event of that time, past updates that only the passing of time has caused.
fn value_at(updates: &mut Updates, timestamp: i64) -> f64 {
    loop {
        let update = updates.next();
        if update["timestamp"] == timestamp && update["producers"] != Value::Array(Vec::new()) {
            return update["value"].as_f64().unwrap();
        }
    }
}

fn assert_near(told: f64, expected: f64, tolerance: f64, what: &str) {
    let same =
        if tolerance == 0.0 { told.to_bits() == expected.to_bits() } else { (told - expected).abs() <= tolerance };
    assert!(same, "{what}: {told} and {expected} differ by more than {tolerance}");
}

#[tokio::test]
async fn sliding_windows_tell_what_history_answers_over_the_same_range() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let readings = readings();
    assert_eq!(readings.len(), 22_695);
    let mut live = WINDOWS.map(|(op, width, _)| server.watch(&format!("{op}:temperature:[machine=1]:[{width}]")));
    assert_eq!(server.metric("slung_live_handles"), 5.0);

    let mut producer = server.connect().await;
    let mut stored = BTreeMap::new();
    let (mut unordered, mut compared) = (0, 0);
    let mut newest = i64::MIN;
    let mut batches = readings.chunks(1_000).peekable();
    while let Some(batch) = batches.next() {
        for &(timestamp, value) in batch {
            producer.event("temperature", &["machine=1"], timestamp, value).await;
            unordered += usize::from(timestamp < newest);
            newest = newest.max(timestamp);
            stored.insert(timestamp, value);
        }
        let last = batch.last().unwrap().0;
        assert!(last == newest && batch.iter().filter(|(at, _)| *at == last).count() == 1, "an update shows its event");
        for ((op, width, micros), updates) in WINDOWS.into_iter().zip(&mut live) {
            let what = format!("{op} over {width} after {} readings", stored.len());
            let told = value_at(updates, newest);
            let query = format!("{op}:temperature:[machine=1]:[{},{newest}]", newest - micros);
            let values: Vec<f64> = stored.range(newest - micros..=newest).map(|(_, value)| *value).collect();
            let (expected, tolerance) = computed(op, &values);
            assert_near(told, server.query(&query).as_f64().unwrap(), tolerance, &format!("{what}, live and history"));
            assert_near(told, expected, tolerance, &format!("{what}, live and computed"));
            if batches.peek().is_none() {
                let output = run(slung().args(["query", &query, "--url", &server.http_url()]));
                let answer = String::from_utf8(output.stdout).unwrap();
                assert_near(told, answer.trim().parse().unwrap(), tolerance, &format!("{what}, live and the command"));
            }
            compared += 1;
        }
    }
    assert_eq!((compared, unordered, stored.len()), (23 * 5, 11, 22_683));
}
