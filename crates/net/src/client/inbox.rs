//! What workflows have sent and nobody has taken yet.

use std::collections::VecDeque;

use super::Received;

/// What a waiting message costs beside its own bytes, so that a million empty ones are not free.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// A queue that drops the oldest where it is full, and says so.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    messages: VecDeque<Received>,
    bytes: usize,
    bytes_max: usize,
    missed: u64,
}

impl Inbox {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    pub(super) fn push(&mut self, message: Received) {
        self.bytes += cost(&message);
        self.messages.push_back(message);
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.messages.pop_front()
        {
            self.bytes -= cost(&oldest);
            self.missed += 1;
        }
    }

    pub(super) fn pop(&mut self) -> Option<Received> {
        if self.missed > 0 {
            return Some(Received::Missed(std::mem::take(&mut self.missed)));
        }
        let message = self.messages.pop_front()?;
        self.bytes -= cost(&message);
        Some(message)
    }
}

fn cost(message: &Received) -> usize {
    MESSAGE_OVERHEAD_BYTES
        + match message {
            Received::Text(text) => text.len(),
            Received::Binary(data) => data.len(),
            Received::Missed(_) => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_dropped_and_told() {
        let mut inbox = Inbox::new(3 * (MESSAGE_OVERHEAD_BYTES + 1));
        let text = |number: u32| Received::Text(number.to_string());
        (0..5).for_each(|number| inbox.push(text(number)));
        let taken: Vec<_> = std::iter::from_fn(|| inbox.pop()).collect();
        assert_eq!(taken, [Received::Missed(2), text(2), text(3), text(4)]);
        inbox.push(Received::Binary(bytes::Bytes::from_static(&[0; 1_000])));
        inbox.push(text(6));
        let taken: Vec<_> = std::iter::from_fn(|| inbox.pop()).collect();
        assert_eq!(taken, [Received::Missed(1), text(6)]);
        assert_eq!(inbox.bytes, 0);
    }
}
