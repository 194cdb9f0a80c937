//! Any interleaving of writes, subscriptions, time and reading, against a model that keeps everything that ever happened
//! and computes each answer anew from it, in the words of the query language's specification.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use slung_live::{HandleId, Live, Options, Subscriber, Update};
use slung_model::{Op, Point, ProducerId, Query, SeriesId, SeriesKey, TimeRange, Window};

use crate::support::SECOND;

const SERIES: [(&str, &[&str]); 5] = [("a", &["x"]), ("a", &["y"]), ("b", &["x", "y"]), ("b", &[]), ("c", &["x"])];
const OPS: [&str; 6] = ["?", "AVG", "MIN", "MAX", "SUM", "COUNT"];
const SELECTIONS: [&str; 4] = ["a:[]", "a,b:[x]", "b:[NOT x]", "a,b,c:[x OR y]"];
const RANGES: [&str; 8] = ["", ":[now]", ":[1s]", ":[7s]", ":[40s]", ":[10m]", ":[START,END]", ":[1us]"];

#[derive(Debug, Clone)]
enum Step {
    Announce(usize),
    /// From which producer; (series, tenths of a second, value) each.
    Write(u64, Vec<(usize, i64, i32)>),
    /// Event times follow this far behind or before the newest.
    Follow(usize, i64, i32),
    Subscribe(usize, usize, usize),
    /// Another handle for a query that has one.
    Again(usize),
    Free(usize),
    Pass(i64),
    Take(usize, usize),
    Close(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let point = (0..SERIES.len(), 0..600_i64, -50..50_i32);
    prop_oneof![
        1 => (0..SERIES.len()).prop_map(Step::Announce),
        5 => (0..4_u64, prop::collection::vec(point, 1..6)).prop_map(|(producer, points)| Step::Write(producer, points)),
        8 => (0..SERIES.len(), -20..60_i64, -50..50_i32).prop_map(|(series, by, value)| Step::Follow(series, by, value)),
        3 => (0..OPS.len(), 0..SELECTIONS.len(), 0..RANGES.len()).prop_map(|(op, what, range)| Step::Subscribe(op, what, range)),
        1 => any::<usize>().prop_map(Step::Again),
        2 => any::<usize>().prop_map(Step::Free),
        6 => prop_oneof![
            4 => 0..2 * SECOND,
            2 => 0..50 * SECOND,
            1 => Just(0),
            1 => -100 * SECOND..-2 * SECOND,
        ].prop_map(Step::Pass),
        2 => (any::<usize>(), 1..5_usize).prop_map(|(which, count)| Step::Take(which, count)),
        1 => (1..4_u64).prop_map(Step::Close),
    ]
}

/// What an update should be; its value is known up to the rounding of a sum.
#[derive(Debug, Clone)]
struct Expected {
    timestamp: i64,
    value: f64,
    tolerance: f64,
    series: usize,
    producers: BTreeSet<u64>,
    count: Option<u64>,
}

/// One live query as the model sees it.
struct Watched {
    handle: HandleId,
    query: Query,
    window: Window,
    /// Everything that it has seen and not refused, in order.
    seen: Vec<Point>,
    /// How many of those were stored before.
    stored: usize,
    /// The newest event; of several of that time, the one that came last.
    newest: Option<Point>,
    /// When the end was there, as time that has passed.
    since: i64,
    /// How many points were to be seen when it was last looked at.
    visible: usize,
    told: Option<i64>,
    waiting: VecDeque<Expected>,
    late: u64,
    merged: u64,
    dropped: u64,
}

impl Watched {
    /// The end of a sliding window: the newest event time, and what has passed since something last came in.
    fn end(&self, passed: i64) -> i64 {
        self.newest.unwrap().timestamp + (passed - self.since).max(0)
    }

