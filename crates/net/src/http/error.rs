//! What a request is told that is not done: a stable code, words, and the place where something is wrong.

use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue};
use serde::Serialize;

use super::{Answer, json, last};
use crate::backend::{QueryRefused, WriteRefused};
use crate::stats::labelled;
use crate::workflows::WorkflowRefused;

labelled! {
    /// The code of an HTTP answer that is an error: what programs go by. The label of each is what the answer says.
    ErrorCode {
        /// 400: the parameters behind the `?`.
        BadRequest = "bad_request",
        /// 400: the text of a query; `at` is the byte where it is wrong.
        BadQuery = "bad_query",
        /// 400: `after` is no cursor, or one of another query.
        BadCursor = "bad_cursor",
        /// 400: the step is too short for the range.
        TooManyBuckets = "too_many_buckets",
        /// 400: the body breaks off, or its chunks are wrong.
        BadBody = "bad_body",
        /// 400: the body is not what its `Content-Encoding` says.
        BadEncoding = "bad_encoding",
        /// 400: an event is not JSON, or lacks something, or has something that is not known.
        BadJson = "bad_json",
        /// 400: the name or a tag of an event.
        BadSeries = "bad_series",
        /// 400: the timestamp of an event.
        BadTimestamp = "bad_timestamp",
        /// 400: the value of an event.
        BadValue = "bad_value",
        /// 400: a body without events.
        NoEvents = "no_events",
        /// 400: events sent to where producers connect.
        UseWebsocket = "use_websocket",
        /// 400: a WebSocket handshake that is none.
        BadHandshake = "bad_handshake",
        /// 403: it comes from a web page.
        Forbidden = "forbidden",
        /// 404: nothing at this path.
        NotFound = "not_found",
        /// 404: no workflow of that name, or no such version of it.
        NoSuchWorkflow = "no_such_workflow",
        /// 405: not with this method.
        MethodNotAllowed = "method_not_allowed",
        /// 408: the body did not come in time.
        BodyTooSlow = "body_too_slow",
        /// 409: the workflow is not one, or not in a state, with which this can be done.
        WorkflowConflict = "workflow_conflict",
        /// 409: another change of the same workflow is under way.
        WorkflowBusy = "workflow_busy",
        /// 413: the body is too big, as it came or once decoded.
        BodyTooBig = "body_too_big",
        /// 413: more points than can be stored at once.
        TooManyPoints = "too_many_points",
        /// 415: a `Content-Encoding` that is not known.
        UnsupportedEncoding = "unsupported_encoding",
        /// 422: there may be no more series.
        TooManySeries = "too_many_series",
        /// 422: the events are not taken for another reason.
        Refused = "refused",
        /// 422: name, environment or module are not those of a workflow that runs here.
        InvalidWorkflow = "invalid_workflow",
        /// 426: producers connect here.
        WebsocketRequired = "websocket_required",
        /// 426: another version of WebSocket.
        WebsocketVersion = "websocket_version",
        /// 500: what was to be done with a workflow was tried and went wrong.
        WorkflowFailed = "workflow_failed",
        /// 501: a protocol on WebSocket that is not spoken.
        ProtocolNotSupported = "protocol_not_supported",
        /// 503: reading has failed.
        QueryFailed = "query_failed",
        /// 503: as many live queries are streamed as may be.
        TooManyStreams = "too_many_streams",
        /// 503: there are as many connections as may be.
        TooMany = "too_many",
        /// 503: all that is in flight takes as much memory as it may.
        NoMemory = "no_memory",
        /// 503: the disk is behind, and was for as long as a write waits.
        Busy = "busy",
        /// 503: the events are stored, but whether a crash takes them back is not known.
        Unconfirmed = "unconfirmed",
        /// 503: no writes are accepted.
        NotWritable = "not_writable",
        /// 507: the disk is full.
        DiskFull = "disk_full",
    }
}

