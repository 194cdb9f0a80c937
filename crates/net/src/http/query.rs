//! Questions to history that are answered with numbers: one value, or one a stretch of time. And deletions, which are named
//! by a query too.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, StatusCode, header};
use serde::Serialize;

use super::error::{ErrorCode, Failure};
use super::parameters::Parameters;
use super::{Answer, RangeBody, json};
use crate::backend::{Bucket, Deleted, QueryRefused};
use crate::server::Shared;
use crate::stats::Route;

/// The most stretches of time that an answer has: more than any screen has columns, in some 600 KiB.
pub(super) const BUCKETS_MAX: usize = 10_000;

#[derive(Serialize)]
struct ValueBody<'a> {
    value: Option<f64>,
    query: &'a str,
    count: u64,
    series: u64,
    range: Option<RangeBody>,
    #[serde(flatten)]
    missing: Missing<'a>,
}

#[derive(Serialize)]
struct BucketsBody<'a> {
    query: &'a str,
    /// Microseconds.
    step: i64,
    series: u64,
    range: Option<RangeBody>,
    buckets: Vec<BucketBody>,
    #[serde(flatten)]
    missing: Missing<'a>,
}

#[derive(Serialize)]
struct BucketBody {
    start: i64,
    value: Option<f64>,
    count: u64,
}

/// Only where something is.
#[derive(Serialize)]
struct Missing<'a> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    damage: &'a [String],
}

impl<'a> Missing<'a> {
    fn of(damage: &'a [String]) -> Self {
        Self { partial: !damage.is_empty(), damage }
    }
}

#[derive(Serialize)]
struct DeletedBody {
    points: u64,
    segments: u64,
}

pub(super) async fn query(shared: &Shared, parameters: &str) -> Result<Answer, Failure> {
    let parameters = Parameters::parse(parameters, &["q", "step"])?;
    let text = parameters.query(Route::Query)?.to_owned();
    if let Some(step) = parameters.get("step") {
        return buckets(shared, text, step).await;
    }
    let backend = Arc::clone(&shared.backend);
    let answer = ask(shared, async move { backend.query(&text).await }).await?;
    let body = ValueBody {
        value: answer.value,
        query: &answer.query,
        count: answer.count,
        series: answer.series,
        range: RangeBody::of(answer.range),
        missing: Missing::of(&answer.damage),
    };
    Ok(json(StatusCode::OK, &body))
}

async fn buckets(shared: &Shared, text: String, step: &str) -> Result<Answer, Failure> {
    let step = slung_model::duration_micros(step).map_err(|error| {
        let message = format!("step, byte {}: {}", error.at, error.what);
        Failure::new(ErrorCode::BadRequest, message)
    })?;
    let backend = Arc::clone(&shared.backend);
    // One more than there may be tells that there are too many.
    let answer = ask(shared, async move { backend.buckets(&text, step, BUCKETS_MAX + 1).await }).await?;
    if answer.buckets.len() > BUCKETS_MAX {
        let message = format!(
            "more than {BUCKETS_MAX} stretches of {step} microseconds have points: take a longer step, or ask for one \
             range after the other"
        );
        return Err(Failure::new(ErrorCode::TooManyBuckets, message));
    }
    let one = |Bucket { start, value, count }| BucketBody { start, value, count };
    let body = BucketsBody {
        query: &answer.query,
        step,
        series: answer.series,
        range: RangeBody::of(answer.range),
        buckets: answer.buckets.into_iter().map(one).collect(),
        missing: Missing::of(&answer.damage),
    };
    Ok(json(StatusCode::OK, &body))
}

/// Lets the backend answer as soon as there is a place. What was begun goes on, and keeps its place, when nobody waits for
/// it any more: dropping the future does not end what a thread does.
pub(super) async fn ask<T: Send + 'static>(
    shared: &Shared,
    answer: impl Future<Output = Result<T, QueryRefused>> + Send + 'static,
) -> Result<T, Failure> {
    let place = Arc::clone(&shared.query_places).acquire_owned().await.expect("the places are never closed");
    let asked = tokio::spawn(async move {
        let _place = place;
        answer.await
    });
    match asked.await {
        Ok(answer) => Ok(answer?),
        Err(panicked) => Err(Failure::new(ErrorCode::QueryFailed, panicked.to_string())),
    }
}

/// Takes points away.
pub(super) async fn delete(shared: &Shared, request: &Request<Incoming>) -> Result<Answer, Failure> {
    refuse_web_page(request, "a deletion")?;
    let parameters = Parameters::parse(request.uri().query().unwrap_or_default(), &["q"])?;
    let text = parameters.query(Route::Delete)?.to_owned();
    let backend = Arc::clone(&shared.backend);
    let Deleted { points, segments } = ask(shared, async move { backend.delete(&text).await }).await?;
    Ok(json(StatusCode::OK, &DeletedBody { points, segments }))
}

/// Browsers name the page that a POST comes from, and no page of ours sends one: so that a page which somebody happens to
/// look at can't change what a server on his machine holds, those are refused.
pub(super) fn refuse_web_page(request: &Request<Incoming>, what: &str) -> Result<(), Failure> {
    if request.headers().contains_key(header::ORIGIN) {
        let message = format!("{what} does not come from a web page: send it without Origin");
        return Err(Failure::new(ErrorCode::Forbidden, message));
    }
    Ok(())
}
