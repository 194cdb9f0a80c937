//! Any interleaving of writes, subscriptions, time and reading, against a model that keeps everything that ever happened
//! and computes each answer anew from it, in the words of the query language's specification.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;

use proptest::prelude::*;
use slung_live::{HandleId, Live, Loading, Options, Subscriber, Update};
use slung_model::{Op, Point, ProducerId, Query, SeriesId, SeriesKey, Sketch, Spread, TimeRange, Window};

use crate::support::SECOND;

const SERIES: [(&str, &[&str]); 5] = [("a", &["x"]), ("a", &["y"]), ("b", &["x", "y"]), ("b", &[]), ("c", &["x"])];
const OPS: [&str; 12] = ["?", "AVG", "MIN", "MAX", "SUM", "COUNT", "FIRST", "LAST", "STDDEV", "P50", "P99.9", "P1"];
const SELECTIONS: [&str; 4] = ["a:[]", "a,b:[x]", "b:[NOT x]", "a,b,c:[x OR y]"];
const RANGES: [&str; 8] = ["", ":[now]", ":[1s]", ":[7s]", ":[40s]", ":[10m]", ":[START,END]", ":[1us]"];
/// Which loads there may be at a time.
const LOADS_MAX: usize = 3;

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
    /// As Subscribe, but other steps come in between.
    Begin(usize, usize, usize),
    /// What was begun gets what was recorded, and goes on.
    CatchUp(usize),
    /// What was begun is registered, or given up.
    Finish(usize, bool),
    /// What is stored of that selection, from then on for so long, tenths of a second, is taken away.
    Delete(usize, i64, i64),
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
        1 => (0..OPS.len(), 0..SELECTIONS.len(), 0..RANGES.len()).prop_map(|(op, what, range)| Step::Begin(op, what, range)),
        1 => any::<usize>().prop_map(Step::CatchUp),
        1 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(which, whole)| Step::Finish(which, whole)),
        1 => (0..SELECTIONS.len(), -50..600_i64, 0..100_i64).prop_map(|(what, from, len)| Step::Delete(what, from, len)),
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

/// What is in a window: everything that it has seen and not refused, in order, and where it ends.
#[derive(Clone)]
struct View {
    seen: Vec<Point>,
    /// The newest event; of several of that time, the one that came last.
    newest: Option<Point>,
    /// When the end was there, as time that has passed.
    since: i64,
}

impl View {
    fn take(&mut self, point: Point, width_micros: i64, passed: i64) -> bool {
        if self.newest.is_some_and(|newest| point.timestamp < newest.timestamp - width_micros) {
            return false;
        }
        self.newest = Some(self.newest.filter(|newest| newest.timestamp > point.timestamp).unwrap_or(point));
        self.seen.push(point);
        self.since = passed;
        true
    }

    /// The end of a sliding window: the newest event time, and what has passed since something last came in.
    fn end(&self, passed: i64) -> i64 {
        self.newest.unwrap().timestamp + (passed - self.since).max(0)
    }
}

/// One live query as the model sees it.
#[derive(Clone)]
struct Watched {
    handle: Option<HandleId>,
    query: Query,
    window: Window,
    /// Without what is ahead of the clock.
    view: View,
    /// How many points of it were stored before.
    stored: usize,
    /// What is ahead of the clock.
    ahead: BTreeMap<(i64, SeriesId), f64>,
    was_ahead: bool,
    /// What is shown while something is ahead and counts.
    leading: Option<View>,
    /// Until when it does not.
    doubt: i64,
    /// How many points were to be seen when it was last looked at.
    visible: usize,
    told: Option<i64>,
    waiting: VecDeque<Expected>,
    late: u64,
    merged: u64,
    dropped: u64,
}

/// How far ahead of the clock an event may be and still count as on time for a window.
fn slack(width_micros: i64) -> i64 {
    (width_micros / 2).max(SECOND / 10)
}

