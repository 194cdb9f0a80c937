//! When it posts, what it posts, and what it does about the response.

use slung::testing::Host;

use super::*;

const URL: &str = "https://plant.example/hook";

/// Runs it over raw values, a second apart.
fn run(host: &Host, machine: &slung::testing::Producer, values: &[f64]) {
    let points = values.iter().zip(0..).map(|(value, second)| (second * 1_000_000, *value));
    machine.send("temperature", &["machine=1"], points);
    host.run(|| watch(URL, "temperature:[]", THRESHOLD)).unwrap();
}

fn bodies(host: &Host) -> Vec<String> {
    host.requests().into_iter().map(|request| String::from_utf8(request.body).unwrap()).collect()
}

#[test]
fn each_crossing_is_posted_once() {
    let host = Host::new();
    run(&host, &host.producer(), &[80.0, 90.0, 95.0, 96.0, 90.0, 80.0]);
    let requests = host.requests();
    assert!(requests.iter().all(|request| (request.method, request.url.as_str()) == (WritebackMethod::POST, URL)));
    assert_eq!(
        bodies(&host),
        [
            r#"{"now":"above","value":95.0,"threshold":90.0,"timestamp":2000000,"tags":["machine=1"]}"#,
            r#"{"now":"below","value":90.0,"threshold":90.0,"timestamp":4000000,"tags":["machine=1"]}"#,
        ]
    );
}

#[test]
fn a_response_may_set_the_threshold() {
    let host = Host::new();
    let machine = host.producer();
    host.respond(r#"{"threshold": 100}"#);
    run(&host, &machine, &[95.0, 96.0, 99.0, 101.0]);
    let now: Vec<_> = bodies(&host).iter().map(|body| body[..28].to_owned()).collect();
    assert_eq!(
        now,
        [r#"{"now":"above","value":95.0,"#, r#"{"now":"below","value":96.0,"#, r#"{"now":"above","value":101.0"#]
    );
    assert_eq!(machine.received(), [""; 0], "it is not for the producers");
}

#[test]
fn any_other_response_goes_to_the_producers() {
    let host = Host::new();
    let machine = host.producer();
    for response in ["call the plant", r#"{"threshold":"high"}"#, ""] {
        host.respond(response);
    }
    run(&host, &machine, &[95.0, 80.0, 95.0, 80.0]);
    assert_eq!(machine.received(), ["call the plant", r#"{"threshold":"high"}"#], "and an empty one to nobody");
}

#[test]
fn the_query_is_a_live_one() {
    let host = Host::new();
    let machine = host.producer();
    machine.send("temperature", &[], [(0, 91.0)]);
    host.run(|| watch(URL, QUERY, THRESHOLD)).unwrap();
    assert_eq!(host.requests().len(), 1);
}
