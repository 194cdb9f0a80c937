//! What stands behind the network in these tests: keeps everything, and can be busy, broken or choosy.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{self, StreamExt};
use slung_model::{Point, ProducerId, Query, Seq, SeriesId, SeriesKey, TimeRange};
use slung_net::{
    Backend, Bucket, Buckets, Counters, Deleted, Place, PointsPage, PointsRun, QueryAnswer, QueryRefused, SeriesPage,
    Updates, WorkflowChange, WorkflowLog, WorkflowRefused, WorkflowStatus, WriteRefused,
};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::{Notify, watch};

use crate::shelf::Shelf;

/// The backend's clock at the start of a test.
pub(crate) const NOW: i64 = 1_700_000_000_000_000;

/// Longer than anything here takes, however slow the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct State {
    /// Every point, with the producer that it came from.
    pub(crate) stored: Vec<(u64, Point)>,
    /// How many points each write brought.
    pub(crate) writes: Vec<usize>,
    pub(crate) keys: Vec<SeriesKey>,
    pub(crate) ids: HashMap<SeriesKey, SeriesId>,
    /// How often a key was asked for.
    pub(crate) resolved: usize,
    pub(crate) closed: Vec<u64>,
    /// No room for points.
    pub(crate) busy: bool,
    /// No room for new series.
    pub(crate) busy_resolving: bool,
    /// How often there was no room.
    pub(crate) times_busy: usize,
    /// Storage has failed.
    pub(crate) failed: Option<String>,
    /// The disk is full.
    pub(crate) full: bool,
    /// More points than these are not taken at once.
    pub(crate) points_max: Option<usize>,
    /// Points are durable as soon as they are stored.
    pub(crate) sync: bool,
    /// What answers to queries lack.
    pub(crate) damage: Vec<String>,
    /// This value is not taken.
    pub(crate) unwanted: Option<f64>,
    /// No more series than these.
    pub(crate) series_max: Option<usize>,
    /// The live queries, with what feeds each: it is closed once the stream of updates is dropped.
    pub(crate) live: Vec<(String, UnboundedSender<Arc<[u8]>>)>,
    /// How many updates were taken from their streams.
    pub(crate) live_taken: usize,
    /// What `/metrics` says.
    pub(crate) metrics: String,
    pub(crate) shelf: Shelf,
}

pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    durable: watch::Sender<Seq>,
    now: AtomicI64,
    pub(crate) counters: Arc<Counters>,
    /// Queries wait for this, where the text asks for it.
    pub(crate) query_gate: Notify,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Arc::default(),
            changed: Arc::default(),
            durable: watch::Sender::default(),
            now: AtomicI64::new(NOW),
            counters: Arc::default(),
            query_gate: Notify::new(),
        })
    }

    /// Looks at the state, or changes it.
    pub(crate) fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let seen = look(&mut self.state.lock().unwrap());
        self.changed.notify_waiters();
        seen
    }

    /// Waits until the state is as wished; it is looked at whenever it changes.
    pub(crate) async fn until(&self, what: &str, wish: impl Fn(&State) -> bool) {
        let reached = async {
            loop {
                let changed = self.changed.notified();
                if wish(&self.state.lock().unwrap()) {
                    return;
                }
                changed.await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, reached).await;
        assert!(in_time.is_ok(), "never happened: {what}");
    }

    /// Lets time go by.
    pub(crate) fn pass(&self, micros: i64) {
        self.now.fetch_add(micros, Relaxed);
    }

    /// All that is stored becomes durable, or only so many points.
    pub(crate) fn commit(&self, through: Option<u64>) {
        let all = self.state(|state| state.stored.len()) as u64;
        self.durable.send_replace(Seq(through.unwrap_or(all)));
    }

    /// Lets writes through again, as after a commit.
    pub(crate) fn make_room(&self) {
        self.state(|state| (state.busy, state.busy_resolving) = (false, false));
        self.durable.send_modify(|seq| seq.0 += 1);
    }

    pub(crate) fn values(&self) -> Vec<f64> {
        self.state(|state| state.stored.iter().map(|(_, point)| point.value).collect())
    }

    /// The key of each point, as people read it.
    pub(crate) fn series(&self) -> Vec<String> {
        self.state(|state| {
            let key = |(_, point): &(u64, Point)| state.keys[point.series.index()].to_string();
            state.stored.iter().map(key).collect()
        })
    }

    pub(crate) fn refused(&self, reason: &str) -> u64 {
        row(&self.counters.snapshot().frames_refused, reason)
    }

    pub(crate) fn refused_total(&self) -> u64 {
        self.counters.snapshot().frames_refused.iter().map(|(_, count)| count).sum()
    }
}

