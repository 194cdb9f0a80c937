//! Live queries as server-sent events.

use std::sync::Arc;

use http_body_util::Either;
use hyper::Response;
use hyper::header;
use tokio::sync::watch;

use super::error::{ErrorCode, Failure};
use super::parameters::Parameters;
use super::{Answer, last, with};
use crate::live::Events;
use crate::server::Shared;
use crate::stats::{Route, add};

/// The updates, without ids: nobody can go on where he has left.
pub(super) async fn live(shared: &Shared, parameters: &str, stop: &watch::Receiver<bool>) -> Result<Answer, Failure> {
    let parameters = Parameters::parse(parameters, &["q"])?;
    let text = parameters.query(Route::Live)?;
    // Before the query is registered: that may be work.
    let Ok(place) = Arc::clone(&shared.live_places).try_acquire_owned() else {
        add(&shared.counters.live_streams_refused, 1);
        let streams_max = shared.options.live_streams_max;
        let message = format!("{streams_max} live queries are streamed, the most that are allowed");
        return Err(Failure::new(ErrorCode::TooManyStreams, message));
    };
    let updates = shared.backend.live(text).await?;
    let events = Events::new(shared, updates, place, stop.clone());
    // The connection is over with the stream, so that the server need not ask what else is under way on it.
    Ok(last(with(Response::new(Either::Right(events)), header::CONTENT_TYPE, "text/event-stream")))
}
