//! The real server on loopback under load: what it stores, acknowledges and answers per second, and what that costs. Where the
//! aim is a ratio, what it is a ratio to is measured in the same run, one beside the other.
//!
//! `README.md` has the figures, and says what each means.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it measures is for a reader")]

mod deploy;
mod latency;
mod load;
mod producer;
mod server;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use slung_benches::size;
use tempfile::TempDir;

use crate::producer::Shape;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

const USAGE: &str = "usage: cargo bench --workspace --bench network -- [OPTIONS] [PART ...]
  PART            coalesced, single, batches, blocks, ack, writeback, idle, overload, deploy, replaced,
                  parked (default: all of them)
  --server FILE   the binary `slung` (default: that of the same build)
  --dir DIR       where data directories are made and removed again (default: in cargo's target directory)
  --runs N        how often each is done; the median counts (default 5)";

const PARTS: [&str; 11] = [
    "coalesced",
    "single",
    "batches",
    "blocks",
    "ack",
    "writeback",
    "idle",
    "overload",
    "deploy",
    "replaced",
    "parked",
];

/// What the parts need.
pub(crate) struct Setting {
    server: PathBuf,
    dir: PathBuf,
    runs: usize,
}

impl Setting {
    /// An empty directory that goes with its owner.
    pub(crate) fn data(&self) -> Result<TempDir> {
        Ok(tempfile::tempdir_in(&self.dir)?)
    }
}

struct Arguments {
    parts: Vec<&'static str>,
    server: Option<PathBuf>,
    dir: PathBuf,
    runs: usize,
    sink: bool,
}

impl Arguments {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> std::result::Result<Self, String> {
        let dir = env!("CARGO_TARGET_TMPDIR").into();
        let mut parsed = Self { parts: Vec::new(), server: None, dir, runs: size(5, 1), sink: false };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{} needs a value", argument.display()));
            match argument.to_str() {
                // Cargo's own.
                Some("--bench" | "--test") => {}
                Some("--server") => parsed.server = Some(value()?.into()),
                Some("--dir") => parsed.dir = value()?.into(),
                Some("--runs") => {
                    let runs = value()?.to_str().and_then(|runs| runs.parse().ok()).filter(|runs| *runs > 0);
                    parsed.runs = runs.ok_or("--runs needs a number above 0")?;
                }
                Some("--sink") => parsed.sink = true,
                argument => match PARTS.iter().find(|part| Some(**part) == argument) {
                    Some(part) => parsed.parts.push(part),
                    None => return Err(format!("unknown argument {argument:?}")),
                },
            }
        }
        if parsed.parts.is_empty() {
            parsed.parts = PARTS.into();
        }
        Ok(parsed)
    }
}

/// The middle one of them.
pub(crate) fn median<T: Copy + PartialOrd>(values: impl IntoIterator<Item = T>) -> T {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_unstable_by(|a, b| a.partial_cmp(b).expect("numbers"));
    values[values.len() / 2]
}

/// The duration that so many of a hundred stay below.
pub(crate) fn percentile(durations: &mut [Duration], percent: usize) -> Duration {
    durations.sort_unstable();
    durations[(durations.len() * percent / 100).min(durations.len() - 1)]
}

pub(crate) fn tell(what: &str, figure: impl std::fmt::Display) {
    println!("{what:<58} {figure}");
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn main() -> Result<()> {
    let arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(reason) => {
            eprintln!("{reason}\n{USAGE}");
            std::process::exit(2);
        }
    };
    if arguments.sink {
        return server::sink();
    }
    let setting = Setting { server: server::binary(arguments.server)?, dir: arguments.dir, runs: arguments.runs };
    for part in arguments.parts {
        match part {
            "coalesced" => load::plain(&setting, load::Writes::Coalesced, size(8_000_000, 20_000))?,
            "single" => load::plain(&setting, load::Writes::OneFrame, size(1_500_000, 20_000))?,
            "batches" => load::acknowledged(&setting, Shape::Batch, size(8_000_000, 20_000))?,
            "blocks" => load::acknowledged(&setting, Shape::Block, size(16_000_000, 60_000))?,
            "ack" => latency::ack(&setting, size(1_000, 20))?,
            "writeback" => latency::writeback(&setting, size(5_000, 100))?,
            "idle" => load::idle(&setting, size(10_000, 20))?,
            "deploy" => deploy::first_event(&setting, size(10, 1))?,
            "replaced" => deploy::replaced(&setting, size(5_000, 50) as u64)?,
            "parked" => deploy::parked(&setting, size(1_000, 10))?,
            _ => load::overload(&setting, Duration::from_millis(size(5_000, 200) as u64))?,
        }
    }
    Ok(())
}
