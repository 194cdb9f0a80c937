//! The network against real clients on real sockets, with a backend behind it that can be told to misbehave.
#![expect(clippy::unwrap_used, reason = "what goes wrong in a test's helpers fails the test")]

mod backend;
mod book;
mod crowd;
mod delivery;
mod echo;
mod frames;
mod framing;
mod fuzz;
mod http_api;
mod http_events;
mod http_reads;
mod live;
mod load;
mod outbound;
mod producer;
mod properties;
mod protocol;
mod rfc6455;
mod rig;
mod scripted;
mod shelf;
mod shutdown;
mod silence;
mod targets;
mod v1;
mod web;
mod workflows;
mod writeback;
