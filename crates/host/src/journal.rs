//! Log lines of workflows: what they print, what fails, how they end. Bounded and made harmless on the way in, written
//! by a thread of their own, so that a log that is slow, or whose reader has stopped, holds up no guest.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::bucket::Bucket;
use crate::log::{LogLevel, LogLine, LogPage, LogSource, Ring};
use crate::options::HostOptions;

/// Between two rounds of the log thread.
const ROUND: Duration = Duration::from_millis(100);
/// How often at most it is told how many lines were printed beyond the limit.
const TELL: Duration = Duration::from_secs(1);
/// What a printed line counts beside its text, bytes: about what the log puts before it. So a flood of empty lines has an end,
/// too.
const LINE_BYTES_EXTRA: usize = 64;

/// Printed lines that were dropped since it was last told how many.
#[derive(Debug)]
struct Excess {
    lines: u64,
    since: Instant,
}

#[derive(Debug)]
struct Inside {
    ring: Ring,
    /// Lines that went before the log thread took them, and of which it has not told.
    unlogged: u64,
    excess: Option<Excess>,
    /// All lines that were ever dropped, for whichever of the two reasons.
    dropped: u64,
}

/// The lines of one workflow, of one version after the other.
#[derive(Debug)]
pub(crate) struct Journal {
    workflow: String,
    line_bytes_max: usize,
    inside: Mutex<Inside>,
    /// The number of the newest line, to look at without the lock.
    newest: AtomicU64,
    /// Whether nothing comes any more.
    ended: AtomicBool,
    /// Whether the log thread knows that something waits.
    announced: AtomicBool,
    logger: Arc<Logger>,
}

impl Journal {
    pub(crate) fn new(logger: Arc<Logger>, workflow: String, options: &HostOptions) -> Arc<Self> {
        let ring = Ring::new(options.log_lines_max, options.log_bytes_max);
        Arc::new(Self {
            workflow,
            line_bytes_max: options.log_line_bytes_max,
            inside: Mutex::new(Inside { ring, unlogged: 0, excess: None, dropped: 0 }),
            newest: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            announced: AtomicBool::new(false),
            logger,
        })
    }

    /// Lines that were dropped because there were too many.
    pub(crate) fn dropped(&self) -> u64 {
        lock(&self.inside).dropped
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(crate) fn newest(&self) -> u64 {
        self.newest.load(Ordering::Acquire)
    }

    pub(crate) fn page(&self, after: u64, lines_max: usize) -> LogPage {
        lock(&self.inside).ring.page(after, lines_max)
    }

    /// Adds a line of the host's; any text will do.
    pub(crate) fn say(self: &Arc<Self>, level: LogLevel, text: &str) {
        let text = printable(text, self.line_bytes_max);
        self.push(&mut lock(&self.inside), level, LogSource::Host, &text);
        self.announce();
    }

    /// Adds a line that the workflow has printed; printable.
    fn print(self: &Arc<Self>, source: LogSource, text: &str) {
        let level = if source == LogSource::Stdout { LogLevel::Info } else { LogLevel::Warn };
        self.push(&mut lock(&self.inside), level, source, text);
        self.announce();
    }

    /// Counts printed lines that are not kept. The log thread tells of them.
    fn drop_lines(self: &Arc<Self>, lines: u64) {
        let mut inside = lock(&self.inside);
        inside.dropped += lines;
        inside.excess.get_or_insert_with(|| Excess { lines: 0, since: Instant::now() }).lines += lines;
        drop(inside);
        self.announce();
    }

    /// Tells at once what was dropped, if anything was: nothing more is printed.
    fn tell_of_excess(self: &Arc<Self>) {
        self.add_excess(&mut lock(&self.inside));
        self.announce();
    }

    fn add_excess(&self, inside: &mut Inside) {
        if let Some(Excess { lines, .. }) = inside.excess.take() {
            let text =
                format!("{lines} lines dropped: more than it may print in a second (`log_bytes_per_second_max`)");
            self.push(inside, LogLevel::Warn, LogSource::Host, &text);
        }
    }

    fn push(&self, inside: &mut Inside, level: LogLevel, source: LogSource, text: &str) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        let (newest, unlogged) = inside.ring.push(time_micros, level, source, text);
        inside.unlogged += unlogged;
        inside.dropped += unlogged;
        self.newest.store(newest, Ordering::Release);
    }

    fn announce(self: &Arc<Self>) {
        if !self.announced.swap(true, Ordering::AcqRel) {
            self.logger.announce(Arc::clone(self));
        }
    }

