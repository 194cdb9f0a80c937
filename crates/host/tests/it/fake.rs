//! A world that a test fills and looks at.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::Waker;
use std::time::Duration;

use slung_host::{BoxFuture, HttpMethod, NewEvent, Refusal, World};

/// Longer than anything takes here, however loaded the machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// What a guest has asked for, in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Asked {
    Subscribe(String),
    Free(u64),
    History(String),
    Write { timestamp: i64, value: f64, series: String, tags: Vec<String> },
    Ws(u64, Vec<u8>),
    Http(HttpMethod, String, Vec<u8>),
}

/// What a forgetful world remembers.
const FORGETFUL: usize = 1_000;

/// An event after the time when it arrived.
type Arrived = (i64, Arc<[u8]>);

#[derive(Debug, Default)]
struct Inside {
    forgetful: bool,
    queues: BTreeMap<u64, VecDeque<Arrived>>,
    last: u64,
    arrivals: u64,
    /// What the clock says, microseconds.
    now: i64,
    /// How far it goes on with all that the guest asks for.
    pace: i64,
    waker: Option<Waker>,
    asked: Vec<Asked>,
    /// The names of the threads on which it said something.
    threads: Vec<String>,
    /// Events that the next live query has from the start.
    waiting: VecDeque<Arc<[u8]>>,
    /// What `writeback_http` answers; `None` for never.
    response: Option<Result<Vec<u8>, Refusal>>,
}

/// Everything is remembered, and can be waited for. Queries and series that start with `refuse` are refused, those that start
/// with `stall` are never answered; a live query's id is
/// 1,001 and so on, so that it is not the guest's handle by accident.
#[derive(Debug)]
pub(crate) struct Fake {
    inside: Mutex<Inside>,
    changed: Condvar,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        let inside = Inside { last: 1_000, response: Some(Ok(b"response".to_vec())), ..Inside::default() };
        Arc::new(Self { inside: Mutex::new(inside), changed: Condvar::new() })
    }

    /// One that remembers only the first things that the guest asks for, for guests that ask without end.
    pub(crate) fn forgetful() -> Arc<Self> {
        let world = Self::new();
        world.lock().forgetful = true;
        world
    }

    /// Puts an event in the queue of that live query.
    pub(crate) fn push(&self, id: u64, event: &str) {
        let mut inside = self.lock();
        let arrived = inside.now;
        inside.queues.get_mut(&id).expect("a live query").push_back((arrived, event.as_bytes().into()));
        inside.arrivals += 1;
        let waker = inside.waker.take();
        drop(inside);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The next live query that is made has these events from the start.
    pub(crate) fn preload(&self, events: &[&str]) {
        self.lock().waiting = events.iter().map(|event| event.as_bytes().into()).collect();
    }

    /// So many microseconds pass with all that the guest asks for; else none do.
    pub(crate) fn pass_with_each(&self, micros: i64) {
        self.lock().pace = micros;
    }

    /// What `writeback_http` answers from now on; `None` for never.
    pub(crate) fn respond(&self, response: Option<Result<Vec<u8>, Refusal>>) {
        self.lock().response = response;
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.lock().asked.clone()
    }

    /// The numbers that the guest said by `u_writeback_ws`.
    pub(crate) fn said(&self) -> Vec<u64> {
        let said = |asked: &Asked| match asked {
            Asked::Ws(number, _) => Some(*number),
            _ => None,
        };
        self.lock().asked.iter().filter_map(said).collect()
    }

    /// The names of the threads on which it said its numbers.
    pub(crate) fn threads(&self) -> Vec<String> {
        self.lock().threads.clone()
    }

    /// Waits until the guest has said that many numbers.
    pub(crate) fn wait_said(&self, count: usize) {
        let said = |inside: &Inside| inside.asked.iter().filter(|asked| matches!(asked, Asked::Ws(..))).count();
        self.wait("said", |inside| said(inside) >= count);
    }

    /// Waits until the guest sleeps and would be woken, since the last arrival.
    pub(crate) fn wait_listening(&self) {
        self.wait("listening", |inside| inside.waker.is_some());
    }

    fn wait(&self, what: &str, is: impl Fn(&Inside) -> bool) {
        let waited = self.changed.wait_timeout_while(self.lock(), LONG, |inside| !is(inside));
        let (inside, timeout) = waited.expect("no test panics inside");
        assert!(!timeout.timed_out(), "{what}: never seen of the guest; {inside:?}");
    }

    /// Live queries that are open.
    pub(crate) fn open(&self) -> Vec<u64> {
        self.lock().queues.keys().copied().collect()
    }

    fn ask(&self, asked: Asked) {
        let mut inside = self.lock();
        if !inside.forgetful || inside.asked.len() < FORGETFUL {
            inside.asked.push(asked);
        }
        inside.now += inside.pace;
        drop(inside);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("no test panics inside")
    }
}

