//! The HTTP API of a real server: what the book shows, what survives a kill, and pages while others write.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::server::{Server, http, percent_encoded};

const PAGE: &str = include_str!("../../../../docs/http.md");
const START: i64 = 1_700_000_000_000_000;

fn post(addr: SocketAddr, head: &str, body: &[u8]) -> (u16, String) {
    let length = body.len();
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n{head}Content-Length: {length}\r\n\r\n"
    );
    http(addr, [head.as_bytes(), body].concat())
}

fn get(server: &Server, path: &str) -> Value {
    let (status, body) = server.get(path);
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

fn line(series: &str, tag: u64, timestamp: i64, value: f64) -> String {
    format!("{{\"timestamp\":{timestamp},\"value\":{value:?},\"series\":\"{series}\",\"tags\":[\"k={tag}\"]}}\n")
}

/// The words of a command as a shell splits it: single quotes, and lines that go on.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (index, part) in command.split('\'').enumerate() {
        if index % 2 == 1 {
            words.last_mut().unwrap().push_str(part);
            continue;
        }
        for (index, word) in part.split(char::is_whitespace).enumerate() {
            if index > 0 {
                words.push(String::new());
            }
            words.last_mut().unwrap().push_str(word);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Does what `curl` would do with those words, as far as the book uses it, and answers what it would print.
fn curl(addr: SocketAddr, words: &[String]) -> String {
    let (mut method, mut target, mut data, mut in_path, mut show_status) = (None, None, Vec::new(), false, false);
    let mut words = words.iter().map(String::as_str);
    assert_eq!(words.next(), Some("curl"));
    while let Some(word) = words.next() {
        match word {
            "--get" => in_path = true,
            "-X" => method = words.next(),
            "-w" => show_status = words.next() == Some("%{http_code}\\n"),
            "-d" | "--data-binary" => data.push(words.next().unwrap().to_owned()),
            "--data-urlencode" => {
                let (name, value) = words.next().unwrap().split_once('=').unwrap();
                data.push(format!("{name}={}", percent_encoded(value)));
            }
            url => target = Some(url.strip_prefix("http://127.0.0.1:2077").expect("the server")),
        }
    }
    let (mut target, mut data) = (target.expect("a URL").to_owned(), data.join("&"));
    if in_path {
        target = format!("{target}?{data}");
        data.clear();
    }
    let method = method.unwrap_or(if data.is_empty() { "GET" } else { "POST" });
    let length = data.len();
    let head =
        format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    let (status, body) = http(addr, format!("{head}{data}"));
    if show_status { format!("{body}{status}") } else { body }
}

#[test]
fn the_examples_of_the_book_are_what_happens() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let mut examples = 0;
    for block in PAGE.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for example in block.split("$ ").skip(1) {
            // Quotes are even where a command ends.
            let end = example.match_indices('\n').map(|(at, _)| at);
            let mut end = end.filter(|at| example[..*at].matches('\'').count() % 2 == 0);
            let (command, answer) = example.split_at(end.next().expect("an answer"));
            assert_eq!(curl(server.addr(), &words(command)).trim_end(), answer.trim(), "{command}");
            examples += 1;
        }
    }
    assert!(examples > 10, "{examples} examples were found");
}

/// As the page says, gzip by its own program.
#[test]
fn a_compressed_body_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let lines: String = (0..50_000).map(|index| line("s", index % 7, START + index as i64, index as f64)).collect();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(lines.as_bytes()).unwrap();
    let body = gzip.finish().unwrap();
    assert_eq!(post(server.addr(), "Content-Encoding: gzip\r\n", &body), (204, String::new()));
    assert_eq!(server.query("COUNT:s:[]"), 50_000.0);
    assert_eq!(server.query("SUM:s:[k=3]"), (3..50_000).step_by(7).sum::<u64>() as f64);
    assert_eq!(server.metric("slung_http_events_total"), 50_000.0);

    // All or nothing, however late it is wrong.
    let wrong = format!("{lines}{}", line("t", 0, START, 1.0).replace("value", "valu"));
    let (status, answer) = post(server.addr(), "", wrong.as_bytes());
    assert!(status == 400 && answer.contains("\"line\":50001"), "{answer}");
    assert_eq!(server.query("COUNT:s:[]"), 50_000.0);
    assert_eq!(get(&server, "/api/v1/series?q=t:[]")["series"], json!([]));
    assert_eq!(server.metric("slung_http_refused_total{code=\"bad_json\"}"), 1.0);
}

