//! The host: owns the threads that workflows run on, and starts workflows.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::watch;
use wasmtime::Engine;

use crate::check::{LoadError, Report};
use crate::gate::Gate;
use crate::guest::{Guest, Limits};
use crate::journal::{Journal, Logger};
use crate::log::Log;
use crate::module::{Loader, Module};
use crate::options::{HostOptions, StartOptions};
use crate::poll::Handles;
use crate::pool::{Pool, Resident, Turn};
use crate::restarts::{Failures, RestartOptions};
use crate::stats::Counters;
use crate::ticker::Ticker;
use crate::workflow::{Ending, Failure, State, Workflow, supervise};
use crate::world::World;

/// Why there is no host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// An option is outside of what there can be.
    #[error("{0}")]
    Options(String),
    /// wasmtime can't run here.
    #[error("the WebAssembly engine can't be set up on this machine: {0}")]
    Engine(String),
    /// A thread can't be started.
    #[error("a thread of the workflow host can't be started: {0}")]
    Thread(#[from] io::Error),
}

/// What lives as long as the host or a workflow of it does.
pub(crate) struct Core {
    ticker: Arc<Ticker>,
    logger: Arc<Logger>,
}

impl Drop for Core {
    fn drop(&mut self) {
        self.ticker.close();
        self.logger.close();
    }
}

/// The tokio runtime of the guests. Every thread that may run one keeps it: it ends with the last of them.
struct Runtime(Option<tokio::runtime::Runtime>);

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runs workflows, on threads of its own. Dropping it stops all of them, within milliseconds, and does not wait for
/// that; [`close`](Self::close) does.
pub struct Host {
    loader: Loader,
    options: HostOptions,
    core: Option<Arc<Core>>,
    runtime: Option<Arc<Runtime>>,
    pool: Arc<Pool>,
    threads: Vec<JoinHandle<()>>,
}

impl Host {
    /// A host without workflows: its threads are started, and idle.
    ///
    /// # Errors
    /// An option can't be as it is. Or the machine does not let it: no address space, no threads, a processor that wasmtime does not know.
    pub fn new(options: HostOptions) -> Result<Self, HostError> {
        options.check().map_err(HostError::Options)?;
        let loader = Loader::new(&options).map_err(|error| HostError::Engine(format!("{error:#}")))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.worker_threads.get())
            .thread_name("slung-guest")
            .enable_all()
            .build()?;
        let core = Arc::new(Core { ticker: Arc::default(), logger: Arc::default() });
        let pool = Pool::new(runtime.handle().clone());
        let runtime = Arc::new(Runtime(Some(runtime)));
        let mut host = Self {
            loader,
            options,
            core: Some(Arc::clone(&core)),
            runtime: Some(Arc::clone(&runtime)),
            pool: Arc::clone(&pool),
            threads: Vec::new(),
        };
        for _ in 0..host.options.worker_threads.get() {
            let (pool, runtime) = (Arc::clone(&pool), Arc::clone(&runtime));
            let guests = move || {
                pool.run();
                drop(runtime);
            };
            host.threads.push(std::thread::Builder::new().name("slung-guest-low".to_owned()).spawn(guests)?);
        }

