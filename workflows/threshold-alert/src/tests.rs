//! What it sends to whom, and what it finds in the temperatures of a real machine.

use std::collections::BTreeMap;

use slung::testing::Host;

use super::*;

const MINUTE: i64 = 60_000_000;

fn watch() -> Result<()> {
    poll_handle(query_live(QUERY)?, alert, BELOW)
}

#[test]
fn a_cold_machine_is_told_and_the_others_are_not() {
    let host = Host::new();
    let (cold, warm) = (host.producer(), host.producer());
    warm.send("temperature", &["machine=2"], [(0, 80.0)]);
    cold.send("temperature", &["machine=1"], [(5 * MINUTE, 10.0)]);
    warm.send("temperature", &["machine=2"], [(10 * MINUTE, 85.0)]);
    host.run(main).unwrap();
    let alert = r#"{"alert":"below","value":45.0,"threshold":55.0,"timestamp":300000000,"tags":["machine=1"]}"#;
    assert_eq!(cold.received(), [alert]);
    assert_eq!(warm.received(), [""; 0]);
}

#[test]
fn exactly_the_threshold_is_not_below_it() {
    let host = Host::new();
    let machine = host.producer();
    machine.send("temperature", &[], [(0, BELOW)]);
    host.run(watch).unwrap();
    assert_eq!(machine.received(), [""; 0]);
}

#[test]
fn a_producer_that_is_gone_does_not_stop_it() {
    let host = Host::new();
    let (gone, there) = (host.producer(), host.producer());
    gone.disconnect();
    there.send("temperature", &[], [(0, 1.0)]);
    let alert_both = |event: Event, below| alert(Event { producers: vec![gone.id(), there.id()], ..event }, below);
    host.run(|| poll_handle(query_live(QUERY)?, alert_both, BELOW)).unwrap();
    assert_eq!(there.received().len(), 1);
    assert_eq!(host.log().len(), 1, "{:?}", host.log());
}

#[test]
fn updates_without_producers_alert_nobody() {
    let host = Host::new();
    host.send("temperature", &[], [(0, 1.0)]);
    host.run(watch).unwrap();
    assert_eq!(host.messages(), []);
}

/// The readings of an industrial machine over 79 days, with four labelled failures. Every one is seen, and 890 of the
/// 1,076 alerts belong to one of them, which is what a naive average over the file says too.
#[test]
fn every_failure_of_a_real_machine_is_seen() {
    let readings = readings();
    let host = Host::new();
    let machine = host.producer();
    machine.send("temperature", &["machine=1"], readings.iter().copied());
    host.run(main).unwrap();

    assert_eq!(readings.len(), 22_695);
    let distinct: BTreeMap<i64, f64> = readings.into_iter().collect();
    assert_eq!(host.query("COUNT:temperature:[]"), Some(distinct.len() as f64));

    let alerts: Vec<i64> = machine.received().iter().map(|alert| timestamp(alert)).collect();
    let hits = windows().map(|(start, end)| alerts.iter().filter(|at| (start..=end).contains(*at)).count());
    assert_eq!((hits, alerts.len()), ([163, 157, 52, 518], 1_076));
}

fn data(file: &str) -> String {
    let path = format!("{}/../data/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Timestamp and value of each line, in the order of the file.
fn readings() -> Vec<(i64, f64)> {
    let text = data("machine_temperature_system_failure.csv");
    let line = |line: &str| {
        let (time, value) = line.split_once(',')?;
        Some((micros(time), value.parse().ok()?))
    };
    text.lines().skip(1).map(|text| line(text).unwrap_or_else(|| panic!("no reading: {text}"))).collect()
}

/// The labelled failures, start and end.
fn windows() -> [(i64, i64); 4] {
    let mut files: BTreeMap<String, Vec<(String, String)>> = serde_json::from_str(&data("windows.json")).unwrap();
    let windows = files.remove("machine_temperature_system_failure.csv").unwrap();
    let windows: Vec<_> = windows.iter().map(|(start, end)| (micros(start), micros(end))).collect();
    windows.try_into().unwrap()
}

fn timestamp(alert: &str) -> i64 {
    serde_json::from_str::<serde_json::Value>(alert).unwrap()["timestamp"].as_i64().unwrap()
}

/// The files name no time zone: UTC.
fn micros(time: &str) -> i64 {
    let time: jiff::civil::DateTime = time.parse().unwrap();
    time.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_microsecond()
}
