//! A live query whose updates somebody outside reads: a subscription of its own, as a stream that ends it when dropped.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures_util::Stream;
use slung_engine::{Engine, Error};
use slung_live::{HandleId, HandleStats, Subscriber};
use slung_model::Query;

use crate::event;

/// What all of them together had to leave out, because their readers were slow.
#[derive(Debug, Default)]
pub(crate) struct WatchCounters {
    /// Updates that were merged into one that waited.
    pub(crate) merged: AtomicU64,
    /// Raw updates that were dropped.
    pub(crate) dropped: AtomicU64,
}

/// The updates of one live query, as a workflow would read them.
pub(crate) struct Watch {
    engine: Arc<Engine>,
    subscriber: Arc<Subscriber>,
    handle: HandleId,
    counters: Arc<WatchCounters>,
    /// As far as it is in the counters.
    counted: HandleStats,
}

impl Watch {
    /// Registers the query.
    ///
    /// # Errors
    /// Those of [`Engine::subscribe`].
    pub(crate) fn new(engine: Arc<Engine>, query: &Query, counters: Arc<WatchCounters>) -> Result<Self, Error> {
        let subscriber = engine.subscriber();
        let handle = engine.subscribe(&subscriber, query)?;
        Ok(Self { engine, subscriber, handle, counters, counted: HandleStats::default() })
    }

    fn count(&mut self) {
        let now = self.subscriber.stats();
        self.counters.merged.fetch_add(now.merged - self.counted.merged, Relaxed);
        self.counters.dropped.fetch_add(now.dropped - self.counted.dropped, Relaxed);
        self.counted = now;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.engine.unsubscribe(&self.subscriber, self.handle);
        self.count();
    }
}

impl Stream for Watch {
    type Item = Arc<[u8]>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Arc<[u8]>>> {
        if let Some(update) = self.subscriber.try_next(self.handle) {
            return Poll::Ready(Some(event::json(&update)));
        }
        self.count();
        self.subscriber.wake_on_arrival(context.waker());
        // What arrived before the waker was left woke nobody.
        match self.subscriber.try_next(self.handle) {
            Some(update) => Poll::Ready(Some(event::json(&update))),
            None => Poll::Pending,
        }
    }
}
