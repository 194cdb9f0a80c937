//! What a poll allocates on the host, all the way from the queue of updates to the guest's memory. In a process of its own,
//! in which nothing else runs meanwhile.

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Waker;

use slung_benches::{START, STEP, key};
use slung_host::{BoxFuture, Host, HostOptions, HttpMethod, NewEvent, Refusal, StartOptions, State, World};
use slung_live::{HandleId, Live, Options, Subscriber};
use slung_model::{Point, ProducerId, Query, SeriesId, SeriesKey};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

// The server's own, which is a binary.
#[path = "../../crates/server/src/event.rs"]
#[expect(dead_code, reason = "here only what workflows get is looked at")]
mod event;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Updates that wait, no more than a queue has.
const UPDATES: usize = 1_000;
/// Those whose polls are counted. Before them buffers grow and things are made that are made once.
const FROM: usize = 100;
const TO: usize = 900;

/// What wasmtime allocates for a call of an asynchronous host function that calls `allocate` twice: the function's future is
/// boxed by us, as it demands, and again by itself, and each call into the guest has a box for what its fiber begins with.
const BY_WASMTIME: usize = 4;

/// Polls the handle 1 until nothing comes, and reuses its memory.
const GUEST: &str = r#"(module
    (import "env" "u_poll_handle" (func $poll_handle (param i64) (result i32)))
    (import "env" "u_query_live" (func $query_live (param i32) (result i64)))
    (memory (export "memory") 1)
    (data (i32.const 16) "\20\00\00\00\0f\00\00\00\0f\00\00\00")
    (data (i32.const 32) "AVG:cpu.total:[")
    (global $free (mut i32) (i32.const 1024))
    (func (export "allocate") (param $bytes i32) (result i32)
        (global.get $free)
        (global.set $free (i32.add (global.get $free) (i32.and (i32.add (local.get $bytes) (i32.const 7)) (i32.const -8)))))
    (func (export "deallocate") (param i32))
    (func (export "call") (result i32)
        (drop (call $query_live (i32.const 16)))
        (loop $again
            (global.set $free (i32.const 1024))
            (br_if $again (call $poll_handle (i64.const 1))))
        (i32.const 0)))"#;

/// Updates that wait for a workflow, and how much the process had allocated when the counted ones were taken.
struct Full {
    subscriber: Arc<Subscriber>,
    handle: HandleId,
    taken: AtomicUsize,
    allocated: [AtomicUsize; 2],
}

impl World for Full {
    fn try_next(&self, _: u64, event: &mut Vec<u8>) -> Option<i64> {
        let place = [FROM, TO].iter().position(|at| *at == self.taken.load(SeqCst));
        if let Some(place) = place {
            self.allocated[place].store(ALLOCATOR.stats().allocations, SeqCst);
        }
        let update = self.subscriber.try_next(self.handle)?;
        self.taken.fetch_add(1, SeqCst);
        event::write(&update, event);
        Some(update.arrived)
    }
    fn now_micros(&self) -> i64 {
        START
    }
    fn subscribe(&self, _: &str) -> BoxFuture<'_, Result<u64, Refusal>> {
        Box::pin(std::future::ready(Ok(1)))
    }
    fn free(&self, _: u64) -> bool {
        true
    }
    fn has_waiting(&self, _: u64) -> bool {
        self.subscriber.has_waiting(self.handle)
    }
    fn arrivals(&self) -> u64 {
        self.subscriber.arrivals()
    }
    fn wake_on_arrival(&self, waker: &Waker) {
        self.subscriber.wake_on_arrival(waker);
    }
    fn writeback_ws(&self, _: u64, _: &[u8]) -> Result<(), Refusal> {
        Ok(())
    }
    fn history(&self, _: &str) -> BoxFuture<'_, Result<f64, Refusal>> {
        Box::pin(std::future::ready(Ok(0.0)))
    }
    fn write(&self, _: NewEvent<'_>) -> BoxFuture<'_, Result<(), Refusal>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn writeback_http(&self, _: HttpMethod, _: &str, _: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, Refusal>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

/// Updates of one query, for so many readers.
fn full(readers: usize) -> Vec<(Arc<Subscriber>, HandleId)> {
    let mut live = Live::new(Options::default());
    let query = Query::parse("AVG:cpu.total:[]").expect("a query");
    let subscribe = |_| {
        let subscriber = live.subscriber();
        let handle = live.subscribe(&subscriber, &query, [SeriesId(0)], [], START).expect("there is room");
        (subscriber, handle)
    };
    let subscribers = (0..readers).map(subscribe).collect();
    let known: Arc<SeriesKey> = Arc::new(key(0));
    for at in 0..UPDATES as i64 {
        let point = Point { series: SeriesId(0), timestamp: START + at * STEP, value: at as f64 * 0.1 };
        drop(live.apply(ProducerId::new(7), &[point], START, &|_| Some(Arc::clone(&known))));
    }
    subscribers
}

/// Allocations for each poll of a workflow that takes all of them. What other threads allocate now and then is rounded away.
fn per_poll(host: &Host, (subscriber, handle): (Arc<Subscriber>, HandleId)) -> usize {
    let guest = wat::parse_str(GUEST).expect("a guest");
    let module = host.compile("polls", &guest).expect("a module");
    let world = Arc::new(Full { subscriber, handle, taken: AtomicUsize::new(0), allocated: Default::default() });
    let workflow = host.start(&module, StartOptions::default(), world.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    assert_eq!(runtime.block_on(workflow.wait()), State::Done);
    assert_eq!(world.taken.load(SeqCst), UPDATES);
    let [from, to] = world.allocated.each_ref().map(|allocated| allocated.load(SeqCst));
    (to - from) / (TO - FROM)
}

#[test]
fn a_poll_allocates_nothing_of_ours() {
    let host = Host::new(HostOptions { poll_sleep_ms_max: 20, ..HostOptions::default() }).expect("a host");
    let alone = full(1).remove(0);
    assert_eq!(per_poll(&host, alone), BY_WASMTIME, "one reader");

    let mut readers = full(2);
    let (other, one) = (readers.remove(1), readers.remove(0));
    assert_eq!(per_poll(&host, one), BY_WASMTIME + 1, "who leaves the JSON to another");
    assert_eq!(per_poll(&host, other), BY_WASMTIME, "who finds it");
    host.close();
}
