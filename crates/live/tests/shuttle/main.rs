//! The delivery queues under many schedules: no update is lost, and no wake-up. The sources are the crate's own; what they
//! lock and count with is a scheduler's, which decides at each such step who goes on. A reader that sleeps on although
//! something waits for it is a deadlock, which the scheduler reports.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};

use shuttle::future::block_on;
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread::{self, JoinHandle};
use slung_model::{ProducerId, SeriesKey};

use subscriber::Subscriber;
use update::{Change, HandleId, OpenProducers, Update};

/// In place of the crate's own.
mod sync {
    pub(crate) use shuttle::sync::{Mutex, MutexGuard, PoisonError, atomic};
}

#[path = "../../src/subscriber.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "there it is a part of the crate and public, here only what is tested is used"
)]
mod subscriber;
#[path = "../../src/update.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "there it is a part of the crate and public, here only what is tested is used"
)]
mod update;

/// Schedules per test and way of choosing them.
const SCHEDULES: usize = 50_000;

/// Switches between threads at the worst moments: most mistakes need two or three.
const SWITCHES: usize = 3;

/// By chance at each step, and by chance where few switches are made.
fn under_many_schedules(test: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(test, SCHEDULES);
    shuttle::check_pct(test, SCHEDULES, SWITCHES);
}

fn handle(id: u64) -> HandleId {
    HandleId::new(id).unwrap()
}

/// One event after the other: the value is its number, and so is the connection that it came by. Wakes as
/// [`slung_live::Wakes`] does, when no lock is held.
fn write(subscriber: &Arc<Subscriber>, handles: &[HandleId], events: RangeInclusive<u64>) -> JoinHandle<()> {
    let (subscriber, handles) = (Arc::clone(subscriber), handles.to_vec());
    thread::spawn(move || {
        let (key, mut open) = (Arc::new(SeriesKey::new("temp", ["sensor=0"]).unwrap()), OpenProducers::default());
        for event in events {
            let producer = ProducerId::new(event);
            open.wrote(producer.unwrap());
            let value = event as f64;
            let change =
                Change { timestamp: 0, value, key: &key, shared: None, producer, state: None, arrived: event as i64 };
            let wakers: Vec<Waker> =
                handles.iter().filter_map(|handle| subscriber.deliver(*handle, &change, &open)).collect();
            wakers.into_iter().for_each(Waker::wake);
        }
    })
}

/// Where a reader sleeps. Not by parking, which the scheduler ends without a reason now and then: nobody is to be woken
/// by luck.
#[derive(Default)]
struct Bed {
    is_woken: Mutex<bool>,
    change: Condvar,
}

impl Bed {
    fn sleep(&self) {
        let is_woken = self.is_woken.lock().unwrap();
        *self.change.wait_while(is_woken, |is_woken| !*is_woken).unwrap() = false;
    }
}

impl Wake for Bed {
    fn wake(self: Arc<Self>) {
        *self.is_woken.lock().unwrap() = true;
        self.change.notify_one();
    }
}

/// What a reader has got from one handle.
#[derive(Default)]
struct Got {
    values: Vec<f64>,
    producers: Vec<u64>,
}

impl Got {
    /// Answers whether there was something to take.
    fn take(&mut self, subscriber: &Subscriber, handle: HandleId) -> bool {
        let Some(update) = subscriber.try_next(handle) else { return false };
        self.values.push(update.value);
        self.producers.extend(update.producers.iter().map(|producer| producer.get()));
        true
    }

    /// Each connection once, though the updates may be merged.
    fn assert_all(&self, events: u64) {
        assert_eq!(self.producers.len() as u64, events, "each producer once: {:?}", self.producers);
        assert!(self.producers.iter().copied().collect::<BTreeSet<_>>().into_iter().eq(1..=events));
    }
}

/// Reads until `is_all` says so, and sleeps as the documentation of [`Subscriber`] says.
fn read_until(subscriber: &Subscriber, from: &[HandleId], is_all: impl Fn(&[Got]) -> bool) -> Vec<Got> {
    let mut got: Vec<Got> = from.iter().map(|_| Got::default()).collect();
    while !is_all(&got) {
        let before = subscriber.arrivals();
        let mut is_any = false;
        for (handle, got) in from.iter().zip(&mut got) {
            is_any |= got.take(subscriber, *handle);
        }
        if is_any {
            continue;
        }
        // A new one each time: the one that was left before wakes nobody any more.
        let bed = Arc::new(Bed::default());
        subscriber.wake_on_arrival(&Waker::from(Arc::clone(&bed)));
        if subscriber.arrivals() == before {
            bed.sleep();
        }
    }
    got
}

