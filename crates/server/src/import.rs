//! `slung import`: points from a file into a data directory that no server uses.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use slung_model::{AHEAD_MICROS_MAX, Clock, Point, Seq, SeriesId, SeriesKey, SystemClock, validate_point};
use slung_store::{Options, OsVfs, Store};

use crate::cli::ImportArgs;
use crate::input::{self, InputEvent};
use crate::show::{count, points_spinner};

/// Written at once: larger batches gain nothing.
const BATCH_POINTS: usize = 8192;
/// As long as a commit takes.
const BUSY_RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// Stores all that the file has, or says in which line it stopped and what is stored.
#[expect(clippy::print_stdout, reason = "the command's result")]
pub(crate) fn import(args: &ImportArgs) -> anyhow::Result<()> {
    let key = SeriesKey::new(&args.series, &args.tags).context("--series and --tag")?;
    let (source, name): (Box<dyn Read>, _) = if args.file == Path::new("-") {
        (Box::new(std::io::stdin()), "stdin".to_owned())
    } else {
        let name = args.file.display().to_string();
        (Box::new(File::open(&args.file).with_context(|| format!("cannot read {name}"))?), name)
    };
    // Before the directory is made: a file without the right header changes nothing.
    let events = input::events(BufReader::new(source)).with_context(|| name.clone())?;
    let (store, found) = Store::open(Arc::new(OsVfs), Arc::new(SystemClock), &args.dir, Options::default())?;
    for damage in &found.damage {
        tracing::warn!("{damage}");
    }
    let mut importer = Importer { store: &store, key, last: None, batch: Vec::new(), written: Seq(0), stored: 0 };
    let spinner = points_spinner("importing");
    let taken = importer.take_all(events, &mut |points| spinner.set_position(points));
    // Also what came before the line that is wrong.
    let written = importer.write().and_then(|()| Ok(store.wait_durable(importer.written)?));
    spinner.finish_and_clear();
    let stored = count(importer.stored, "point", "points");
    drop(importer);
    let closed = written.and_then(|()| Ok(store.close()?));
    closed.with_context(|| format!("{name}: of the points that were read some may not be stored"))?;
    taken
        .map_err(|error| anyhow!("{name}: {error:#}; {stored} before it are stored, nothing of it or behind it is"))?;
    println!("{stored} imported into {}", args.dir.display());
    Ok(())
}

struct Importer<'a> {
    store: &'a Store,
    /// Of events that name no series of their own.
    key: SeriesKey,
    /// Neighbours are mostly of one series.
    last: Option<(Option<String>, Vec<String>, SeriesId)>,
    batch: Vec<Point>,
    written: Seq,
    stored: u64,
}

impl Importer<'_> {
    fn take_all(
        &mut self,
        events: impl Iterator<Item = anyhow::Result<InputEvent>>,
        tell: &mut dyn FnMut(u64),
    ) -> anyhow::Result<()> {
        for event in events {
            let event = event?;
            let line = event.line;
            let point = self.point(event).with_context(|| format!("line {line}"))?;
            self.batch.push(point);
            if self.batch.len() == BATCH_POINTS {
                self.write()?;
                tell(self.stored);
            }
        }
        Ok(())
    }

    fn point(&mut self, event: InputEvent) -> anyhow::Result<Point> {
        let InputEvent { timestamp, value, .. } = event;
        validate_point(timestamp, value, SystemClock.now_micros(), AHEAD_MICROS_MAX)?;
        let series = match &self.last {
            Some((name, tags, series)) if *name == event.series && *tags == event.tags => *series,
            _ => {
                let series = self.resolve(&*event.key(&self.key)?)?;
                self.last = Some((event.series, event.tags, series));
                series
            }
        };
        Ok(Point { series, timestamp, value })
    }

    fn resolve(&self, key: &SeriesKey) -> anyhow::Result<SeriesId> {
        loop {
            match self.store.resolve(key) {
                // Room for definitions comes with the next commit.
                Err(slung_store::Error::Busy) => std::thread::sleep(BUSY_RETRY_INTERVAL),
                resolved => return Ok(resolved?.0),
            }
        }
    }

    /// What is collected goes to the store.
    fn write(&mut self) -> anyhow::Result<()> {
        if !self.batch.is_empty() {
            self.written = self.store.write(&self.batch)?;
            self.stored += self.batch.len() as u64;
            self.batch.clear();
        }
        Ok(())
    }
}
