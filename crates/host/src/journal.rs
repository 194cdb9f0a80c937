//! Log lines of workflows: what they print, what fails, how they end. Bounded and made harmless on the way in, written
//! by a thread of their own, so that a log that is slow, or whose reader has stopped, holds up no guest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::stats::Counter;

/// Between two rounds of the log thread: together with the lines that a workflow may have waiting, this is the rate at
/// which it can fill the log.
const ROUND: Duration = Duration::from_millis(100);

/// Where a line comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
    /// A host function failed.
    Failure,
    /// The workflow has ended well, or was stopped.
    Ended,
    /// The workflow has ended badly.
    Died,
}

#[derive(Debug)]
struct Line {
    source: Source,
    text: String,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Line>,
    dropped: u64,
}

/// The lines of one workflow that wait for the log thread.
#[derive(Debug)]
pub(crate) struct Journal {
    workflow: String,
    lines_max: usize,
    line_bytes_max: usize,
    waiting: Mutex<Waiting>,
    /// Whether the log thread knows that something waits.
    announced: AtomicBool,
    /// All that were ever dropped; written under `waiting`.
    dropped: Counter,
    logger: Arc<Logger>,
}

impl Journal {
    pub(crate) fn new(logger: Arc<Logger>, workflow: String, lines_max: usize, line_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            workflow,
            lines_max: lines_max.max(1),
            line_bytes_max,
            waiting: Mutex::default(),
            announced: AtomicBool::new(false),
            dropped: Counter::default(),
            logger,
        })
    }

    /// Lines that were dropped because there were too many.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Adds a line; any text will do. Drops the oldest when there are too many.
    pub(crate) fn push(self: &Arc<Self>, source: Source, text: &str) {
        let text = printable(text, self.line_bytes_max);
        let mut waiting = lock(&self.waiting);
        if waiting.lines.len() >= self.lines_max {
            waiting.lines.pop_front();
            waiting.dropped += 1;
            self.dropped.add(1);
        }
        waiting.lines.push_back(Line { source, text });
        drop(waiting);
        if !self.announced.swap(true, Ordering::AcqRel) {
            self.logger.announce(Arc::clone(self));
        }
    }

    /// Writes what waits. `announced` goes first: a line that comes in between is announced again.
    fn write(&self) {
        self.announced.store(false, Ordering::Release);
        let Waiting { lines, dropped } = std::mem::take(&mut *lock(&self.waiting));
        let workflow = self.workflow.as_str();
        if dropped > 0 {
            tracing::warn!(target: "workflow", workflow, "{dropped} lines dropped: more than can be logged");
        }
        for Line { source, text } in lines {
            match source {
                Source::Stdout => tracing::info!(target: "workflow", workflow, from = "stdout", "{text}"),
                Source::Stderr => tracing::warn!(target: "workflow", workflow, from = "stderr", "{text}"),
                Source::Failure => tracing::warn!(target: "workflow", workflow, from = "host", "{text}"),
                Source::Ended => tracing::info!(target: "workflow", workflow, from = "host", "{text}"),
                Source::Died => tracing::error!(target: "workflow", workflow, from = "host", "{text}"),
            }
        }
    }
}

/// Joins what a guest prints in pieces to lines.
#[derive(Debug)]
pub(crate) struct LineBuffer {
    source: Source,
    bytes: Vec<u8>,
}

impl LineBuffer {
    pub(crate) fn new(source: Source) -> Self {
        Self { source, bytes: Vec::new() }
    }

    /// Takes what was printed and hands complete lines on.
    pub(crate) fn print(&mut self, journal: &Arc<Journal>, printed: &[u8]) {
        for piece in printed.split_inclusive(|&byte| byte == b'\n') {
            let (text, complete) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            // One byte more than a line may have shows that it is to be cut.
            let room = (journal.line_bytes_max + 1).saturating_sub(self.bytes.len());
            self.bytes.extend_from_slice(&text[..text.len().min(room)]);
            if complete {
                self.end_line(journal);
            }
        }
    }

    /// Hands on what is left of a line without an end.
    pub(crate) fn finish(&mut self, journal: &Arc<Journal>) {
        if !self.bytes.is_empty() {
            self.end_line(journal);
        }
    }

