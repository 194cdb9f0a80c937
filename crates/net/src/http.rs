//! The HTTP API: which path answers what, and the upgrade to a producer's WebSocket.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};
use serde::Serialize;
use slung_model::TimeRange;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use crate::backend::{Deleted, QueryRefused};
use crate::live::Events;
use crate::server::Shared;
use crate::stats::{Route, add};
use crate::v1;

/// The plain protocol's name in `Sec-WebSocket-Protocol`.
const PLAIN: &str = "slung.plain";
/// What the names of this project's protocols start with.
const OURS: &str = "slung.";

pub(crate) type Answer = Response<Either<Full<Bytes>, Events>>;

/// What is spoken on a connection that was upgraded; an extension of the answer that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// One event a message, and no answers.
    Plain,
    /// See [`crate::v1`].
    V1,
}

impl Protocol {
    /// The one of that name.
    fn named(name: &str) -> Option<Self> {
        [Self::Plain, Self::V1].into_iter().find(|protocol| protocol.name() == name)
    }

    /// As it is named in `Sec-WebSocket-Protocol`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => PLAIN,
            Self::V1 => v1::NAME,
        }
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    /// Stable, for programs.
    code: &'a str,
    /// For people.
    message: &'a str,
    /// The byte of the query that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<usize>,
}

#[derive(Serialize)]
struct QueryBody<'a> {
    value: Option<f64>,
    query: &'a str,
    count: u64,
    series: u64,
    range: Option<RangeBody>,
    /// Only where something is missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    damage: &'a [String],
}

#[derive(Serialize)]
struct DeletedBody {
    points: u64,
    segments: u64,
}

/// Both ends belong to it; microseconds since 1970.
#[derive(Serialize)]
struct RangeBody {
    start: i64,
    end: i64,
}

/// Answers one request. 101 stands for: this connection is a producer's from here on.
/// `stop` turns true when the server ends.
pub(crate) async fn answer(shared: &Shared, mut request: Request<Incoming>, stop: &watch::Receiver<bool>) -> Answer {
    let route = route(request.uri().path());
    let mut answer = match discard_body(shared, &mut request).await {
        Ok(()) => dispatch(shared, &request, route, stop).await,
        Err(refused) => refused,
    };
    // An answer belongs to its moment.
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    shared.counters.http_request(route, answer.status().as_u16());
    answer
}

/// Whether the answer goes on until one side has enough of it.
pub(crate) fn is_stream(answer: &Answer) -> bool {
    matches!(answer.body(), Either::Right(_))
}

fn route(path: &str) -> Route {
    let named = Route::ALL.iter().find(|route| route.label() == path);
    named.copied().unwrap_or(Route::Other)
}

async fn dispatch(shared: &Shared, request: &Request<Incoming>, route: Route, stop: &watch::Receiver<bool>) -> Answer {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    match route {
        Route::Other => {
            let message = "there is nothing at this path; there is something at /health, /metrics, \
                /api/v1/query?q=QUERY, /api/v1/live?q=QUERY and (POST) /api/v1/delete?q=QUERY, and producers connect to / \
                by WebSocket";
            error(StatusCode::NOT_FOUND, "not_found", message)
        }
        Route::Producers if request.method() == Method::POST => {
            let message = "events are sent as WebSocket frames: connect to ws://HOST:PORT/ and send one event per \
                binary frame, or as JSON per text frame";
            error(StatusCode::BAD_REQUEST, "use_websocket", message)
        }
        Route::Delete if request.method() == Method::POST => delete(shared, request).await,
        Route::Delete => {
            let refused = error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path answers POST only");
            with(refused, header::ALLOW, "POST")
        }
        _ if !get => {
            let refused =
                error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path answers GET and HEAD only");
            with(refused, header::ALLOW, "GET, HEAD")
        }
        Route::Producers => upgrade(request),
        Route::Health => health(shared),
        Route::Query => query(shared, request.uri().query().unwrap_or_default()).await,
        Route::Live => live(shared, request.uri().query().unwrap_or_default(), stop).await,
        Route::Metrics => metrics(shared),
    }
}

