//! The events of one request: from JSON to points, each looked at before any of them is stored.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use serde::de::{DeserializeSeed, Error as _, SeqAccess, Visitor};
use slung_model::{Point, PointError, SeriesId, SeriesKey, validate_point};

use super::buffer::{Buffer, no_memory};
use super::error::{ErrorCode, Failure, Place};
use super::too_big;
use crate::memory::{Memory, Reserved};
use crate::wire::{JsonEvent, JsonFields, WireError};

/// What a body may have once decoded, bytes: 32 MiB.
pub(super) const DECODED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What a series costs beside its text: the key twice, its place in a table, an allocation.
const KEY_BYTES: usize = 160;

/// Stands where the server's clock is to be used. No event can have it.
const UNSTAMPED: i64 = i64::MIN;

/// What the events of a request are held to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// The server's clock, microseconds since the Unix epoch.
    pub(super) now: i64,
    pub(super) ahead_micros_max: i64,
}

/// Events on their way to the backend.
pub(super) struct Batch {
    /// Until all keys have their ids, the series of a point is its place among the keys.
    pub(super) points: Vec<Point>,
    /// Each once.
    pub(super) keys: Vec<SeriesKey>,
    /// How many points have no timestamp.
    unstamped: u64,
    reserved: Reserved,
}

impl Batch {
    /// Reads a body: a JSON array of events, or an event a line. Takes time.
    pub(super) fn read(body: Buffer, is_gzip: bool, rules: Rules, memory: &Memory) -> Result<Self, Failure> {
        let body = if is_gzip { gunzip(&body, memory)? } else { body };
        let mut reader = Reader::new(rules, memory);
        let text = body.bytes().trim_ascii_start();
        if text.first() == Some(&b'[') {
            reader.array(body.bytes())?;
        } else {
            reader.lines(body.bytes())?;
        }
        let Reader { batch, .. } = reader;
        if batch.points.is_empty() {
            return Err(Failure::new(ErrorCode::NoEvents, "the body has no events"));
        }
        Ok(batch)
    }

    /// How many points have no timestamp of their own.
    pub(super) fn unstamped(&self) -> u64 {
        self.unstamped
    }

    /// Gives those the times from `first` on, in their order.
    pub(super) fn stamp(&mut self, first: i64) {
        let unstamped = self.points.iter_mut().filter(|point| point.timestamp == UNSTAMPED);
        unstamped.zip(first..).for_each(|(point, now)| point.timestamp = now);
        self.unstamped = 0;
    }

    /// Puts the ids of the keys, which are in the same order, into the points.
    pub(super) fn resolved(&mut self, ids: &[SeriesId]) {
        self.points.iter_mut().for_each(|point| point.series = ids[point.series.index()]);
        self.keys = Vec::new();
    }
}

fn gunzip(body: &Buffer, memory: &Memory) -> Result<Buffer, Failure> {
    let mut decoder = MultiGzDecoder::new(body.bytes());
    let mut decoded = Buffer::new(memory, DECODED_BYTES_MAX);
    let mut part = [0; 16 * 1024];
    loop {
        match decoder.read(&mut part) {
            Ok(0) => return Ok(decoded),
            Ok(bytes) if decoded.push(&part[..bytes])? => {}
            Ok(_) => return Err(too_big(format!("the body has more than {DECODED_BYTES_MAX} bytes once decoded"))),
            Err(error) => return Err(Failure::new(ErrorCode::BadEncoding, format!("the body is not gzip: {error}"))),
        }
    }
}

struct Reader {
    rules: Rules,
    batch: Batch,
    places: HashMap<SeriesKey, u32, foldhash::fast::RandomState>,
    /// What the keys take.
    key_bytes: usize,
}

impl Reader {
    fn new(rules: Rules, memory: &Memory) -> Self {
        let batch = Batch { points: Vec::new(), keys: Vec::new(), unstamped: 0, reserved: memory.reserve() };
        Self { rules, batch, places: HashMap::default(), key_bytes: 0 }
    }

