//! What there is: series, tags, and the producers that are connected.

use std::sync::Arc;

use http_body_util::{Either, Full};
use hyper::{Response, StatusCode, header};
use serde::Serialize;
use slung_model::SeriesId;

use super::buffer::Buffer;
use super::error::{ErrorCode, Failure, Place};
use super::parameters::Parameters;
use super::points::{PAGE_BYTES_MAX, key_fields, to_json, without_operator};
use super::query::ask;
use super::{Answer, json, with};
use crate::producers::ProducerInfo;
use crate::server::Shared;

/// Series or tags on a page unless asked otherwise.
pub(super) const NAMES_DEFAULT: usize = 1_000;
/// The most series, or tags, on a page: 10,000.
pub(super) const NAMES_MAX: usize = 10_000;

/// Room for `"next"`, which may be a tag.
const TAIL_BYTES_MAX: usize = 16 * 1024;

#[derive(Serialize)]
struct ProducersBody {
    producers: Vec<ProducerBody>,
}

#[derive(Serialize)]
struct ProducerBody {
    id: u64,
    peer: String,
    protocol: &'static str,
    /// Microseconds since 1970.
    connected: i64,
    events: u64,
    events_per_second: f64,
    queued_messages: usize,
    queued_bytes: usize,
}

/// Answers `GET /api/v1/series`.
pub(super) async fn series(shared: &Shared, parameters: &str) -> Result<Answer, Failure> {
    let parameters = Parameters::parse(parameters, &["q", "limit", "after"])?;
    let limit = parameters.limit(NAMES_DEFAULT, NAMES_MAX)?;
    let query = names_query(&parameters)?;
    let after = match parameters.get("after") {
        None => None,
        Some(text) => match text.parse() {
            Ok(id) => Some(SeriesId(id)),
            Err(_) => {
                return Err(Failure::new(ErrorCode::BadCursor, "after is not what a page said: begin without it"));
            }
        },
    };
    let backend = Arc::clone(&shared.backend);
    let page = ask(shared, async move { backend.series(query.as_deref(), after, limit + 1).await }).await?;
    let items = page.iter().map(|(id, key)| (format!("{{{}}}", key_fields(key)), id.0.to_string()));
    names(shared, "series", items, limit)
}

/// Answers `GET /api/v1/tags`.
pub(super) async fn tags(shared: &Shared, parameters: &str) -> Result<Answer, Failure> {
    let parameters = Parameters::parse(parameters, &["q", "limit", "after"])?;
    let limit = parameters.limit(NAMES_DEFAULT, NAMES_MAX)?;
    let query = names_query(&parameters)?;
    let after = parameters.get("after").map(str::to_owned);
    let backend = Arc::clone(&shared.backend);
    let page = ask(shared, async move { backend.tags(query.as_deref(), after.as_deref(), limit + 1).await }).await?;
    let items = page.into_iter().map(|(tag, count)| (format!("{{\"tag\":{},\"series\":{count}}}", to_json(&tag)), tag));
    names(shared, "tags", items, limit)
}

/// The query, which names series and nothing else.
fn names_query(parameters: &Parameters) -> Result<Option<String>, Failure> {
    let Some(text) = parameters.get("q") else { return Ok(None) };
    let query = without_operator(text)?;
    if query.range().is_some() {
        // Of all brackets the range has the last.
        let at = text.rfind('[').unwrap_or(0);
        let message = "which series there are does not depend on the time: ask without a range";
        return Err(Failure::new(ErrorCode::BadQuery, message).place(Place::At(at)));
    }
    Ok(Some(query.to_string()))
}

/// A page of at most `limit` items, each with the cursor behind it: `{"NAME":[...],"next":...}`.
fn names(
    shared: &Shared,
    name: &str,
    items: impl Iterator<Item = (String, String)>,
    limit: usize,
) -> Result<Answer, Failure> {
    let mut buffer = Buffer::new(shared.producers.memory(), PAGE_BYTES_MAX + TAIL_BYTES_MAX);
    buffer.push(format!("{{\"{name}\":[").as_bytes())?;
    let (mut last, mut next) = (None, None);
    for (index, (item, cursor)) in items.enumerate() {
        if index == limit || buffer.bytes().len() + item.len() > PAGE_BYTES_MAX {
            next = last;
            break;
        }
        if index > 0 {
            buffer.push(b",")?;
        }
        buffer.push(item.as_bytes())?;
        last = Some(cursor);
    }
    buffer.push(format!("],\"next\":{}}}", to_json(&next)).as_bytes())?;
    let answer = Response::new(Either::Left(Full::new(buffer.into_body())));
    Ok(with(answer, header::CONTENT_TYPE, "application/json"))
}

/// Answers `GET /api/v1/producers`.
pub(super) fn producers(shared: &Shared, parameters: &str) -> Result<Answer, Failure> {
    Parameters::parse(parameters, &[])?;
    let one = |info: ProducerInfo| ProducerBody {
        id: info.id.get(),
        peer: info.peer.to_string(),
        protocol: info.protocol,
        connected: info.connected_micros,
        events: info.events,
        events_per_second: info.events_per_second,
        queued_messages: info.queued_messages,
        queued_bytes: info.queued_bytes,
    };
    let producers = shared.producers.list(shared.backend.now_micros()).into_iter().map(one).collect();
    Ok(json(StatusCode::OK, &ProducersBody { producers }))
}
