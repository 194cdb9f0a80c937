//! `slung serve`: engine, network and host put together, started in that order and stopped so that nothing is lost.

use std::collections::{BTreeMap, HashMap};
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use slung_engine::Engine;
use slung_host::{Host, HostOptions, Module};
use slung_model::SystemClock;
use slung_net::{AllowRule, Counters, HttpClient, Memory, OutboundOptions, Producers, Server};
use slung_store::{OsVfs, Recovery, Vfs};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{info, warn};

use crate::backend::EngineBackend;
use crate::cli::ServeArgs;
use crate::config::Config;
use crate::host_config::HostConfig;
use crate::metrics::Metrics;
use crate::site::{Deployments, ServerSite};
use crate::try_out::Compiler;
use crate::watch::WatchCounters;
use crate::workflow_config::WorkflowConfig;
use crate::world::Surroundings;

/// How often sliding windows are looked at for points that time has left behind; they tell once a second at most.
const TICK_INTERVAL: Duration = Duration::from_millis(250);
/// What is deployed, in the data directory.
pub(crate) const WORKFLOWS_DIR: &str = "workflows";
/// What modules were compiled to, in the data directory.
const CACHE_DIR: &str = "cache";
/// How long a stop waits for what still reads history.
const WORK_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs until Ctrl-C or SIGTERM.
pub(crate) async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let config = Config::load(args)?;
    // Each segment and each connection takes one; the usual 1,024 are few. As many as the system allows, or as many as before.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    // Before anything is started, so that a signal never finds the default behaviour.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut signalled = async || {
        tokio::select! {
            _ = interrupt.recv() => "Ctrl-C",
            _ = terminate.recv() => "SIGTERM",
        }
    };
    let running = Running::start(config).await?;
    info!("listening on http://{0} (producers: ws://{0}/)", running.addr);
    if !running.addr.ip().is_loopback() {
        warn!(
            "{} is not loopback, and there is no access control: whoever reaches it can write and read",
            running.addr
        );
    }
    let name = signalled().await;
    info!("{name}: stopping; a second one ends at once");
    tokio::select! {
        stopped = running.stop() => stopped,
        name = signalled() => anyhow::bail!("{name} again: ended before everything was stored"),
    }
}

/// A server that takes events.
pub(crate) struct Running {
    /// History and live queries.
    pub(crate) engine: Arc<Engine>,
    /// The workflows.
    pub(crate) workflows: Deployments,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    ticker: JoinHandle<()>,
    network: JoinHandle<()>,
    shutdown: oneshot::Sender<()>,
    /// True ends what is being compiled.
    no_compiling: Arc<AtomicBool>,
}

impl Running {
    /// Loads the workflows, opens the store, starts the one on the other, and then lets producers in.
    pub(crate) async fn start(config: Config) -> anyhow::Result<Self> {
        Self::start_on(Arc::new(OsVfs), config).await
    }

