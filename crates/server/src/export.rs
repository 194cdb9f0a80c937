//! `slung export`: points out of a data directory as CSV that `slung import` reads back exactly.

use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use slung_model::{Clock, SeriesId, SystemClock};
use slung_store::{Options, OsVfs, Snapshot, Store};

use crate::cli::ExportArgs;
use crate::delete::points_of;
use crate::show::{count, points_spinner};

/// The columns.
const HEADER: [&str; 4] = ["timestamp", "value", "series", "tags"];
/// How often the spinner is told.
const TOLD_POINTS: u64 = 10_000;

/// Writes the points; the exit code says whether all are there.
#[expect(clippy::print_stderr, reason = "the last word, and what is missing")]
pub(crate) fn export(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let query = points_of(&args.query)?;
    let (store, _) = Store::open_read_only(Arc::new(OsVfs), &args.dir, Options::default())?;
    let range = query.time_range(SystemClock.now_micros());
    let snapshot = store.snapshot(&store.select(&query), range);
    let points = match &args.out {
        None => match write(&store, &snapshot, std::io::stdout().lock()) {
            // As behind `| head`: enough was seen.
            Err(error) if is_broken_pipe(&error) => return Ok(ExitCode::SUCCESS),
            written => written.context("stdout")?,
        },
        Some(path) => write_file(&store, &snapshot, path).with_context(|| path.display().to_string())?,
    };
    let damage = snapshot.damage();
    for damage in &damage {
        eprintln!("{damage}");
    }
    let exported = count(points, "point", "points");
    if damage.is_empty() {
        eprintln!("{exported} exported");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{exported} exported: a part only, what is damaged is missing (see above)");
    Ok(ExitCode::FAILURE)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    })
}

/// Under its own name the file is whole.
fn write_file(store: &Store, snapshot: &Snapshot, path: &Path) -> anyhow::Result<u64> {
    let folder = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    // As any file that somebody makes, and not its owner's alone: the umask still counts.
    let mode = std::fs::Permissions::from_mode(0o666);
    let file = tempfile::Builder::new().prefix(".slung-export-").permissions(mode).tempfile_in(folder)?;
    let points = write(store, snapshot, file.as_file())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(points)
}

fn write(store: &Store, snapshot: &Snapshot, to: impl Write) -> anyhow::Result<u64> {
    let spinner = points_spinner("exporting");
    let mut csv = csv::Writer::from_writer(BufWriter::new(to));
    csv.write_record(HEADER)?;
    let mut series: Option<(SeriesId, String, String)> = None;
    let mut points = 0;
    for point in snapshot.scan() {
        let point = point?;
        if series.as_ref().is_none_or(|(id, ..)| *id != point.series) {
            let key = store.key(point.series).context("a point of a series that is not known")?;
            let tags: Vec<&str> = key.tags().collect();
            series = Some((point.series, key.name().to_owned(), serde_json::to_string(&tags)?));
        }
        let (_, name, tags) = series.as_ref().context("it was just set")?;
        // The shortest number that reads back as the same.
        let (timestamp, value) = (point.timestamp.to_string(), format!("{:?}", point.value));
        csv.write_record([&timestamp, &value, name, tags])?;
        points += 1;
        if points % TOLD_POINTS == 0 {
            spinner.set_position(points);
        }
    }
    csv.flush()?;
    spinner.finish_and_clear();
    Ok(points)
}
