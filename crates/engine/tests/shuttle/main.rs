//! The seam between what is stored and the stream under many schedules: every point is in exactly one of the two, and what is
//! deleted is in neither. The source is the crate's own; what it locks with is a scheduler's, which decides at each such step
//! who goes on, and so are the locks of the history, which stands in for a store.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::sync::Arc;

use shuttle::sync::Mutex;
use shuttle::thread;
use slung_live::{HandleId, Live, Loading, Options, Subscriber};
use slung_model::{Point, Query, Seq, SeriesId, SeriesKey, Spread, TimeRange};

use error::Error;
use seam::{History, Seam};

/// In place of the crate's own.
mod sync {
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};
}

#[path = "../../src/error.rs"]
#[expect(dead_code, unreachable_pub, reason = "there it is a part of the crate and public")]
mod error;
#[path = "../../src/seam.rs"]
#[expect(dead_code, reason = "there all of it is used")]
mod seam;

/// Schedules per test and way of choosing them.
const SCHEDULES: usize = 10_000;
/// Switches between threads at the worst moments: most mistakes need two or three.
const SWITCHES: usize = 3;

fn under_many_schedules(test: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(test, SCHEDULES);
    shuttle::check_pct(test, SCHEDULES, SWITCHES);
}

const SERIES: u32 = 2;

/// Points of two series, in the order of writing, each timestamp once.
#[derive(Default)]
struct Shelf(Mutex<Vec<Point>>);

impl Shelf {
    /// Away with those from that time on, up to before that one.
    fn delete(&self, from: i64, to: i64) {
        self.0.lock().unwrap().retain(|point| point.timestamp < from || point.timestamp >= to);
    }
}

impl History for Shelf {
    type Snapshot = Vec<Point>;

    fn select(&self, query: &Query) -> Vec<SeriesId> {
        (0..SERIES).map(SeriesId).filter(|id| query.matches(&key(*id))).collect()
    }

    fn key(&self, series: SeriesId) -> Option<Arc<SeriesKey>> {
        Some(Arc::new(key(series)))
    }

    fn snapshot(&self, _: &[SeriesId]) -> Vec<Point> {
        self.0.lock().unwrap().clone()
    }

    fn read(
        &self,
        snapshot: &Vec<Point>,
        loading: &mut Loading,
        catch_up: &mut dyn FnMut(&mut Loading) -> bool,
    ) -> Result<(), Error> {
        let inside = |range: TimeRange| snapshot.iter().copied().filter(move |point| range.contains(point.timestamp));
        let newest = |range| inside(range).max_by_key(|point| point.timestamp);
        if let Some(end) = loading.newest_until() {
            loading.begin(newest(TimeRange { start: i64::MIN, end }));
        }
        // Reading takes its time.
        thread::yield_now();
        if let Some(range) = loading.range() {
            loading.expect(inside(range).count() as u64);
            if loading.keeps_points() {
                loading.put(inside(range).map(Ok::<_, Error>))?;
            } else {
                // Each point by itself and as a bucket in turn, with all that has arrived in between.
                for (index, point) in inside(range).enumerate() {
                    match loading.bucket_micros().filter(|_| index % 2 == 0) {
                        Some(micros) => {
                            let start = point.timestamp.div_euclid(micros) * micros;
                            loading.put_bucket(start, &Spread::of(&[point.value]));
                        }
                        None => loading.put([Ok::<_, Error>(point)])?,
                    }
                    thread::yield_now();
                    if !catch_up(loading) {
                        return Ok(());
                    }
                }
            }
        }
        loading.end(loading.range().and_then(newest));
        Ok(())
    }

    fn now_micros(&self) -> i64 {
        1_000_000_000
    }
}

fn key(series: SeriesId) -> SeriesKey {
    SeriesKey::new("temp", [format!("n={}", series.0)]).unwrap()
}

/// What every thread of a test shares.
struct World {
    seam: Seam,
    shelf: Shelf,
}

