//! One producer's WebSocket: reads events, writes what workflows answer; neither direction waits for the other.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use slung_model::{ProducerId, Seq};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocket, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::{debug, info, warn};

use crate::intake::{Intake, Stopped};
use crate::producers::Outbox;
use crate::server::Shared;
use crate::socket::Socket;
use crate::stats::{FrameRefusal, add};

/// How much is read from the kernel at once, bytes. Every connection keeps a buffer of this size, and the library
/// clears all of it before each read: 128 KiB take in no more events a second, but cost each that comes alone 2 µs.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Replies are collected up to this size before they are written, bytes. All are written before anything is awaited.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;
/// What is read from one connection before the others on its thread have their turn, bytes: a millisecond of work.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Events that go to the backend in one write at most: 4,096 are about a millisecond of work, with the backend's.
const BATCH_EVENTS_MAX: usize = 4_096;
/// While the backend has no room, the write is tried again after this time even if nothing was synced: that is how a
/// failed storage is noticed.
const BUSY_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// The reason in a close frame, bytes: a control frame has at most 125, two of them for the code.
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// How a connection comes to its end.
enum End {
    /// Both sides have said so.
    Closed,
    /// The peer is not there any more.
    Gone(String),
    /// The peer is to be told why.
    Fail(CloseCode, String),
}

/// Why no more is read for now.
enum Took {
    /// All that had arrived.
    All,
    /// A batch is full, or must be stored before something else happens; or the others are to have their turn.
    Batch,
    /// The backend has no room for the next message.
    Busy,
    /// The last message.
    End(End),
}

struct Connection<'a> {
    shared: &'a Shared,
    ws: WebSocket<Socket>,
    intake: Intake,
    outbox: Arc<Outbox>,
    durable: watch::Receiver<Seq>,
    /// Read, but the backend had no room for it.
    held: Option<Message>,
    /// The library holds bytes that were not written yet.
    unflushed: bool,
    /// The kernel takes no more bytes for now.
    blocked: bool,
    /// A close frame is on its way, ours or theirs: when the other side has to be done.
    deadline: Option<Instant>,
}

/// Takes a producer in, and out again, whatever ends the connection.
struct Registered<'a> {
    shared: &'a Shared,
    id: ProducerId,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.shared.producers.close(self.id);
        self.shared.backend.producer_closed(self.id);
    }
}

/// Serves a connection that was upgraded to the plain protocol, to its end. `read_ahead` is what the peer sent right
/// behind its handshake. When `stop` turns true, what has arrived is stored, the peer is told (1012), and what it sends
/// until it answers is stored too.
pub(crate) async fn serve(
    shared: &Shared,
    tcp: TcpStream,
    read_ahead: Vec<u8>,
    peer: SocketAddr,
    stop: &mut watch::Receiver<bool>,
) {
    let (id, outbox) = shared.producers.open(peer, "slung.plain", shared.backend.now_micros());
    let _registered = Registered { shared, id };
    debug!(producer = id.get(), %peer, "connected");
    let message_bytes_max = Some(shared.options.message_bytes_max);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(message_bytes_max)
        .max_frame_size(message_bytes_max);
    let mut connection = Connection {
        shared,
        ws: WebSocket::from_partially_read(Socket::new(tcp, BATCH_BYTES_MAX), read_ahead, Role::Server, Some(config)),
        intake: Intake::new(Arc::clone(&shared.backend), Arc::clone(&shared.counters), id),
        outbox,
        durable: shared.backend.durable(),
        held: None,
        unflushed: false,
        blocked: false,
        deadline: None,
    };
    match connection.run(stop).await {
        End::Closed => debug!(producer = id.get(), "disconnected"),
        End::Gone(why) => info!(producer = id.get(), %peer, "connection lost: {why}"),
        End::Fail(code, why) => {
            warn!(producer = id.get(), %peer, "closing with {}: {why}", u16::from(code));
            connection.fail(code, &why).await;
        }
    }
}

