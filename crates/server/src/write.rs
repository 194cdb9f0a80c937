//! `slung write`: a producer that reads events from a file or stdin, and prints what workflows send back.

use std::fs::File;
use std::io::{BufReader, IsTerminal, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use slung_model::SeriesKey;
use slung_net::client::{self, Received, Receiver, Sender};
use tokio::sync::mpsc;

use crate::cli::WriteArgs;
use crate::input::{self, InputEvent};

/// Events that wait between the reader of the file and the connection: some milliseconds of full speed.
const READ_AHEAD_EVENTS_MAX: usize = 4096;

/// Sends everything, waits for the answers, and says how many events went out, also where something goes wrong.
#[expect(clippy::print_stderr, reason = "the command's result")]
pub(crate) async fn write(args: WriteArgs) -> anyhow::Result<()> {
    let key = SeriesKey::new(&args.series, &args.tags).context("--series and --tag")?;
    let events = read(&args.file)?;
    let connection = client::Producer::connect(&args.url).await.context("is `slung serve` running there?")?;
    let (sender, receiver) = connection.split();
    let style = ProgressStyle::with_template("{spinner} {human_pos} events, {per_sec}, {elapsed}")?;
    let progress = ProgressBar::new_spinner().with_style(style);
    let printer = tokio::spawn(print(receiver, progress.clone()));

    let started = Instant::now();
    let mut producer = Producer { sender, key, pace: args.speed.map(Pace::new), progress, sent: 0 };
    let result = producer.send_all(events).await;
    let Producer { mut sender, progress, sent, .. } = producer;
    progress.finish_and_clear();
    let events = if sent == 1 { "event" } else { "events" };
    eprintln!("{sent} {events} sent in {:.2} s", started.elapsed().as_secs_f64());
    result?;
    // Ends early where the server closes: nothing more can come then.
    let mut printer = printer;
    if tokio::time::timeout(Duration::from_secs_f64(args.wait), &mut printer).await.is_ok() {
        bail!("{} closed the connection: what was sent last may not be stored", args.url);
    }
    sender.close().await.context("the connection was lost at its end: what was sent last may not be stored")?;
    // The rest of what was on the way, up to the server's own close frame.
    printer.await?
}

struct Producer {
    sender: Sender,
    key: SeriesKey,
    pace: Option<Pace>,
    progress: ProgressBar,
    sent: u64,
}

impl Producer {
    async fn send_all(&mut self, mut events: mpsc::Receiver<anyhow::Result<InputEvent>>) -> anyhow::Result<()> {
        let mut batch = Vec::new();
        while events.recv_many(&mut batch, READ_AHEAD_EVENTS_MAX).await > 0 {
            for event in batch.drain(..) {
                let sent = match event {
                    Ok(event) => self.send(&event).await,
                    Err(error) => {
                        self.sender.flush().await?;
                        return Err(error);
                    }
                };
                sent.context("the connection was lost: what was sent shortly before may not be stored")?;
            }
            self.sender.flush().await.context("the connection was lost: what was sent last may not be stored")?;
            self.progress.set_position(self.sent);
        }
        Ok(())
    }

    async fn send(&mut self, event: &InputEvent) -> anyhow::Result<()> {
        if let Some(wait) = self.pace.as_mut().and_then(|pace| pace.wait(event.timestamp)) {
            self.sender.flush().await?;
            self.progress.set_position(self.sent);
            tokio::time::sleep(wait).await;
        }
        let key = event.key(&self.key)?;
        self.sender.send(event.timestamp, event.value, &key).await?;
        self.sent += 1;
        Ok(())
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

/// Reads events on a thread of its own: a file blocks, and stdin may for hours.
fn read(path: &Path) -> anyhow::Result<mpsc::Receiver<anyhow::Result<InputEvent>>> {
    let (source, name): (Box<dyn Read + Send>, _) = if path == Path::new("-") {
        (Box::new(std::io::stdin()), "stdin".to_owned())
    } else {
        let name = path.display().to_string();
        (Box::new(File::open(path).with_context(|| format!("cannot read {name}"))?), name)
    };
    let (sender, receiver) = mpsc::channel(READ_AHEAD_EVENTS_MAX);
    std::thread::spawn(move || {
        let events = match input::events(BufReader::new(source)) {
            Ok(events) => events,
            Err(error) => Box::new(std::iter::once(Err(error))),
        };
        for event in events {
            let event = event.with_context(|| name.clone());
            let is_last = event.is_err();
            // Nobody takes it any more where the connection was lost.
            if sender.blocking_send(event).is_err() || is_last {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Prints messages, one a line, until the connection ends.
async fn print(mut receiver: Receiver, progress: ProgressBar) -> anyhow::Result<()> {
    let both_on_terminal = std::io::stdout().is_terminal() && !progress.is_hidden();
    while let Some(message) = receiver.receive().await? {
        let mut line = match message {
            Received::Text(text) => text.into_bytes(),
            Received::Binary(bytes) => bytes.to_vec(),
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
}
