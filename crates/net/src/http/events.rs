//! Events by HTTP: all of a request or nothing, answered once no crash takes them back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap};
use hyper::{Request, Response, StatusCode};
use slung_model::{Seq, SeriesId};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::batch::{Batch, Rules};
use super::error::{ErrorCode, Failure};
use super::parameters::Parameters;
use super::query::refuse_web_page;
use super::upgrade::list;
use super::{Answer, in_time, read_body};
use crate::backend::{Backend, WriteRefused};
use crate::server::Shared;
use crate::stats::add;

/// A body up to here is parsed where its connection is served, bytes: some hundred microseconds of work.
const PARSED_AT_ONCE_BYTES_MAX: usize = 64 * 1024;
/// As many points, and as many new series, are handed to the backend from there.
const STORED_AT_ONCE_MAX: usize = 4_096;
/// While the backend has no room, the write is tried again after this time even if nothing was synced.
const BUSY_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How far the times given to events without one may run ahead of the clock, microseconds: 10 s. That is what a few of the
/// largest bodies come to; beyond it the clock was set back, and is followed.
const STAMP_AHEAD_MICROS_MAX: i64 = 10_000_000;

/// The last time that was given to an event that came by HTTP without one: there is one point per series and timestamp, so
/// none is given twice, in whichever requests.
#[derive(Debug)]
pub(crate) struct Stamps(Mutex<i64>);

impl Default for Stamps {
    fn default() -> Self {
        Self(Mutex::new(i64::MIN))
    }
}

impl Stamps {
    /// The first of so many times, one a microsecond, that were not given before.
    fn take(&self, now: i64, count: u64) -> i64 {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = last.saturating_add(1);
        let first = if next > now && next - now < STAMP_AHEAD_MICROS_MAX { next } else { now };
        *last = first.saturating_add_unsigned(count).saturating_sub(1);
        first
    }
}

/// Answers `POST /api/v1/events`.
pub(super) async fn take(shared: &Shared, mut request: Request<Incoming>) -> Result<Answer, Failure> {
    // Whoever is refused here may not have sent all: the connection ends with the answer.
    refuse_web_page(&request, "a write").map_err(Failure::last)?;
    Parameters::parse(request.uri().query().unwrap_or_default(), &[]).map_err(Failure::last)?;
    let is_gzip = is_gzip(request.headers()).map_err(Failure::last)?;
    let bytes_max = shared.options.body_bytes_max;
    let refusal = || format!("the body is larger than {bytes_max} bytes: send fewer events at once");
    let body = in_time(shared, read_body(shared, request.body_mut(), bytes_max, refusal)).await?;
    add(&shared.counters.http_event_bytes, body.bytes().len() as u64);

    let (backend, memory) = (Arc::clone(&shared.backend), shared.producers.memory().clone());
    let now = backend.now_micros();
    let rules = Rules { now, ahead_micros_max: backend.ahead_micros_max() };
    let is_short = !is_gzip && body.bytes().len() <= PARSED_AT_ONCE_BYTES_MAX;
    let mut batch = on_thread(is_short, move || Batch::read(body, is_gzip, rules, &memory)).await??;
    batch.stamp(shared.stamps.take(now, batch.unstamped()));

    let mut durable = backend.durable();
    let events = batch.points.len() as u64;
    let seq = write(shared, batch, &mut durable).await?;
    add(&shared.counters.http_events, events);
    wait_durable(shared, seq, durable).await?;
    let mut stored = Response::new(Either::Left(Full::default()));
    *stored.status_mut() = StatusCode::NO_CONTENT;
    Ok(stored)
}

/// # Errors
/// [`ErrorCode::UnsupportedEncoding`] for what is neither gzip nor nothing.
fn is_gzip(headers: &HeaderMap) -> Result<bool, Failure> {
    let mut is_gzip = false;
    for encoding in list(headers, &header::CONTENT_ENCODING) {
        match encoding {
            "" => {}
            _ if encoding.eq_ignore_ascii_case("identity") => {}
            _ if encoding.eq_ignore_ascii_case("gzip") && !is_gzip => is_gzip = true,
            _ => {
                let message = format!("a body may be encoded as gzip, once, and not as {encoding:?}");
                return Err(Failure::new(ErrorCode::UnsupportedEncoding, message).with(header::ACCEPT_ENCODING, "gzip"));
            }
        }
    }
    Ok(is_gzip)
}

