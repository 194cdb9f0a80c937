//! The producer that keeps what is not acknowledged, against a server that does everything wrong that one can do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use slung_model::SeriesKey;
use slung_net::client::{ClientError, Producer, ProducerOptions, Progress, Received};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::backend::{NOW, PATIENCE};
use crate::rig::nobody;
use crate::scripted::{Act, BAD, GARBAGE, Script, Scripted, Start, Stored};

/// Without the pauses that are good manners elsewhere.
fn hasty() -> ProducerOptions {
    ProducerOptions {
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(4),
        retry_delay: Duration::from_millis(1),
        linger: Duration::from_millis(1),
        ..ProducerOptions::default()
    }
}

fn key(number: usize) -> SeriesKey {
    SeriesKey::new("s", [format!("n={number}")]).unwrap()
}

async fn connect(server: &Scripted, options: ProducerOptions) -> Producer {
    Producer::connect(&server.url(), options).await.unwrap()
}

async fn flush(producer: &Producer) -> Result<(), ClientError> {
    timeout(PATIENCE, producer.flush()).await.expect("it ends in time")
}

async fn close(producer: &Producer) -> Result<(), ClientError> {
    timeout(PATIENCE, producer.close()).await.expect("it ends in time")
}

async fn until(wish: impl Fn() -> bool) {
    let reached = async {
        while !wish() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, reached).await.expect("it never happened");
}

/// Sends values counting up from 0, at times counting up from [`NOW`].
async fn send(producer: &Producer, values: std::ops::Range<u32>) {
    for value in values {
        producer.send(NOW + i64::from(value), value.into(), &key(0)).await.unwrap();
    }
}

fn values(server: &Scripted) -> Vec<f64> {
    server.world.lock().unwrap().durable.iter().map(|(_, _, value)| *value).collect()
}

fn counted(values: std::ops::Range<u32>) -> Vec<f64> {
    values.map(f64::from).collect()
}

#[tokio::test]
async fn events_are_collected_and_durable_once_flushed() {
    let server = Scripted::start(Vec::new()).await;
    let producer = connect(&server, ProducerOptions::default()).await;
    send(&producer, 0..5_000).await;
    flush(&producer).await.unwrap();
    assert_eq!(values(&server), counted(0..5_000));
    assert_eq!(producer.progress(), Progress { taken: 5_000, acknowledged: 5_000, refused: 0 });
    let messages = server.world.lock().unwrap().messages.clone();
    assert!(messages.len() < 100 && messages.iter().all(|events| *events <= 1_000), "{messages:?}");

    // One by one, too.
    for value in 5_000..5_020 {
        send(&producer, value..value + 1).await;
        flush(&producer).await.unwrap();
    }
    assert_eq!(values(&server), counted(0..5_020));
    flush(&producer).await.unwrap();
}

#[tokio::test]
async fn what_nobody_flushes_leaves_by_itself() {
    let server = Scripted::start(vec![Script::acts(&[Act::Hold])]).await;
    let producer = connect(&server, ProducerOptions::default()).await;
    // The second waits behind the first, but not for a full message.
    send(&producer, 0..2).await;
    until(|| producer.progress().acknowledged == 2).await;
    assert_eq!(values(&server), [0.0, 1.0]);
}

#[tokio::test]
async fn blocks_and_events_keep_their_order() {
    let server = Scripted::start(Vec::new()).await;
    let options = ProducerOptions { batch_bytes_max: 1_000, ..ProducerOptions::default() };
    let producer = connect(&server, options).await;
    send(&producer, 0..3).await;
    let points: Vec<_> = (3..1_000).map(|value| (NOW + i64::from(value), f64::from(value))).collect();
    assert_eq!(producer.send_block(&key(0), &points).await.unwrap(), 1_000);
    assert_eq!(producer.send_block(&key(0), &[]).await.unwrap(), 1_000);
    assert_eq!(producer.send(NOW + 1_000, 1_000.0, &key(0)).await.unwrap(), 1_001);
    flush(&producer).await.unwrap();
    assert_eq!(values(&server), counted(0..1_001));
}