/// The count at a label.
pub(crate) fn row(rows: &[(&'static str, u64)], label: &str) -> u64 {
    rows.iter().find(|(name, _)| *name == label).unwrap_or_else(|| panic!("no row {label}")).1
}

impl Backend for Fake {
    fn now_micros(&self) -> i64 {
        self.now.load(Relaxed)
    }

    fn ahead_micros_max(&self) -> i64 {
        slung_model::AHEAD_MICROS_MAX
    }

    fn commit_interval(&self) -> Duration {
        Duration::from_millis(5)
    }

    fn resolve(&self, key: &SeriesKey) -> Result<SeriesId, WriteRefused> {
        self.state(|state| {
            state.resolved += 1;
            if state.full {
                return Err(WriteRefused::Full("the disk is full".into()));
            }
            if state.busy_resolving {
                state.times_busy += 1;
                return Err(WriteRefused::Busy);
            }
            if let Some(why) = &state.failed {
                return Err(WriteRefused::Storage(why.clone()));
            }
            if let Some(id) = state.ids.get(key) {
                return Ok(*id);
            }
            if state.series_max.is_some_and(|max| state.keys.len() >= max) {
                return Err(WriteRefused::Invalid("too many series".into()));
            }
            let id = SeriesId(u32::try_from(state.keys.len()).unwrap());
            state.keys.push(key.clone());
            state.ids.insert(key.clone(), id);
            Ok(id)
        })
    }

    fn try_write(&self, producer: Option<ProducerId>, points: &[Point]) -> Result<Seq, WriteRefused> {
        self.state(|state| {
            if let Some(why) = &state.failed {
                return Err(WriteRefused::Storage(why.clone()));
            }
            if state.full {
                return Err(WriteRefused::Full("the disk is full".into()));
            }
            if state.busy {
                state.times_busy += 1;
                return Err(WriteRefused::Busy);
            }
            if state.points_max.is_some_and(|max| points.len() > max) {
                return Err(WriteRefused::TooBig(format!("{} points", points.len())));
            }
            if points.iter().any(|point| Some(point.value) == state.unwanted) {
                return Err(WriteRefused::Invalid("unwanted".into()));
            }
            assert!(!points.is_empty(), "an empty write");
            // By HTTP there is none.
            let producer = producer.map_or(0, ProducerId::get);
            assert!(!state.closed.contains(&producer), "a write after its producer was closed");
            state.stored.extend(points.iter().map(|point| (producer, *point)));
            state.writes.push(points.len());
            let seq = Seq(state.stored.len() as u64);
            if state.sync {
                self.durable.send_replace(seq);
            }
            Ok(seq)
        })
    }

    fn durable(&self) -> watch::Receiver<Seq> {
        self.durable.subscribe()
    }

    fn query(&self, text: &str) -> BoxFuture<'_, Result<QueryAnswer, QueryRefused>> {
        let text = text.to_owned();
        async move {
            if text.starts_with("COUNT:slow:") {
                self.state(|state| state.resolved += 1);
                self.query_gate.notified().await;
            }
            if let Some(why) = self.state(|state| state.failed.clone()) {
                return Err(QueryRefused { at: None, what: why });
            }
            let query = Query::parse(&text).map_err(|error| QueryRefused { at: Some(error.at), what: error.what })?;
            let count = self.state(|state| state.stored.len()) as u64;
            let range = query.range().map_or(TimeRange::ALL, |_| query.time_range(NOW));
            let value = (count > 0).then_some(count as f64);
            let damage = self.state(|state| state.damage.clone());
            Ok(QueryAnswer { query: query.to_string(), value, count, series: 1, range, damage })
        }
        .boxed()
    }

    fn buckets(&self, text: &str, step: i64, max: usize) -> BoxFuture<'_, Result<Buckets, QueryRefused>> {
        let answer = self.find(text).map(|(query, points)| {
            let mut buckets: BTreeMap<i64, Bucket> = BTreeMap::new();
            for (_, point) in points {
                let start = point.timestamp.div_euclid(step) * step;
                let bucket = buckets.entry(start).or_insert(Bucket { start, value: Some(0.0), count: 0 });
                bucket.value = bucket.value.map(|sum| sum + point.value);
                bucket.count += 1;
            }
            let (series, range) = (1, query.time_range(self.now_micros()));
            let buckets = buckets.into_values().take(max).collect();
            let damage = self.state(|state| state.damage.clone());
            Buckets { query: query.to_string(), series, range, buckets, damage }
        });
        std::future::ready(answer).boxed()
    }

    fn points(
        &self,
        text: &str,
        after: Option<(Place, TimeRange)>,
        max: usize,
    ) -> BoxFuture<'_, Result<PointsPage, QueryRefused>> {
        let answer = self.find(text).map(|(query, points)| {
            let range = after.map_or(query.time_range(self.now_micros()), |(_, range)| range);
            let place = |point: &Point| (point.series, point.timestamp);
            let is_behind =
                |point: &Point| after.is_none_or(|(after, _)| place(point) > (after.series, after.timestamp));
            let inside = points.into_iter().filter(|(_, point)| is_behind(point) && range.contains(point.timestamp));
            let mut inside: Vec<(SeriesKey, Point)> = inside.collect();
            inside.sort_by_key(|(_, point)| place(point));
            let more = inside.len() > max;
            inside.truncate(max);
            let runs = inside.chunk_by(|(_, a), (_, b)| a.series == b.series).map(|run| PointsRun {
                series: run[0].1.series,
                key: Arc::new(run[0].0.clone()),
                points: run.iter().map(|(_, point)| (point.timestamp, point.value)).collect(),
            });
            let damage = self.state(|state| state.damage.clone());
            PointsPage { range, runs: runs.collect(), more, damage }
        });
        std::future::ready(answer).boxed()
    }

    fn series(
        &self,
        text: Option<&str>,
        after: Option<SeriesId>,
        max: usize,
    ) -> BoxFuture<'_, Result<SeriesPage, QueryRefused>> {
        let query = text.map(|text| Query::parse(text).unwrap());
        let series = self.state(|state| {
            let ids = (0..).map(SeriesId).zip(&state.keys);
            let meant =
                ids.filter(|(id, key)| Some(*id) > after && query.as_ref().is_none_or(|query| query.matches(key)));
            meant.take(max).map(|(id, key)| (id, Arc::new(key.clone()))).collect()
        });
        std::future::ready(Ok(series)).boxed()
    }

    fn tags(
        &self,
        text: Option<&str>,
        after: Option<&str>,
        max: usize,
    ) -> BoxFuture<'_, Result<Vec<(String, u64)>, QueryRefused>> {
        let query = text.map(|text| Query::parse(text).unwrap());
        let mut tags: BTreeMap<String, u64> = BTreeMap::new();
        self.state(|state| {
            let meant = state.keys.iter().filter(|key| query.as_ref().is_none_or(|query| query.matches(key)));
            meant.flat_map(SeriesKey::tags).for_each(|tag| *tags.entry(tag.to_owned()).or_default() += 1);
        });
        let behind = tags.into_iter().filter(|(tag, _)| after.is_none_or(|after| **tag > *after));
        std::future::ready(Ok(behind.take(max).collect())).boxed()
    }

    fn delete(&self, text: &str) -> BoxFuture<'_, Result<Deleted, QueryRefused>> {
        let text = text.to_owned();
        async move {
            if let Some(why) = self.state(|state| state.failed.clone()) {
                return Err(QueryRefused { at: None, what: why });
            }
            Query::parse(&text).map_err(|error| QueryRefused { at: Some(error.at), what: error.what })?;
            let points = self.state(|state| std::mem::take(&mut state.stored)).len() as u64;
            Ok(Deleted { points, segments: 2 })
        }
        .boxed()
    }

    fn live(&self, text: &str) -> BoxFuture<'_, Result<Updates, QueryRefused>> {
        std::future::ready(self.watch(text)).boxed()
    }

    fn workflows(&self) -> Vec<WorkflowStatus> {
        self.state(|state| state.shelf.workflows.values().cloned().collect())
    }

    fn workflow(&self, name: &str) -> Option<WorkflowStatus> {
        self.state(|state| state.shelf.workflows.get(name).cloned())
    }

    fn change_workflow(
        &self,
        name: &str,
        change: WorkflowChange,
    ) -> BoxFuture<'_, Result<WorkflowStatus, WorkflowRefused>> {
        let name = name.to_owned();
        async move {
            if name.starts_with("slow") {
                self.state(|state| state.shelf.waiting += 1);
                self.query_gate.notified().await;
            }
            self.state(|state| state.shelf.change(&name, change))
        }
        .boxed()
    }

    fn workflow_log(&self, name: &str, lines: usize, follow: bool) -> Result<WorkflowLog, WorkflowRefused> {
        self.state(|state| state.shelf.log(name, lines, follow))
    }

    fn health(&self) -> Result<(), WriteRefused> {
        self.state(|state| match &state.failed {
            Some(why) => Err(WriteRefused::Storage(why.clone())),
            None if state.full => Err(WriteRefused::Full("the disk is full".into())),
            None => Ok(()),
        })
    }

    fn metrics(&self) -> String {
        self.state(|state| state.metrics.clone())
    }

    fn producer_closed(&self, producer: ProducerId) {
        self.state(|state| state.closed.push(producer.get()));
    }
}

