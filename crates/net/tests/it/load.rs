//! Much at once: batches, order, and a backend that has no room.

use std::time::Duration;

use futures_util::SinkExt;
use slung_model::SeriesKey;
use slung_net::client::PlainProducer;
use tokio_tungstenite::tungstenite::Message;

use crate::backend::NOW;
use crate::rig::{Rig, event};

#[tokio::test]
async fn what_arrives_together_is_written_together_and_in_order() {
    const EVENTS: i32 = 50_000;
    let rig = Rig::start().await;
    let mut producer = PlainProducer::connect(&rig.ws_url()).await.unwrap();
    let keys: Vec<SeriesKey> = (0..10).map(|host| SeriesKey::new("cpu", [format!("host={host}")]).unwrap()).collect();
    for value in 0..EVENTS {
        producer.send(NOW, f64::from(value), &keys[value as usize % 10]).await.unwrap();
    }
    producer.close().await.unwrap();
    assert_eq!(rig.backend.values(), (0..EVENTS).map(f64::from).collect::<Vec<_>>());
    let (writes, resolved) = rig.backend.state(|state| (state.writes.clone(), state.resolved));
    assert!(writes.len() < EVENTS as usize / 20, "{} writes for {EVENTS} events", writes.len());
    assert!(writes.iter().all(|points| *points <= 4_096), "{writes:?}");
    assert_eq!(resolved, 10);
    let stats = rig.backend.counters.snapshot();
    assert_eq!((stats.events, stats.batches), (EVENTS as u64, writes.len() as u64));
}

#[tokio::test]
async fn an_event_that_comes_alone_is_written_alone() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    for count in 1..=20 {
        producer.event("a", &[], NOW, 1.0).await;
        rig.backend.until("it is stored", |state| state.stored.len() == count).await;
    }
    assert_eq!(rig.backend.state(|state| state.writes.clone()), [1; 20]);
}

/// Loses nothing, keeps the order, and does not read on meanwhile: the producer is held back by TCP, not by our memory.
#[tokio::test]
async fn a_backend_without_room_holds_the_producer_back_and_loses_nothing() {
    const EVENTS: i32 = 600_000;
    let rig = Rig::start().await;
    rig.backend.state(|state| state.busy = true);
    let url = rig.ws_url();
    let sender = tokio::spawn(async move {
        let mut producer = PlainProducer::connect(&url).await.unwrap();
        let key = SeriesKey::new("a", ["some=tag", "another=tag"]).unwrap();
        for value in 0..EVENTS {
            producer.send(NOW, f64::from(value), &key).await.unwrap();
        }
        producer.close().await.unwrap();
    });
    rig.backend.until("it was tried again and again", |state| state.times_busy >= 4).await;
    assert!(!sender.is_finished());
    let stats = rig.backend.counters.snapshot();
    assert!(stats.messages <= 4_096 && stats.events == 0, "{stats:?}");
    assert!(stats.busy_waits >= 3);

    // Room for a moment, and none again.
    rig.backend.make_room();
    rig.backend.until("some got through", |state| !state.stored.is_empty()).await;
    let busy_before = rig.backend.state(|state| {
        state.busy = true;
        state.times_busy
    });
    rig.backend.until("there is no room again", |state| state.times_busy > busy_before + 1).await;
    rig.backend.make_room();
    sender.await.unwrap();
    assert_eq!(rig.backend.values(), (0..EVENTS).map(f64::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn no_room_for_a_new_series_is_waited_for_too() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    producer.event("old", &[], NOW, 0.0).await;
    producer.barrier().await;
    rig.backend.state(|state| state.busy_resolving = true);
    for value in 1..10 {
        let series = if value == 5 { "new" } else { "old" };
        producer.socket.feed(Message::binary(event(series, &[], NOW, f64::from(value)))).await.unwrap();
    }
    producer.socket.flush().await.unwrap();
    rig.backend.until("it was tried again", |state| state.times_busy >= 2).await;
    assert_eq!(rig.backend.values(), [0.0, 1.0, 2.0, 3.0, 4.0], "what came before is not held up");
    rig.backend.make_room();
    producer.barrier().await;
    assert_eq!(rig.backend.values(), (0..10).map(f64::from).collect::<Vec<_>>());
    assert_eq!(rig.backend.counters.snapshot().messages, 10);
}

#[tokio::test]
async fn while_there_is_no_room_workflows_still_reach_the_producer() {
    let rig = Rig::start().await;
    rig.backend.state(|state| state.busy = true);
    let mut producer = rig.connect().await;
    producer.event("a", &[], NOW, 1.0).await;
    rig.backend.until("there is no room", |state| state.times_busy > 0).await;
    for number in 0..10 {
        rig.producers.send(1, format!("message {number}").as_bytes()).unwrap();
        assert_eq!(producer.next().await.unwrap().unwrap(), Message::text(format!("message {number}")));
    }
    rig.backend.make_room();
    producer.barrier().await;
    assert_eq!(rig.backend.values(), [1.0]);
}

#[tokio::test]
async fn a_failed_storage_closes_with_the_reason() {
    let rig = Rig::start().await;
    let mut old = rig.connect().await;
    old.event("a", &[], NOW, 1.0).await;
    old.barrier().await;
    let long = "the disk is full: ".repeat(20);
    rig.backend.state(|state| state.failed = Some(format!("{long}é")));
    // Both when the point is written and when its series is asked for.
    old.event("a", &[], NOW, 2.0).await;
    let (code, reason) = old.closed().await;
    assert_eq!(code, 1011);
    assert!(reason.len() > 100 && long.starts_with(&reason), "{reason}");
    let mut new = rig.connect().await;
    new.event("b", &[], NOW, 3.0).await;
    assert_eq!(new.closed().await.0, 1011);
    assert_eq!(rig.backend.values(), [1.0]);
}

/// One that is busy all the time must not keep the only thread from another one.
#[tokio::test]
async fn a_firehose_does_not_hold_up_another_producer() {
    let rig = Rig::start().await;
    let mut quiet = rig.connect().await;
    let url = rig.ws_url();
    let firehose = tokio::spawn(async move {
        let mut producer = PlainProducer::connect(&url).await.unwrap();
        let key = SeriesKey::new("firehose", ["some=tag"]).unwrap();
        loop {
            producer.send(NOW, 1.0, &key).await.unwrap();
        }
    });
    rig.backend.until("it has begun", |state| state.stored.len() > 10_000).await;
    for _ in 0..20 {
        let before = rig.backend.state(|state| state.stored.len());
        quiet.event("quiet", &[], NOW, 2.0).await;
        quiet.barrier().await;
        let after = rig.backend.state(|state| state.stored.len());
        // Some batches at most come in between, however fast the machine is.
        assert!(after - before < 1_000_000, "{}", after - before);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    firehose.abort();
    assert_eq!(rig.backend.values().iter().filter(|value| **value == 2.0).count(), 20);
}
