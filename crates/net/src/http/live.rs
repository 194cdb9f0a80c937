//! Live queries as server-sent events.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::Either;
use hyper::Response;
use hyper::header;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::error::{ErrorCode, Failure};
use super::parameters::Parameters;
use super::{Answer, last, with};
use crate::live::Streamed;
use crate::server::Shared;
use crate::stats::{Route, add};

/// What is sent so that something is: a comment, which every reader of events skips.
const KEEP_ALIVE: &[u8] = b":\n\n";

/// The updates, without ids: nobody can go on where he has left.
pub(super) async fn live(shared: &Shared, parameters: &str, stop: &watch::Receiver<bool>) -> Result<Answer, Failure> {
    let parameters = Parameters::parse(parameters, &["q"])?;
    let text = parameters.query(Route::Live)?;
    // Before the query is registered: that may be work.
    let place = place(shared)?;
    let updates = shared.backend.live(text).await?;
    let counters = Arc::clone(&shared.counters);
    let events = updates.map(move |json| {
        add(&counters.live_updates, 1);
        Bytes::from([b"data: ", &json[..], b"\n\n"].concat())
    });
    let body = Streamed::new(shared, events, KEEP_ALIVE, place, stop.clone());
    // The connection is over with the stream, so that the server need not ask what else is under way on it.
    Ok(last(with(Response::new(Either::Right(body)), header::CONTENT_TYPE, "text/event-stream")))
}

/// A place among the streams, if there is one.
pub(super) fn place(shared: &Shared) -> Result<OwnedSemaphorePermit, Failure> {
    Arc::clone(&shared.live_places).try_acquire_owned().map_err(|_| {
        add(&shared.counters.live_streams_refused, 1);
        let streams_max = shared.options.live_streams_max;
        let message = format!("{streams_max} live queries and logs are streamed, the most that are allowed");
        Failure::new(ErrorCode::TooManyStreams, message)
    })
}
