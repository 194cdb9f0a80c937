//! How the commands show what they do and what they found: progress on a terminal, times, sizes and counts.

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use slung_model::TimeRange;
use slung_store::tools::Progress;

/// A bar for bytes, on stderr; nothing where that is no terminal.
pub(crate) fn bytes_bar(doing: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}");
    ProgressBar::new(0).with_style(style.expect("the template is a good one")).with_message(doing)
}

/// A count of points, on stderr; nothing where that is no terminal.
pub(crate) fn points_spinner(doing: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} {human_pos} points, {per_sec}, {elapsed}");
    ProgressBar::new_spinner().with_style(style.expect("the template is a good one")).with_message(doing)
}

/// Brings a bar to where a tool has come.
pub(crate) fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.total);
    bar.set_position(progress.done);
}

/// A time as ISO 8601, or the number where there is none.
pub(crate) fn time(micros: i64) -> String {
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(time) => time.to_string(),
        Err(_) => micros.to_string(),
    }
}

/// From when to when.
pub(crate) fn range(range: TimeRange) -> String {
    if range == TimeRange::ALL {
        "all of time".to_owned()
    } else {
        format!("{} to {}", time(range.start), time(range.end))
    }
}

/// So many of them, with the word in its number.
pub(crate) fn count(number: u64, one: &str, more: &str) -> String {
    format!("{} {}", HumanCount(number), if number == 1 { one } else { more })
}

/// A size with its unit.
pub(crate) fn bytes(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// A text of somebody else as a terminal may show it: control characters are escaped.
pub(crate) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The same for a text of several lines.
pub(crate) fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_can_read_it() {
        assert_eq!(count(1, "point", "points"), "1 point");
        assert_eq!(count(22_695, "point", "points"), "22,695 points");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(range(TimeRange::ALL), "all of time");
        let hour = TimeRange { start: 0, end: 3_600_000_000 };
        assert_eq!(range(hour), "1970-01-01T00:00:00Z to 1970-01-01T01:00:00Z");
        assert_eq!(time(i64::MAX), "9223372036854775807");
    }

    #[test]
    fn nobody_writes_to_the_terminal_by_way_of_a_text() {
        assert_eq!(printable("a\u{1b}[2J\tb\r\n\u{7f}\u{9b}31m é ☃"), "a\\u{1b}[2J\\tb\\r\\n\\u{7f}\\u{9b}31m é ☃");
        assert_eq!(printable_lines("- a\u{8}\n- b\n"), "- a\\u{8}\n- b");
    }
}
