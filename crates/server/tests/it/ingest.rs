//! What producers send: good frames are stored, bad ones are counted and harm nobody.

use tokio_tungstenite::tungstenite::Message;

use crate::server::{Server, frame, slung};

const AT: i64 = 1_700_000_000_000_000;

/// Twenty kinds of frames that are no event.
fn malformed(kind: usize) -> Message {
    let good = frame("temp", &["sensor=1", "env=prod"], AT, 21.5);
    let patched = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let binary = match kind {
        0 => Vec::new(),
        1 => vec![0],
        2 => good[..19].to_vec(),
        3 => good[..20].to_vec(),
        4 => good[..43].to_vec(),
        5 => [&good[..], b"x"].concat(),
        6 => patched(8, &f64::NAN.to_le_bytes()),
        7 => patched(8, &f64::INFINITY.to_le_bytes()),
        8 => patched(8, &f64::NEG_INFINITY.to_le_bytes()),
        9 => frame("", &["a"], AT, 1.0),
        10 => patched(16, &u16::MAX.to_le_bytes()),
        11 => patched(18, &u16::MAX.to_le_bytes()),
        12 => patched(20, &[0xff]),
        13 => patched(26, &[0xc3]),
        14 => patched(0, &i64::MAX.to_le_bytes()),
        15 => patched(0, &i64::MIN.to_le_bytes()),
        16 => frame(&"n".repeat(1025), &[], AT, 1.0),
        17 => frame("nul\0", &[], AT, 1.0),
        18 => return Message::text(r#"{"series":"temp"}"#),
        19 => return Message::text("not an event"),
        _ => unreachable!("twenty kinds"),
    };
    Message::binary(binary)
}

#[tokio::test]
async fn a_thousand_malformed_frames_of_twenty_kinds_are_counted_and_harm_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let mut producer = server.connect().await;
    for index in 0..1_000 {
        producer.send(malformed(index % 20)).await;
    }
    assert!(producer.has_nothing_waiting().await, "the plain protocol has no answers");
    server.wait_until("all are counted", |server| server.metric("slung_frames_refused_total") >= 1_000.0);
    assert_eq!(server.metric("slung_frames_refused_total"), 1_000.0);
    assert_eq!(server.metric("slung_store_points"), 0.0);
    assert_eq!(server.metric("slung_store_series"), 0.0, "a refused event must not make its series known");

    // The connection survives them, and so does its stream.
    producer.event("temp", &["sensor=1"], AT, 21.5).await;
    server.wait_until("the good one is stored", |server| server.metric("slung_store_points") == 1.0);
    assert_eq!(server.query("AVG:temp:[sensor=1]"), 21.5);
}

#[tokio::test]
async fn the_sample_of_the_wire_format_and_both_forms_of_text_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let sample = [
        0x00, 0x40, 0x1e, 0x18, 0x24, 0x0a, 0x06, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x35, 0x40, 0x04, 0x00,
        0x02, 0x00, 0x74, 0x65, 0x6d, 0x70, 0x08, 0x00, 0x73, 0x65, 0x6e, 0x73, 0x6f, 0x72, 0x3d, 0x31, 0x08, 0x00,
        0x65, 0x6e, 0x76, 0x3d, 0x70, 0x72, 0x6f, 0x64,
    ];
    assert_eq!(sample[..], frame("temp", &["sensor=1", "env=prod"], AT, 21.5)[..]);
    let mut producer = server.connect().await;
    producer.send(Message::binary(sample.to_vec())).await;
    producer
        .send(Message::text(r#"{"timestamp":1700000000000001,"value":22.5,"series":"temp","tags":["json"]}"#))
        .await;
    producer.send(Message::text(r#"{"value":7,"series":"now"}"#)).await;
    // Bytes below 0x80 only, so that they are UTF-8 as they stand.
    let ascii = frame("old", &["client"], 0x0102_0304_0506, 0.0);
    producer.send(Message::text(String::from_utf8(ascii).unwrap())).await;
    server.wait_until("all four are stored", |server| server.metric("slung_store_points") == 4.0);
    assert_eq!(server.query("SUM:temp:[]"), 44.0);
    assert_eq!(server.query("COUNT:temp:[env=prod AND sensor=1]"), 1.0);
    assert_eq!(server.query(":temp:[]"), 22.5);
    assert_eq!(server.query("COUNT:now:[]:[1m]"), 1.0, "without a timestamp the server's clock is used");
    assert_eq!(server.query("COUNT:old:[client]"), 1.0);
    assert_eq!(server.query("AVG:temp:[sensor=2]"), serde_json::Value::Null);
}

#[tokio::test]
async fn http_answers_what_people_try_first() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    assert_eq!(server.get("/health"), (200, r#"{"status":"ok"}"#.to_owned()));
    let (status, body) = server.get("/api/v1/query?q=AVG:temp");
    assert_eq!(status, 400);
    assert!(body.contains("byte") || body.contains("\"at\""), "{body}");
    let (status, body) = server.get("/api/v1/query");
    assert_eq!(status, 400, "{body}");
    assert_eq!(server.get("/nothing/here").0, 404);
    let (status, body) = server.get("/metrics");
    assert_eq!(status, 200);
    assert!(body.contains("# HELP slung_store_points"), "{body}");
    let version = slung().arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("slung 0."));
}
