//! What the delivery queues lock and count with. In a file of its own, so that a test puts a scheduler's in its place.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError, atomic};
