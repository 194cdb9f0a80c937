//! WebSocket itself: fragments, control frames, closing, and what is no WebSocket.

use futures_util::SinkExt;
use slung_net::ServerOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::backend::{NOW, PATIENCE};
use crate::rig::{HANDSHAKE, Rig, event, ws_frame};

const BINARY: u8 = 0x2;
const TEXT: u8 = 0x1;
const FIN: u8 = 0x80;

/// Sends bytes after the handshake, and reads the code of the close frame that comes back; nothing else may.
async fn close_code(rig: &Rig, bytes: &[u8]) -> Option<u16> {
    let mut tcp = rig.raw_producer().await;
    // The server may close before it has read all.
    let _ = tcp.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("the server closes");
    match answer[..] {
        [0x88, _, high, low, ..] => Some(u16::from_be_bytes([high, low])),
        [] => None,
        _ => panic!("{answer:?}"),
    }
}

#[tokio::test]
async fn messages_may_come_in_fragments_with_control_frames_in_between() {
    let rig = Rig::start().await;
    let mut tcp = rig.raw_producer().await;
    let frame = event("temp", &["é=1"], NOW, 21.5);
    let mut bytes = ws_frame(BINARY, &frame[..3]);
    bytes.extend(ws_frame(FIN | 0x9, b"ping"));
    for byte in &frame[3..] {
        bytes.extend(ws_frame(0, &[*byte]));
        bytes.extend(ws_frame(FIN | 0xa, b"pong that nobody asked for"));
    }
    bytes.extend(ws_frame(FIN, b""));
    // Text that is split within a character.
    let json = "{\"series\":\"é\",\"value\":1}".as_bytes();
    bytes.extend(ws_frame(TEXT, &json[..12]));
    bytes.extend(ws_frame(FIN, &json[12..]));
    assert!(std::str::from_utf8(&json[..12]).is_err());
    // Byte by byte, so that the server sees every cut there is.
    for byte in bytes {
        tcp.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    rig.backend.until("both are stored", |state| state.stored.len() == 2).await;
    assert_eq!(rig.backend.values(), [21.5, 1.0]);
    assert_eq!(rig.backend.series(), ["temp{é=1}", "é{}"]);
    let mut pong = [0; 6];
    tcp.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"\x8a\x04ping");
}

