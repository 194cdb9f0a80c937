//! What a workflow can reach: the host's trait on top of the engine, the producers' connections and the HTTP client.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt};
use slung_engine::Engine;
use slung_host::{HttpMethod, NewEvent, Refusal, World};
use slung_live::{HandleId, Subscriber};
use slung_model::{Point, Query, Seq, SeriesKey};
use slung_net::{HttpClient, Producers};
use slung_store::Damage;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tracing::warn;

use crate::acquainted::Acquainted;
use crate::event;
use crate::feedback::Feedback;

/// Until the same matter of a workflow is worth another line in the log.
const WARN_REPEAT: Duration = Duration::from_secs(60);

/// When the log last had a word on something.
#[derive(Default)]
struct Warned(Mutex<Option<Instant>>);

impl Warned {
    /// Whether it is to have one again.
    fn is_due(&self) -> bool {
        let mut warned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let due = warned.is_none_or(|before| now.saturating_duration_since(before) >= WARN_REPEAT);
        if due {
            *warned = Some(now);
        }
        due
    }
}

/// The parts that every workflow's world shares.
#[derive(Clone)]
pub(crate) struct Surroundings {
    /// History and live queries.
    pub(crate) engine: Arc<Engine>,
    /// What the engine has committed.
    pub(crate) durable: watch::Receiver<Seq>,
    /// The connections that may be answered.
    pub(crate) producers: Producers,
    /// The way to everybody else.
    pub(crate) http: HttpClient,
}

/// The world of one running workflow; its subscriptions end with it.
pub(crate) struct WorkflowWorld {
    name: String,
    around: Surroundings,
    warned_partial: Warned,
    warned_status: Warned,
    subscription: Arc<Subscription>,
    feedback: Feedback,
    /// `None` for a workflow that may answer anybody.
    acquainted: Option<Acquainted>,
}

/// Where the live queries of a workflow are registered. Those of its next life are at the same subscriber: each ends by itself, as
/// the host frees it, or as nobody takes it.
struct Subscription {
    engine: Arc<Engine>,
    subscriber: Arc<Subscriber>,
    /// Held by what reads history for it: where somebody has given up, the next one waits for its end.
    reads: Arc<Semaphore>,
}

/// A live query that was registered, and ends unless somebody takes it: who asked for it may have given up meanwhile.
struct Untaken {
    subscription: Arc<Subscription>,
    handle: Option<HandleId>,
}

impl Untaken {
    fn take(mut self) -> HandleId {
        self.handle.take().expect("it is taken once")
    }
}

impl Drop for Untaken {
    fn drop(&mut self) {
        if let Some(handle) = self.handle {
            self.subscription.engine.unsubscribe(&self.subscription.subscriber, handle);
        }
    }
}

impl WorkflowWorld {
    /// Nothing is subscribed yet. Updates arrive at `subscriber`. Without `answers_anybody` only producers may be answered whose
    /// events were in one.
    pub(crate) fn new(name: String, around: Surroundings, subscriber: Arc<Subscriber>, answers_anybody: bool) -> Self {
        let (engine, reads) = (Arc::clone(&around.engine), Arc::new(Semaphore::new(1)));
        let subscription = Arc::new(Subscription { engine, subscriber, reads });
        let (warned_partial, warned_status) = (Warned::default(), Warned::default());
        Self {
            name,
            around,
            warned_partial,
            warned_status,
            subscription,
            feedback: Feedback::default(),
            acquainted: (!answers_anybody).then(Acquainted::default),
        }
    }

    /// The guest gets a number, which can't tell that it lacks something: the operator is told.
    fn warn_partial(&self, query: &Query, damage: &Damage) {
        if self.warned_partial.is_due() {
            warn!("workflow {}: the answer to {query} is a partial one: {damage}", self.name);
        }
    }

    /// The point of an event. Tells the operator, once, where it will come back to its writer.
    fn point(&self, event: NewEvent<'_>) -> Result<Point, Refusal> {
        let NewEvent { timestamp, value, series, tags } = event;
        let key = SeriesKey::new(series, tags).map_err(refusal)?;
        let series = self.around.engine.resolve(&key).map_err(refusal)?;
        if let Some(query) = self.feedback.fed(series, &key, timestamp) {
            warn!(
                "workflow {}: it writes to {key}, which its own live query {query} reads: what it writes comes back to \
                 it, perhaps for ever; let it write under a name or tag that it does not read",
                self.name
            );
        }
        Ok(Point { series, timestamp, value })
    }
}