    fn lines(&mut self, body: &[u8]) -> Result<(), Failure> {
        for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let taken = match serde_json::from_slice(line) {
                Ok(fields) => self.take(&fields),
                Err(error) => {
                    // It is always in line 1 for the parser.
                    let (what, at) = (error.to_string(), format!(" at line 1 column {}", error.column()));
                    let what = what.strip_suffix(&at).unwrap_or(&what);
                    Err(bad_json(format!("column {}: {what}", error.column())))
                }
            };
            taken.map_err(|failure| failure.place(Place::Line(number)))?;
        }
        Ok(())
    }

    fn array(&mut self, body: &[u8]) -> Result<(), Failure> {
        let mut refused = None;
        let mut item = 0;
        let mut parser = serde_json::Deserializer::from_slice(body);
        let parsed = Items { reader: self, item: &mut item, refused: &mut refused }.deserialize(&mut parser);
        match (refused, parsed.and_then(|()| parser.end())) {
            (Some(failure), _) => Err(failure.place(Place::Item(item))),
            (None, Err(error)) => Err(bad_json(error.to_string()).place(Place::Item(item))),
            (None, Ok(())) => Ok(()),
        }
    }

    fn take(&mut self, fields: &JsonFields<'_>) -> Result<(), Failure> {
        let JsonEvent { timestamp, value, key } = fields.event().map_err(|error| refused(&error))?;
        if let Some(timestamp) = timestamp {
            let Rules { now, ahead_micros_max } = self.rules;
            validate_point(timestamp, value, now, ahead_micros_max).map_err(|error| refused(&error.into()))?;
        }
        let place = match self.places.get(&key) {
            Some(place) => *place,
            None => self.take_key(key)?,
        };
        let points = self.batch.points.len();
        if points == self.batch.points.capacity() {
            let more = points.max(64);
            self.reserve(points + more)?;
            self.batch.points.reserve_exact(more);
        }
        self.batch.unstamped += u64::from(timestamp.is_none());
        let timestamp = timestamp.unwrap_or(UNSTAMPED);
        self.batch.points.push(Point { series: SeriesId(place), timestamp, value });
        Ok(())
    }

    fn take_key(&mut self, key: SeriesKey) -> Result<u32, Failure> {
        self.key_bytes += KEY_BYTES + key.name().len() + key.tags().map(str::len).sum::<usize>();
        self.reserve(self.batch.points.capacity())?;
        let place = u32::try_from(self.batch.keys.len()).expect("there are fewer than the body has bytes");
        self.batch.keys.push(key.clone());
        self.places.insert(key, place);
        Ok(place)
    }

    /// Takes memory for so many points and the keys.
    fn reserve(&mut self, points: usize) -> Result<(), Failure> {
        let bytes = points * size_of::<Point>() + self.key_bytes;
        if self.batch.reserved.resize(bytes) { Ok(()) } else { Err(no_memory()) }
    }
}

/// Reads an array item by item, so that no more than one lies in memory as it was written.
struct Items<'a> {
    reader: &'a mut Reader,
    /// The one that is read, from 1.
    item: &'a mut u64,
    refused: &'a mut Option<Failure>,
}

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        *self.item = 1;
        while let Some(fields) = items.next_element::<JsonFields<'de>>()? {
            if let Err(failure) = self.reader.take(&fields) {
                *self.refused = Some(failure);
                return Err(A::Error::custom("refused"));
            }
            *self.item += 1;
        }
        Ok(())
    }
}

fn bad_json(message: String) -> Failure {
    Failure::new(ErrorCode::BadJson, message)
}

fn refused(error: &WireError) -> Failure {
    let code = match error {
        WireError::Key(_) => ErrorCode::BadSeries,
        WireError::Point(PointError::NotFinite(_)) => ErrorCode::BadValue,
        WireError::Point(_) => ErrorCode::BadTimestamp,
        _ => ErrorCode::BadJson,
    };
    Failure::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use slung_model::TIMESTAMP_MAX;

    use super::*;

    const NOW: i64 = 1_700_000_000_000_000;
    const RULES: Rules = Rules { now: NOW, ahead_micros_max: 1_000_000 };

    fn read(body: &[u8], is_gzip: bool) -> Result<Batch, Failure> {
        let memory = Memory::new(1 << 20);
        let mut buffer = Buffer::new(&memory, usize::MAX);
        buffer.push(body)?;
        let read = Batch::read(buffer, is_gzip, RULES, &memory);
        if read.is_err() {
            assert_eq!(memory.used(), 0, "what is refused gives its memory back");
        }
        read
    }

    fn points(body: &str) -> Vec<(String, i64, f64)> {
        let mut batch = read(body.as_bytes(), false).unwrap();
        batch.stamp(NOW);
        let key = |point: &Point| batch.keys[point.series.index()].to_string();
        batch.points.iter().map(|point| (key(point), point.timestamp, point.value)).collect()
    }

    proptest! {
        #[test]
        fn both_forms_say_the_same(
            events in prop::collection::vec(
                ("[a-c\u{e9}\"]{1,2}", prop::option::of(-TIMESTAMP_MAX..NOW), -1e300..1e300_f64, "[tu]{0,2}"), 1..40)
        ) {
            let mut stamp = NOW..;
            let mut expected = Vec::new();
            let mut written = Vec::new();
            for (series, timestamp, value, tags) in &events {
                let tags: Vec<String> = tags.chars().map(String::from).collect();
                let key = SeriesKey::new(series, &tags).unwrap();
                expected.push((key.to_string(), timestamp.or_else(|| stamp.next()).unwrap(), *value));
                let event = serde_json::json!({"series": series, "timestamp": timestamp, "value": value, "tags": tags});
                written.push(event.to_string());
            }
            prop_assert_eq!(&points(&written.join("\n")), &expected);
            prop_assert_eq!(&points(&format!("[{}]", written.join(","))), &expected);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, is_gzip: bool) {
            let _ = read(&bytes, is_gzip);
        }

        #[test]
        fn what_looks_like_events_is_read_or_refused(
            parts in prop::collection::vec(
                prop::sample::select(&["[", "]", "{", "}", ",", "\"value\":1", "\"series\":\"a\"", "\n", " ", "1"][..]), 0..20)
        ) {
            let _ = read(parts.concat().as_bytes(), false);
        }
    }
}
