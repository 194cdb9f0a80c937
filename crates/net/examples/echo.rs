//! A server that sends every message back as it came, through the code that takes events otherwise: what suites that test
//! WebSocket against RFC 6455 connect to.
//!
//! ```sh
//! cargo run -p slung-net --example echo -- 127.0.0.1:9001
//! ```
#![expect(clippy::print_stdout, reason = "whoever starts it is told where it listens")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use slung_model::{Point, ProducerId, Seq, SeriesId, SeriesKey, TimeRange};
use slung_net::{Backend, Buckets, Counters, Deleted, IN_FLIGHT_BYTES_MAX, Memory, Place, PointsPage, Producers};
use slung_net::{QUEUE_BYTES_MAX, QueryAnswer, QueryRefused, Server, ServerOptions, Updates, WorkflowChange};
use slung_net::{WorkflowLog, WorkflowRefused, WorkflowStatus, WriteRefused};
use tokio::sync::watch;

/// The longest message, bytes: as long as any that the suites send.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Behind an echo there is nothing.
struct Nothing(watch::Sender<Seq>);

fn nothing<T: Send + 'static>() -> BoxFuture<'static, Result<T, QueryRefused>> {
    std::future::ready(Err(QueryRefused { at: None, what: "this is an echo".to_owned() })).boxed()
}

impl Backend for Nothing {
    fn now_micros(&self) -> i64 {
        0
    }

    fn ahead_micros_max(&self) -> i64 {
        0
    }

    fn commit_interval(&self) -> Duration {
        Duration::ZERO
    }

    fn resolve(&self, _: &SeriesKey) -> Result<SeriesId, WriteRefused> {
        Err(WriteRefused::Invalid("this is an echo".to_owned()))
    }

    fn try_write(&self, _: Option<ProducerId>, _: &[Point]) -> Result<Seq, WriteRefused> {
        Ok(Seq::default())
    }

    fn durable(&self) -> watch::Receiver<Seq> {
        self.0.subscribe()
    }

    fn query(&self, _: &str) -> BoxFuture<'_, Result<QueryAnswer, QueryRefused>> {
        nothing()
    }

    fn buckets(&self, _: &str, _: i64, _: usize) -> BoxFuture<'_, Result<Buckets, QueryRefused>> {
        nothing()
    }

    fn points(
        &self,
        _: &str,
        _: Option<(Place, TimeRange)>,
        _: usize,
    ) -> BoxFuture<'_, Result<PointsPage, QueryRefused>> {
        nothing()
    }

    fn series(
        &self,
        _: Option<&str>,
        _: Option<SeriesId>,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<(SeriesId, Arc<SeriesKey>)>, QueryRefused>> {
        nothing()
    }

    fn tags(
        &self,
        _: Option<&str>,
        _: Option<&str>,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<(String, u64)>, QueryRefused>> {
        nothing()
    }

    fn delete(&self, _: &str) -> BoxFuture<'_, Result<Deleted, QueryRefused>> {
        nothing()
    }

    fn live(&self, _: &str) -> BoxFuture<'_, Result<Updates, QueryRefused>> {
        nothing()
    }

    fn workflows(&self) -> Vec<WorkflowStatus> {
        Vec::new()
    }

    fn workflow(&self, _: &str) -> Option<WorkflowStatus> {
        None
    }

    fn change_workflow(&self, _: &str, _: WorkflowChange) -> BoxFuture<'_, Result<WorkflowStatus, WorkflowRefused>> {
        std::future::ready(Err(WorkflowRefused::Conflict("this is an echo".to_owned()))).boxed()
    }

    fn workflow_log(&self, _: &str, _: usize, _: bool) -> Result<WorkflowLog, WorkflowRefused> {
        Err(WorkflowRefused::NotFound("this is an echo".to_owned()))
    }

    fn health(&self) -> Result<(), WriteRefused> {
        Ok(())
    }

    fn metrics(&self) -> String {
        String::new()
    }

    fn producer_closed(&self, _: ProducerId) {}
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let options = ServerOptions { echo: true, message_bytes_max: MESSAGE_BYTES_MAX, ..ServerOptions::default() };
    let memory = Memory::new(IN_FLIGHT_BYTES_MAX);
    let producers = Producers::new(QUEUE_BYTES_MAX, memory, Arc::new(Counters::default()));
    let server = Server::bind(listen, options, Arc::new(Nothing(watch::Sender::default())), producers).await?;
    println!("echo at ws://{}/", server.local_addr());
    server.run(std::future::pending()).await;
    Ok(())
}
