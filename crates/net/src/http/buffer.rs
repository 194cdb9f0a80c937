//! Bytes of one request or answer, which grow as long as there is room for them.

use bytes::Bytes;

use super::error::{ErrorCode, Failure};
use crate::memory::{Memory, Reserved};

/// What it begins with, bytes.
const FIRST_BYTES: usize = 4 * 1024;

/// Bytes that are taken from the budget of all connections, and given back with the buffer, or with what it became.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    bytes_max: usize,
    reserved: Reserved,
}

impl Buffer {
    /// An empty one for up to so many bytes.
    pub(super) fn new(memory: &Memory, bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max, reserved: memory.reserve() }
    }

    /// Appends something; `false` where it would become too long.
    pub(super) fn push(&mut self, more: &[u8]) -> Result<bool, Failure> {
        let bytes = self.bytes.len().saturating_add(more.len());
        if bytes > self.bytes_max {
            return Ok(false);
        }
        if bytes > self.bytes.capacity() {
            let capacity = bytes.max(2 * self.bytes.capacity()).max(FIRST_BYTES).min(self.bytes_max);
            if !self.reserved.resize(capacity) {
                return Err(no_memory());
            }
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
        Ok(true)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// For the body of an answer: the memory is given back when that was sent.
    pub(super) fn into_body(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Everything in flight takes as much as it may.
pub(super) fn no_memory() -> Failure {
    Failure::new(ErrorCode::NoMemory, "all that is in flight takes as much memory as it may: try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_its_end_and_as_far_as_there_is_room() {
        let memory = Memory::new(10_000);
        let mut buffer = Buffer::new(&memory, 6_000);
        assert_eq!(buffer.push(&[1; 6_000]), Ok(true));
        assert_eq!((buffer.push(&[1]), memory.used()), (Ok(false), 6_000));
        let mut other = Buffer::new(&memory, usize::MAX);
        assert_eq!(other.push(b"x").map_err(|failure| failure.code), Err(ErrorCode::NoMemory));
        let body = buffer.into_body();
        assert_eq!((body.len(), memory.used()), (6_000, 6_000));
        drop(body);
        assert_eq!((other.push(b"x"), memory.used()), (Ok(true), FIRST_BYTES));
    }
}
