//! The connections that workflows may answer: who is there, and what waits to be sent to each.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slung_model::ProducerId;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::{Bytes, Message};

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
    counters: Arc<Counters>,
}

impl Producers {
    /// Nobody is connected yet. `queue_bytes_max` is what may wait for one producer, each message with 64 bytes on top;
    /// [`QUEUE_BYTES_MAX`] is a good value.
    pub fn new(queue_bytes_max: usize, counters: Arc<Counters>) -> Self {
        let registry = Registry { last_id: AtomicU64::new(0), open: Mutex::default(), queue_bytes_max, counters };
        Self(Arc::new(registry))
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
        queue.bytes += cost(data.len());
        queue.messages.push_back(message);
        drop(queue);
        outbox.arrived.notify_one();
        Ok(())
    }

    /// How many are connected.
    pub fn len(&self) -> usize {
        lock(&self.0.open).len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// Takes in a new producer, under an id that nobody had before.
    pub(crate) fn open(&self) -> (ProducerId, Arc<Outbox>) {
        let id = self.0.last_id.fetch_add(1, Relaxed) + 1;
        let id = ProducerId::new(id).expect("ids start at 1");
        let outbox =
            Arc::new(Outbox { queue: Mutex::new(Queue { open: true, ..Queue::default() }), ..Outbox::default() });
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
        let lost = lock(&outbox.queue).messages.len();
        self.0.counters.writebacks_failed(WritebackFailure::ConnectionLost, lost as u64);
    }
}

fn cost(bytes: usize) -> usize {
    bytes.saturating_add(MESSAGE_OVERHEAD_BYTES)
}

/// What waits to be sent on one connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    arrived: Notify,
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
        queue.bytes -= cost(message.len());
        Some(message)
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
        Producers::new(queue_bytes_max, Arc::default())
    }

    #[test]
    fn ids_start_at_one_and_are_never_used_again() {
        let producers = producers(1_000);
        let (first, _) = producers.open();
        producers.close(first);
        let (second, _) = producers.open();
        assert_eq!((first.get(), second.get()), (1, 2));
        assert_eq!(producers.send(0, b"x"), Err(WritebackError::NoSuchProducer(0)));
        assert_eq!(producers.send(1, b"x"), Err(WritebackError::NoSuchProducer(1)));
        assert_eq!(producers.send(3, b"x"), Err(WritebackError::NoSuchProducer(3)));
        assert_eq!(producers.send(2, b"x"), Ok(()));
        assert_eq!(producers.len(), 1);
    }

    #[test]
    fn a_queue_takes_what_it_may_and_has_room_again_once_read() {
        let producers = producers(2 * (10 + MESSAGE_OVERHEAD_BYTES));
        let (id, outbox) = producers.open();
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
        let failed = [("no_such_producer", 0), ("queue_full", 1), ("too_big", 1), ("connection_lost", 1)];
        assert_eq!(stats.writebacks_failed, failed);
    }
}