#[tokio::test]
async fn whatever_ends_a_connection_everything_gets_there_in_order() {
    let mut scripts = Vec::new();
    for code in [1000, 1001, 1011, 1012, 1013, 4000] {
        scripts.push(Script::acts(&[Act::Ack, Act::Hold, Act::Close(code)]));
    }
    for is_durable in [true, false] {
        scripts.push(Script::acts(&[Act::Ack, Act::Hold, Act::Drop { is_durable }]));
    }
    scripts.extend((0..GARBAGE).map(|kind| Script::acts(&[Act::Hold, Act::Garbage(kind)])));
    scripts.extend((0..GARBAGE).map(|kind| Script::start(Start::NoHello(kind))));
    scripts.push(Script::start(Start::Gone));
    scripts.push(Script::start(Start::Raw("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")));
    scripts.push(Script::start(Start::Raw("no HTTP\r\n\r\n")));
    let connections = scripts.len() + 1;
    let server = Scripted::start(scripts).await;
    let options = ProducerOptions { batch_events_max: 10, ..hasty() };
    let producer = connect(&server, options).await;
    for begin in (0..1_000).step_by(100) {
        send(&producer, begin..begin + 100).await;
        flush(&producer).await.unwrap();
    }
    let mut all = values(&server);
    all.dedup_by(|b, a| b <= a);
    assert_eq!(producer.progress(), Progress { taken: 1_000, acknowledged: 1_000, refused: 0 });
    assert_eq!(BTreeSet::from_iter(all.iter().map(|value| *value as u32)), BTreeSet::from_iter(0..1_000));
    assert_eq!(server.world.lock().unwrap().connections, connections);
}

#[tokio::test]
async fn a_bad_event_is_told_and_the_others_of_its_message_are_stored() {
    let server = Scripted::start(vec![Script::acts(&[Act::Gate])]).await;
    let producer = connect(&server, hasty()).await;
    // Behind a message that is not answered all of these are in few.
    for value in 0..2_000_u32 {
        let value = if value == 700 || value == 1_999 { BAD } else { value.into() };
        producer.send(NOW, value, &key(0)).await.unwrap();
    }
    server.gate.notify_one();
    let Err(ClientError::Refused(refused)) = flush(&producer).await else { panic!("two were refused") };
    assert_eq!((refused.count, refused.events.len()), (2, 2));
    let told: Vec<_> = refused.events.iter().map(|event| (event.number, event.value, event.code)).collect();
    assert_eq!(told, [(701, BAD, 6), (2_000, BAD, 6)]);
    assert_eq!((refused.events[0].timestamp, &refused.events[0].key), (NOW, &key(0)));
    let text = refused.to_string();
    assert!(text.contains("refused 2 events") && text.contains("event 701 (s{n=0}") && text.contains("bad"), "{text}");
    assert_eq!(producer.progress(), Progress { taken: 2_000, acknowledged: 1_998, refused: 2 });
    // The last that was stored is the last that was sent, whatever was sent again.
    assert_eq!(values(&server).last(), Some(&1_998.0));
    let sent = (0..2_000).filter(|value| ![700, 1_999].contains(value));
    assert_eq!(BTreeSet::from_iter(values(&server).iter().map(|value| *value as u32)), BTreeSet::from_iter(sent));
    flush(&producer).await.expect("told once");

    // A block, too, and to who never flushes.
    let points: Vec<_> = (0..500).map(|n| (NOW + n, if n % 100 == 7 { BAD } else { n as f64 })).collect();
    producer.send_block(&key(1), &points).await.unwrap();
    until(|| producer.progress().refused == 7).await;
    let refused = producer.take_refused().unwrap();
    assert!(refused.events.iter().all(|event| (event.timestamp - NOW) % 100 == 7 && event.key == key(1)));
    assert_eq!(refused.count, 5);
    flush(&producer).await.unwrap();
    assert_eq!(producer.progress(), Progress { taken: 2_500, acknowledged: 2_493, refused: 7 });
}

#[tokio::test]
async fn every_event_may_be_refused_and_the_count_is_right() {
    let server = Scripted::start(Vec::new()).await;
    let producer = connect(&server, hasty()).await;
    for _ in 0..1_500 {
        producer.send(NOW, BAD, &key(0)).await.unwrap();
    }
    producer.send(NOW, 1.0, &key(0)).await.unwrap();
    let Err(ClientError::Refused(refused)) = flush(&producer).await else { panic!("they were refused") };
    assert_eq!((refused.count, refused.events.len()), (1_500, 1_000));
    assert!(refused.events.iter().zip(1..).all(|(event, number)| event.number == number));
    assert_eq!(values(&server), [1.0]);
}

