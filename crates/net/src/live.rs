//! The updates of a live query as the body of an HTTP answer: server-sent events, for as long as both sides are there.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use hyper::body::{Body, Frame};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::backend::Updates;
use crate::server::Shared;
use crate::stats::{Counters, add};

/// What is sent so that something is: a comment, which every reader of events skips.
const KEEP_ALIVE: &[u8] = b":\n\n";

/// One stream of events. HTTP asks it for the next as the socket takes them, and it asks its query no sooner, so that a
/// slow reader makes nothing grow here. Ends with the query, or when the server does.
pub(crate) struct Events {
    updates: Updates,
    keep_alive: Interval,
    stopped: BoxFuture<'static, ()>,
    counters: Arc<Counters>,
    _place: OwnedSemaphorePermit,
}

impl Events {
    /// `stop` turns true when the server ends.
    pub(crate) fn new(
        shared: &Shared,
        updates: Updates,
        place: OwnedSemaphorePermit,
        mut stop: watch::Receiver<bool>,
    ) -> Self {
        let every = shared.options.live_keep_alive.max(Duration::from_millis(1));
        let mut keep_alive = tokio::time::interval_at(Instant::now() + every, every);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Where nobody can tell of the end any more, it is there.
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) }.boxed();
        let counters = Arc::clone(&shared.counters);
        add(&counters.live_streams_total, 1);
        add(&counters.live_streams_now, 1);
        Self { updates, keep_alive, stopped, counters, _place: place }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.counters.live_streams_now.fetch_sub(1, Relaxed);
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.stopped.poll_unpin(context).is_ready() {
            return Poll::Ready(None);
        }
        let bytes = match self.updates.poll_next_unpin(context) {
            Poll::Ready(Some(json)) => {
                add(&self.counters.live_updates, 1);
                Bytes::from([b"data: ", &json[..], b"\n\n"].concat())
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                ready!(self.keep_alive.poll_tick(context));
                Bytes::from_static(KEEP_ALIVE)
            }
        };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}
