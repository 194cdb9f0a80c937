//! A server of `slung.v1` that does what it is told, however bad, and knows what is durable. It shares no code with the
//! real one but the frames.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use slung_net::v1::{self, Hello, NackCode, Reply};
use slung_net::wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

/// No server takes a message with this value in it.
pub(crate) const BAD: f64 = 13.5;

/// After this time without a message, a commit happens.
const COMMIT: Duration = Duration::from_millis(2);

/// What is done with one message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    /// It is durable with all before it, which is told.
    Ack,
    /// It becomes durable with a later one.
    Hold,
    /// Only when the gate opens; nothing is read meanwhile.
    Gate,
    /// It is refused for now.
    Full,
    /// The connection is gone; what was held may have become durable.
    Drop { is_durable: bool },
    /// It is durable, but the connection ends before that is told.
    Close(u16),
    /// Something that no server may say, by number.
    Garbage(usize),
    /// These messages of a workflow, and an acknowledgement.
    Say(Vec<Message>),
}

/// How a connection begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Start {
    Hello {
        window: u32,
        message_bytes_max: u32,
    },
    /// It is gone before the handshake.
    Gone,
    /// These bytes come as the answer to the handshake.
    Raw(&'static str),
    /// The first word is another.
    NoHello(usize),
    /// The handshake, and nothing more.
    Silence,
}

/// One connection; what comes after the acts is acknowledged at once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Script {
    pub(crate) start: Start,
    pub(crate) acts: Vec<Act>,
}

impl Script {
    pub(crate) fn acts(acts: &[Act]) -> Self {
        Self { start: Start::Hello { window: 8, message_bytes_max: 4 << 20 }, acts: acts.to_vec() }
    }

    pub(crate) fn start(start: Start) -> Self {
        Self { start, acts: Vec::new() }
    }
}

/// An event: series, timestamp, value.
pub(crate) type Stored = (String, i64, f64);

#[derive(Default)]
pub(crate) struct World {
    /// Every event, in the order in which it became durable.
    pub(crate) durable: Vec<Stored>,
    /// How many events each message had.
    pub(crate) messages: Vec<usize>,
    pub(crate) connections: usize,
    /// How each connection ended: the code of the client's close frame, if it sent one.
    pub(crate) ends: Vec<Option<u16>>,
}

pub(crate) struct Scripted {
    addr: SocketAddr,
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) gate: Arc<Notify>,
    pub(crate) changed: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    /// Serves one connection after the other, by one script each; those that come later are served well.
    pub(crate) async fn start(scripts: Vec<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (world, gate, changed) =
            (Arc::<Mutex<World>>::default(), Arc::<Notify>::default(), Arc::<Notify>::default());
        let mut scripts = VecDeque::from(scripts);
        let (shared, opens, notify) = (Arc::clone(&world), Arc::clone(&gate), Arc::clone(&changed));
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let script = scripts.pop_front().unwrap_or_else(|| Script::acts(&[]));
                shared.lock().unwrap().connections += 1;
                let end = serve(tcp, script, &shared, &opens).await;
                shared.lock().unwrap().ends.push(end);
                notify.notify_waiters();
            }
        });
        Self { addr, world, gate, changed, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/", self.addr)
    }

    /// Waits until a connection has ended, and answers with which code the client closed it.
    pub(crate) async fn end(&self, index: usize) -> Option<u16> {
        loop {
            let changed = self.changed.notified();
            if let Some(end) = self.world.lock().unwrap().ends.get(index) {
                return *end;
            }
            changed.await;
        }
    }
}

struct Connection {
    ws: WebSocketStream<TcpStream>,
    message_bytes_max: usize,
    window: u64,
    received: u64,
    answered: u64,
    held: Vec<Stored>,
}

async fn serve(mut tcp: TcpStream, script: Script, world: &Mutex<World>, gate: &Notify) -> Option<u16> {
    match script.start {
        Start::Gone => return None,
        Start::Raw(bytes) => {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.ok()?);
            }
            tcp.write_all(bytes.as_bytes()).await.ok()?;
            return None;
        }
        _ => {}
    }
    #[expect(clippy::result_large_err, reason = "the library's own type")]
    let choose = |request: &Request, mut response: Response| {
        assert_eq!(request.headers()["Sec-WebSocket-Protocol"], "slung.v1");
        response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("slung.v1"));
        Ok(response)
    };
    let ws = tokio_tungstenite::accept_hdr_async(tcp, choose).await.ok()?;
    let mut connection = Connection { ws, message_bytes_max: 0, window: 0, received: 0, answered: 0, held: Vec::new() };
    match script.start {
        Start::Hello { window, message_bytes_max } => {
            connection.message_bytes_max = message_bytes_max as usize;
            connection.window = window.into();
            connection.reply(Reply::Hello(Hello { window, message_bytes_max, commit_interval_ms: 5 })).await;
        }
        Start::NoHello(kind) => {
            connection.garbage(kind).await;
            return None;
        }
        _ => {
            while let Some(Ok(_)) = connection.ws.next().await {}
            return None;
        }
    }
    connection.run(script.acts, world, gate).await
}

