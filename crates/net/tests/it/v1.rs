//! `slung.v1`: hello, numbers, acks once durable, nacks, windows; and what happens at the edges of each.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use slung_model::SeriesKey;
use slung_net::v1::{self, Hello, Reply};
use slung_net::{ServerOptions, wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::backend::{NOW, PATIENCE};
use crate::rig::{Rig, Ws, any_event, event};

/// A reply that is kept.
#[derive(Debug, PartialEq)]
enum Told {
    Ack(u64),
    Nack(u64, u16, bool, String),
    Data(Vec<u8>),
    Text(String),
}

impl Rig {
    /// A producer of `slung.v1`, and what it was told first.
    async fn connect_v1(&self) -> (Ws, Hello) {
        let mut request = self.ws_url().into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "slung.v1".parse().unwrap());
        let (socket, answer) = tokio_tungstenite::connect_async(request).await.expect("it connects");
        assert_eq!(answer.headers()["sec-websocket-protocol"], "slung.v1");
        let mut producer = Ws { socket };
        let hello = producer.next().await.unwrap().unwrap().into_data();
        let Some(Reply::Hello(hello)) = Reply::decode(&hello) else { panic!("no hello: {hello:?}") };
        (producer, hello)
    }
}

impl Ws {
    async fn told(&mut self) -> Told {
        match self.next().await {
            Some(Ok(Message::Text(text))) => Told::Text(text.as_str().to_owned()),
            Some(Ok(Message::Binary(frame))) => match Reply::decode(&frame) {
                Some(Reply::Ack { through }) => Told::Ack(through),
                Some(Reply::Nack { number, code, retryable, reason }) => {
                    Told::Nack(number, code, retryable, reason.to_owned())
                }
                Some(Reply::Data(data)) => Told::Data(data.to_vec()),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// Nothing comes, as far as one can wait for nothing: the server was heard after it could have said something.
    async fn told_nothing(&mut self) {
        self.barrier().await;
    }

    async fn nacked(&mut self) -> (u64, u16, bool, String) {
        match self.told().await {
            Told::Nack(number, code, retryable, reason) => (number, code, retryable, reason),
            other => panic!("{other:?}"),
        }
    }
}

fn events(events: &[(&str, i64, f64)]) -> Message {
    let mut message = vec![v1::EVENTS];
    events.iter().for_each(|(series, timestamp, value)| message.extend(event(series, &["t=1"], *timestamp, *value)));
    Message::binary(message)
}

fn block(series: &str, points: &[(i64, f64)]) -> Message {
    let mut message = Vec::new();
    v1::encode_block(&SeriesKey::new(series, ["t=1"]).unwrap(), points, &mut message);
    Message::binary(message)
}

#[tokio::test]
async fn it_begins_with_a_hello() {
    let options = ServerOptions { v1_window: 77, v1_message_bytes_max: 100_000, ..ServerOptions::default() };
    let rig = Rig::with(options).await;
    let (_producer, hello) = rig.connect_v1().await;
    assert_eq!(hello, Hello { window: 77, message_bytes_max: 100_000, commit_interval_ms: 5 });

    // Whoever can't set the header asks in the URL, and is not answered in it.
    let (mut socket, answer) =
        tokio_tungstenite::connect_async(format!("{}?protocol=slung.v1", rig.ws_url())).await.unwrap();
    assert!(answer.headers().get("sec-websocket-protocol").is_none());
    let hello = socket.next().await.unwrap().unwrap().into_data();
    assert!(matches!(Reply::decode(&hello), Some(Reply::Hello(_))));
}

#[tokio::test]
async fn an_ack_comes_when_all_through_it_is_durable_and_not_before() {
    let rig = Rig::start().await;
    let (mut producer, _) = rig.connect_v1().await;
    producer.send(events(&[("a", NOW, 1.0), ("b", NOW, 2.0)])).await;
    producer.send(block("c", &[(NOW, 3.0), (NOW + 1, 4.0), (NOW + 2, 5.0)])).await;
    producer.send(events(&[("a", NOW, 6.0)])).await;
    producer.told_nothing().await;
    assert_eq!(rig.backend.values(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(rig.backend.series()[..3], ["a{t=1}", "b{t=1}", "c{t=1}"]);
    rig.backend.commit(Some(1));
    producer.told_nothing().await;
    rig.backend.commit(None);
    assert_eq!(producer.told().await, Told::Ack(3));
    rig.backend.commit(None);
    producer.told_nothing().await;

    // Text is one event as JSON, and has a number too.
    producer.send(Message::text(r#"{"value":7,"series":"d"}"#)).await;
    rig.backend.until("it is stored", |state| state.stored.len() == 7).await;
    rig.backend.commit(None);
    assert_eq!(producer.told().await, Told::Ack(4));
    assert_eq!(rig.backend.counters.snapshot().events, 7);
}

#[tokio::test]
async fn a_batch_is_acknowledged_as_far_as_it_is_durable() {
    let rig = Rig::start().await;
    let (mut producer, _) = rig.connect_v1().await;
    for value in 0..3 {
        producer.send(events(&[("a", NOW, f64::from(value))])).await;
        // Each is a write of its own.
        producer.barrier().await;
    }
    rig.backend.commit(Some(2));
    assert_eq!(producer.told().await, Told::Ack(2));
    rig.backend.commit(Some(3));
    assert_eq!(producer.told().await, Told::Ack(3));
}

/// Each refused for its reason, none of it stored, and the ones around it are.
#[tokio::test]
async fn what_is_refused_is_told_with_its_number_and_reason() {
    let rig = Rig::start().await;
    rig.backend.state(|state| {
        state.sync = true;
        state.points_max = Some(10);
        state.series_max = Some(2);
        state.unwanted = Some(13.0);
    });
    let (mut producer, _) = rig.connect_v1().await;
    producer.send(events(&[("a", NOW, 0.0), ("b", NOW, 0.0)])).await;
    assert_eq!(producer.told().await, Told::Ack(1));
    let good = event("a", &["t=1"], NOW, 1.0);
    let raw = |parts: &[&[u8]]| Message::binary(parts.concat());
    let mut number = 1;
    for (message, code, wanted) in [
        (raw(&[]), 1, "without events"),
        (raw(&[&[v1::EVENTS]]), 1, "without events"),
        (raw(&[&[2]]), 1, "not with 2"),
        (raw(&[&[0xff], &good]), 1, "not with 255"),
        (raw(&[&[v1::EVENTS], &good, &good[..good.len() - 1]]), 1, "event 2: the event is cut short"),
        (raw(&[&[v1::EVENTS], &good, &[0; 20]]), 1, "event 2: "),
        (raw(&[&[v1::EVENTS], &good, &any_event(b"a\xff", &[], NOW, 1.0)]), 1, "event 2: the event is not UTF-8"),
        (raw(&[&[v1::EVENTS], &any_event(b"a", &[&[b'x'; 1_025]], NOW, 1.0)]), 1, "event 1: "),
        (events(&[("a", NOW, 1.0), ("a", NOW, f64::NAN)]), 7, "event 2: "),
        (events(&[("a", NOW, 1.0), ("a", i64::MAX, 1.0)]), 6, "event 2: timestamp 9223372036854775807"),
        (events(&[("a", NOW + 90_000_000_000, 1.0)]), 6, "ahead of the server's clock"),
        (events(&[("a", NOW, 1.0), ("c", NOW, 1.0)]), 3, "event 2: too many series"),
        (raw(&[&[v1::BLOCK]]), 1, "cut short"),
        (block("a", &[]), 1, "without events"),
        (block("a", &[(NOW, 1.0), (NOW, f64::INFINITY)]), 7, "event 2: "),
        (block("a", &[(i64::MIN, 1.0)]), 6, "event 1: "),
        (block("c", &[(NOW, 1.0)]), 3, "too many series"),
        (block("a", &[(NOW, 1.0); 11]), 2, "11 points"),
        (events(&[("a", NOW, 13.0)]), 6, "unwanted"),
        (Message::text("{}"), 1, "not an event as JSON"),
    ] {
        producer.socket.feed(events(&[("a", NOW, 2.0)])).await.unwrap();
        producer.socket.feed(message.clone()).await.unwrap();
        producer.send(events(&[("b", NOW, 3.0)])).await;
        number += 3;
        let (nacked, was, retryable, reason) = producer.nacked().await;
        assert_eq!((nacked, was, retryable), (number - 1, code, false), "{message:?}: {reason}");
        assert!(reason.contains(wanted), "{message:?}: {reason}");
        // One ack or several, as they arrived.
        let mut acked = 0;
        while acked < number {
            let Told::Ack(through) = producer.told().await else { panic!("no ack") };
            assert!(through > acked && through <= number, "{through}");
            acked = through;
        }
        let stored = rig.backend.state(|state| std::mem::take(&mut state.stored));
        assert_eq!(stored.iter().filter(|(_, point)| point.value == 1.0).count(), 0, "{message:?}");
        // `Seq` counts what is stored, and begins anew with it.
        rig.backend.state(|state| state.stored = stored);
    }
}

#[tokio::test]
async fn a_refused_message_alone_is_answered_at_once() {
    let rig = Rig::start().await;
    let (mut producer, _) = rig.connect_v1().await;
    producer.send(Message::binary(vec![9])).await;
    assert_eq!(producer.nacked().await.0, 1);
    assert_eq!(producer.told().await, Told::Ack(1));

    // But not before those that came before it.
    producer.send(events(&[("a", NOW, 1.0)])).await;
    producer.send(Message::binary(vec![9])).await;
    assert_eq!(producer.nacked().await.0, 3);
    producer.told_nothing().await;
    rig.backend.commit(None);
    assert_eq!(producer.told().await, Told::Ack(3));
}

#[tokio::test]
async fn a_message_over_the_limit_is_told_before_the_connection_is_closed() {
    let rig = Rig::with(ServerOptions { v1_message_bytes_max: 1_000, ..ServerOptions::default() }).await;
    let (mut producer, _) = rig.connect_v1().await;
    producer.send(block("a", &[(NOW, 1.0); 10])).await;
    producer.send(block("a", &[(NOW, 1.0); 100])).await;
    let (number, code, retryable, reason) = producer.nacked().await;
    assert_eq!((number, code, retryable), (2, 2, false), "{reason}");
    assert_eq!(producer.closed().await.0, 1009);
    assert_eq!(rig.backend.values().len(), 10, "what came before is stored");
}

/// The largest that there is: all of it in one write.
#[tokio::test]
async fn a_message_of_four_mebibytes_is_one_write() {
    let rig = Rig::start().await;
    rig.backend.state(|state| state.sync = true);
    let (mut producer, hello) = rig.connect_v1().await;
    let points: Vec<_> = (0..260_000).map(|index| (NOW + i64::from(index), f64::from(index))).collect();
    let message = block("a", &points);
    assert!(message.len() <= hello.message_bytes_max as usize && message.len() > 4_000_000);
    producer.send(message).await;
    assert_eq!(producer.told().await, Told::Ack(1));
    assert_eq!(rig.backend.state(|state| state.writes.clone()), [260_000]);
    assert_eq!(rig.backend.values().last(), Some(&259_999.0));
    producer.barrier().await;
    assert_eq!(rig.producers.memory().used(), 0, "given back");
}

#[tokio::test]
async fn beyond_the_window_nothing_is_read_until_there_are_answers() {
    let rig = Rig::with(ServerOptions { v1_window: 10, ..ServerOptions::default() }).await;
    let (mut producer, _) = rig.connect_v1().await;
    for value in 0..10 {
        producer.send(events(&[("a", NOW, f64::from(value))])).await;
    }
    rig.backend.until("they are stored", |state| state.stored.len() == 10).await;
    for value in 10..15 {
        producer.send(events(&[("a", NOW, f64::from(value))])).await;
    }
    // A message of a workflow passes all the same, and the server has looked at the socket again by then.
    rig.producers.send(1, b"still here").unwrap();
    assert_eq!(producer.told().await, Told::Text("still here".into()));
    assert_eq!(rig.backend.values().len(), 10);
    rig.backend.commit(None);
    assert_eq!(producer.told().await, Told::Ack(10));
    rig.backend.until("the others are stored", |state| state.stored.len() == 15).await;
    rig.backend.commit(None);
    while producer.told().await != Told::Ack(15) {}
}

#[tokio::test]
async fn a_full_disk_is_told_and_writing_goes_on_when_there_is_space() {
    let rig = Rig::start().await;
    rig.backend.state(|state| state.sync = true);
    let (mut producer, _) = rig.connect_v1().await;
    producer.send(events(&[("a", NOW, 1.0)])).await;
    assert_eq!(producer.told().await, Told::Ack(1));
    rig.backend.state(|state| state.full = true);
    // Of a series that is known, and of a new one.
    for (number, series) in [(2, "a"), (3, "new")] {
        producer.send(events(&[(series, NOW, 2.0)])).await;
        let nack = producer.nacked().await;
        assert_eq!((nack.0, nack.1, nack.2), (number, 4, true), "{}", nack.3);
        assert!(nack.3.contains("the disk is full"), "{}", nack.3);
        assert_eq!(producer.told().await, Told::Ack(number));
    }
    rig.backend.state(|state| state.full = false);
    producer.send(events(&[("new", NOW, 2.0)])).await;
    assert_eq!(producer.told().await, Told::Ack(4));
    assert_eq!(rig.backend.values(), [1.0, 2.0]);
    assert_eq!(rig.backend.refused("disk_full"), 2);
}

#[tokio::test]
async fn a_failed_storage_is_told_and_closes() {
    let rig = Rig::start().await;
    let (mut waiting, _) = rig.connect_v1().await;
    waiting.send(events(&[("a", NOW, 1.0)])).await;
    waiting.barrier().await;
    let (mut writing, _) = rig.connect_v1().await;
    rig.backend.state(|state| state.failed = Some("sync of log 7".into()));
    writing.send(events(&[("a", NOW, 2.0)])).await;
    let nack = writing.nacked().await;
    assert_eq!((nack.0, nack.1, nack.2), (1, 4, true));
    assert_eq!(writing.told().await, Told::Ack(1));
    assert_eq!(writing.closed().await, (1011, "sync of log 7".into()));

    // Who waits for the disk hears of it when the store says that something has changed.
    rig.backend.commit(Some(0));
    assert_eq!(waiting.closed().await, (1011, "sync of log 7".into()));
}

/// What has no room is waited for, as in the plain protocol, and what is durable is acknowledged meanwhile.
#[tokio::test]
async fn a_backend_without_room_holds_the_producer_back() {
    let rig = Rig::start().await;
    let (mut producer, _) = rig.connect_v1().await;
    producer.send(events(&[("a", NOW, 1.0)])).await;
    producer.barrier().await;
    rig.backend.state(|state| state.busy = true);
    producer.send(events(&[("a", NOW, 2.0)])).await;
    rig.backend.until("it was tried", |state| state.times_busy > 0).await;
    rig.backend.commit(Some(1));
    assert_eq!(producer.told().await, Told::Ack(1));
    rig.backend.state(|state| state.busy = false);
    rig.backend.until("it is stored", |state| state.stored.len() == 2).await;
    rig.backend.commit(None);
    assert_eq!(producer.told().await, Told::Ack(2));
}

#[tokio::test]
async fn messages_of_workflows_are_told_apart_from_answers() {
    let rig = Rig::start().await;
    let (mut producer, _) = rig.connect_v1().await;
    rig.producers.send(1, b"text").unwrap();
    rig.producers.send(1, &[2, 0xff]).unwrap();
    assert_eq!(producer.told().await, Told::Text("text".into()));
    assert_eq!(producer.told().await, Told::Data(vec![2, 0xff]));
    let info = rig.producers.list(NOW).remove(0);
    assert_eq!((info.id.get(), info.protocol, info.queued_bytes), (1, "slung.v1", 0));
}

/// On a restart what was stored is acknowledged before the close frame.
#[tokio::test]
async fn a_stop_acknowledges_what_it_stored() {
    let mut rig = Rig::start().await;
    let (mut producer, _) = rig.connect_v1().await;
    for value in 0..100 {
        producer.socket.feed(events(&[("a", NOW, f64::from(value))])).await.unwrap();
    }
    producer.barrier().await;
    rig.stop();
    rig.backend.commit(None);
    assert_eq!(producer.told().await, Told::Ack(100));
    assert_eq!(producer.closed().await.0, 1012);
    while producer.next().await.is_some() {}
    rig.ended().await;
}

/// Whoever does not read its answers is not read either: they would grow.
#[tokio::test]
async fn answers_that_nobody_reads_hold_the_producer_back() {
    let rig =
        Rig::with(ServerOptions { slow_reader_timeout: Duration::from_secs(1), ..ServerOptions::default() }).await;
    let mut tcp = rig.raw_upgraded("?protocol=slung.v1").await;
    let bad = crate::rig::ws_frame(0x82, &[9]).repeat(10_000);
    let flood = async {
        loop {
            if tcp.write_all(&bad).await.is_err() {
                return;
            }
        }
    };
    // Until the server gives it up, for not reading.
    timeout(PATIENCE, flood).await.expect("it is closed");
    assert_eq!(rig.backend.counters.snapshot().slow_readers, 1);
    assert!(rig.backend.refused("kind") > 1_000);
}

/// Long messages of many that never end: they take what they may, and no more.
#[tokio::test]
async fn unfinished_messages_of_all_together_stay_within_the_memory() {
    let rig = Rig::with_memory(ServerOptions::default(), 8 << 20).await;
    let mut open = Vec::new();
    for _ in 0..10 {
        let mut tcp = rig.raw_upgraded("?protocol=slung.v1").await;
        // The head of a frame of 4,000,000 bytes, and a million of them.
        let mut frame = vec![0x82, 0xff, 0, 0, 0, 0, 0, 0x3d, 0x09, 0x00, 1, 2, 3, 4];
        frame.resize(1_000_000, 7);
        // It may be closed in the middle.
        let _ = tcp.write_all(&frame).await;
        open.push(tcp);
    }
    // Three bytes of memory for each byte: two of them fit, the others are closed.
    let closed = async {
        while rig.backend.counters.snapshot().no_memory < 8 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, closed).await.expect("the others are closed");
    assert!(rig.producers.memory().used() <= 8 << 20);
    drop(open);
    let given_back = async {
        while rig.producers.memory().used() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, given_back).await.expect("it is given back");
    // And others go on.
    rig.backend.state(|state| state.sync = true);
    let (mut producer, _) = rig.connect_v1().await;
    producer.send(block("a", &[(NOW, 1.0); 50_000])).await;
    assert_eq!(producer.told().await, Told::Ack(1));
}

/// The close frame of a producer is answered; it can't be told anything after it.
#[tokio::test]
async fn a_producer_that_closes_has_its_messages_stored() {
    let rig = Rig::start().await;
    let (mut producer, _) = rig.connect_v1().await;
    for value in 0..10 {
        producer.send(events(&[("a", NOW, f64::from(value))])).await;
    }
    producer.close().await;
    assert_eq!(rig.backend.values().len(), 10);
}

#[tokio::test]
async fn fragments_and_pings_between_them_are_one_message() {
    let rig = Rig::start().await;
    rig.backend.state(|state| state.sync = true);
    let mut tcp = rig.raw_upgraded("?protocol=slung.v1").await;
    let mut message = vec![v1::EVENTS];
    wire::encode_event(NOW, 1.0, &SeriesKey::new("a", ["t=1"]).unwrap(), &mut message);
    let mut sent = Vec::new();
    let parts: Vec<_> = message.chunks(5).collect();
    for (index, part) in parts.iter().enumerate() {
        let last = if index == parts.len() - 1 { 0x80 } else { 0 };
        sent.extend(crate::rig::ws_frame(last | if index == 0 { 2 } else { 0 }, part));
        sent.extend(crate::rig::ws_frame(0x89, b"ping"));
    }
    tcp.write_all(&sent).await.unwrap();
    rig.backend.until("it is stored", |state| state.stored.len() == 1).await;
}

/// Whatever the length: also one with which a read of the server's ends exactly where its buffer does, so that nothing wakes it
/// again.
#[tokio::test]
async fn a_refusal_is_told_at_once_whatever_its_length() {
    let rig = Rig::start().await;
    for bytes in (4_090..4_100).chain(8_186..8_196).chain(16_378..16_388) {
        let mut tcp = rig.raw_upgraded("?protocol=slung.v1").await;
        // Kind 9, in a frame with 8 bytes in front.
        tcp.write_all(&crate::rig::ws_frame(0x82, &vec![9; bytes - 8])).await.unwrap();
        let mut told = [0; 15 + 2 + 4];
        timeout(Duration::from_secs(5), tcp.read_exact(&mut told)).await.expect("an answer in time").unwrap();
        assert_eq!((&told[..3], told[15], told[17]), (&[0x82, 13, 1][..], 0x82, 3), "{bytes}: a hello and a nack");
    }
}
