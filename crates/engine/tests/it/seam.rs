//! Between a subscription's history and its stream there is no gap and no overlap, and both stand in one order of writes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use slung_engine::{Engine, Options};
use slung_live::{HandleId, Subscriber};
use slung_model::{Clock, Point};
use slung_store::sim::SimVfs;

use crate::support::{SECOND, TODAY, query, resolve, values};

const WRITERS: u32 = 3;
const READERS: usize = 3;
/// Subscriptions by each reader to each query, at about even distances.
const ROUNDS: u32 = 40;
/// Points by each writer.
const POINTS: u32 = 2_000;

/// Whoever looks at it, under whichever lock, lets others run first. It is past all events: ahead of the clock, what a window
/// holds would depend on which of the writers is on time.
struct YieldingClock;

impl Clock for YieldingClock {
    fn now_micros(&self) -> i64 {
        thread::yield_now();
        TODAY + i64::from(POINTS) * SECOND
    }
}

/// Nothing is merged away, so that a reader sees each step.
fn open(window_points_max: usize) -> Engine {
    let mut options = Options::default();
    options.live.queue_updates_max = 1 << 20;
    options.live.window_points_max = window_points_max;
    Engine::open(Arc::new(SimVfs::new(7)), Arc::new(YieldingClock), Path::new("data"), options).unwrap().0
}

struct Registered {
    subscriber: Arc<Subscriber>,
    handle: HandleId,
    text: String,
}

/// Runs the writers, and beside them readers that register queries all the time. `write` writes one batch from the given
/// point on, and says how many there were.
fn stream(engine: &Engine, texts: &[&str], write: impl Fn(&Engine, u32, u32) -> u32 + Sync) -> Vec<Registered> {
    let written = AtomicU32::new(0);
    let (write, written) = (&write, &written);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                let mut next = 0;
                while next < POINTS {
                    let count = write(engine, writer, next);
                    next += count;
                    written.fetch_add(count, Ordering::SeqCst);
                }
            });
        }
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                scope.spawn(move || {
                    let mut registered = Vec::new();
                    for round in 0..ROUNDS {
                        while written.load(Ordering::SeqCst) < round * WRITERS * POINTS / ROUNDS {
                            thread::yield_now();
                        }
                        for text in texts {
                            // Every other one shares a window with the readers before it, if that may be shared; the
                            // rest are queries of their own, which load what is stored.
                            let apart = format!(":[NOT {reader}-{round}]:");
                            let text = if round % 2 == 0 { text.replace(":[]:", &apart) } else { (*text).to_owned() };
                            let subscriber = engine.subscriber();
                            let handle = engine.subscribe(&subscriber, &query(&text)).unwrap();
                            registered.push(Registered { subscriber, handle, text });
                        }
                    }
                    registered
                })
            })
            .collect();
        readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
    })
}

/// An absolute window without room for its points counts writes, so that a point that is in history and stream counts
/// twice, and one that is in neither is missing. Series come into being all along.
#[test]
fn every_point_is_in_exactly_one_of_history_and_stream() {
    let engine = open(1);
    let everything = format!("COUNT:temp:[]:[0,{}]", 2 * TODAY);
    let registered = stream(&engine, &[&everything], |engine, writer, next| {
        let series = resolve(engine, "temp", writer + WRITERS * (next / 7));
        let batch: Vec<_> = (next..POINTS.min(next + 1 + next % 5))
            .map(|i| Point { series, timestamp: i64::from(i) * SECOND, value: 1.0 })
            .collect();
        engine.write(None, &batch).unwrap();
        batch.len() as u32
    });
    let last = Point { series: resolve(&engine, "temp", 0), timestamp: TODAY, value: 1.0 };
    engine.write(None, &[last]).unwrap();

    let total = f64::from(WRITERS * POINTS + 1);
    assert_eq!(engine.query(&query(&everything)).unwrap().value, Some(total));
    let mut firsts: Vec<f64> = Vec::new();
    for Registered { subscriber, handle, .. } in registered {
        let values = values(&subscriber, handle);
        assert_eq!(values.last(), Some(&total));
        assert!(values.windows(2).all(|pair| pair[1] == pair[0] + 1.0), "each write is one more");
        firsts.push(values[0]);
    }
    assert!(firsts.iter().any(|first| *first > 1.0 && *first < total), "some began in the middle");
}

