//! From workflows to producers: order, whose message it is, and readers that are slow.

use futures_util::SinkExt;
use slung_net::WritebackError;
use slung_net::client::{ClientError, PlainProducer, Received};
use tokio_tungstenite::tungstenite::Message;

use crate::backend::{NOW, row};
use crate::rig::{Rig, nobody};

#[tokio::test]
async fn each_producer_gets_its_own_messages_in_order() {
    let rig = Rig::start().await;
    let mut producers = [rig.connect().await, rig.connect().await];
    for producer in &mut producers {
        producer.barrier().await;
    }
    for number in 0..1_000 {
        for id in [1, 2] {
            rig.producers.send(id, format!("{number} for {id}").as_bytes()).unwrap();
        }
    }
    for (id, producer) in (1..).zip(&mut producers) {
        for number in 0..1_000 {
            assert_eq!(producer.next().await.unwrap().unwrap(), Message::text(format!("{number} for {id}")));
        }
        producer.barrier().await;
    }
    assert_eq!(rig.backend.counters.snapshot().writebacks_sent, 2_000);
}

#[tokio::test]
async fn the_events_of_a_producer_carry_the_id_that_reaches_it() {
    let rig = Rig::start().await;
    let mut producers = [rig.connect().await, rig.connect().await, rig.connect().await];
    for (value, producer) in producers.iter_mut().enumerate() {
        producer.event("a", &[], NOW, value as f64).await;
    }
    for producer in &mut producers {
        producer.barrier().await;
    }
    let stored = rig.backend.state(|state| state.stored.clone());
    for (id, point) in stored {
        rig.producers.send(id, point.value.to_string().as_bytes()).unwrap();
    }
    for (value, producer) in producers.iter_mut().enumerate() {
        assert_eq!(producer.next().await.unwrap().unwrap(), Message::text(value.to_string()));
    }
}

#[tokio::test]
async fn text_goes_as_text_and_other_bytes_as_binary() {
    let rig = Rig::start().await;
    let mut producer = PlainProducer::connect(&rig.ws_url()).await.unwrap();
    for data in [&b"text"[..], "\u{fc}\0".as_bytes(), b"", b"\xff\xfe", b"\xed\xa0\x80"] {
        rig.producers.send(1, data).unwrap();
    }
    let mut received = Vec::new();
    for _ in 0..5 {
        received.push(producer.receive().await.unwrap().unwrap());
    }
    let text = |text: &str| Received::Text(text.to_owned());
    let binary = |data: &'static [u8]| Received::Binary(data.into());
    let expected = [text("text"), text("\u{fc}\0"), text(""), binary(b"\xff\xfe"), binary(b"\xed\xa0\x80")];
    assert_eq!(received, expected);
    producer.close().await.unwrap();
}

#[tokio::test]
async fn who_has_gone_gets_nothing_and_nobody_gets_its_id() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    producer.barrier().await;
    producer.close().await;
    rig.backend.until("it has gone", |state| state.closed == [1]).await;
    assert_eq!(rig.producers.send(1, b"hello?"), Err(WritebackError::NoSuchProducer(1)));
    assert!(rig.producers.is_empty());
    let mut next = rig.connect().await;
    next.barrier().await;
    assert_eq!(rig.producers.send(1, b"hello?"), Err(WritebackError::NoSuchProducer(1)));
    rig.producers.send(2, b"hello").unwrap();
    assert_eq!(next.next().await.unwrap().unwrap(), Message::text("hello"));
    assert_eq!(row(&rig.backend.counters.snapshot().writebacks_failed, "no_such_producer"), 2);
}

