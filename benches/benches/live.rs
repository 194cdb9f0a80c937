//! Live queries: what one event costs that feeds nothing, one query, or a thousand, and what registering
//! costs. No clock, no disk, one thread.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use slung_benches::cost::memory_bytes;
use slung_benches::{Random, START, STEP, key, load, size};
use slung_engine::Engine;
use slung_live::{HandleId, Live, Options, Subscriber, Update};
use slung_model::{Aggregate, Clock, Point, ProducerId, Query, SeriesId, SeriesKey};

/// What the clock says: long after all events.
const NOW: i64 = 2 * START;

// The server's own, which is a binary.
#[path = "../../crates/server/src/event.rs"]
#[expect(dead_code, reason = "here only what workflows get is measured")]
mod event;

/// Everything that is written here comes by one connection.
fn producer() -> Option<ProducerId> {
    ProducerId::new(7)
}

/// What [`Live`] asks for once.
fn keys(id: SeriesId) -> Option<Arc<SeriesKey>> {
    Some(Arc::new(key(id.0)))
}

/// An event to somebody, and the update taken, over and over.
struct Stream {
    live: Live,
    subscriber: Arc<Subscriber>,
    handle: HandleId,
    point: Point,
    random: Random,
}

impl Stream {
    /// One query over one series.
    fn new(query: &str) -> Result<Self, Box<dyn Error>> {
        let mut live = Live::new(Options::default());
        let subscriber = live.subscriber();
        let series = SeriesId(0);
        let handle = live.subscribe(&subscriber, &Query::parse(query)?, [series], [], NOW)?;
        let point = Point { series, timestamp: START, value: 0.0 };
        Ok(Self { live, subscriber, handle, point, random: Random::default() })
    }

    /// The next event, with a time of its own.
    fn next(&mut self) -> f64 {
        self.point.timestamp += STEP;
        self.point.value = self.random.value();
        self.send(self.point)
    }

    fn send(&mut self, point: Point) -> f64 {
        drop(self.live.apply(producer(), &[point], NOW, &keys));
        self.subscriber.try_next(self.handle).map_or(f64::NAN, |update| update.value)
    }

    /// One of ten events is late, by anything up to the width, microseconds: it lands anywhere in the window.
    fn next_or_late(&mut self, width: i64) -> f64 {
        if self.random.below(10) != 0 {
            return self.next();
        }
        let timestamp = self.point.timestamp - self.random.below(width);
        let value = self.random.value();
        self.send(Point { timestamp, value, ..self.point })
    }
}

/// One event after the other, of 1,000 series that no query wants.
fn feeding_nothing(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let mut group = criterion.benchmark_group("event_feeding_nothing");
    for (name, queries) in [("0_queries", 0), ("10k_queries", size(10_000, 100))] {
        let mut live = Live::new(Options::default());
        let subscriber = live.subscriber();
        // Each has a series to itself, with an odd id, so that those with an even one lie among them.
        for host in (1..).step_by(2).take(queries) {
            let query = Query::parse(&format!("AVG:cpu.total:[host=h-{host}]:[5m]"))?;
            live.subscribe(&subscriber, &query, [SeriesId(host)], [], NOW)?;
        }
        let mut points = load(1_000).map(|point| Point { series: SeriesId(2 * point.series.0), ..point });
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let point = points.next();
                live.apply(producer(), black_box(point.as_slice()), NOW, &keys)
            });
        });
        assert_eq!(subscriber.arrivals(), 0);
    }
    group.finish();
    Ok(())
}

fn one_query(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let mut group = criterion.benchmark_group("event_to_one_query");

    // The random value and the aggregate alone: nothing is looked up, nobody told.
    let (mut random, mut total) = (Random::default(), Aggregate::EMPTY);
    group.bench_function("limit", |bencher| bencher.iter(|| total.push(black_box(random.value()))));

    let mut running = Stream::new("AVG:cpu.total:[]")?;
    group.bench_function("running_avg", |bencher| bencher.iter(|| running.next()));

    let points = size(100_000, 1_000);
    let width = STEP * i64::try_from(points)?;
    // Digits alone with a unit: microseconds.
    let rows = [
        ("window_100k_avg", "AVG"),
        ("window_100k_max", "MAX"),
        ("window_100k_stddev", "STDDEV"),
        ("window_100k_p99", "P99"),
    ];
    for (name, op) in rows {
        let query = format!("{op}:cpu.total:[]:[{width}us]");
        let mut ordered = Stream::new(&query)?;
        (0..points).for_each(|_| _ = ordered.next());
        group.bench_function(name, |bencher| bencher.iter(|| ordered.next()));

        let mut late = Stream::new(&query)?;
        (0..2 * points).for_each(|_| _ = late.next_or_late(width));
        group.bench_function(format!("{name}_late_10_percent"), |bencher| bencher.iter(|| late.next_or_late(width)));
        let kept = late.live.window_stats(late.handle).map_or(0, |stats| stats.points);
        assert!(kept > points, "those that are late are in it too");
    }
    group.finish();
    Ok(())
}

/// One event, and an update of it to each of 1,000 subscribers, taken by all of them.
fn many_queries(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let queries = size(1_000, 10);
    let mut live = Live::new(Options::default());
    let query = Query::parse("AVG:cpu.total:[env=prod]")?;
    let mut subscribers = Vec::new();
    for _ in 0..queries {
        let subscriber = live.subscriber();
        let handle = live.subscribe(&subscriber, &query, [SeriesId(0)], [], NOW)?;
        subscribers.push((subscriber, handle));
    }
    to_all(criterion, "1k_running_avg", &mut live, &subscribers, |_| {});
    // Each with what its workflow gets.
    let mut json = Vec::new();
    to_all(criterion, "1k_running_avg_json", &mut live, &subscribers, |update| {
        json.clear();
        event::write(update, &mut json);
        black_box(&json);
    });
    Ok(())
}

