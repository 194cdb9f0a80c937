//! Events as they stand on the wire: the one place where bytes from a producer become an event.

use slung_model::{KeyError, NAME_BYTES_MAX, PointError, SeriesKey, TAG_BYTES_MAX, TAGS_MAX};

/// Where the series key starts: after the timestamp and the value.
const KEY_AT: usize = 16;
/// Where the series name starts: after its length and the number of tags.
const NAME_AT: usize = 20;

/// The longest event in the binary layout, bytes: a longest name with the most tags, each the longest.
pub const EVENT_BYTES_MAX: usize = NAME_AT + NAME_BYTES_MAX + TAGS_MAX * (2 + TAG_BYTES_MAX);

/// Why bytes from a producer are no event.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WireError {
    /// The bytes end before the event does.
    #[error("the event is cut short: {need} bytes are needed, {have} are there")]
    Short {
        /// Bytes that the event needs at least.
        need: usize,
        /// Bytes that there are.
        have: usize,
    },
    /// Something follows the last tag.
    #[error("the event ends at byte {end}, but {have} bytes are there")]
    Long {
        /// Where the last tag ends.
        end: usize,
        /// Bytes that there are.
        have: usize,
    },
    /// The name or a tag is not UTF-8.
    #[error("the event is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// The first bad byte, from the start of the event.
        at: usize,
    },
    /// The name and the tags make no series key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The value or the timestamp is not acceptable.
    #[error(transparent)]
    Point(#[from] PointError),
    /// A message without events.
    #[error("a message without events")]
    NoEvents,
    /// The text is not an event as JSON.
    #[error("not an event as JSON: {0}")]
    Json(String),
}

/// An event that still lies in the bytes it came in.
///
/// ```
/// use slung_model::SeriesKey;
/// use slung_net::wire;
///
/// let mut frame = Vec::new();
/// let key = SeriesKey::new("temp", ["sensor=1", "env=prod"])?;
/// wire::encode_event(1_700_000_000_000_000, 21.5, &key, &mut frame);
/// let event = wire::decode_event(&frame)?;
/// assert_eq!((event.series(), event.value()), ("temp", 21.5));
/// assert_eq!(event.to_key(), key);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EventRef<'a> {
    timestamp: i64,
    value: f64,
    key: &'a [u8],
    series: &'a str,
    tags: &'a [u8],
}

impl<'a> EventRef<'a> {
    /// Microseconds since the Unix epoch, as sent: whether it is acceptable is for the server's clock to say
    /// ([`slung_model::validate_point`]).
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// The value, finite.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The name of the series.
    pub fn series(&self) -> &'a str {
        self.series
    }

    /// The tags in the order in which they were sent, with duplicates.
    pub fn tags(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        split_tags(self.tags)
    }

    /// The bytes that name the series, as sent: equal bytes are the same series, different ones may be too.
    pub fn key_bytes(&self) -> &'a [u8] {
        self.key
    }

    /// The series key: the tags sorted, each once.
    pub fn to_key(&self) -> SeriesKey {
        SeriesKey::new(self.series, self.tags()).expect("decode_event holds the key to the same limits")
    }
}

/// Reads one event in the binary layout; `frame` is all of it.
///
/// # Errors
/// [`WireError`] where the frame is short, long, not UTF-8, without a series name, over a limit, with control
/// characters, or its value is not finite.
pub fn decode_event(frame: &[u8]) -> Result<EventRef<'_>, WireError> {
    let Head { timestamp, value, key } = decode_head(frame)?;
    let (series, tags) = read_key(frame, KEY_AT)?;
    Ok(EventRef { timestamp, value, key, series, tags })
}

/// Reads a series key alone: length of the name, number of tags, name and tags, as in an event.
///
/// # Errors
/// [`WireError`] as for an event; places count from the start of the key.
pub fn decode_key(bytes: &[u8]) -> Result<SeriesKey, WireError> {
    let (series, tags) = read_key(bytes, 0)?;
    Ok(SeriesKey::new(series, split_tags(tags)).expect("read_key holds the key to the same limits"))
}

