//! The producer that keeps what is not acknowledged, with the real server before a backend that can be told to misbehave.

use std::time::Duration;

use slung_model::SeriesKey;
use slung_net::ServerOptions;
use slung_net::client::{ClientError, Producer, ProducerOptions, Progress, Received};
use tokio::time::timeout;

use crate::backend::{NOW, PATIENCE};
use crate::rig::Rig;

/// A server whose points are durable at once, and a producer without long pauses.
async fn start(options: ServerOptions) -> (Rig, Producer) {
    let rig = Rig::with(options).await;
    rig.backend.state(|state| state.sync = true);
    let options = ProducerOptions {
        backoff_min: Duration::from_millis(1),
        retry_delay: Duration::from_millis(1),
        ..ProducerOptions::default()
    };
    let producer = Producer::connect(&rig.ws_url(), options).await.unwrap();
    (rig, producer)
}

fn key(number: u32) -> SeriesKey {
    SeriesKey::new("cpu", [format!("host={number}")]).unwrap()
}

async fn flush(producer: &Producer) -> Result<(), ClientError> {
    timeout(PATIENCE, producer.flush()).await.expect("it ends in time")
}

#[tokio::test]
async fn all_is_there_in_order_once_flushed() {
    const EVENTS: u32 = 100_000;
    // A window of few messages is full all the time.
    let (rig, producer) = start(ServerOptions { v1_window: 3, ..ServerOptions::default() }).await;
    for value in 0..EVENTS {
        producer.send(NOW, value.into(), &key(value % 10)).await.unwrap();
    }
    let points: Vec<_> = (EVENTS..2 * EVENTS).map(|value| (NOW, f64::from(value))).collect();
    producer.send_block(&key(0), &points).await.unwrap();
    flush(&producer).await.unwrap();
    assert_eq!(rig.backend.values(), (0..2 * EVENTS).map(f64::from).collect::<Vec<_>>());
    timeout(PATIENCE, producer.close()).await.unwrap().unwrap();
    rig.backend.until("the server has seen it go", |state| state.closed == [1]).await;
}

#[tokio::test]
async fn flushed_is_what_is_durable_and_not_what_is_stored() {
    let (rig, producer) = start(ServerOptions::default()).await;
    rig.backend.state(|state| state.sync = false);
    producer.send(NOW, 1.0, &key(0)).await.unwrap();
    rig.backend.until("it is stored", |state| state.stored.len() == 1).await;
    assert!(timeout(Duration::from_millis(50), producer.flush()).await.is_err());
    rig.backend.commit(None);
    flush(&producer).await.unwrap();
}

#[tokio::test]
async fn what_the_server_refuses_is_told_and_all_else_is_there() {
    let (rig, producer) = start(ServerOptions::default()).await;
    rig.backend
        .state(|state| (state.unwanted, state.series_max, state.points_max) = (Some(1_234.0), Some(5), Some(300)));
    for value in 0..3_000_u32 {
        // Of the sixth series there is one event in a hundred.
        let host = if value % 100 == 50 { 5 } else { value % 5 };
        producer.send(NOW, value.into(), &key(host)).await.unwrap();
    }
    producer.send(NOW + 86_400_000_001, 1.0, &key(0)).await.unwrap();
    let Err(ClientError::Refused(refused)) = flush(&producer).await else { panic!("some are refused") };
    let count = |code: u16| refused.events.iter().filter(|event| event.code == code).count();
    assert_eq!((refused.count, count(3), count(6)), (32, 30, 2), "{refused}");
    assert_eq!(refused.events[0].reason, "too many series");
    assert_eq!(producer.progress(), Progress { taken: 3_001, acknowledged: 2_969, refused: 32 });
    for event in &refused.events {
        assert!(event.number == event.value as u64 + 1 || event.number == 3_001, "{event}");
    }
    let values = rig.backend.values();
    for value in (0..3_000_u32).filter(|value| value % 100 != 50 && *value != 1_234) {
        assert!(values.contains(&value.into()), "{value} is missing");
    }
    assert_eq!(values.last(), Some(&2_999.0));
}

#[tokio::test]
async fn a_full_disk_and_a_failed_one_are_outlived() {
    let (rig, producer) = start(ServerOptions::default()).await;
    rig.backend.state(|state| state.full = true);
    for value in 0..5_000_u32 {
        producer.send(NOW, value.into(), &key(0)).await.unwrap();
    }
    assert!(timeout(Duration::from_millis(50), producer.flush()).await.is_err());
    rig.backend.state(|state| state.full = false);
    flush(&producer).await.unwrap();
    assert_eq!(rig.backend.values().last(), Some(&4_999.0));

    rig.backend.state(|state| state.failed = Some("the disk is broken".into()));
    for value in 5_000..10_000_u32 {
        producer.send(NOW, value.into(), &key(0)).await.unwrap();
    }
    rig.backend.until("the connection was closed, and another one too", |state| state.closed.len() >= 2).await;
    rig.backend.state(|state| state.failed = None);
    flush(&producer).await.unwrap();
    assert_eq!(producer.progress(), Progress { taken: 10_000, acknowledged: 10_000, refused: 0 });
    let mut values = rig.backend.values();
    assert_eq!(values.last(), Some(&9_999.0));
    values.sort_by(f64::total_cmp);
    values.dedup();
    assert_eq!(values.len(), 10_000);
}

#[tokio::test]
async fn what_workflows_answer_arrives() {
    let (rig, producer) = start(ServerOptions::default()).await;
    rig.producers.send(1, b"text").unwrap();
    rig.producers.send(1, b"\xff\xfe").unwrap();
    let received = async || timeout(PATIENCE, producer.receive()).await.unwrap().unwrap().unwrap();
    assert_eq!(received().await, Received::Text("text".to_owned()));
    assert_eq!(received().await, Received::Binary(b"\xff\xfe"[..].into()));
}
