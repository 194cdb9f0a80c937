//! What the network sees: its trait on top of the engine.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use slung_engine::Engine;
use slung_model::{Op, Point, ProducerId, Query, Seq, SeriesId, SeriesKey, TimeRange};
use slung_net::{
    Backend, Bucket, Buckets, Deleted, Place, PointsPage, PointsRun, QueryAnswer, QueryRefused, SeriesPage, Updates,
    WorkflowChange, WorkflowLog, WorkflowRefused, WorkflowStatus, WriteRefused,
};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::info;

use crate::metrics::Metrics;
use crate::show::count;
use crate::site::Deployments;
use crate::watch::{Watch, WatchCounters};
use crate::workflows::{self, status};

/// The engine as the network uses it.
pub(crate) struct EngineBackend {
    engine: Arc<Engine>,
    durable: watch::Receiver<Seq>,
    commit_interval: Duration,
    workflows: Deployments,
    metrics: Metrics,
    watched: Arc<WatchCounters>,
}

impl EngineBackend {
    /// `durable` follows what the engine has committed, each `commit_interval` under load; `watched` counts for the streams of live queries.
    pub(crate) fn new(
        engine: Arc<Engine>,
        durable: watch::Receiver<Seq>,
        commit_interval: Duration,
        workflows: Deployments,
        metrics: Metrics,
        watched: Arc<WatchCounters>,
    ) -> Self {
        Self { engine, durable, commit_interval, workflows, metrics, watched }
    }

    /// Parses a query and does something with it that may read from disk, away from the runtime's own threads. What was begun
    /// goes on when nobody waits for it any more.
    fn blocking<T: Send + 'static>(
        &self,
        text: &str,
        work: impl FnOnce(&Engine, &Query) -> Result<T, slung_engine::Error> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, QueryRefused>> {
        self.blocking_with(Some(text), move |engine, query| work(engine, query.expect("there is a text")))
    }

    /// As [`EngineBackend::blocking`], where there may be no query.
    fn blocking_with<T: Send + 'static>(
        &self,
        text: Option<&str>,
        work: impl FnOnce(&Engine, Option<&Query>) -> Result<T, slung_engine::Error> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, QueryRefused>> {
        let query = text.map(Query::parse).transpose();
        let query = query.map_err(|error| QueryRefused { at: Some(error.at), what: error.what });
        let engine = Arc::clone(&self.engine);
        async move {
            let query = query?;
            let failed = |error: &dyn std::fmt::Display| QueryRefused { at: None, what: error.to_string() };
            match spawn_blocking(move || work(&engine, query.as_ref())).await {
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
                damage: words(&answer.damage),
            })
        })
    }

    fn buckets(
        &self,
        text: &str,
        step_micros: i64,
        buckets_max: usize,
    ) -> BoxFuture<'_, Result<Buckets, QueryRefused>> {
        self.blocking(text, move |engine, query| {
            let answer = engine.buckets(query, step_micros, buckets_max)?;
            let one = |it: &slung_store::BucketValue| Bucket { start: it.start, value: it.value, count: it.count };
            Ok(Buckets {
                query: query.to_string(),
                series: answer.series,
                range: answer.range,
                buckets: answer.buckets.iter().map(one).collect(),
                damage: words(&answer.damage),
            })
        })
    }

    fn points(
        &self,
        text: &str,
        after: Option<(Place, TimeRange)>,
        points_max: usize,
    ) -> BoxFuture<'_, Result<PointsPage, QueryRefused>> {
        self.blocking(text, move |engine, query| {
            let after = after.map(|(Place { series, timestamp }, range)| (series, timestamp, range));
            let page = engine.points(query, after, points_max)?;
            let runs = page.points.chunk_by(|a, b| a.series == b.series).filter_map(|run| {
                let points = run.iter().map(|point| (point.timestamp, point.value)).collect();
                // It is known, as it has points.
                Some(PointsRun { series: run[0].series, key: engine.key(run[0].series)?, points })
            });
            let runs = runs.collect();
            Ok(PointsPage { range: page.range, runs, more: page.more, damage: words(&page.damage) })
        })
    }

    fn series(
        &self,
        text: Option<&str>,
        after: Option<SeriesId>,
        series_max: usize,
    ) -> BoxFuture<'_, Result<SeriesPage, QueryRefused>> {
        self.blocking_with(text, move |engine, query| Ok(engine.series(query, after, series_max)))
    }

    fn tags(
        &self,
        text: Option<&str>,
        after: Option<&str>,
        tags_max: usize,
    ) -> BoxFuture<'_, Result<Vec<(String, u64)>, QueryRefused>> {
        let after = after.map(str::to_owned);
        self.blocking_with(text, move |engine, query| Ok(engine.tags(query, after.as_deref(), tags_max)))
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

    fn workflows(&self) -> Vec<WorkflowStatus> {
        self.workflows.list().into_iter().map(status).collect()
    }

    fn workflow(&self, name: &str) -> Option<WorkflowStatus> {
        self.workflows.get(name).map(status)
    }

    fn change_workflow(
        &self,
        name: &str,
        change: WorkflowChange,
    ) -> BoxFuture<'_, Result<WorkflowStatus, WorkflowRefused>> {
        let name = name.to_owned();
        async move {
            let changed = self.workflows.change(&name, workflows::change(change)).await;
            changed.map(status).map_err(workflows::refused)
        }
        .boxed()
    }

    fn workflow_log(&self, name: &str, lines: usize, follow: bool) -> Result<WorkflowLog, WorkflowRefused> {
        let workflow = self.workflows.get(name);
        let workflow = workflow.ok_or_else(|| WorkflowRefused::NotFound(format!("there is no workflow {name}")))?;
        Ok(workflows::log(workflow.log, lines, follow))
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

fn words(damage: &[slung_store::Damage]) -> Vec<String> {
    damage.iter().map(ToString::to_string).collect()
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
