//! Producers that cost next to nothing: frames that are made before, of which only the times change, written as raw bytes.
//! Two cores do all the work, so what a loader takes is not there for the server.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use slung_benches::{Random, START, STEP};
use tokio::net::TcpSocket;

use crate::Result;

/// Series of one load.
pub(crate) const SERIES: usize = 10;
/// Events in a batch, points in a block.
pub(crate) const BATCH: usize = 1_000;
/// How long any answer may take before the bench gives up: generous, as machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Opcodes of RFC 6455, with FIN.
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
/// Kinds of frames in `slung.v1`.
const EVENTS: u8 = 0;
const BLOCK: u8 = 1;

/// What every frame of a load holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One event, as the plain protocol has it.
    Plain,
    /// A batch of events, as `slung.v1` has it.
    Batch,
    /// A block of points of one series, as `slung.v1` has it.
    Block,
}

impl Shape {
    pub(crate) fn protocol(self) -> &'static str {
        if self == Self::Plain { "slung.plain" } else { "slung.v1" }
    }
}

/// Where eight bytes stand in a write, and what they are masked with.
type Place = (usize, u64);

/// A write's worth of frames, masked, as they go to the socket.
pub(crate) struct Load {
    bytes: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<usize>,
    /// Timestamp and value of each event.
    events: Vec<(Place, Place)>,
    next: i64,
    random: Random,
}

impl Load {
    /// Some 200 KB of frames. `sender` is part of the tags, so that no two of them write to the same series.
    pub(crate) fn new(shape: Shape, sender: usize) -> Self {
        let frames = match shape {
            Shape::Plain => 4_096,
            Shape::Batch => 5,
            Shape::Block => 2 * SERIES,
        };
        let (bytes, ends, events) = (Vec::new(), Vec::new(), Vec::new());
        let mut load = Self { bytes, ends, events, next: START, random: Random::default() };
        for frame in 0..frames {
            match shape {
                Shape::Plain => load.push(&event_bytes(0, 0.0, &key_bytes(sender, frame % SERIES)), [(0, 8)]),
                Shape::Batch => {
                    let mut payload = vec![EVENTS];
                    let mut places = Vec::new();
                    for event in 0..BATCH {
                        places.push((payload.len(), payload.len() + 8));
                        payload.extend(event_bytes(0, 0.0, &key_bytes(sender, event % SERIES)));
                    }
                    load.push(&payload, places);
                }
                Shape::Block => {
                    let mut payload = vec![BLOCK];
                    payload.extend(key_bytes(sender, frame % SERIES));
                    payload.extend(u32::try_from(BATCH).expect("small").to_le_bytes());
                    let start = payload.len();
                    payload.extend([0; 16 * BATCH]);
                    load.push(&payload, (0..BATCH).map(|point| (start + 8 * point, start + 8 * (BATCH + point))));
                }
            }
        }
        load
    }