/// Name and tags of the key that begins at `key_at` and ends with the frame.
fn read_key(frame: &[u8], key_at: usize) -> Result<(&str, &[u8]), WireError> {
    let series = read_text(frame, key_at + 4, usize::from(read_u16(frame, key_at)?), NAME_BYTES_MAX, None)?;
    let tags_at = key_at + 4 + series.len();
    let tag_count = usize::from(read_u16(frame, key_at + 2)?);
    if tag_count > TAGS_MAX {
        return Err(KeyError::TooManyTags(tag_count).into());
    }
    let mut at = tags_at;
    for index in 0..tag_count {
        let length = usize::from(read_u16(frame, at)?);
        at += 2 + read_text(frame, at + 2, length, TAG_BYTES_MAX, Some(index))?.len();
    }
    if at != frame.len() {
        return Err(WireError::Long { end: at, have: frame.len() });
    }
    Ok((series, &frame[tags_at..]))
}

fn split_tags<'a>(mut rest: &'a [u8]) -> impl Iterator<Item = &'a str> + use<'a> {
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (tag, after) = after.split_at(usize::from(u16::from_le_bytes(*length)));
        rest = after;
        Some(std::str::from_utf8(tag).expect("every tag was seen before"))
    })
}

/// Where the series key ends that begins at `key_at`, by its lengths alone: its texts are not looked at.
///
/// # Errors
/// [`WireError::Short`], or [`WireError::Key`] where a length is over its limit.
pub(crate) fn key_end(bytes: &[u8], key_at: usize) -> Result<usize, WireError> {
    let name = usize::from(read_u16(bytes, key_at)?);
    if name > NAME_BYTES_MAX {
        return Err(KeyError::NameTooLong(name).into());
    }
    let tag_count = usize::from(read_u16(bytes, key_at + 2)?);
    if tag_count > TAGS_MAX {
        return Err(KeyError::TooManyTags(tag_count).into());
    }
    let mut at = key_at + 4 + name;
    for index in 0..tag_count {
        let length = usize::from(read_u16(bytes, at)?);
        if length > TAG_BYTES_MAX {
            return Err(KeyError::TagTooLong { index, bytes: length }.into());
        }
        at += 2 + length;
    }
    if at > bytes.len() { Err(WireError::Short { need: at, have: bytes.len() }) } else { Ok(at) }
}

/// Where the event ends that the bytes begin with, by its lengths alone.
///
/// # Errors
/// [`WireError::Short`], or [`WireError::Key`] where a length is over its limit.
pub fn event_end(bytes: &[u8]) -> Result<usize, WireError> {
    key_end(bytes, KEY_AT)
}

/// The part of an event that is looked at on every frame.
pub(crate) struct Head<'a> {
    pub(crate) timestamp: i64,
    pub(crate) value: f64,
    /// Not looked at yet: either these very bytes were decoded before, or [`decode_event`] must see the frame.
    pub(crate) key: &'a [u8],
}

/// Splits a frame before its series key. Not enough to believe the frame; see [`Head::key`].
pub(crate) fn decode_head(frame: &[u8]) -> Result<Head<'_>, WireError> {
    let Some((timestamp, rest)) = frame.split_first_chunk().filter(|_| frame.len() >= NAME_AT) else {
        return Err(WireError::Short { need: NAME_AT, have: frame.len() });
    };
    let Some((value, key)) = rest.split_first_chunk() else {
        return Err(WireError::Short { need: NAME_AT, have: frame.len() });
    };
    let value = f64::from_le_bytes(*value);
    if !value.is_finite() {
        return Err(PointError::NotFinite(value).into());
    }
    Ok(Head { timestamp: i64::from_le_bytes(*timestamp), value, key })
}

