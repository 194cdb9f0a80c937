//! One producer's WebSocket: reads events, writes what workflows answer; neither direction waits for the other.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use slung_model::{ProducerId, Seq};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, Sleep};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocket, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tracing::{debug, info, warn};

use crate::backend::WriteRefused;
use crate::http::Protocol;
use crate::intake::{Answers, Intake, Nack, Stopped};
use crate::memory::Reserved;
use crate::producers::Outbox;
use crate::server::Shared;
use crate::socket::Socket;
use crate::stats::{FrameRefusal, add};
use crate::v1::{Hello, Reply};

/// How much is read from the kernel at once, bytes. Every connection keeps a buffer of this size, and the library
/// clears all of it before each read: 128 KiB take in no more events a second, but cost each that comes alone 2 µs. With
/// 4 KiB an event costs some 3 ns more.
const READ_BUFFER_BYTES: usize = 8 * 1024;
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

/// A message that has not come to its end may take so much without being counted, bytes: connections are counted anyway.
const UNCOUNTED_BYTES_MAX: u64 = 64 * 1024;
/// What a longer one takes for each byte of it: its bytes, room for them to grow, and its points.
const MESSAGE_MEMORY_FACTOR: u64 = 3;

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
    /// All that had arrived, or all that may be read.
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
    /// Changes when there may be room again.
    room: watch::Receiver<Seq>,
    /// Changes when something has become durable.
    durable: watch::Receiver<Seq>,
    durable_through: Seq,
    /// It has changed, or was told anew.
    disk_told: bool,
    /// Read, but the backend had no room for it.
    held: Option<Message>,
    /// The library holds bytes that were not written yet.
    unflushed: bool,
    /// The kernel takes no more bytes for now.
    blocked: bool,
    /// A close frame is on its way, ours or theirs: when the other side has to be done.
    deadline: Option<Instant>,
    watchdog: Watchdog,
    /// Bytes that had been read when the last message was complete.
    message_end: u64,
    /// What a long message takes.
    reserved: Reserved,
}

/// Notices that the peer is not there any more, or does not read.
struct Watchdog {
    /// When it last looked and found that something had come, and what had come by then.
    heard: Instant,
    read: u64,
    /// Since then it was asked for a sign of life.
    pinged: bool,
    /// When it last looked and found that the kernel had taken something, and what it had taken by then.
    taken: Instant,
    written: u64,
    /// Fires when it is time to look, or sooner: it is set back when it fires, not whenever something happens.
    timer: Pin<Box<Sleep>>,
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

/// Serves a connection that was upgraded, to its end. `read_ahead` is what the peer sent right behind its handshake. When
/// `stop` turns true, what has arrived is stored and acknowledged, the peer is told (1012), and what it sends until it
/// answers is stored too.
pub(crate) async fn serve(
    shared: &Shared,
    tcp: TcpStream,
    read_ahead: Vec<u8>,
    peer: SocketAddr,
    protocol: Protocol,
    stop: &mut watch::Receiver<bool>,
) {
    let (id, outbox) = shared.producers.open(peer, protocol.name(), shared.backend.now_micros());
    let registered = Registered { shared, id };
    debug!(producer = id.get(), %peer, "connected");
    let (message_bytes_max, answers) = match protocol {
        Protocol::Plain => (shared.options.message_bytes_max, None),
        Protocol::V1 => (shared.options.v1_message_bytes_max, Some(Answers::default())),
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max));
    let durable = shared.backend.durable();
    let mut connection = Connection {
        shared,
        ws: WebSocket::from_partially_read(Socket::new(tcp, BATCH_BYTES_MAX), read_ahead, Role::Server, Some(config)),
        intake: Intake::new(shared, id, Arc::clone(&outbox), answers),
        outbox,
        room: durable.clone(),
        durable,
        durable_through: Seq::default(),
        disk_told: false,
        held: None,
        unflushed: false,
        blocked: false,
        deadline: None,
        watchdog: Watchdog::new(shared.options.idle_timeout),
        message_end: 0,
        reserved: shared.producers.memory().reserve(),
    };
    match connection.run(stop).await {
        End::Closed => {
            debug!(producer = id.get(), "disconnected");
            drop(registered);
            // What the peer sent behind its close frame is unread, and a reset may overtake ours.
            let deadline = Instant::now() + shared.options.close_timeout;
            linger(connection.ws.into_inner().into_tcp(), deadline).await;
        }
        End::Gone(why) => info!(producer = id.get(), %peer, "connection lost: {why}"),
        End::Fail(code, why) => {
            warn!(producer = id.get(), %peer, "closing with {}: {why}", u16::from(code));
            connection.fail(code, &why).await;
        }
    }
}