    /// Adds a frame, in which timestamps and values stand at those places.
    fn push(&mut self, payload: &[u8], events: impl IntoIterator<Item = (usize, usize)>) {
        let random = self.random.bits();
        let (at, mask) = (frame(BINARY, payload, random, &mut self.bytes), mask_of(random));
        let place =
            |place: usize| (at + place, u64::from_le_bytes(std::array::from_fn(|index| mask[(place + index) % 4])));
        self.events.extend(events.into_iter().map(|(timestamp, value)| (place(timestamp), place(value))));
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn events(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn frames(&self) -> usize {
        self.ends.len()
    }

    /// The next frames, each event with a time that none had before, and any value.
    pub(crate) fn renew(&mut self) -> &[u8] {
        let mut put =
            |(at, mask): Place, bits: u64| self.bytes[at..at + 8].copy_from_slice(&(bits ^ mask).to_le_bytes());
        for (timestamp, value) in &self.events {
            put(*timestamp, self.next.cast_unsigned());
            put(*value, self.random.value().to_bits());
            self.next += STEP;
        }
        &self.bytes
    }

    /// The frames as they are, one after the other.
    pub(crate) fn each(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::zip(std::iter::once(&0).chain(&self.ends), &self.ends).map(|(start, end)| &self.bytes[*start..*end])
    }
}

/// Appends a frame as a client sends it; returns where its payload begins.
pub(crate) fn frame(opcode: u8, payload: &[u8], random: u64, out: &mut Vec<u8>) -> usize {
    out.push(opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => out.push(0x80 | length),
        (_, Ok(length)) => {
            out.push(0x80 | 126);
            out.extend(length.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    let mask = mask_of(random);
    out.extend(mask);
    let at = out.len();
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    at
}

fn mask_of(random: u64) -> [u8; 4] {
    let [a, b, c, d, ..] = random.to_le_bytes();
    [a, b, c, d]
}

/// An event in a frame of its own, as the plain protocol has it, or as `slung.v1` does.
pub(crate) fn single(shape: Shape, timestamp: i64, value: f64, random: u64) -> Vec<u8> {
    let mut payload = if shape == Shape::Plain { Vec::new() } else { vec![EVENTS] };
    payload.extend(event_bytes(timestamp, value, &key_bytes(0, 1)));
    let mut out = Vec::new();
    frame(BINARY, &payload, random, &mut out);
    out
}

/// The layout of the wire format, written out once more so that the product's encoder is not its own judge. 44 bytes.
fn event_bytes(timestamp: i64, value: f64, key: &[u8]) -> Vec<u8> {
    [&timestamp.to_le_bytes()[..], &value.to_le_bytes(), key].concat()
}

fn key_bytes(sender: usize, series: usize) -> Vec<u8> {
    let (name, tags) = ("temp", [format!("sensor={series}"), format!("from=s-{sender}")]);
    let mut bytes = Vec::new();
    bytes.extend(u16::try_from(name.len()).expect("short").to_le_bytes());
    bytes.extend(u16::try_from(tags.len()).expect("few").to_le_bytes());
    bytes.extend(name.as_bytes());
    for tag in tags {
        bytes.extend(u16::try_from(tag.len()).expect("short").to_le_bytes());
        bytes.extend(tag.as_bytes());
    }
    bytes
}

/// A query over everything that a sender has stored.
pub(crate) fn count_of(sender: usize) -> String {
    format!("COUNT:temp:[from=s-{sender}]")
}

/// What comes from the server.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    Hello,
    Ack { through: u64 },
    Text(Vec<u8>),
    Pong,
}

/// One connection.
pub(crate) struct Producer {
    pub(crate) outgoing: Outgoing,
    pub(crate) incoming: Incoming,
}

impl Producer {
    pub(crate) fn connect(server: SocketAddr, protocol: &str) -> Result<Self> {
        Self::upgrade(TcpStream::connect(server)?, protocol)
    }

    /// From an address of the loopback range, of which there are 16 million.
    pub(crate) async fn connect_from(address: [u8; 4], server: SocketAddr, protocol: &str) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((address, 0).into())?;
        let stream = socket.connect(server).await?.into_std()?;
        stream.set_nonblocking(false)?;
        Self::upgrade(stream, protocol)
    }

    fn upgrade(stream: TcpStream, protocol: &str) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n",
            stream.peer_addr()?
        );
        let stream = Arc::new(stream);
        let mut outgoing = Outgoing(Arc::clone(&stream));
        outgoing.write_all(request.as_bytes())?;
        let mut incoming = Incoming { stream, bytes: Vec::new(), used: 0 };
        let head = loop {
            if let Some(end) = incoming.bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            incoming.read_more()?;
        };
        if !incoming.bytes.starts_with(b"HTTP/1.1 101") {
            return Err(String::from_utf8_lossy(&incoming.bytes).into());
        }
        incoming.used = head;
        Ok(Self { outgoing, incoming })
    }

    /// Returns when everything that was sent is stored: only then is a ping answered.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let mut ping = Vec::new();
        frame(PING, b"", 0, &mut ping);
        self.outgoing.write_all(&ping)?;
        while self.incoming.next()? != Message::Pong {}
        Ok(())
    }
}

/// Where frames are written to, as they are. Shares its file descriptor with [`Incoming`]: ten thousand take no more.
pub(crate) struct Outgoing(Arc<TcpStream>);

impl Outgoing {
    pub(crate) fn write_all(&mut self, frames: &[u8]) -> std::io::Result<()> {
        (&*self.0).write_all(frames)
    }
}

/// What the server sends on one connection.
pub(crate) struct Incoming {
    stream: Arc<TcpStream>,
    bytes: Vec<u8>,
    used: usize,
}

impl Incoming {
    /// Waits for the next message.
    pub(crate) fn next(&mut self) -> Result<Message> {
        loop {
            let rest = &self.bytes[self.used..];
            if let Some((&[opcode, length], rest)) = rest.split_first_chunk() {
                let (extended, length) = match length {
                    126 => (2, rest.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)))),
                    127 => return Err("a message of more than 64 KiB".into()),
                    length => (0, Some(usize::from(length))),
                };
                if let Some(length) = length
                    && let Some(payload) = rest.get(extended..extended + length)
                {
                    let message = decode(opcode, payload);
                    self.used += 2 + extended + length;
                    return message;
                }
            }
            self.read_more()?;
        }
    }

    fn read_more(&mut self) -> Result<()> {
        self.bytes.drain(..self.used);
        self.used = 0;
        let mut more = [0; 4096];
        loop {
            match (&*self.stream).read(&mut more) {
                Ok(0) => return Err("the server has hung up".into()),
                Ok(read) => {
                    self.bytes.extend_from_slice(&more[..read]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("nothing comes from the server: {error}").into()),
            }
        }
    }
}

fn decode(opcode: u8, payload: &[u8]) -> Result<Message> {
    match (opcode, payload) {
        (0x81, _) => Ok(Message::Text(payload.to_vec())),
        (0x8a, _) => Ok(Message::Pong),
        (0x82, [1, ..]) => Ok(Message::Hello),
        (0x82, [2, through @ ..]) => Ok(Message::Ack { through: u64::from_le_bytes(through.try_into()?) }),
        (0x82, [3, ..]) => {
            Err(format!("refused: {}", String::from_utf8_lossy(payload.get(12..).unwrap_or_default())).into())
        }
        _ => Err(format!("unexpected frame {opcode:#x}: {}", String::from_utf8_lossy(payload)).into()),
    }
}