/// No route takes a body, but a client that is still sending one may not read the answer.
async fn discard_body(shared: &Shared, request: &mut Request<Incoming>) -> Result<(), Answer> {
    let bytes_max = shared.options.body_bytes_max as u64;
    let too_big = || {
        let message = format!("the body is larger than {bytes_max} bytes");
        last(error(StatusCode::PAYLOAD_TOO_LARGE, "body_too_big", &message))
    };
    let body = request.body_mut();
    if body.size_hint().lower() > bytes_max {
        return Err(too_big());
    }
    let discard = async {
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|broken| {
                last(error(StatusCode::BAD_REQUEST, "bad_body", &format!("the body cannot be read: {broken}")))
            })?;
            bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
            if bytes > bytes_max {
                return Err(too_big());
            }
        }
        Ok(())
    };
    match tokio::time::timeout(shared.options.body_timeout, discard).await {
        Ok(discarded) => discarded,
        Err(_) => Err(last(error(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "the body did not come in time"))),
    }
}

fn health(shared: &Shared) -> Answer {
    match shared.backend.health() {
        Ok(()) => json(StatusCode::OK, &serde_json::json!({"status": "ok"})),
        Err(reason) => error(StatusCode::SERVICE_UNAVAILABLE, "not_writable", &reason.to_string()),
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

async fn query(shared: &Shared, parameters: &str) -> Answer {
    let text = match query_text(parameters, Route::Query) {
        Ok(text) => text,
        Err(message) => return error(StatusCode::BAD_REQUEST, "bad_request", &message),
    };
    match shared.backend.query(&text).await {
        Ok(answer) => {
            let range = Some(answer.range).filter(|range| *range != TimeRange::ALL);
            let range = range.map(|TimeRange { start, end }| RangeBody { start, end });
            let body = QueryBody {
                value: answer.value,
                query: &answer.query,
                count: answer.count,
                series: answer.series,
                range,
                partial: !answer.damage.is_empty(),
                damage: &answer.damage,
            };
            json(StatusCode::OK, &body)
        }
        Err(refused) => query_refused(&refused),
    }
}

/// Takes points away. Browsers name the page that a POST comes from, and no page of ours sends one: so that a page which
/// somebody happens to look at can't delete what a server on his machine holds, those are refused.
async fn delete(shared: &Shared, request: &Request<Incoming>) -> Answer {
    if request.headers().contains_key(header::ORIGIN) {
        let message = "a deletion does not come from a web page: send it without Origin";
        return error(StatusCode::FORBIDDEN, "forbidden", message);
    }
    let text = match query_text(request.uri().query().unwrap_or_default(), Route::Delete) {
        Ok(text) => text,
        Err(message) => return error(StatusCode::BAD_REQUEST, "bad_request", &message),
    };
    match shared.backend.delete(&text).await {
        Ok(Deleted { points, segments }) => json(StatusCode::OK, &DeletedBody { points, segments }),
        Err(refused) => query_refused(&refused),
    }
}

/// Updates as server-sent events, without ids: nobody can go on where he has left.
async fn live(shared: &Shared, parameters: &str, stop: &watch::Receiver<bool>) -> Answer {
    let text = match query_text(parameters, Route::Live) {
        Ok(text) => text,
        Err(message) => return error(StatusCode::BAD_REQUEST, "bad_request", &message),
    };
    // Before the query is registered: that may be work.
    let Ok(place) = Arc::clone(&shared.live_places).try_acquire_owned() else {
        add(&shared.counters.live_streams_refused, 1);
        let message =
            format!("{} live queries are streamed, the most that are allowed", shared.options.live_streams_max);
        let refused = error(StatusCode::SERVICE_UNAVAILABLE, "too_many_streams", &message);
        return with(refused, header::RETRY_AFTER, "10");
    };
    match shared.backend.live(&text).await {
        Ok(updates) => {
            let events = Events::new(shared, updates, place, stop.clone());
            // The connection is over with the stream, so that the server need not ask what else is under way on it.
            last(with(Response::new(Either::Right(events)), header::CONTENT_TYPE, "text/event-stream"))
        }
        Err(refused) => query_refused(&refused),
    }
}

/// # Errors
/// Why there is none, in words.
fn query_text(parameters: &str, route: Route) -> Result<String, String> {
    let missing = || format!("the query is missing: {}?q=QUERY, percent-encoded", route.label());
    parse_parameters(parameters)?.q.ok_or_else(missing)
}

fn query_refused(refused: &QueryRefused) -> Answer {
    match refused {
        QueryRefused { at: Some(at), what } => {
            let error = ErrorFields { code: "bad_query", message: what, at: Some(*at) };
            json(StatusCode::BAD_REQUEST, &ErrorBody { error })
        }
        QueryRefused { at: None, what } => error(StatusCode::SERVICE_UNAVAILABLE, "query_failed", what),
    }
}

#[derive(Debug, Default, PartialEq)]
struct Parameters {
    q: Option<String>,
}

/// Reads what follows the `?`. What is not known is refused: a parameter that does nothing would look as if it did.
fn parse_parameters(text: &str) -> Result<Parameters, String> {
    let mut parameters = Parameters::default();
    for part in text.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        if name != "q" {
            return Err(format!("the parameter {name:?} is not known; q is"));
        }
        if parameters.q.replace(decode_parameter(value)?).is_some() {
            return Err("q is given twice".to_owned());
        }
    }
    Ok(parameters)
}

/// As browsers and HTML forms encode: `+` is a blank. Stray percent signs stand for themselves.
fn decode_parameter(value: &str) -> Result<String, String> {
    let value = value.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&value).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|error| format!("q is not UTF-8 once decoded: {error}"))
}

