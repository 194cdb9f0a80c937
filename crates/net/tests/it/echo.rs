//! The echo that suites of others test WebSocket with: every message comes back as it was sent.

use futures_util::{SinkExt, StreamExt};
use slung_net::ServerOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::backend::PATIENCE;
use crate::rig::{Rig, Ws, event, ws_frame};

fn options() -> ServerOptions {
    ServerOptions { echo: true, message_bytes_max: 8 * 1024 * 1024, ..ServerOptions::default() }
}

#[tokio::test]
async fn messages_come_back_as_they_were() {
    let rig = Rig::with(options()).await;
    let Ws { socket } = rig.connect().await;
    let (mut to, mut back) = socket.split();
    let sent = [
        Message::text("text"),
        Message::text("\u{fc}\0"),
        Message::text(""),
        Message::binary(&b"text"[..]),
        Message::binary(&b"\xff\xfe"[..]),
        Message::binary(event("temp", &["sensor=1"], crate::backend::NOW, 21.5)),
        // More than the kernel takes at once, so that it is written in many pieces.
        Message::binary(vec![7; 8 * 1024 * 1024]),
        Message::text("x".repeat(8 * 1024 * 1024)),
        Message::text("the end"),
    ];
    let sending = async {
        for message in &sent {
            to.send(message.clone()).await.unwrap();
        }
    };
    let receiving = async {
        for message in &sent {
            let received = timeout(PATIENCE, back.next()).await.expect("something comes back").unwrap().unwrap();
            assert!(received == *message, "{} bytes", received.len());
        }
    };
    tokio::join!(sending, receiving);
    assert_eq!(rig.backend.state(|state| (state.stored.len(), state.resolved)), (0, 0), "none of them is an event");
    assert_eq!(rig.backend.refused_total(), 0);
}

/// Fragments come back as one frame, and a ping between messages is answered between them.
#[tokio::test]
async fn the_order_of_messages_and_pongs_is_kept() {
    let rig = Rig::with(options()).await;
    let mut tcp = rig.raw_producer().await;
    for frame in [ws_frame(1, b"a"), ws_frame(0x89, b"p"), ws_frame(0x80, b"b"), ws_frame(0x89, b"q")] {
        tcp.write_all(&frame).await.unwrap();
    }
    tcp.write_all(&ws_frame(0x88, b"\x03\xe8")).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("the server closes").unwrap();
    assert_eq!(answer, b"\x8a\x01p\x81\x02ab\x8a\x01q\x88\x02\x03\xe8");
}
