//! Peers that say nothing, answer nothing or read nothing: noticed, ended, and counted; and nobody else suffers.

use std::time::Duration;

use slung_net::ServerOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::backend::{NOW, PATIENCE};
use crate::rig::{Rig, ws_frame};

fn short() -> ServerOptions {
    ServerOptions {
        idle_timeout: Duration::from_millis(400),
        slow_reader_timeout: Duration::from_millis(400),
        close_timeout: Duration::from_millis(100),
        ..ServerOptions::default()
    }
}

#[tokio::test]
async fn a_silent_producer_is_pinged_and_stays_as_long_as_it_answers() {
    let rig = Rig::with(short()).await;
    let mut producer = rig.connect().await;
    producer.event("a", &[], NOW, 1.0).await;
    // The library answers pings while it is read.
    for _ in 0..5 {
        let message = producer.next().await;
        assert!(matches!(message, Some(Ok(Message::Ping(_)))), "{message:?}");
    }
    producer.event("a", &[], NOW, 2.0).await;
    producer.barrier().await;
    assert_eq!(rig.backend.values(), [1.0, 2.0]);
    assert_eq!(rig.backend.counters.snapshot().idle_closed, 0);
}

/// As after a cable was pulled: the connection is there, and nobody at its end.
#[tokio::test]
async fn a_producer_that_answers_no_ping_is_closed() {
    let rig = Rig::with(short()).await;
    for parameters in ["", "?protocol=slung.v1"] {
        let mut tcp = rig.raw_upgraded(parameters).await;
        let mut told = Vec::new();
        timeout(PATIENCE, tcp.read_to_end(&mut told)).await.expect("it is closed").unwrap();
        let close = told.windows(4).position(|bytes| bytes[0] == 0x88 && bytes[2..] == 1001_u16.to_be_bytes());
        assert!(told.windows(2).any(|bytes| bytes == [0x89, 0]), "a ping first: {told:?}");
        assert!(close.is_some(), "{told:?}");
    }
    assert_eq!(rig.backend.counters.snapshot().idle_closed, 2);
    rig.backend.until("both are gone", |state| state.closed.len() == 2).await;
}

/// Bytes without a message are a sign of life too.
#[tokio::test]
async fn a_producer_that_sends_one_byte_at_a_time_is_not_silent() {
    let rig = Rig::with(short()).await;
    let mut tcp = rig.raw_producer().await;
    let frame = ws_frame(0x81, br#"{"value":1,"series":"a"}"#);
    for byte in &frame {
        tcp.write_all(&[*byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    rig.backend.until("it is stored", |state| state.stored.len() == 1).await;
}

#[tokio::test]
async fn a_producer_that_does_not_read_is_closed_and_what_waited_is_counted() {
    let rig = Rig::with(ServerOptions { idle_timeout: PATIENCE, ..short() }).await;
    let _tcp = rig.raw_producer().await;
    let mut other = rig.connect().await;
    let message = vec![b'x'; 100_000];
    // Until the kernel's buffers and the queue are full.
    let full = async {
        while rig.producers.send(1, &message).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, full).await.expect("the queue is full at some time");
    rig.backend.until("it is given up", |state| state.closed == [1]).await;
    let stats = rig.backend.counters.snapshot();
    assert_eq!(stats.slow_readers, 1);
    let lost = crate::backend::row(&stats.writebacks_failed, "connection_lost");
    assert!(lost > 0, "{stats:?}");
    assert_eq!(rig.producers.memory().used(), 0);
    other.event("a", &[], NOW, 1.0).await;
    other.barrier().await;
}

/// It is not read because others fill the disk's queue: that is not its silence.
#[tokio::test]
async fn a_producer_that_is_held_back_is_not_silent() {
    let rig = Rig::with(short()).await;
    rig.backend.state(|state| state.busy = true);
    let mut producer = rig.connect().await;
    producer.event("a", &[], NOW, 1.0).await;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    rig.backend.make_room();
    rig.backend.until("it is stored", |state| state.stored.len() == 1).await;

    // The same where it is the series that finds no room, as on a full disk.
    rig.backend.state(|state| state.busy_resolving = true);
    producer.event("new", &[], NOW, 2.0).await;
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    rig.backend.make_room();
    rig.backend.until("it is stored, too", |state| state.stored.len() == 2).await;
    assert_eq!(rig.backend.counters.snapshot().idle_closed, 0);
}

/// The same for an answer by HTTP, which would keep its memory as long as the client likes; a stream may wait.
#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let rig = Rig::with(ServerOptions { idle_timeout: PATIENCE, ..short() }).await;
    rig.backend.state(|state| state.metrics = "x".repeat(50_000_000));
    let mut reader = TcpStream::connect(rig.addr).await.unwrap();
    let mut sleeper = TcpStream::connect(rig.addr).await.unwrap();
    for tcp in [&mut reader, &mut sleeper] {
        tcp.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    }
    let mut answer = vec![0; 50_000_000];
    timeout(PATIENCE, reader.read_exact(&mut answer)).await.expect("all of it").unwrap();
    while rig.backend.counters.snapshot().connections_now > 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(rig.backend.counters.snapshot().slow_readers, 1);
    let lost = timeout(PATIENCE, sleeper.read_exact(&mut answer)).await.expect("it is closed");
    assert!(lost.is_err(), "some of it is lost");
}