fn upgrade(request: &Request<Incoming>) -> Answer {
    let headers = request.headers();
    if !header_has(headers, &header::UPGRADE, "websocket") || request.version() < Version::HTTP_11 {
        let message = "producers connect here by WebSocket (ws://HOST:PORT/); /health, /metrics, \
            /api/v1/query?q=QUERY and /api/v1/live?q=QUERY answer plain requests";
        return upgrade_required(error(StatusCode::UPGRADE_REQUIRED, "websocket_required", message));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let refused =
            error(StatusCode::UPGRADE_REQUIRED, "websocket_version", "only WebSocket version 13 is spoken here");
        return with(upgrade_required(refused), header::SEC_WEBSOCKET_VERSION, "13");
    }
    let chosen = match choose_protocol(headers, request.uri().query().unwrap_or_default()) {
        Ok(chosen) => chosen,
        Err(asked) => {
            let message = format!(
                "{asked} is not spoken by this version of the server; {} and {PLAIN} are, and {PLAIN} is what a client gets \
                 that offers none",
                v1::NAME
            );
            return error(StatusCode::NOT_IMPLEMENTED, "protocol_not_supported", &message);
        }
    };
    match create_response_with_body(request, || Either::Left(Full::default())) {
        Ok(mut switching) => {
            let Chosen { protocol, offered } = chosen;
            switching.extensions_mut().insert(protocol);
            if offered { with(switching, header::SEC_WEBSOCKET_PROTOCOL, protocol.name()) } else { switching }
        }
        Err(why) => error(StatusCode::BAD_REQUEST, "bad_handshake", &why.to_string()),
    }
}

/// What is to be spoken.
#[derive(Debug, PartialEq)]
struct Chosen {
    protocol: Protocol,
    /// The client has offered it in the header, and hears of it there.
    offered: bool,
}