impl ErrorCode {
    /// The status that goes with it.
    pub fn status(self) -> u16 {
        use ErrorCode::*;
        match self {
            BadRequest | BadQuery | BadCursor | TooManyBuckets | BadBody | BadEncoding | BadJson | BadSeries
            | BadTimestamp | BadValue | NoEvents | UseWebsocket | BadHandshake => 400,
            Forbidden => 403,
            NotFound | NoSuchWorkflow => 404,
            MethodNotAllowed => 405,
            BodyTooSlow => 408,
            WorkflowConflict | WorkflowBusy => 409,
            BodyTooBig | TooManyPoints => 413,
            UnsupportedEncoding => 415,
            TooManySeries | Refused | InvalidWorkflow => 422,
            WebsocketRequired | WebsocketVersion => 426,
            WorkflowFailed => 500,
            ProtocolNotSupported => 501,
            QueryFailed | TooManyStreams | TooMany | NoMemory | Busy | Unconfirmed | NotWritable => 503,
            DiskFull => 507,
        }
    }

    /// When to try again, seconds: what is short of room has some soon; a disk, or a place among streams, takes somebody
    /// to do something.
    pub(super) fn retry_after(self) -> Option<&'static str> {
        match self {
            Self::NoMemory | Self::Busy | Self::Unconfirmed | Self::WorkflowBusy => Some("1"),
            Self::TooManyStreams | Self::TooMany | Self::DiskFull => Some("10"),
            _ => None,
        }
    }
}

/// Where something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A byte of the query, from 0.
    At(usize),
    /// A line of the body, from 1.
    Line(u64),
    /// An item of the body's array, from 1.
    Item(u64),
}

/// Why a request is not done.
#[derive(Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) code: ErrorCode,
    pub(super) message: String,
    place: Option<Place>,
    headers: Vec<(HeaderName, &'static str)>,
    is_last: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Fields<'a>,
}

#[derive(Serialize)]
struct Fields<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<u64>,
}

impl Failure {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), place: None, headers: Vec::new(), is_last: false }
    }

    pub(super) fn place(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }

    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The connection is closed behind it: the rest of the body is not read.
    pub(super) fn last(self) -> Self {
        Self { is_last: true, ..self }
    }

    pub(super) fn answer(self) -> Answer {
        let (mut at, mut line, mut item) = (None, None, None);
        match self.place {
            None => {}
            Some(Place::At(byte)) => at = Some(byte),
            Some(Place::Line(number)) => line = Some(number),
            Some(Place::Item(number)) => item = Some(number),
        }
        let error = Fields { code: self.code.label(), message: &self.message, at, line, item };
        let status = StatusCode::from_u16(self.code.status()).expect("each is a status");
        let mut answer = json(status, &Body { error });
        let retry_after = self.code.retry_after().map(|seconds| (header::RETRY_AFTER, seconds));
        for (name, value) in self.headers.into_iter().chain(retry_after) {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        if self.is_last { last(answer) } else { answer }
    }
}

impl From<QueryRefused> for Failure {
    fn from(refused: QueryRefused) -> Self {
        match refused {
            QueryRefused { at: Some(at), what } => Self::new(ErrorCode::BadQuery, what).place(Place::At(at)),
            QueryRefused { at: None, what } => Self::new(ErrorCode::QueryFailed, what),
        }
    }
}

impl From<WriteRefused> for Failure {
    fn from(refused: WriteRefused) -> Self {
        let message = refused.to_string();
        let code = match refused {
            WriteRefused::Busy => ErrorCode::Busy,
            WriteRefused::Full(_) => ErrorCode::DiskFull,
            WriteRefused::TooBig(_) => ErrorCode::TooManyPoints,
            WriteRefused::Invalid(_) => ErrorCode::Refused,
            WriteRefused::Storage(_) => ErrorCode::NotWritable,
        };
        Self::new(code, message)
    }
}

impl From<WorkflowRefused> for Failure {
    fn from(refused: WorkflowRefused) -> Self {
        let code = match refused {
            WorkflowRefused::NotFound(_) => ErrorCode::NoSuchWorkflow,
            WorkflowRefused::Invalid(_) => ErrorCode::InvalidWorkflow,
            WorkflowRefused::Conflict(_) => ErrorCode::WorkflowConflict,
            WorkflowRefused::Failed(_) => ErrorCode::WorkflowFailed,
            WorkflowRefused::Busy => ErrorCode::WorkflowBusy,
        };
        Self::new(code, refused.to_string())
    }
}