fn refusal(error: impl std::fmt::Display) -> Refusal {
    Refusal(error.to_string())
}

impl World for WorkflowWorld {
    fn subscribe(&self, query: &str) -> BoxFuture<'_, Result<u64, Refusal>> {
        let query = Query::parse(query).map_err(refusal);
        let (engine, subscription) = (Arc::clone(&self.around.engine), Arc::clone(&self.subscription));
        async move {
            let query = query?;
            let meant = query.clone();
            let turn = Arc::clone(&subscription.reads).acquire_owned().await.map_err(refusal)?;
            // It may read from disk. The subscription is there as long as this runs, also when nobody waits for it any more.
            let subscribed = spawn_blocking(move || {
                let _turn = turn;
                let handle = engine.subscribe(&subscription.subscriber, &meant)?;
                Ok::<_, slung_engine::Error>(Untaken { subscription, handle: Some(handle) })
            });
            let handle = subscribed.await.map_err(refusal)?.map_err(refusal)?.take();
            if self.around.engine.window_stats(handle).is_some_and(|window| window.is_partial) {
                warn!("workflow {}: {query} starts from a partial history, as some of it is damaged", self.name);
            }
            self.feedback.subscribed(handle.get(), query);
            Ok(handle.get())
        }
        .boxed()
    }

    fn free(&self, id: u64) -> bool {
        self.feedback.freed(id);
        HandleId::new(id).is_some_and(|handle| self.around.engine.unsubscribe(&self.subscription.subscriber, handle))
    }

    fn try_next(&self, id: u64, event: &mut Vec<u8>) -> Option<i64> {
        let update = self.subscription.subscriber.try_next(HandleId::new(id)?)?;
        if let Some(acquainted) = &self.acquainted {
            acquainted.meet(&update.producers, &self.around.producers);
        }
        event::write(&update, event);
        Some(update.arrived)
    }

    fn now_micros(&self) -> i64 {
        self.around.engine.now_micros()
    }

    fn has_waiting(&self, id: u64) -> bool {
        HandleId::new(id).is_some_and(|handle| self.subscription.subscriber.has_waiting(handle))
    }

    fn arrivals(&self) -> u64 {
        self.subscription.subscriber.arrivals()
    }

    fn wake_on_arrival(&self, waker: &Waker) {
        self.subscription.subscriber.wake_on_arrival(waker);
    }

    fn history(&self, query: &str) -> BoxFuture<'_, Result<f64, Refusal>> {
        let query = Query::parse(query).map_err(refusal);
        let engine = Arc::clone(&self.around.engine);
        let reads = Arc::clone(&self.subscription.reads);
        async move {
            let query = query?;
            let turn = reads.acquire_owned().await.map_err(refusal)?;
            // It may read from disk.
            let (query, answer) = spawn_blocking(move || {
                let _turn = turn;
                let answer = engine.query(&query);
                (query, answer)
            })
            .await
            .map_err(refusal)?;
            let answer = answer.map_err(refusal)?;
            if let Some(damage) = answer.damage.first() {
                self.warn_partial(&query, damage);
            }
            Ok(answer.value.unwrap_or(0.0))
        }
        .boxed()
    }

    fn write(&self, event: NewEvent<'_>) -> BoxFuture<'_, Result<(), Refusal>> {
        let point = self.point(event);
        async move {
            let point = point?;
            let mut durable = self.around.durable.clone();
            loop {
                // Marked before the attempt: a commit between the two must not be waited for.
                durable.borrow_and_update();
                match self.around.engine.try_write(None, &[point]) {
                    Err(slung_engine::Error::Busy) => durable.changed().await.map_err(refusal)?,
                    other => return other.map(drop).map_err(refusal),
                }
            }
        }
        .boxed()
    }

    fn writeback_ws(&self, producer: u64, data: &[u8]) -> Result<(), Refusal> {
        if self.acquainted.as_ref().is_some_and(|acquainted| !acquainted.knows(producer)) {
            // In these very words, so that they are logged once a minute and not for each number that it tries.
            return Err(refusal("it has seen no event of that producer (`answers_anybody` allows it)"));
        }
        self.around.producers.send(producer, data).map_err(refusal)
    }

    fn writeback_http(&self, method: HttpMethod, url: &str, body: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, Refusal>> {
        let url = url.to_owned();
        async move {
            let method = match method {
                HttpMethod::Get => slung_net::HttpMethod::Get,
                HttpMethod::Post => slung_net::HttpMethod::Post,
                HttpMethod::Put => slung_net::HttpMethod::Put,
                HttpMethod::Delete => slung_net::HttpMethod::Delete,
            };
            let response = self.around.http.send(method, &url, body).await.map_err(refusal)?;
            // The guest gets the body, as the contract says, but no status: the operator is told.
            if !(200..300).contains(&response.status) && self.warned_status.is_due() {
                warn!("workflow {}: {url} answered with status {}", self.name, response.status);
            }
            Ok(response.body.into())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Context;

    use slung_model::SystemClock;
    use slung_net::{Counters, Memory, OutboundOptions};
    use slung_store::sim::SimVfs;

    use super::*;

    /// The id of a live query that is registered only after its workflow has given up reaches nobody, so nobody could end it.
    #[test]
    fn a_live_query_that_nobody_waits_for_any_more_ends() {
        // One thread registers, and none as long as a test holds it.
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        let _context = runtime.enter();
        let hold = || {
            let (release, held) = std::sync::mpsc::channel::<()>();
            spawn_blocking(move || held.recv());
            release
        };
        let options = slung_engine::Options::default();
        let (engine, _) =
            Engine::open(Arc::new(SimVfs::new(1)), Arc::new(SystemClock), "data".as_ref(), options).unwrap();
        let engine = Arc::new(engine);
        let counters = Arc::<Counters>::default();
        let around = Surroundings {
            engine: Arc::clone(&engine),
            durable: watch::channel(engine.durable_through()).1,
            producers: Producers::new(1_024, Memory::new(1 << 20), Arc::clone(&counters)),
            http: HttpClient::new(OutboundOptions::default(), counters),
        };
        let subscriber = engine.subscriber();
        let world = WorkflowWorld::new("w".to_owned(), around.clone(), Arc::clone(&subscriber), false);
        let handles = || engine.stats().live.handles;
        let until = |what: &dyn Fn() -> bool| {
            while !what() {
                std::thread::yield_now();
            }
        };
        // Who registers holds the subscription meanwhile.
        let settled = || until(&|| Arc::strong_count(&world.subscription) == 1);
        let poll = |future: &mut BoxFuture<'_, _>| future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(runtime.block_on(world.subscribe("AVG:temp:[]")).is_ok());
        settled();
        assert_eq!(handles(), 1);

        // Given up before it is registered.
        let release = hold();
        let mut subscribing = world.subscribe("temp:[]");
        assert!(poll(&mut subscribing).is_pending());
        drop(subscribing);
        drop(release);
        settled();
        assert_eq!(handles(), 1);

        // Registered, but not taken yet when it is given up.
        let release = hold();
        let mut subscribing = world.subscribe("temp:[]");
        assert!(poll(&mut subscribing).is_pending());
        drop(release);
        until(&|| handles() == 2);
        drop(subscribing);
        settled();
        assert_eq!(handles(), 1);

        // Given up by a life that has ended: the next one keeps what is its own.
        let release = hold();
        let mut subscribing = world.subscribe("temp:[]");
        assert!(poll(&mut subscribing).is_pending());
        drop(subscribing);
        let ended = Arc::downgrade(&world.subscription);
        drop(world);
        let next = WorkflowWorld::new("w".to_owned(), around, Arc::clone(&subscriber), false);
        let query = Query::parse("MAX:temp:[]").unwrap();
        let handle = engine.subscribe(&next.subscription.subscriber, &query).unwrap();
        drop(release);
        until(&|| ended.strong_count() == 0);
        assert!(engine.window_stats(handle).is_some(), "it is deaf");
    }
}