/// The first on offer that is spoken here; without one of ours on offer the one that the parameter names, for clients that
/// can't set the header; the plain one for those that know of no protocols.
///
/// # Errors
/// The protocol that was asked for, where it is one of ours and not spoken here.
fn choose_protocol(headers: &HeaderMap, parameters: &str) -> Result<Chosen, String> {
    let offered: Vec<&str> = list(headers, &header::SEC_WEBSOCKET_PROTOCOL).collect();
    if let Some(protocol) = offered.iter().find_map(|name| Protocol::named(name)) {
        return Ok(Chosen { protocol, offered: true });
    }
    let by_parameter = parameters.split('&').find_map(|part| part.strip_prefix("protocol="));
    match offered.into_iter().find(|name| name.starts_with(OURS)).or(by_parameter) {
        Some(asked) => match Protocol::named(asked) {
            Some(protocol) => Ok(Chosen { protocol, offered: false }),
            None => Err(asked.to_owned()),
        },
        None => Ok(Chosen { protocol: Protocol::Plain, offered: false }),
    }
}

fn header_has(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    list(headers, name).any(|item| item.eq_ignore_ascii_case(wanted))
}

/// The items of a header field that holds a list, over all its lines.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn upgrade_required(answer: Answer) -> Answer {
    with(with(answer, header::UPGRADE, "websocket"), header::CONNECTION, "upgrade")
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    json(status, &ErrorBody { error: ErrorFields { code, message, at: None } })
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

    fn offers(lines: &[&'static str]) -> HeaderMap {
        let value = |line: &&'static str| (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(line));
        lines.iter().map(value).collect()
    }

    #[test]
    fn the_protocol_is_the_one_that_is_spoken_or_a_clear_no() {
        let plain = |offered| Ok(Chosen { protocol: Protocol::Plain, offered });
        let v1 = |offered| Ok(Chosen { protocol: Protocol::V1, offered });
        for (lines, parameters, chosen) in [
            (&[][..], "", plain(false)),
            (&["slung.plain"], "", plain(true)),
            (&["slung.v1"], "", v1(true)),
            (&["slung.v1, slung.plain"], "", v1(true)),
            (&["slung.plain, slung.v1"], "", plain(true)),
            (&["slung.v2", "slung.v1"], "", v1(true)),
            (&["bearer.abc ,slung.plain"], "", plain(true)),
            (&["bearer.abc", "slung.v1"], "", v1(true)),
            (&["slung.plain"], "protocol=slung.v1", plain(true)),
            (&["bearer.abc", "slung.v2"], "", Err("slung.v2")),
            (&["slung.v2"], "protocol=slung.v1", Err("slung.v2")),
            (&["mqtt"], "", plain(false)),
            (&["mqtt"], "protocol=slung.v1", v1(false)),
            (&[], "protocol=slung.plain", plain(false)),
            (&[], "a=b&protocol=slung.v1", v1(false)),
            (&[], "protocol=other", Err("other")),
            (&[], "protocol=", Err("")),
        ] {
            assert_eq!(
                choose_protocol(&offers(lines), parameters),
                chosen.map_err(str::to_owned),
                "{lines:?} {parameters}"
            );
        }
    }

    #[test]
    fn parameters_are_decoded_and_nothing_is_guessed() {
        let q = |text: &str| Ok(Parameters { q: Some(text.to_owned()) });
        assert_eq!(parse_parameters(""), Ok(Parameters::default()));
        assert_eq!(parse_parameters("q=AVG:temp:[]"), q("AVG:temp:[]"));
        assert_eq!(parse_parameters("q=a%20b+c%2Bd=e"), q("a b c+d=e"));
        assert_eq!(parse_parameters("q=%C3%A9&"), q("é"));
        assert_eq!(parse_parameters("q"), q(""));
        assert_eq!(parse_parameters("q=100%"), q("100%"));
        for refused in ["q=%ff", "q=a&q=b", "q=a&step=5m", "Q=a"] {
            assert!(parse_parameters(refused).is_err(), "{refused}");
        }
    }
}