impl Connection<'_> {
    async fn run(&mut self, stop: &mut watch::Receiver<bool>) -> End {
        loop {
            if let Err(end) = self.send_waiting() {
                return end;
            }
            let took = self.read();
            if let Err(end) = self.store().await {
                return end;
            }
            let stopping = *stop.borrow() || stop.has_changed().is_err();
            if stopping
                && self.deadline.is_none()
                && let Err(end) = self.start_close(CloseCode::Restart, "the server stops")
            {
                return end;
            }
            match took {
                Took::All => self.wait(stop).await,
                Took::Batch => {
                    tokio::task::yield_now().await;
                    self.ws.get_mut().allow(BATCH_BYTES_MAX);
                }
                Took::Busy => {
                    if let Err(end) = self.wait_for_room().await {
                        return end;
                    }
                }
                Took::End(end) => return end,
            }
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return End::Gone("the closing handshake was not finished in time".into());
            }
        }
    }

    /// Takes messages as far as they have arrived and fit into a batch.
    fn read(&mut self) -> Took {
        self.ws.get_mut().resume();
        self.durable.mark_unchanged();
        self.intake.start_batch();
        while self.intake.waiting() < BATCH_EVENTS_MAX {
            let message = match self.held.take() {
                Some(message) => message,
                None => match self.ws.read() {
                    Ok(message) => message,
                    Err(error) if would_block(&error) => {
                        return if self.ws.get_ref().is_spent() { Took::Batch } else { Took::All };
                    }
                    Err(error) => return Took::End(self.end_of(error)),
                },
            };
            let taken = match &message {
                Message::Binary(frame) => self.intake.take_binary(frame),
                Message::Text(text) => self.intake.take_text(text),
                // The answer goes out once all before it is stored, so it says so to a producer that wants to know.
                Message::Ping(_) => {
                    self.unflushed = true;
                    return Took::Batch;
                }
                // So does the answer to a close frame; it is the last that goes out.
                Message::Close(_) => {
                    self.unflushed = true;
                    self.outbox.close();
                    self.deadline.get_or_insert(Instant::now() + self.shared.options.close_timeout);
                    return Took::Batch;
                }
                Message::Pong(_) | Message::Frame(_) => Ok(()),
            };
            match taken {
                Ok(()) => {}
                Err(Stopped::Busy) => {
                    self.held = Some(message);
                    return Took::Busy;
                }
                Err(Stopped::Storage(why)) => return Took::End(End::Fail(CloseCode::Error, why)),
            }
        }
        Took::Batch
    }

    /// Hands the batch to the backend, and waits where it has no room: the socket is not read meanwhile.
    async fn store(&mut self) -> Result<(), End> {
        loop {
            // Before the attempt: what is synced after it must be seen.
            self.durable.mark_unchanged();
            match self.intake.store() {
                Ok(()) => return Ok(()),
                Err(Stopped::Busy) => self.wait_for_room().await?,
                Err(Stopped::Storage(why)) => return Err(End::Fail(CloseCode::Error, why)),
            }
        }
    }

    async fn wait_for_room(&mut self) -> Result<(), End> {
        add(&self.shared.counters.busy_waits, 1);
        let retry = Instant::now() + BUSY_RETRY_INTERVAL;
        loop {
            let tcp = self.ws.get_ref().tcp();
            tokio::select! {
                // Without a sender nothing will be synced any more; the write then says what is wrong.
                Ok(()) = self.durable.changed() => return Ok(()),
                () = tokio::time::sleep_until(retry) => return Ok(()),
                () = self.outbox.arrived(), if !self.blocked => {}
                _ = tcp.writable(), if self.blocked => {}
            }
            self.send_waiting()?;
        }
    }

    /// Until there is something to read, to write, or to end.
    async fn wait(&self, stop: &mut watch::Receiver<bool>) {
        let tcp = self.ws.get_ref().tcp();
        let closing = self.deadline.is_some();
        tokio::select! {
            _ = tcp.readable() => {}
            _ = tcp.writable(), if self.blocked => {}
            () = self.outbox.arrived(), if !self.blocked && !closing => {}
            _ = stop.changed(), if !closing => {}
            () = tokio::time::sleep_until(self.deadline.unwrap_or_else(Instant::now)), if closing => {}
        }
    }

    /// Writes what waits for this producer, as far as the kernel takes it. While it takes nothing, nothing leaves the
    /// queue: what a slow reader can make us hold is the queue, one write buffer and one message.
    fn send_waiting(&mut self) -> Result<(), End> {
        if (self.blocked || self.unflushed) && !self.flush()? {
            return Ok(());
        }
        // Not more than wait now: reading has its turn, and whatever comes later wakes this connection again.
        for _ in 0..self.outbox.len() {
            let Some(message) = self.outbox.pop() else { break };
            self.write(message)?;
            if self.blocked {
                return Ok(());
            }
        }
        if self.unflushed {
            self.flush()?;
        }
        Ok(())
    }

    fn write(&mut self, message: Message) -> Result<(), End> {
        self.unflushed = true;
        match self.ws.write(message) {
            Ok(()) => Ok(()),
            // The library has it, and goes on with the next flush.
            Err(error) if would_block(&error) => {
                self.blocked = true;
                Ok(())
            }
            Err(error) => Err(self.end_of(error)),
        }
    }

    /// Whether everything has been written.
    fn flush(&mut self) -> Result<bool, End> {
        match self.ws.flush() {
            Ok(()) => {
                (self.unflushed, self.blocked) = (false, false);
                Ok(true)
            }
            Err(error) if would_block(&error) => {
                self.blocked = true;
                Ok(false)
            }
            Err(error) => Err(self.end_of(error)),
        }
    }

    /// Says that this side is done, behind everything that was queued before.
    fn start_close(&mut self, code: CloseCode, reason: &str) -> Result<(), End> {
        self.outbox.close();
        self.deadline = Some(Instant::now() + self.shared.options.close_timeout);
        while let Some(message) = self.outbox.pop() {
            self.write(message)?;
        }
        let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
        self.unflushed = true;
        match self.ws.close(Some(CloseFrame { code, reason: reason.into() })) {
            Err(error) if !would_block(&error) => Err(self.end_of(error)),
            _ => self.flush().map(drop),
        }
    }

    /// Tells the peer why, and then throws away what it still sends until it has gone: to close a socket that holds
    /// unread bytes is a reset, which may overtake the reason.
    async fn fail(mut self, code: CloseCode, reason: &str) {
        let deadline = Instant::now() + self.shared.options.close_timeout;
        let written = async {
            self.start_close(code, reason)?;
            while self.blocked {
                // Fails at the next flush where it does.
                let _ = self.ws.get_ref().tcp().writable().await;
                self.flush()?;
            }
            Ok::<(), End>(())
        };
        if let Ok(Ok(())) = tokio::time::timeout_at(deadline, written).await {
            linger(self.ws.into_inner().into_tcp(), deadline).await;
        }
    }

    fn end_of(&self, error: Error) -> End {
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed => End::Closed,
            Error::Capacity(_) => {
                self.shared.counters.frame_refused(FrameRefusal::TooBig);
                End::Fail(CloseCode::Size, error.to_string())
            }
            Error::Utf8(_) => {
                self.shared.counters.frame_refused(FrameRefusal::TextNotUtf8);
                End::Fail(CloseCode::Invalid, error.to_string())
            }
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Gone("no closing handshake".into()),
            Error::Protocol(error) => End::Fail(CloseCode::Protocol, error.to_string()),
            error => End::Gone(error.to_string()),
        }
    }
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Sends no more, and throws away what the peer sends until it has gone or the time is up.
pub(crate) async fn linger(mut tcp: TcpStream, deadline: Instant) {
    let gone = async {
        tcp.shutdown().await?;
        let mut discarded = [0; 4096];
        while tcp.read(&mut discarded).await? > 0 {}
        io::Result::Ok(())
    };
    // Whatever comes of it, the connection is over.
    let _ = tokio::time::timeout_at(deadline, gone).await;
}
