//! What the in-memory host holds: stored points, live queries, the script of what is still to happen, and the record of
//! what the workflow did.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use slung_abi::{Event, HttpMethod, limits};
use slung_live::{HandleId, Live, Options, Subscriber, Update};
use slung_model::{
    AHEAD_MICROS_MAX, Aggregate, Catalogue, Increase, Op, Point, ProducerId, Query, SeriesId, SeriesKey, Sketch,
    Spread, TIMESTAMP_MAX, TimeRange, validate_point,
};

use super::{Message, Request, Written};
use crate::WritebackMethod;

/// Polls after the script has ended, before a workflow that goes on regardless is stopped by a panic.
const POLLS_AFTER_END_MAX: u32 = 1_000;

/// Something that will happen while the workflow waits.
pub(super) enum Step {
    Arrives { producer: Option<ProducerId>, key: Arc<SeriesKey>, timestamp: i64, value: f64 },
    Passes(Duration),
    Disconnects(ProducerId),
}

/// Why a workflow under test stops polling: everything that was to happen has happened.
#[derive(Debug)]
pub(super) struct EndOfScript;

impl std::fmt::Display for EndOfScript {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the test's script has ended: nothing will arrive any more")
    }
}

impl std::error::Error for EndOfScript {}

pub(super) struct World {
    now: i64,
    catalogue: Catalogue,
    /// Each value with its place in the order of writes.
    stored: BTreeMap<(SeriesId, i64), (f64, u64)>,
    writes: u64,
    live: Live,
    subscriber: Arc<Subscriber>,
    /// By handle: the number of its last poll.
    polled: HashMap<HandleId, u64>,
    polls: u64,
    polls_after_end: u32,
    connected: BTreeSet<ProducerId>,
    producers: u64,
    pub(super) script: VecDeque<Step>,
    pub(super) responses: VecDeque<Vec<u8>>,
    pub(super) messages: Vec<Message>,
    pub(super) requests: Vec<Request>,
    pub(super) written: Vec<Written>,
    pub(super) log: Vec<String>,
}

impl World {
    pub(super) fn new(now: i64) -> Self {
        let live = Live::new(Options::default());
        Self {
            now,
            catalogue: Catalogue::default(),
            stored: BTreeMap::new(),
            writes: 0,
            subscriber: live.subscriber(),
            live,
            polled: HashMap::new(),
            polls: 0,
            polls_after_end: 0,
            connected: BTreeSet::new(),
            producers: 0,
            script: VecDeque::new(),
            responses: VecDeque::new(),
            messages: Vec::new(),
            requests: Vec::new(),
            written: Vec::new(),
            log: Vec::new(),
        }
    }

    pub(super) fn now(&self) -> i64 {
        self.now
    }

    /// A line of the workflow's log: kept, and shown by a test that fails.
    #[expect(clippy::print_stderr, reason = "a test harness shows it with the test that fails")]
    pub(super) fn log(&mut self, line: &str) {
        eprintln!("host: {line}");
        self.log.push(line.to_owned());
    }

    pub(super) fn connect(&mut self) -> ProducerId {
        self.producers += 1;
        let producer = ProducerId::new(self.producers).expect("counted from 1");
        self.connected.insert(producer);
        producer
    }

    /// A workflow ends, and with it everything that is only its own.
    pub(super) fn workflow_ended(&mut self) {
        self.live.remove(&self.subscriber);
        self.subscriber = self.live.subscriber();
        self.polled.clear();
        self.polls_after_end = 0;
    }

    /// An event comes from outside. It arrives when it says that it was, unless the clock is past that already.
    ///
    /// # Panics
    /// If the test's script is wrong: an event that no host takes, or one of a producer that is gone.
    pub(super) fn arrives(&mut self, producer: Option<ProducerId>, key: &SeriesKey, timestamp: i64, value: f64) {
        if let Some(gone) = producer.filter(|producer| !self.connected.contains(producer)) {
            panic!("the script is wrong: producer {} has disconnected and can't send", gone.get());
        }
        self.now = self.now.max(timestamp.min(TIMESTAMP_MAX));
        if let Err(reason) = self.write(producer, key, timestamp, value) {
            panic!("the script is wrong: {key}: {reason}");
        }
    }

