//! Live queries over HTTP: updates come as they are made, nothing grows behind a slow reader, and every end is noticed.

use std::sync::Arc;
use std::time::Duration;

use slung_net::ServerOptions;
use slung_net::client::{ClientError, Updates, live_path};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use crate::backend::PATIENCE;
use crate::http_api::ask;
use crate::rig::Rig;

const QUERY: &str = "COUNT:a:[\"x=y z\"]:[1h]";

impl Rig {
    async fn watch(&self) -> Updates {
        Updates::connect(&format!("http://{}{}", self.addr, live_path(QUERY))).await.unwrap()
    }

    /// What feeds the live query of that index, in the order of their registration.
    fn feed(&self, index: usize) -> UnboundedSender<Arc<[u8]>> {
        self.backend.state(|state| state.live[index].1.clone())
    }
}

fn json(number: usize) -> Arc<[u8]> {
    format!("{{\"value\":{number}}}").into_bytes().into()
}

async fn next(updates: &mut Updates) -> Option<String> {
    let update = timeout(PATIENCE, updates.next()).await.expect("something comes in time").unwrap();
    update.map(|json| String::from_utf8(json.to_vec()).unwrap())
}

/// Waits until the stream of updates is dropped.
async fn dropped(feed: &UnboundedSender<Arc<[u8]>>) {
    timeout(PATIENCE, feed.closed()).await.expect("the stream is dropped in time");
}

#[tokio::test]
async fn updates_come_one_by_one_and_in_order() {
    let rig = Rig::start().await;
    let mut updates = rig.watch().await;
    assert_eq!(rig.backend.state(|state| state.live[0].0.clone()), QUERY);
    let feed = rig.feed(0);
    for number in 0..10 {
        // Each is there before the next one is made.
        feed.send(json(number)).unwrap();
        assert_eq!(next(&mut updates).await.unwrap(), format!("{{\"value\":{number}}}"));
    }
    (10..1_000).for_each(|number| feed.send(json(number)).unwrap());
    for number in 10..1_000 {
        assert_eq!(next(&mut updates).await.unwrap(), format!("{{\"value\":{number}}}"));
    }
    let stats = rig.backend.counters.snapshot();
    assert_eq!((stats.live_streams_now, stats.live_streams_total, stats.live_updates), (1, 1, 1_000));
    // A query that ends, ends its stream.
    drop(feed);
    rig.backend.state(|state| state.live.clear());
    assert_eq!(next(&mut updates).await, None);
}

#[tokio::test]
async fn the_answer_is_a_stream_of_events() {
    let mut rig = Rig::start().await;
    let mut tcp = TcpStream::connect(rig.addr).await.unwrap();
    // Without chunks, so that the body is what is read.
    tcp.write_all(b"GET /api/v1/live?q=a:[] HTTP/1.0\r\n\r\n").await.unwrap();
    rig.backend.until("it is registered", |state| state.live.len() == 1).await;
    rig.feed(0).send(json(1)).unwrap();
    rig.feed(0).send(json(2)).unwrap();
    rig.backend.until("they are taken", |state| state.live_taken == 2).await;
    rig.stop();
    let mut answer = String::new();
    timeout(PATIENCE, tcp.read_to_string(&mut answer)).await.expect("the server closes").unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
    assert!(head.contains("content-type: text/event-stream") && head.contains("cache-control: no-store"), "{head}");
    assert_eq!(body, "data: {\"value\":1}\n\ndata: {\"value\":2}\n\n");
}

#[tokio::test]
async fn silence_is_broken_by_comments() {
    let limit = Duration::from_millis(20);
    // A stream is no request that is late either.
    let options = ServerOptions { live_keep_alive: limit, header_timeout: 2 * limit, ..ServerOptions::default() };
    let rig = Rig::with(options).await;
    let mut tcp = TcpStream::connect(rig.addr).await.unwrap();
    tcp.write_all(b"GET /api/v1/live?q=a:[] HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n:\n\n:\n\n:\n\n:\n\n:\n\n") {
        answer.push(timeout(PATIENCE, tcp.read_u8()).await.expect("a comment").unwrap());
    }
    // The product's own client skips them.
    let mut updates = rig.watch().await;
    let feed = rig.feed(1);
    tokio::spawn(async move {
        tokio::time::sleep(5 * limit).await;
        feed.send(json(7)).unwrap();
    });
    assert_eq!(next(&mut updates).await.unwrap(), "{\"value\":7}");
}

