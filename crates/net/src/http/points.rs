//! Raw points, page by page, in the forms that other programs read.

use std::io::Write;
use std::sync::Arc;

use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use slung_model::{Op, Query, SeriesKey};
use tokio::task::spawn_blocking;

use super::buffer::{Buffer, no_memory};
use super::cursor::Cursor;
use super::error::{ErrorCode, Failure, Place as ErrorPlace};
use super::parameters::Parameters;
use super::query::ask;
use super::upgrade::list;
use super::{Answer, RangeBody, with};
use crate::backend::{Place, PointsPage};
use crate::memory::Memory;
use crate::server::Shared;
use crate::stats::Route;

/// Points on a page unless asked otherwise.
pub(super) const POINTS_DEFAULT: usize = 1_000;
/// The most points on a page.
pub(super) const POINTS_MAX: usize = 100_000;
/// Where a page ends however many points were asked for, bytes: series may have 64 KiB of tags, and each point names them.
pub(super) const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a point takes between the backend and the page, bytes.
const POINT_BYTES: usize = 64;
/// What may stand behind the points of a page: what is damaged, and where the next one begins.
const TAIL_BYTES_MAX: usize = 64 * 1024;

/// Says in every form where the next page begins.
const NEXT: HeaderName = HeaderName::from_static("slung-next");
/// There where points are missing because they are damaged.
const PARTIAL: HeaderName = HeaderName::from_static("slung-partial");

/// How points are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// One object with all of them.
    Json,
    /// Each as a line that `POST /api/v1/events` takes.
    Ndjson,
    /// As `slung export` writes it.
    Csv,
}

impl Format {
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Json, "json", "application/json"),
        (Self::Ndjson, "ndjson", "application/x-ndjson"),
        (Self::Csv, "csv", "text/csv"),
    ];

    /// What the parameter says, or else the first in `Accept` that there is, or JSON.
    fn choose(parameters: &Parameters, headers: &HeaderMap) -> Result<Self, Failure> {
        if let Some(asked) = parameters.get("format") {
            let known = Self::ALL.into_iter().find(|(_, name, _)| *name == asked);
            let message = || format!("the format {asked:?} is not known; json, ndjson and csv are");
            return known.map(|(it, ..)| it).ok_or_else(|| Failure::new(ErrorCode::BadRequest, message()));
        }
        let accepted = list(headers, &header::ACCEPT).filter_map(|accepted| accepted.split(';').next());
        let mut known =
            accepted.filter_map(|accepted| Self::ALL.into_iter().find(|(.., kind)| *kind == accepted.trim()));
        Ok(known.next().map_or(Self::Json, |(it, ..)| it))
    }

    fn content_type(self) -> &'static str {
        let [(.., json), (.., ndjson), _] = Self::ALL;
        match self {
            Self::Json => json,
            Self::Ndjson => ndjson,
            Self::Csv => "text/csv; charset=utf-8",
        }
    }
}

/// Answers `GET /api/v1/points`.
pub(super) async fn points(shared: &Shared, request: &Request<Incoming>) -> Result<Answer, Failure> {
    let parameters = request.uri().query().unwrap_or_default();
    let parameters = Parameters::parse(parameters, &["q", "limit", "after", "format"])?;
    let limit = parameters.limit(POINTS_DEFAULT, POINTS_MAX)?;
    let format = Format::choose(&parameters, request.headers())?;
    let query = without_operator(parameters.query(Route::Points)?)?;
    let text = query.to_string();
    let after = parameters.get("after").map(|after| Cursor::decode(after, &text)).transpose()?;

    let mut reserved = shared.producers.memory().reserve();
    if !reserved.resize(limit * POINT_BYTES) {
        return Err(no_memory());
    }
    let (backend, asked) = (Arc::clone(&shared.backend), text.clone());
    let after = after.map(|cursor| (cursor.place, cursor.range));
    let page = ask(shared, async move { backend.points(&asked, after, limit).await }).await?;
    let memory = shared.producers.memory().clone();
    let written = spawn_blocking(move || {
        let _reserved = reserved;
        Writer::new(format, &memory).page(&text, &page)
    });
    let (body, next, is_partial) =
        written.await.map_err(|panicked| Failure::new(ErrorCode::QueryFailed, panicked.to_string()))??;
    let answer = Response::new(Either::Left(Full::new(body.into_body())));
    let mut answer = with(answer, header::CONTENT_TYPE, format.content_type());
    if let Some(next) = next {
        let next = HeaderValue::from_str(&next).expect("digits and dashes");
        answer.headers_mut().insert(NEXT, next);
    }
    Ok(if is_partial { with(answer, PARTIAL, "true") } else { answer })
}