    /// A handle for a query that has one shares its window: its end, and what was told of it. The points are the same anyhow.
    fn join(&mut self, other: &Self) {
        assert_eq!(self.newest.map(|point| point.timestamp), other.newest.map(|point| point.timestamp));
        (self.newest, self.since) = (other.newest, other.since);
        (self.told, self.visible) = (other.told, other.visible);
    }

    /// The values from which the answer is made.
    fn values(&self, passed: i64) -> Vec<f64> {
        let range = match self.window {
            Window::Running => return self.seen[self.stored..].iter().map(|point| point.value).collect(),
            Window::Absolute(range) => range,
            Window::Sliding { .. } if self.seen.is_empty() => return Vec::new(),
            Window::Sliding { width_micros } => TimeRange { start: self.end(passed) - width_micros, end: i64::MAX },
        };
        let mut kept = BTreeMap::new();
        for point in &self.seen {
            if range.contains(point.timestamp) {
                kept.insert((point.timestamp, point.series), point.value);
            }
        }
        kept.into_values().collect()
    }

    fn answer(&self, values: &[f64], timestamp: i64, series: usize, producers: BTreeSet<u64>) -> Option<Expected> {
        let (sum, count) = (values.iter().sum::<f64>(), values.len() as f64);
        let scale: f64 = values.iter().map(|value| value.abs()).sum();
        let value = match self.query.op() {
            Op::Count => count,
            Op::Sum => sum,
            _ if values.is_empty() => return None,
            Op::Avg => sum / count,
            Op::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
            Op::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            op => unreachable!("{op:?} has no aggregate"),
        };
        let tolerance = if matches!(self.query.op(), Op::Sum | Op::Avg) { 1e-12 * scale } else { 0.0 };
        let count = (!matches!(self.query.op(), Op::Min | Op::Max)).then_some(values.len() as u64);
        Some(Expected { timestamp, value, tolerance, series, producers, count })
    }

    fn take(&mut self, point: Point, producers: BTreeSet<u64>, passed: i64, queue_updates_max: usize) {
        match self.window {
            Window::Absolute(range) if !range.contains(point.timestamp) => return,
            Window::Sliding { width_micros }
                if self.newest.is_some_and(|newest| point.timestamp < newest.timestamp - width_micros) =>
            {
                self.late += 1;
                return;
            }
            _ => self.seen.push(point),
        }
        self.since = passed;
        self.newest = Some(self.newest.filter(|newest| newest.timestamp > point.timestamp).unwrap_or(point));
        let series = point.series.index();
        let made = if self.query.op() == Op::Raw {
            let value = point.value;
            Some(Expected { timestamp: point.timestamp, value, tolerance: 0.0, series, producers, count: None })
        } else {
            let values = self.values(passed);
            self.visible = values.len();
            self.answer(&values, point.timestamp, series, producers)
        };
        self.queue(made.expect("an event is in its own update"), queue_updates_max);
    }

    fn tick(&mut self, passed: i64, queue_updates_max: usize) {
        if self.query.op() == Op::Raw || self.seen.is_empty() || !matches!(self.window, Window::Sliding { .. }) {
            return;
        }
        let values = self.values(passed);
        if values.len() == self.visible || self.told.is_some_and(|told| passed < told + SECOND) {
            return;
        }
        assert!(values.len() < self.visible, "time alone brings nothing back");
        self.visible = values.len();
        let newest = self.newest.unwrap();
        if let Some(made) = self.answer(&values, newest.timestamp, newest.series.index(), BTreeSet::new()) {
            self.told = Some(passed);
            self.queue(made, queue_updates_max);
        }
    }