#[tokio::test]
async fn who_goes_away_ends_the_query() {
    let rig = Rig::start().await;
    let updates = rig.watch().await;
    let feed = rig.feed(0);
    assert!(!feed.is_closed());
    drop(updates);
    dropped(&feed).await;

    // One that has sent more than its request is noticed when something is sent to it.
    let rig = Rig::with(ServerOptions { live_keep_alive: Duration::from_millis(20), ..ServerOptions::default() }).await;
    let mut tcp = TcpStream::connect(rig.addr).await.unwrap();
    tcp.write_all(b"GET /api/v1/live?q=a:[] HTTP/1.1\r\nHost: x\r\n\r\nGET /health HTTP/1.1\r\n").await.unwrap();
    rig.backend.until("it is registered", |state| state.live.len() == 1).await;
    let feed = rig.feed(0);
    drop(tcp);
    dropped(&feed).await;
    let gone = async {
        while rig.backend.counters.snapshot().live_streams_now > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.expect("it is counted out");
}

#[tokio::test]
async fn head_asks_for_the_head_alone() {
    let rig = Rig::start().await;
    let (status, head, body) = ask(&rig, "HEAD", "/api/v1/live?q=a:[]", "").await;
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    dropped(&rig.feed(0)).await;
}

/// A client that reads nothing makes the server take no more updates than sockets hold; later it gets every one of them.
#[tokio::test]
async fn a_slow_reader_holds_back_its_own_query_only() {
    const UPDATES: usize = 1_024;
    const BYTES: usize = 64 * 1024;
    let rig = Rig::start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut slow = socket.connect(rig.addr).await.unwrap();
    slow.write_all(b"GET /api/v1/live?q=a:[] HTTP/1.0\r\n\r\n").await.unwrap();
    rig.backend.until("it is registered", |state| state.live.len() == 1).await;
    let feed = rig.feed(0);
    (0..UPDATES).for_each(|number| feed.send(format!("{}{number}", " ".repeat(BYTES)).into_bytes().into()).unwrap());
    let taken = || rig.backend.state(|state| state.live_taken);
    let mut before = usize::MAX;
    while taken() != before {
        before = taken();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(taken() < UPDATES / 2, "{} of {UPDATES} updates taken for one who reads none", taken());

    let mut other = rig.watch().await;
    rig.feed(1).send(json(1)).unwrap();
    assert_eq!(next(&mut other).await.unwrap(), "{\"value\":1}");

    // The query ends behind them.
    rig.backend.state(|state| state.live.clear());
    drop(feed);
    let mut answer = String::new();
    timeout(PATIENCE, slow.read_to_string(&mut answer)).await.expect("all of it").unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let numbers =
        body.split_terminator("\n\n").map(|event| event["data: ".len()..].trim_start().parse::<usize>().unwrap());
    assert!(numbers.eq(0..UPDATES), "one is missing");
}

/// Neither one that waits nor one whose reader has stopped reading.
#[tokio::test]
async fn streams_do_not_hold_up_the_end() {
    let patient = ServerOptions { drain_timeout: 2 * PATIENCE, ..ServerOptions::default() };
    let mut rig = Rig::with(patient).await;
    let mut idle = rig.watch().await;
    let stuck = rig.watch().await;
    let feed = rig.feed(1);
    (0..1_000).for_each(|_| feed.send(vec![b'x'; 64 * 1024].into()).unwrap());
    rig.backend.until("some are taken", |state| state.live_taken > 0).await;
    rig.stop();
    assert_eq!(next(&mut idle).await, None, "an end, not a broken connection");
    rig.ended().await;
    assert!(feed.is_closed() && rig.feed(0).is_closed());
    assert_eq!(rig.backend.counters.snapshot().live_streams_now, 0);
    drop(stuck);
}

#[tokio::test]
async fn one_stream_too_many_is_told_so() {
    let rig = Rig::with(ServerOptions { live_streams_max: 2, ..ServerOptions::default() }).await;
    let (first, _second) = (rig.watch().await, rig.watch().await);
    let (status, head, body) = ask(&rig, "GET", "/api/v1/live?q=a:[]", "").await;
    assert_eq!(status, 503);
    assert!(head.contains("content-type: application/json") && head.contains("retry-after: 10"), "{head}");
    let wanted = r#"{"error":{"code":"too_many_streams","message":"2 live queries and logs are streamed, the most that are allowed"}}"#;
    assert_eq!(body, wanted);
    assert_eq!(rig.backend.state(|state| state.live.len()), 2, "the backend was not asked");
    assert_eq!(rig.backend.counters.snapshot().live_streams_refused, 1);

    // A place that is free again is given to the next one, and refused queries take none.
    drop(first);
    dropped(&rig.feed(0)).await;
    for _ in 0..3 {
        assert_eq!(ask(&rig, "GET", "/api/v1/live?q=nonsense", "").await.0, 400);
    }
    let again = async {
        let url = format!("http://{}{}", rig.addr, live_path(QUERY));
        while Updates::connect(&url).await.is_err() {}
    };
    timeout(PATIENCE, again).await.expect("there is room again");
}

#[tokio::test]
async fn the_client_says_why_there_is_no_stream() {
    let rig = Rig::start().await;
    let refused = |path: &'static str| {
        let url = format!("http://{}{path}", rig.addr);
        async move { Updates::connect(&url).await.unwrap_err() }
    };
    for (path, wanted, text) in
        [("/api/v1/live?q=a:x", 400, "bad_query"), ("/nothing", 404, "not_found"), ("/health", 200, "ok")]
    {
        match refused(path).await {
            ClientError::NoStream { status, body, .. } => {
                assert_eq!(status, wanted);
                assert!(String::from_utf8_lossy(&body).contains(text), "{body:?}");
            }
            other => panic!("{other}"),
        }
    }
    rig.backend.state(|state| state.failed = Some("no space".into()));
    assert!(matches!(refused("/api/v1/live?q=a:[]").await, ClientError::NoStream { status: 503, .. }));
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_an_error() {
    let rig = Rig::with(ServerOptions { drain_timeout: PATIENCE, ..ServerOptions::default() }).await;
    let mut updates = rig.watch().await;
    rig.running.abort();
    let broken = timeout(PATIENCE, updates.next()).await.expect("it is noticed");
    assert!(matches!(broken, Err(ClientError::Lost(_))), "{broken:?}");
}