impl Fake {
    /// The points that a query means, whatever its range.
    fn find(&self, text: &str) -> Result<(Query, Vec<(SeriesKey, Point)>), QueryRefused> {
        if let Some(why) = self.state(|state| state.failed.clone()) {
            return Err(QueryRefused { at: None, what: why });
        }
        let query = Query::parse(text).map_err(|error| QueryRefused { at: Some(error.at), what: error.what })?;
        let points = self.state(|state| {
            let points = state.stored.iter().map(|(_, point)| (state.keys[point.series.index()].clone(), *point));
            points.filter(|(key, _)| query.matches(key)).collect()
        });
        Ok((query, points))
    }

    fn watch(&self, text: &str) -> Result<Updates, QueryRefused> {
        if let Some(why) = self.state(|state| state.failed.clone()) {
            return Err(QueryRefused { at: None, what: why });
        }
        let query = Query::parse(text).map_err(|error| QueryRefused { at: Some(error.at), what: error.what })?;
        query.window().map_err(|error| QueryRefused { at: Some(error.at(text)), what: error.to_string() })?;
        let (feed, mut updates) = mpsc::unbounded_channel();
        self.state(|state| state.live.push((query.to_string(), feed)));
        let (state, changed) = (Arc::clone(&self.state), Arc::clone(&self.changed));
        let updates = stream::poll_fn(move |context| {
            let polled = updates.poll_recv(context);
            state.lock().unwrap().live_taken += usize::from(matches!(polled, Poll::Ready(Some(_))));
            changed.notify_waiters();
            polled
        });
        Ok(updates.boxed())
    }
}