impl Watched {
    /// One that starts from those of the stored points that belong to it, each once, those of a timestamp in the order of
    /// writing.
    fn new(query: Query, stored: &[Point], now: i64, passed: i64) -> Self {
        let window = query.window().unwrap();
        let mut seen = stored.to_vec();
        let mut ahead = BTreeMap::new();
        let mut newest = None;
        match window {
            Window::Running => seen.clear(),
            Window::Absolute(range) => {
                seen.retain(|point| range.contains(point.timestamp));
                newest = seen.iter().copied().max_by_key(|point| point.timestamp);
            }
            Window::Sliding { width_micros } => {
                let until = now + slack(width_micros);
                let later = seen.extract_if(.., |point| point.timestamp > until);
                ahead.extend(later.map(|point| ((point.timestamp, point.series), point.value)));
                newest = seen.iter().copied().max_by_key(|point| point.timestamp);
                seen.retain(|point| newest.is_some_and(|newest| point.timestamp >= newest.timestamp - width_micros));
            }
        }
        // Arrived at its own timestamp, that is so long before now.
        let since = newest.map_or(0, |newest| passed - (now - newest.timestamp));
        let mut watched = Self {
            handle: None,
            window,
            stored: seen.len(),
            view: View { seen, newest, since },
            was_ahead: !ahead.is_empty(),
            ahead: if query.op() == Op::Raw { BTreeMap::new() } else { ahead },
            query,
            leading: None,
            doubt: i64::MIN,
            visible: 0,
            told: None,
            waiting: VecDeque::new(),
            late: 0,
            merged: 0,
            dropped: 0,
        };
        watched.visible = watched.points(passed).len();
        watched
    }

    fn shows(&self) -> &View {
        self.leading.as_ref().unwrap_or(&self.view)
    }

    /// The points from which the answer is made, by their keys; each with its place in the order of writing.
    fn points(&self, passed: i64) -> BTreeMap<(i64, SeriesId), (f64, usize)> {
        let view = self.shows();
        let range = match self.window {
            Window::Running => TimeRange::ALL,
            Window::Absolute(range) => range,
            Window::Sliding { .. } if view.newest.is_none() => return BTreeMap::new(),
            Window::Sliding { width_micros } => TimeRange { start: view.end(passed) - width_micros, end: i64::MAX },
        };
        let mut kept = BTreeMap::new();
        for (place, point) in view.seen.iter().enumerate() {
            if range.contains(point.timestamp) {
                kept.insert((point.timestamp, point.series), (point.value, place));
            }
        }
        kept
    }

    /// The values of which a running aggregate consists, which counts writes.
    fn writes(&self) -> Vec<f64> {
        self.view.seen[self.stored..].iter().map(|point| point.value).collect()
    }

    fn answer(&self, passed: i64, timestamp: i64, series: usize, producers: BTreeSet<u64>) -> Option<Expected> {
        let points = self.points(passed);
        let values: Vec<f64> = match self.window {
            Window::Running => self.writes(),
            _ => points.values().map(|(value, _)| *value).collect(),
        };
        let (sum, count) = (values.iter().sum::<f64>(), values.len() as f64);
        let scale: f64 = values.iter().map(|value| value.abs()).sum();
        let op = self.query.op();
        let value = match op {
            Op::Count => count,
            Op::Sum => sum,
            _ if values.is_empty() => return None,
            Op::Avg => sum / count,
            Op::Min => values.iter().copied().fold(f64::INFINITY, f64::min),
            Op::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Op::First => points.first_key_value()?.1.0,
            Op::Last => {
                let newest = points.last_key_value()?.0.0;
                points.range((newest, SeriesId(0))..).max_by_key(|(_, (_, place))| *place)?.1.0
            }
            Op::StdDev => Spread::of(&values).std_dev()?,
            Op::Quantile(quantile) => {
                let mut sketch = Sketch::default();
                values.iter().for_each(|value| sketch.push(*value));
                sketch.quantile(quantile)?
            }
            op => unreachable!("{op:?} has no aggregate"),
        };
        // Everything else is exact to the last bit.
        let tolerance = match op {
            Op::Sum | Op::Avg => 1e-12 * scale,
            // The root of a difference that is 0 but for rounding.
            Op::StdDev => 1e-6,
            // Which of several was written last is not known of those that were ahead.
            Op::Last if self.was_ahead => {
                let newest = points.last_key_value()?.0.0;
                let several = points.range((newest, SeriesId(0))..).count() > 1;
                if several { f64::INFINITY } else { 0.0 }
            }
            _ => 0.0,
        };
        let count = matches!(op, Op::Avg | Op::Sum | Op::Count).then_some(values.len() as u64);
        Some(Expected { timestamp, value, tolerance, series, producers, count })
    }

    /// What was ahead and whose time has come enters the view.
    fn catch_up(&mut self, at: &Now, width_micros: i64) -> bool {
        let Now { now, passed, end, .. } = *at;
        let mut any = false;
        while let Some(entry) = self.ahead.first_entry()
            && entry.key().0 <= now.max(end)
        {
            let ((timestamp, series), value) = entry.remove_entry();
            any |= self.view.take(Point { series, timestamp, value }, width_micros, passed - (now - timestamp));
        }
        any
    }

