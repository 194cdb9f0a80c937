//! Which messages of a `slung.v1` connection are answered, and which wait for the disk.

use std::collections::VecDeque;

use slung_model::Seq;

/// The numbers of one connection's messages on their way to an ack. Messages are numbered from 1, refused ones too.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    /// The last message that was taken in.
    taken: u64,
    /// The last that was answered.
    acked: u64,
    /// Everything through that message is durable with that point. Both rise.
    waiting: VecDeque<(Seq, u64)>,
}

impl Acks {
    /// Gives the next message its number.
    pub(crate) fn take(&mut self) -> u64 {
        self.taken += 1;
        self.taken
    }

    /// The last message that was taken in.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Every message through `number` is stored, the last point being `seq`, or was refused; without `seq` nothing was stored
    /// since the last time, and perhaps nothing has come.
    pub(crate) fn stored(&mut self, seq: Option<Seq>, number: u64) {
        match (seq, self.waiting.back_mut()) {
            // Refused messages wait for those before them.
            (None, Some((_, last))) => *last = number,
            (None, None) if number > self.acked => self.waiting.push_back((Seq(0), number)),
            (None, None) => {}
            (Some(seq), Some((waits_for, last))) if *waits_for == seq => *last = number,
            (Some(seq), _) => self.waiting.push_back((seq, number)),
        }
    }

    /// What can be said now that everything through `durable` is: the message through which all are answered, where that
    /// is news.
    pub(crate) fn durable(&mut self, durable: Seq) -> Option<u64> {
        let mut through = None;
        while let Some((seq, number)) = self.waiting.front()
            && *seq <= durable
        {
            through = Some(*number);
            self.waiting.pop_front();
        }
        let through = through.filter(|through| *through > self.acked)?;
        self.acked = through;
        Some(through)
    }

    /// How many messages were taken in and are not answered.
    pub(crate) fn unanswered(&self) -> u64 {
        self.taken - self.acked
    }

    /// Whether something waits for the disk.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_answered_once_all_through_it_are_durable() {
        let mut acks = Acks::default();
        for number in 1..=5 {
            assert_eq!(acks.take(), number);
        }
        acks.stored(Some(Seq(10)), 2);
        acks.stored(Some(Seq(17)), 3);
        // 4 and 5 were refused.
        acks.stored(None, 5);
        assert_eq!((acks.durable(Seq(9)), acks.unanswered()), (None, 5));
        assert_eq!((acks.durable(Seq(12)), acks.unanswered()), (Some(2), 3));
        assert_eq!((acks.durable(Seq(16)), acks.is_waiting()), (None, true));
        assert_eq!((acks.durable(Seq(17)), acks.unanswered(), acks.is_waiting()), (Some(5), 0, false));
        assert_eq!(acks.durable(Seq(99)), None);
    }

    #[test]
    fn a_refused_message_with_nothing_before_it_is_answered_at_once() {
        let mut acks = Acks::default();
        let number = acks.take();
        acks.stored(None, number);
        assert_eq!((acks.durable(Seq(0)), acks.unanswered()), (Some(1), 0));
        assert_eq!(acks.durable(Seq(0)), None);
        // Nothing has come since, and nothing waits.
        acks.stored(None, number);
        assert!(!acks.is_waiting());
    }
}
