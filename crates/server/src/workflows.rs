//! What the network says of workflows, out of what the host knows of them.

use slung_host::{DeployChange, DeployError, Deployment, State, Version};
use slung_net::{
    WorkflowCalls, WorkflowChange, WorkflowReaction, WorkflowRefused, WorkflowState, WorkflowStatus, WorkflowVersion,
};

use crate::site::{Counted, ServerFeed};

/// How a workflow is.
pub(crate) fn status(it: Deployment<ServerFeed>) -> WorkflowStatus {
    let Deployment { name, version, versions, state, trouble, sees_after, stats, feed } = it;
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
        configured: versions.is_empty(),
        sees_after,
        versions: versions.into_iter().rev().map(kept).collect(),
        uptime_ms: None,
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
        memory_bytes_max: stats.memory_bytes,
        writes_refused: stats.writes_refused,
        http_calls_refused: stats.http_calls_refused,
        throttled_micros: 0,
        log_lines_dropped: stats.log_lines_dropped,
        reaction: WorkflowReaction::default(),
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
