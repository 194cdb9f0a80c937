//! The log of a workflow as it is read by others: its latest lines, numbered, to look at and to follow.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::journal::Journal;

/// How often a follower looks whether there is more. Looking costs it a timer and an atomic load, and the workflow
/// nothing: one that was told of each line would be paid for by the guest that prints it.
const LOOK: Duration = Duration::from_millis(100);

/// How serious a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogLevel {
    /// What a workflow prints to standard output; that it has ended well.
    Info,
    /// What it prints to standard error; a host function that failed, lines that were dropped.
    Warn,
    /// It has failed.
    Error,
}

impl LogLevel {
    /// `info`, `warn` or `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogSource {
    /// The workflow's standard output.
    Stdout,
    /// The workflow's standard error.
    Stderr,
    /// The host, about the workflow.
    Host,
}

impl LogSource {
    /// `stdout`, `stderr` or `host`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for LogSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A line of a [`Log`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Its number: the first line of a log is 1, each further one is one more.
    pub number: u64,
    /// When it was written, microseconds since the Unix epoch, by the machine's clock: where that is set back, a later line
    /// has an earlier time.
    pub time_micros: i64,
    /// How serious it is.
    pub level: LogLevel,
    /// Where it comes from.
    pub source: LogSource,
    /// The line without its end: control characters are escaped, and what is longer than
    /// [`HostOptions::log_line_bytes_max`](crate::HostOptions::log_line_bytes_max) is cut.
    pub text: Arc<str>,
}

/// A part of a [`Log`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPage {
    /// The lines, the oldest first, without a gap between them.
    pub lines: Vec<LogLine>,
    /// Lines between the number that was asked for and the first of these that are not kept any more.
    pub missed: u64,
}

/// The log of a workflow: its latest lines, as many as
/// [`HostOptions::log_lines_max`](crate::HostOptions::log_lines_max) and
/// [`HostOptions::log_bytes_max`](crate::HostOptions::log_bytes_max) say. Cloning it is cheap; it outlives the workflow, and
/// the host.
///
/// Following it:
/// ```no_run
/// # async fn follow(log: slung_host::Log) {
/// let mut after = 0;
/// loop {
///     let page = log.lines(after, 100);
///     if page.missed > 0 {
///         println!("({} lines are gone)", page.missed);
///     }
///     for line in &page.lines {
///         println!("{} {} {}", line.number, line.level, line.text);
///     }
///     after = page.lines.last().map_or(after, |line| line.number);
///     log.changed(after).await;
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Log {
    pub(crate) journal: Arc<Journal>,
}

impl Log {
    /// The number of the newest line; 0 while there is none.
    pub fn newest(&self) -> u64 {
        self.journal.newest()
    }

    /// The oldest lines after that number, at most so many. A number that was not given to any line yet belongs to another
    /// log, most likely that of the server's run before, and counts as 0: from the beginning.
    pub fn lines(&self, after: u64, lines_max: usize) -> LogPage {
        self.journal.page(after, lines_max)
    }

    /// Whether nothing comes any more, as the workflow was removed.
    pub fn has_ended(&self) -> bool {
        self.journal.has_ended()
    }

    pub(crate) fn end(&self) {
        self.journal.end();
    }