#[tokio::test]
async fn a_full_disk_is_waited_for_and_turns_no_order_round() {
    let acts = [Act::Ack, Act::Full, Act::Ack, Act::Hold, Act::Full, Act::Full, Act::Full];
    let server = Scripted::start(vec![Script::acts(&acts)]).await;
    let producer = connect(&server, ProducerOptions { batch_events_max: 10, ..hasty() }).await;
    for value in 0..100 {
        producer.send(NOW, value.into(), &key(0)).await.unwrap();
    }
    flush(&producer).await.unwrap();
    let stored = values(&server);
    assert_eq!(stored.last(), Some(&99.0));
    assert_eq!(BTreeSet::from_iter(stored.iter().map(|value| *value as u32)), BTreeSet::from_iter(0..100));
    assert_eq!(server.world.lock().unwrap().connections, 1);
}

/// Another server may take less than the one that was there before.
#[tokio::test]
async fn messages_become_as_small_as_the_server_wants_them() {
    let small = |message_bytes_max| Script::start(Start::Hello { window: 4, message_bytes_max });
    let server = Scripted::start(vec![Script::acts(&[Act::Drop { is_durable: false }]), small(100)]).await;
    let producer = connect(&server, hasty()).await;
    send(&producer, 0..1_000).await;
    let long = SeriesKey::new("too long", ["x".repeat(200)]).unwrap();
    producer.send(NOW, 1.0, &long).await.unwrap();
    producer.send_block(&key(0), &[(NOW + 1_000, 1_000.0), (NOW + 1_001, 1_001.0)]).await.unwrap();
    let Err(ClientError::Refused(refused)) = flush(&producer).await else { panic!("one is too long") };
    assert_eq!((refused.count, refused.events[0].number, refused.events[0].code), (1, 1_001, 2));
    assert_eq!(values(&server), counted(0..1_002));
    assert!(server.world.lock().unwrap().messages[1..].iter().all(|events| *events <= 3));
}

#[tokio::test]
async fn too_much_that_is_unacknowledged_holds_the_sender_back() {
    let server = Scripted::start(vec![Script::acts(&[Act::Gate])]).await;
    let options = ProducerOptions { unacknowledged_bytes_max: 10_000, batch_events_max: 10, ..hasty() };
    let producer = connect(&server, options).await;
    let mut held = None;
    for value in 0..10_000_u32 {
        let key = key(0);
        let send = producer.send(NOW + i64::from(value), value.into(), &key);
        // A turn for the connection, which changes nothing as the gate is shut.
        if timeout(Duration::from_millis(50), send).await.is_err() {
            held = Some(value);
            break;
        }
    }
    let held = held.expect("10,000 events are more than 10,000 bytes");
    assert!((100..300).contains(&held), "{held} events of 29 bytes, and 128 a message");
    assert_eq!(producer.progress().taken, u64::from(held), "what was given up was not taken");
    let sender = producer.clone();
    let rest = tokio::spawn(async move { send(&sender, held..1_000).await });
    server.gate.notify_one();
    rest.await.unwrap();
    // One that alone is too much is taken all the same, and waits for nothing to be there.
    let points: Vec<_> = (1_000..3_000).map(|value| (NOW + i64::from(value), f64::from(value))).collect();
    producer.send_block(&key(0), &points).await.unwrap();
    flush(&producer).await.unwrap();
    assert_eq!(values(&server), counted(0..3_000));
}

#[tokio::test]
async fn messages_of_workflows_arrive_whatever_the_connection_does() {
    let say = |texts: &[&str]| Act::Say(texts.iter().map(|text| Message::text(*text)).collect());
    let binary = Act::Say(vec![Message::binary(vec![0, 0xff, 1]), Message::binary(vec![0])]);
    let many = Act::Say((0..100).map(|_| Message::text("x".repeat(100))).collect());
    let server = Scripted::start(vec![
        Script::acts(&[say(&["one", "two"]), Act::Drop { is_durable: false }]),
        Script::acts(&[Act::Ack, binary, many]),
    ])
    .await;
    let producer = connect(&server, ProducerOptions { received_bytes_max: 1_000, ..hasty() }).await;
    let text = |text: &str| Received::Text(text.to_owned());
    let receiver = producer.clone();
    let receive = async || timeout(PATIENCE, receiver.receive()).await.expect("in time").unwrap().unwrap();
    send(&producer, 0..1).await;
    assert_eq!([receive().await, receive().await], [text("one"), text("two")]);
    flush(&producer).await.unwrap();
    for value in 1..3 {
        send(&producer, value..value + 1).await;
        flush(&producer).await.unwrap();
    }
    assert_eq!(receive().await, Received::Binary(vec![0xff, 1].into()));
    assert_eq!(receive().await, Received::Binary(Vec::new().into()));
    send(&producer, 3..4).await;
    flush(&producer).await.unwrap();
    assert_eq!(receive().await, Received::Missed(94));
    for _ in 0..6 {
        assert_eq!(receive().await, text(&"x".repeat(100)));
    }
    close(&producer).await.unwrap();
    assert_eq!(producer.receive().await.unwrap(), None);
}