        let (ticker, engine) = (Arc::clone(&core.ticker), host.loader.engine().weak());
        let tick = host.options.tick();
        let ticks = move || ticker.run(&engine, tick);
        host.threads.push(std::thread::Builder::new().name("slung-epoch".to_owned()).spawn(ticks)?);
        let logger = Arc::clone(&core.logger);
        let logs = move || logger.run();
        host.threads.push(std::thread::Builder::new().name("slung-log".to_owned()).spawn(logs)?);
        Ok(host)
    }

    /// Checks and compiles a module; `name` is what errors call it.
    ///
    /// Blocks the calling thread until it is done: some 100 ms for a small module, seconds for a large one. It uses all
    /// processors, on threads beside those that run guests. In asynchronous code, call it inside `spawn_blocking`.
    ///
    /// # Errors
    /// All that is wrong with the module.
    pub fn compile(&self, name: &str, bytes: &[u8]) -> Result<Module, LoadError> {
        self.loader.load(name, bytes, &self.options)
    }

    /// An empty log for workflows of that name, one after the other.
    pub fn log(&self, name: &str) -> Log {
        let core = self.core.as_ref().expect("it is there until the host is dropped");
        Log { journal: Journal::new(Arc::clone(&core.logger), name.to_owned(), &self.options) }
    }

    /// Starts a workflow in that world. Returns at once; how it goes is told by the [`Workflow`]. It runs once: one that
    /// fails has failed.
    ///
    /// With a module that another host has compiled, that is a workflow that has failed.
    pub fn start(&self, module: &Module, options: StartOptions, world: Arc<dyn World>) -> Workflow {
        let mut world = Some(world);
        let log = self.log(&options.name);
        self.launch(module, options, log, move || world.take().expect("it runs once"), None, Gate::open())
    }

    /// Starts a workflow that is started again where it fails, each time in a new instance and in a new `world`. Its counters
    /// go on, and so does its log; what it was held to in a second begins anew. Who has done his work is not started again.
    pub fn supervise(
        &self,
        module: &Module,
        options: StartOptions,
        restarts: RestartOptions,
        world: impl FnMut() -> Arc<dyn World> + Send + 'static,
    ) -> Workflow {
        let log = self.log(&options.name);
        self.launch(module, options, log, world, Some(Failures::new(restarts)), Gate::open())
    }

    pub(crate) fn launch(
        &self,
        module: &Module,
        options: StartOptions,
        Log { journal }: Log,
        mut world: impl FnMut() -> Arc<dyn World> + Send + 'static,
        failures: Option<Failures>,
        gate: Gate,
    ) -> Workflow {
        let gate = Arc::new(gate);
        let counters = Arc::<Counters>::default();
        let core = self.core.as_ref().expect("it is there until the host is dropped");
        let turn = Turn::new(self.options.tick());
        let name = options.name.clone();
        let guest = {
            let (host, ticker) = (self.options.clone(), Arc::clone(&core.ticker));
            let (counters, turn) = (Arc::clone(&counters), Arc::clone(&turn));
            let (gate, journal) = (Arc::clone(&gate), Arc::clone(&journal));
            move || {
                let world = world();
                let limits = Limits {
                    memory_bytes_max: least(options.memory_bytes_max, host.memory_bytes_max),
                    table_elements_max: host.table_elements_max,
                    counters: Arc::clone(&counters),
                };
                Guest::new(
                    &options,
                    Arc::clone(&world),
                    Handles::new(world, least(options.handles_max, host.handles_max), Arc::clone(&gate)),
                    limits,
                    Arc::clone(&ticker),
                    Arc::clone(&turn),
                    Arc::clone(&journal),
                )
            }
        };
        let (state_sender, state) = watch::channel(State::Running);
        let (stop_sender, stop_receiver) = watch::channel(false);
        let stop = Arc::new(stop_sender);
        let ending = Ending {
            gate: Arc::clone(&gate),
            journal: Arc::clone(&journal),
            state: state_sender,
            _stop: Arc::clone(&stop),
            _core: Arc::clone(core),
        };
        if Engine::same(self.loader.engine(), module.pre().module().engine()) {
            let (pre, entry) = (module.pre().clone(), module.entry());
            let life = supervise(ending, stop_receiver.clone(), pre, entry, Arc::clone(&counters), guest, failures);
            self.pool.start(Resident::new(life, Arc::clone(&turn), Arc::clone(&counters), stop_receiver));
        } else {
            // Nobody would tick for it here.
            ending.say(State::Failed(Failure::Start("the module was compiled by another host".to_owned())));
        }
        Workflow { name, counters, gate, journal, state, stop, pool: Arc::clone(&self.pool), turn }
    }

    /// Stops all workflows and waits until they have ended and their last lines are logged: milliseconds, unless a
    /// [`World`] or the log blocks.
    pub fn close(mut self) {
        self.shut_down();
        for thread in self.threads.drain(..) {
            // Its panic, if any, has been reported by the panic hook.
            let _ = thread.join();
        }
    }

    fn shut_down(&mut self) {
        self.pool.close();
        self.runtime = None;
        self.core = None;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// What is allowed to one of all.
fn least(one: Option<usize>, all: usize) -> usize {
    one.map_or(all, |one| one.min(all))
}

/// The load-time checks alone, compiling included: what the module is, if it could be run by a host with these options. `name`
/// is what errors call it. Blocks like [`Host::compile`]. With [`HostOptions::cache_dir`] a host finds there what was compiled.
///
/// # Errors
/// All that is wrong with the module.
pub fn check(options: &HostOptions, name: &str, bytes: &[u8]) -> Result<Report, LoadError> {
    let loader = Loader::new(options).map_err(|error| LoadError::no_engine(name, &error))?;
    Ok(loader.load(name, bytes, options)?.report().clone())
}
