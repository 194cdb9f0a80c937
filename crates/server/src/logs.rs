//! `slung logs`: what a workflow of a running server has logged, and what it logs.

use std::io::{ErrorKind, Write};

use anyhow::{Context, bail};
use slung_net::client::LogReader;
use slung_net::{LogEntry, LogLine};
use tokio::signal;

use crate::cli::LogsArgs;
use crate::deploy::told;
use crate::show::{count, printable, time};

/// Prints lines until there are no more, Ctrl-C ends it, or nobody reads them any more.
#[expect(clippy::print_stderr, reason = "what is missing")]
pub(crate) async fn logs(args: &LogsArgs) -> anyhow::Result<()> {
    let mut log = LogReader::connect(&args.url, &args.name, args.lines as usize, args.follow).await.map_err(told)?;
    let mut interrupted = std::pin::pin!(signal::ctrl_c());
    loop {
        let entry = tokio::select! {
            // It is listened for before the first line is shown.
            biased;
            _ = &mut interrupted => return Ok(()),
            entry = log.next() => entry.with_context(|| args.url.clone())?,
        };
        match entry {
            Some(LogEntry::Line(line)) => match std::io::stdout().write_all(shown(&line).as_bytes()) {
                // As behind `| head`: enough was seen.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                written => written.context("stdout")?,
            },
            Some(LogEntry::Missed { missed }) => {
                eprintln!("slung: {} missing here: they came too fast", count(missed, "line is", "lines are"));
            }
            None if args.follow => {
                bail!("{} has ended the log, as it does when it stops, or when the workflow is removed", args.url)
            }
            None => return Ok(()),
        }
    }
}

/// When, how bad, from where, and what.
fn shown(line: &LogLine) -> String {
    format!("{} {:5} {:6} {}\n", time(line.at), line.level.label(), line.from.label(), printable(&line.text))
}

#[cfg(test)]
mod tests {
    use slung_net::{LogLevel, LogSource};

    use super::*;

    #[test]
    fn a_line_has_time_level_source_and_text() {
        let (level, from, text) = (LogLevel::Warn, LogSource::Host, "a\u{1b}[1m b\nc".to_owned());
        let line = LogLine { number: 1, at: 1_700_000_000_250_000, level, from, text };
        assert_eq!(shown(&line), "2023-11-14T22:13:20.25Z warn  host   a\\u{1b}[1m b\\nc\n");
    }
}