    /// The same on other files than the system's.
    async fn start_on(vfs: Arc<dyn Vfs>, config: Config) -> anyhow::Result<Self> {
        let Config { listen, data, allow_hosts, allow_public, workflows, store, live, network, host } = config;
        let allow = allow_hosts.iter().map(|rule| rule.parse()).collect::<Result<Vec<AllowRule>, _>>();
        let allow = allow.context("--allow-host, or allow_hosts in the configuration")?;
        let cache_dir = make_cache(&data).with_context(|| format!("data directory {}", data.display()))?;
        let HostConfig { host: options, compile, deploy } = host;
        let no_compiling = Arc::<AtomicBool>::default();
        let options = HostOptions { cache_dir: Some(cache_dir), ..options };
        let compiler = Compiler::new(options.clone(), compile, Arc::clone(&no_compiling));
        let host = Host::new(options)?;
        let (host, workflows, configured) = spawn_blocking(move || {
            let configured = load(&host, &workflows)?;
            anyhow::Ok((host, workflows, configured))
        })
        .await??;

        let commit_interval = store.commit_interval;
        let deployed = data.join(WORKFLOWS_DIR);
        let opened = spawn_blocking(move || {
            let options = slung_engine::Options { store, live, ..slung_engine::Options::default() };
            let opened = Engine::open(vfs, Arc::new(SystemClock), &data, options);
            opened
                .with_context(|| format!("data directory {}", data.display()))
                .inspect(|(_, found)| report(&data, found))
        });
        let (engine, _) = opened.await??;
        let engine = Arc::new(engine);
        let (commits, durable) = watch::channel(engine.durable_through());
        engine.on_commit(move |seq| {
            commits.send_replace(seq);
        });

        let counters = Arc::new(Counters::default());
        let producers =
            Producers::new(network.queue_bytes_max, Memory::new(network.in_flight_bytes_max), Arc::clone(&counters));
        let outbound = OutboundOptions { allow, allow_public, ..OutboundOptions::default() };
        let http = HttpClient::new(outbound.clone(), Arc::clone(&counters));
        let around =
            Surroundings { engine: Arc::clone(&engine), durable: durable.clone(), producers: producers.clone(), http };
        let site = ServerSite::new(around, workflows, &outbound, &counters, compiler)?;
        let workflows = Deployments::open(host, site, deployed, deploy)?;
        for (name, module) in configured {
            workflows.configure(&name, module, BTreeMap::new());
        }
        let workflows = {
            let workflows = workflows.clone();
            spawn_blocking(move || {
                workflows.start_all();
                workflows
            })
            .await?
        };

        let watched = Arc::new(WatchCounters::default());
        let metrics = Metrics::new(
            Arc::clone(&engine),
            counters,
            producers.memory().clone(),
            workflows.clone(),
            Arc::clone(&watched),
        );
        let backend =
            EngineBackend::new(Arc::clone(&engine), durable, commit_interval, workflows.clone(), metrics, watched);
        let server = Server::bind(listen, network.server, Arc::new(backend), producers)
            .await
            .with_context(|| format!("cannot listen on {listen}"))?;
        let addr = server.local_addr();
        let (shutdown, stop) = oneshot::channel();
        let network = tokio::spawn(server.run(async {
            // Dropped without a word, it stops all the same.
            let _ = stop.await;
        }));
        let ticker = tokio::spawn(tick(Arc::clone(&engine)));
        Ok(Self { engine, workflows, addr, ticker, network, shutdown, no_compiling })
    }

    /// Lets nobody in any more, stores what was received, stops the workflows, and gives the data directory back.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let Self { engine, workflows, ticker, network, shutdown, no_compiling, .. } = self;
        no_compiling.store(true, Ordering::Relaxed);
        // An error says that the network has ended already, which is what is wanted.
        let _ = shutdown.send(());
        network.await.context("the network")?;
        ticker.abort();
        // Its only end is the abort.
        let _ = ticker.await;
        spawn_blocking(move || {
            workflows.close();
            drop(workflows);
            only_owner(engine)?.close().context("the last events could not be stored")
        })
        .await??;
        info!("stopped: everything is stored");
        Ok(())
    }
}

/// Waits for queries that nobody waits for any more, as their connections have gone; not for a deletion of hours.
fn only_owner(mut engine: Arc<Engine>) -> anyhow::Result<Engine> {
    let deadline = Instant::now() + WORK_TIMEOUT;
    loop {
        engine = match Arc::try_unwrap(engine) {
            Ok(engine) => return Ok(engine),
            Err(shared) if Instant::now() < deadline => shared,
            Err(_) => anyhow::bail!("a query or a deletion is still running: ended without waiting for it"),
        };
        std::thread::sleep(Duration::from_millis(5));
    }
}

async fn tick(engine: Arc<Engine>) {
    let mut full = false;
    let mut interval = tokio::time::interval(TICK_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        engine.tick();
        let is_full = match engine.health() {
            Err(slung_engine::Error::Store(error @ slung_store::Error::DiskFull { .. })) => {
                if !full {
                    warn!("{error}; producers are held back until then");
                }
                true
            }
            _ => false,
        };
        if full && !is_full {
            info!("there is space on the disk again: writing goes on");
        }
        full = is_full;
    }
}

/// The directory of what modules were compiled to, as an absolute path: made for this user alone, as what lies there is run.
fn make_cache(data: &Path) -> std::io::Result<PathBuf> {
    let dir = std::path::absolute(data)?.join(CACHE_DIR);
    std::fs::create_dir_all(&dir)?;
    std::fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
    Ok(dir)
}

/// Compiles every workflow that is configured with a file, each module once. Blocks.
fn load(host: &Host, workflows: &BTreeMap<String, WorkflowConfig>) -> anyhow::Result<Vec<(String, Module)>> {
    let mut compiled: HashMap<&Path, Module> = HashMap::new();
    let mut loaded = Vec::new();
    for (name, config) in workflows {
        let Some(file) = &config.file else { continue };
        let module = match compiled.get(file.as_path()) {
            Some(module) => module.clone(),
            None => {
                let bytes =
                    std::fs::read(file).with_context(|| format!("workflow {name}: cannot read {}", file.display()))?;
                host.compile(&file.display().to_string(), &bytes).with_context(|| format!("workflow {name}"))?
            }
        };
        compiled.insert(file, module.clone());
        loaded.push((name.clone(), module));
    }
    Ok(loaded)
}

