//! Where guests run. All of them start on the host's tokio runtime, at the priority of everything else. One that computes for some
//! ticks in one go is moved to threads of the lowest priority, which take what others leave of the processors, a slice of a tick
//! each in turn, and is moved back when it next waits for something. So what answers an event within microseconds is never behind an
//! endless loop, however many of those there are.
//!
//! The threads of low priority are plain ones with a queue: what they run only ever waits for its turn, so that it needs no wakers, and
//! who is to be stopped is taken out of the queue instead of waiting for its turn in it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::stats::Counters;

/// The nice value of the threads for guests that compute: the lowest priority there is, 15 against the usual 1,024.
const LOW_PRIORITY: i32 = 19;

/// What a workflow and the thread that runs it tell each other; at any time it is run by one thread at most.
#[derive(Debug)]
pub(crate) struct Turn {
    /// How long it may compute in one go before it is moved.
    slice: Duration,
    /// When this was made.
    epoch: Instant,
    /// When it last began to compute, nanoseconds since `epoch`.
    began: AtomicU64,
    /// The same of the time that a tick last found beyond its slice.
    found_beyond: AtomicU64,
    /// It has given up the thread only because its time was up.
    ended: AtomicBool,
    /// Before that it must not go on.
    pause_until: Mutex<Option<Instant>>,
    /// It is run by a thread of low priority.
    low: AtomicBool,
}

impl Turn {
    pub(crate) fn new(slice: Duration) -> Arc<Self> {
        Arc::new(Self {
            slice,
            epoch: Instant::now(),
            began: AtomicU64::new(0),
            found_beyond: AtomicU64::new(u64::MAX),
            ended: AtomicBool::new(false),
            pause_until: Mutex::new(None),
            low: AtomicBool::new(false),
        })
    }

    /// Whether the guest, which computes, has had its time: a tick has found it beyond its slice for the second time. Once does not
    /// tell that it has computed: the system may have run others meanwhile.
    pub(crate) fn is_up(&self) -> bool {
        if self.low.load(Ordering::Relaxed) {
            return true;
        }
        let began = self.began.load(Ordering::Relaxed);
        let is_beyond = self.epoch.elapsed().saturating_sub(Duration::from_nanos(began)) >= self.slice;
        is_beyond && self.found_beyond.swap(began, Ordering::Relaxed) == began
    }

    /// Ends the turn when it is awaited, for that pause at least. It wakes nobody: whoever runs the workflow queues it.
    pub(crate) fn end(self: &Arc<Self>, pause: Option<Duration>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let turn = Arc::clone(self);
        let mut has_ended = false;
        Box::pin(poll_fn(move |_| {
            if std::mem::replace(&mut has_ended, true) {
                return Poll::Ready(());
            }
            *lock(&turn.pause_until) = pause.map(|pause| Instant::now() + pause);
            turn.ended.store(true, Ordering::Relaxed);
            Poll::Pending
        }))
    }

    /// Goes on at the usual priority: to be awaited before a lock is taken that others wait for, or a thread is made, which would be
    /// of low priority, too. Answers whether it was low.
    pub(crate) async fn rise(&self) -> bool {
        let was_low = self.low.load(Ordering::Relaxed);
        let mut waits = was_low;
        // Whoever waits for something else than its turn is run by the tokio runtime.
        poll_fn(|_| if std::mem::take(&mut waits) { Poll::Pending } else { Poll::Ready(()) }).await;
        was_low
    }

    /// Runs a guest, and adds the time that it computes: time on a thread, or for the threads that others crowd out, time on a
    /// processor.
    pub(crate) async fn timed<F: Future>(&self, future: F, counters: &Counters) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            let low = self.low.load(Ordering::Relaxed);
            let start = if low { thread_time() } else { self.epoch.elapsed() };
            if !low {
                self.began.store(nanos(start), Ordering::Relaxed);
            }
            let polled = future.as_mut().poll(context);
            let end = if low { thread_time() } else { self.epoch.elapsed() };
            counters.busy_nanos.add(nanos(end.saturating_sub(start)));
            polled
        })
        .await
    }
}