/// Two engines write for one workflow: both to one aggregate, the first also to a raw query.
#[test]
fn each_update_arrives_and_wakes_the_reader() {
    const EACH: u64 = 4;
    under_many_schedules(|| {
        let (subscriber, sum, raw) = (Subscriber::new(2), handle(1), handle(2));
        subscriber.add(sum, false);
        subscriber.add(raw, true);
        let writers = [write(&subscriber, &[sum, raw], 1..=EACH), write(&subscriber, &[sum], EACH + 1..=2 * EACH)];
        let got = read_until(&subscriber, &[sum, raw], |got| {
            got[0].producers.len() as u64 == 2 * EACH && got[1].values.last() == Some(&(EACH as f64))
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());

        got[0].assert_all(2 * EACH);
        assert!(got[1].values.is_sorted_by(|a, b| a < b), "in order: {:?}", got[1].values);
        let [of_sum, of_raw] = [sum, raw].map(|handle| subscriber.handle_stats(handle).unwrap());
        assert_eq!((of_sum.delivered, of_raw.delivered), (got[0].values.len() as u64, got[1].values.len() as u64));
        assert_eq!((of_sum.delivered + of_sum.merged, of_raw.delivered + of_raw.dropped), (2 * EACH, EACH));
        assert_eq!((of_sum.waiting, of_raw.waiting, of_sum.dropped, of_raw.merged), (0, 0, 0, 0));
        assert_eq!(subscriber.arrivals(), 3 * EACH);
    });
}

/// A guest frees one of its handles and gets another one while a writer is about to tell all three.
#[test]
fn a_freed_handle_gets_nothing_more_and_costs_the_others_nothing() {
    const EVENTS: u64 = 4;
    under_many_schedules(|| {
        let (subscriber, freed, kept, new) = (Subscriber::new(2), handle(1), handle(2), handle(3));
        subscriber.add(freed, true);
        subscriber.add(kept, false);
        let writer = write(&subscriber, &[freed, kept, new], 1..=EVENTS);
        let reader = {
            let subscriber = Arc::clone(&subscriber);
            thread::spawn(move || {
                let got = read_until(&subscriber, &[kept], |got| got[0].producers.len() as u64 == EVENTS);
                got[0].assert_all(EVENTS);
            })
        };
        let mut of_freed = Got::default();
        of_freed.take(&subscriber, freed);
        subscriber.remove(freed);
        let dropped = subscriber.stats().dropped;
        subscriber.add(new, false);
        assert!(!of_freed.take(&subscriber, freed) && !subscriber.has_waiting(freed));
        writer.join().unwrap();
        reader.join().unwrap();

        assert!(!of_freed.take(&subscriber, freed), "what came after it was freed");
        assert_eq!((subscriber.handle_stats(freed), subscriber.stats().dropped), (None, dropped));
        assert_eq!(subscriber.handles(), [kept, new]);
        let of_new = subscriber.handle_stats(new).unwrap();
        let mut got = Got::default();
        while got.take(&subscriber, new) {}
        assert_eq!(got.producers.len() as u64, of_new.waiting as u64 + of_new.merged);
        assert!(got.producers.into_iter().rev().eq((1..=EVENTS).rev().take(of_new.waiting + of_new.merged as usize)));
    });
}

/// As a stream of updates over HTTP reads: it looks, leaves a waker, and looks again.
#[test]
fn a_stream_that_looks_again_after_it_left_its_waker_gets_all() {
    const EVENTS: u64 = 4;
    under_many_schedules(|| {
        let (subscriber, sum) = (Subscriber::new(2), handle(1));
        subscriber.add(sum, false);
        let writer = write(&subscriber, &[sum], 1..=EVENTS);
        let mut got = Got::default();
        while (got.producers.len() as u64) < EVENTS {
            block_on(poll_fn(|context| {
                if got.take(&subscriber, sum) {
                    return Poll::Ready(());
                }
                subscriber.wake_on_arrival(context.waker());
                if got.take(&subscriber, sum) { Poll::Ready(()) } else { Poll::Pending }
            }));
        }
        writer.join().unwrap();
        got.assert_all(EVENTS);
    });
}

/// The smallest that can go wrong, in every order that there is: one event, one reader.
#[test]
fn under_every_schedule_the_last_update_wakes_the_reader() {
    let test = || {
        let (subscriber, sum) = (Subscriber::new(1), handle(1));
        subscriber.add(sum, false);
        let writer = write(&subscriber, &[sum], 1..=1);
        read_until(&subscriber, &[sum], |got| !got[0].producers.is_empty())[0].assert_all(1);
        writer.join().unwrap();
    };
    shuttle::check_dfs(test, None);
}
