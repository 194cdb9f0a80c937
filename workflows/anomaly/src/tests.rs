//! What it takes for usual, how far it says that something is from it, and that it does not feed itself.

use slung::testing::Host;

use super::*;

/// So many values of mean 10 and variance 1, a second apart.
fn steady(count: i64) -> impl Iterator<Item = (i64, f64)> {
    (0..count).map(|second| (second * 1_000_000, if second % 2 == 0 { 9.0 } else { 11.0 }))
}

fn scores(host: &Host) -> Vec<f64> {
    host.written().iter().map(|event| event.value).collect()
}

#[test]
fn an_outlier_is_scored_by_its_distance_in_standard_deviations() {
    let host = Host::new();
    host.send("temperature", &["machine=1"], steady(30).chain([(30_000_000, 20.0)]));
    host.run(main).unwrap();
    let written = host.written();
    let [score] = &written[..] else { panic!("{written:?}") };
    assert!((score.value - 10.0).abs() < 1e-9, "{}", score.value);
    assert_eq!((score.series.as_str(), score.timestamp), ("temperature.anomaly", 30_000_000));
    assert_eq!(score.tags, ["machine=1"]);
}

#[test]
fn history_is_usual_from_the_first_event_on() {
    let host = Host::new();
    host.store("temperature", &[], steady(1_000));
    host.send("temperature", &[], [(1_000_000_000, 12.0)]);
    host.run(main).unwrap();
    assert_eq!(scores(&host), [4.0], "the range is 2, a quarter of it the standard deviation");
}

#[test]
fn what_it_writes_does_not_come_back_to_it() {
    let host = Host::new();
    host.store("temperature", &[], steady(1_000));
    host.send("temperature", &[], [(1_000_000_000, 12.0), (1_001_000_000, 12.0)]);
    host.run(main).unwrap();
    assert_eq!(scores(&host).len(), 2, "one score for each event, none for a score");
    assert_eq!(host.query("COUNT:temperature:[]"), Some(1_002.0));
    assert_eq!(host.query("COUNT:temperature.anomaly:[]"), Some(2.0));
}

#[test]
fn nothing_is_said_about_what_never_changed() {
    let host = Host::new();
    host.send("temperature", &[], (0..100).map(|second| (second * 1_000_000, 20.0)).chain([(100_000_000, 99.0)]));
    host.run(main).unwrap();
    assert_eq!(scores(&host).len(), 0);
}

#[test]
fn only_the_tags_that_were_asked_for_are_watched() {
    let host = Host::new();
    host.store("load", &["machine=1"], steady(1_000));
    host.send("load", &["machine=2"], [(1_000_000_000, 1_000.0)]);
    host.send("load", &["machine=1"], [(1_000_000_000, 10.0)]);
    host.run(|| watch("load", "machine=1 AND NOT idle")).unwrap();
    assert_eq!(scores(&host), [0.0]);
}

#[test]
fn an_event_whose_score_can_not_be_written_does_not_stop_it() {
    let host = Host::new();
    host.store("temperature", &[], steady(1_000));
    host.send("temperature", &["a,b"], [(1_000_000_000, 12.0)]);
    host.send("temperature", &["series=temperature"], [(1_001_000_000, 12.0)]);
    host.send("temperature", &["c"], [(1_002_000_000, 12.0)]);
    host.run(main).unwrap();
    assert_eq!(host.written().iter().map(|event| &event.tags[..]).collect::<Vec<_>>(), [["c"]]);
}

#[test]
fn mean_and_variance_are_exact_at_the_start() {
    let values = [3.0, -1.0, 4.0, 1.5, 9.25];
    let mut usual = Usual { events: 0.0, mean: 0.0, variance: 0.0 };
    values.into_iter().for_each(|value| usual.learn(value));
    let mean = values.iter().sum::<f64>() / 5.0;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 5.0;
    assert!((usual.mean - mean).abs() < 1e-12 && (usual.variance - variance).abs() < 1e-12);
}

#[test]
fn what_lasts_becomes_usual() {
    let mut usual = Usual { events: 1_000.0, mean: 10.0, variance: 1.0 };
    assert_eq!(usual.score(60.0), Some(50.0));
    (0..1_000).for_each(|_| usual.learn(60.0));
    assert!(usual.score(60.0).unwrap().abs() < 0.1);
}