    fn end_line(&mut self, journal: &Arc<Journal>) {
        let line = self.bytes.strip_suffix(b"\r").unwrap_or(&self.bytes);
        journal.push(self.source, &String::from_utf8_lossy(line));
        self.bytes.clear();
    }
}

/// Decides which failures of one host function are logged: each new reason, many of them at first, so that nothing is
/// hidden while someone tries things out; the same reason again, or a new one with each call, seldom, so that a guest that
/// fails for ever does not bury the log.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// Lines that may be logged now.
    tokens: u32,
    refilled: Option<Instant>,
    /// What was logged of late, and when, the oldest first.
    recent: Vec<(String, Instant)>,
    hidden: u64,
}

/// Reasons of one function that are logged however fast they come.
const BURST_LINES: u32 = 20;
/// Until one more may be logged.
const REFILL: Duration = Duration::from_secs(1);
/// Until the same reason is logged again.
const REPEAT: Duration = Duration::from_secs(60);

/// Reasons of one function that are known again: one that calls three places, none of which it may, has three.
const RECENT_MAX: usize = 8;

impl Default for Throttle {
    fn default() -> Self {
        Self { tokens: BURST_LINES, refilled: None, recent: Vec::new(), hidden: 0 }
    }
}

impl Throttle {
    /// Whether a failure now is logged, and if so, how many before it were not.
    pub(crate) fn pass(&mut self, reason: &str, now: Instant) -> Option<u64> {
        let since = now.saturating_duration_since(*self.refilled.get_or_insert(now));
        let refill = since.as_secs() / REFILL.as_secs();
        if refill > 0 {
            self.tokens = self.tokens.saturating_add(u32::try_from(refill).unwrap_or(u32::MAX)).min(BURST_LINES);
            self.refilled = Some(now);
        }
        self.recent.retain(|(_, logged)| now.saturating_duration_since(*logged) < REPEAT);
        if self.tokens == 0 || self.recent.iter().any(|(recent, _)| recent == reason) {
            self.hidden += 1;
            return None;
        }
        self.tokens -= 1;
        if self.recent.len() == RECENT_MAX {
            self.recent.remove(0);
        }
        self.recent.push((reason.to_owned(), now));
        Some(std::mem::take(&mut self.hidden))
    }
}

/// The text with everything escaped that could move a terminal's cursor, change its colours or turn the direction of
/// reading, cut after `bytes_max` bytes.
pub(crate) fn printable(text: &str, bytes_max: usize) -> String {
    let mut safe = String::with_capacity(text.len().min(bytes_max));
    for character in text.chars() {
        let before = safe.len();
        match character {
            '\t' => safe.push(' '),
            character if steers(character) => safe.extend(character.escape_unicode()),
            character => safe.push(character),
        }
        if safe.len() > bytes_max {
            safe.truncate(before);
            safe.push('…');
            break;
        }
    }
    safe
}

/// Control characters, line and paragraph separators, and the marks that override the direction of text.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[derive(Debug, Default)]
struct Announced {
    journals: Vec<Arc<Journal>>,
    closing: bool,
}

/// The log thread's side: which journals have something.
#[derive(Debug, Default)]
pub(crate) struct Logger {
    announced: Mutex<Announced>,
    changed: Condvar,
}

impl Logger {
    fn announce(&self, journal: Arc<Journal>) {
        lock(&self.announced).journals.push(journal);
        self.changed.notify_one();
    }

    /// Makes [`run`](Self::run) write what waits and return. Nothing is written after that.
    pub(crate) fn close(&self) {
        lock(&self.announced).closing = true;
        self.changed.notify_one();
    }

    /// The log thread.
    pub(crate) fn run(&self) {
        loop {
            let announced = lock(&self.announced);
            let mut announced = self
                .changed
                .wait_while(announced, |now| now.journals.is_empty() && !now.closing)
                .unwrap_or_else(PoisonError::into_inner);
            let journals = std::mem::take(&mut announced.journals);
            let closing = announced.closing;
            drop(announced);
            for journal in journals {
                journal.write();
            }
            if closing {
                return;
            }
            let announced = lock(&self.announced);
            drop(self.changed.wait_timeout_while(announced, ROUND, |now| !now.closing));
        }
    }
}

