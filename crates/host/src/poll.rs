//! A workflow's handles, and the rules by which `u_poll_handle` answers at once or sleeps.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::ticker::Ticker;
use crate::world::World;

/// A handle of the guest.
struct Handle {
    /// The world's id.
    id: u64,
    /// The turn of its last poll; 0 before the first.
    polled: u64,
}

/// The handles of one workflow. The guest sees numbers of its own, from 1 and never used again: what it guesses is
/// unknown or its own.
pub(crate) struct Handles {
    world: Arc<dyn World>,
    open: HashMap<u64, Handle>,
    handles_max: usize,
    last: u64,
    /// Counts polls.
    turn: u64,
    /// The turn of the last poll of an unknown handle. All unknown ones count as one, with nothing in it.
    unknown_polled: u64,
}

/// What a poll does.
pub(crate) enum Step {
    /// It answers this event.
    Give(Arc<[u8]>),
    /// It answers 0 now.
    Nothing,
    /// It sleeps, then [`Handles::after_sleep`] tells.
    Sleep(Sleep),
}

/// What a sleeping poll waits for.
pub(crate) struct Sleep {
    /// The world's handle that is polled; `None` for an unknown one.
    id: Option<u64>,
    /// What ends the sleep early.
    until: Until,
    /// The world's `arrivals` when the sleep began: what came before, and still waits because nobody polls it, does not
    /// end it.
    arrivals: u64,
}

enum Until {
    /// Anything that arrives for the workflow.
    AnyArrival,
    /// Something that waits for one of these handles of the world.
    Waiting(Vec<u64>),
}

impl Handles {
    pub(crate) fn new(world: Arc<dyn World>, handles_max: usize) -> Self {
        Self { world, open: HashMap::new(), handles_max, last: 0, turn: 0, unknown_polled: 0 }
    }

    /// Registers a live query; the guest's number of it.
    pub(crate) fn subscribe(&mut self, query: &str) -> Result<u64, String> {
        if self.open.len() >= self.handles_max {
            return Err(format!("{} handles are open, which is as many as a workflow may have", self.open.len()));
        }
        let id = self.world.subscribe(query).map_err(|refusal| refusal.0)?;
        self.last += 1;
        self.open.insert(self.last, Handle { id, polled: 0 });
        Ok(self.last)
    }

    /// Ends a live query.
    pub(crate) fn free(&mut self, handle: u64) -> Result<(), String> {
        let Some(Handle { id, .. }) = self.open.remove(&handle) else { return Err(unknown(handle)) };
        self.world.free(id);
        Ok(())
    }

    /// Whether the workflow has that handle.
    pub(crate) fn check(&self, handle: u64) -> Result<(), String> {
        if self.open.contains_key(&handle) { Ok(()) } else { Err(unknown(handle)) }
    }

    /// Polls a handle.
    pub(crate) fn poll(&mut self, handle: u64) -> Step {
        self.turn += 1;
        let (id, since) = match self.open.get_mut(&handle) {
            Some(handle) => (Some(handle.id), std::mem::replace(&mut handle.polled, self.turn)),
            None => (None, std::mem::replace(&mut self.unknown_polled, self.turn)),
        };
        if let Some(event) = id.and_then(|id| self.world.try_next(id)) {
            return Step::Give(event);
        }
        // Before the second look: what arrives after it, ends the sleep.
        let arrivals = self.world.arrivals();
        if let Some(event) = id.and_then(|id| self.world.try_next(id)) {
            return Step::Give(event);
        }
        let others = self.open.values().filter(|other| other.polled > since && Some(other.id) != id);
        let others: Vec<u64> = others.map(|other| other.id).collect();
        if others.iter().any(|&other| self.world.has_waiting(other)) {
            return Step::Nothing;
        }
        let until = if id.is_some() { Until::AnyArrival } else { Until::Waiting(others) };
        Step::Sleep(Sleep { id, until, arrivals })
    }

    /// What a poll answers that has slept.
    pub(crate) fn after_sleep(&self, sleep: &Sleep) -> Option<Arc<[u8]>> {
        sleep.id.and_then(|id| self.world.try_next(id))
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        for handle in self.open.values() {
            self.world.free(handle.id);
        }
    }
}

fn unknown(handle: u64) -> String {
    format!("handle {handle} is unknown or freed")
}

impl Sleep {
    /// Sleeps until what it waits for has come, or for `longest`. No thread is held, and while nothing arrives the only
    /// cost is one timer.
    pub(crate) async fn run(&mut self, world: &dyn World, ticker: &Ticker, longest: Duration) {
        let _asleep = Asleep::new(ticker);
        let mut timer = pin!(tokio::time::sleep(longest));
        poll_fn(|context| {
            if self.listens() {
                world.wake_on_arrival(context.waker());
                if self.is_over(world) {
                    return Poll::Ready(());
                }
            }
            timer.as_mut().poll(context)
        })
        .await;
    }

    /// Whether anything could end it early. If not, the world need not wake anybody, however much arrives.
    fn listens(&self) -> bool {
        !matches!(&self.until, Until::Waiting(handles) if handles.is_empty())
    }

    /// Whether what has arrived ends it.
    fn is_over(&mut self, world: &dyn World) -> bool {
        let arrivals = world.arrivals();
        if arrivals == self.arrivals {
            return false;
        }
        self.arrivals = arrivals;
        match &self.until {
            Until::AnyArrival => true,
            Until::Waiting(handles) => handles.iter().any(|&handle| world.has_waiting(handle)),
        }
    }
}

/// While it lives, a guest does not run.
struct Asleep<'a>(&'a Ticker);

impl<'a> Asleep<'a> {
    fn new(ticker: &'a Ticker) -> Self {
        ticker.leave();
        Self(ticker)
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.0.enter();
    }
}
