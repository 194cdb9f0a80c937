//! A workflow's handles, and the rules by which `u_poll_handle` answers at once or sleeps.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::gate::{Gate, Relieved};
use crate::guest::within;
use crate::ticker::Ticker;
use crate::world::World;

/// Memory that is kept for the next event: more than nearly all take, and nothing beside a guest's own memory. One with
/// thousands of producers comes after a long pause, and not often.
const KEPT_EVENT_BYTES_MAX: usize = 16 * 1024;

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
    /// In the order of their numbers: few, and looked up with each poll, for which hashing costs more.
    open: BTreeMap<u64, Handle>,
    handles_max: usize,
    gate: Arc<Gate>,
    last: u64,
    /// Counts polls.
    turn: u64,
    /// The turn of the last poll of an unknown handle. All unknown ones count as one, with nothing in it.
    unknown_polled: u64,
    /// The JSON of the event that a poll has taken. Kept, so that a poll allocates nothing.
    event: Vec<u8>,
}

/// What a poll does.
pub(crate) enum Step {
    /// It answers the event that was taken, see [`Handles::take_event`]; it arrived then, by the world's clock.
    Give(i64),
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
    pub(crate) fn new(world: Arc<dyn World>, handles_max: usize, gate: Arc<Gate>) -> Self {
        let open = BTreeMap::new();
        Self { world, open, handles_max, gate, last: 0, turn: 0, unknown_polled: 0, event: Vec::new() }
    }

    /// Registers a live query; the guest's number of it.
    pub(crate) async fn subscribe(&mut self, query: &str, milliseconds_max: NonZeroU32) -> Result<u64, String> {
        if self.open.len() >= self.handles_max {
            return Err(format!("{} handles are open, which is as many as a workflow may have", self.open.len()));
        }
        let id = within(milliseconds_max, self.world.subscribe(query)).await?;
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

    /// To be passed before each poll.
    ///
    /// # Errors
    /// The guest ends here: another version of it goes on.
    #[inline]
    pub(crate) async fn pass_gate(&self) -> Result<(), Relieved> {
        if self.gate.is_open() {
            return Ok(());
        }
        self.gate.pass(|| self.open.values().any(|handle| self.world.has_waiting(handle.id))).await
    }

    /// Polls a handle.
    pub(crate) fn poll(&mut self, handle: u64) -> Step {
        self.turn += 1;
        let (id, since) = match self.open.get_mut(&handle) {
            Some(handle) => (Some(handle.id), std::mem::replace(&mut handle.polled, self.turn)),
            None => (None, std::mem::replace(&mut self.unknown_polled, self.turn)),
        };
        if let Some(arrived) = self.take_next(id) {
            return Step::Give(arrived);
        }
        // Before the second look: what arrives after it, ends the sleep.
        let arrivals = self.world.arrivals();
        if let Some(arrived) = self.take_next(id) {
            return Step::Give(arrived);
        }
        let others = self.open.values().filter(|other| other.polled > since && Some(other.id) != id);
        let others: Vec<u64> = others.map(|other| other.id).collect();
        if others.iter().any(|&other| self.world.has_waiting(other)) {
            return Step::Nothing;
        }
        let until = if id.is_some() { Until::AnyArrival } else { Until::Waiting(others) };
        Step::Sleep(Sleep { id, until, arrivals })
    }

    /// Whether a poll that has slept has an event to answer, and when that arrived.
    pub(crate) fn after_sleep(&mut self, sleep: &Sleep) -> Option<i64> {
        self.take_next(sleep.id)
    }

    fn take_next(&mut self, id: Option<u64>) -> Option<i64> {
        self.event.clear();
        self.world.try_next(id?, &mut self.event)
    }

    /// The JSON of the event that was taken last. To be given back by [`put_back`](Self::put_back).
    pub(crate) fn take_event(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.event)
    }

    /// The next event goes into the same memory, unless that is far more than events take.
    pub(crate) fn put_back(&mut self, event: Vec<u8>) {
        if event.capacity() <= KEPT_EVENT_BYTES_MAX {
            self.event = event;
        }
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};
    use std::future::Future;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::{Context, Wake, Waker};

