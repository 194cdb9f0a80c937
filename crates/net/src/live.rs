//! The body of an HTTP answer that has no end of its own, a live query's updates or a workflow's log: it goes on for as long as
//! both sides are there.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{BoxStream, Stream, StreamExt};
use hyper::body::{Body, Frame};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::server::Shared;
use crate::stats::{Counters, add};

/// One stream. HTTP asks it for the next piece as the socket takes them, and it asks whoever makes them no sooner, so that a
/// slow reader makes nothing grow here. Ends with what it streams, or when the server does.
pub(crate) struct Streamed {
    pieces: BoxStream<'static, Bytes>,
    keep_alive: Interval,
    /// What is sent where there is nothing to send for that long.
    filler: &'static [u8],
    stopped: BoxFuture<'static, ()>,
    counters: Arc<Counters>,
    _place: OwnedSemaphorePermit,
}

impl Streamed {
    /// `stop` turns true when the server ends.
    pub(crate) fn new(
        shared: &Shared,
        pieces: impl Stream<Item = Bytes> + Send + 'static,
        filler: &'static [u8],
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
        Self { pieces: pieces.boxed(), keep_alive, filler, stopped, counters, _place: place }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.counters.live_streams_now.fetch_sub(1, Relaxed);
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.stopped.poll_unpin(context).is_ready() {
            return Poll::Ready(None);
        }
        let bytes = match self.pieces.poll_next_unpin(context) {
            Poll::Ready(Some(piece)) => piece,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                ready!(self.keep_alive.poll_tick(context));
                Bytes::from_static(self.filler)
            }
        };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}