/// One event after the other, and its updates taken by all.
fn to_all(
    criterion: &mut Criterion,
    name: &str,
    live: &mut Live,
    subscribers: &[(Arc<Subscriber>, HandleId)],
    mut read: impl FnMut(&Update),
) {
    let mut points = load(1);
    let mut group = criterion.benchmark_group("event_to_many_queries");
    group.throughput(Throughput::Elements(subscribers.len() as u64));
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            let point = points.next();
            drop(live.apply(producer(), point.as_slice(), NOW, &keys));
            let updates = subscribers.iter().filter_map(|(subscriber, handle)| subscriber.try_next(*handle));
            updates.inspect(&mut read).count()
        });
    });
    group.finish();
}

/// One event, and an update of it from each of 1,000 windows that are all different, taken by all of their readers.
fn many_windows(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let queries = size(1_000, 10);
    let mut live = Live::new(Options::default());
    let mut subscribers = Vec::new();
    for width in 1..=queries {
        let subscriber = live.subscriber();
        let query = Query::parse(&format!("AVG:cpu.total:[env=prod]:[{width}ms]"))?;
        let handle = live.subscribe(&subscriber, &query, [SeriesId(0)], [], NOW)?;
        subscribers.push((subscriber, handle));
    }
    to_all(criterion, "1k_sliding_avg", &mut live, &subscribers, |_| {});
    Ok(())
}

/// Registering: over very many series, and over very many stored points, from a disk in memory.
fn registering(criterion: &mut Criterion) -> Result<(), Box<dyn Error>> {
    let mut group = criterion.benchmark_group("registering");
    group.sample_size(10);
    let series: Vec<SeriesId> = (0..).map(SeriesId).take(size(1_000_000, 1_000)).collect();
    for (name, text) in [("1m_series_running", "AVG:cpu.total:[]"), ("1m_series_sliding", "AVG:cpu.total:[]:[1h]")] {
        let mut live = Live::new(Options::default());
        let subscriber = live.subscriber();
        let query = Query::parse(text)?;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let handle = live.subscribe(&subscriber, &query, series.iter().copied(), [], NOW);
                handle.map(|handle| live.unsubscribe(&subscriber, handle))
            });
        });
    }

    let points = size(1_000_000, 10_000);
    for (hosts, name) in [(1, "1m_points_of_1_series"), (10, "1m_points_of_10_series")] {
        let vfs = Arc::new(slung_store::sim::SimVfs::new(1));
        let engine = Engine::open(vfs, Arc::new(Still), Path::new("data"), slung_engine::Options::default())?.0;
        let ids = (0..hosts).map(|host| engine.resolve(&key(host))).collect::<Result<Vec<_>, _>>()?;
        let stored: Vec<Point> =
            load(hosts).take(points).map(|point| Point { series: ids[point.series.index()], ..point }).collect();
        for batch in stored.chunks(1_000) {
            engine.write(None, batch)?;
        }
        let subscriber = engine.subscriber();
        for op in ["AVG", "P99"] {
            let query = Query::parse(&format!("{op}:cpu.total:[]:[1d]"))?;
            group.bench_function(format!("{}_{name}", op.to_lowercase()), |bencher| {
                bencher.iter(|| {
                    let handle = engine.subscribe(&subscriber, &query);
                    handle.map(|handle| {
                        assert_eq!(engine.window_stats(handle).map(|stats| stats.points), Some(points));
                        engine.unsubscribe(&subscriber, handle)
                    })
                });
            });
        }
    }
    group.finish();
    Ok(())
}

/// What very many queries take that wait for an event: a subscriber and a window each. Not a time, so criterion has no part
/// in it.
#[expect(clippy::print_stdout, reason = "a bench tells what it has measured")]
fn idle() -> Result<(), Box<dyn Error>> {
    let queries = size(100_000, 100);
    let before = memory_bytes()?;
    let mut live = Live::new(Options::default());
    let mut subscribers = Vec::new();
    for host in (0..).take(queries) {
        let subscriber = live.subscriber();
        let query = Query::parse(&format!("AVG:cpu.total:[host=h-{host}]:[5m]"))?;
        live.subscribe(&subscriber, &query, [SeriesId(host)], [], NOW)?;
        subscribers.push(subscriber);
    }
    let registered = memory_bytes()?.saturating_sub(before);
    for series in (0..).map(SeriesId).take(queries) {
        drop(live.apply(producer(), &[Point { series, timestamp: START, value: 1.0 }], NOW, &keys));
    }
    let waiting = memory_bytes()?.saturating_sub(before);
    println!(
        "idle_queries: {queries} take {} MiB, and {} MiB with an event and an update each\n",
        registered >> 20,
        waiting >> 20
    );
    Ok(())
}

/// A clock that stands still.
struct Still;

impl Clock for Still {
    fn now_micros(&self) -> i64 {
        NOW
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // Half of criterion's own 8 seconds each: on a shared machine several short runs tell more than a long one.
    let criterion = Criterion::default().without_plots().warm_up_time(Duration::from_secs(1));
    let mut criterion = criterion.measurement_time(Duration::from_secs(3)).configure_from_args();
    idle()?;
    feeding_nothing(&mut criterion)?;
    one_query(&mut criterion)?;
    many_queries(&mut criterion)?;
    many_windows(&mut criterion)?;
    registering(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
