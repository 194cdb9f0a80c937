//! How the server ends: what has arrived is stored, everybody is told, and nobody can hold it up for long.

use std::time::Duration;

use futures_util::SinkExt;
use slung_model::SeriesKey;
use slung_net::client::{ClientError, PlainProducer};
use slung_net::{ServerOptions, client};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::backend::NOW;
use crate::rig::{Rig, event};

#[tokio::test]
async fn producers_are_told_of_a_restart_and_nothing_that_arrived_is_lost() {
    let mut rig = Rig::start().await;
    let mut producers = [rig.connect().await, rig.connect().await];
    for (index, producer) in producers.iter_mut().enumerate() {
        producer.barrier().await;
        for value in 0..1_000 {
            producer.socket.feed(Message::binary(event("a", &[], NOW + index as i64, f64::from(value)))).await.unwrap();
        }
        producer.socket.flush().await.unwrap();
    }
    rig.stop();
    for producer in &mut producers {
        assert_eq!(producer.closed().await, (1012, "the server stops".to_owned()));
        assert!(producer.next().await.is_none(), "the handshake is completed by the server");
    }
    rig.ended().await;
    assert_eq!(rig.backend.state(|state| state.stored.len()), 2_000);
    assert_eq!(rig.backend.state(|state| state.closed.len()), 2);
    assert!(TcpStream::connect(rig.addr).await.is_err(), "nobody listens any more");
    let stats = rig.backend.counters.snapshot();
    assert_eq!((stats.connections_now, stats.producers_now), (0, 0));
}

/// A producer that sends without a pause learns of the close frame only when it reads; what it had sent until then came
/// in order and is stored.
#[tokio::test]
async fn what_is_sent_until_the_close_frame_is_answered_is_stored() {
    let mut rig = Rig::start().await;
    let (mut sender, mut receiver) = PlainProducer::connect(&rig.ws_url()).await.unwrap().split();
    let sending = tokio::spawn(async move {
        let key = SeriesKey::new("a", ["b"]).unwrap();
        let mut sent = 0_u64;
        while sender.send(NOW, sent as f64, &key).await.is_ok() {
            sent += 1;
        }
        sent
    });
    rig.backend.until("some are stored", |state| state.stored.len() > 10_000).await;
    rig.stop();
    let told = receiver.receive().await.unwrap_err();
    assert!(matches!(told, ClientError::Closed { code: 1012, .. }), "{told}");
    // The library answers the close frame when it is asked for the next message.
    let _ = receiver.receive().await;
    let sent = sending.await.unwrap();
    rig.ended().await;
    let values = rig.backend.values();
    assert!(values.len() as u64 <= sent);
    assert!(values.iter().enumerate().all(|(index, value)| *value == index as f64), "one is missing");
}

#[tokio::test]
async fn messages_that_wait_for_a_producer_go_out_before_the_close_frame() {
    let mut rig = Rig::start().await;
    let mut producer = rig.connect().await;
    producer.barrier().await;
    for number in 0..10 {
        rig.producers.send(1, number.to_string().as_bytes()).unwrap();
    }
    rig.stop();
    for number in 0..10 {
        assert_eq!(producer.next().await.unwrap().unwrap(), Message::text(number.to_string()));
    }
    assert_eq!(producer.closed().await.0, 1012);
    rig.ended().await;
}

#[tokio::test]
async fn one_that_never_answers_the_close_frame_is_dropped() {
    let mut rig =
        Rig::with(ServerOptions { close_timeout: Duration::from_millis(50), ..ServerOptions::default() }).await;
    // Held, but never read.
    let producer = rig.raw_producer().await;
    let idle = TcpStream::connect(rig.addr).await.unwrap();
    rig.stop();
    rig.ended().await;
    drop((producer, idle));
}

#[tokio::test]
async fn a_backend_that_never_has_room_does_not_hold_the_end_up() {
    let mut rig =
        Rig::with(ServerOptions { drain_timeout: Duration::from_millis(300), ..ServerOptions::default() }).await;
    rig.backend.state(|state| state.busy = true);
    let mut producer = rig.connect().await;
    producer.event("a", &[], NOW, 1.0).await;
    rig.backend.until("there is no room", |state| state.times_busy > 0).await;
    rig.stop();
    rig.ended().await;
    assert_eq!(rig.backend.state(|state| state.closed.clone()), [1], "it is closed all the same");
}

#[tokio::test]
async fn what_waits_for_room_is_stored_when_there_is_some_in_time() {
    let mut rig = Rig::start().await;
    rig.backend.state(|state| state.busy = true);
    let mut producer = rig.connect().await;
    producer.event("a", &[], NOW, 1.0).await;
    rig.backend.until("there is no room", |state| state.times_busy > 0).await;
    rig.stop();
    let tried = rig.backend.state(|state| state.times_busy);
    rig.backend.until("it is tried again", |state| state.times_busy > tried).await;
    rig.backend.make_room();
    assert_eq!(producer.closed().await.0, 1012);
    assert!(producer.next().await.is_none());
    rig.ended().await;
    assert_eq!(rig.backend.values(), [1.0]);
}

#[tokio::test]
async fn a_request_under_way_is_answered() {
    let mut rig = Rig::start().await;
    let url = format!("http://{}{}", rig.addr, client::query_path("COUNT:slow:[]"));
    let asked = tokio::spawn(async move { client::http_get(&url).await.unwrap() });
    rig.backend.until("it is asked", |state| state.resolved == 1).await;
    rig.stop();
    rig.backend.query_gate.notify_one();
    let (status, _) = asked.await.unwrap();
    assert_eq!(status, 200);
    rig.ended().await;
}
