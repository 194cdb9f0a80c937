//! `slung delete`: takes points away from a running server, after a look at how many.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::Value;
use slung_model::{Op, Query, QueryRange, Time, TimeRange};
use slung_net::client;

use crate::cli::DeleteArgs;
use crate::query::{ask, refused};
use crate::show::{count, range};

/// Some 100 MB a second are written anew: a terabyte takes three hours.
const TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// Says what is meant, asks, and deletes.
#[expect(clippy::print_stdout, reason = "the command's result")]
#[expect(clippy::print_stderr, reason = "a question to who sits there")]
pub(crate) async fn delete(args: &DeleteArgs) -> anyhow::Result<()> {
    let query = points_of(&args.query)?;
    let answer = ask(&args.url, &query.with(Op::Count, query.range()).to_string()).await?;
    let (points, series) = (answer["count"].as_u64().unwrap_or(0), answer["series"].as_u64().unwrap_or(0));
    let asked = resolved(&answer);
    let what = format!(
        "{query}: {} of {}, {}",
        count(points, "point", "points"),
        count(series, "series", "series"),
        range(asked.unwrap_or(TimeRange::ALL))
    );
    if points == 0 {
        println!("{what}: nothing to delete");
        return Ok(());
    }
    if !args.yes {
        if !std::io::stdin().is_terminal() {
            bail!("{what}: nothing is deleted, as there is no terminal to ask on; --yes deletes without a question");
        }
        eprint!("{what}\nDelete them for good? [y/N] ");
        std::io::stderr().flush()?;
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        if !matches!(line.trim(), "y" | "Y" | "yes") {
            bail!("nothing was deleted");
        }
    }
    // What was counted, and not what a range such as [1h] means by now.
    let fixed = asked
        .filter(|range| range.start >= 0)
        .map(|range| QueryRange { start: Time::Absolute(range.start), end: Time::Absolute(range.end) });
    let query = query.with(Op::Raw, fixed.or(query.range())).to_string();
    let server = args.url.trim_end_matches('/');
    let url = format!("{server}{}", client::delete_path(&query));
    let (status, body) = client::http_post(&url, TIMEOUT).await.context("whether anything was deleted is unknown")?;
    if status != 200 {
        return Err(refused(server, status, &body));
    }
    let answer: Value = serde_json::from_slice(&body).with_context(|| format!("{server} answers without JSON"))?;
    let deleted = count(answer["points"].as_u64().unwrap_or(0), "point", "points");
    let segments = count(answer["segments"].as_u64().unwrap_or(0), "segment", "segments");
    println!("{deleted} deleted; {segments} written anew or removed");
    Ok(())
}

/// The query, which means points: an operator says that something else was expected.
pub(crate) fn points_of(text: &str) -> anyhow::Result<Query> {
    let query = Query::parse(text).map_err(|error| anyhow!("query, byte {}: {}", error.at, error.what))?;
    if query.op() != Op::Raw {
        let points = query.with(Op::Raw, query.range());
        bail!("query, byte 0: {} computes something, and here points are meant: {points}", query.op());
    }
    Ok(query)
}

fn resolved(answer: &Value) -> Option<TimeRange> {
    let end = |name: &str| answer["range"][name].as_i64();
    Some(TimeRange { start: end("start")?, end: end("end")? })
}
