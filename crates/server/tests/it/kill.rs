//! `kill -9`, again and again, at any moment: while events come in, while points are flushed and segments merged, while the
//! server starts.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use crate::server::{Server, frame, slung};

const ROUNDS: u64 = 200;
const START: i64 = 1_700_000_000_000_000;
/// Events are so far apart that a round's points lie in several partitions.
const STEP: i64 = 1_000_000;
const SERIES: u64 = 7;

/// Little memory for points, short files of the log and short partitions: flushes and merging all the time.
const CONFIG: &str = "[store]\nmemtable = \"1MiB\"\npartition = \"2h\"\nlog_file = \"1MiB\"\n";

/// splitmix64, so that a round can be repeated.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn value(index: u64) -> f64 {
    (index * 37 % 1_009) as f64
}

/// How many events no crash takes back, as the server itself says; `None` when it is gone.
fn durable(addr: SocketAddr) -> Option<u64> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let line = answer.lines().find_map(|line| line.strip_prefix("slung_store_durable_through "))?;
    line.parse::<f64>().ok().map(|through| through as u64)
}

/// Sends events from `next` on until the server is gone; answers how many were known to be durable before.
async fn send_until_killed(addr: SocketAddr, mut next: u64) -> u64 {
    let mut known = 0;
    let Ok((socket, _)) = tokio_tungstenite::connect_async(format!("ws://{addr}/")).await else { return known };
    let (mut sender, mut receiver) = socket.split();
    // Nobody sends anything back, but a close frame must not fill the socket.
    tokio::spawn(async move { while let Some(Ok(_)) = receiver.next().await {} });
    loop {
        for _ in 0..500 {
            let timestamp = START + next as i64 * STEP;
            let event = frame("s", &[&format!("k={}", next % SERIES)], timestamp, value(next));
            if sender.feed(Message::Binary(event.into())).await.is_err() {
                return known;
            }
            next += 1;
        }
        if sender.flush().await.is_err() {
            return known;
        }
        match tokio::task::spawn_blocking(move || durable(addr)).await.unwrap() {
            Some(through) => known = through,
            None => return known,
        }
    }
}

fn kill(pid: u32) {
    let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
}

/// All that is there is a prefix of what was sent, with the right values. Answers how long it is.
fn check(server: &Server, acknowledged: u64, round: u64) -> u64 {
    let count = server.query("COUNT:s:[]").as_f64().unwrap() as u64;
    assert!(count >= acknowledged, "round {round}: {acknowledged} were durable, {count} are there\n{}", server.log());
    if count == 0 {
        return 0;
    }
    let last = START + (count as i64 - 1) * STEP;
    let inside = |op: &str, tag: &str| server.query(&format!("{op}:s:[{tag}]:[{START},{last}]"));
    assert_eq!(inside("COUNT", ""), count as f64, "round {round}: without a hole");
    for series in 0..SERIES {
        let own = (series..count).step_by(SERIES as usize);
        let tag = format!("k={series}");
        assert_eq!(inside("COUNT", &tag), own.clone().count() as f64, "round {round}, series {series}");
        if own.clone().next().is_some() {
            assert_eq!(inside("SUM", &tag), own.clone().map(value).sum::<f64>(), "round {round}, series {series}");
        }
    }
    assert!(!server.log().contains("quarantine"), "round {round}: nothing is damaged\n{}", server.log());
    count
}

/// Starts it, and kills it before it is ready.
fn kill_while_starting(data: &Path, config: &str, after: Duration) {
    let mut child = slung()
        .args(["serve", "--listen", "127.0.0.1:0", "--config", config, "--data"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[expect(clippy::print_stderr, reason = "tells who runs it how much was there to lose")]
async fn rounds(rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let (data, config) = (folder.path().join("data"), folder.path().join("slung.toml"));
    fs::write(&config, CONFIG).unwrap();
    let config = config.to_str().unwrap();
    let (mut acknowledged, mut state) = (0, 7);
    let began = Instant::now();
    let mut merged = 0.0;
    for round in 0..rounds {
        for _ in 0..random(&mut state) % 3 {
            kill_while_starting(&data, config, Duration::from_micros(random(&mut state) % 30_000));
        }
        let server = Server::start(&data, &["--config", config]);
        let there = check(&server, acknowledged, round);
        merged += server.metric("slung_store_compactions_total");
        let (pid, after) = (server.pid(), Duration::from_millis(20 + random(&mut state) % 400));
        let killer = std::thread::spawn(move || {
            std::thread::sleep(after);
            kill(pid);
        });
        acknowledged = send_until_killed(server.addr(), there).await.max(acknowledged);
        killer.join().unwrap();
        drop(server);
    }
    let server = Server::start(&data, &["--config", config]);
    let there = check(&server, acknowledged, rounds);
    assert!(there > 0 && acknowledged > 0, "something was acknowledged at all");
    eprintln!(
        "{rounds} rounds in {:.0?}: {there} events there, {acknowledged} of them known to be durable; {merged} merges seen \
         at starts",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_durable_survives_a_few_kills() {
    rounds(5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; part of `cargo xtask test --long`"]
async fn what_was_durable_survives_two_hundred_kills() {
    rounds(ROUNDS).await;
}