    /// Writes what waits. `announced` goes first: a line that comes in between is announced again.
    fn write(self: &Arc<Self>) {
        self.announced.store(false, Ordering::Release);
        let mut inside = lock(&self.inside);
        if inside.excess.as_ref().is_some_and(|excess| excess.since.elapsed() >= TELL) {
            self.add_excess(&mut inside);
        }
        let untold = inside.excess.is_some();
        let (dropped, lines) = (std::mem::take(&mut inside.unlogged), inside.ring.take());
        drop(inside);
        let workflow = self.workflow.as_str();
        if dropped > 0 {
            tracing::warn!(target: "workflow", workflow, from = "host", "{dropped} lines dropped: more than can be logged");
        }
        for LogLine { level, source, text, .. } in lines {
            let from = source.as_str();
            match level {
                LogLevel::Info => tracing::info!(target: "workflow", workflow, from, "{text}"),
                LogLevel::Warn => tracing::warn!(target: "workflow", workflow, from, "{text}"),
                LogLevel::Error => tracing::error!(target: "workflow", workflow, from, "{text}"),
            }
        }
        if untold {
            self.announce(); // to be looked at in the next round
        }
    }
}

/// What one instance of a workflow prints: joined to lines, and held to so many bytes in a second.
#[derive(Debug)]
pub(crate) struct Printer {
    journal: Arc<Journal>,
    stdout: LineBuffer,
    stderr: LineBuffer,
    budget: Bucket,
}

impl Printer {
    pub(crate) fn new(journal: Arc<Journal>, bytes_per_second_max: NonZeroU32) -> Self {
        let [stdout, stderr] = [LogSource::Stdout, LogSource::Stderr].map(LineBuffer::new);
        Self { journal, stdout, stderr, budget: Bucket::new(bytes_per_second_max, Instant::now()) }
    }

    /// Takes what was printed to 1 (standard output) or 2 (standard error).
    pub(crate) fn print(&mut self, fd: u32, printed: &[u8]) {
        let stream = if fd == 1 { &mut self.stdout } else { &mut self.stderr };
        let dropped = stream.print(&self.journal, &mut self.budget, printed);
        if dropped > 0 {
            self.journal.drop_lines(dropped);
        }
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        for stream in [&mut self.stdout, &mut self.stderr] {
            let dropped = stream.finish(&self.journal, &mut self.budget);
            if dropped > 0 {
                self.journal.drop_lines(dropped);
            }
        }
        self.journal.tell_of_excess();
    }
}

/// Joins what a guest prints in pieces to lines.
#[derive(Debug)]
struct LineBuffer {
    source: LogSource,
    bytes: Vec<u8>,
}

impl LineBuffer {
    fn new(source: LogSource) -> Self {
        Self { source, bytes: Vec::new() }
    }

    /// Takes what was printed and hands complete lines on. Answers how many were dropped.
    fn print(&mut self, journal: &Arc<Journal>, budget: &mut Bucket, printed: &[u8]) -> u64 {
        let mut dropped = 0;
        for piece in printed.split_inclusive(|&byte| byte == b'\n') {
            let (text, complete) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            // One byte more than a line may have shows that it is to be cut.
            let room = (journal.line_bytes_max + 1).saturating_sub(self.bytes.len());
            self.bytes.extend_from_slice(&text[..text.len().min(room)]);
            if complete {
                dropped += u64::from(!self.end_line(journal, budget));
            }
        }
        dropped
    }

    /// Hands on what is left of a line without an end. Answers how many were dropped: 0 or 1.
    fn finish(&mut self, journal: &Arc<Journal>, budget: &mut Bucket) -> u64 {
        if self.bytes.is_empty() { 0 } else { u64::from(!self.end_line(journal, budget)) }
    }