impl Watchdog {
    fn new(idle_timeout: Duration) -> Self {
        let now = Instant::now();
        let timer = Box::pin(tokio::time::sleep_until(now + idle_timeout / 2));
        Self { heard: now, read: 0, pinged: false, taken: now, written: 0, timer }
    }

    /// When a peer that stays silent is to be asked for a sign of life, or given up.
    fn due(&self, idle_timeout: Duration) -> Instant {
        self.heard + if self.pinged { idle_timeout } else { idle_timeout / 2 }
    }

    /// Fires at that time at the latest.
    fn set_timer(&mut self, due: Instant) {
        if self.timer.is_elapsed() || due < self.timer.deadline() {
            self.timer.as_mut().reset(due);
        }
    }
}

impl Connection<'_> {
    async fn run(&mut self, stop: &mut watch::Receiver<bool>) -> End {
        if let Err(end) = self.say_hello() {
            return end;
        }
        loop {
            match self.turn(stop).await {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    /// The first frame of `slung.v1`.
    fn say_hello(&mut self) -> Result<(), End> {
        if self.intake.answers().is_none() {
            return Ok(());
        }
        let options = &self.shared.options;
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let commit_interval = self.shared.backend.commit_interval().as_millis();
        let hello = Hello {
            window: options.v1_window,
            message_bytes_max: number(options.v1_message_bytes_max),
            commit_interval_ms: u32::try_from(commit_interval).unwrap_or(u32::MAX),
        };
        self.reply(&Reply::Hello(hello))
    }

    /// Writes what there is to write, reads and stores what has arrived, and waits for more.
    async fn turn(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), End> {
        self.send_waiting()?;
        let reading = self.may_read();
        let took = if reading { self.read() } else { Took::All };
        self.store().await?;
        self.count_memory()?;
        // What was refused is told before anything is waited for.
        self.send_answers()?;
        if self.unflushed && !self.blocked {
            self.flush()?;
        }
        let stopping = *stop.borrow() || stop.has_changed().is_err();
        if stopping && self.deadline.is_none() {
            self.settle().await?;
            while let Some(message) = self.outbox.pop() {
                self.write_queued(message)?;
            }
            self.start_close(CloseCode::Restart, "the server stops")?;
        }
        // Who finds no room is not read either.
        let heard = reading && !matches!(took, Took::Busy);
        match took {
            Took::All => self.wait(reading, stop).await,
            Took::Batch => {
                tokio::task::yield_now().await;
                self.ws.get_mut().allow(BATCH_BYTES_MAX);
            }
            Took::Busy => self.wait_for_room().await?,
            Took::End(end) => return Err(end),
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(End::Gone("the closing handshake was not finished in time".into()));
        }
        self.look_after_peer(heard)
    }

    /// Not while so many messages are unanswered, or the producer does not take its answers: it makes them grow.
    fn may_read(&mut self) -> bool {
        let blocked = self.blocked;
        if self.shared.options.echo {
            return !blocked;
        }
        let window = u64::from(self.shared.options.v1_window);
        self.intake.answers().is_none_or(|answers| !blocked && answers.acks.unanswered() < window)
    }

    /// Takes messages as far as they have arrived and fit into a batch.
    fn read(&mut self) -> Took {
        self.ws.get_mut().resume();
        self.room.mark_unchanged();
        self.intake.start_batch();
        while self.intake.batched() < BATCH_EVENTS_MAX {
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
            if self.shared.options.echo && matches!(message, Message::Binary(_) | Message::Text(_)) {
                self.message_end = self.ws.get_ref().bytes_read();
                return self.write(message).map_or_else(Took::End, |()| Took::Batch);
            }
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
                Message::Pong(_) | Message::Frame(_) => continue,
            };
            self.message_end = self.ws.get_ref().bytes_read();
            match taken {
                Ok(()) => {}
                Err(Stopped::Busy) => {
                    self.held = Some(message);
                    return Took::Busy;
                }
                Err(Stopped::Storage(why)) => {
                    self.held = Some(message);
                    return Took::End(self.storage_failed(why));
                }
            }
        }
        Took::Batch
    }

    /// Takes the memory that a long message needs from what all connections may take together.
    fn count_memory(&mut self) -> Result<(), End> {
        let unfinished = self.ws.get_ref().bytes_read().saturating_sub(self.message_end);
        let held = self.held.as_ref().map_or(0, Message::len) as u64;
        let bytes = match unfinished + held {
            short if short <= UNCOUNTED_BYTES_MAX => 0,
            long => usize::try_from(long.saturating_mul(MESSAGE_MEMORY_FACTOR)).unwrap_or(usize::MAX),
        };
        if self.reserved.resize(bytes.saturating_add(self.intake.long_batch_bytes())) {
            return Ok(());
        }
        add(&self.shared.counters.no_memory, 1);
        let most = self.shared.producers.memory().bytes_max();
        let why = format!("what is in flight takes {most} bytes, the most that is allowed: try again later");
        Err(End::Fail(CloseCode::Again, why))
    }

    /// Hands the batch to the backend, and waits where it has no room: the socket is not read meanwhile.
    async fn store(&mut self) -> Result<(), End> {
        loop {
            // Before the attempt: what is synced after it must be seen.
            self.room.mark_unchanged();
            match self.intake.store() {
                Ok(()) => return Ok(()),
                Err(Stopped::Busy) => self.wait_for_room().await?,
                Err(Stopped::Storage(why)) => return Err(self.storage_failed(why)),
            }
        }
    }

    fn storage_failed(&mut self, why: String) -> End {
        self.intake.refuse_waiting(FrameRefusal::StorageFailed, &why);
        if self.held.take().is_some() {
            self.intake.refuse_next(FrameRefusal::StorageFailed, &why);
        }
        End::Fail(CloseCode::Error, why)
    }

    async fn wait_for_room(&mut self) -> Result<(), End> {
        add(&self.shared.counters.busy_waits, 1);
        let retry = Instant::now() + BUSY_RETRY_INTERVAL;
        loop {
            let tcp = self.ws.get_ref().tcp();
            let waits_for_disk = self.intake.waits_for_disk();
            tokio::select! {
                // Without a sender nothing will be synced any more; the write then says what is wrong.
                Ok(()) = self.room.changed() => return Ok(()),
                () = tokio::time::sleep_until(retry) => return Ok(()),
                Ok(()) = self.durable.changed(), if waits_for_disk => self.disk_told = true,
                () = self.outbox.arrived(), if !self.blocked => {}
                _ = tcp.writable(), if self.blocked => {}
            }
            self.send_waiting()?;
        }
    }

    /// Waits, for a moment, until all that was stored is acknowledged.
    async fn settle(&mut self) -> Result<(), End> {
        let deadline = Instant::now() + self.shared.options.close_timeout;
        loop {
            self.send_answers()?;
            if !self.intake.waits_for_disk() {
                return Ok(());
            }
            match tokio::time::timeout_at(deadline, self.durable.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(()),
            }
        }
    }

    /// Until there is something to read, to write, or to end.
    async fn wait(&mut self, reading: bool, stop: &mut watch::Receiver<bool>) {
        let (closing, waits_for_disk) = (self.deadline.is_some(), self.intake.waits_for_disk());
        let options = &self.shared.options;
        let mut due = self.watchdog.due(options.idle_timeout);
        if self.blocked {
            due = due.min(self.watchdog.taken + options.slow_reader_timeout);
        }
        self.watchdog.set_timer(self.deadline.map_or(due, |deadline| deadline.min(due)));
        let tcp = self.ws.get_ref().tcp();
        tokio::select! {
            _ = tcp.readable(), if reading => {}
            _ = tcp.writable(), if self.blocked => {}
            () = self.outbox.arrived(), if !self.blocked && !closing => {}
            Ok(()) = self.durable.changed(), if waits_for_disk && !closing => self.disk_told = true,
            _ = stop.changed(), if !closing => {}
            () = &mut self.watchdog.timer => {}
        }
    }

    /// Asks a peer that is silent for a sign of life, and ends what has none.
    fn look_after_peer(&mut self, reading: bool) -> Result<(), End> {
        let read = self.ws.get_ref().bytes_read();
        let idle_timeout = self.shared.options.idle_timeout;
        let watchdog = &mut self.watchdog;
        // Who is not read can't be heard.
        if read != watchdog.read || !reading {
            (watchdog.read, watchdog.pinged) = (read, false);
            watchdog.heard = Instant::now();
        }
        if !watchdog.timer.is_elapsed() {
            return Ok(());
        }
        let silent = watchdog.heard.elapsed();
        if silent >= idle_timeout {
            add(&self.shared.counters.idle_closed, 1);
            return Err(End::Fail(CloseCode::Away, format!("nothing was heard for {} s", silent.as_secs())));
        }
        if silent >= idle_timeout / 2 && !watchdog.pinged && self.deadline.is_none() {
            watchdog.pinged = true;
            self.intake.rest();
            self.write(Message::Ping(Bytes::new()))?;
        }
        Ok(())
    }

    /// Writes what waits for this producer, as far as the kernel takes it. While it takes nothing, nothing leaves the
    /// queue: what a slow reader can make us hold is the queue, one write buffer and one message.
    fn send_waiting(&mut self) -> Result<(), End> {
        if (self.blocked || self.unflushed) && !self.flush()? {
            return Ok(());
        }
        self.check_storage()?;
        self.send_answers()?;
        // Not more than wait now: reading has its turn, and whatever comes later wakes this connection again.
        for _ in 0..self.outbox.len() {
            let Some(message) = self.outbox.pop() else { break };
            self.write_queued(message)?;
            if self.blocked {
                return Ok(());
            }
        }
        if self.unflushed {
            self.flush()?;
        }
        Ok(())
    }

    /// Tells a producer of `slung.v1` what was refused, and what has become durable. The number of refusals is bounded by
    /// that of a batch, as nothing is read while the kernel takes no more bytes.
    fn send_answers(&mut self) -> Result<(), End> {
        let Some(answers) = self.intake.answers().filter(|_| self.deadline.is_none()) else { return Ok(()) };
        let nacks = std::mem::take(&mut answers.nacks);
        let through = if answers.acks.is_waiting() {
            self.durable_through = *self.durable.borrow_and_update();
            answers.acks.durable(self.durable_through)
        } else {
            None
        };
        for Nack { number, code, retryable, reason } in nacks {
            self.reply(&Reply::Nack { number, code: code as u16, retryable, reason: &reason })?;
        }
        if let Some(through) = through {
            add(&self.shared.counters.acks, 1);
            self.reply(&Reply::Ack { through })?;
        }
        Ok(())
    }

    /// Nothing will become durable any more where the store has failed. It tells of that by what was durable before.
    fn check_storage(&mut self) -> Result<(), End> {
        if std::mem::take(&mut self.disk_told)
            && *self.durable.borrow() == self.durable_through
            && let Err(WriteRefused::Storage(why)) = self.shared.backend.health()
        {
            return Err(End::Fail(CloseCode::Error, why));
        }
        Ok(())
    }

    fn reply(&mut self, reply: &Reply<'_>) -> Result<(), End> {
        let mut frame = Vec::new();
        reply.encode(&mut frame);
        self.write(Message::Binary(frame.into()))
    }

    /// A message of a workflow.
    fn write_queued(&mut self, message: Message) -> Result<(), End> {
        match message {
            Message::Binary(data) if self.intake.answers().is_some() => self.reply(&Reply::Data(&data)),
            message => self.write(message),
        }
    }

    fn write(&mut self, message: Message) -> Result<(), End> {
        self.unflushed = true;
        match self.ws.write(message) {
            Ok(()) => Ok(()),
            // The library has it, and goes on with the next flush.
            Err(error) if would_block(&error) => self.check_progress(),
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
            Err(error) if would_block(&error) => self.check_progress().map(|()| false),
            Err(error) => Err(self.end_of(error)),
        }
    }

    /// The kernel takes no more for now. A peer that takes nothing of what is written to it for too long is given up.
    fn check_progress(&mut self) -> Result<(), End> {
        let (written, watchdog) = (self.ws.get_ref().bytes_written(), &mut self.watchdog);
        let timeout = self.shared.options.slow_reader_timeout;
        let was_blocked = std::mem::replace(&mut self.blocked, true);
        if written != watchdog.written || !was_blocked {
            (watchdog.written, watchdog.taken) = (written, Instant::now());
        } else if watchdog.taken.elapsed() >= timeout && self.deadline.is_none() {
            add(&self.shared.counters.slow_readers, 1);
            let why = format!("nothing of what is sent was read for {} s", timeout.as_secs());
            return Err(End::Fail(CloseCode::Again, why));
        }
        Ok(())
    }

    /// Says that this side is done, behind what was queued before and still finds room.
    fn start_close(&mut self, code: CloseCode, reason: &str) -> Result<(), End> {
        self.outbox.close();
        self.send_answers()?;
        self.deadline = Some(Instant::now() + self.shared.options.close_timeout);
        while !self.blocked
            && let Some(message) = self.outbox.pop()
        {
            self.write_queued(message)?;
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

    fn end_of(&mut self, error: Error) -> End {
        match error {
            Error::ConnectionClosed | Error::AlreadyClosed => End::Closed,
            Error::Capacity(_) => {
                self.intake.refuse_next(FrameRefusal::TooBig, &error);
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
