//! The connections that workflows may answer: who is there, and what waits to be sent to each.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slung_model::ProducerId;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::memory::Memory;
use crate::stats::{Counters, WritebackFailure, add};

/// What may wait for one producer unless configured otherwise, bytes: 1 MiB, some seconds of a talkative workflow.
pub const QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// What a queued message costs beside its own bytes, so that a million empty ones are not free.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// Why a message does not go to a producer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WritebackError {
    /// Nobody has that id now.
    #[error("there is no producer {0}: it has disconnected, or never was")]
    NoSuchProducer(u64),
    /// The producer does not read as fast as it is written to.
    #[error("the queue of producer {producer} is full: {waiting} of {queue_bytes_max} bytes wait; it reads too slowly")]
    QueueFull {
        /// Whose queue it is.
        producer: u64,
        /// Bytes that wait in it.
        waiting: usize,
        /// Bytes that may wait.
        queue_bytes_max: usize,
    },
    /// Everything in flight takes as much memory as it may.
    #[error("what is in flight takes {in_flight_bytes_max} bytes, the most that is allowed: no message is queued")]
    NoMemory {
        /// Bytes that everything in flight may take.
        in_flight_bytes_max: usize,
    },
    /// The message alone is larger than a queue.
    #[error("a message of {bytes} bytes is larger than a producer's queue, {queue_bytes_max} bytes")]
    TooBig {
        /// Its length.
        bytes: usize,
        /// Bytes that may wait.
        queue_bytes_max: usize,
    },
}

/// The producers that are connected. Cloning gives another handle to the same ones.
#[derive(Debug, Clone)]
pub struct Producers(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    /// The last id that was given out; 64 bits do not run out.
    last_id: AtomicU64,
    open: Mutex<HashMap<ProducerId, Arc<Outbox>>>,
    queue_bytes_max: usize,
    memory: Memory,
    counters: Arc<Counters>,
}

/// A producer that is connected.
#[derive(Debug, Clone, PartialEq)]
pub struct ProducerInfo {
    /// What `Event.producers` carries.
    pub id: ProducerId,
    /// Where it connects from.
    pub peer: SocketAddr,
    /// `slung.plain` or `slung.v1`.
    pub protocol: &'static str,
    /// When it connected, by the server's clock: microseconds since the Unix epoch.
    pub connected_micros: i64,
    /// Events of it that were stored.
    pub events: u64,
    /// Events a second, over the last ten seconds or so.
    pub events_per_second: f64,
    /// Messages that wait to be sent to it.
    pub queued_messages: usize,
    /// What they take, bytes.
    pub queued_bytes: usize,
}

impl Producers {
    /// Nobody is connected yet. `queue_bytes_max` is what may wait for one producer, each message with 64 bytes on top;
    /// [`QUEUE_BYTES_MAX`] is a good value. All that waits is taken from `memory`, which is the server's too.
    pub fn new(queue_bytes_max: usize, memory: Memory, counters: Arc<Counters>) -> Self {
        let (last_id, open) = (AtomicU64::new(0), Mutex::default());
        Self(Arc::new(Registry { last_id, open, queue_bytes_max, memory, counters }))
    }

    /// Queues a message for a producer: as text, or as binary where it is not UTF-8. Messages to one producer keep
    /// their order. Never blocks, and never waits for the network.
    ///
    /// # Errors
    /// [`WritebackError`]; the message is not sent then, not even in part.
    pub fn send(&self, producer: u64, data: &[u8]) -> Result<(), WritebackError> {
        let sent = self.queue(producer, data);
        match &sent {
            Ok(()) => add(&self.0.counters.writebacks_sent, 1),
            Err(error) => {
                let reason = match error {
                    WritebackError::NoSuchProducer(_) => WritebackFailure::NoSuchProducer,
                    WritebackError::QueueFull { .. } => WritebackFailure::QueueFull,
                    WritebackError::NoMemory { .. } => WritebackFailure::NoMemory,
                    WritebackError::TooBig { .. } => WritebackFailure::TooBig,
                };
                self.0.counters.writebacks_failed(reason, 1);
            }
        }
        sent
    }

    fn queue(&self, producer: u64, data: &[u8]) -> Result<(), WritebackError> {
        let queue_bytes_max = self.0.queue_bytes_max;
        if cost(data.len()) > queue_bytes_max {
            return Err(WritebackError::TooBig { bytes: data.len(), queue_bytes_max });
        }
        let nobody = WritebackError::NoSuchProducer(producer);
        let id = ProducerId::new(producer).ok_or(nobody.clone())?;
        let outbox = lock(&self.0.open).get(&id).cloned().ok_or(nobody.clone())?;
        let message = match std::str::from_utf8(data) {
            Ok(text) => Message::text(text),
            Err(_) => Message::Binary(Bytes::copy_from_slice(data)),
        };
        let mut queue = lock(&outbox.queue);
        if !queue.open {
            return Err(nobody);
        }
        if queue.bytes + cost(data.len()) > queue_bytes_max {
            return Err(WritebackError::QueueFull { producer, waiting: queue.bytes, queue_bytes_max });
        }
        if !self.0.memory.try_take(cost(data.len())) {
            return Err(WritebackError::NoMemory { in_flight_bytes_max: self.0.memory.bytes_max() });
        }
        queue.bytes += cost(data.len());
        queue.messages.push_back(message);
        drop(queue);
        outbox.arrived.notify_one();
        Ok(())
    }