#[tokio::test]
async fn closing_waits_for_the_last_acknowledgement_and_says_goodbye() {
    let server = Scripted::start(vec![Script::acts(&[Act::Drop { is_durable: false }])]).await;
    let producer = connect(&server, hasty()).await;
    send(&producer, 0..100).await;
    close(&producer).await.unwrap();
    assert_eq!(values(&server), counted(0..100));
    assert_eq!(server.end(1).await, Some(1000));
    assert!(matches!(producer.send(NOW, 1.0, &key(0)).await, Err(ClientError::Ended)));
    assert!(matches!(producer.send_block(&key(0), &[(NOW, 1.0)]).await, Err(ClientError::Ended)));
    assert_eq!(producer.receive().await.unwrap(), None);
    producer.flush().await.expect("all of it is durable");
    close(&producer).await.expect("and it stays closed");

    // Refused events keep it no more open than others.
    let producer = connect(&server, hasty()).await;
    producer.send(NOW, BAD, &key(0)).await.unwrap();
    assert!(matches!(close(&producer).await, Err(ClientError::Refused(_))));
    assert_eq!(producer.receive().await.unwrap(), None);
}

#[tokio::test]
async fn the_last_handle_takes_the_connection_with_it() {
    let server = Scripted::start(Vec::new()).await;
    let producer = connect(&server, hasty()).await;
    let other = producer.clone();
    drop(producer);
    send(&other, 0..1).await;
    flush(&other).await.unwrap();
    drop(other);
    assert_eq!(timeout(PATIENCE, server.end(0)).await.expect("it ends"), None);
}

#[test]
fn nobody_waits_for_a_runtime_that_is_gone() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (serving, connected, other) = (runtime(), runtime(), runtime());
    let server = serving.block_on(Scripted::start(vec![Script::acts(&[Act::Gate])]));
    std::thread::spawn(move || serving.block_on(std::future::pending::<()>()));
    let producer = connected.block_on(connect(&server, hasty()));
    connected.block_on(send(&producer, 0..1));
    drop(connected);
    other.block_on(async {
        assert!(matches!(flush(&producer).await, Err(ClientError::Ended)));
        assert!(matches!(close(&producer).await, Err(ClientError::Ended)));
        assert_eq!(producer.receive().await.unwrap(), None);
    });
}

