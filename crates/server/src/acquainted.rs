//! Whom a workflow may answer: producers whose events it has seen, and no others that it guesses.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use slung_model::ProducerId;
use slung_net::Producers;

/// Producers that are remembered before those are looked for that have gone.
const LOOKED_AFTER: usize = 1_024;

/// The producers whose events one workflow has seen, as long as they are connected: ids are never used again.
#[derive(Debug)]
pub(crate) struct Acquainted {
    state: Mutex<State>,
    /// One that is among them: the one that was met last, as the next event is mostly of the same. 0 is nobody.
    last: AtomicU64,
}

#[derive(Debug)]
struct State {
    producers: HashSet<ProducerId>,
    /// With so many those that have gone are forgotten: twice as many as were left then, so that it costs little.
    look_at: usize,
}

impl Default for Acquainted {
    fn default() -> Self {
        let state = State { producers: HashSet::new(), look_at: LOOKED_AFTER };
        Self { state: Mutex::new(state), last: AtomicU64::new(0) }
    }
}

impl Acquainted {
    /// The workflow sees an event of theirs.
    pub(crate) fn meet(&self, producers: &[ProducerId], connected: &Producers) {
        match producers {
            [] => return,
            [one] if one.get() == self.last.load(Ordering::Relaxed) => return,
            _ => {}
        }
        let mut state = self.lock();
        state.producers.extend(producers);
        if state.producers.len() >= state.look_at {
            state.producers.retain(|producer| connected.is_connected(*producer));
            state.look_at = LOOKED_AFTER.max(2 * state.producers.len());
        }
        // Written under the lock: it is among those that are known now.
        let last = producers.last().filter(|last| state.producers.contains(last));
        self.last.store(last.map_or(0, |last| last.get()), Ordering::Relaxed);
    }

    /// Whether it has seen one of that producer.
    pub(crate) fn knows(&self, producer: u64) -> bool {
        ProducerId::new(producer).is_some_and(|producer| self.lock().producers.contains(&producer))
    }

    /// No critical section here can panic half-way.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use slung_net::{IN_FLIGHT_BYTES_MAX, Memory, QUEUE_BYTES_MAX};

    use super::*;

    #[test]
    fn those_that_were_met_are_known_and_those_that_have_gone_forgotten() {
        let nobody = Producers::new(QUEUE_BYTES_MAX, Memory::new(IN_FLIGHT_BYTES_MAX), Arc::default());
        let acquainted = Acquainted::default();
        let id = |id| ProducerId::new(id).unwrap();
        acquainted.meet(&[id(7), id(9)], &nobody);
        assert!(acquainted.knows(7) && acquainted.knows(9));
        assert!(!acquainted.knows(8) && !acquainted.knows(0) && !acquainted.knows(u64::MAX));
        for producer in 10..10_000 {
            acquainted.meet(&[id(producer)], &nobody);
            assert!(acquainted.lock().producers.len() <= LOOKED_AFTER);
        }
        assert!(!acquainted.knows(7));
    }

    #[test]
    fn one_that_is_met_again_and_again_stays_known_as_long_as_it_is_not_forgotten() {
        let nobody = Producers::new(QUEUE_BYTES_MAX, Memory::new(IN_FLIGHT_BYTES_MAX), Arc::default());
        let acquainted = Acquainted::default();
        let id = |id| ProducerId::new(id).unwrap();
        for producer in 1..5_000 {
            for _ in 0..3 {
                acquainted.meet(&[id(producer)], &nobody);
                acquainted.meet(&[], &nobody);
                let last = acquainted.last.load(Ordering::Relaxed);
                assert!(last == 0 || last == producer && acquainted.knows(producer), "{last} of {producer}");
            }
            assert!(acquainted.lock().producers.len() <= LOOKED_AFTER);
        }
    }
}