    /// Whether that one is connected.
    pub fn is_connected(&self, producer: ProducerId) -> bool {
        lock(&self.0.open).contains_key(&producer)
    }

    /// How many are connected.
    pub fn len(&self) -> usize {
        lock(&self.0.open).len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Who is connected, by id, with the server's clock at `now`, microseconds since the Unix epoch.
    pub fn list(&self, now: i64) -> Vec<ProducerInfo> {
        let open: Vec<_> = lock(&self.0.open).iter().map(|(id, outbox)| (*id, Arc::clone(outbox))).collect();
        let mut list: Vec<_> = open.into_iter().map(|(id, outbox)| outbox.info(id, now)).collect();
        list.sort_unstable_by_key(|info| info.id);
        list
    }

    /// What everything in flight may take.
    pub fn memory(&self) -> &Memory {
        &self.0.memory
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// Takes in a new producer, under an id that nobody had before.
    pub(crate) fn open(&self, peer: SocketAddr, protocol: &'static str, now: i64) -> (ProducerId, Arc<Outbox>) {
        let id = self.0.last_id.fetch_add(1, Relaxed) + 1;
        let id = ProducerId::new(id).expect("ids start at 1");
        let outbox = Arc::new(Outbox {
            peer,
            protocol,
            connected_micros: now,
            traffic: Mutex::new(Traffic { since: now, ..Traffic::default() }),
            queue: Mutex::new(Queue { open: true, ..Queue::default() }),
            arrived: Notify::new(),
            memory: self.0.memory.clone(),
        });
        lock(&self.0.open).insert(id, Arc::clone(&outbox));
        add(&self.0.counters.producers_total, 1);
        add(&self.0.counters.producers_now, 1);
        (id, outbox)
    }

    /// Forgets a producer; what still waits for it is lost, and counted.
    pub(crate) fn close(&self, id: ProducerId) {
        let Some(outbox) = lock(&self.0.open).remove(&id) else { return };
        self.0.counters.producers_now.fetch_sub(1, Relaxed);
        outbox.close();
        let mut lost = 0;
        while outbox.pop().is_some() {
            lost += 1;
        }
        self.0.counters.writebacks_failed(WritebackFailure::ConnectionLost, lost);
    }
}

fn cost(bytes: usize) -> usize {
    bytes.saturating_add(MESSAGE_OVERHEAD_BYTES)
}

/// How long events are counted for a rate, microseconds.
const RATE_MICROS: i64 = 10_000_000;

/// What waits to be sent on one connection, and what is known of it.
#[derive(Debug)]
pub(crate) struct Outbox {
    peer: SocketAddr,
    protocol: &'static str,
    connected_micros: i64,
    traffic: Mutex<Traffic>,
    queue: Mutex<Queue>,
    arrived: Notify,
    memory: Memory,
}

/// How many events came, and how many lately.
#[derive(Debug, Default)]
struct Traffic {
    events: u64,
    /// The server's clock when `events` was `before`.
    since: i64,
    before: u64,
    /// Events a second in the stretch of time before.
    rate: f64,
}

impl Traffic {
    /// Ends a stretch of time that is long enough.
    fn turn(&mut self, now: i64) {
        let micros = now.saturating_sub(self.since);
        // A clock that was set back begins a new one too.
        if !(0..RATE_MICROS).contains(&micros) {
            self.rate = if micros > 0 { (self.events - self.before) as f64 * 1e6 / micros as f64 } else { 0.0 };
            (self.since, self.before) = (now, self.events);
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    /// The cost of the messages.
    bytes: usize,
    open: bool,
}

impl Outbox {
    /// The oldest message. Who takes it must send it.
    pub(crate) fn pop(&self) -> Option<Message> {
        let mut queue = lock(&self.queue);
        let message = queue.messages.pop_front()?;
        let bytes = cost(message.len());
        queue.bytes -= bytes;
        self.memory.release(bytes);
        Some(message)
    }

    /// So many events of it were stored.
    pub(crate) fn stored(&self, events: u64, now: i64) {
        let mut traffic = lock(&self.traffic);
        traffic.turn(now);
        traffic.events += events;
    }

    fn info(&self, id: ProducerId, now: i64) -> ProducerInfo {
        let (events, events_per_second) = {
            let mut traffic = lock(&self.traffic);
            traffic.turn(now);
            // In its first seconds there is nothing before.
            let micros = now.saturating_sub(self.connected_micros);
            let is_new = micros < RATE_MICROS && traffic.since == self.connected_micros;
            let rate = if is_new { traffic.events as f64 * 1e6 / micros.max(1) as f64 } else { traffic.rate };
            (traffic.events, rate)
        };
        let queue = lock(&self.queue);
        ProducerInfo {
            id,
            peer: self.peer,
            protocol: self.protocol,
            connected_micros: self.connected_micros,
            events,
            events_per_second,
            queued_messages: queue.messages.len(),
            queued_bytes: queue.bytes,
        }
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        lock(&self.queue).messages.len()
    }

    /// Takes no more messages; those that wait stay.
    pub(crate) fn close(&self) {
        lock(&self.queue).open = false;
    }

    /// Completes when a message has come since the last time.
    ///
    /// # Cancel safety
    /// Nothing is lost: the next call completes at once then.
    pub(crate) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

/// Nothing in this file panics while it holds a lock, so what a poisoned one guards is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producers(queue_bytes_max: usize) -> Producers {
        Producers::new(queue_bytes_max, Memory::new(1_000), Arc::default())
    }

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9);

    #[test]
    fn ids_start_at_one_and_are_never_used_again() {
        let producers = producers(1_000);
        let (first, _) = producers.open(PEER, "slung.plain", 5_000_000);
        producers.close(first);
        let (second, _) = producers.open(PEER, "slung.plain", 5_000_000);
        assert_eq!((first.get(), second.get()), (1, 2));
        assert_eq!(producers.send(0, b"x"), Err(WritebackError::NoSuchProducer(0)));
        assert_eq!(producers.send(1, b"x"), Err(WritebackError::NoSuchProducer(1)));
        assert_eq!(producers.send(3, b"x"), Err(WritebackError::NoSuchProducer(3)));
        assert_eq!(producers.send(2, b"x"), Ok(()));
        assert_eq!(producers.len(), 1);
        assert!(producers.is_connected(second) && !producers.is_connected(first));
    }

    #[test]
    fn a_queue_takes_what_it_may_and_has_room_again_once_read() {
        let producers = producers(2 * (10 + MESSAGE_OVERHEAD_BYTES));
        let (id, outbox) = producers.open(PEER, "slung.plain", 5_000_000);
        producers.send(id.get(), b"0123456789").unwrap();
        producers.send(id.get(), &[0xff; 10]).unwrap();
        assert!(matches!(producers.send(id.get(), b""), Err(WritebackError::QueueFull { waiting: 148, .. })));
        assert!(matches!(producers.send(id.get(), &[0; 1_000]), Err(WritebackError::TooBig { bytes: 1_000, .. })));
        assert_eq!(outbox.pop(), Some(Message::text("0123456789")));
        assert_eq!(outbox.pop(), Some(Message::binary(vec![0xff; 10])));
        assert_eq!(outbox.pop(), None);
        producers.send(id.get(), b"again").unwrap();

        producers.close(id);
        let stats = producers.counters().snapshot();
        assert_eq!((stats.writebacks_sent, stats.producers_now, stats.producers_total), (3, 0, 1));
        let failed =
            [("no_such_producer", 0), ("queue_full", 1), ("too_big", 1), ("no_memory", 0), ("connection_lost", 1)];
        assert_eq!(stats.writebacks_failed, failed);
        assert_eq!(producers.memory().used(), 0);
    }

    #[test]
    fn all_queues_together_take_what_is_in_flight() {
        let producers = producers(800);
        let (first, outbox) = producers.open(PEER, "slung.plain", 0);
        let (second, _) = producers.open(PEER, "slung.plain", 0);
        producers.send(first.get(), &[0; 700]).unwrap();
        let refused = producers.send(second.get(), &[0; 200]);
        assert_eq!(refused, Err(WritebackError::NoMemory { in_flight_bytes_max: 1_000 }));
        outbox.pop().unwrap();
        producers.send(second.get(), &[0; 200]).unwrap();
        assert_eq!(producers.memory().used(), 264);
    }

    #[test]
    fn who_is_connected_is_listed_with_what_it_sent() {
        let producers = producers(1_000);
        let (id, outbox) = producers.open(PEER, "slung.v1", 5_000_000);
        outbox.stored(100, 6_000_000);
        producers.send(id.get(), b"0123456789").unwrap();
        let info = producers.list(7_000_000).remove(0);
        let wanted = ProducerInfo {
            id,
            peer: PEER,
            protocol: "slung.v1",
            connected_micros: 5_000_000,
            events: 100,
            events_per_second: 50.0,
            queued_messages: 1,
            queued_bytes: 74,
        };
        assert_eq!(info, wanted);
        let rate = |now| producers.list(now).remove(0).events_per_second;
        assert_eq!(rate(15_000_000), 10.0);
        outbox.stored(40, 20_000_000);
        assert_eq!(rate(20_000_000), 10.0, "until ten seconds are over");
        assert_eq!(rate(25_000_000), 4.0);
        assert_eq!((rate(35_000_000), rate(1_000)), (0.0, 0.0));
    }
}