    fn queue(&mut self, made: Expected, queue_updates_max: usize) {
        if self.waiting.len() < queue_updates_max {
            self.waiting.push_back(made);
        } else if self.query.op() == Op::Raw {
            self.waiting.pop_front();
            self.waiting.push_back(made);
            self.dropped += 1;
        } else {
            let newest = self.waiting.back_mut().unwrap();
            let producers = &newest.producers | &made.producers;
            let timestamp = newest.timestamp.max(made.timestamp);
            *newest = Expected { timestamp, producers, ..made };
            self.merged += 1;
        }
    }
}

struct Model {
    live: Live,
    subscriber: Arc<Subscriber>,
    queue_updates_max: usize,
    now: i64,
    passed: i64,
    keys: Vec<Arc<SeriesKey>>,
    known: BTreeSet<usize>,
    /// All that was written, in order.
    written: Vec<Point>,
    /// Around which the event times are.
    events_at: i64,
    newest: i64,
    watched: Vec<Watched>,
}

impl Model {
    fn new(queue_updates_max: usize, now: i64, events_at: i64) -> Self {
        let live = Live::new(Options { queue_updates_max, ..Options::default() });
        let subscriber = live.subscriber();
        let keys = SERIES.iter().map(|(name, tags)| Arc::new(SeriesKey::new(name, *tags).unwrap())).collect();
        Self {
            live,
            subscriber,
            queue_updates_max,
            now,
            passed: 0,
            keys,
            known: BTreeSet::new(),
            written: Vec::new(),
            events_at,
            newest: events_at,
            watched: Vec::new(),
        }
    }

    fn announce(&mut self, series: usize) {
        if self.known.insert(series) {
            self.live.series_added(SeriesId(series as u32), &self.keys[series]);
        }
    }

    fn write(&mut self, producer: u64, points: &[Point]) {
        for point in points {
            self.announce(point.series.index());
        }
        let by = ProducerId::new(producer);
        drop(self.live.apply(by, points, self.now));
        for point in points {
            self.newest = self.newest.max(point.timestamp);
            self.written.push(*point);
            let key = &self.keys[point.series.index()];
            for watched in self.watched.iter_mut().filter(|watched| watched.query.matches(key)) {
                let producers = by.iter().map(|id| id.get()).collect();
                watched.take(*point, producers, self.passed, self.queue_updates_max);
            }
        }
    }

    fn subscribe(&mut self, text: &str) {
        let query = Query::parse(text).unwrap();
        let window = query.window().unwrap();
        // What a store would answer: each (timestamp, series) once, in order.
        let mut stored = BTreeMap::new();
        for point in self.written.iter().filter(|point| query.matches(&self.keys[point.series.index()])) {
            stored.insert((point.timestamp, point.series), *point);
        }
        let newest = stored.keys().next_back().map_or(0, |key| key.0);
        match window {
            Window::Running => stored.clear(),
            Window::Absolute(range) => stored.retain(|key, _| range.contains(key.0)),
            Window::Sliding { width_micros } => stored.retain(|key, _| key.0 >= newest - width_micros),
        }
        let history: Vec<Point> = stored.into_values().collect();
        let series = self.known.iter().map(|id| (SeriesId(*id as u32), Arc::clone(&self.keys[*id])));
        let series = series.filter(|(_, key)| query.matches(key));
        let handle = self.live.subscribe(&self.subscriber, &query, series, history.clone(), self.now).unwrap();
        let newest = history.last().copied();
        let mut watched = Watched {
            handle,
            query,
            window,
            stored: history.len(),
            seen: history,
            newest,
            // Arrived at its own timestamp, that is so long before now.
            since: newest.map_or(0, |newest| self.passed - (self.now - newest.timestamp)),
            visible: 0,
            told: None,
            waiting: VecDeque::new(),
            late: 0,
            merged: 0,
            dropped: 0,
        };
        watched.visible = watched.values(self.passed).len();
        if let Some(other) = self.watched.iter().find(|other| other.query == watched.query)
            && matches!(window, Window::Sliding { .. })
        {
            watched.join(other);
        }
        self.watched.push(watched);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Announce(series) => self.announce(series),
            Step::Write(producer, points) => {
                let points: Vec<_> = points
                    .iter()
                    .map(|&(series, tenths, value)| Point {
                        series: SeriesId(series as u32),
                        timestamp: self.events_at + tenths * SECOND / 10,
                        value: f64::from(value) / 7.0,
                    })
                    .collect();
                self.write(producer, &points);
            }
            Step::Follow(series, tenths, value) => {
                let timestamp = self.newest + tenths * SECOND / 10;
                self.write(1, &[Point { series: SeriesId(series as u32), timestamp, value: f64::from(value) }]);
            }
            Step::Subscribe(op, what, range) => {
                let range = RANGES[range]
                    .replace("START", &(self.events_at + 10 * SECOND).to_string())
                    .replace("END", &(self.events_at + 40 * SECOND).to_string());
                self.subscribe(&format!("{}:{}{range}", OPS[op], SELECTIONS[what]));
            }
            Step::Again(which) if !self.watched.is_empty() => {
                let text = self.watched[which % self.watched.len()].query.to_string();
                self.subscribe(&text);
            }
            Step::Free(which) if !self.watched.is_empty() => {
                let watched = self.watched.swap_remove(which % self.watched.len());
                assert!(self.live.unsubscribe(&self.subscriber, watched.handle));
            }
            Step::Pass(micros) => {
                self.now += micros;
                self.passed += micros.max(0);
                drop(self.live.tick(self.now));
                for watched in &mut self.watched {
                    watched.tick(self.passed, self.queue_updates_max);
                }
            }
            Step::Take(which, count) if !self.watched.is_empty() => {
                let which = which % self.watched.len();
                self.take(which, count);
            }
            Step::Close(producer) => self.live.producer_closed(ProducerId::new(producer).unwrap()),
            Step::Again(_) | Step::Free(_) | Step::Take(..) => {}
        }
    }

