//! Everything of Slung that is on a socket: WebSocket ingest and writeback, the HTTP API, and workflows' calls to the
//! outside. It sees the rest through one trait, [`Backend`].
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod acks;
mod backend;
pub mod client;
mod connection;
mod http;
mod intake;
mod keys;
mod live;
mod memory;
mod outbound;
mod producers;
mod server;
mod socket;
mod stall;
mod stats;
pub mod v1;
pub mod wire;
mod workflows;

pub use backend::{
    Backend, Bucket, Buckets, Deleted, Place, PointsPage, PointsRun, QueryAnswer, QueryRefused, SeriesPage, Updates,
    WriteRefused,
};
pub use http::ErrorCode;
pub use memory::{IN_FLIGHT_BYTES_MAX, Memory};
pub use outbound::{
    AllowRule, HttpClient, HttpMethod, HttpResponse, OutboundError, OutboundOptions, Refusal, Resolve, RuleError,
    SystemResolver,
};
pub use producers::{ProducerInfo, Producers, QUEUE_BYTES_MAX, WritebackError};
pub use server::{Server, ServerOptions};
pub use stats::{Counters, FrameRefusal, OutboundOutcome, Route, Stats, WritebackFailure};
pub use workflows::{
    ENV_NAME_BYTES_MAX, ENV_VALUE_BYTES_MAX, ENV_VARIABLES_MAX, LogEntry, LogLevel, LogLine, LogSource,
    WORKFLOW_NAME_BYTES_MAX, WorkflowCalls, WorkflowChange, WorkflowLog, WorkflowReaction, WorkflowRefused,
    WorkflowState, WorkflowStatus, WorkflowVersion, check_env, check_workflow_name,
};
