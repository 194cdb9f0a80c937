//! Where the next page begins, as text that a client hands back.

use slung_model::{SeriesId, TimeRange};

use super::error::{ErrorCode, Failure};
use crate::backend::Place;

/// Behind the last point of a page. The range is that of the first page, so that one such as `[2h]` does not move on from
/// page to page.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cursor {
    pub(super) place: Place,
    pub(super) range: TimeRange,
}

impl Cursor {
    /// As text, for pages of that query, in its normal form.
    pub(super) fn encode(&self, query: &str) -> String {
        let Self { place: Place { series, timestamp }, range } = self;
        let words = [i64::from(series.0), *timestamp, range.start, range.end];
        let [series, timestamp, start, end] = words.map(|word| format!("{:x}", word.cast_unsigned()));
        format!("{series}-{timestamp}-{start}-{end}-{:x}", checksum(query, &words))
    }

    /// # Errors
    /// [`ErrorCode::BadCursor`] where it is none, or not of that query.
    pub(super) fn decode(text: &str, query: &str) -> Result<Self, Failure> {
        let refused = || {
            let message = "after is not what a page of this query said: begin without it";
            Failure::new(ErrorCode::BadCursor, message)
        };
        let words: Vec<u64> = text.split('-').map_while(|word| u64::from_str_radix(word, 16).ok()).collect();
        let [series, timestamp, start, end, sum] = words[..] else { return Err(refused()) };
        let words = [series, timestamp, start, end].map(u64::cast_signed);
        let [_, timestamp, start, end] = words;
        let series = u32::try_from(series).ok().filter(|_| sum == u64::from(checksum(query, &words)));
        let place = Place { series: SeriesId(series.ok_or_else(refused)?), timestamp };
        Ok(Self { place, range: TimeRange { start, end } })
    }
}

/// FNV-1a. It keeps nobody from making up a cursor, who gets points of his own query for it; it finds those of another
/// query and those that were cut.
fn checksum(query: &str, words: &[i64]) -> u32 {
    let bytes = query.bytes().chain(words.iter().flat_map(|word| word.to_le_bytes()));
    bytes.fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_as_it_was_and_for_its_query_only() {
        for (series, timestamp, range) in [
            (0, 0, TimeRange::ALL),
            (u32::MAX, i64::MIN, TimeRange { start: -5, end: 1_700_000_000_000_000 }),
            (7, 1_700_000_000_000_000, TimeRange { start: 0, end: 0 }),
        ] {
            let cursor = Cursor { place: Place { series: SeriesId(series), timestamp }, range };
            let text = cursor.encode("temp:[]");
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{text}");
            assert_eq!(Cursor::decode(&text, "temp:[]"), Ok(cursor));
            let cut = &text[..text.len() - 1];
            let longer = format!("{text}-0");
            for (text, query) in [(&*text, "temp:[a]"), (cut, "temp:[]"), (&longer, "temp:[]"), ("", "temp:[]")] {
                let refused = Cursor::decode(text, query).map_err(|failure| failure.code);
                assert_eq!(refused, Err(ErrorCode::BadCursor), "{text}");
            }
        }
    }
}
