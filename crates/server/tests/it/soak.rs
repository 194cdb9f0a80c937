//! An hour of a server with a hundred workflows of many kinds, some of which fail, print and are replaced all the time: what it
//! takes of memory and files at the beginning and at the end.

use std::time::{Duration, Instant};

use crate::guest;
use crate::server::{PATIENCE, Server, workflow};

const AT: i64 = 1_700_000_000_000_000;
const WORKFLOWS: usize = 100;
/// Between two samples.
const SAMPLE: Duration = Duration::from_secs(15);
/// Between two rounds of the load: so many events each second.
const ROUND: Duration = Duration::from_millis(100);
const EVENTS_A_ROUND: u64 = 50;
/// Resident memory that the server may take: 100 guests of 1 MiB, 32 MiB of points, its code, and as much again.
const RESIDENT_BYTES_MAX: u64 = 320 << 20;
/// What the second half may add to it in an hour: more would be a leak that a week shows.
const GROWTH_BYTES_MAX: f64 = 24.0 * 1024.0 * 1024.0;

struct Sample {
    at: Duration,
    resident: u64,
    files: u64,
    threads: u64,
}

fn sample(server: &Server, begin: Instant) -> Sample {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
    };
    let files = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count() as u64;
    Sample { at: begin.elapsed(), resident: field("VmRSS") * 1024, files, threads: field("Threads") }
}

/// What the samples rise by in an hour: the line with the least squares.
fn slope(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let count = samples.len() as f64;
    let hours = |sample: &Sample| sample.at.as_secs_f64() / 3_600.0;
    let (x, y) = (samples.iter().map(hours).sum::<f64>() / count, samples.iter().map(&value).sum::<f64>() / count);
    let above: f64 = samples.iter().map(|sample| (hours(sample) - x) * (value(sample) - y)).sum();
    above / samples.iter().map(|sample| (hours(sample) - x).powi(2)).sum::<f64>()
}

fn put(server: &Server, name: &str, module: &[u8], env: &str) {
    let mut request = format!(
        "PUT /api/v1/workflows/{name}?{env} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        module.len()
    )
    .into_bytes();
    request.extend(module);
    let (status, body) = crate::server::http(server.addr(), request);
    assert!(matches!(status, 200 | 201), "{status}: {body}");
}

/// `SLUNG_SOAK_MINUTES` makes it shorter or longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes an hour; part of `cargo xtask test --long`"]
async fn an_hour_with_a_hundred_workflows_takes_no_more_and_more() {
    let minutes = std::env::var("SLUNG_SOAK_MINUTES").map_or(60, |minutes| minutes.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("slung.toml");
    std::fs::write(&config, "[store]\nmemtable = \"32MiB\"\n[workflows.spins]\nprocessor_share_max = 2\n").unwrap();
    let server = Server::start(&folder.path().join("data"), &["--config", config.to_str().unwrap()]);
    let alert = std::fs::read(workflow("threshold-alert")).unwrap();
    let made = |name: &str, texts: &[&str], then: &str| {
        let path = folder.path().join(format!("{name}.wasm"));
        guest::polling(&path, texts, then);
        std::fs::read(path).unwrap()
    };
    let fails = made("fails", &["temp:[a]"], "(if (local.get $event) (then (unreachable)))");
    let calls = made(
        "calls",
        &["temp:[a]", "http://127.0.0.1:1/", ""],
        "(if (local.get $event) (then (drop (call $writeback_http (i32.const 2048) (i32.const 3072) (i32.const 0)))))",
    );
    let writes = made(
        "writes",
        &["temp:[a]", "1700000000000000", "1", "series=derived,soak"],
        "(if (local.get $event) (then (drop (call $write_event (i32.const 2048) (i32.const 3072) (i32.const 4096)))))",
    );
    let spins = made("spins", &["temp:[a]"], "(loop $spin (drop (call $poll (local.get $handle))) (br $spin))");
    for (name, module) in [("fails", &fails), ("calls", &calls), ("writes", &writes), ("spins", &spins)] {
        put(&server, name, module, "");
    }
    for number in 4..WORKFLOWS {
        let query = ["AVG:temp:[a]:[5m]", "temp:[a]", "MAX:temp:[]:[1m]", "COUNT:temp:[b]"][number % 4];
        let query = crate::server::percent_encoded(query);
        put(&server, &format!("alert-{number}"), &alert, &format!("env=ALERT_QUERY={query}&env=ALERT_BELOW=0.5"));
    }
    server.wait_until("all have subscribed", |server| server.metric("slung_live_handles") >= WORKFLOWS as f64 - 2.0);

    let (begin, whole) = (Instant::now(), Duration::from_secs(60 * minutes));
    let (mut samples, mut sent, mut deploys, mut next_sample) = (Vec::new(), 0_u64, 0_u64, SAMPLE);
    let mut producer = server.connect().await;
    let mut pace = tokio::time::interval(ROUND);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while begin.elapsed() < whole {
        pace.tick().await;
        for _ in 0..EVENTS_A_ROUND {
            let tag = if sent % 10 == 0 { "b" } else { "a" };
            producer.event("temp", &[tag], AT + sent as i64 * 1_000, 1.0).await;
            sent += 1;
        }
        if sent % (10 * EVENTS_A_ROUND) == 0 {
            // One more version, and a connection that comes and goes.
            let number = 4 + deploys as usize % (WORKFLOWS - 4);
            let env = format!("env=ALERT_QUERY=temp%3A%5Ba%5D&env=ALERT_BELOW={}", 0.1 + deploys as f64 / 1e6);
            put(&server, &format!("alert-{number}"), &alert, &env);
            server.connect().await.event("temp", &["b"], AT + sent as i64 * 1_000, 2.0).await;
            deploys += 1;
        }
        if begin.elapsed() >= next_sample {
            next_sample += SAMPLE;
            let sample = sample(&server, begin);
            assert!(sample.resident <= RESIDENT_BYTES_MAX, "{} bytes after {:?}", sample.resident, sample.at);
            samples.push(sample);
        }
    }
    let stored = sent + deploys;
    let deadline = Instant::now() + PATIENCE;
    while server.query("COUNT:temp:[a]").as_f64().unwrap() + server.query("COUNT:temp:[b]").as_f64().unwrap()
        < sent as f64
    {
        assert!(Instant::now() < deadline, "events are missing");
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{sent} events sent, {stored} with those of other connections; {deploys} versions deployed");
    println!("{:>8} {:>14} {:>6} {:>8}", "seconds", "resident MiB", "files", "threads");
    for sample in samples.iter().step_by(samples.len().div_ceil(20).max(1)).chain(samples.last()) {
        let resident = sample.resident as f64 / f64::from(1 << 20);
        println!("{:>8.0} {resident:>14.1} {:>6} {:>8}", sample.at.as_secs_f64(), sample.files, sample.threads);
    }
    let late = &samples[samples.len() / 2..];
    let (memory, files) = (slope(late, |sample| sample.resident as f64), slope(late, |sample| sample.files as f64));
    println!("second half: {:+.2} MiB and {files:+.1} files an hour", memory / f64::from(1 << 20));
    assert!(minutes < 30 || memory < GROWTH_BYTES_MAX, "it grows by {memory} bytes an hour");
    assert!(minutes < 30 || files < 20.0, "it grows by {files} files an hour");
    assert!(server.terminate().success());
}
