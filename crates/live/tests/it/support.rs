//! A small world for the tests: a few series, and queries by their text.

use std::sync::Arc;

use slung_live::{Error, HandleId, Live, Options, Subscriber, Update};
use slung_model::{Point, ProducerId, Query, SeriesId, SeriesKey};

/// Microseconds in a second.
pub(crate) const SECOND: i64 = 1_000_000;

/// What the clock says at first: long after the events of most tests, whose times are small numbers.
pub(crate) const LONG_AFTER: i64 = 10_000_000 * SECOND;

/// Live queries over the series `temp{sensor=0}`, `temp{sensor=1}`, ... whose ids are the sensors' numbers.
pub(crate) struct World {
    pub(crate) live: Live,
    pub(crate) subscriber: Arc<Subscriber>,
    pub(crate) now: i64,
    sensors: u32,
}

impl World {
    pub(crate) fn new(sensors: u32) -> Self {
        Self::with(sensors, Options::default())
    }

    pub(crate) fn with(sensors: u32, options: Options) -> Self {
        let live = Live::new(options);
        let subscriber = live.subscriber();
        Self { live, subscriber, now: LONG_AFTER, sensors }
    }

    pub(crate) fn try_subscribe(&mut self, query: &str, history: &[Point]) -> Result<HandleId, Error> {
        let query = Query::parse(query).unwrap();
        let series = (0..self.sensors).map(SeriesId).filter(|id| query.matches(&key(id.0)));
        self.live.subscribe(&self.subscriber, &query, series, history.iter().copied(), self.now)
    }

    pub(crate) fn subscribe(&mut self, query: &str) -> HandleId {
        self.try_subscribe(query, &[]).unwrap()
    }

    pub(crate) fn write(&mut self, points: &[Point]) {
        drop(self.live.apply(None, points, self.now, &keys));
    }

    pub(crate) fn write_as(&mut self, producer: u64, points: &[Point]) {
        drop(self.live.apply(ProducerId::new(producer), points, self.now, &keys));
    }

    /// Lets time pass, and ticks.
    pub(crate) fn pass(&mut self, micros: i64) {
        self.now += micros;
        drop(self.live.tick(self.now, &keys));
    }

    pub(crate) fn updates(&self, handle: HandleId) -> Vec<Update> {
        std::iter::from_fn(|| self.subscriber.try_next(handle)).collect()
    }

    pub(crate) fn values(&self, handle: HandleId) -> Vec<f64> {
        self.updates(handle).iter().map(|update| update.value).collect()
    }
}

/// What [`Live`] asks for.
pub(crate) fn keys(id: SeriesId) -> Option<Arc<SeriesKey>> {
    Some(key(id.0))
}

pub(crate) fn key(id: u32) -> Arc<SeriesKey> {
    Arc::new(SeriesKey::new("temp", [format!("sensor={id}")]).unwrap())
}

/// A point of sensor 0.
pub(crate) fn at(timestamp: i64, value: f64) -> Point {
    of(0, timestamp, value)
}

pub(crate) fn of(sensor: u32, timestamp: i64, value: f64) -> Point {
    Point { series: SeriesId(sensor), timestamp, value }
}