#[tokio::test]
async fn what_is_sent_behind_the_handshake_is_read() {
    let rig = Rig::start().await;
    let mut tcp = tokio::net::TcpStream::connect(rig.addr).await.unwrap();
    let mut bytes = HANDSHAKE.as_bytes().to_vec();
    for value in 0..100 {
        bytes.extend(ws_frame(FIN | BINARY, &event("a", &[], NOW, f64::from(value))));
    }
    tcp.write_all(&bytes).await.unwrap();
    rig.backend.until("all are stored", |state| state.stored.len() == 100).await;
    assert_eq!(rig.backend.values(), (0..100).map(f64::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_breaks_the_protocol_is_told_which_rule() {
    let rig = Rig::start().await;
    let good = event("temp", &[], NOW, 21.5);
    let mut unmasked = vec![FIN | BINARY, u8::try_from(good.len()).unwrap()];
    unmasked.extend(&good);
    let big = vec![0; 256 * 1024 + 1];
    let mut fragments = ws_frame(BINARY, &big[..200_000]);
    fragments.extend(ws_frame(FIN, &big[..200_000]));
    let closing = |payload: &[u8]| ws_frame(FIN | 0x8, payload);
    for (what, bytes, code) in [
        ("an unmasked frame", unmasked, 1002),
        ("a reserved bit", ws_frame(FIN | 0x40 | BINARY, &good), 1002),
        ("a reserved data opcode", ws_frame(FIN | 0x3, &good), 1002),
        ("a reserved control opcode", ws_frame(FIN | 0xb, b""), 1002),
        ("a fragment of nothing", ws_frame(FIN, &good), 1002),
        ("a message within another", [ws_frame(BINARY, &good), ws_frame(FIN | BINARY, &good)].concat(), 1002),
        ("a fragmented ping", ws_frame(0x9, b""), 1002),
        ("a ping of 126 bytes", ws_frame(FIN | 0x9, &[0; 126]), 1002),
        ("a close frame of one byte", closing(&[3]), 1002),
        ("a close code that nobody may send", closing(&1005_u16.to_be_bytes()), 1002),
        ("a text that is not UTF-8", ws_frame(FIN | TEXT, b"\xff{}"), 1007),
        ("a text that ends within a character", ws_frame(FIN | TEXT, b"{\xc3"), 1007),
        ("the same in fragments", [ws_frame(TEXT, b"{\xc3"), ws_frame(FIN, b"}")].concat(), 1007),
        ("a message that is too big", ws_frame(FIN | BINARY, &big), 1009),
        ("a text that is too big", ws_frame(FIN | TEXT, &big), 1009),
        ("fragments that together are too big", fragments, 1009),
        ("a length that nobody has", [&[FIN | BINARY, 0xff][..], &[0x7f; 8], &[0; 4]].concat(), 1009),
        ("a close frame with a code", closing(&[&1000_u16.to_be_bytes()[..], b"done"].concat()), 1000),
        ("a code of an application", closing(&4000_u16.to_be_bytes()), 4000),
    ] {
        assert_eq!(close_code(&rig, &bytes).await, Some(code), "{what}");
    }
    assert_eq!(rig.backend.refused("too_big"), 4);
    assert_eq!(rig.backend.refused("text_not_utf8"), 3);
    // A close frame without a code is answered by one without a code.
    let mut tcp = rig.raw_producer().await;
    tcp.write_all(&closing(b"")).await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, [0x88, 0]);
    assert_eq!(rig.backend.state(|state| state.stored.len()), 0);
}

/// What came before a broken frame is good, also where both arrive together.
#[tokio::test]
async fn what_came_before_a_broken_frame_is_stored() {
    let rig = Rig::start().await;
    let mut bytes = Vec::new();
    for value in 0..100 {
        bytes.extend(ws_frame(FIN | BINARY, &event("a", &[], NOW, f64::from(value))));
    }
    bytes.extend(ws_frame(FIN | 0x3, b""));
    assert_eq!(close_code(&rig, &bytes).await, Some(1002));
    assert_eq!(rig.backend.state(|state| state.stored.len()), 100);
}

/// A reset would overtake the close frame: the server reads on until the peer has gone.
#[tokio::test]
async fn who_sends_too_much_still_gets_to_read_why() {
    let rig = Rig::start().await;
    let mut tcp = rig.raw_producer().await;
    let (mut read, mut write) = tcp.split();
    let sent = async {
        let _ = write.write_all(&ws_frame(FIN | BINARY, &vec![0; 8 * 1024 * 1024])).await;
        let _ = write.shutdown().await;
    };
    let mut answer = Vec::new();
    let (_, read) = tokio::join!(sent, read.read_to_end(&mut answer));
    read.unwrap();
    assert_eq!(&answer[2..4], 1009_u16.to_be_bytes());
}

#[tokio::test]
async fn a_closing_producer_gets_its_answer_after_everything_is_stored() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    for value in 0..5_000 {
        producer.socket.feed(Message::binary(event("a", &[], NOW, f64::from(value)))).await.unwrap();
    }
    let bye = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
    producer.send(Message::Close(Some(bye))).await;
    assert_eq!(producer.closed().await, (1000, "done".to_owned()));
    assert_eq!(rig.backend.state(|state| state.stored.len()), 5_000);
    rig.backend.until("the producer is gone", |state| state.closed == [1]).await;
}

#[tokio::test]
async fn a_producer_that_vanishes_is_noticed() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    producer.event("a", &[], NOW, 1.0).await;
    producer.barrier().await;
    drop(producer);
    rig.backend.until("the producer is gone", |state| state.closed == [1]).await;
    assert_eq!(rig.backend.counters.snapshot().producers_now, 0);
}