    /// Once nothing is ahead there is one view.
    fn settle(&mut self) {
        if self.ahead.is_empty()
            && let Some(leading) = self.leading.take()
        {
            self.view = leading;
        }
    }

    /// A sliding window takes an event; `None` where it waits, and whether it is in what is shown otherwise.
    fn slide(&mut self, point: Point, at: &Now, width_micros: i64) -> Option<bool> {
        let Now { now, passed, .. } = *at;
        // A raw query keeps nothing that could wait.
        let raw = self.query.op() == Op::Raw;
        let is_ahead = point.timestamp > now + slack(width_micros)
            && (raw || self.view.newest.is_none_or(|newest| point.timestamp > newest.timestamp));
        if !raw {
            self.ahead.remove(&(point.timestamp, point.series));
            self.catch_up(&at.at(if is_ahead { i64::MIN } else { point.timestamp }), width_micros);
        }
        if is_ahead {
            self.was_ahead = true;
            let waits = passed < self.doubt;
            if waits {
                self.doubt = passed + width_micros;
            }
            let mut shown = true;
            if !waits {
                let mut leading = self.leading.clone().unwrap_or_else(|| {
                    let mut leading = self.view.clone();
                    for (&(timestamp, series), &value) in &self.ahead {
                        leading.take(Point { series, timestamp, value }, width_micros, passed);
                    }
                    leading
                });
                shown = leading.take(point, width_micros, passed);
                self.leading = if shown { Some(leading) } else { self.leading.take() };
            }
            if !raw {
                self.ahead.insert((point.timestamp, point.series), point.value);
            }
            return if waits { None } else { Some(shown) };
        }
        let in_view = self.view.take(point, width_micros, passed);
        let mut shown = self.leading.as_mut().map_or(in_view, |leading| leading.take(point, width_micros, passed));
        let on_time = now - width_micros..=now + SECOND / 10;
        if self.leading.is_some() && in_view && !shown && on_time.contains(&point.timestamp) {
            self.leading = None;
            self.doubt = passed + width_micros;
            shown = true;
        }
        Some(shown)
    }

    fn take(&mut self, point: Point, producers: BTreeSet<u64>, at: &Now) {
        let passed = at.passed;
        let series = point.series.index();
        let raw = self.query.op() == Op::Raw;
        match self.window {
            Window::Absolute(range) if !range.contains(point.timestamp) => return,
            Window::Sliding { width_micros } => match self.slide(point, at, width_micros) {
                Some(true) => {}
                Some(false) => {
                    self.late += 1;
                    if !raw {
                        self.settle();
                    }
                    return;
                }
                None if raw => {}
                None => return,
            },
            Window::Running | Window::Absolute(_) => _ = self.view.take(point, i64::MAX / 4, passed),
        }
        let made = if raw {
            let value = point.value;
            Some(Expected { timestamp: point.timestamp, value, tolerance: 0.0, series, producers, count: None })
        } else {
            self.settle();
            self.visible = self.points(passed).len();
            self.answer(passed, point.timestamp, series, producers)
        };
        self.queue(made.expect("an event is in its own update"), at.queue_updates_max);
    }

    fn tick(&mut self, at: &Now) {
        let Window::Sliding { width_micros } = self.window else { return };
        if self.query.op() == Op::Raw || self.told.is_some_and(|told| at.passed < told + SECOND) {
            return;
        }
        let came = self.look(at, width_micros);
        self.changed(came, at.passed, at.queue_updates_max, None);
    }

    fn look(&mut self, at: &Now, width_micros: i64) -> bool {
        let came = self.catch_up(at, width_micros) && self.leading.is_none();
        self.settle();
        came
    }

    /// Tells what is to be seen where that is not what was seen before.
    fn changed(&mut self, came: bool, passed: i64, queue_updates_max: usize, before: Option<Point>) {
        let by_time = before.is_none();
        let view = self.shows();
        let Some(newest) = view.newest.or(before) else { return };
        let visible = self.points(passed).len();
        let came = match self.window {
            Window::Sliding { width_micros } => came && newest.timestamp >= view.end(passed) - width_micros,
            _ => came,
        };
        if visible == self.visible && !came {
            return;
        }
        self.visible = visible;
        if let Some(made) = self.answer(passed, newest.timestamp, newest.series.index(), BTreeSet::new()) {
            if by_time {
                self.told = Some(passed);
            }
            self.queue(made, queue_updates_max);
        }
    }

