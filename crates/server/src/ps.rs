//! `slung ps`: the workflows of a running server as a table, or one of them with everything.

use std::io::{ErrorKind, Write};

use anyhow::Context;
use serde_json::json;
use slung_net::client;
use slung_net::{WorkflowReaction, WorkflowStatus, WorkflowVersion};

use crate::cli::PsArgs;
use crate::deploy::told;
use crate::show::{bytes, count, printable, time};

/// Prints what the server says.
pub(crate) async fn ps(args: &PsArgs) -> anyhow::Result<()> {
    let shown = match &args.name {
        None => {
            let workflows = client::workflows(&args.url).await.map_err(told)?;
            if args.json { format!("{}\n", json!({ "workflows": workflows })) } else { table(&workflows) }
        }
        Some(name) => {
            let status = client::workflow(&args.url, name).await.map_err(told)?;
            if args.json { format!("{}\n", serde_json::to_string(&status)?) } else { everything(&status) }
        }
    };
    match std::io::stdout().write_all(shown.as_bytes()) {
        // As behind `| head`: enough was seen.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("stdout"),
    }
}

const COLUMNS: [&str; 9] = ["NAME", "STATE", "VER", "UP", "RESTARTS", "EVENTS", "P50/P99", "MEMORY", "CPU"];

/// A line for each: 80 columns where names are short.
fn table(workflows: &[WorkflowStatus]) -> String {
    let rows: Vec<[String; 9]> = workflows.iter().map(row).collect();
    let header = COLUMNS.map(str::to_owned);
    let mut widths = [0; 9];
    for row in rows.iter().chain([&header]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut shown = String::new();
    for row in [&header].into_iter().chain(&rows) {
        // Words to the left, numbers to the right.
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0 | 1 => format!("{cell:width$}"),
            _ => format!("{cell:>width$}"),
        });
        shown += &cells.collect::<Vec<_>>().join("  ");
        shown.push('\n');
    }
    shown
}

fn row(status: &WorkflowStatus) -> [String; 9] {
    [
        printable(&status.name),
        status.state.label().to_owned(),
        status.version.map_or_else(none, |version| version.to_string()),
        status.uptime_ms.map_or_else(none, |millis| short_time(millis.saturating_mul(1_000))),
        short_count(status.restarts),
        short_count(status.events),
        reaction(&status.reaction),
        short_bytes(status.memory_bytes),
        short_time(status.busy_micros),
    ]
}

fn none() -> String {
    "-".to_owned()
}

fn reaction(reaction: &WorkflowReaction) -> String {
    match (reaction.p50_micros, reaction.p99_micros) {
        (Some(p50), Some(p99)) => format!("{}/{}", short_time(p50), short_time(p99)),
        _ => none(),
    }
}

/// A length of time in its largest unit, in at most five characters.
fn short_time(micros: u64) -> String {
    const SECOND: u64 = 1_000_000;
    match micros {
        0..1_000 => format!("{micros}µs"),
        1_000..SECOND => format!("{}ms", short_ratio(micros, 1_000)),
        SECOND..60_000_000 => format!("{}s", short_ratio(micros, SECOND)),
        60_000_000..3_600_000_000 => format!("{}m", micros / (60 * SECOND)),
        3_600_000_000..172_800_000_000 => format!("{}h", micros / (3_600 * SECOND)),
        _ => format!("{}d", micros / (86_400 * SECOND)),
    }
}

/// A size in its largest unit, in at most eight characters.
fn short_bytes(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", short_ratio(bytes, 1 << 10)),
        1_048_576..1_073_741_824 => format!("{} MiB", short_ratio(bytes, 1 << 20)),
        _ => format!("{} GiB", short_ratio(bytes, 1 << 30)),
    }
}

/// How many of a unit, with a tenth where that says something.
fn short_ratio(number: u64, unit: u64) -> String {
    match number / unit {
        whole @ ..10 => format!("{whole}.{}", number % unit * 10 / unit),
        whole => whole.to_string(),
    }
}

/// A number in at most five characters, as far as it goes.
fn short_count(number: u64) -> String {
    match number {
        0..100_000 => number.to_string(),
        100_000..10_000_000 => format!("{}k", number / 1_000),
        10_000_000..10_000_000_000 => format!("{}M", number / 1_000_000),
        _ => format!("{}G", number / 1_000_000_000),
    }
}

/// All there is to know of one.
fn everything(status: &WorkflowStatus) -> String {
    let mut shown = String::new();
    let mut say = |what: &str, value: String| shown += &format!("{what:16} {value}\n");
    say("name", printable(&status.name));
    let reason = status.reason.as_ref().map(|reason| format!(" ({})", printable(reason))).unwrap_or_default();
    say("state", format!("{}{reason}", status.state.label()));
    say("version", status.version.map_or_else(none, |version| version.to_string()));
    say("configured", if status.configured { "yes: it can't be deployed" } else { "no" }.to_owned());
    say("sees events", status.sees_after.map_or_else(none, |seq| format!("after number {seq}")));
    say("up", status.uptime_ms.map_or_else(none, |millis| short_time(millis.saturating_mul(1_000))));
    say("restarts", number(status.restarts));
    say("events", number(status.events));
    let counts =
        [("merged", status.merged), ("dropped", status.dropped), ("late", status.late), ("waiting", status.waiting)];
    say("updates", listed(&counts));
    let WorkflowReaction { count: timed, .. } = status.reaction;
    say("reaction", format!("{} (p50/p99 of {})", reaction(&status.reaction), number(timed)));
    say("cpu", format!("{}, held back {}", short_time(status.busy_micros), short_time(status.throttled_micros)));
    say("memory", format!("{}, at most {}", bytes(status.memory_bytes), bytes(status.memory_bytes_max)));
    let counts = [
        ("writes", status.writes_refused),
        ("HTTP calls", status.http_calls_refused),
        ("log lines", status.log_lines_dropped),
    ];
    say("too many", listed(&counts));
    for calls in &status.calls {
        say(&printable(&calls.function), format!("{} done, {} failed", number(calls.ok), number(calls.failed)));
    }
    for version in &status.versions {
        say(&format!("version {}", version.version), described(version));
    }
    shown
}