    /// The one way in, as in the real host: checked, then stored, then live.
    fn write(
        &mut self,
        producer: Option<ProducerId>,
        key: &SeriesKey,
        timestamp: i64,
        value: f64,
    ) -> Result<(), String> {
        validate_point(timestamp, value, self.now, AHEAD_MICROS_MAX).map_err(|error| error.to_string())?;
        let known = self.catalogue.get(key).is_some();
        let series = self.catalogue.insert(key).map_err(|error| error.to_string())?;
        if let Some(key) = self.catalogue.key(series).filter(|_| !known) {
            self.live.series_added(series, key);
        }
        let catalogue = &self.catalogue;
        self.writes += 1;
        self.stored.insert((series, timestamp), (value, self.writes));
        let keys = |id| catalogue.key(id).cloned();
        drop(self.live.apply(producer, &[Point { series, timestamp, value }], self.now, &keys));
        Ok(())
    }

    /// The points of the query's series in that range, with their place in the order of writes.
    fn points<'a>(&'a self, query: &Query, range: TimeRange) -> impl Iterator<Item = (Point, u64)> + 'a {
        let series = if range.start <= range.end { self.catalogue.select(query) } else { Vec::new() };
        series.into_iter().flat_map(move |series| {
            let stored = self.stored.range((series, range.start)..=(series, range.end));
            stored.map(|(&(series, timestamp), &(value, write))| (Point { series, timestamp, value }, write))
        })
    }

    pub(super) fn query_live(&mut self, text: &str) -> Result<u64, String> {
        let query = Query::parse(text).map_err(|error| error.to_string())?;
        if self.subscriber.handles().len() >= limits::HANDLES_MAX {
            return Err(format!("a workflow may have {} handles", limits::HANDLES_MAX));
        }
        let mut history: Vec<(Point, u64)> = self.points(&query, TimeRange::ALL).collect();
        history.sort_by_key(|(point, write)| (point.timestamp, *write));
        let series = self.catalogue.select(&query);
        let history = history.into_iter().map(|(point, _)| point);
        let handle = self.live.subscribe(&self.subscriber, &query, series, history, self.now);
        handle.map(HandleId::get).map_err(|error| error.to_string())
    }

    pub(super) fn query_history(&self, text: &str) -> Result<Option<f64>, String> {
        let query = Query::parse(text).map_err(|error| format!("query `{text}`: {error}"))?;
        let points = self.points(&query, query.time_range(self.now));
        let value = |(point, _): (Point, u64)| point.value;
        Ok(match query.op() {
            Op::Raw | Op::Last => points.max_by_key(|(point, write)| (point.timestamp, *write)).map(value),
            // Series come in the order in which they became known, and of equals the first one counts.
            Op::First => points.min_by_key(|(point, _)| point.timestamp).map(value),
            Op::StdDev => Spread::of(&points.map(value).collect::<Vec<_>>()).std_dev(),
            Op::Rate => rate(points.map(|(point, _)| point)),
            Op::Quantile(quantile) => {
                let mut sketch = Sketch::default();
                points.map(value).for_each(|value| sketch.push(value));
                sketch.quantile(quantile)
            }
            op => Aggregate::of(points.map(value)).value(op),
        })
    }

    pub(super) fn free_handle(&mut self, handle: u64) -> Result<(), String> {
        let known = HandleId::new(handle).filter(|id| self.live.unsubscribe(&self.subscriber, *id));
        let id = known.ok_or_else(|| format!("handle {handle} is unknown or already freed"))?;
        self.polled.remove(&id);
        Ok(())
    }

    /// The handle's next update as JSON. Where nothing waits the script goes on until something arrives for any handle,
    /// or until the time is up, by the rules of the ABI.
    ///
    /// # Errors
    /// [`EndOfScript`] where nothing will arrive any more.
    ///
    /// # Panics
    /// If the workflow goes on polling after that.
    pub(super) fn poll(&mut self, handle: u64) -> io::Result<Option<Vec<u8>>> {
        self.polls += 1;
        let id = HandleId::new(handle).filter(|id| self.subscriber.handles().contains(id));
        let last_poll = id.and_then(|id| self.polled.insert(id, self.polls)).unwrap_or(0);
        if let Some(update) = self.next(id) {
            return Ok(Some(update));
        }
        // A guest that takes its handles in turn is not kept asleep while another one has something.
        if self.polled.iter().any(|(other, poll)| *poll > last_poll && self.subscriber.has_waiting(*other)) {
            return Ok(None);
        }
        let arrivals = self.subscriber.arrivals();
        while self.subscriber.arrivals() == arrivals {
            match self.script.pop_front() {
                Some(Step::Arrives { producer, key, timestamp, value }) => {
                    self.arrives(producer, &key, timestamp, value);
                }
                Some(Step::Disconnects(producer)) => {
                    self.connected.remove(&producer);
                    self.live.producer_closed(producer);
                }
                Some(Step::Passes(time)) => {
                    self.now = self.now.saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX));
                    let catalogue = &self.catalogue;
                    drop(self.live.tick(self.now, &|id| catalogue.key(id).cloned()));
                    break;
                }
                None => return Err(self.end()),
            }
        }
        Ok(self.next(id))
    }

    fn end(&mut self) -> io::Error {
        self.polls_after_end += 1;
        assert!(
            self.polls_after_end <= POLLS_AFTER_END_MAX,
            "the workflow goes on polling after the script has ended: it must pass the error of a poll on"
        );
        io::Error::new(io::ErrorKind::UnexpectedEof, EndOfScript)
    }

    fn next(&self, handle: Option<HandleId>) -> Option<Vec<u8>> {
        let update = self.subscriber.try_next(handle?)?;
        Some(serde_json::to_vec(&event(&update)).expect("finite numbers and strings have a JSON form"))
    }

    pub(super) fn write_event(&mut self, timestamp: &str, value: &str, tags: &str) -> Result<(), String> {
        let timestamp: i64 = timestamp.parse().map_err(|error| format!("timestamp `{timestamp}`: {error}"))?;
        let value: f64 = value.parse().map_err(|error| format!("value `{value}`: {error}"))?;
        let (names, tags): (Vec<&str>, Vec<&str>) = tags.split(',').partition(|token| token.starts_with("series="));
        let [name] = names[..] else { return Err(format!("{} series are named in the tags, not one", names.len())) };
        let name = &name["series=".len()..];
        let key = SeriesKey::new(name, &tags).map_err(|error| error.to_string())?;
        self.write(None, &key, timestamp, value)?;
        let tags = key.tags().map(str::to_owned).collect();
        self.written.push(Written { timestamp, value, series: name.to_owned(), tags });
        Ok(())
    }

    pub(super) fn writeback_ws(&mut self, producer: u64, data: &[u8]) -> Result<(), String> {
        within("a message", data.len(), limits::WS_BYTES_MAX)?;
        if !ProducerId::new(producer).is_some_and(|id| self.connected.contains(&id)) {
            return Err(format!("there is no producer {producer}"));
        }
        self.messages.push(Message { producer, data: data.to_vec() });
        Ok(())
    }

    pub(super) fn writeback_http(&mut self, url: &str, body: &[u8], method: HttpMethod) -> Result<Vec<u8>, String> {
        within("a URL", url.len(), limits::URL_BYTES_MAX)?;
        within("a body", body.len(), limits::HTTP_REQUEST_BYTES_MAX)?;
        let method = match method {
            HttpMethod::Get => WritebackMethod::GET,
            HttpMethod::Post => WritebackMethod::POST,
            HttpMethod::Put => WritebackMethod::PUT,
            HttpMethod::Delete => WritebackMethod::DELETE,
        };
        self.requests.push(Request { method, url: url.to_owned(), body: body.to_vec() });
        Ok(self.responses.pop_front().unwrap_or_default())
    }
}

/// What RATE answers of points that come by timestamp, at least those of one series.
fn rate(points: impl Iterator<Item = Point>) -> Option<f64> {
    let mut counters: BTreeMap<SeriesId, Increase> = BTreeMap::new();
    for Point { series, timestamp, value } in points {
        let counter = counters.entry(series);
        counter.and_modify(|it| it.push(timestamp, value)).or_insert(Increase::new(timestamp, value));
    }
    Aggregate::of(counters.values().filter_map(Increase::rate)).value(Op::Sum)
}

fn within(what: &str, bytes: usize, bytes_max: usize) -> Result<(), String> {
    if bytes > bytes_max {
        return Err(format!("{what} of {bytes} bytes, at most {bytes_max} are allowed"));
    }
    Ok(())
}

fn event(update: &Update) -> Event {
    let (sum, count) = update.state.unzip();
    Event {
        timestamp: update.timestamp,
        value: update.value,
        tags: update.key().tags().map(str::to_owned).collect(),
        producers: update.producers.iter().map(|producer| producer.get()).collect(),
        sum,
        count,
    }
}