/// Does it here where it is short, so that nothing long holds up what else is served on this thread.
async fn on_thread<T: Send + 'static>(is_short: bool, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    if is_short {
        return Ok(work());
    }
    spawn_blocking(work).await.map_err(|panicked| Failure::new(ErrorCode::NotWritable, panicked.to_string()))
}

/// Makes the series known and stores the points; waits while there is no room.
async fn write(shared: &Shared, batch: Batch, durable: &mut watch::Receiver<Seq>) -> Result<Seq, Failure> {
    let deadline = Instant::now() + shared.options.write_timeout;
    let mut writing = Writing { backend: Arc::clone(&shared.backend), batch, ids: Vec::new() };
    loop {
        // Before the attempt: what is synced after it must be seen.
        durable.mark_unchanged();
        let is_short = writing.batch.points.len() <= STORED_AT_ONCE_MAX;
        let (back, written) = on_thread(is_short, move || {
            let written = writing.go_on();
            (writing, written)
        })
        .await?;
        writing = back;
        match written {
            Err(Failure { code: ErrorCode::Busy, .. }) if Instant::now() < deadline => {}
            done => return done,
        }
        add(&shared.counters.busy_waits, 1);
        let retry = deadline.min(Instant::now() + BUSY_RETRY_INTERVAL);
        tokio::select! {
            // Without a sender nothing will be synced any more; the write then says what is wrong.
            Ok(()) = durable.changed() => {}
            () = tokio::time::sleep_until(retry) => {}
        }
    }
}

struct Writing {
    backend: Arc<dyn Backend>,
    batch: Batch,
    /// Of the first keys.
    ids: Vec<SeriesId>,
}

impl Writing {
    /// Goes on where it stopped for want of room.
    fn go_on(&mut self) -> Result<Seq, Failure> {
        if !self.batch.keys.is_empty() {
            for key in &self.batch.keys[self.ids.len()..] {
                let id = self.backend.resolve(key).map_err(|refused| match refused {
                    WriteRefused::Invalid(why) => Failure::new(ErrorCode::TooManySeries, why),
                    other => other.into(),
                })?;
                self.ids.push(id);
            }
            self.batch.resolved(&self.ids);
        }
        Ok(self.backend.try_write(None, &self.batch.points)?)
    }
}

/// # Errors
/// Where storage fails, or the disk is full, before the points are on it; or it takes too long. They may be there later.
async fn wait_durable(shared: &Shared, seq: Seq, mut durable: watch::Receiver<Seq>) -> Result<(), Failure> {
    let deadline = Instant::now() + shared.options.write_timeout;
    let unknown = |why: &str| format!("{why} before the events were on disk: they may be there later, or not");
    loop {
        if *durable.borrow_and_update() >= seq {
            return Ok(());
        }
        if let Err(refused) = shared.backend.health() {
            let mut failure = Failure::from(refused);
            failure.message = unknown(&failure.message);
            return Err(failure);
        }
        let changed = tokio::time::timeout_at(deadline, durable.changed()).await;
        if !matches!(changed, Ok(Ok(()))) {
            return Err(Failure::new(ErrorCode::Unconfirmed, unknown("the time that a write may take was over")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_given_twice_unless_the_clock_is_set_back() {
        let stamps = Stamps::default();
        assert_eq!(stamps.take(1_000, 5), 1_000);
        assert_eq!(stamps.take(1_002, 5), 1_005);
        assert_eq!(stamps.take(2_000, 1), 2_000);
        assert_eq!(stamps.take(2_000, 0), 2_001);
        assert_eq!(stamps.take(2_000, 1), 2_001);
        let far = 2_002 - STAMP_AHEAD_MICROS_MAX;
        assert_eq!(stamps.take(far, 1), far, "it was set back");
        assert_eq!(stamps.take(far, 1), far + 1);
    }
}