    fn take(&mut self, which: usize, count: usize) {
        let watched = &mut self.watched[which];
        for _ in 0..count {
            assert_eq!(self.subscriber.has_waiting(watched.handle), !watched.waiting.is_empty());
            let update = self.subscriber.try_next(watched.handle);
            match (update, watched.waiting.pop_front()) {
                (None, None) => return,
                (Some(update), Some(expected)) => assert_is(&update, &expected, &self.keys, &watched.query),
                (update, expected) => panic!("{}: {update:?} is not {expected:?}", watched.query),
            }
        }
    }

    fn finish(mut self) {
        for which in 0..self.watched.len() {
            self.take(which, usize::MAX);
            let watched = &self.watched[which];
            let stats = self.subscriber.handle_stats(watched.handle).unwrap();
            assert_eq!((stats.late, stats.merged, stats.dropped), (watched.late, watched.merged, watched.dropped));
        }
        let late = self.watched.iter().map(|watched| watched.late).sum::<u64>();
        assert!(self.live.stats().late >= late, "those of handles that are gone are in it, too");
        self.live.remove(&self.subscriber);
        assert_eq!(self.live.stats().windows, 0);
        assert_eq!((self.live.stats().handles, self.live.stats().points), (0, 0));
    }
}

fn assert_is(update: &Update, expected: &Expected, keys: &[Arc<SeriesKey>], query: &Query) {
    let close = (update.value - expected.value).abs() <= expected.tolerance;
    let same = update.timestamp == expected.timestamp
        && update.key == keys[expected.series]
        && update.producers.iter().map(|id| id.get()).eq(expected.producers.iter().copied())
        && update.state.map(|state| state.1) == expected.count;
    assert!(close && same, "{query}: {update:?} is not {expected:?}");
    if let (Op::Avg, Some((sum, count))) = (query.op(), update.state) {
        assert_eq!(update.value, sum / count as f64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn live_agrees_with_recomputation(
        steps in prop::collection::vec(step(), 1..600),
        queue_updates_max in prop_oneof![1..4_usize, Just(1024)],
        replayed in any::<bool>(),
    ) {
        let now = 1_700_000_000 * SECOND;
        let events_at = if replayed { now - 300_000_000 * SECOND } else { now };
        let mut model = Model::new(queue_updates_max, now, events_at);
        for step in steps {
            model.step(step);
        }
        model.finish();
    }
}