#[tokio::test]
async fn it_gives_up_when_it_is_told_to_and_says_what_was_wrong() {
    let server = Scripted::start(vec![Script::acts(&[Act::Ack, Act::Close(1011)])]).await;
    let options = ProducerOptions { give_up_after: Some(Duration::from_millis(200)), ..hasty() };
    let producer = connect(&server, options.clone()).await;
    send(&producer, 0..1).await;
    flush(&producer).await.unwrap();
    // Nobody is there any more once this connection has ended.
    server.gate.notify_one();
    let url = server.url();
    let receiver = producer.clone();
    let received = tokio::spawn(async move { receiver.receive().await });
    send(&producer, 1..2).await;
    drop(server);
    let error = flush(&producer).await.unwrap_err();
    assert!(matches!(error, ClientError::GaveUp { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("gave up after 0.2 s in which nothing was acknowledged: "), "{text}");
    assert!(text.contains(&url) || text.contains("lost") || text.contains("1011"), "{text}");
    assert!(matches!(producer.send(NOW, 1.0, &key(0)).await, Err(ClientError::GaveUp { .. })));
    assert!(matches!(close(&producer).await, Err(ClientError::GaveUp { .. })));
    assert!(matches!(received.await.unwrap(), Err(ClientError::GaveUp { .. })));
    assert_eq!(producer.progress(), Progress { taken: 2, acknowledged: 1, refused: 0 });

    // A disk that stays full is no better than no server.
    let server = Scripted::start(vec![Script::acts(&vec![Act::Full; 100_000])]).await;
    let producer = connect(&server, options).await;
    send(&producer, 0..1).await;
    assert!(matches!(flush(&producer).await, Err(ClientError::GaveUp { .. })));
}

#[tokio::test]
async fn the_first_connection_has_to_be_there() {
    let (_held, addr) = nobody();
    let connect = async |url: &str| {
        let options = ProducerOptions { connect_timeout: Duration::from_millis(100), ..hasty() };
        Producer::connect(url, options).await.unwrap_err()
    };
    let error = connect(&format!("ws://{addr}/")).await;
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    for url in ["http://127.0.0.1:1/", "wss://127.0.0.1:1/", "127.0.0.1", "ws:///", ""] {
        let bad = connect(url).await;
        assert!(matches!(bad, ClientError::Url { .. }), "{url}: {bad:?}");
    }
    assert!(connect("wss://127.0.0.1:1/").await.to_string().contains("TLS"));
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Accept: x\r\n\r\n";
    for (start, part) in [
        (Start::Gone, "no connection"),
        (
            Start::Raw("HTTP/1.1 501 Not Implemented\r\nContent-Length: 7\r\n\r\nnot yet"),
            "501 Not Implemented: not yet",
        ),
        (Start::Raw(upgrade), "no connection"),
        (Start::NoHello(0), "no hello"),
        (Start::NoHello(6), "no hello"),
        (Start::Silence, "longer than"),
    ] {
        let server = Scripted::start(vec![Script::start(start.clone())]).await;
        let text = connect(&server.url()).await.to_string();
        assert!(text.contains(part), "{start:?}: {text}");
    }
}

#[tokio::test]
async fn what_no_server_takes_is_not_sent() {
    let server = Scripted::start(Vec::new()).await;
    let producer = connect(&server, hasty()).await;
    for (timestamp, value) in [(NOW, f64::NAN), (NOW, f64::INFINITY), (i64::MAX, 1.0), (i64::MIN, 1.0)] {
        let error = producer.send(timestamp, value, &key(0)).await.unwrap_err();
        assert!(matches!(error, ClientError::Event(_)), "{error}");
        let error = producer.send_block(&key(0), &[(NOW, 1.0), (timestamp, value)]).await.unwrap_err();
        assert!(matches!(error, ClientError::Event(_)), "{error}");
    }
    assert_eq!(producer.progress(), Progress::default());
    close(&producer).await.unwrap();
    assert_eq!(values(&server).len(), 0);
}

/// Not even a pong comes back.
#[tokio::test]
async fn a_connection_without_a_sign_of_life_is_replaced() {
    let server = Scripted::start(vec![Script::acts(&[Act::Gate])]).await;
    let producer = connect(&server, ProducerOptions { silence_max: Duration::from_millis(60), ..hasty() }).await;
    send(&producer, 0..1).await;
    until(|| server.world.lock().unwrap().messages == [1]).await;
    // The server reads on once the client has gone.
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.gate.notify_one();
    flush(&producer).await.unwrap();
    assert_eq!(values(&server), [0.0, 0.0], "once by each connection");
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Ack),
        4 => Just(Act::Hold),
        2 => Just(Act::Full),
        1 => any::<bool>().prop_map(|is_durable| Act::Drop { is_durable }),
        1 => prop_oneof![Just(1000), Just(1011), Just(1012), Just(1013)].prop_map(Act::Close),
        1 => (0..GARBAGE).prop_map(Act::Garbage),
    ]
}

fn scripts() -> impl Strategy<Value = Script> {
    let hello = (1..6_u32, prop_oneof![Just(64), Just(200), Just(4 << 20)])
        .prop_map(|(window, message_bytes_max)| Start::Hello { window, message_bytes_max });
    let start = prop_oneof![8 => hello, 1 => Just(Start::Gone), 1 => (0..GARBAGE).prop_map(Start::NoHello)];
    (start, vec(acts(), 0..12)).prop_map(|(start, acts)| Script { start, acts })
}