/// Appends one event in the binary layout to `out`. `timestamp` is in microseconds since the Unix epoch; nothing is
/// checked here that the key does not hold by itself, so a value that is not finite is refused by whoever decodes it.
pub fn encode_event(timestamp: i64, value: f64, key: &SeriesKey, out: &mut Vec<u8>) {
    out.extend_from_slice(&timestamp.to_le_bytes());
    out.extend_from_slice(&value.to_le_bytes());
    key.encode(out);
}

/// An event that came as JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonEvent {
    /// Microseconds since the Unix epoch; `None` where the server's clock is to be used.
    pub timestamp: Option<i64>,
    /// The value, finite.
    pub value: f64,
    /// The series.
    pub key: SeriesKey,
}

/// An event as it stands in JSON; its texts are not held to anything yet.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with timestamp, value, series and tags")]
pub(crate) struct JsonFields<'a> {
    timestamp: Option<i64>,
    value: f64,
    #[serde(borrow)]
    series: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    tags: Vec<std::borrow::Cow<'a, str>>,
}

impl JsonFields<'_> {
    /// The event that they are.
    ///
    /// # Errors
    /// [`WireError::Point`] where the value is not finite, [`WireError::Key`].
    pub(crate) fn event(&self) -> Result<JsonEvent, WireError> {
        if !self.value.is_finite() {
            return Err(PointError::NotFinite(self.value).into());
        }
        let key = SeriesKey::new(&self.series, &self.tags)?;
        Ok(JsonEvent { timestamp: self.timestamp, value: self.value, key })
    }
}

/// Reads one event as JSON: `{"timestamp":1700000000000000,"value":21.5,"series":"temp","tags":["sensor=1"]}`, where
/// timestamp and tags may be left out. Other fields are refused: a timestamp that is misspelt would otherwise be stored
/// at the server's time.
///
/// ```
/// let event = slung_net::wire::decode_json_event(r#"{"value":21.5,"series":"temp"}"#)?;
/// assert_eq!((event.timestamp, event.value, event.key.name()), (None, 21.5, "temp"));
/// # Ok::<(), slung_net::wire::WireError>(())
/// ```
///
/// # Errors
/// [`WireError::Json`] with line and column, or [`WireError::Key`] where name and tags break a limit.
pub fn decode_json_event(text: &str) -> Result<JsonEvent, WireError> {
    let fields: JsonFields<'_> = serde_json::from_str(text).map_err(|error| WireError::Json(error.to_string()))?;
    fields.event()
}

/// Whether a text message is an event in the binary layout, which older clients send, and not JSON.
///
/// Byte 17 decides, for sure: it is the high byte of the name's length, at most 4 in an event within the limits, while
/// the lowest byte that JSON text has anywhere is the tab, 9.
pub(crate) fn text_is_binary_layout(text: &str) -> bool {
    text.as_bytes().get(KEY_AT + 1).is_some_and(|byte| *byte < b'\t')
}

fn read_u16(frame: &[u8], at: usize) -> Result<u16, WireError> {
    match frame.get(at..at + 2) {
        Some(&[low, high]) => Ok(u16::from_le_bytes([low, high])),
        _ => Err(WireError::Short { need: at + 2, have: frame.len() }),
    }
}

/// The name (`tag` is `None`) or a tag, held to the limits of a series key.
fn read_text(frame: &[u8], at: usize, length: usize, length_max: usize, tag: Option<usize>) -> Result<&str, WireError> {
    if length > length_max {
        return Err(match tag {
            None => KeyError::NameTooLong(length).into(),
            Some(index) => KeyError::TagTooLong { index, bytes: length }.into(),
        });
    }
    if length == 0 && tag.is_none() {
        return Err(KeyError::EmptyName.into());
    }
    let part = frame.get(at..at + length).ok_or(WireError::Short { need: at + length, have: frame.len() })?;
    let text = std::str::from_utf8(part).map_err(|error| WireError::NotUtf8 { at: at + error.valid_up_to() })?;
    match text.chars().find(|character| character.is_control()) {
        Some(character) => Err(KeyError::ControlCharacter { tag, character: character.into() }.into()),
        None => Ok(text),
    }
}
