//! `slung write`: a producer that reads events from a file or stdin, has the server acknowledge them, and prints what
//! workflows send back.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufReader, IsTerminal, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use slung_model::SeriesKey;
use slung_net::client::{ClientError, Producer, ProducerOptions, Progress, Received, Refused};
use tokio::signal;
use tokio::sync::mpsc;

use crate::cli::WriteArgs;
use crate::input::{self, InputEvent};

/// Events that wait between the reader of the file and the connection: some milliseconds of full speed.
const READ_AHEAD_EVENTS_MAX: usize = 4096;
/// How often the progress is shown.
const SHOW_INTERVAL: Duration = Duration::from_millis(100);
/// Refused events that are told one by one. More are counted.
const REFUSED_SHOWN_MAX: u64 = 10;
/// Places of the file where an event is not on the line behind the one before it that are kept, to name lines: 16 MiB.
const RUNS_MAX: usize = 1 << 20;

/// Sends everything, waits until it is durable and for the answers, and says how many events are acknowledged, also where
/// something goes wrong.
pub(crate) async fn write(args: WriteArgs) -> anyhow::Result<()> {
    let key = SeriesKey::new(&args.series, &args.tags).context("--series and --tag")?;
    let (events, name) = read(&args.file)?;
    let give_up_after = Some(Duration::from_secs_f64(args.give_up));
    let options = ProducerOptions { give_up_after, ..ProducerOptions::default() };
    let producer = Producer::connect(&args.url, options).await.context("is `slung serve` running there?")?;
    let style = ProgressStyle::with_template("{spinner} {human_pos} events acknowledged, {per_sec}, {elapsed}")?;
    let progress = ProgressBar::new_spinner().with_style(style);
    let printer = tokio::spawn(print(producer.clone(), progress.clone()));

    let started = Instant::now();
    let writer = Writer { producer, key, name, progress, told: RefCell::default(), lines: RefCell::default() };
    let written = writer.write(events, args.speed).await;
    writer.progress.finish_and_clear();
    writer.summary(started.elapsed());
    if written.is_ok() {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs_f64(args.wait)) => {}
            _ = signal::ctrl_c() => {}
        }
    }
    // All that can be durable is: what is left is to part as friends, and to print what was on its way.
    if writer.producer.close().await.is_ok() {
        printer.await??;
    }
    written
}

struct Writer {
    producer: Producer,
    key: SeriesKey,
    /// Where the events come from, for people.
    name: String,
    progress: ProgressBar,
    /// How many refused events were told one by one.
    told: RefCell<u64>,
    lines: RefCell<Lines>,
}

impl Writer {
    /// Sends all events, and waits until every one that was sent is acknowledged or refused.
    async fn write(
        &self,
        events: mpsc::Receiver<anyhow::Result<InputEvent>>,
        speed: Option<f64>,
    ) -> anyhow::Result<()> {
        let sent = tokio::select! {
            sent = self.send_all(events, speed) => sent,
            _ = signal::ctrl_c() => Err(anyhow!("interrupted: the rest was not sent")),
            () = self.show() => unreachable!("it never completes"),
        };
        let flushed = tokio::select! {
            flushed = self.producer.flush() => flushed,
            _ = signal::ctrl_c() => bail!("interrupted: what was sent last may not be stored"),
            () = self.show() => unreachable!("it never completes"),
        };
        match flushed {
            Err(ClientError::Refused(refused)) => self.tell(&refused),
            flushed => flushed.context("what was sent last may not be stored")?,
        }
        sent?;
        match self.producer.progress().refused {
            0 => Ok(()),
            refused => bail!("the server has refused {}", counted(refused)),
        }
    }

    async fn send_all(
        &self,
        mut events: mpsc::Receiver<anyhow::Result<InputEvent>>,
        speed: Option<f64>,
    ) -> anyhow::Result<()> {
        let mut pace = speed.map(Pace::new);
        while let Some(event) = events.recv().await {
            let event = event?;
            if let Some(wait) = pace.as_mut().and_then(|pace| pace.wait(event.timestamp)) {
                tokio::time::sleep(wait).await;
            }
            let line = || format!("{}: line {}", self.name, event.line);
            let key = event.key(&self.key).with_context(line)?;
            let number = self.producer.send(event.timestamp, event.value, &key).await.with_context(line)?;
            self.lines.borrow_mut().note(number, event.line);
        }
        Ok(())
    }

    /// Shows how far it is, for ever.
    async fn show(&self) {
        loop {
            tokio::time::sleep(SHOW_INTERVAL).await;
            self.progress.set_position(self.producer.progress().acknowledged);
            if let Some(refused) = self.producer.take_refused() {
                self.tell(&refused);
            }
        }
    }

    #[expect(clippy::print_stderr, reason = "part of the command's result")]
    fn tell(&self, refused: &Refused) {
        let mut told = self.told.borrow_mut();
        for event in &refused.events {
            if *told == REFUSED_SHOWN_MAX {
                return;
            }
            *told += 1;
            let place = self
                .lines
                .borrow()
                .line(event.number)
                .map_or_else(|| format!("event {}", event.number), |line| format!("line {line}"));
            self.progress.suspend(|| eprintln!("slung: {}: {place} is refused: {}", self.name, event.reason));
        }
    }

