//! A crowd that says little, reads little or leaves in the middle, for a minute: those who work beside it do not notice.
//! Measures time and memory, so it runs with the long tests only.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use slung_net::ServerOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::backend::NOW;
use crate::rig::{HANDSHAKE, Rig, Ws, ws_frame};

/// Both ends of each are in this process, and 20,000 open files are what many systems allow one.
const IDLE: usize = 9_900;
/// As many as one address may have, and some are used by the others.
const PER_ADDRESS: usize = 200;
const HALF_OPEN: usize = 50;
const STRETCH: Duration = Duration::from_secs(60);

/// From an address of the loopback range of its own.
async fn connect_from(number: usize, addr: SocketAddr) -> TcpStream {
    let number = u16::try_from(number / PER_ADDRESS + 2).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("127.0.{}.{}:0", number / 256, number % 256).parse().unwrap()).unwrap();
    socket.connect(addr).await.expect("it connects")
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// How long an event takes to be stored and answered for, at the median and the 99th percentile of that time.
async fn round_trips(producer: &mut Ws, stretch: Duration) -> (Duration, Duration) {
    let (end, mut times) = (Instant::now() + stretch, Vec::new());
    while Instant::now() < end {
        let begin = Instant::now();
        producer.event("worker", &["a=1"], NOW, 1.0).await;
        producer.send(Message::Ping(Bytes::new())).await;
        loop {
            match producer.next().await {
                Some(Ok(Message::Pong(_))) => break,
                Some(Ok(Message::Ping(_) | Message::Text(_))) => {}
                other => panic!("the worker is disturbed: {other:?}"),
            }
        }
        times.push(begin.elapsed());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes two minutes and 20,000 open files, and measures time"]
async fn those_who_work_do_not_notice_a_crowd_that_does_not() {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    assert!(files >= 20_000, "only {files} files may be open, 20,000 are needed: see `ulimit -Hn`");
    let rig = Rig::with(ServerOptions { connections_max: 20_000, ..ServerOptions::default() }).await;
    let mut worker = rig.connect().await;
    let MaybeTlsStream::Plain(tcp) = worker.socket.get_ref() else { panic!("there is no TLS here") };
    // Its ping must not wait for the kernel to hear of its event.
    tcp.set_nodelay(true).unwrap();
    let alone = round_trips(&mut worker, Duration::from_secs(10)).await;

    let before = resident_kib();
    let mut idle = JoinSet::new();
    for number in 0..IDLE {
        let tcp = connect_from(number, rig.addr).await;
        let config = WebSocketConfig::default().read_buffer_size(256).write_buffer_size(0);
        let upgraded = tokio_tungstenite::client_async_with_config(rig.ws_url(), tcp, Some(config)).await;
        let (socket, _) = upgraded.expect("it is upgraded");
        // Answers pings, as every library does, and nothing else.
        idle.spawn(async move {
            let mut socket = socket;
            while let Some(Ok(_)) = socket.next().await {}
        });
    }
    let each = (resident_kib() - before) * 1024 / IDLE as u64;

    // Nothing, half a request, half a frame, and a whole frame; and none of them ever answers.
    let mut half_open = Vec::new();
    let frame = ws_frame(0x82, &crate::rig::event("a", &[], NOW, 1.0));
    for number in 0..HALF_OPEN {
        let mut tcp = connect_from(IDLE + number, rig.addr).await;
        let sent: Vec<u8> = match number % 4 {
            0 => Vec::new(),
            1 => HANDSHAKE.as_bytes()[..40].to_vec(),
            2 => [HANDSHAKE.as_bytes(), &frame[..20]].concat(),
            _ => [HANDSHAKE.as_bytes(), &frame].concat(),
        };
        tcp.write_all(&sent).await.unwrap();
        half_open.push(tcp);
    }

    // Reads 64 bytes a second, and is sent a kilobyte a hundred times a second.
    let slow_id = rig.producers.list(NOW).last().unwrap().id.get() + 1;
    let mut slow = rig.raw_producer().await;
    let reader = tokio::spawn(async move {
        let mut bytes = [0; 64];
        while slow.read_exact(&mut bytes).await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let producers = rig.producers.clone();
    let talker = tokio::spawn(async move {
        let (mut sent, mut failed) = (0_u64, 0_u64);
        loop {
            match producers.send(slow_id, &[b'x'; 1_024]) {
                Ok(()) => sent += 1,
                Err(_) => failed += 1,
            }
            if sent + failed == 100 * 55 {
                return (sent, failed);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });

    let crowded = round_trips(&mut worker, STRETCH).await;
    let (sent, failed) = talker.await.unwrap();
    reader.abort();
    let stats = rig.backend.counters.snapshot();
    eprintln!(
        "round trip, median and p99: {alone:?} alone, {crowded:?} beside {IDLE} idle, {HALF_OPEN} half open and one slow \
         reader ({sent} messages queued, {failed} refused, {} given up); {each} bytes of memory for each idle one and its \
         client; {} closed for silence",
        stats.slow_readers, stats.idle_closed
    );
    assert_eq!(idle.len(), IDLE);
    assert!(idle.try_join_next().is_none(), "an idle one was closed");
    // What answered no ping is gone, or was within a second of it.
    drop(half_open);
    let most = alone.1.max(Duration::from_millis(2)) * 5;
    assert!(crowded.1 <= most, "p99 {:?} in the crowd, {:?} alone", crowded.1, alone.1);
    // Both ends are in this process.
    assert!(each * 10_000 <= 400 << 20, "{each} bytes each");
}
