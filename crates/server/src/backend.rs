//! What the network sees: its trait on top of the engine.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use slung_engine::Engine;
use slung_model::{Op, Point, ProducerId, Query, Seq, SeriesId, SeriesKey};
use slung_net::{Backend, Deleted, QueryAnswer, QueryRefused, Updates, WriteRefused};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::info;

use crate::metrics::Metrics;
use crate::show::count;
use crate::watch::{Watch, WatchCounters};

/// The engine as the network uses it.
pub(crate) struct EngineBackend {
    engine: Arc<Engine>,
    durable: watch::Receiver<Seq>,
    commit_interval: Duration,
    metrics: Metrics,
    watched: Arc<WatchCounters>,
}

impl EngineBackend {
    /// `durable` follows what the engine has committed, each `commit_interval` under load; `watched` counts for the streams of live queries.
    pub(crate) fn new(
        engine: Arc<Engine>,
        durable: watch::Receiver<Seq>,
        commit_interval: Duration,
        metrics: Metrics,
        watched: Arc<WatchCounters>,
    ) -> Self {
        Self { engine, durable, commit_interval, metrics, watched }
    }

    /// Parses a query and does something with it that may read from disk, away from the runtime's own threads. What was begun
    /// goes on when nobody waits for it any more.
    fn blocking<T: Send + 'static>(
        &self,
        text: &str,
        work: impl FnOnce(&Engine, &Query) -> Result<T, slung_engine::Error> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, QueryRefused>> {
        let query = Query::parse(text).map_err(|error| QueryRefused { at: Some(error.at), what: error.what });
        let engine = Arc::clone(&self.engine);
        async move {
            let query = query?;
            let failed = |error: &dyn std::fmt::Display| QueryRefused { at: None, what: error.to_string() };
            match spawn_blocking(move || work(&engine, &query)).await {
                Ok(done) => done.map_err(|error| failed(&error)),
                Err(panicked) => Err(failed(&panicked)),
            }
        }
        .boxed()
    }
}

impl Backend for EngineBackend {
    fn now_micros(&self) -> i64 {
        self.engine.now_micros()
    }

    fn ahead_micros_max(&self) -> i64 {
        self.engine.ahead_micros_max()
    }

    fn commit_interval(&self) -> Duration {
        self.commit_interval
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
        self.blocking(text, |engine, query| {
            let answer = engine.query(query)?;
            Ok(QueryAnswer {
                query: query.to_string(),
                value: answer.value,
                count: answer.count,
                series: answer.series,
                range: answer.range,
                damage: answer.damage.iter().map(ToString::to_string).collect(),
            })
        })
    }

    fn delete(&self, text: &str) -> BoxFuture<'_, Result<Deleted, QueryRefused>> {
        if let Ok(query) = Query::parse(text)
            && query.op() != Op::Raw
        {
            let what = format!("{} computes something: name the points to delete without it", query.op());
            return std::future::ready(Err(QueryRefused { at: Some(0), what })).boxed();
        }
        self.blocking(text, |engine, query| {
            let slung_store::Deleted { points, segments } = engine.delete(query)?;
            let (shown, written) = (count(points, "point", "points"), count(segments, "segment", "segments"));
            info!("deleted {query}: {shown}; {written} written anew or removed");
            Ok(Deleted { points, segments })
        })
    }

    fn live(&self, text: &str) -> BoxFuture<'_, Result<Updates, QueryRefused>> {
        let not_live = Query::parse(text).ok().and_then(|query| query.window().err());
        if let Some(error) = not_live {
            let refused = QueryRefused { at: Some(error.at(text)), what: error.to_string() };
            return std::future::ready(Err(refused)).boxed();
        }
        let (engine, watched) = (Arc::clone(&self.engine), Arc::clone(&self.watched));
        self.blocking(text, move |_, query| Ok(Watch::new(engine, query, watched)?.boxed()))
    }

    fn health(&self) -> Result<(), WriteRefused> {
        self.engine.health().map_err(refused)
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
        slung_engine::Error::Store(Store::DiskFull { .. }) => WriteRefused::Full(error.to_string()),
        slung_engine::Error::Store(Store::BatchTooBig { .. }) => WriteRefused::TooBig(error.to_string()),
        slung_engine::Error::Point { .. } | slung_engine::Error::Store(Store::TooManySeries { .. }) => {
            WriteRefused::Invalid(error.to_string())
        }
        other => WriteRefused::Storage(other.to_string()),
    }
}