impl World {
    /// Of windows that keep so many points. Nothing is merged away.
    fn new(window_points_max: usize) -> Arc<Self> {
        let options = Options { window_points_max, queue_updates_max: 1_000, ..Options::default() };
        Arc::new(Self { seam: Seam::new(Live::new(options), 0, Seq(0)), shelf: Shelf::default() })
    }

    fn write(&self, series: u32, timestamp: i64) {
        let points = [Point { series: SeriesId(series), timestamp, value: 1.0 }];
        let store = || {
            self.shelf.0.lock().unwrap().extend(points);
            Ok(Seq(0))
        };
        self.seam.put(&self.shelf, None, &points, store).unwrap();
    }

    fn subscribe(&self, query: &str) -> (Arc<Subscriber>, HandleId) {
        let subscriber = self.seam.with_live(|live| live.subscriber());
        let handle = self.seam.subscribe(&self.shelf, &subscriber, &Query::parse(query).unwrap()).unwrap();
        (subscriber, handle)
    }

    /// Both series are written to at once, so many times each; each timestamp is used once.
    fn write_both(self: &Arc<Self>, times: i64) -> Vec<thread::JoinHandle<()>> {
        let writer = |series: u32| {
            let world = Arc::clone(self);
            thread::spawn(move || (0..times).for_each(|i| world.write(series, 10 + 2 * i + i64::from(series))))
        };
        (0..SERIES).map(writer).collect()
    }
}

fn values((subscriber, handle): &(Arc<Subscriber>, HandleId)) -> Vec<f64> {
    std::iter::from_fn(|| subscriber.try_next(*handle)).map(|update| update.value).collect()
}

/// Windows that count writes tell what is missing, and what is there twice: an absolute one that is too big, and panes.
#[test]
fn every_point_is_in_exactly_one_of_history_and_stream() {
    under_many_schedules(|| {
        let world = World::new(1);
        world.write(0, 1);
        world.write(1, 2);
        let times = 3;
        let writers = world.write_both(times);
        let readers: Vec<_> = ["COUNT:temp:[]:[0,1000]", "COUNT:temp:[]:[1s]", "COUNT:temp:[]:[1s]"]
            .map(|query| {
                let world = Arc::clone(&world);
                thread::spawn(move || world.subscribe(query))
            })
            .into();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let readers: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        world.write(0, 500);
        let total = (2 + i64::from(SERIES) * times + 1) as f64;
        for reader in &readers {
            let values = values(reader);
            assert_eq!(values.last(), Some(&total), "{values:?}");
            assert!(values.windows(2).all(|pair| pair[1] == pair[0] + 1.0), "each write is one more: {values:?}");
        }
        let windows = world.seam.with_live(|live| live.stats().windows);
        // Those of one query share a window, unless it counted when the other one came.
        assert!((2..=3).contains(&windows), "{windows} windows");
    });
}

#[test]
fn what_is_deleted_is_in_no_window() {
    under_many_schedules(|| {
        let world = World::new(1_000);
        (1..=4).for_each(|timestamp| world.write(0, timestamp));
        let early = world.subscribe("COUNT:temp:[]:[1s]");
        let times = 2;
        let writers = world.write_both(times);
        let late = {
            let world = Arc::clone(&world);
            thread::spawn(move || world.subscribe("SUM:temp:[]:[1s]"))
        };
        let deleter = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                world.shelf.delete(2, 4);
                let series: Vec<_> = (0..SERIES).map(SeriesId).collect();
                world.seam.deleted(&world.shelf, &series, TimeRange { start: 2, end: 3 }).unwrap();
            })
        };
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        deleter.join().unwrap();
        let late = late.join().unwrap();
        world.write(0, 500);
        let total = (2 + i64::from(SERIES) * times + 1) as f64;
        for reader in [early, late] {
            assert_eq!(values(&reader).last(), Some(&total));
        }
    });
}
