//! The host: owns the threads that workflows run on, and starts workflows.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use wasmtime::Engine;

use crate::check::{LoadError, Report};
use crate::guest::{Guest, Limits};
use crate::journal::{Journal, Logger};
use crate::log::Log;
use crate::module::{Loader, Module};
use crate::options::{HostOptions, StartOptions};
use crate::poll::Handles;
use crate::restarts::{Failures, RestartOptions};
use crate::stats::Counters;
use crate::ticker::Ticker;
use crate::workflow::{Ending, Failure, State, Workflow, supervise};
use crate::world::World;

/// Why there is no host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
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

/// Runs workflows, on threads of its own. Dropping it stops all of them, within milliseconds, and does not wait for
/// that; [`close`](Self::close) does.
pub struct Host {
    loader: Loader,
    options: HostOptions,
    core: Option<Arc<Core>>,
    runtime: Option<Runtime>,
    threads: Vec<JoinHandle<()>>,
}

impl Host {
    /// A host without workflows: its threads are started, and idle.
    ///
    /// # Errors
    /// The machine does not let it: no address space, no threads, a processor that wasmtime does not know.
    pub fn new(options: HostOptions) -> Result<Self, HostError> {
        let loader = Loader::new(&options).map_err(|error| HostError::Engine(format!("{error:#}")))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.worker_threads.get())
            .thread_name("slung-guest")
            .enable_all()
            .build()?;
        let core = Arc::new(Core { ticker: Arc::default(), logger: Arc::default() });
        let mut host =
            Self { loader, options, core: Some(Arc::clone(&core)), runtime: Some(runtime), threads: Vec::new() };

        let (ticker, engine) = (Arc::clone(&core.ticker), host.loader.engine().weak());
        let tick = Duration::from_millis(host.options.epoch_tick_ms.max(1));
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
        self.launch(module, options, log, move || world.take().expect("it runs once"), None)
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
        self.launch(module, options, log, world, Some(Failures::new(restarts)))
    }

    fn launch(
        &self,
        module: &Module,
        options: StartOptions,
        Log { journal }: Log,
        mut world: impl FnMut() -> Arc<dyn World> + Send + 'static,
        failures: Option<Failures>,
    ) -> Workflow {
        let counters = Arc::<Counters>::default();
        let (core, runtime) = (self.core.as_ref(), self.runtime.as_ref());
        let (core, runtime) = core.zip(runtime).expect("both are there until the host is dropped");
        let name = options.name.clone();
        let guest = {
            let (host, ticker) = (self.options.clone(), Arc::clone(&core.ticker));
            let (counters, journal) = (Arc::clone(&counters), Arc::clone(&journal));
            move || {
                let world = world();
                let limits = Limits {
                    memory_bytes_max: host.memory_bytes_max,
                    table_elements_max: host.table_elements_max,
                    counters: Arc::clone(&counters),
                };
                Guest::new(
                    &options,
                    Arc::clone(&world),
                    Handles::new(world, host.handles_max),
                    limits,
                    Arc::clone(&ticker),
                    Arc::clone(&counters),
                    Arc::clone(&journal),
                )
            }
        };
        let (state_sender, state) = watch::channel(State::Running);
        let (stop_sender, stop_receiver) = watch::channel(false);
        let stop = Arc::new(stop_sender);
        let ending = Ending {
            journal: Arc::clone(&journal),
            state: state_sender,
            _stop: Arc::clone(&stop),
            _core: Arc::clone(core),
        };
        if Engine::same(self.loader.engine(), module.pre().module().engine()) {
            let (pre, entry) = (module.pre().clone(), module.entry());
            runtime.spawn(supervise(ending, stop_receiver, pre, entry, Arc::clone(&counters), guest, failures));
        } else {
            // Nobody would tick for it here.
            ending.say(State::Failed(Failure::Start("the module was compiled by another host".to_owned())));
        }
        Workflow { name, counters, journal, state, stop }
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
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.core = None;
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// The load-time checks alone, with the default [`HostOptions`]: what the module is, if it could be run. `name` is what
/// errors call it. Blocks like [`Host::compile`].
///
/// # Errors
/// All that is wrong with the module.
pub fn check(name: &str, bytes: &[u8]) -> Result<Report, LoadError> {
    let options = HostOptions::default();
    let loader = Loader::new(&options).map_err(|error| LoadError::no_engine(name, &error))?;
    Ok(loader.load(name, bytes, &options)?.report().clone())
}
