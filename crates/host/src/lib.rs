//! Runs untrusted workflows on wasmtime and marshals Regions. Reaches the world only through one trait, [`World`].
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod bucket;
mod check;
mod deployments;
mod gate;
mod guest;
mod host;
mod imports;
mod journal;
mod log;
mod module;
mod options;
mod poll;
mod pool;
mod reactions;
mod restarts;
mod stats;
mod text;
mod ticker;
mod wasi;
mod workflow;
mod world;

pub use check::{Entry, LoadError, Problem, Report};
pub use deployments::{
    DeployChange, DeployError, DeployOptions, Deployment, Deployments, Feed, NAME_BYTES_MAX, Site, Version, check_name,
    copy_deployments,
};
pub use futures_util::future::BoxFuture;
pub use host::{Host, HostError, check};
pub use log::{Log, LogLevel, LogLine, LogPage, LogSource};
pub use module::Module;
pub use options::{HostOptions, StartOptions};
pub use reactions::Reactions;
pub use restarts::RestartOptions;
pub use slung_abi::HttpMethod;
pub use stats::{Calls, Stats};
pub use workflow::{Failure, State, Workflow};
pub use world::{NewEvent, Refusal, World};