/// A workflow on its way through its life, wherever that goes on.
pub(crate) struct Resident {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    turn: Arc<Turn>,
    counters: Arc<Counters>,
    stop: watch::Receiver<bool>,
}

impl Resident {
    /// The task of a workflow, which ends when `stop` says so.
    pub(crate) fn new(
        future: impl Future<Output = ()> + Send + 'static,
        turn: Arc<Turn>,
        counters: Arc<Counters>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self { future: Box::pin(future), turn, counters, stop }
    }

    /// Whether it only waits for its next turn.
    fn has_ended_turn(&self) -> bool {
        self.turn.ended.load(Ordering::Relaxed) && self.turn.ended.swap(false, Ordering::Relaxed)
    }
}

/// A workflow on the tokio runtime; `None` when it has moved.
struct Ready(Option<Resident>, Arc<Pool>);

impl Future for Ready {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(resident) = &mut self.0 else { return Poll::Ready(()) };
        if resident.future.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        if !resident.has_ended_turn() {
            return Poll::Pending;
        }
        if let Some(resident) = self.0.take() {
            self.1.demote(resident);
        }
        Poll::Ready(())
    }
}

/// What waits for a thread of low priority.
#[derive(Default)]
struct Queue {
    /// Those that have just come: they are through soon, perhaps.
    fresh: VecDeque<Resident>,
    /// Those that have had a turn here.
    rest: VecDeque<Resident>,
    /// Those that may go on only then. The number makes the moments differ.
    paused: BTreeMap<(Instant, u64), Resident>,
    number: u64,
    /// Whether the next is to be one of the rest: they take turns with the fresh ones.
    rest_is_next: bool,
    closed: bool,
}

impl Queue {
    fn put(&mut self, resident: Resident, is_fresh: bool) {
        let pause_until = lock(&resident.turn.pause_until).take();
        match pause_until {
            Some(until) => {
                self.number += 1;
                self.paused.insert((until, self.number), resident);
            }
            None if is_fresh => self.fresh.push_back(resident),
            None => self.rest.push_back(resident),
        }
    }

    fn take(&mut self) -> Option<Resident> {
        self.rest_is_next = !self.rest_is_next;
        let (first, second) =
            if self.rest_is_next { (&mut self.fresh, &mut self.rest) } else { (&mut self.rest, &mut self.fresh) };
        first.pop_front().or_else(|| second.pop_front())
    }

    /// Ends the pauses that are over. Until the next one is; `None` where there is none.
    fn resume(&mut self) -> Option<Duration> {
        while let Some(first) = self.paused.first_entry() {
            let rest = first.key().0.saturating_duration_since(Instant::now());
            if !rest.is_zero() {
                return Some(rest);
            }
            self.rest.push_back(first.remove());
        }
        None
    }

    fn remove(&mut self, turn: &Arc<Turn>) -> Option<Resident> {
        let is_it = |resident: &Resident| Arc::ptr_eq(&resident.turn, turn);
        for queue in [&mut self.fresh, &mut self.rest] {
            if let Some(at) = queue.iter().position(is_it) {
                return queue.remove(at);
            }
        }
        let key = *self.paused.iter().find(|(_, resident)| is_it(resident))?.0;
        self.paused.remove(&key)
    }
}

/// The two kinds of threads.
pub(crate) struct Pool {
    ready: Handle,
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

impl Pool {
    /// With that tokio runtime, and [`run`](Self::run) by as many threads as wanted.
    pub(crate) fn new(ready: Handle) -> Arc<Self> {
        Arc::new(Self { ready, queue: Mutex::default(), changed: Condvar::new() })
    }

    /// Runs a workflow that is new, or waits for something else than its turn.
    pub(crate) fn start(self: &Arc<Self>, resident: Resident) {
        resident.turn.low.store(false, Ordering::Relaxed);
        // It is polled there first of all, which renews its wakers.
        self.ready.spawn(Ready(Some(resident), Arc::clone(self)));
    }

