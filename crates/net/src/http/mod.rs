//! The HTTP API: which path answers what. What each answers is in a file of its own.

mod batch;
mod buffer;
mod cursor;
mod error;
mod events;
mod live;
mod parameters;
mod points;
mod query;
mod series;
mod upgrade;
mod workflows;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use serde::Serialize;
use slung_model::TimeRange;
use tokio::sync::watch;

use self::buffer::Buffer;
pub use self::error::ErrorCode;
use self::error::Failure;
pub(crate) use self::events::Stamps;
pub(crate) use self::upgrade::Protocol;
use crate::live::Streamed;
use crate::server::Shared;
use crate::stats::Route;

/// What a body that nobody wants may have, bytes. It is read, so that the client gets to read the answer, and thrown away.
const UNWANTED_BYTES_MAX: usize = 64 * 1024;

pub(crate) type Answer = Response<Either<Full<Bytes>, Streamed>>;

/// Both ends belong to it; microseconds since 1970.
#[derive(Debug, Serialize)]
struct RangeBody {
    start: i64,
    end: i64,
}

impl RangeBody {
    /// `None` for all of time.
    fn of(range: TimeRange) -> Option<Self> {
        (range != TimeRange::ALL).then_some(Self { start: range.start, end: range.end })
    }
}

/// Answers one request. 101 stands for: this connection is a producer's from here on.
/// `stop` turns true when the server ends.
pub(crate) async fn answer(shared: &Shared, request: Request<Incoming>, stop: &watch::Receiver<bool>) -> Answer {
    let route = route(request.uri().path());
    let answered = match check_head(&request) {
        Ok(()) => dispatch(shared, request, route, stop).await,
        Err(failure) => Err(failure),
    };
    let mut answer = match answered {
        Ok(answer) => answer,
        Err(failure) => {
            shared.counters.http_refused(failure.code);
            failure.answer()
        }
    };
    // An answer belongs to its moment.
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    shared.counters.http_request(route, answer.status().as_u16());
    answer
}

/// Refuses what somebody in between may have understood as another request (RFC 9112, 3.2 and 6.1).
fn check_head(request: &Request<Incoming>) -> Result<(), Failure> {
    let headers = request.headers();
    let refused = |message: &str| Err(Failure::new(ErrorCode::BadRequest, message).last());
    if request.version() == Version::HTTP_11 && headers.get_all(header::HOST).iter().count() != 1 {
        return refused("a request has one Host");
    }
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_plain = encodings.next().is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if is_plain && encodings.next().is_none() { Ok(()) } else { refused("a body is chunked once, and nothing else") }
}

/// Whether the answer goes on until one side has enough of it.
pub(crate) fn is_stream(answer: &Answer) -> bool {
    matches!(answer.body(), Either::Right(_))
}

fn route(path: &str) -> Route {
    let named = Route::ALL.iter().find(|route| leads_to(route.label(), path));
    named.copied().unwrap_or(Route::Other)
}

/// Whether the path is that one, where `{name}` stands for any name.
fn leads_to(template: &str, path: &str) -> bool {
    let (mut segments, mut wanted) = (path.split('/'), template.split('/'));
    loop {
        match (segments.next(), wanted.next()) {
            (None, None) => return true,
            (Some(segment), Some(wanted)) if segment == wanted || (wanted == "{name}" && !segment.is_empty()) => {}
            _ => return false,
        }
    }
}

/// The methods that are answered there, as `Allow` names them.
fn allowed(route: Route) -> &'static str {
    match route {
        Route::Events | Route::Delete | Route::WorkflowRollback | Route::WorkflowStop | Route::WorkflowStart => "POST",
        Route::Workflow => "GET, HEAD, PUT, DELETE",
        _ => "GET, HEAD",
    }
}

