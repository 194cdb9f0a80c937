//! What the network says of workflows, out of what the host knows of them.

use std::collections::VecDeque;

use futures_util::stream::{self, StreamExt};
use slung_host::{DeployChange, DeployError, Deployment, Log, State, Version};
use slung_net::{
    LogEntry, LogLevel, LogLine, LogSource, WorkflowCalls, WorkflowChange, WorkflowLog, WorkflowReaction,
    WorkflowRefused, WorkflowState, WorkflowStatus, WorkflowVersion,
};

use crate::site::{Counted, ServerFeed};

/// How a workflow is.
pub(crate) fn status(it: Deployment<ServerFeed>) -> WorkflowStatus {
    let Deployment { name, configured, version, versions, state, trouble, sees_after, stats, feed, log: _ } = it;
    let Counted { merged, dropped, late, waiting } = feed.map_or_else(Counted::default, |feed| feed.counted());
    let (state, reason) = match state {
        Some(State::Running) => (WorkflowState::Running, None),
        Some(State::Restarting(failure)) => (WorkflowState::Restarting, Some(failure.to_string())),
        Some(State::Done) => (WorkflowState::Done, None),
        Some(State::Stopped) => (WorkflowState::Stopped, None),
        Some(State::Failed(failure)) => (WorkflowState::Failed, Some(failure.to_string())),
        None => (if trouble.is_some() { WorkflowState::Failed } else { WorkflowState::Stopped }, None),
    };
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    WorkflowStatus {
        name,
        state,
        reason: reason.or(trouble),
        version,
        configured,
        sees_after,
        versions: versions.into_iter().rev().map(kept).collect(),
        uptime_ms: stats.uptime.map(|uptime| u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)),
        restarts: stats.restarts,
        events: stats.events,
        merged,
        dropped,
        late,
        waiting,
        calls: stats
            .calls
            .iter()
            .map(|calls| WorkflowCalls {
                function: calls.function.name().to_owned(),
                ok: calls.ok,
                failed: calls.failed,
            })
            .collect(),
        busy_micros: micros(stats.busy),
        memory_bytes: stats.memory_bytes,
        memory_bytes_max: stats.memory_bytes_max,
        writes_refused: stats.writes_refused,
        http_calls_refused: stats.http_calls_refused,
        throttled_micros: micros(stats.throttled),
        log_lines_dropped: stats.log_lines_dropped,
        reaction: WorkflowReaction {
            count: stats.reactions.count(),
            p50_micros: stats.reactions.quantile(0.5).map(micros),
            p99_micros: stats.reactions.quantile(0.99).map(micros),
        },
    }
}

fn kept(version: Version) -> WorkflowVersion {
    let Version { number, bytes, sha256, deployed_micros, env } = version;
    WorkflowVersion {
        version: number,
        bytes,
        deployed: deployed_micros,
        digest: format!("sha256:{sha256}"),
        env: env.into_keys().collect(),
    }
}

/// What is asked for.
pub(crate) fn change(change: WorkflowChange) -> DeployChange {
    match change {
        WorkflowChange::Deploy { module, env } => {
            DeployChange::Deploy { module: module.to_vec(), env: env.into_iter().collect() }
        }
        WorkflowChange::Rollback { version } => DeployChange::Rollback(version),
        WorkflowChange::Stop => DeployChange::Stop,
        WorkflowChange::Start => DeployChange::Start,
        WorkflowChange::Remove => DeployChange::Remove,
    }
}

/// Why it is not done.
pub(crate) fn refused(error: DeployError) -> WorkflowRefused {
    match error {
        DeployError::Unknown(what) => WorkflowRefused::NotFound(what),
        DeployError::Invalid(what) => WorkflowRefused::Invalid(what),
        DeployError::Conflict(what) => WorkflowRefused::Conflict(what),
        DeployError::Busy(_) => WorkflowRefused::Busy,
        other => WorkflowRefused::Failed(other.to_string()),
    }
}

/// Lines that are read from a log at a time.
const PAGE_LINES: usize = 256;

/// The latest lines of a log, and with `follow` those that come.
pub(crate) fn log(log: Log, lines: usize, follow: bool) -> WorkflowLog {
    let (newest, lines) = (log.newest(), u64::try_from(lines).unwrap_or(u64::MAX));
    // What is not kept any more was not asked for: it is not missed.
    let gone = log.lines(0, 0).missed;
    let after = newest.saturating_sub(lines).max(gone);
    let begin = (log, after, VecDeque::new());
    stream::unfold(begin, move |(log, mut after, mut waiting)| async move {
        while waiting.is_empty() {
            let page = log.lines(after, PAGE_LINES);
            if page.missed > 0 {
                waiting.push_back(LogEntry::Missed { missed: page.missed });
            }
            after = page.lines.last().map_or(after, |line| line.number);
            waiting.extend(page.lines.into_iter().map(entry));
            if waiting.is_empty() {
                if !follow || log.has_ended() {
                    return None;
                }
                log.changed(after).await;
            }
        }
        Some((waiting.pop_front()?, (log, after, waiting)))
    })
    .boxed()
}

fn entry(line: slung_host::LogLine) -> LogEntry {
    let slung_host::LogLine { number, time_micros, level, source, text } = line;
    let level = match level {
        slung_host::LogLevel::Info => LogLevel::Info,
        slung_host::LogLevel::Warn => LogLevel::Warn,
        slung_host::LogLevel::Error => LogLevel::Error,
    };
    let from = match source {
        slung_host::LogSource::Stdout => LogSource::Stdout,
        slung_host::LogSource::Stderr => LogSource::Stderr,
        slung_host::LogSource::Host => LogSource::Host,
    };
    LogEntry::Line(LogLine { number, at: time_micros, level, from, text: text.to_string() })
}