#[tokio::test]
async fn the_protocol_is_the_first_on_offer_that_is_spoken_and_others_are_refused() {
    let rig = Rig::start().await;
    let connect = async |protocols: Option<&'static str>, path: &str| {
        let mut request = format!("{}{path}", rig.ws_url()).into_client_request().unwrap();
        if let Some(protocols) = protocols {
            request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(protocols));
        }
        tokio_tungstenite::connect_async(request).await.map(|(socket, response)| {
            drop(socket);
            response.headers().get("sec-websocket-protocol").cloned()
        })
    };
    let plain = Some(HeaderValue::from_static("slung.plain"));
    assert_eq!(connect(None, "").await.unwrap(), None);
    assert_eq!(connect(None, "?protocol=slung.plain").await.unwrap(), None);
    assert_eq!(connect(Some("slung.plain"), "").await.unwrap(), plain);
    assert_eq!(connect(Some("slung.v9, bearer.secret, slung.plain"), "").await.unwrap(), plain);
    let v1 = Some(HeaderValue::from_static("slung.v1"));
    assert_eq!(connect(Some("slung.v1, bearer.secret, slung.plain"), "").await.unwrap(), v1);
    for (protocols, path) in [(Some("slung.v2"), ""), (None, "?protocol=slung.v2"), (Some("bearer.x, slung.v7"), "")] {
        let Err(Error::Http(refused)) = connect(protocols, path).await else { panic!("{protocols:?} {path}") };
        assert_eq!(refused.status(), 501);
        let body = String::from_utf8(refused.body().clone().unwrap()).unwrap();
        assert!(body.starts_with(r#"{"error":{"code":"protocol_not_supported","message":"slung.v"#), "{body}");
    }
}

#[tokio::test]
async fn one_connection_too_many_from_an_address_is_turned_away() {
    let rig = Rig::with(ServerOptions { connections_per_address_max: 2, ..ServerOptions::default() }).await;
    let mut first = rig.connect().await;
    let second = rig.connect().await;
    let turned_away = rig.raw("").await;
    assert!(turned_away.starts_with("HTTP/1.1 503 "), "{turned_away}");
    // Another address has its own.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let other = socket.connect(rig.addr).await.unwrap();
    let (mut other, _) = tokio_tungstenite::client_async(rig.ws_url(), other).await.unwrap();
    other.close(None).await.unwrap();
    first.barrier().await;
    second.close().await;
    let stats = rig.backend.counters.snapshot();
    assert_eq!((stats.connections_refused_by_address, stats.connections_refused), (1, 0));
    // Once one has gone there is a place again.
    while rig.backend.counters.snapshot().connections_now > 1 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    rig.connect().await.barrier().await;
}

#[tokio::test]
async fn one_connection_too_many_is_turned_away_and_told_so() {
    let rig = Rig::with(ServerOptions { connections_max: 2, ..ServerOptions::default() }).await;
    let mut first = rig.connect().await;
    let second = rig.connect().await;
    let turned_away = rig.raw("").await;
    assert!(turned_away.starts_with("HTTP/1.1 503 "), "{turned_away}");
    let (head, body) = turned_away.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{turned_away}");
    assert!(body.contains("\"too_many\""), "{body}");
    assert_eq!(rig.backend.counters.snapshot().connections_refused, 1);
    // Those who are in are served, and who leaves makes room.
    first.barrier().await;
    second.close().await;
    rig.backend.until("there is room", |state| state.closed == [2]).await;
    let joined = async {
        while tokio_tungstenite::connect_async(rig.ws_url()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, joined).await.expect("there is room again");
}

/// Fragments that never become a message keep the library reading as long as there are more. Once that held the thread
/// of the connection, and so every connection on it, for as long as a stranger liked.
#[tokio::test]
async fn fragments_without_an_end_do_not_hold_up_another_producer() {
    use std::io::Write;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    let rig = Rig::start().await;
    let mut flood = rig.raw_producer().await.into_std().unwrap();
    flood.set_nonblocking(false).unwrap();
    let enough = std::sync::Arc::new(AtomicBool::new(false));
    let seen = enough.clone();
    let flooding = tokio::task::spawn_blocking(move || {
        let fragments = ws_frame(0, b"").repeat(10_000);
        flood.write_all(&ws_frame(BINARY, b"")).unwrap();
        let started = std::time::Instant::now();
        while !seen.load(Relaxed) && started.elapsed() < PATIENCE {
            if flood.write_all(&fragments).is_err() {
                break;
            }
        }
        seen.load(Relaxed)
    });
    let mut other = rig.connect().await;
    for _ in 0..20 {
        other.event("a", &[], NOW, 1.0).await;
        other.barrier().await;
    }
    enough.store(true, Relaxed);
    assert!(flooding.await.unwrap(), "the flood was over before the other one was served");
    assert_eq!(rig.backend.state(|state| state.stored.len()), 20);
}