/// What one run sends, a step each.
#[derive(Debug, Clone)]
enum Step {
    Events(usize),
    Block(usize),
    Flush,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![4 => (1..40_usize).prop_map(Step::Events), 2 => (1..40_usize).prop_map(Step::Block), 1 => Just(Step::Flush)]
}

/// The value of each series and time, as the order says.
fn state<'a>(events: impl Iterator<Item = &'a Stored>) -> BTreeMap<(String, i64), f64> {
    events.map(|(series, timestamp, value)| ((series.clone(), *timestamp), *value)).collect()
}

/// Sends by the steps. Nothing counts as acknowledged that is not durable, nothing is lost, and the last one wins.
async fn live(scripts: Vec<Script>, steps: Vec<Step>, bad: BTreeSet<usize>, options: ProducerOptions) {
    // The first connection has to be one.
    let first = Script::acts(&[Act::Ack, Act::Hold]);
    let server = Scripted::start([vec![first], scripts].concat()).await;
    let producer = connect(&server, options).await;
    let mut sent: Vec<Stored> = Vec::new();
    let mut refused = BTreeSet::new();
    let event = |index: usize| {
        let value = if bad.contains(&index) { BAD } else { index as f64 };
        (key(index % 3).to_string(), NOW + (index % 7) as i64, value)
    };
    for step in steps {
        match step {
            Step::Events(count) => {
                for _ in 0..count {
                    let index = sent.len();
                    let (_, timestamp, value) = event(index);
                    let number = producer.send(timestamp, value, &key(index % 3)).await.unwrap();
                    assert_eq!(number, index as u64 + 1);
                    sent.push(event(index));
                }
            }
            Step::Block(count) => {
                let own = |index: usize| (key(0).to_string(), event(index).1, event(index).2);
                let block: Vec<Stored> = (sent.len()..sent.len() + count).map(own).collect();
                let points: Vec<_> = block.iter().map(|(_, timestamp, value)| (*timestamp, *value)).collect();
                sent.extend(block);
                assert_eq!(producer.send_block(&key(0), &points).await.unwrap(), sent.len() as u64);
            }
            Step::Flush => {
                let flushed = flush(&producer).await;
                collect(flushed, &mut refused);
                let expected = state(sent.iter().filter(|(_, _, value)| *value != BAD));
                assert_eq!(state(server.world.lock().unwrap().durable.iter()), expected);
            }
        }
        let Progress { acknowledged, .. } = producer.progress();
        let durable = values(&server);
        let durable = BTreeSet::from_iter(durable.iter().map(|value| *value as usize));
        let good = sent.iter().map(|(_, _, value)| *value).filter(|value| *value != BAD);
        for value in good.take(acknowledged as usize) {
            assert!(durable.contains(&(value as usize)), "{value} is acknowledged, and not durable");
        }
    }
    let closed = close(&producer).await;
    collect(closed, &mut refused);
    let expected = state(sent.iter().filter(|(_, _, value)| *value != BAD));
    assert_eq!(state(server.world.lock().unwrap().durable.iter()), expected);
    let bad: BTreeSet<_> = bad.into_iter().filter(|index| *index < sent.len()).collect();
    assert_eq!(refused, bad.iter().map(|index| *index as u64 + 1).collect());
    let (taken, refused) = (sent.len() as u64, bad.len() as u64);
    assert_eq!(producer.progress(), Progress { taken, acknowledged: taken - refused, refused });
}

fn collect(flushed: Result<(), ClientError>, refused: &mut BTreeSet<u64>) {
    match flushed {
        Ok(()) => {}
        Err(ClientError::Refused(more)) => {
            assert_eq!(more.count, more.events.len() as u64);
            for event in more.events {
                assert!(refused.insert(event.number), "event {} was refused twice", event.number);
            }
        }
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn whatever_the_server_does_nothing_is_lost_or_out_of_order(
        scripts in vec(scripts(), 0..8), steps in vec(steps(), 0..20), bad in proptest::collection::btree_set(0..400_usize, 0..4),
        batch_events_max in 1..50_usize, unacknowledged_bytes_max in prop_oneof![Just(1), Just(2_000), Just(1 << 20)],
    ) {
        let options = ProducerOptions { batch_events_max, unacknowledged_bytes_max, ..hasty() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            timeout(PATIENCE, live(scripts, steps, bad, options)).await.expect("it ends in time");
        });
    }
}