/// What was answered is there after a kill, right behind the answer.
#[test]
fn what_was_answered_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut stored = 0;
    for round in 0..5_i64 {
        let server = Server::start(folder.path(), &[]);
        assert_eq!(server.query("COUNT:s:[]"), f64::from(stored), "round {round}");
        for request in 0..3 {
            let at = START + (round * 3 + request) * 1_000;
            let body: String = (0..100).map(|index| line("s", 0, at + index, 1.0)).collect();
            assert_eq!(post(server.addr(), "", body.as_bytes()).0, 204);
            stored += 100;
        }
        server.kill();
    }
    let server = Server::start(folder.path(), &[]);
    assert_eq!(server.query("SUM:s:[]"), f64::from(stored));
}

/// Every point that is there from the first page to the last comes once, and what comes can be sent to another server.
#[test]
fn pages_are_whole_while_others_write_and_delete() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = folder.path().join("slung.toml");
    // Points go to segments all the time.
    std::fs::write(&config, "[store]\nmemtable = \"256KiB\"\npartition = \"1h\"\n").unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &["--config", config.to_str().unwrap()]);
    let mut stays = BTreeMap::new();
    for tag in 0..4 {
        let body: String = (0..2_000)
            .map(|index| {
                let (at, value) = (START + index * 1_000_000, (index * 37 % 101) as f64 / 7.0);
                stays.insert((tag, at), value);
                line("s", tag, at, value)
            })
            .collect();
        assert_eq!(post(server.addr(), "", body.as_bytes()).0, 204);
    }
    let copy = Server::start(other.path(), &[]);
    let mut found = BTreeMap::new();
    let (mut pages, mut after) = (0, String::new());
    loop {
        let path = format!("/api/v1/points?q=s:[]&limit=333&format=ndjson{after}");
        let (status, head, body) = server.get_with_head(&path);
        assert_eq!(status, 200, "{body}");
        assert!(body.lines().count() <= 333);
        for line in body.lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let tag: u64 = event["tags"][0].as_str().unwrap()[2..].parse().unwrap();
            let place = (tag, event["timestamp"].as_i64().unwrap());
            assert!(found.insert(place, event["value"].as_f64().unwrap()).is_none(), "{place:?} came twice");
        }
        assert_eq!(post(copy.addr(), "", body.as_bytes()).0, 204);
        pages += 1;
        // Points between the others, before and behind the page; and some of them go again.
        let between: String = (0..200)
            .map(|index| line("s", pages % 6, START + index * 9_000_000 + 500_000 + pages as i64, -1.0))
            .collect();
        assert_eq!(post(server.addr(), "", between.as_bytes()).0, 204);
        if pages % 5 == 0 {
            let gone = START + 500_000;
            let query = percent_encoded(&format!("s:[]:[{gone},{}]", gone + 100));
            let delete = format!("POST /api/v1/delete?q={query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            assert_eq!(http(server.addr(), delete).0, 200);
        }
        let next = head.split("slung-next: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let Some(next) = next else { break };
        after = format!("&after={next}");
    }
    assert!(pages > 20, "{pages} pages");
    for (place, value) in &stays {
        assert_eq!(found.get(place), Some(value), "{place:?}");
    }
    assert!(found.iter().all(|(place, value)| stays.get(place).is_none_or(|stays| stays == value)));
    // The copy has what came.
    assert_eq!(copy.query("COUNT:s:[]"), found.len() as f64);
    for op in ["MIN", "MAX", "FIRST", "P90"] {
        let range = format!("{op}:s:[k=1]:[{START},{START}]");
        assert_eq!(copy.query(&range), server.query(&range));
    }
}

