//! `kill -9`, again and again, at any moment: while events come in, while points are flushed and segments merged, while the
//! server starts.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::server::{Server, frame, slung};

const ROUNDS: u64 = 200;
const START: i64 = 1_700_000_000_000_000;
/// Events are so far apart that a round's points lie in several partitions.
const STEP: i64 = 1_000_000;
const SERIES: u64 = 7;
/// So that the rounds of a fast machine do not grow without end: all that was written is looked at in each.
const EVENTS_A_ROUND_MAX: u64 = 100_000;

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

/// Sends events from `next` on, in messages of many sizes, until the server is gone; answers how many it had acknowledged.
async fn send_until_killed(addr: SocketAddr, mut next: u64, mut state: u64) -> u64 {
    let mut request = format!("ws://{addr}/").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "slung.v1".parse().unwrap());
    let Ok((socket, _)) = tokio_tungstenite::connect_async(request).await else { return 0 };
    let (mut sender, mut receiver) = socket.split();
    // How many events there are through each message.
    let ends = Arc::new(Mutex::new(Vec::new()));
    let acknowledged = tokio::spawn({
        let ends = Arc::clone(&ends);
        async move {
            let mut known = 0;
            while let Some(Ok(message)) = receiver.next().await {
                match &message.into_data()[..] {
                    [2, through @ ..] => {
                        let through = u64::from_le_bytes(through.try_into().expect("an ack has 9 bytes"));
                        known = ends.lock().unwrap()[through as usize - 1];
                    }
                    [1, ..] | [] => {}
                    other => panic!("neither hello nor ack: {other:?}"),
                }
            }
            known
        }
    });
    let end = next + EVENTS_A_ROUND_MAX;
    loop {
        if next >= end {
            // Without more to send, until the server is gone.
            return acknowledged.await.unwrap();
        }
        let events = 1 + random(&mut state) % 500;
        let message: Vec<u8> = if events.is_multiple_of(4) {
            let tag = format!("k={}", next % SERIES);
            let event = frame("s", &[&tag], START + next as i64 * STEP, value(next));
            // A block of one point: what names the series, the count, the timestamp, the value.
            [&[1], &event[16..], &1_u32.to_le_bytes(), &event[..16]].concat()
        } else {
            let each = (next..next + events).flat_map(|index| {
                frame("s", &[&format!("k={}", index % SERIES)], START + index as i64 * STEP, value(index))
            });
            std::iter::once(0).chain(each).collect()
        };
        next += if events.is_multiple_of(4) { 1 } else { events };
        ends.lock().unwrap().push(next);
        if sender.send(Message::Binary(message.into())).await.is_err() {
            return acknowledged.await.unwrap();
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
    assert!(
        count >= acknowledged,
        "round {round}: {acknowledged} were acknowledged, {count} are there\n{}",
        server.log()
    );
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
        acknowledged = send_until_killed(server.addr(), there, random(&mut state)).await.max(acknowledged);
        killer.join().unwrap();
        drop(server);
    }
    let server = Server::start(&data, &["--config", config]);
    let there = check(&server, acknowledged, rounds);
    assert!(there > 0 && acknowledged > 0, "something was acknowledged at all");
    eprintln!(
        "{rounds} rounds in {:.0?}: {there} events there, {acknowledged} of them acknowledged; {merged} merges seen \
         at starts",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_few_kills() {
    rounds(5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; part of `cargo xtask test --long`"]
async fn what_was_acknowledged_survives_two_hundred_kills() {
    rounds(ROUNDS).await;
}
