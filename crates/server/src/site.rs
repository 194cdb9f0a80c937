//! Where workflows are deployed: the host's trait on top of the engine and the configuration.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use slung_host::{Feed, Site, StartOptions, World};
use slung_live::{HandleStats, Subscriber};
use slung_net::{Counters, HttpClient, OutboundOptions};

use crate::try_out::Compiler;
use crate::workflow_config::WorkflowConfig;
use crate::world::{Surroundings, WorkflowWorld};

/// All workflows of a server.
pub(crate) type Deployments = slung_host::Deployments<ServerSite>;

/// What there is for every workflow.
pub(crate) struct ServerSite {
    around: Surroundings,
    /// By name.
    configs: BTreeMap<String, WorkflowConfig>,
    /// Clients of those workflows that have rules of their own.
    clients: BTreeMap<String, HttpClient>,
    compiler: Compiler,
}

impl ServerSite {
    /// `outbound` is what holds for whoever has no rules of his own.
    pub(crate) fn new(
        around: Surroundings,
        configs: BTreeMap<String, WorkflowConfig>,
        outbound: &OutboundOptions,
        counters: &Arc<Counters>,
        compiler: Compiler,
    ) -> anyhow::Result<Self> {
        let mut clients = BTreeMap::new();
        for (name, config) in &configs {
            if config.allow_hosts.is_none() && config.allow_public.is_none() {
                continue;
            }
            let options = OutboundOptions {
                allow: config.allow_rules()?.unwrap_or_else(|| outbound.allow.clone()),
                allow_public: config.allow_public.unwrap_or(outbound.allow_public),
                ..outbound.clone()
            };
            clients.insert(name.clone(), HttpClient::new(options, Arc::clone(counters)));
        }
        Ok(Self { around, configs, clients, compiler })
    }
}

impl Site for ServerSite {
    type Feed = ServerFeed;

    fn options(&self, name: &str, env: &BTreeMap<String, String>) -> Result<StartOptions, String> {
        match self.configs.get(name) {
            Some(config) => config.start_options(name, env),
            None => WorkflowConfig::default().start_options(name, env),
        }
    }

    fn feed(&self, name: &str) -> ServerFeed {
        let mut around = self.around.clone();
        if let Some(http) = self.clients.get(name) {
            around.http = http.clone();
        }
        let config = self.configs.get(name);
        let queue_updates_max = config.and_then(|config| config.queue_updates_max);
        let subscriber = match queue_updates_max {
            Some(updates) => Subscriber::new(updates.get()),
            None => around.engine.subscriber(),
        };
        around.engine.hold(&subscriber);
        let answers_anybody = config.is_some_and(|config| config.answers_anybody);
        ServerFeed { name: name.to_owned(), around, subscriber, answers_anybody, past: Mutex::default() }
    }

    fn switch(&self, from: Option<&ServerFeed>, to: &ServerFeed) -> u64 {
        let seq = self.around.engine.switch(from.map(|from| &from.subscriber), &to.subscriber);
        if let Some(from) = from {
            *to.past.lock().unwrap_or_else(PoisonError::into_inner) = from.counted();
        }
        seq.0
    }

    fn try_out(&self, name: &str, module: &[u8]) -> Result<(), String> {
        self.compiler.try_out(name, module)
    }
}

/// What came of the updates for a workflow, of all of its versions together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counted {
    /// Merged into one that waited, because the workflow is slow.
    pub(crate) merged: u64,
    /// Raw ones that were dropped, because the workflow is slow.
    pub(crate) dropped: u64,
    /// Events that were older than a window.
    pub(crate) late: u64,
    /// Waiting now.
    pub(crate) waiting: u64,
}

/// The end of the stream that belongs to one version of a workflow.
pub(crate) struct ServerFeed {
    name: String,
    around: Surroundings,
    subscriber: Arc<Subscriber>,
    answers_anybody: bool,
    /// Of those before it.
    past: Mutex<Counted>,
}

impl ServerFeed {
    /// What came of its updates.
    pub(crate) fn counted(&self) -> Counted {
        let past = *self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let HandleStats { merged, dropped, late, waiting, .. } = self.subscriber.stats();
        Counted {
            merged: past.merged + merged,
            dropped: past.dropped + dropped,
            late: past.late + late,
            waiting: waiting as u64,
        }
    }
}

impl Feed for ServerFeed {
    fn world(&self) -> Arc<dyn World> {
        let (name, around, subscriber) = (self.name.clone(), self.around.clone(), Arc::clone(&self.subscriber));
        Arc::new(WorkflowWorld::new(name, around, subscriber, self.answers_anybody))
    }

    fn waiting(&self) -> usize {
        self.subscriber.stats().waiting
    }
}