/// What is behind these locks is whole at every moment, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(lines_max: usize, line_bytes_max: usize) -> Arc<Journal> {
        Journal::new(Arc::default(), "w".to_owned(), lines_max, line_bytes_max)
    }

    fn lines(journal: &Journal) -> Vec<String> {
        lock(&journal.waiting).lines.iter().map(|line| line.text.clone()).collect()
    }

    #[test]
    fn pieces_become_lines() {
        let journal = journal(10, 8);
        let mut out = LineBuffer::new(Source::Stdout);
        for piece in ["one\ntw", "o\r\n", "\n", "12345678\n123456789", "more\n", "rest"] {
            out.print(&journal, piece.as_bytes());
        }
        out.finish(&journal);
        out.finish(&journal);
        assert_eq!(lines(&journal), ["one", "two", "", "12345678", "12345678…", "rest"]);
    }

    #[test]
    fn the_oldest_line_goes() {
        let journal = journal(2, 100);
        for text in ["a", "b", "c", "d", "e"] {
            journal.push(Source::Stdout, text);
        }
        assert_eq!(lines(&journal), ["d", "e"]);
        assert_eq!(journal.dropped(), 3);
        assert_eq!(lock(&journal.logger.announced).journals.len(), 1, "announced once");
        journal.write();
        journal.push(Source::Stdout, "f");
        assert_eq!(lock(&journal.logger.announced).journals.len(), 2, "announced again after it was written");
    }

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(printable("\u{1b}[2J\ttab\0\u{7f}\u{9b}", 100), "\\u{1b}[2J tab\\u{0}\\u{7f}\\u{9b}");
        assert_eq!(printable("a\u{202e}b\u{2028}c", 100), "a\\u{202e}b\\u{2028}c");
        assert_eq!(printable("grüße", 100), "grüße");
        assert_eq!(printable("grüße", 3), "gr…");
        assert_eq!(printable("ab\u{1b}", 7), "ab…", "an escape is not cut in the middle");
        assert_eq!(String::from_utf8_lossy(b"\xff\xfea"), "\u{fffd}\u{fffd}a");
    }

    #[test]
    fn new_reasons_are_logged_in_a_burst_then_one_a_second() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let many = |throttle: &mut Throttle, now| {
            (0..1_000).filter(|n: &u32| throttle.pass(&n.to_string(), now).is_some()).count()
        };
        assert_eq!(many(&mut throttle, start), BURST_LINES as usize);
        assert_eq!(many(&mut throttle, start + Duration::from_millis(999)), 0);
        assert_eq!(many(&mut throttle, start + Duration::from_millis(1_001)), 1);
        let later = start + Duration::from_secs(1_000_000);
        assert_eq!(many(&mut throttle, later), BURST_LINES as usize);
        let hidden = 1_000 - u64::from(BURST_LINES);
        assert_eq!(throttle.pass("x", later + REFILL), Some(hidden), "those before were told of in the burst");
    }

    #[test]
    fn the_same_reason_is_logged_once_a_minute() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(throttle.pass("a", start), Some(0));
        for second in 0..60 {
            assert_eq!(throttle.pass("a", after(second)), None);
        }
        assert_eq!(throttle.pass("a", after(60)), Some(60));
        assert_eq!(throttle.pass("b", after(60)), Some(0), "another one at once");
        // In turns with others, too, as far as they are few.
        for second in 61..120 {
            assert_eq!(throttle.pass("a", after(second)), None);
            assert_eq!(throttle.pass("b", after(second)), None);
        }
        assert_eq!(throttle.pass("b", after(120)), Some(2 * 59));
        for n in 0..RECENT_MAX {
            assert_eq!(throttle.pass(&n.to_string(), after(121)), Some(0));
        }
        assert_eq!(throttle.pass("b", after(121)), Some(0), "forgotten");
    }

    #[test]
    fn closing_writes_and_ends() {
        let logger = Arc::<Logger>::default();
        let journal = Journal::new(Arc::clone(&logger), "w".to_owned(), 4, 100);
        journal.push(Source::Failure, "x");
        logger.close();
        logger.run();
        assert_eq!(lines(&journal), Vec::<String>::new());
    }
}
