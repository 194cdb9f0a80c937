//! What the network asks of the rest: one trait, so that everything on a socket is tested without an engine behind it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use slung_model::{Point, ProducerId, Seq, SeriesId, SeriesKey, TimeRange};
use tokio::sync::watch;

use crate::workflows::{WorkflowChange, WorkflowLog, WorkflowRefused, WorkflowStatus};

/// What stands behind the sockets. Every method is called on the network's own threads and must not
/// block them; the futures of those that read or delete neither.
pub trait Backend: Send + Sync + 'static {
    /// The server's clock, microseconds since the Unix epoch.
    fn now_micros(&self) -> i64;

    /// How far ahead of that clock a timestamp may be, microseconds.
    fn ahead_micros_max(&self) -> i64;

    /// How long a commit collects writes before it is synced. Producers are told.
    fn commit_interval(&self) -> Duration;

    /// The id of a series, which is made known if it was not.
    ///
    /// # Errors
    /// [`WriteRefused`]: [`WriteRefused::Invalid`] where there are too many series already.
    fn resolve(&self, key: &SeriesKey) -> Result<SeriesId, WriteRefused>;

    /// Stores the points, all of them or none, in their order. On return they are visible to queries.
    ///
    /// # Errors
    /// [`WriteRefused`]; nothing is stored then.
    fn try_write(&self, producer: Option<ProducerId>, points: &[Point]) -> Result<Seq, WriteRefused>;

    /// Follows what has been synced to disk: all points up to there survive a crash. It is also told anew, with what it
    /// was, when there may be room again after [`WriteRefused::Busy`], and when [`Backend::health`] changes.
    fn durable(&self) -> watch::Receiver<Seq>;

    /// Answers a historical query, given as text.
    fn query(&self, text: &str) -> BoxFuture<'_, Result<QueryAnswer, QueryRefused>>;

    /// Answers a historical query, given as text, for each stretch of `step_micros` by itself, counted from 1970: what the
    /// same query answers whose range is the part of that stretch that lies in its own. `step_micros` is above 0. Stretches
    /// without points are left out, and of the others at most `buckets_max` are answered, from the earliest on.
    fn buckets(&self, text: &str, step_micros: i64, buckets_max: usize)
    -> BoxFuture<'_, Result<Buckets, QueryRefused>>;

    /// The points that a query means, given as text without an operator: series by series in the order of their ids, those
    /// of a series by time, at most `points_max`. With `after`, those behind that place, in that range instead of the
    /// query's own.
    fn points(
        &self,
        text: &str,
        after: Option<(Place, TimeRange)>,
        points_max: usize,
    ) -> BoxFuture<'_, Result<PointsPage, QueryRefused>>;

    /// The series that a query means, given as text without an operator, or all there are; in the order of their ids, those
    /// behind `after`, at most `series_max`.
    fn series(
        &self,
        text: Option<&str>,
        after: Option<SeriesId>,
        series_max: usize,
    ) -> BoxFuture<'_, Result<SeriesPage, QueryRefused>>;

    /// The tags of those series, each with how many of them carry it; in byte order, those behind `after`, at most
    /// `tags_max`.
    fn tags(
        &self,
        text: Option<&str>,
        after: Option<&str>,
        tags_max: usize,
    ) -> BoxFuture<'_, Result<Vec<(String, u64)>, QueryRefused>>;

    /// Takes the points away, for good, that a query means whose operator is none; given as text.
    fn delete(&self, text: &str) -> BoxFuture<'_, Result<Deleted, QueryRefused>>;

    /// Registers a live query, given as text, which may have to read what is stored: its updates, from now on. Dropping the
    /// future half-way leaves nothing behind.
    ///
    /// # Errors
    /// [`QueryRefused`], also where the range is one that no live query can have.
    fn live(&self, text: &str) -> BoxFuture<'_, Result<Updates, QueryRefused>>;

    /// All workflows, by name.
    fn workflows(&self) -> Vec<WorkflowStatus>;

    /// One workflow; `None` where there is none of that name.
    fn workflow(&self, name: &str) -> Option<WorkflowStatus>;

    /// Does something with a workflow; its name was checked with [`crate::check_workflow_name`]. Answers how it is then, or
    /// was before it was removed. The future is polled to its end, whether somebody still waits for the answer or not.
    fn change_workflow(
        &self,
        name: &str,
        change: WorkflowChange,
    ) -> BoxFuture<'_, Result<WorkflowStatus, WorkflowRefused>>;

    /// The last `lines` lines that are kept of a workflow's log; with `follow` also those that come then, until the workflow
    /// is removed, and without it the stream ends behind them.
    ///
    /// # Errors
    /// [`WorkflowRefused::NotFound`].
    fn workflow_log(&self, name: &str, lines: usize, follow: bool) -> Result<WorkflowLog, WorkflowRefused>;

    /// Whether writes are accepted.
    ///
    /// # Errors
    /// The reason why they are not: [`WriteRefused::Full`] or [`WriteRefused::Storage`].
    fn health(&self) -> Result<(), WriteRefused>;

    /// Everything that is counted, the network's own [`crate::Stats`] too, as Prometheus text, or as OpenMetrics (then
    /// it ends with `# EOF`).
    fn metrics(&self) -> String;

    /// The producer has sent its last event. Its id is not used again.
    fn producer_closed(&self, producer: ProducerId);
}

