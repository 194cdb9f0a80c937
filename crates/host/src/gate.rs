//! Whether a guest may poll: how a new version of a workflow waits for its turn, and how the one before it ends.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// What becomes of a guest that polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passage {
    /// It waits, and nobody has come yet.
    Shut,
    /// It has come, and waits.
    Awaited,
    /// It polls.
    Open,
    /// It takes what waits for it, and then ends.
    Closing,
}

/// What a guest passes before each poll.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Whether it is [`Passage::Open`]: all that is looked at on the way of an event.
    open: AtomicBool,
    passage: watch::Sender<Passage>,
}

/// A guest has taken all that was for it, and another one goes on.
#[derive(Debug, thiserror::Error)]
#[error("another version goes on")]
pub(crate) struct Relieved;

impl Gate {
    pub(crate) fn open() -> Self {
        Self { open: AtomicBool::new(true), passage: watch::Sender::new(Passage::Open) }
    }

    pub(crate) fn shut() -> Self {
        Self { open: AtomicBool::new(false), passage: watch::Sender::new(Passage::Shut) }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Lets the guest poll, from now on.
    pub(crate) fn let_through(&self) {
        // In this order: whoever is woken by the second finds the first.
        self.open.store(true, Ordering::Release);
        self.passage.send_replace(Passage::Open);
    }

    /// Lets the guest take what waits for it. Nothing arrives for it any more.
    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::Release);
        self.passage.send_replace(Passage::Closing);
    }

    /// Waits until the guest polls for the first time.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn arrival(&self) {
        // The sender is in `self`, so that it is never gone.
        let _ = self.passage.subscribe().wait_for(|passage| *passage != Passage::Shut).await;
    }

    /// What a guest does that polls while it is not open. `waits` says whether anything waits for it.
    ///
    /// # Errors
    /// Nothing does, and nothing will: it ends.
    pub(crate) async fn pass(&self, waits: impl Fn() -> bool) -> Result<(), Relieved> {
        self.passage.send_if_modified(|passage| {
            let comes = *passage == Passage::Shut;
            if comes {
                *passage = Passage::Awaited;
            }
            comes
        });
        let let_through = |passage: &Passage| matches!(passage, Passage::Open | Passage::Closing);
        let closing = match self.passage.subscribe().wait_for(let_through).await {
            Ok(passage) => *passage == Passage::Closing,
            Err(_) => false, // as above
        };
        if closing && !waits() { Err(Relieved) } else { Ok(()) }
    }
}