/// The stream is handed on from reader to reader: what each of them was told are the points between two answers of `switch`.
#[test]
fn a_switch_between_writes_misses_and_doubles_nothing() {
    let engine = open(1);
    let series = resolve(&engine, "temp", 0);
    let done = AtomicU32::new(0);
    let readers: Vec<_> = thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (engine, done) = (&engine, &done);
            scope.spawn(move || {
                for next in 0..POINTS {
                    let timestamp = i64::from(next * WRITERS + writer) * SECOND;
                    let points = [1.0, 2.0].map(|value| Point { series, timestamp, value });
                    engine.write(None, &points[..1 + next as usize % 2]).unwrap();
                }
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        let mut readers = Vec::new();
        let mut before: Option<Arc<Subscriber>> = None;
        loop {
            let last = done.load(Ordering::SeqCst) == WRITERS;
            let subscriber = engine.subscriber();
            engine.hold(&subscriber);
            let handles = ["temp:[]", "COUNT:temp:[]"].map(|text| engine.subscribe(&subscriber, &query(text)).unwrap());
            thread::yield_now();
            let seq = engine.switch(before.as_ref(), &subscriber);
            before = Some(Arc::clone(&subscriber));
            readers.push((seq, subscriber, handles));
            if last {
                return readers;
            }
        }
    });
    assert!(readers.len() > 10, "{}", readers.len());
    for pair in readers.windows(2) {
        let [(from, subscriber, [raw, count]), (until, ..)] = pair else { unreachable!() };
        let told = until.0 - from.0;
        assert_eq!(values(subscriber, *raw).len() as u64, told);
        let counts = values(subscriber, *count);
        assert_eq!(counts.len() as u64, told);
        assert!(counts.last().is_none_or(|last| *last == told as f64), "it counts from the switch on");
    }
    assert_eq!(readers.last().unwrap().0.0, u64::from(WRITERS * POINTS / 2 * 3));
}

/// Writers overwrite each other's points, so that the sums agree only where the last one to write a point is the same one in
/// the store and in each window.
#[test]
fn windows_agree_with_history_after_concurrent_writes() {
    let engine = open(1_000_000);
    let everything = format!("[0,{}]", 2 * TODAY);
    let absolute = ["COUNT", "SUM"].map(|op| format!("{op}:temp:[]:{everything}"));
    let texts = ["COUNT:temp:[]:[1h]", "SUM:temp:[]:[1h]", "MAX:temp:[]:[5m]", &absolute[0], &absolute[1]];
    let registered = stream(&engine, &texts, |engine, writer, i| {
        let series = resolve(engine, "temp", i % 3);
        let timestamp = TODAY + i64::from((i * 31) % POINTS) * SECOND;
        engine.write(None, &[Point { series, timestamp, value: f64::from(writer * POINTS + i) }]).unwrap();
        1
    });
    let end = TODAY + i64::from(POINTS) * SECOND;
    let last = Point { series: resolve(&engine, "temp", 0), timestamp: end, value: 1.0 };
    engine.write(None, &[last]).unwrap();

    for Registered { subscriber, handle, text } in registered {
        let text = text
            .replace("[1h]", &format!("[{},{end}]", end - 3600 * SECOND))
            .replace("[5m]", &format!("[{},{end}]", end - 300 * SECOND));
        let stored = engine.query(&query(&text)).unwrap().value.unwrap();
        assert_eq!(values(&subscriber, handle).last(), Some(&stored), "{text}");
    }
    let count = engine.query(&query(&format!("COUNT:temp:[]:[{TODAY},{end}]"))).unwrap();
    assert_eq!(count.value, Some(f64::from(POINTS) + 1.0));
    let live = engine.stats().live;
    assert_eq!(
        (live.handles, live.windows),
        (texts.len() * READERS * ROUNDS as usize, texts.len() * (READERS * ROUNDS as usize / 2 + 1))
    );
}
