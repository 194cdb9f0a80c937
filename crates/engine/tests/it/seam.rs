//! Between a subscription's history and its stream there is no gap and no overlap, and both stand in one order of writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use slung_engine::{Engine, Options};
use slung_live::{HandleId, Subscriber};
use slung_model::Point;
use slung_store::sim::SimVfs;

use crate::support::{SECOND, TODAY, open, query, resolve, values};

const WRITERS: u32 = 3;
const READERS: usize = 3;
const POINTS: u32 = 2_000;

/// Nothing is merged away, so that a reader sees each step.
fn roomy(window_points_max: usize) -> Options {
    let mut options = Options::default();
    options.live.queue_updates_max = 1 << 20;
    options.live.window_points_max = window_points_max;
    options
}

struct Registered {
    subscriber: Arc<Subscriber>,
    handle: HandleId,
    text: String,
}

/// Runs the writers, and beside them readers that keep registering queries until all is written.
fn stream(engine: &Arc<Engine>, texts: &[&str], write: impl Fn(&Engine, u32) + Sync) -> Vec<Registered> {
    let writing = AtomicUsize::new(WRITERS as usize);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (write, writing) = (&write, &writing);
            scope.spawn(move || {
                write(engine, writer);
                writing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut registered = Vec::new();
                    // The writers would wait long for subscriptions without end.
                    for round in 0..20 {
                        if round > 0 && writing.load(Ordering::SeqCst) == 0 {
                            break;
                        }
                        for text in texts {
                            let subscriber = engine.subscriber();
                            let handle = engine.subscribe(&subscriber, &query(text)).unwrap();
                            registered.push(Registered { subscriber, handle, text: (*text).to_owned() });
                        }
                        thread::yield_now();
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
    let engine = Arc::new(open(SimVfs::new(7), roomy(1)));
    let everything = format!("COUNT:temp:[]:[0,{}]", 2 * TODAY);
    let registered = stream(&engine, &[&everything], |engine, writer| {
        let mut series = resolve(engine, "temp", writer);
        let mut next = 0;
        while next < POINTS {
            if next % 7 == 0 {
                series = resolve(engine, "temp", writer + WRITERS * next);
            }
            let batch: Vec<_> = (next..POINTS.min(next + 1 + next % 5))
                .map(|i| Point { series, timestamp: i64::from(i) * SECOND, value: 1.0 })
                .collect();
            engine.write(None, &batch).unwrap();
            next += batch.len() as u32;
        }
    });
    let last = Point { series: resolve(&engine, "temp", 0), timestamp: TODAY, value: 1.0 };
    engine.write(None, &[last]).unwrap();

    let total = f64::from(WRITERS * POINTS + 1);
    assert_eq!(engine.query(&query(&everything)).unwrap().value, Some(total));
    assert!(registered.len() >= READERS);
    for Registered { subscriber, handle, .. } in registered {
        let values = values(&subscriber, handle);
        assert_eq!(values.last(), Some(&total));
        assert!(values.windows(2).all(|pair| pair[1] == pair[0] + 1.0), "each write is one more");
    }
}

/// Writers overwrite each other's points, so that the sums agree only where the last one to write a point is the same one in
/// the store and in each window.
#[test]
fn windows_agree_with_history_after_concurrent_writes() {
    let engine = Arc::new(open(SimVfs::new(7), roomy(1_000_000)));
    let everything = format!("[0,{}]", 2 * TODAY);
    let absolute = ["COUNT", "SUM"].map(|op| format!("{op}:temp:[]:{everything}"));
    let texts = ["COUNT:temp:[]:[1h]", "SUM:temp:[]:[1h]", "MAX:temp:[]:[5m]", &absolute[0], &absolute[1]];
    let registered = stream(&engine, &texts, |engine, writer| {
        for i in 0..POINTS {
            let series = resolve(engine, "temp", i % 3);
            let timestamp = TODAY + i64::from((i * 31) % POINTS) * SECOND;
            engine.write(None, &[Point { series, timestamp, value: f64::from(writer * POINTS + i) }]).unwrap();
        }
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
    assert_eq!(engine.stats().store.points, u64::from(POINTS) + 1);
}
