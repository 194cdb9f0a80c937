//! What the network sees: its trait on top of the engine.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use slung_engine::Engine;
use slung_model::{Point, ProducerId, Query, Seq, SeriesId, SeriesKey};
use slung_net::{Backend, QueryAnswer, QueryRefused, Updates, WriteRefused};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::watch::{Watch, WatchCounters};

/// The engine as the network uses it.
pub(crate) struct EngineBackend {
    engine: Arc<Engine>,
    durable: watch::Receiver<Seq>,
    metrics: Metrics,
    watched: Arc<WatchCounters>,
}

impl EngineBackend {
    /// `durable` follows what the engine has committed, `watched` counts for the streams of live queries.
    pub(crate) fn new(
        engine: Arc<Engine>,
        durable: watch::Receiver<Seq>,
        metrics: Metrics,
        watched: Arc<WatchCounters>,
    ) -> Self {
        Self { engine, durable, metrics, watched }
    }
}

impl Backend for EngineBackend {
    fn now_micros(&self) -> i64 {
        self.engine.now_micros()
    }

    fn ahead_micros_max(&self) -> i64 {
        self.engine.ahead_micros_max()
    }

    fn resolve(&self, key: &SeriesKey) -> Result<SeriesId, WriteRefused> {
        self.engine.resolve(key).map_err(refused)
    }

    fn try_write(&self, producer: Option<ProducerId>, points: &[Point]) -> Result<Seq, WriteRefused> {
        self.engine.try_write(producer, points).map_err(refused)
    }

    fn durable(&self) -> watch::Receiver<Seq> {
        self.durable.clone()
    }

    fn query(&self, text: &str) -> BoxFuture<'_, Result<QueryAnswer, QueryRefused>> {
        let answer = Query::parse(text)
            .map_err(|error| QueryRefused { at: Some(error.at), what: error.what })
            .and_then(|query| {
                let answer =
                    self.engine.query(&query).map_err(|error| QueryRefused { at: None, what: error.to_string() })?;
                Ok(QueryAnswer {
                    query: query.to_string(),
                    value: answer.value,
                    count: answer.count,
                    range: answer.range,
                })
            });
        std::future::ready(answer).boxed()
    }

    fn live(&self, text: &str) -> Result<Updates, QueryRefused> {
        let query = Query::parse(text).map_err(|error| QueryRefused { at: Some(error.at), what: error.what })?;
        query.window().map_err(|error| QueryRefused { at: Some(error.at(text)), what: error.to_string() })?;
        let watch = Watch::new(Arc::clone(&self.engine), &query, Arc::clone(&self.watched))
            .map_err(|error| QueryRefused { at: None, what: error.to_string() })?;
        Ok(watch.boxed())
    }

    fn health(&self) -> Result<(), String> {
        self.engine.health().map_err(|error| error.to_string())
    }

    fn metrics(&self) -> String {
        self.metrics.render()
    }

    fn producer_closed(&self, producer: ProducerId) {
        self.engine.producer_closed(producer);
    }
}

/// What is wrong with the points themselves, and what with the place where they should go.
fn refused(error: slung_engine::Error) -> WriteRefused {
    use slung_store::Error as Store;
    match error {
        slung_engine::Error::Busy => WriteRefused::Busy,
        slung_engine::Error::Point { .. } | slung_engine::Error::Store(Store::TooManySeries { .. }) => {
            WriteRefused::Invalid(error.to_string())
        }
        other => WriteRefused::Storage(other.to_string()),
    }
}