fn number(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

fn listed(counts: &[(&str, u64)]) -> String {
    counts.iter().map(|(what, count)| format!("{} {what}", number(*count))).collect::<Vec<_>>().join(", ")
}

/// As much of a digest as tells ten versions apart.
const DIGEST_CHARS: usize = 19;

fn described(version: &WorkflowVersion) -> String {
    let (size, env) = (count(version.bytes, "byte", "bytes"), version.env.join(" "));
    let digest: String = version.digest.chars().take(DIGEST_CHARS).collect();
    let env = if env.is_empty() { String::new() } else { format!(", with {env}") };
    printable(&format!("{}, {size}, {digest}{env}", time(version.deployed)))
}

#[cfg(test)]
mod tests {
    use slung_net::{WorkflowCalls, WorkflowState};

    use super::*;

    fn status() -> WorkflowStatus {
        WorkflowStatus {
            name: "alert".to_owned(),
            state: WorkflowState::Running,
            version: Some(12),
            sees_after: Some(1_207),
            versions: vec![WorkflowVersion {
                version: 12,
                bytes: 139_264,
                deployed: 1_700_000_000_000_000,
                digest: format!("sha256:{}", "5d0f3a17".repeat(8)),
                env: vec!["A".to_owned(), "B\u{1b}".to_owned()],
            }],
            uptime_ms: Some(3 * 3_600_000 + 5),
            restarts: 2,
            events: 1_204_331,
            merged: 5,
            calls: vec![WorkflowCalls { function: "u_poll_handle".to_owned(), ok: 1_204_400, failed: 1 }],
            busy_micros: 5_120_000,
            memory_bytes: 1_179_648,
            memory_bytes_max: 2 << 20,
            reaction: WorkflowReaction { count: 380, p50_micros: Some(21), p99_micros: Some(1_234) },
            ..WorkflowStatus::default()
        }
    }

    #[test]
    fn the_table_fits_a_terminal() {
        let stopped =
            WorkflowStatus { name: "b".to_owned(), state: WorkflowState::Stopped, ..WorkflowStatus::default() };
        let shown = table(&[status(), stopped]);
        let wanted = "\
NAME   STATE    VER  UP  RESTARTS  EVENTS     P50/P99   MEMORY   CPU
alert  running   12  3h         2   1204k  21µs/1.2ms  1.1 MiB  5.1s
b      stopped    -   -         0       0           -      0 B   0µs
";
        assert_eq!(shown, wanted);
        // The widest of each column.
        let widest = WorkflowStatus {
            name: "ten-letter".to_owned(),
            state: WorkflowState::Restarting,
            version: Some(999),
            uptime_ms: Some(9_999 * 86_400_000),
            restarts: 99_999,
            events: 9_999_999,
            busy_micros: 999_900,
            memory_bytes: 64 << 20,
            reaction: WorkflowReaction { count: 1, p50_micros: Some(1_234), p99_micros: Some(1_234) },
            ..status()
        };
        assert!(table(&[widest]).lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn one_workflow_is_shown_with_everything() {
        let shown = everything(&WorkflowStatus { reason: Some("why\u{7}".to_owned()), ..status() });
        let wanted = "\
name             alert
state            running (why\\u{7})
version          12
configured       no
sees events      after number 1207
up               3h
restarts         2
events           1,204,331
updates          5 merged, 0 dropped, 0 late, 0 waiting
reaction         21µs/1.2ms (p50/p99 of 380)
cpu              5.1s, held back 0µs
memory           1.12 MiB, at most 2.00 MiB
too many         0 writes, 0 HTTP calls, 0 log lines
u_poll_handle    1,204,400 done, 1 failed
version 12       2023-11-14T22:13:20Z, 139,264 bytes, sha256:5d0f3a175d0f, with A B\\u{1b}
";
        assert_eq!(shown, wanted);
    }

    #[test]
    fn times_and_counts_are_short() {
        let times = [0, 999, 1_000, 999_999, 1_500_000, 59_999_999, 60_000_000, 3_600_000_000, 172_800_000_000];
        let shown = times.map(short_time);
        assert_eq!(shown, ["0µs", "999µs", "1.0ms", "999ms", "1.5s", "59s", "1m", "1h", "2d"]);
        let sizes = [0, 1_023, 1_024, 10_240, 1_048_575, 1_179_648, 64 << 20, 3 << 30];
        let shown = sizes.map(short_bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "10 KiB", "1023 KiB", "1.1 MiB", "64 MiB", "3.0 GiB"]);
        let counts = [0, 99_999, 100_000, 9_999_999, 10_000_000, u64::MAX];
        assert_eq!(counts.map(short_count), ["0", "99999", "100k", "9999k", "10M", "18446744073G"]);
    }
}