async fn dispatch(
    shared: &Shared,
    mut request: Request<Incoming>,
    route: Route,
    stop: &watch::Receiver<bool>,
) -> Result<Answer, Failure> {
    let method = request.method().clone();
    match (route, &method) {
        (Route::Events, &Method::POST) => return events::take(shared, request).await,
        (Route::Workflow, &Method::PUT) => return workflows::deploy(shared, request).await,
        _ => discard_body(shared, request.body_mut()).await?,
    }
    if route == Route::Other {
        let paths = Route::ALL.iter().map(|route| route.label()).filter(|path| path.len() > 1 && path.starts_with('/'));
        let paths: Vec<&str> = paths.collect();
        let message = format!("there is nothing at this path; there is something at {}", paths.join(", "));
        return Err(Failure::new(ErrorCode::NotFound, message));
    }
    if route == Route::Producers && method == Method::POST {
        let message = "events are sent as WebSocket frames here: connect to ws://HOST:PORT/ and send one event per \
            binary frame, or as JSON per text frame; or post them to /api/v1/events";
        return Err(Failure::new(ErrorCode::UseWebsocket, message));
    }
    let allowed = allowed(route);
    if allowed.split(", ").all(|allowed| allowed != method.as_str()) {
        let refused = Failure::new(ErrorCode::MethodNotAllowed, format!("this path answers {allowed} only"));
        return Err(refused.with(header::ALLOW, allowed));
    }
    let parameters = request.uri().query().unwrap_or_default();
    match route {
        Route::Other | Route::Events => unreachable!("they are answered above"),
        Route::Producers => upgrade::upgrade(&request),
        Route::Health => health(shared),
        Route::Query => query::query(shared, parameters).await,
        Route::Points => points::points(shared, &request).await,
        Route::Series => series::series(shared, parameters).await,
        Route::Tags => series::tags(shared, parameters).await,
        Route::ProducerList => series::producers(shared, parameters),
        Route::Delete => query::delete(shared, &request).await,
        Route::Live => live::live(shared, parameters, stop).await,
        Route::Workflows => workflows::list(shared, parameters),
        Route::Workflow if method != Method::DELETE => workflows::show(shared, &request),
        Route::Workflow | Route::WorkflowRollback | Route::WorkflowStop | Route::WorkflowStart => {
            workflows::command(shared, &request, route).await
        }
        Route::WorkflowLog => workflows::log(shared, &request, stop).await,
        Route::Metrics => Ok(metrics(shared)),
    }
}

/// What a client is still sending who may not read the answer otherwise.
async fn discard_body(shared: &Shared, body: &mut Incoming) -> Result<(), Failure> {
    let bytes_max = shared.options.body_bytes_max.min(UNWANTED_BYTES_MAX);
    let too_big = || too_big(format!("the body is larger than {bytes_max} bytes"));
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_big());
    }
    in_time(shared, async {
        let mut bytes = 0;
        while let Some(data) = next_data(body).await? {
            bytes += data.len();
            if bytes > bytes_max {
                return Err(too_big());
            }
        }
        Ok(())
    })
    .await
}

/// The next bytes of a body; `None` at its end.
async fn next_data(body: &mut Incoming) -> Result<Option<Bytes>, Failure> {
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|broken| Failure::new(ErrorCode::BadBody, format!("the body cannot be read: {broken}")).last())?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// The whole body, whose memory counts as in flight; `refusal` says what it is told that is larger.
async fn read_body(
    shared: &Shared,
    body: &mut Incoming,
    bytes_max: usize,
    refusal: impl Fn() -> String,
) -> Result<Buffer, Failure> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_big(refusal()));
    }
    let mut buffer = Buffer::new(shared.producers.memory(), bytes_max);
    while let Some(data) = next_data(body).await? {
        if !buffer.push(&data).map_err(Failure::last)? {
            return Err(too_big(refusal()));
        }
    }
    Ok(buffer)
}

async fn in_time<T>(shared: &Shared, read: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(shared.options.body_timeout, read).await {
        Ok(read) => read,
        Err(_) => Err(Failure::new(ErrorCode::BodyTooSlow, "the body did not come in time").last()),
    }
}

fn too_big(message: String) -> Failure {
    Failure::new(ErrorCode::BodyTooBig, message).last()
}

fn health(shared: &Shared) -> Result<Answer, Failure> {
    match shared.backend.health() {
        Ok(()) => Ok(json(StatusCode::OK, &serde_json::json!({"status": "ok"}))),
        Err(reason) => Err(Failure::new(ErrorCode::NotWritable, reason.to_string())),
    }
}

fn metrics(shared: &Shared) -> Answer {
    let text = shared.backend.metrics();
    let content_type = if text.ends_with("# EOF\n") {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    with(Response::new(Either::Left(Full::from(text))), header::CONTENT_TYPE, content_type)
}

fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(body).expect("structs of strings and numbers have a JSON form");
    let mut answer = Response::new(Either::Left(Full::from(body)));
    *answer.status_mut() = status;
    with(answer, header::CONTENT_TYPE, "application/json")
}