    /// Waits until [`lines`](Self::lines) after that number has something, or the log [has ended](Self::has_ended): at most 0.1 s
    /// longer than that.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub async fn changed(&self, after: u64) {
        loop {
            let newest = self.newest();
            if (newest != 0 && newest != after) || self.has_ended() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The latest lines, and up to where the log thread has taken them.
#[derive(Debug)]
pub(crate) struct Ring {
    lines: VecDeque<LogLine>,
    lines_max: usize,
    /// Bytes of the texts.
    bytes: usize,
    bytes_max: usize,
    newest: u64,
    taken: u64,
}

impl Ring {
    pub(crate) fn new(lines_max: usize, bytes_max: usize) -> Self {
        Self { lines: VecDeque::new(), lines_max: lines_max.max(1), bytes: 0, bytes_max, newest: 0, taken: 0 }
    }

    /// Adds a line, however long, and lets the oldest go where there are too many. Answers the line's number, and how many
    /// went before the log thread took them.
    pub(crate) fn push(&mut self, time_micros: i64, level: LogLevel, source: LogSource, text: &str) -> (u64, u64) {
        self.newest += 1;
        self.bytes += text.len();
        self.lines.push_back(LogLine { number: self.newest, time_micros, level, source, text: text.into() });
        let mut untaken = 0;
        while self.lines.len() > self.lines_max || (self.bytes > self.bytes_max && self.lines.len() > 1) {
            let Some(line) = self.lines.pop_front() else { break };
            self.bytes -= line.text.len();
            untaken += u64::from(line.number > self.taken);
        }
        (self.newest, untaken)
    }

    /// See [`Log::lines`].
    pub(crate) fn page(&self, after: u64, lines_max: usize) -> LogPage {
        let after = if after > self.newest { 0 } else { after };
        // The numbers in the ring have no gap, and end with the newest.
        let gone = self.newest - self.lines.len() as u64;
        let missed = gone.saturating_sub(after);
        let skipped = usize::try_from(after.saturating_sub(gone)).unwrap_or(usize::MAX);
        LogPage { lines: self.lines.iter().skip(skipped).take(lines_max).cloned().collect(), missed }
    }

    /// The lines that the log thread has not taken yet.
    pub(crate) fn take(&mut self) -> Vec<LogLine> {
        let page = self.page(self.taken, usize::MAX);
        self.taken = self.newest;
        page.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(lines_max: usize, bytes_max: usize, texts: &[&str]) -> Ring {
        let mut ring = Ring::new(lines_max, bytes_max);
        for text in texts {
            ring.push(7, LogLevel::Info, LogSource::Stdout, text);
        }
        ring
    }

    /// Numbers and texts of the page, and what was missed.
    fn page(ring: &Ring, after: u64, lines_max: usize) -> (String, u64) {
        let LogPage { lines, missed } = ring.page(after, lines_max);
        (lines.iter().map(|line| format!("{}{} ", line.number, line.text)).collect(), missed)
    }

    #[test]
    fn pages_go_on_from_any_number() {
        let ring = ring(3, 100, &["a", "b", "c", "d", "e"]);
        for (after, lines_max, expected, missed) in [
            (0, 100, "3c 4d 5e ", 2),
            (1, 100, "3c 4d 5e ", 1),
            (2, 100, "3c 4d 5e ", 0),
            (3, 100, "4d 5e ", 0),
            (3, 1, "4d ", 0),
            (5, 100, "", 0),
            (0, 0, "", 2),
            (6, 2, "3c 4d ", 2),
            (u64::MAX, 1, "3c ", 2),
        ] {
            assert_eq!(page(&ring, after, lines_max), (expected.to_owned(), missed), "{lines_max} after {after}");
        }
        assert_eq!(Ring::new(3, 100).page(9, 100), LogPage::default());
    }

    #[test]
    fn both_limits_hold_and_the_newest_line_stays() {
        assert_eq!(page(&ring(100, 6, &["aa", "bb", "cc", "dd"]), 0, 9), ("2bb 3cc 4dd ".to_owned(), 1));
        assert_eq!(page(&ring(100, 6, &["aa", "bb", "cccccccc"]), 0, 9), ("3cccccccc ".to_owned(), 2));
        assert_eq!(page(&ring(0, 0, &["aa", "bb"]), 0, 9), ("2bb ".to_owned(), 1));
    }

    #[test]
    fn what_goes_before_it_is_taken_is_counted() {
        let mut ring = ring(2, 100, &["a", "b"]);
        assert_eq!(ring.push(7, LogLevel::Warn, LogSource::Host, "c"), (3, 1));
        assert_eq!(ring.take().iter().map(|line| line.number).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(ring.take(), []);
        assert_eq!(ring.push(7, LogLevel::Warn, LogSource::Host, "d"), (4, 0), "the log thread has that one");
    }
}