    #[expect(clippy::print_stderr, reason = "the command's result")]
    fn summary(&self, took: Duration) {
        let Progress { taken, acknowledged, refused } = self.producer.progress();
        let mut text = format!("{} acknowledged in {:.2} s", counted(acknowledged), took.as_secs_f64());
        if refused > 0 {
            text += &format!(", {refused} refused");
        }
        match taken - acknowledged - refused {
            0 => {}
            open => text += &format!(", {open} sent that may or may not be stored"),
        }
        eprintln!("{text}");
    }
}

fn counted(count: u64) -> String {
    format!("{count} {}", if count == 1 { "event" } else { "events" })
}

/// On which line each event stands. Nearly always the next event is on the next line.
#[derive(Debug, Default)]
struct Lines {
    /// The first event of a run without a gap, and its line.
    runs: Vec<(u64, u64)>,
    is_full: bool,
}

impl Lines {
    fn note(&mut self, event: u64, line: u64) {
        let expected = self.runs.last().map(|(first, at)| at + (event - first));
        if expected == Some(line) || self.is_full {
            return;
        }
        self.is_full = self.runs.len() == RUNS_MAX;
        if !self.is_full {
            self.runs.push((event, line));
        }
    }

    /// `None` where it is not known.
    fn line(&self, event: u64) -> Option<u64> {
        let after = self.runs.partition_point(|(first, _)| *first <= event);
        let (first, line) = self.runs[..after].last()?;
        (after < self.runs.len() || !self.is_full).then(|| line + (event - first))
    }
}

/// How fast events' own times go by.
struct Pace {
    speed: f64,
    /// The first event's time, and when it was sent.
    first: Option<(i64, Instant)>,
}

impl Pace {
    fn new(speed: f64) -> Self {
        Self { speed, first: None }
    }

    /// How long to wait before an event of that time; not at all for one that is out of order.
    fn wait(&mut self, timestamp: i64) -> Option<Duration> {
        let (first, started) = *self.first.get_or_insert((timestamp, Instant::now()));
        let micros = timestamp.saturating_sub(first) as f64 / self.speed;
        let due = Duration::try_from_secs_f64(micros / 1e6).ok()?;
        due.checked_sub(started.elapsed())
    }
}

/// Reads events on a thread of its own: a file blocks, and stdin may for hours. Answers what to call the file, too.
fn read(path: &Path) -> anyhow::Result<(mpsc::Receiver<anyhow::Result<InputEvent>>, String)> {
    let (source, name): (Box<dyn Read + Send>, _) = if path == Path::new("-") {
        (Box::new(std::io::stdin()), "stdin".to_owned())
    } else {
        let name = path.display().to_string();
        (Box::new(File::open(path).with_context(|| format!("cannot read {name}"))?), name)
    };
    let (sender, receiver) = mpsc::channel(READ_AHEAD_EVENTS_MAX);
    let called = name.clone();
    std::thread::spawn(move || {
        let events = match input::events(BufReader::new(source)) {
            Ok(events) => events,
            Err(error) => Box::new(std::iter::once(Err(error))),
        };
        for event in events {
            let event = event.with_context(|| name.clone());
            let is_last = event.is_err();
            // Nobody takes it any more where the producer has given up.
            if sender.blocking_send(event).is_err() || is_last {
                return;
            }
        }
    });
    Ok((receiver, called))
}

/// Prints messages, one a line, until the producer is closed.
#[expect(clippy::print_stderr, reason = "not to be taken for a message")]
async fn print(producer: Producer, progress: ProgressBar) -> anyhow::Result<()> {
    let both_on_terminal = std::io::stdout().is_terminal() && !progress.is_hidden();
    while let Some(message) = producer.receive().await? {
        let mut line = match message {
            Received::Text(text) => text.into_bytes(),
            Received::Binary(bytes) => bytes.to_vec(),
            Received::Missed(count) => {
                progress
                    .suspend(|| eprintln!("slung: {count} messages of workflows are missing here: they came too fast"));
                continue;
            }
        };
        line.push(b'\n');
        let show = || std::io::stdout().write_all(&line);
        if both_on_terminal { progress.suspend(show) } else { show() }.context("stdout")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_follows_event_times_and_waits_for_no_late_one() {
        let mut pace = Pace::new(1000.0);
        assert!(pace.wait(5_000_000).is_none_or(|wait| wait.is_zero()));
        let wait = pace.wait(5_000_000 + 3_600_000_000).unwrap();
        assert!(wait <= Duration::from_millis(3_600) && wait > Duration::from_millis(1_800), "{wait:?}");
        assert_eq!(pace.wait(4_000_000), None);
        assert_eq!(pace.wait(i64::MIN), None);
    }

    #[test]
    fn lines_are_known_also_behind_gaps() {
        let mut lines = Lines::default();
        let stands_on = [2, 3, 4, 6, 7, 20, 21];
        for (event, line) in (1..).zip(stands_on) {
            lines.note(event, line);
        }
        assert_eq!(lines.runs, [(1, 2), (4, 6), (6, 20)]);
        assert_eq!((1..=7).map(|event| lines.line(event).unwrap()).collect::<Vec<_>>(), stands_on);
        lines.is_full = true;
        assert_eq!([5, 6].map(|event| lines.line(event)), [Some(7), None]);
    }
}