fn report(data: &std::path::Path, recovery: &Recovery) {
    if let Some(trimmed) = &recovery.trimmed {
        warn!("trimmed: {trimmed}; a crash leaves that, and it was never acknowledged: nothing to do");
    }
    for damage in &recovery.damage {
        warn!("{damage}; the file is kept in {}", data.join("quarantine").display());
    }
    if !recovery.damage.is_empty() {
        warn!(
            "answers that may lack something because of it say so, until the file there is removed and the server \
             started again; to get the points back, restore a backup into another directory"
        );
    }
    let Recovery { series, points, log_bytes, .. } = recovery;
    info!("{}: {points} points in {series} series, a log of {log_bytes} bytes", data.display());
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use slung_model::SeriesKey;
    use slung_net::v1::{NackCode, Reply, encode_block};
    use slung_store::sim::SimVfs;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_tungstenite::tungstenite::Message;

    use super::*;

    /// The whole server on a disk that is full for a while.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_disk_is_told_reading_goes_on_and_writing_resumes() {
        let disk = Arc::new(SimVfs::new(7));
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), data, ..Config::default() };
        let running = Running::start_on(Arc::clone(&disk) as Arc<dyn Vfs>, config).await.unwrap();
        let base = format!("http://{}", running.addr);
        let get = async |path: &str| slung_net::client::http_get(&format!("{base}{path}")).await.unwrap();
        let addr = running.addr;
        let post = async || {
            let mut tcp = tokio::net::TcpStream::connect(addr).await.unwrap();
            let event = r#"{"timestamp":1,"value":1,"series":"http"}"#;
            let length = event.len();
            let request = format!(
                "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{event}"
            );
            tcp.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            tcp.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let url = format!("ws://{}/?protocol=slung.v1", running.addr);
        let (mut sender, mut receiver) = tokio_tungstenite::connect_async(url).await.unwrap().0.split();
        let key = SeriesKey::new("temp", ["sensor=1"]).unwrap();
        let mut sent = 0;
        let mut send = async || {
            let points: Vec<_> = (0..1_000).map(|index| (sent * 1_000 + index, 1.0)).collect();
            let mut message = Vec::new();
            encode_block(&key, &points, &mut message);
            sender.send(Message::binary(message)).await.unwrap();
            sent += 1;
        };
        // The next ack, or else the nack.
        let mut told = async || {
            loop {
                let frame = receiver.next().await.unwrap().unwrap().into_data();
                match Reply::decode(&frame) {
                    Some(Reply::Hello(_)) => {}
                    Some(Reply::Ack { through }) => return Ok(through),
                    Some(Reply::Nack { code, retryable, reason, .. }) => {
                        return Err((code, retryable, reason.to_owned()));
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        send().await;
        assert_eq!(told().await, Ok(1));

        disk.set_capacity(Some(disk.used() + 60_000));
        let mut acknowledged = 1;
        // What was taken before the disk was found full is not acknowledged until there is space: it is not waited for.
        let full = loop {
            send().await;
            match tokio::time::timeout(Duration::from_millis(20), told()).await {
                Ok(Ok(through)) => acknowledged = through,
                Ok(Err(nack)) => break nack,
                Err(_) => {}
            }
        };
        assert_eq!((full.0, full.1), (NackCode::Storage as u16, true));
        assert!(full.2.contains("disk is full"), "{}", full.2);
        let (status, body) = get("/health").await;
        assert_eq!(status, 503, "{body:?}");
        let answer = post().await;
        assert!(answer.starts_with("HTTP/1.1 507 ") && answer.contains("\"code\":\"disk_full\""), "{answer}");
        let (status, body) = get(&slung_net::client::query_path("COUNT:temp:[]")).await;
        assert!(status == 200 && body.starts_with(b"{\"value\":"), "{body:?}");

        disk.set_capacity(None);
        // An ack through the nacked message, which says that all before it is durable.
        while told().await.is_err() {}
        loop {
            send().await;
            if told().await.is_ok() && get("/health").await.0 == 200 {
                break;
            }
        }
        let answer = post().await;
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
        let count = running.engine.query(&slung_model::Query::parse("COUNT:temp:[]").unwrap()).unwrap().count;
        assert!(count >= acknowledged * 1_000, "{count} points, {acknowledged} messages were acknowledged before");
        running.stop().await.unwrap();
    }
}
