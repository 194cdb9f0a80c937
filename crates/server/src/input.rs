//! Events from a file: CSV or JSON lines, read one by one, each error with its line.

use std::borrow::Cow;
use std::io::BufRead;

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use slung_model::{KeyError, SeriesKey};

/// One event as a file gives it.
#[derive(Debug, PartialEq)]
pub(crate) struct InputEvent {
    /// Where it stands in the file, from 1.
    pub(crate) line: u64,
    /// Microseconds since 1970.
    pub(crate) timestamp: i64,
    /// Its value.
    pub(crate) value: f64,
    /// The series, where the line names one.
    pub(crate) series: Option<String>,
    /// Tags that the line names.
    pub(crate) tags: Vec<String>,
}

impl InputEvent {
    /// Its series: what the line does not name is that of `base`, whose tags all have.
    pub(crate) fn key<'a>(&self, base: &'a SeriesKey) -> Result<Cow<'a, SeriesKey>, KeyError> {
        if self.series.is_none() && self.tags.is_empty() {
            return Ok(Cow::Borrowed(base));
        }
        let name = self.series.as_deref().unwrap_or(base.name());
        SeriesKey::new(name, base.tags().chain(self.tags.iter().map(String::as_str))).map(Cow::Owned)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonLine {
    timestamp: JsonTime,
    value: f64,
    series: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum JsonTime {
    Micros(i64),
    Text(String),
}

/// Reads events until the end, or until the first line that is wrong.
pub(crate) fn events<'a>(
    mut reader: impl BufRead + 'a,
) -> anyhow::Result<Box<dyn Iterator<Item = anyhow::Result<InputEvent>> + 'a>> {
    let (first, skipped) = first_character(&mut reader)?;
    if first == Some(b'{') {
        let lines = reader.lines().enumerate().filter_map(move |(index, line)| {
            let number = (skipped + index + 1) as u64;
            let event = match line {
                Ok(line) if line.trim().is_empty() => return None,
                Ok(line) => json_event(number, &line),
                Err(error) => Err(error.into()),
            };
            Some(event.with_context(|| format!("line {number}")))
        });
        return Ok(Box::new(lines));
    }
    if first.is_none() {
        return Ok(Box::new(std::iter::empty()));
    }
    let mut csv = csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(reader);
    let header = csv.headers().with_context(|| format!("line {}", skipped + 1))?.clone();
    let column = |name: &str| {
        header.iter().position(|field| field.eq_ignore_ascii_case(name)).ok_or_else(|| {
            let found: Vec<_> = header.iter().collect();
            anyhow!("line {}: the header has no column `{name}`, it has: {}", skipped + 1, found.join(", "))
        })
    };
    let (timestamp, value) = (column("timestamp")?, column("value")?);
    let (series, tags) = (column("series").ok(), column("tags").ok());
    Ok(Box::new(csv.into_records().map(move |record| {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line) + skipped as u64;
        let field = |index: usize| record.get(index).unwrap_or_default().trim();
        // A name may begin with a blank.
        let series = series.and_then(|index| record.get(index)).filter(|name| !name.is_empty());
        let event = || -> anyhow::Result<InputEvent> {
            Ok(InputEvent {
                line,
                timestamp: timestamp_micros(field(timestamp))?,
                value: finite(field(value))?,
                series: series.map(str::to_owned),
                tags: tags.map_or(Ok(Vec::new()), |index| tag_list(field(index)))?,
            })
        };
        event().with_context(|| format!("line {line}"))
    })))
}

/// The first character that is not blank, left in place, and how many line ends before it were taken.
fn first_character(reader: &mut impl BufRead) -> anyhow::Result<(Option<u8>, usize)> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    if reader.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
        reader.consume(BYTE_ORDER_MARK.len());
    }
    let mut skipped = 0;
    loop {
        match reader.fill_buf()?.first() {
            Some(byte) if byte.is_ascii_whitespace() => {
                skipped += usize::from(*byte == b'\n');
                reader.consume(1);
            }
            other => return Ok((other.copied(), skipped)),
        }
    }
}

/// Tags in a field of CSV: a JSON array, as a tag may hold every character that could stand between two of them.
fn tag_list(text: &str) -> anyhow::Result<Vec<String>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(text).map_err(|_| anyhow!("{text:?} is no JSON array of tags, such as [\"sensor=1\"]"))
}