    /// Whether the line was within the budget. It is if anything is left, and may take more than that: so any line can pass,
    /// however small the budget, and one that can't costs no more than this.
    fn end_line(&mut self, journal: &Arc<Journal>, budget: &mut Bucket) -> bool {
        let passes = budget.any(Instant::now());
        if passes {
            let line = self.bytes.strip_suffix(b"\r").unwrap_or(&self.bytes);
            let text = printable(&String::from_utf8_lossy(line), journal.line_bytes_max);
            budget.spend(u32::try_from(text.len() + LINE_BYTES_EXTRA).unwrap_or(u32::MAX));
            journal.print(self.source, &text);
        }
        self.bytes.clear();
        passes
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
        let mut announced = lock(&self.announced);
        if announced.closing {
            return; // nobody would ever take it out again
        }
        announced.journals.push(journal);
        drop(announced);
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
    use std::future::Future;
    use std::task::Poll;

    use super::*;

    fn journal(log_lines_max: usize, log_line_bytes_max: usize) -> Arc<Journal> {
        let options = HostOptions { log_lines_max, log_line_bytes_max, ..HostOptions::default() };
        Journal::new(Arc::default(), "w".to_owned(), &options)
    }

    fn lines(journal: &Journal) -> Vec<String> {
        journal.page(0, usize::MAX).lines.iter().map(|line| line.text.to_string()).collect()
    }

    fn printer(journal: &Arc<Journal>, bytes_per_second_max: u32) -> Printer {
        Printer::new(Arc::clone(journal), NonZeroU32::new(bytes_per_second_max).unwrap())
    }

    #[test]
    fn pieces_become_lines() {
        let journal = journal(10, 8);
        let mut out = printer(&journal, 100_000);
        for piece in ["one\ntw", "o\r\n", "\n", "12345678\n123456789", "more\n", "rest"] {
            out.print(1, piece.as_bytes());
        }
        out.print(2, b"oh");
        drop(out);
        assert_eq!(lines(&journal), ["one", "two", "", "12345678", "12345678…", "rest", "oh"]);
        let page = journal.page(5, 10);
        let kinds = [(6, LogLevel::Info, LogSource::Stdout), (7, LogLevel::Warn, LogSource::Stderr)];
        assert!(page.lines.iter().map(|line| (line.number, line.level, line.source)).eq(kinds));
        assert!(
            page.lines[0].time_micros > 1_700_000_000_000_000 && page.lines[0].time_micros <= page.lines[1].time_micros
        );
    }

    #[test]
    fn the_oldest_line_goes() {
        let journal = journal(2, 100);
        for text in ["a", "b", "c", "d", "e"] {
            journal.say(LogLevel::Info, text);
        }
        assert_eq!((lines(&journal), journal.newest()), (vec!["d".to_owned(), "e".to_owned()], 5));
        assert_eq!(journal.dropped(), 3);
        assert_eq!(lock(&journal.logger.announced).journals.len(), 1, "announced once");
        journal.write();
        journal.say(LogLevel::Info, "f");
        assert_eq!(lock(&journal.logger.announced).journals.len(), 2, "announced again after it was written");
        assert_eq!(journal.dropped(), 3, "the log has it, the ring need not");
    }

    /// The first line takes more than there is, and nothing passes until time has made up for it: more than a minute.
    #[test]
    fn what_is_printed_beyond_the_budget_is_dropped_counted_and_told() {
        let journal = journal(10, 100);
        let mut out = printer(&journal, 1);
        out.print(1, b"one\n\ntwo\n");
        out.print(2, b"three\nfour");
        assert_eq!((lines(&journal), journal.dropped()), (vec!["one".to_owned()], 3));
        let count_from = |since| lock(&journal.inside).excess.as_mut().unwrap().since = since;
        count_from(Instant::now() + Duration::from_secs(3_600));
        journal.say(LogLevel::Warn, "the host's own lines pass");
        journal.write();
        assert_eq!(lines(&journal).len(), 2, "it is told once in a second");
        assert_eq!(lock(&journal.logger.announced).journals.len(), 2, "and until then the log thread looks again");
        count_from(Instant::now().checked_sub(TELL).unwrap());
        journal.write();
        let told = "3 lines dropped: more than it may print in a second (`log_bytes_per_second_max`)";
        assert_eq!(lines(&journal)[2..], [told]);
        drop(out);
        assert_eq!(lines(&journal)[3..], [told.replace("3 ", "1 ")], "`four` had no end");
        assert_eq!(journal.dropped(), 4);
    }

    /// Who follows sees each line once and in order, or is told how many are gone.
    #[test]
    fn following() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let log = crate::log::Log { journal: journal(3, 100) };
        runtime.block_on(async {
            let waits = async |after| {
                let mut changed = std::pin::pin!(log.changed(after));
                std::future::poll_fn(|context| Poll::Ready(changed.as_mut().poll(context).is_pending())).await
            };
            assert!(waits(0).await && waits(70).await, "there is nothing at all");
            let writer = log.clone();
            let write = async move {
                tokio::task::yield_now().await;
                for number in 1..=5 {
                    writer.journal.say(LogLevel::Info, &format!("line {number}"));
                }
            };
            tokio::join!(log.changed(0), write);
            let page = log.lines(0, 2);
            assert_eq!((page.missed, page.lines.iter().map(|line| line.number).collect::<Vec<_>>()), (2, vec![3, 4]));
            assert!(!waits(4).await);
            assert_eq!(&*log.lines(4, 2).lines[0].text, "line 5");
            assert!(waits(5).await);
            assert!(!waits(70).await, "a number of the server's run before: from the beginning");
            assert_eq!(log.lines(70, 1).lines[0].number, 3);
        });
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
        let journal = journal(4, 100);
        journal.say(LogLevel::Warn, "x");
        journal.logger.close();
        journal.logger.run();
        assert_eq!(lock(&journal.inside).ring.take(), [], "it was written");
        journal.say(LogLevel::Warn, "y");
        assert_eq!(lock(&journal.logger.announced).journals.len(), 0, "who is not written is not kept");
        assert_eq!(lines(&journal), ["x", "y"]);
    }
}