/// The connection is closed behind this one.
fn last(answer: Answer) -> Answer {
    with(answer, header::CONNECTION, "close")
}

fn with(mut answer: Answer, name: HeaderName, value: &'static str) -> Answer {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ServerOptions;
    use crate::workflows::{ENV_NAME_BYTES_MAX, ENV_VALUE_BYTES_MAX, ENV_VARIABLES_MAX};

    const PAGE: &str = include_str!("../../../../docs/http.md");

    /// The book's page, held against the code.
    #[test]
    fn the_book_has_every_route_code_and_limit() {
        for route in Route::ALL.iter().filter(|route| **route != Route::Other) {
            for method in allowed(*route).split(", ").filter(|method| *method != "HEAD") {
                let row = format!("\n| `{method} {}` | ", route.label());
                assert_eq!(PAGE.matches(&row).count(), 1, "{row}");
            }
        }
        let errors = PAGE.split("## Errors").nth(1).and_then(|rest| rest.split("## Limits").next()).expect("errors");
        let rows: Vec<&str> = errors.lines().filter(|line| line.starts_with("| `")).collect();
        let wanted = ErrorCode::ALL.iter().map(|code| {
            let again = if code.retry_after().is_some() { ", again" } else { "" };
            format!("| `{}` | {}{again} | ", code.label(), code.status())
        });
        for (row, wanted) in rows.iter().zip(wanted) {
            assert!(row.starts_with(&wanted), "{row} is not {wanted}");
        }
        assert_eq!(rows.len(), ErrorCode::ALL.len());

        let options = ServerOptions::default();
        let mib = |bytes: usize| bytes >> 20;
        let page = mib(points::PAGE_BYTES_MAX);
        for row in [
            format!(
                "| head of a request | {} KiB, {} fields, {} s |",
                options.header_bytes_max >> 10,
                options.header_fields_max,
                options.header_timeout.as_secs()
            ),
            format!(
                "| body with events | {} MiB, {} s; {} MiB once decoded |",
                mib(options.body_bytes_max),
                options.body_timeout.as_secs(),
                mib(batch::DECODED_BYTES_MAX)
            ),
            format!(
                "| body that is a module | {} MiB, {} s |",
                mib(options.module_bytes_max),
                options.body_timeout.as_secs()
            ),
            format!("| {ENV_VARIABLES_MAX}; {ENV_NAME_BYTES_MAX} bytes, {} KiB |", ENV_VALUE_BYTES_MAX >> 10),
            format!("| lines of a log | {}, at most {}, ", workflows::LINES_DEFAULT, workflows::LINES_MAX),
            format!("| any other body, which is ignored | {} KiB |", UNWANTED_BYTES_MAX >> 10),
            format!("| what a write waits for room, and then for the disk | {} s |", options.write_timeout.as_secs()),
            format!("others wait | {} | `queries_max` |", options.queries_max),
            format!("| live queries and logs that are streamed | {} |", options.live_streams_max),
            format!(
                "| connections; from one address | {}; {} |",
                options.connections_max, options.connections_per_address_max
            ),
            format!("bodies and pages included | {} MiB |", mib(crate::IN_FLIGHT_BYTES_MAX)),
            format!("| stretches of time in an answer | {} |", query::BUCKETS_MAX),
            format!(
                "| points on a page | {}, at most {}, and {page} MiB |",
                points::POINTS_DEFAULT,
                points::POINTS_MAX
            ),
            format!(
                "| series, or tags, on a page | {}, at most {}, and {page} MiB |",
                series::NAMES_DEFAULT,
                series::NAMES_MAX
            ),
        ] {
            // The page groups digits.
            let digits = regroup(&row);
            assert!(PAGE.contains(&digits), "the page does not say: {digits}");
        }
    }

    /// Commas into the numbers of a text, as people read them.
    fn regroup(text: &str) -> String {
        let mut grouped = String::new();
        for part in text.split_inclusive(|c: char| !c.is_ascii_digit()) {
            let digits = part.trim_end_matches(|c: char| !c.is_ascii_digit());
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped.push_str(&part[digits.len()..]);
        }
        grouped
    }
}
