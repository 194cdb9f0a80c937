//! The thread that counts epochs: each tick makes the guests that compute let others run. It rests while none does.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::EngineWeak;

/// Ticks without a running guest before the thread rests: it is not woken for each event of a steady stream, and a quiet
/// process stays quiet.
const IDLE_TICKS_MAX: u32 = 100;

/// How many guests may be computing, and the thread that ticks for them.
#[derive(Debug, Default)]
pub(crate) struct Ticker {
    running: AtomicUsize,
    closing: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Ticker {
    /// A guest starts to run, or to run again.
    pub(crate) fn enter(&self) {
        if self.running.fetch_add(1, Ordering::SeqCst) == 0 {
            self.wake();
        }
    }

    /// A guest has ended, or sleeps.
    pub(crate) fn leave(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    /// Makes [`run`](Self::run) return.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.wake();
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark(); // where it is not parked yet, parking returns at once
        }
    }

    /// The thread itself.
    pub(crate) fn run(&self, engine: &EngineWeak, tick: Duration) {
        // Only this thread sets it. A guest that entered before is seen below, before the thread rests.
        let _ = self.thread.set(std::thread::current());
        let mut idle = 0;
        while !self.closing.load(Ordering::SeqCst) {
            if self.running.load(Ordering::SeqCst) > 0 {
                idle = 0;
            } else if idle < IDLE_TICKS_MAX {
                idle += 1;
            } else {
                std::thread::park();
                continue;
            }
            std::thread::sleep(tick);
            if let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
            }
        }
    }
}
