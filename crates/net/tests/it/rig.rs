//! A running server, and the clients that the tests bring: one that others wrote, and one that writes bytes.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use slung_model::SeriesKey;
use slung_net::{IN_FLIGHT_BYTES_MAX, Memory, Producers, QUEUE_BYTES_MAX, Server, ServerOptions, wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::backend::{Fake, PATIENCE};

pub(crate) struct Rig {
    pub(crate) addr: SocketAddr,
    pub(crate) backend: Arc<Fake>,
    pub(crate) producers: Producers,
    pub(crate) running: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(ServerOptions::default()).await
    }

    pub(crate) async fn with(options: ServerOptions) -> Self {
        Self::with_memory(options, IN_FLIGHT_BYTES_MAX).await
    }

    /// Everything in flight may take so many bytes.
    pub(crate) async fn with_memory(options: ServerOptions, in_flight_bytes_max: usize) -> Self {
        let backend = Fake::new();
        let memory = Memory::new(in_flight_bytes_max);
        let producers = Producers::new(QUEUE_BYTES_MAX, memory, Arc::clone(&backend.counters));
        let behind: Arc<Fake> = Arc::clone(&backend);
        let server = Server::bind("127.0.0.1:0", options, behind, producers.clone()).await.unwrap();
        let addr = server.local_addr();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run(async { drop(stopped.await) }));
        Self { addr, backend, producers, running, stop: Some(stop) }
    }

    /// Tells the server to stop.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until it has.
    pub(crate) async fn ended(&mut self) {
        timeout(PATIENCE, &mut self.running).await.expect("the server ends in time").unwrap();
    }

    pub(crate) fn ws_url(&self) -> String {
        format!("ws://{}/", self.addr)
    }

    pub(crate) async fn connect(&self) -> Ws {
        let (socket, _) = tokio_tungstenite::connect_async(self.ws_url()).await.expect("it connects");
        Ws { socket }
    }

    /// Sends a request as it stands, and reads the answer until the server closes.
    pub(crate) async fn raw(&self, request: impl AsRef<[u8]>) -> String {
        let mut tcp = TcpStream::connect(self.addr).await.unwrap();
        // The server may close before it has read all.
        let _ = tcp.write_all(request.as_ref()).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, tcp.read_to_end(&mut answer)).await.expect("the server closes");
        String::from_utf8(answer).unwrap()
    }

    /// A connection that is a producer's, to write any bytes to.
    pub(crate) async fn raw_producer(&self) -> TcpStream {
        self.raw_upgraded("").await
    }

    /// The same, with that behind the path.
    pub(crate) async fn raw_upgraded(&self, parameters: &str) -> TcpStream {
        let mut tcp = TcpStream::connect(self.addr).await.unwrap();
        tcp.write_all(HANDSHAKE.replacen("GET /", &format!("GET /{parameters}"), 1).as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(PATIENCE, tcp.read_u8()).await.expect("an answer").unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        tcp
    }
}

/// An address at which nobody listens, as long as the socket is held.
pub(crate) fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// What a producer says first.
pub(crate) const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A producer with a library that is not ours.
pub(crate) struct Ws {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Ws {
    pub(crate) async fn send(&mut self, message: Message) {
        self.socket.send(message).await.expect("the connection is there");
    }

    pub(crate) async fn event(&mut self, series: &str, tags: &[&str], timestamp: i64, value: f64) {
        self.send(Message::binary(event(series, tags, timestamp, value))).await;
    }

    /// The next message, whatever it is.
    pub(crate) async fn next(&mut self) -> Option<Result<Message, Error>> {
        timeout(PATIENCE, self.socket.next()).await.expect("something comes in time")
    }

    /// Waits until everything that was sent is stored: the server answers a ping after that.
    pub(crate) async fn barrier(&mut self) {
        self.send(Message::Ping(Bytes::from_static(b"all of it?"))).await;
        let answer = self.next().await;
        assert!(matches!(&answer, Some(Ok(Message::Pong(data))) if &data[..] == b"all of it?"), "{answer:?}");
    }

    /// The code and reason with which the server closes; nothing else may come before.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        match self.next().await {
            Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => (code.into(), reason.as_str().to_owned()),
            other => panic!("{other:?} and no close frame"),
        }
    }

    /// Closes as a producer does that is done: what was sent is stored after this.
    pub(crate) async fn close(mut self) {
        self.socket.close(None).await.unwrap();
        while self.next().await.is_some() {}
    }
}

/// An event in the binary layout.
pub(crate) fn event(series: &str, tags: &[&str], timestamp: i64, value: f64) -> Vec<u8> {
    let mut frame = Vec::new();
    wire::encode_event(timestamp, value, &SeriesKey::new(series, tags).unwrap(), &mut frame);
    frame
}

/// An event in the binary layout, whatever it is.
pub(crate) fn any_event(series: &[u8], tags: &[&[u8]], timestamp: i64, value: f64) -> Vec<u8> {
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_le_bytes();
    let mut frame = [&timestamp.to_le_bytes()[..], &value.to_le_bytes()].concat();
    frame.extend(length(series));
    frame.extend(u16::try_from(tags.len()).unwrap().to_le_bytes());
    frame.extend(series);
    for tag in tags {
        frame.extend(length(tag));
        frame.extend(*tag);
    }
    frame
}

/// A WebSocket frame as a client sends it: the first byte as it is, the payload masked.
pub(crate) fn ws_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length @ ..65_536 => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