    /// One has had its time on the tokio runtime.
    fn demote(self: &Arc<Self>, resident: Resident) {
        resident.turn.low.store(true, Ordering::Relaxed);
        resident.counters.demotions.add(1);
        let mut queue = lock(&self.queue);
        if queue.closed {
            drop(queue);
            return; // and so it is dropped, with nothing locked
        }
        if *resident.stop.borrow() {
            drop(queue);
            return self.start(resident);
        }
        queue.put(resident, true);
        drop(queue);
        self.changed.notify_one();
    }

    /// Lets a workflow that is to stop see that at once, wherever it waits for its turn.
    ///
    /// Nothing is missed: what is about to enter the queue looks at `stop` under the lock that is taken here after `stop` was set.
    pub(crate) fn hurry(self: &Arc<Self>, turn: &Arc<Turn>) {
        let removed = lock(&self.queue).remove(turn);
        if let Some(resident) = removed {
            self.start(resident);
        }
    }

    /// Drops the workflows that wait for their turn and makes [`run`](Self::run) return.
    pub(crate) fn close(&self) {
        let mut queue = lock(&self.queue);
        let waiting = std::mem::take(&mut *queue);
        queue.closed = true;
        drop(queue);
        self.changed.notify_all();
        drop(waiting);
    }

    /// A thread of low priority.
    pub(crate) fn run(self: &Arc<Self>) {
        lower_priority();
        // For the timers of what the guest waits for.
        let _context = self.ready.enter();
        let mut last = None;
        while let Some(resident) = self.next(last) {
            // Its panic has been reported by the panic hook, and its end by what it dropped.
            last = catch_unwind(AssertUnwindSafe(|| self.run_slice(resident))).unwrap_or_default();
        }
    }

    /// Gives back what is to be queued again.
    fn run_slice(self: &Arc<Self>, mut resident: Resident) -> Option<Resident> {
        if resident.future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return None;
        }
        if resident.has_ended_turn() {
            return Some(resident);
        }
        self.start(resident);
        None
    }

    /// The next in the queue, behind which the last one is put.
    fn next(self: &Arc<Self>, last: Option<Resident>) -> Option<Resident> {
        let mut queue = lock(&self.queue);
        if let Some(last) = last {
            if queue.closed {
                drop(queue);
                return None;
            }
            if *last.stop.borrow() {
                drop(queue);
                self.start(last);
                queue = lock(&self.queue);
            } else {
                queue.put(last, false);
            }
        }
        loop {
            if queue.closed {
                return None;
            }
            let pause = queue.resume();
            if let Some(next) = queue.take() {
                if !(queue.fresh.is_empty() && queue.rest.is_empty()) {
                    self.changed.notify_one();
                }
                return Some(next);
            }
            queue = match pause {
                Some(pause) => self.changed.wait_timeout(queue, pause).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// Where the system does not let it, the thread stays as it is: fairness among guests is there all the same.
fn lower_priority() {
    // Elsewhere this would be the priority of the process.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, LOW_PRIORITY);
}

/// The processor time of the calling thread.
fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What is behind these locks is whole at every moment, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Its number in the channel each time that it is run, and 100 more when it sees that it is to stop.
    fn spinner(pool: &Arc<Pool>, number: u32, ran: &mpsc::Sender<u32>) -> (Arc<Turn>, watch::Sender<bool>) {
        let (turn, (stop, stop_receiver)) = (Turn::new(Duration::ZERO), watch::channel(false));
        let life = {
            let (turn, ran, stop) = (Arc::clone(&turn), ran.clone(), stop_receiver.clone());
            async move {
                while !*stop.borrow() {
                    ran.send(number).unwrap();
                    turn.end(None).await;
                }
                ran.send(100 + number).unwrap();
            }
        };
        pool.demote(Resident::new(life, Arc::clone(&turn), Arc::default(), stop_receiver));
        (turn, stop)
    }

    fn pool() -> (tokio::runtime::Runtime, Arc<Pool>) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let pool = Pool::new(runtime.handle().clone());
        (runtime, pool)
    }

    /// Runs the next one, and puts the last one back.
    fn next(pool: &Arc<Pool>, last: &mut Option<Resident>) {
        *last = pool.next(last.take()).and_then(|resident| pool.run_slice(resident));
    }

    #[test]
    fn each_has_its_turn_and_who_has_just_come_need_not_wait_for_all() {
        let (_runtime, pool) = pool();
        let (sender, ran) = mpsc::channel();
        let mut last = None;
        let _old: Vec<_> = (0..4).map(|number| spinner(&pool, number, &sender)).collect();
        // Until none of them is fresh any more.
        (0..8).for_each(|_| next(&pool, &mut last));
        let mut seen: Vec<_> = ran.try_iter().collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 2, 3]);
        (0..8).for_each(|_| next(&pool, &mut last));
        let turns: Vec<_> = ran.try_iter().collect();
        let mut first = turns[..4].to_vec();
        first.sort_unstable();
        assert_eq!((first, &turns[..4]), (vec![0, 1, 2, 3], &turns[4..]), "in turn");
        let _new: Vec<_> = (4..7).map(|number| spinner(&pool, number, &sender)).collect();
        (0..6).for_each(|_| next(&pool, &mut last));
        let order: Vec<_> = ran.try_iter().collect();
        let new: Vec<_> = order.iter().copied().filter(|number| *number >= 4).collect();
        assert_eq!(new, [4, 5, 6], "{order:?}");
        assert!(
            order.iter().filter(|number| **number < 4).count() == 3,
            "neither do they hold up the others: {order:?}"
        );
    }