/// The updates of one live query, each as one line of JSON. Polled only as fast as its reader takes them: what comes
/// faster is for the backend to bound. Dropping it ends the query.
pub type Updates = BoxStream<'static, Arc<[u8]>>;

/// Why the backend does not take something from a producer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteRefused {
    /// No room until some of what was written before is synced: the socket is not read until then.
    #[error("no room until more is synced")]
    Busy,
    /// The disk is full. The same write may be taken once there is space again.
    #[error("{0}")]
    Full(String),
    /// More points than can be stored at once.
    #[error("{0}")]
    TooBig(String),
    /// These very points, or this series, will not be taken: the frame is counted as refused.
    #[error("refused: {0}")]
    Invalid(String),
    /// Storage has failed, and takes nothing until the server is started again: connections are closed with 1011.
    #[error("{0}")]
    Storage(String),
}

/// The answer to a historical query.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryAnswer {
    /// The query in its normal form.
    pub query: String,
    /// What was asked for; `None` where there is nothing to tell.
    pub value: Option<f64>,
    /// How many points it was computed from.
    pub count: u64,
    /// How many series the query means.
    pub series: u64,
    /// The range of time that was asked for, resolved; [`TimeRange::ALL`] without one.
    pub range: TimeRange,
    /// What the answer may lack, in words, because it is damaged. Empty where it is complete.
    pub damage: Vec<String>,
}

/// The answer to a historical query, one value for each stretch of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Buckets {
    /// The query in its normal form.
    pub query: String,
    /// How many series the query means.
    pub series: u64,
    /// The range of time that was asked for, resolved; [`TimeRange::ALL`] without one.
    pub range: TimeRange,
    /// The stretches that have points, by rising time.
    pub buckets: Vec<Bucket>,
    /// What the answer may lack, in words, because it is damaged. Empty where it is complete.
    pub damage: Vec<String>,
}

/// What one stretch of time answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Its first microsecond since the Unix epoch, also where the range begins later.
    pub start: i64,
    /// As [`QueryAnswer::value`].
    pub value: Option<f64>,
    /// As [`QueryAnswer::count`].
    pub count: u64,
}

/// Some series with their keys, in the order of their ids.
pub type SeriesPage = Vec<(SeriesId, Arc<SeriesKey>)>;

/// A point's place in the order of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its series.
    pub series: SeriesId,
    /// Microseconds since the Unix epoch.
    pub timestamp: i64,
}

/// Some of the points that a query means.
#[derive(Debug, Clone, PartialEq)]
pub struct PointsPage {
    /// The range of time that was asked for, resolved; [`TimeRange::ALL`] without one.
    pub range: TimeRange,
    /// The points, in order. No run is empty.
    pub runs: Vec<PointsRun>,
    /// Whether there are some behind them.
    pub more: bool,
    /// What may be missing, in words, because it is damaged. Empty where nothing is.
    pub damage: Vec<String>,
}

/// Points of one series that follow one another.
#[derive(Debug, Clone, PartialEq)]
pub struct PointsRun {
    /// The series.
    pub series: SeriesId,
    /// Its key.
    pub key: Arc<SeriesKey>,
    /// Timestamps, microseconds since the Unix epoch, and values.
    pub points: Vec<(i64, f64)>,
}

/// What a deletion took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deleted {
    /// How many points.
    pub points: u64,
    /// How many segments were written anew for it, or went.
    pub segments: u64,
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct QueryRefused {
    /// The byte of the text where it is wrong, from 0. `None` where the text is right, but cannot be answered: that is
    /// the server's fault and not the asker's.
    pub at: Option<usize>,
    /// What is wrong, in words.
    pub what: String,
}
