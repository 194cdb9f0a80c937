//! What everything in flight may take together: messages that have not come to their end, bodies of requests, answers
//! that nobody has read yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What is in flight may take so many bytes unless configured otherwise: 256 MiB.
pub const IN_FLIGHT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A budget of bytes that all connections share. Whoever finds it used up is refused, and never waits: if all waited who
/// hold a part of it, none would go on. Cloning gives another handle to the same one.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    used: AtomicUsize,
    bytes_max: usize,
}

impl Memory {
    /// Nothing is taken yet. `bytes_max` is what may be; [`IN_FLIGHT_BYTES_MAX`] is a good value.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Budget { used: AtomicUsize::new(0), bytes_max }))
    }

    /// Bytes that are taken now.
    pub fn used(&self) -> usize {
        self.0.used.load(Relaxed)
    }

    /// Bytes that may be taken.
    pub fn bytes_max(&self) -> usize {
        self.0.bytes_max
    }

    /// Takes a part of it, if there is so much. Who succeeds must [`Memory::release`] it; [`Reserved`] does so by itself.
    pub(crate) fn try_take(&self, bytes: usize) -> bool {
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.0.bytes_max);
        self.0.used.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    /// Gives back what was taken.
    pub(crate) fn release(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Relaxed);
    }

    /// A part of it that is empty so far.
    pub(crate) fn reserve(&self) -> Reserved {
        Reserved { memory: self.clone(), bytes: 0 }
    }
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    memory: Memory,
    bytes: usize,
}

impl Reserved {
    /// Makes it as large as that, larger or smaller. Whether there was room; otherwise it stays as it is.
    pub(crate) fn resize(&mut self, bytes: usize) -> bool {
        if bytes > self.bytes && !self.memory.try_take(bytes - self.bytes) {
            return false;
        }
        if bytes < self.bytes {
            self.memory.release(self.bytes - bytes);
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again_and_no_more() {
        let memory = Memory::new(100);
        let (mut one, mut other) = (memory.reserve(), memory.reserve());
        assert!(one.resize(60) && !other.resize(41) && other.resize(40));
        assert_eq!(memory.used(), 100);
        assert!(!one.resize(61) && one.resize(10) && other.resize(90));
        drop(one);
        assert_eq!(memory.used(), 90);
        assert!(!memory.try_take(usize::MAX) && memory.try_take(10) && !memory.try_take(1));
        memory.release(10);
        drop(other);
        assert_eq!(memory.used(), 0);
    }
}
