//! `slung live`: what a workflow with the same live query would be told, a line per update.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};

use anyhow::Context;
use slung_abi::Event;
use slung_net::client::{self, ClientError, Updates};

use crate::cli::LiveArgs;
use crate::query;

/// Prints updates until the server ends the stream, or nobody reads them any more. Ctrl-C ends the process.
#[expect(clippy::print_stderr, reason = "why the command ends")]
pub(crate) async fn live(args: &LiveArgs) -> anyhow::Result<()> {
    let server = args.url.trim_end_matches('/');
    let url = format!("{server}{}", client::live_path(&args.query));
    let mut updates = match Updates::connect(&url).await {
        Err(ClientError::NoStream { status, body, .. }) => return Err(query::refused(server, status, &body)),
        connected => connected.context("is `slung serve` running there?")?,
    };
    let mut line = String::new();
    while let Some(json) = updates.next().await.with_context(|| server.to_owned())? {
        line.clear();
        let text = std::str::from_utf8(&json).context("an update that is not UTF-8")?;
        if args.json {
            line.push_str(text);
        } else {
            let event = serde_json::from_str(text).with_context(|| format!("an update that is no event: {text}"))?;
            describe(&event, &mut line);
        }
        line.push('\n');
        match std::io::stdout().write_all(line.as_bytes()) {
            // As behind `| head`: enough was seen.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            written => written.context("stdout")?,
        }
    }
    eprintln!("slung: {server} has ended the stream, as it does when it stops");
    Ok(())
}

/// When, how much, and of whom.
fn describe(event: &Event, line: &mut String) {
    let written = match jiff::Timestamp::from_microsecond(event.timestamp) {
        Ok(time) => write!(line, "{time}"),
        Err(_) => write!(line, "{}", event.timestamp),
    };
    let written = written.and_then(|()| write!(line, "  {}  {}", event.value, event.tags.join(",")));
    written.expect("a string takes everything");
    line.truncate(line.trim_end().len());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_time_value_and_tags() {
        let shown = |timestamp, value, tags: &[&str]| {
            let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
            let mut line = String::new();
            describe(&Event { timestamp, value, tags, ..Event::default() }, &mut line);
            line
        };
        let at = 1_700_000_000_000_000;
        assert_eq!(shown(at, 21.5, &["env=prod", "sensor=1"]), "2023-11-14T22:13:20Z  21.5  env=prod,sensor=1");
        assert_eq!(shown(at + 250_000, -0.1, &[]), "2023-11-14T22:13:20.25Z  -0.1");
        assert_eq!(shown(i64::MAX, 3.0, &["a b"]), "9223372036854775807  3  a b");
    }
}