/// Each stretch is what the query over it answers; as the server answers both.
#[test]
fn stretches_of_time_are_the_queries_over_each() {
    const STEP: i64 = 60_000_000;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    // No two series have the same timestamp, and there are gaps.
    let body: String = (0..3_000)
        .filter(|index| index / 250 % 3 != 1)
        .map(|index| line("s", index % 3, START + index as i64 * 700_003, (index * 7_919 % 1_000) as f64 - 300.5))
        .collect();
    assert_eq!(post(server.addr(), "", body.as_bytes()).0, 204);
    let (from, to) = (START + 100_000_000, START + 1_900_000_000);
    for op in ["AVG", "SUM", "MIN", "MAX", "COUNT", "FIRST", "LAST", "STDDEV", "RATE", "P50", "P99.9", "?"] {
        let query = percent_encoded(&format!("{op}:s:[NOT k=2]:[{from},{to}]"));
        let answer = get(&server, &format!("/api/v1/query?q={query}&step=1m"));
        assert_eq!((&answer["step"], &answer["series"]), (&json!(STEP), &json!(2)));
        let mut buckets = answer["buckets"].as_array().unwrap().iter().peekable();
        let mut empty = 0;
        let mut start = from.div_euclid(STEP) * STEP;
        while start <= to {
            let (first, last) = (start.max(from), (start + STEP - 1).min(to));
            let query = percent_encoded(&format!("{op}:s:[NOT k=2]:[{first},{last}]"));
            let own = get(&server, &format!("/api/v1/query?q={query}"));
            match buckets.next_if(|bucket| bucket["start"] == json!(start)) {
                None => {
                    assert_eq!(own["count"], 0, "{op} at {start}");
                    empty += 1;
                }
                Some(bucket) => {
                    assert_eq!(bucket["count"], own["count"], "{op} at {start}");
                    let (found, expected) = (bucket["value"].as_f64(), own["value"].as_f64());
                    let is_near = match (found, expected) {
                        (Some(found), Some(expected)) => (found - expected).abs() <= 1e-9 * expected.abs().max(1.0),
                        (found, expected) => found == expected,
                    };
                    assert!(is_near, "{op} at {start}: {found:?} and {expected:?}");
                }
            }
            start += STEP;
        }
        assert!(buckets.next().is_none() && empty > 5, "{op}: {empty} are empty");
    }
    let (status, body) = server.get("/api/v1/query?q=COUNT:s:[]&step=1us");
    assert_eq!(status, 200, "2,000 points are no more than 10,000 stretches: {body}");
}

/// Every line of the metrics belongs to one that has help, and what is counted in a unit says so.
#[test]
fn metrics_have_help_and_units() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let (status, text) = server.get("/metrics");
    assert_eq!(status, 200);
    let about = |what: &str| -> BTreeMap<String, String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(what)?.split_once(' '));
        lines.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
    };
    let (help, kinds, units) = (about("# HELP "), about("# TYPE "), about("# UNIT "));
    assert!(help.len() > 50 && help.keys().eq(kinds.keys()), "{text}");
    for (name, kind) in &kinds {
        assert!(!help[name].is_empty(), "{name}");
        let unit = ["bytes", "micros", "seconds"].into_iter().find(|unit| name.ends_with(&format!("_{unit}")));
        assert_eq!(units.get(name).map(String::as_str), unit, "{name} ({kind})");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let suffixes = ["", "_total", "_bucket", "_sum", "_count"];
        assert!(
            suffixes.iter().any(|suffix| name.strip_suffix(suffix).is_some_and(|it| kinds.contains_key(it))),
            "{line}"
        );
    }
}