    use futures_util::future::BoxFuture;
    use proptest::prelude::*;
    use slung_abi::HttpMethod;

    use super::*;
    use crate::world::{NewEvent, Refusal};

    /// Queues that a test fills. Ids are the guest's handles plus 100.
    #[derive(Default)]
    struct Queues {
        waiting: Mutex<BTreeMap<u64, VecDeque<Arc<[u8]>>>>,
        arrivals: AtomicU64,
        waker: Mutex<Option<Waker>>,
    }

    impl Queues {
        fn push(&self, handle: u64) {
            let mut waiting = self.waiting.lock().unwrap();
            let Some(queue) = waiting.get_mut(&(handle + 100)) else { return };
            queue.push_back(Arc::from([0]));
            self.arrivals.fetch_add(1, Ordering::SeqCst);
            if let Some(waker) = self.waker.lock().unwrap().take() {
                waker.wake();
            }
        }
    }

    impl World for Queues {
        fn subscribe(&self, _: &str) -> BoxFuture<'_, Result<u64, Refusal>> {
            let mut waiting = self.waiting.lock().unwrap();
            let id = 101 + waiting.len() as u64;
            waiting.insert(id, VecDeque::new());
            Box::pin(std::future::ready(Ok(id)))
        }
        fn free(&self, id: u64) -> bool {
            // Its number stays taken.
            self.waiting.lock().unwrap().get_mut(&id).is_some_and(|queue| {
                queue.clear();
                true
            })
        }
        fn try_next(&self, id: u64, event: &mut Vec<u8>) -> Option<i64> {
            event.extend_from_slice(&self.waiting.lock().unwrap().get_mut(&id)?.pop_front()?);
            Some(0)
        }
        fn now_micros(&self) -> i64 {
            0
        }
        fn has_waiting(&self, id: u64) -> bool {
            self.waiting.lock().unwrap().get(&id).is_some_and(|queue| !queue.is_empty())
        }
        fn arrivals(&self) -> u64 {
            self.arrivals.load(Ordering::SeqCst)
        }
        fn wake_on_arrival(&self, waker: &Waker) {
            *self.waker.lock().unwrap() = Some(waker.clone());
        }
        fn history(&self, _: &str) -> BoxFuture<'_, Result<f64, Refusal>> {
            unreachable!()
        }
        fn write(&self, _: NewEvent<'_>) -> BoxFuture<'_, Result<(), Refusal>> {
            unreachable!()
        }
        fn writeback_ws(&self, _: u64, _: &[u8]) -> Result<(), Refusal> {
            unreachable!()
        }
        fn writeback_http(&self, _: HttpMethod, _: &str, _: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, Refusal>> {
            unreachable!()
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicU64);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[derive(Debug, Clone, PartialEq)]
    enum Did {
        Gave,
        Nothing,
        Slept { woken_by: Vec<u64> },
    }

    /// Polls; if that sleeps, each push is tried for whether it ends the sleep, and the sleep is then given up.
    struct Guest {
        world: Arc<Queues>,
        handles: Handles,
        runtime: tokio::runtime::Runtime,
    }

    impl Guest {
        fn new(count: usize) -> Self {
            let world = Arc::<Queues>::default();
            let mut handles = Handles::new(world.clone(), 100, Gate::open().into());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            for handle in 1..=count as u64 {
                assert_eq!(runtime.block_on(handles.subscribe("q", NonZeroU32::MAX)), Ok(handle));
            }
            Self { world, handles, runtime }
        }

        /// Whether one of the pushes ends the sleep; each has to wake it then, and no other one may.
        fn sleep(&self, sleep: &mut Sleep, pushes: &[u64]) -> Did {
            let _context = self.runtime.enter();
            let wakes = Arc::<Wakes>::default();
            let waker = Waker::from(Arc::clone(&wakes));
            let ticker = Ticker::default();
            ticker.enter();
            let mut sleeping = pin!(sleep.run(&*self.world, &ticker, Duration::from_secs(3_600)));
            let mut woken_by = Vec::new();
            assert!(sleeping.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            for &push in pushes {
                let before = wakes.0.load(Ordering::SeqCst);
                self.world.push(push);
                let polled = sleeping.as_mut().poll(&mut Context::from_waker(&waker));
                if polled.is_ready() {
                    assert!(wakes.0.load(Ordering::SeqCst) > before, "it was over, and nobody would have known");
                    woken_by.push(push);
                    break;
                }
            }
            Did::Slept { woken_by }
        }

        fn poll(&mut self, handle: u64, pushes: &[u64]) -> Did {
            match self.handles.poll(handle) {
                Step::Give(_) => Did::Gave,
                Step::Nothing => Did::Nothing,
                // The update is left for the next poll, so that the tables below show one thing at a time.
                Step::Sleep(mut sleep) => self.sleep(&mut sleep, pushes),
            }
        }
    }

    fn asleep() -> Did {
        Did::Slept { woken_by: vec![] }
    }

    fn woken(by: u64) -> Did {
        Did::Slept { woken_by: vec![by] }
    }

    #[test]
    fn an_update_is_answered_at_once() {
        let mut guest = Guest::new(1);
        guest.world.push(1);
        guest.world.push(1);
        assert_eq!(guest.poll(1, &[]), Did::Gave);
        assert_eq!(guest.poll(1, &[]), Did::Gave);
        assert_eq!(guest.poll(1, &[]), asleep());
    }

    #[test]
    fn anything_that_arrives_ends_the_sleep_of_a_known_handle() {
        let mut guest = Guest::new(2);
        assert_eq!(guest.poll(1, &[1]), woken(1));
        assert_eq!(guest.poll(1, &[]), Did::Gave);
        assert_eq!(guest.poll(1, &[2]), woken(2));
    }

    /// What waits already, and is never polled, neither answers nor wakes.
    #[test]
    fn a_full_handle_that_is_never_polled() {
        let mut guest = Guest::new(2);
        guest.world.push(2);
        assert_eq!(guest.poll(1, &[]), asleep());
        assert_eq!(guest.poll(1, &[]), asleep());
        assert_eq!(guest.poll(1, &[2]), woken(2), "only what arrives anew does");
        assert_eq!(guest.poll(1, &[]), asleep());
        assert_eq!(guest.poll(0, &[]), asleep());
    }

    #[test]
    fn a_handle_that_is_taken_in_turn_is_not_held_up() {
        let mut guest = Guest::new(3);
        guest.world.push(1);
        guest.world.push(1);
        guest.world.push(1);
        assert_eq!(guest.poll(1, &[]), Did::Gave);
        assert_eq!(guest.poll(2, &[]), Did::Nothing);
        assert_eq!(guest.poll(3, &[]), Did::Nothing);
        assert_eq!(guest.poll(3, &[]), asleep(), "1 was not polled since");
        assert_eq!(guest.poll(1, &[]), Did::Gave);
        assert_eq!(guest.poll(3, &[]), Did::Nothing);
        assert_eq!(guest.poll(1, &[]), Did::Gave);
        assert_eq!(guest.poll(3, &[]), asleep(), "nothing waits for 1");
    }

    #[test]
    fn unknown_handles_count_as_one_empty_one() {
        let mut guest = Guest::new(2);
        assert_eq!(guest.poll(0, &[1, 2]), asleep(), "no handle was ever polled");
        guest.handles.free(2).unwrap();
        assert_eq!(guest.poll(2, &[1]), asleep());
        assert_eq!(guest.poll(u64::MAX, &[]), asleep());
        // Now 1 has three events.
        assert_eq!(guest.poll(1, &[]), Did::Gave);
        assert_eq!(guest.poll(0, &[]), Did::Nothing, "1 was polled since, and has more");
        assert_eq!(guest.poll(77, &[1]), asleep(), "77 is the same handle as 0: 1 was not polled since");
        while guest.poll(1, &[]) == Did::Gave {}
        assert_eq!(guest.poll(0, &[1]), woken(1), "1 was polled since, and gets one");
        assert_eq!(guest.poll(0, &[1]), asleep());
    }

    /// It need not even be woken on the host's side: a refused query costs a timer a second, however much arrives.
    #[test]
    fn an_unknown_handle_with_nothing_to_wait_for_asks_for_no_waker() {
        let mut guest = Guest::new(1);
        assert_eq!(guest.poll(0, &[1, 1, 1]), asleep());
        assert!(guest.world.waker.lock().unwrap().is_none());
    }

    #[test]
    fn the_sleep_ends_by_itself() {
        let guest = Guest::new(1);
        let ticker = Ticker::default();
        ticker.enter();
        for until in [Until::AnyArrival, Until::Waiting(vec![101]), Until::Waiting(vec![])] {
            let mut sleep = Sleep { id: None, until, arrivals: 0 };
            guest.runtime.block_on(sleep.run(&*guest.world, &ticker, Duration::from_millis(5)));
        }
    }

    #[test]
    fn what_is_open_is_freed() {
        let mut guest = Guest::new(3);
        guest.handles.free(2).unwrap();
        assert!(guest.handles.free(2).is_err() && guest.handles.check(2).is_err());
        for handle in 1..=3 {
            guest.world.push(handle);
        }
        drop(guest.handles);
        // This fake's `free` empties the queue; 2 was freed before.
        assert!(!guest.world.has_waiting(101) && guest.world.has_waiting(102) && !guest.world.has_waiting(103));
    }

    #[derive(Debug, Clone)]
    enum Act {
        Push(u64),
        Poll(u64, Vec<u64>),
        Free(u64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => (1..6_u64).prop_map(Act::Push),
            6 => (0..7_u64, prop::collection::vec(1..6_u64, 0..3)).prop_map(|(handle, pushes)| Act::Poll(handle, pushes)),
            1 => (1..5_u64).prop_map(Act::Free),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Against the contract's words, over the list of all polls so far.
        #[test]
        fn polling_keeps_the_contract(acts in prop::collection::vec(act(), 1..60)) {
            let mut guest = Guest::new(5);
            let mut polls: Vec<u64> = Vec::new();
            let mut queues: BTreeMap<u64, u32> = (1..=5).map(|handle| (handle, 0)).collect();
            let mut freed = Vec::new();
            for act in acts {
                match act {
                    Act::Push(handle) => {
                        guest.world.push(handle);
                        *queues.entry(handle).or_default() += 1;
                    }
                    Act::Free(handle) => {
                        prop_assert_eq!(guest.handles.free(handle).is_ok(), !freed.contains(&handle));
                        freed.push(handle);
                        queues.insert(handle, 0);
                    }
                    Act::Poll(handle, pushes) => {
                        // All unknown handles are 0 here.
                        let known = |handle: u64| if (1..=5).contains(&handle) && !freed.contains(&handle) { handle } else { 0 };
                        let this = known(handle);
                        // A handle that has become unknown was polled as itself before.
                        let since: Vec<u64> = polls.iter().rev().take_while(|&&polled| polled != this).copied().collect();
                        let others: Vec<u64> = since.into_iter().filter(|&other| known(other) == other && other != 0).collect();
                        let waiting = |handle: &u64| queues[handle] > 0;
                        let expected = if this != 0 && waiting(&this) {
                            Did::Gave
                        } else if others.iter().any(waiting) {
                            Did::Nothing
                        } else {
                            // A push to a freed handle arrives in this fake, as it may in the world before it is freed.
                            let ends = |push: &&u64| this != 0 || others.contains(push);
                            Did::Slept { woken_by: pushes.iter().find(ends).copied().into_iter().collect() }
                        };
                        let did = guest.poll(handle, &pushes);
                        prop_assert_eq!(&did, &expected);
                        polls.push(this);
                        match did {
                            Did::Gave => *queues.get_mut(&this).unwrap() -= 1,
                            Did::Nothing => {}
                            Did::Slept { woken_by } => {
                                // Pushes after the one that woke it were not made.
                                let made = woken_by.first().map_or(pushes.len(), |by| 1 + pushes.iter().position(|push| push == by).unwrap());
                                for push in &pushes[..made] {
                                    *queues.get_mut(push).unwrap() += 1;
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