/// One that does not read fills its own queue. It goes on sending events, others go on in both directions, and once it
/// reads again it finds everything that was not refused, in order.
#[tokio::test]
async fn a_slow_reader_harms_only_itself_and_only_as_a_reader() {
    let rig = Rig::start().await;
    let mut slow = rig.connect().await;
    slow.barrier().await;
    let mut other = rig.connect().await;
    other.barrier().await;

    let message = |number: usize| format!("{number:08} {}", "x".repeat(10_000));
    let mut accepted = 0;
    let refused = loop {
        match rig.producers.send(1, message(accepted).as_bytes()) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        // Enough turns for the connection to write all that the kernel takes.
        tokio::task::yield_now().await;
        assert!(accepted < 10_000, "100 MB and still no end");
    };
    assert!(matches!(refused, WritebackError::QueueFull { producer: 1, .. }), "{refused}");
    assert!(matches!(rig.producers.send(1, &vec![b'x'; 2_000_000]), Err(WritebackError::TooBig { .. })));

    // In both directions, but for the one that it does not read.
    for value in 0..100 {
        slow.socket.send(Message::binary(crate::rig::event("slow", &[], NOW, f64::from(value)))).await.unwrap();
        other.event("other", &[], NOW, f64::from(value)).await;
        rig.producers.send(2, value.to_string().as_bytes()).unwrap();
        assert_eq!(other.next().await.unwrap().unwrap(), Message::text(value.to_string()));
    }
    rig.backend.until("all events are stored", |state| state.stored.len() == 200).await;

    for number in 0..accepted {
        assert_eq!(slow.next().await.unwrap().unwrap(), Message::text(message(number)));
    }
    // There is room again, and nothing else was on its way.
    rig.producers.send(1, b"again").unwrap();
    assert_eq!(slow.next().await.unwrap().unwrap(), Message::text("again"));
    let stats = rig.backend.counters.snapshot();
    assert_eq!(stats.writebacks_sent, accepted as u64 + 1 + 100);
    assert_eq!(row(&stats.writebacks_failed, "queue_full"), 1);
    assert_eq!(row(&stats.writebacks_failed, "too_big"), 1);
}

#[tokio::test]
async fn what_waits_for_one_that_vanishes_is_counted_as_lost() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    producer.barrier().await;
    let message = vec![b'x'; 100_000];
    while rig.producers.send(1, &message).is_ok() {
        tokio::task::yield_now().await;
    }
    drop(producer);
    rig.backend.until("it has gone", |state| state.closed == [1]).await;
    let lost = row(&rig.backend.counters.snapshot().writebacks_failed, "connection_lost");
    assert!((5..=11).contains(&lost), "{lost} of a queue of 1 MiB");
}

#[tokio::test]
async fn both_halves_of_a_client_work_at_once() {
    let rig = Rig::start().await;
    let (mut sender, mut receiver) = PlainProducer::connect(&rig.ws_url()).await.unwrap().split();
    let received = tokio::spawn(async move {
        let mut count = 0;
        while let Some(message) = receiver.receive().await.unwrap() {
            assert_eq!(message, Received::Text(count.to_string()));
            count += 1;
        }
        count
    });
    let key = slung_model::SeriesKey::new("a", ["b"]).unwrap();
    for number in 0..100 {
        sender.send(NOW, f64::from(number), &key).await.unwrap();
        sender.flush().await.unwrap();
        rig.backend.until("it is stored", |state| state.stored.len() > number as usize).await;
        rig.producers.send(1, number.to_string().as_bytes()).unwrap();
    }
    sender.close().await.unwrap();
    assert_eq!(received.await.unwrap(), 100);
}

#[tokio::test]
async fn a_client_is_told_why_it_cannot_go_on() {
    let (_held, addr) = nobody();
    let error = PlainProducer::connect(&format!("ws://{addr}/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
    for url in ["http://127.0.0.1:1/", "wss://127.0.0.1:1/", "127.0.0.1", "ws:///", ""] {
        let bad = PlainProducer::connect(url).await.unwrap_err();
        assert!(matches!(bad, ClientError::Url { .. }), "{url}: {bad:?}");
    }
    let rig = Rig::start().await;
    let mut producer = PlainProducer::connect(&rig.ws_url()).await.unwrap();
    rig.backend.state(|state| state.failed = Some("no disk".into()));
    producer.send(NOW, 1.0, &slung_model::SeriesKey::new("a", ["b"]).unwrap()).await.unwrap();
    producer.flush().await.unwrap();
    let closed = producer.receive().await.unwrap_err().to_string();
    assert_eq!(closed, "the server closed the connection with 1011: no disk");
}
