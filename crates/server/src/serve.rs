//! `slung serve`: engine, host and network put together, started in that order and stopped in the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use slung_engine::Engine;
use slung_host::{Host, HostOptions, StartOptions, Workflow};
use slung_model::SystemClock;
use slung_net::{HttpClient, Server};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::backend::EngineBackend;
use crate::cli::ServeArgs;
use crate::config::{Config, WorkflowConfig};
use crate::metrics::Metrics;
use crate::world::{Surroundings, WorkflowWorld};

/// How often windows are looked at for points that time has left behind: they tell at most once a second.
const TICK_INTERVAL: Duration = Duration::from_millis(250);

/// Runs until Ctrl-C or SIGTERM.
pub(crate) async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let config = Config::load(args)?;
    // Before anything is started, so that no signal finds the default behaviour.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut signalled = async || {
        tokio::select! {
            _ = interrupt.recv() => "Ctrl-C",
            _ = terminate.recv() => "SIGTERM",
        }
    };
    let running = Running::start(config).await?;
    info!("{}: stopping; once more ends at once", signalled().await);
    tokio::select! {
        stopped = running.stop() => stopped,
        name = signalled() => anyhow::bail!("{name} again: ended before all was stored"),
    }
}

/// A server that takes events.
pub(crate) struct Running {
    pub(crate) engine: Arc<Engine>,
    pub(crate) addr: SocketAddr,
    host: Host,
    workflows: Arc<Vec<Workflow>>,
    ticker: JoinHandle<()>,
    shutdown: oneshot::Sender<()>,
    network: JoinHandle<()>,
}