/// A query that names points, or series.
pub(super) fn without_operator(text: &str) -> Result<Query, Failure> {
    let bad = |at, what: String| Failure::new(ErrorCode::BadQuery, what).place(ErrorPlace::At(at));
    let query = Query::parse(text).map_err(|error| bad(error.at, error.what))?;
    match query.op() {
        Op::Raw => Ok(query),
        op => Err(bad(0, format!("{op} computes something: name what is meant without it"))),
    }
}

/// One page in the making.
struct Writer {
    format: Format,
    buffer: Buffer,
    /// One point.
    line: Vec<u8>,
    points: usize,
}

impl Writer {
    fn new(format: Format, memory: &Memory) -> Self {
        Self { format, buffer: Buffer::new(memory, PAGE_BYTES_MAX + TAIL_BYTES_MAX), line: Vec::new(), points: 0 }
    }

    /// Writes the points, as many as find room, and says where the next page begins, and whether points are missing.
    fn page(mut self, query: &str, page: &PointsPage) -> Result<(Buffer, Option<String>, bool), Failure> {
        let range = page.range;
        match self.format {
            Format::Json => {
                let (query, range) = (to_json(&query), to_json(&RangeBody::of(range)));
                self.put(format!("{{\"query\":{query},\"range\":{range},\"points\":[").as_bytes())?;
            }
            Format::Ndjson => {}
            Format::Csv => self.put(b"timestamp,value,series,tags\n")?,
        }
        let last = self.points(page)?;
        let is_more = page.more || self.points < page.runs.iter().map(|run| run.points.len()).sum();
        let next = last.filter(|_| is_more).map(|place| Cursor { place, range }.encode(query));
        let is_partial = !page.damage.is_empty();
        if self.format == Format::Json {
            let mut tail = format!("],\"next\":{}", to_json(&next));
            if is_partial {
                tail.push_str(",\"partial\":true,\"damage\":[");
                for (index, damage) in page.damage.iter().enumerate() {
                    let one = format!("{}{}", if index > 0 { "," } else { "" }, to_json(damage));
                    if tail.len() + one.len() + 2 > TAIL_BYTES_MAX {
                        break;
                    }
                    tail.push_str(&one);
                }
                tail.push(']');
            }
            tail.push('}');
            self.put(tail.as_bytes())?;
        }
        Ok((self.buffer, next, is_partial))
    }

    /// Answers the place of the last one that found room.
    fn points(&mut self, page: &PointsPage) -> Result<Option<Place>, Failure> {
        let mut last = None;
        for run in &page.runs {
            let names = self.names(&run.key);
            for &(timestamp, value) in &run.points {
                self.line.clear();
                let is_first = self.points == 0;
                write_point(self.format, is_first, timestamp, value, &names, &mut self.line);
                // The first one goes onto the page in any case, so that there is always an end.
                if !is_first && self.buffer.bytes().len() + self.line.len() > PAGE_BYTES_MAX {
                    return Ok(last);
                }
                let pushed = self.buffer.push(&self.line)?;
                debug_assert!(pushed, "the tail has room of its own");
                self.points += 1;
                last = Some(Place { series: run.series, timestamp });
            }
        }
        Ok(last)
    }

    fn put(&mut self, text: &[u8]) -> Result<(), Failure> {
        let pushed = self.buffer.push(text)?;
        debug_assert!(pushed, "the points leave room for it");
        Ok(())
    }

    /// Series and tags, as they stand in each of its points.
    fn names(&self, key: &SeriesKey) -> String {
        match self.format {
            Format::Json | Format::Ndjson => key_fields(key),
            Format::Csv => {
                let tags: Vec<&str> = key.tags().collect();
                format!("{},{}", csv_field(key.name()), csv_field(&to_json(&tags)))
            }
        }
    }
}

fn write_point(format: Format, is_first: bool, timestamp: i64, value: f64, names: &str, line: &mut Vec<u8>) {
    let separator = if format == Format::Json && !is_first { "," } else { "" };
    let end = if format == Format::Json { "" } else { "\n" };
    // The shortest number that reads back as the same.
    let written = match format {
        Format::Csv => write!(line, "{timestamp},{value:?},{names}{end}"),
        _ => write!(line, "{separator}{{\"timestamp\":{timestamp},\"value\":{value:?},{names}}}{end}"),
    };
    written.expect("a vector takes everything");
}

/// `"series":"temp","tags":["sensor=1"]`
pub(super) fn key_fields(key: &SeriesKey) -> String {
    let tags: Vec<&str> = key.tags().collect();
    format!("\"series\":{},\"tags\":{}", to_json(key.name()), to_json(&tags))
}

pub(super) fn to_json(value: &(impl serde::Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("texts and numbers have a JSON form")
}

/// In quotes where it needs them (RFC 4180).
fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