    /// The store has given up those points.
    fn delete(&mut self, at: &Now, gone: impl Fn(&Point) -> bool) {
        if self.query.op() == Op::Raw || self.window == Window::Running {
            return;
        }
        if let Window::Sliding { width_micros } = self.window {
            self.look(at, width_micros);
        }
        let before = self.shows().newest;
        self.leading = None;
        self.view.seen.retain(|point| !gone(point));
        self.ahead.retain(|&(timestamp, series), &mut value| !gone(&Point { series, timestamp, value }));
        if let Window::Sliding { width_micros } = self.window {
            self.look(at, width_micros);
        }
        if before.is_some() {
            self.changed(false, at.passed, at.queue_updates_max, before);
        }
        if let Window::Absolute(_) = self.window {
            self.view.newest = self.view.seen.iter().copied().max_by_key(|point| point.timestamp);
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

/// The moment, and how long queues are.
#[derive(Clone, Copy)]
struct Now {
    now: i64,
    passed: i64,
    /// Where an event takes a window's end.
    end: i64,
    queue_updates_max: usize,
}

impl Now {
    fn at(self, end: i64) -> Self {
        Self { end, ..self }
    }
}

/// A registration on the way: what was stored when it was begun, and what it will be.
struct Load {
    loading: Loading,
    stored: Vec<Point>,
    is_read: bool,
    watched: Watched,
}

struct Model {
    live: Live,
    subscriber: Arc<Subscriber>,
    at: Now,
    keys: Vec<Arc<SeriesKey>>,
    known: BTreeSet<usize>,
    /// All that is stored, each with its place in the order of writing.
    stored: BTreeMap<(i64, SeriesId), (f64, usize)>,
    writes: usize,
    /// Around which the event times are.
    events_at: i64,
    newest: i64,
    watched: Vec<Watched>,
    loads: Vec<Load>,
}

impl Model {
    fn new(queue_updates_max: usize, now: i64, events_at: i64) -> Self {
        let live = Live::new(Options { queue_updates_max, ..Options::default() });
        let subscriber = live.subscriber();
        let keys = SERIES.iter().map(|(name, tags)| Arc::new(SeriesKey::new(name, *tags).unwrap())).collect();
        Self {
            live,
            subscriber,
            at: Now { now, passed: 0, end: i64::MIN, queue_updates_max },
            keys,
            known: BTreeSet::new(),
            stored: BTreeMap::new(),
            writes: 0,
            events_at,
            newest: events_at,
            watched: Vec::new(),
            loads: Vec::new(),
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
        let keys = |id: SeriesId| self.keys.get(id.index()).cloned();
        drop(self.live.apply(by, points, self.at.now, &keys));
        for point in points {
            self.newest = self.newest.max(point.timestamp);
            self.writes += 1;
            self.stored.insert((point.timestamp, point.series), (point.value, self.writes));
            let key = &self.keys[point.series.index()];
            let loading = self.loads.iter_mut().map(|load| &mut load.watched);
            for watched in self.watched.iter_mut().chain(loading).filter(|watched| watched.query.matches(key)) {
                let producers = by.iter().map(|id| id.get()).collect();
                watched.take(*point, producers, &self.at);
            }
        }
    }

    /// What a store has of a query: each timestamp and series once, those of a timestamp in the order of writing.
    fn stored(&self, query: &Query) -> Vec<Point> {
        let mut stored: Vec<(usize, Point)> = self
            .stored
            .iter()
            .filter(|((_, series), _)| query.matches(&self.keys[series.index()]))
            .map(|(&(timestamp, series), &(value, place))| (place, Point { series, timestamp, value }))
            .collect();
        stored.sort_by_key(|(place, point)| (point.timestamp, *place));
        stored.into_iter().map(|(_, point)| point).collect()
    }

    fn series(&self, query: &Query) -> Vec<SeriesId> {
        self.known.iter().filter(|id| query.matches(&self.keys[**id])).map(|id| SeriesId(*id as u32)).collect()
    }

    fn text(&self, op: usize, what: usize, range: usize) -> String {
        let range = RANGES[range]
            .replace("START", &(self.events_at + 10 * SECOND).to_string())
            .replace("END", &(self.events_at + 40 * SECOND).to_string());
        format!("{}:{}{range}", OPS[op], SELECTIONS[what])
    }

    fn subscribe(&mut self, text: &str) {
        let query = Query::parse(text).unwrap();
        let (stored, series) = (self.stored(&query), self.series(&query));
        let handle = self.live.subscribe(&self.subscriber, &query, series, stored.clone(), self.at.now).unwrap();
        let watched = Watched::new(query, &stored, self.at.now, self.at.passed);
        self.registered(watched, handle, true);
    }

    /// Whoever shares a sliding window shares its end, what waits there, and what was told of it.
    fn registered(&mut self, mut watched: Watched, handle: HandleId, may_share: bool) {
        if let Some(other) = self.watched.iter().find(|other| other.query == watched.query)
            && matches!(watched.window, Window::Sliding { .. })
            && may_share
        {
            let other = other.clone();
            watched = Watched { late: 0, merged: 0, dropped: 0, waiting: VecDeque::new(), ..other };
        }
        self.watched.push(Watched { handle: Some(handle), ..watched });
    }

    fn begin(&mut self, text: &str) {
        let query = Query::parse(text).unwrap();
        if self.loads.len() >= LOADS_MAX || self.is_watched(&query) {
            return;
        }
        let stored = self.stored(&query);
        let loading = self.live.begin(&query, &self.series(&query), self.at.now).unwrap();
        let watched = Watched::new(query, &stored, self.at.now, self.at.passed);
        self.loads.push(Load { loading, stored, is_read: false, watched });
    }

    /// An engine looks for a window to share before it makes one.
    fn is_watched(&self, query: &Query) -> bool {
        self.watched.iter().any(|watched| watched.query == *query)
            || self.loads.iter().any(|load| load.watched.query == *query)
    }

    fn finish_load(&mut self, which: usize, whole: bool) {
        let mut load = self.loads.swap_remove(which);
        if !whole || self.is_watched(&load.watched.query) {
            return self.live.abandon(load.loading);
        }
        load.read();
        let handle = self.live.finish(load.loading, &self.subscriber, self.at.now).unwrap();
        if let Window::Sliding { width_micros } = load.watched.window
            && load.watched.query.op() != Op::Raw
        {
            load.watched.look(&self.at, width_micros);
        }
        load.watched.visible = load.watched.points(self.at.passed).len();
        let watched = Watched { late: 0, merged: 0, dropped: 0, waiting: VecDeque::new(), ..load.watched };
        self.registered(watched, handle, false);
    }

    fn delete(&mut self, what: usize, range: TimeRange) {
        let query = Query::parse(&format!("?:{}", SELECTIONS[what])).unwrap();
        // As an engine does it: what is being read has to be there first.
        while !self.loads.is_empty() {
            self.finish_load(0, true);
        }
        let keys = self.keys.clone();
        let gone = |point: &Point| range.contains(point.timestamp) && query.matches(&keys[point.series.index()]);
        self.stored.retain(|&(timestamp, series), &mut (value, _)| !gone(&Point { series, timestamp, value }));
        let series = self.series(&query);
        for place in self.live.holding(&series, range) {
            let mut loading = self.live.begin_again(place, self.at.now).unwrap();
            let stored = self.stored(loading.query());
            read(&mut loading, &stored);
            let keys = |id: SeriesId| keys.get(id.index()).cloned();
            drop(self.live.replace(loading, self.at.now, &keys));
        }
        let now = self.at;
        for watched in &mut self.watched {
            let holds = match watched.window {
                Window::Running => false,
                Window::Absolute(own) => own.start <= range.end && range.start <= own.end,
                Window::Sliding { width_micros } => {
                    let start = watched.view.newest.map(|newest| newest.timestamp - width_micros);
                    start.or(watched.ahead.keys().next().map(|key| key.0)).is_some_and(|start| start <= range.end)
                }
            };
            if holds && series.iter().any(|id| watched.query.matches(&self.keys[id.index()])) {
                watched.delete(&now, gone);
            }
        }
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
            Step::Subscribe(op, what, range) => self.subscribe(&self.text(op, what, range)),
            Step::Again(which) if !self.watched.is_empty() => {
                let text = self.watched[which % self.watched.len()].query.to_string();
                self.subscribe(&text);
            }
            Step::Begin(op, what, range) => self.begin(&self.text(op, what, range)),
            Step::CatchUp(which) if !self.loads.is_empty() => {
                let which = which % self.loads.len();
                let load = &mut self.loads[which];
                load.read();
                let recorded = self.live.recorded(&load.loading).unwrap();
                assert!(load.loading.catch_up(Some(&recorded)));
            }
            Step::Finish(which, whole) if !self.loads.is_empty() => {
                self.finish_load(which % self.loads.len(), whole);
            }
            Step::Delete(what, from, len) => {
                let start = self.events_at + from * SECOND / 10;
                self.delete(what, TimeRange { start, end: start + len * SECOND / 10 });
            }
            Step::Free(which) if !self.watched.is_empty() => {
                let watched = self.watched.swap_remove(which % self.watched.len());
                assert!(self.live.unsubscribe(&self.subscriber, watched.handle.unwrap()));
            }
            Step::Pass(micros) => {
                self.at.now += micros;
                self.at.passed += micros.max(0);
                let keys = |id: SeriesId| self.keys.get(id.index()).cloned();
                drop(self.live.tick(self.at.now, &keys));
                for watched in &mut self.watched {
                    watched.tick(&self.at);
                }
            }
            Step::Take(which, count) if !self.watched.is_empty() => {
                let which = which % self.watched.len();
                self.take(which, count);
            }
            Step::Close(producer) => self.live.producer_closed(ProducerId::new(producer).unwrap()),
            Step::Again(_) | Step::Free(_) | Step::Take(..) | Step::CatchUp(_) | Step::Finish(..) => {}
        }
    }

    fn take(&mut self, which: usize, count: usize) {
        let watched = &mut self.watched[which];
        let handle = watched.handle.unwrap();
        for _ in 0..count {
            assert_eq!(self.subscriber.has_waiting(handle), !watched.waiting.is_empty());
            let update = self.subscriber.try_next(handle);
            match (update, watched.waiting.pop_front()) {
                (None, None) => return,
                (Some(update), Some(expected)) => assert_is(&update, &expected, &self.keys, &watched.query),
                (update, expected) => panic!("{}: {update:?} is not {expected:?}", watched.query),
            }
        }
    }

    fn finish(mut self) {
        while !self.loads.is_empty() {
            self.finish_load(0, true);
        }
        for which in 0..self.watched.len() {
            self.take(which, usize::MAX);
            let watched = &self.watched[which];
            let stats = self.subscriber.handle_stats(watched.handle.unwrap()).unwrap();
            assert_eq!((stats.late, stats.merged, stats.dropped), (watched.late, watched.merged, watched.dropped));
        }
        let late = self.watched.iter().map(|watched| watched.late).sum::<u64>();
        assert!(self.live.stats().late >= late, "those of handles that are gone are in it, too");
        self.live.remove(&self.subscriber);
        let stats = self.live.stats();
        assert_eq!((stats.windows, stats.handles, stats.points, stats.bytes), (0, 0, 0, 0));
    }
}

impl Load {
    fn read(&mut self) {
        if !std::mem::replace(&mut self.is_read, true) {
            read(&mut self.loading, &self.stored);
        }
    }
}

/// Reads a window as its documentation says, from points of which those of a timestamp are in the order of writing.
fn read(loading: &mut Loading, stored: &[Point]) {
    let inside = |range: TimeRange| stored.iter().copied().filter(move |point| range.contains(point.timestamp));
    let newest = |range| inside(range).max_by_key(|point| point.timestamp);
    if let Some(end) = loading.newest_until() {
        loading.begin(newest(TimeRange { start: i64::MIN, end }));
    }
    let by_series = |range| {
        let mut points: Vec<Point> = inside(range).collect();
        points.sort_by_key(|point| (point.series, point.timestamp));
        points.into_iter().map(Ok::<_, Infallible>)
    };
    if let Some(range) = loading.range() {
        loading.expect(inside(range).count() as u64);
        assert_eq!(loading.bucket_micros(), None);
        let Ok(()) = loading.put(by_series(range));
    }
    if let Some(range) = loading.range_ahead() {
        let Ok(()) = loading.put_ahead(by_series(range));
    }
    loading.end(loading.range().and_then(newest));
}

fn assert_is(update: &Update, expected: &Expected, keys: &[Arc<SeriesKey>], query: &Query) {
    let close = (update.value - expected.value).abs() <= expected.tolerance;
    let same = update.timestamp == expected.timestamp
        && *update.key() == keys[expected.series]
        && update.producers.iter().map(|id| id.get()).eq(expected.producers.iter().copied())
        && update.state.map(|state| state.1) == expected.count;
    assert!(close && same, "{query}: {update:?} is not {expected:?}");
    if let (Op::Avg, Some((sum, count))) = (query.op(), update.state) {
        // A mean is among the values, also where rounding would carry it past them.
        assert!((update.value - sum / count as f64).abs() <= 1e-15 * update.value.abs());
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