fn refused(text: &str) -> Result<(), Refusal> {
    if text.starts_with("refuse") { Err(Refusal(format!("the test refuses {text}"))) } else { Ok(()) }
}

impl World for Fake {
    fn subscribe(&self, query: &str) -> BoxFuture<'_, Result<u64, Refusal>> {
        self.ask(Asked::Subscribe(query.to_owned()));
        if query.starts_with("stall") {
            return Box::pin(std::future::pending());
        }
        let subscribed = refused(query).map(|()| {
            let mut inside = self.lock();
            inside.last += 1;
            let id = inside.last;
            let arrived = inside.now;
            let waiting: VecDeque<_> = inside.waiting.drain(..).map(|event| (arrived, event)).collect();
            inside.arrivals += waiting.len() as u64;
            inside.queues.insert(id, waiting);
            id
        });
        Box::pin(std::future::ready(subscribed))
    }

    fn free(&self, id: u64) -> bool {
        self.ask(Asked::Free(id));
        self.lock().queues.remove(&id).is_some()
    }

    fn try_next(&self, id: u64, event: &mut Vec<u8>) -> Option<i64> {
        let mut inside = self.lock();
        let (arrived, next) = inside.queues.get_mut(&id)?.pop_front()?;
        event.extend_from_slice(&next);
        Some(arrived)
    }

    fn now_micros(&self) -> i64 {
        self.lock().now
    }

    fn has_waiting(&self, id: u64) -> bool {
        self.lock().queues.get(&id).is_some_and(|queue| !queue.is_empty())
    }

    fn arrivals(&self) -> u64 {
        self.lock().arrivals
    }

    fn wake_on_arrival(&self, waker: &Waker) {
        self.lock().waker = Some(waker.clone());
        self.changed.notify_all();
    }

    fn history(&self, query: &str) -> BoxFuture<'_, Result<f64, Refusal>> {
        self.ask(Asked::History(query.to_owned()));
        assert_ne!(query, "panic", "a test asked for this panic");
        let answer = refused(query).map(|()| 21.5);
        let stalls = query.starts_with("stall");
        Box::pin(async move {
            tokio::task::yield_now().await;
            if stalls {
                std::future::pending::<()>().await;
            }
            answer
        })
    }

    fn write(&self, event: NewEvent<'_>) -> BoxFuture<'_, Result<(), Refusal>> {
        let NewEvent { timestamp, value, series, tags } = event;
        let answer = refused(series);
        let tags = tags.into_iter().map(str::to_owned).collect();
        self.ask(Asked::Write { timestamp, value, series: series.to_owned(), tags });
        let stalls = series.starts_with("stall");
        Box::pin(async move {
            if stalls {
                std::future::pending::<()>().await;
            }
            answer
        })
    }

    fn writeback_ws(&self, producer: u64, data: &[u8]) -> Result<(), Refusal> {
        self.lock().threads.push(std::thread::current().name().unwrap_or_default().to_owned());
        self.ask(Asked::Ws(producer, data.to_vec()));
        if producer == u64::MAX { Err(Refusal("no such producer".to_owned())) } else { Ok(()) }
    }

    fn writeback_http(&self, method: HttpMethod, url: &str, body: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, Refusal>> {
        self.ask(Asked::Http(method, url.to_owned(), body));
        let response = self.lock().response.clone();
        Box::pin(async move {
            match response {
                Some(response) => response,
                None => std::future::pending().await,
            }
        })
    }
}