fn json_event(number: u64, line: &str) -> anyhow::Result<InputEvent> {
    let JsonLine { timestamp, value, series, tags } = serde_json::from_str(line)?;
    let timestamp = match timestamp {
        JsonTime::Micros(micros) => micros,
        JsonTime::Text(text) => timestamp_micros(&text)?,
    };
    Ok(InputEvent { line: number, timestamp, value, series, tags })
}

fn finite(text: &str) -> anyhow::Result<f64> {
    match text.parse() {
        Ok(value) if f64::is_finite(value) => Ok(value),
        _ => bail!("{text:?} is no finite number"),
    }
}

/// ISO 8601 with or without an offset (UTC then), or microseconds since 1970.
pub(crate) fn timestamp_micros(text: &str) -> anyhow::Result<i64> {
    if let Ok(micros) = text.parse() {
        return Ok(micros);
    }
    if let Ok(timestamp) = text.parse::<jiff::Timestamp>() {
        return Ok(timestamp.as_microsecond());
    }
    let civil: jiff::civil::DateTime =
        text.parse().map_err(|_| anyhow!("{text:?} is no time: neither ISO 8601 nor microseconds since 1970"))?;
    Ok(civil.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp().as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Vec<InputEvent>> {
        // Where each stands is for the errors.
        events(text.as_bytes())?.map(|event| Ok(InputEvent { line: 0, ..event? })).collect()
    }

    fn plain(timestamp: i64, value: f64) -> InputEvent {
        InputEvent { line: 0, timestamp, value, series: None, tags: Vec::new() }
    }

    #[test]
    fn csv_with_every_form_of_time() {
        let text = "\u{feff}\nvalue, timestamp,note\n1.5,2013-12-02 21:15:00,a\n-2,2013-12-02T21:15:00Z,b\n\
                    3e2,2013-12-02T22:15:00.5+01:00,c\n4,1386018900000001,d\n";
        let at = 1_386_018_900_000_000;
        assert_eq!(
            read(text).unwrap(),
            [plain(at, 1.5), plain(at, -2.0), plain(at + 500_000, 300.0), plain(at + 1, 4.0)]
        );
        for empty in ["timestamp,value\n", "\n", ""] {
            assert_eq!(read(empty).unwrap(), []);
        }
    }

    #[test]
    fn json_lines_may_name_series_and_tags() {
        let text = "\n{\"timestamp\":5,\"value\":1}\n\n{\"timestamp\":\"1970-01-01T00:00:01Z\",\"value\":2.5,\
                    \"series\":\"s\",\"tags\":[\"a=1\"]}";
        let named = InputEvent { series: Some("s".to_owned()), tags: vec!["a=1".to_owned()], ..plain(1_000_000, 2.5) };
        assert_eq!(read(text).unwrap(), [plain(5, 1.0), named]);
    }

    #[test]
    fn csv_may_name_series_and_tags() {
        let text = "tags,value,timestamp,series\n\"[\"\"a,b=1\"\",\"\"c\"\"]\", 1 , 5 ,\" s\"\n,2,6,\n[],3,7,t\n";
        let named = |event, series: Option<&str>, tags: &[&str]| InputEvent {
            series: series.map(str::to_owned),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..event
        };
        let expected = [
            named(plain(5, 1.0), Some(" s"), &["a,b=1", "c"]),
            named(plain(6, 2.0), None, &[]),
            named(plain(7, 3.0), Some("t"), &[]),
        ];
        assert_eq!(read(text).unwrap(), expected);
        let base = SeriesKey::new("base", ["b=1"]).unwrap();
        let keys = expected.iter().map(|event| event.key(&base).unwrap().to_string());
        assert_eq!(keys.collect::<Vec<_>>(), [" s{a,b=1,b=1,c}", "base{b=1}", "t{b=1}"]);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, expected) in [
            ("time,value\n1,2\n", "line 1: the header has no column `timestamp`, it has: time, value"),
            ("timestamp,value\n1,2\n1,x\n", "line 3: \"x\" is no finite number"),
            ("timestamp,value\n1,NaN\n", "line 2: \"NaN\" is no finite number"),
            ("timestamp,value\nyesterday,1\n", "line 2: \"yesterday\" is no time"),
            ("timestamp,value\n1,2,3\n", "line: 2"),
            ("timestamp,value,tags\n1,2,a=1\n", "line 2: \"a=1\" is no JSON array of tags"),
            ("{\"timestamp\":1}\n", "line 1: missing field `value`"),
            ("\n{\"timestamp\":1,\"value\":1}\n{", "line 3: EOF"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(expected), "{text:?} gives {error:?}");
        }
    }
}
