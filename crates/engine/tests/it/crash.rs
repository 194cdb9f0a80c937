//! What a crash leaves: all that was acknowledged, and windows that start from it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use slung_engine::{Engine, Options};
use slung_model::{Point, Seq};
use slung_store::sim::SimVfs;

use crate::support::{SECOND, TODAY, clock, open, query, resolve, values};

#[test]
fn what_was_acknowledged_is_there_and_windows_start_from_it() {
    for seed in 0..30 {
        let disk = SimVfs::new(seed);
        let engine = open(disk.clone(), Options::default());
        let acknowledged = Arc::new(AtomicU64::new(0));
        engine.on_commit({
            let acknowledged = Arc::clone(&acknowledged);
            move |through| {
                acknowledged.fetch_max(through.0, Ordering::SeqCst);
            }
        });
        let mut last = Seq(0);
        for i in 0..200_u32 {
            let series = resolve(&engine, "temp", i % 5);
            let timestamp = TODAY - 300 * SECOND + i64::from(i) * SECOND;
            last = engine.write(None, &[Point { series, timestamp, value: f64::from(i) }]).unwrap();
            if i % 50 == seed as u32 {
                engine.wait_durable(last).unwrap();
                assert!(engine.durable_through() >= last);
            }
        }
        assert_eq!(last, Seq(200));
        let durable = acknowledged.load(Ordering::SeqCst);
        disk.restart();
        drop(engine);

        let (engine, recovery) = Engine::open(Arc::new(disk), clock(), Path::new("data"), Options::default()).unwrap();
        assert!((durable..=200).contains(&recovery.points), "{} of {durable} are there", recovery.points);
        let kept = recovery.points as f64;
        let sum = engine.query(&query("SUM:temp:[]")).unwrap();
        assert_eq!((sum.value.unwrap_or(0.0), sum.count), (kept * (kept - 1.0) / 2.0, recovery.points), "a prefix");

        let subscriber = engine.subscriber();
        let count = engine.subscribe(&subscriber, &query("COUNT:temp:[]:[1h]")).unwrap();
        let series = resolve(&engine, "temp", 77);
        engine.write(None, &[Point { series, timestamp: TODAY, value: 0.0 }]).unwrap();
        assert_eq!(values(&subscriber, count), [kept + 1.0]);
    }
}

#[test]
fn a_clean_stop_keeps_everything() {
    let disk = SimVfs::new(1);
    let engine = open(disk.clone(), Options::default());
    let series = resolve(&engine, "temp", 0);
    engine.write(None, &[Point { series, timestamp: TODAY, value: 2.0 }]).unwrap();
    engine.close().unwrap();
    disk.restart();
    let engine = open(disk, Options::default());
    assert_eq!(resolve(&engine, "temp", 0), series);
    assert_eq!(engine.query(&query("temp:[]")).unwrap().value, Some(2.0));
}