impl Connection {
    async fn run(&mut self, acts: Vec<Act>, world: &Mutex<World>, gate: &Notify) -> Option<u16> {
        let mut acts = VecDeque::from(acts);
        loop {
            let message = match tokio::time::timeout(COMMIT, self.ws.next()).await {
                Ok(message) => message,
                Err(_) if self.answered < self.received => {
                    self.commit(world).await;
                    continue;
                }
                Err(_) => self.ws.next().await,
            };
            let frame = match message? {
                Ok(Message::Binary(frame)) => frame,
                Ok(Message::Close(close)) => {
                    // The library answers when it is read on.
                    while let Some(Ok(_)) = self.ws.next().await {}
                    return close.map(|close| close.code.into());
                }
                Ok(_) => continue,
                Err(_) => return None,
            };
            self.received += 1;
            assert!(self.received - self.answered <= self.window, "the window is {}", self.window);
            let events = events(&frame);
            world.lock().unwrap().messages.push(events.len());
            let refusal = match () {
                () if frame.len() > self.message_bytes_max => Some(NackCode::TooBig),
                () if events.iter().any(|(_, _, value)| *value == BAD) => Some(NackCode::Timestamp),
                () => None,
            };
            let act = acts.pop_front().unwrap_or(Act::Ack);
            if let Some(code) = refusal {
                let nack = Reply::Nack { number: self.received, code: code as u16, retryable: false, reason: "bad" };
                self.reply(nack).await;
                if act == Act::Ack {
                    self.commit(world).await;
                }
                continue;
            }
            if act != Act::Full && act != (Act::Drop { is_durable: false }) {
                self.held.extend(events);
            }
            match act {
                Act::Ack => self.commit(world).await,
                Act::Hold => {}
                Act::Gate => {
                    gate.notified().await;
                    self.commit(world).await;
                }
                Act::Full => {
                    let code = NackCode::Storage as u16;
                    self.reply(Reply::Nack { number: self.received, code, retryable: true, reason: "full" }).await;
                }
                Act::Drop { is_durable } => {
                    if is_durable {
                        world.lock().unwrap().durable.append(&mut self.held);
                    }
                    return None;
                }
                Act::Close(code) => {
                    world.lock().unwrap().durable.append(&mut self.held);
                    let close = CloseFrame { code: code.into(), reason: "as scripted".into() };
                    let _ = self.ws.close(Some(close)).await;
                    while let Some(Ok(_)) = self.ws.next().await {}
                    return None;
                }
                Act::Garbage(kind) => {
                    self.garbage(kind).await;
                    // Whatever the client makes of it, this connection is of no use any more.
                    while let Some(Ok(_)) = self.ws.next().await {}
                    return None;
                }
                Act::Say(messages) => {
                    for message in messages {
                        self.ws.send(message).await.unwrap();
                    }
                    self.commit(world).await;
                }
            }
        }
    }

    async fn commit(&mut self, world: &Mutex<World>) {
        world.lock().unwrap().durable.append(&mut self.held);
        self.answered = self.received;
        self.reply(Reply::Ack { through: self.received }).await;
    }

    async fn reply(&mut self, reply: Reply<'_>) {
        let mut frame = Vec::new();
        reply.encode(&mut frame);
        // The client may have gone.
        let _ = self.ws.send(Message::binary(frame)).await;
    }

    /// Thirteen things that a client must not believe.
    async fn garbage(&mut self, kind: usize) {
        let number = self.received;
        let nack = |number| Reply::Nack { number, code: 1, retryable: false, reason: "never sent" };
        let hello = Hello { window: 1 << 20, message_bytes_max: 1, commit_interval_ms: 0 };
        match kind % GARBAGE {
            0 => return self.reply(Reply::Ack { through: number + 1 }).await,
            1 => return self.reply(Reply::Ack { through: u64::MAX }).await,
            2 => return self.reply(nack(number + 1)).await,
            3 => return self.reply(nack(0)).await,
            4 => return self.reply(nack(u64::MAX)).await,
            // As the first word it would be right.
            5 if self.window > 0 => return self.reply(Reply::Hello(hello)).await,
            _ => {}
        }
        let frame: &[u8] = match kind % GARBAGE {
            6 => &[],
            7 => &[4],
            8 => &[2, 1],
            9 => &[3, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0xff],
            // No WebSocket frames: a reserved opcode, a masked one.
            10 | 11 => {
                let bytes: &[u8] = if kind % GARBAGE == 10 { &[0x83, 0] } else { &[0x82, 0x80, 0, 0, 0, 0] };
                let _ = self.ws.get_mut().write_all(bytes).await;
                return;
            }
            _ => &[1; 14],
        };
        let _ = self.ws.send(Message::binary(frame.to_vec())).await;
    }
}

/// How many kinds of garbage there are.
pub(crate) const GARBAGE: usize = 13;

/// The events of a message, which the client must have encoded well.
fn events(frame: &[u8]) -> Vec<Stored> {
    if frame[0] == v1::BLOCK {
        let block = v1::decode_block(&frame[1..]).unwrap();
        let key = wire::decode_key(block.key_bytes()).unwrap().to_string();
        return block.points().map(|(timestamp, value)| (key.clone(), timestamp, value)).collect();
    }
    assert_eq!(frame[0], v1::EVENTS);
    let (mut rest, mut events) = (&frame[1..], Vec::new());
    while !rest.is_empty() {
        let length = event_length(rest);
        let event = wire::decode_event(&rest[..length]).unwrap();
        events.push((event.to_key().to_string(), event.timestamp(), event.value()));
        rest = &rest[length..];
    }
    assert!(!events.is_empty(), "a message without events");
    events
}

fn event_length(bytes: &[u8]) -> usize {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let mut end = 20 + u16_at(16);
    for _ in 0..u16_at(18) {
        end += 2 + u16_at(end);
    }
    end
}