    #[test]
    fn one_that_is_to_stop_is_run_at_once_wherever_it_is() {
        let (_runtime, pool) = pool();
        let (sender, ran) = mpsc::channel();
        // No thread serves the queue here: what runs, runs on the tokio runtime.
        let long = Duration::from_secs(30);
        let mut last = None;
        let (turn, stop) = spinner(&pool, 1, &sender);
        next(&pool, &mut last);
        assert_eq!(ran.recv(), Ok(1));
        let (other, stop_other) = spinner(&pool, 2, &sender);
        // One while it has its turn, the other while it waits.
        for (turn, stop) in [(turn, stop), (other, stop_other)] {
            stop.send_replace(true);
            pool.hurry(&turn);
        }
        assert_eq!(ran.recv_timeout(long), Ok(102));
        let _third = spinner(&pool, 3, &sender);
        next(&pool, &mut last);
        let mut both = [ran.recv_timeout(long).unwrap(), ran.recv_timeout(long).unwrap()];
        both.sort_unstable();
        assert_eq!(both, [3, 101]);
    }

    #[test]
    fn once_beyond_its_slice_it_goes_on_and_the_second_time_its_turn_is_over() {
        let turn = Turn::new(Duration::from_millis(1));
        let goes_on = || {
            turn.began.store(nanos(turn.epoch.elapsed()), Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(2));
            !turn.is_up()
        };
        assert!(goes_on() && goes_on(), "it has waited in between");
        assert!(turn.is_up());
        assert!(goes_on());
        turn.low.store(true, Ordering::Relaxed);
        assert!(turn.is_up(), "there each tick ends it");
    }

    #[test]
    fn a_pause_ends_when_it_is_over() {
        let (_runtime, pool) = pool();
        let (sender, ran) = mpsc::channel();
        let begin = Instant::now();
        let (turn, _stop) = spinner(&pool, 1, &sender);
        let resident = pool.next(None).unwrap();
        *lock(&turn.pause_until) = Some(begin + Duration::from_millis(30));
        let mut last = Some(resident);
        next(&pool, &mut last);
        assert_eq!(ran.try_iter().count(), 1);
        assert!(begin.elapsed() >= Duration::from_millis(30));
    }

    #[test]
    fn closing_drops_what_waits_and_lets_nothing_in() {
        let (_runtime, pool) = pool();
        let (sender, ran) = mpsc::channel();
        let _one = spinner(&pool, 1, &sender);
        pool.close();
        let _two = spinner(&pool, 2, &sender);
        pool.run();
        drop(sender);
        assert_eq!(ran.recv(), Err(mpsc::RecvError), "all are dropped, and none was run");
    }
}
