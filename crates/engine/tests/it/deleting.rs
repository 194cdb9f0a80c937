//! A deletion in the store reaches the windows that are open: afterwards they are what a historical query answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use slung_engine::{Engine, Options};
use slung_live::{HandleId, Subscriber, WindowState};
use slung_model::Point;
use slung_store::sim::SimVfs;

use crate::support::{SECOND, TODAY, open, query, resolve, values};

const OPS: [&str; 9] = ["COUNT", "SUM", "AVG", "MIN", "MAX", "FIRST", "LAST", "STDDEV", "P50"];

fn subscribe(engine: &Engine, subscriber: &Arc<Subscriber>, range: &str) -> Vec<HandleId> {
    let each = OPS.iter().map(|op| engine.subscribe(subscriber, &query(&format!("{op}:temp:[]{range}"))).unwrap());
    each.collect()
}

fn ask(engine: &Engine, op: &str, range: &str) -> Option<f64> {
    engine.query(&query(&format!("{op}:temp:[]:{range}"))).unwrap().value
}

/// What each handle was told last.
fn told(subscriber: &Subscriber, handles: &[HandleId]) -> Vec<Option<f64>> {
    handles.iter().map(|handle| values(subscriber, *handle).last().copied()).collect()
}

fn assert_close(told: &[Option<f64>], expected: impl Fn(&str) -> Option<f64>) {
    for (op, told) in OPS.iter().zip(told) {
        let close = match (told, expected(op)) {
            (Some(told), Some(expected)) => (told - expected).abs() <= 1e-9 * expected.abs().max(1.0),
            (told, expected) => *told == expected,
        };
        assert!(close, "{op}: {told:?} is not {:?}", expected(op));
    }
}

#[test]
fn windows_are_told_what_is_left() {
    for (window_points_max, exact) in [(1_000_000, true), (50, false)] {
        let mut options = Options::default();
        options.live.window_points_max = window_points_max;
        let engine = open(SimVfs::new(5), options);
        let subscriber = engine.subscriber();
        let series = [0, 1].map(|n| resolve(&engine, "temp", n));
        let points: Vec<Point> = (0..200)
            .map(|i| Point {
                series: series[i as usize % 2],
                timestamp: TODAY - (200 - i) * SECOND,
                value: ((i * 7919) % 1009) as f64,
            })
            .collect();
        engine.write(None, &points[..150]).unwrap();
        let absolute = format!("[{},{TODAY}]", TODAY - 120 * SECOND);
        let ranges = [":[2m]".to_owned(), format!(":{absolute}"), String::new()];
        let [sliding, fixed, running] = ranges.map(|range| subscribe(&engine, &subscriber, &range));
        engine.write(None, &points[150..]).unwrap();
        [&sliding, &fixed, &running].into_iter().for_each(|handles| drop(told(&subscriber, handles)));
        let panes = |handle| matches!(engine.window_stats(handle).unwrap().state, WindowState::Panes { .. });
        assert_eq!(panes(sliding[0]), !exact);

        // A part in the middle, of one series; then the newest ones, of both; then nothing that a window has; then all.
        let end = TODAY - SECOND;
        for (what, from, to) in [("[n=0]", -90, -60), ("[]", -30, 0), ("[]", -1_000, -500), ("[]", -10_000, 10_000)] {
            let range = format!("[{},{}]", TODAY + from * SECOND, TODAY + to * SECOND);
            let deleted = engine.delete(&query(&format!("?:temp:{what}:{range}"))).unwrap();
            let window = format!("[{},{end}]", end - 120 * SECOND);
            let after = told(&subscriber, &sliding);
            if deleted.points == 0 {
                assert_eq!(after, [None; 9], "nothing has changed");
                assert_eq!(told(&subscriber, &fixed), [None; 9]);
                continue;
            }
            // An empty window has no value, but a COUNT and a SUM of 0.
            let of = |range: &str, op: &str| ask(&engine, op, range).or((op == "SUM").then_some(0.0));
            assert_close(&after, |op| of(&window, op));
            assert_close(&told(&subscriber, &fixed), |op| of(&absolute, op));
            assert_eq!(told(&subscriber, &running), [None; 9], "what arrived did arrive");
        }
        // The window is where it was.
        engine.write(None, &[Point { series: series[0], timestamp: TODAY - 121 * SECOND, value: 1.0 }]).unwrap();
        assert!(told(&subscriber, &sliding)[0] == Some(1.0));
        engine.write(None, &[Point { series: series[0], timestamp: TODAY - 122 * SECOND, value: 1.0 }]).unwrap();
        assert_eq!(told(&subscriber, &sliding)[0], None, "late");
    }
}

/// Writers go on meanwhile. What they write lies outside of what is deleted, so that it is known what must be left.
#[test]
fn windows_miss_nothing_that_is_written_meanwhile() {
    let mut options = Options::default();
    options.live.queue_updates_max = 1 << 20;
    let engine = open(SimVfs::new(9), options);
    let subscriber = engine.subscriber();
    let series = [0, 1].map(|n| resolve(&engine, "temp", n));
    let handles = subscribe(&engine, &subscriber, ":[1h]");
    let done = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !done.load(Ordering::SeqCst) && written < 2_000 {
                let timestamp = TODAY - 1_000 * SECOND + written * SECOND / 10;
                let point = |series| Point { series, timestamp, value: written as f64 };
                engine.write(None, &series.map(point)).unwrap();
                written += 1;
            }
            written
        });
        let range = format!("[{},{}]", TODAY - 3_000 * SECOND, TODAY - 2_000 * SECOND);
        for round in 0..20 {
            let old = Point { series: series[round % 2], timestamp: TODAY - 2_500 * SECOND, value: 1e9 };
            engine.write(None, &[old]).unwrap();
            assert!(engine.delete(&query(&format!("?:temp:[]:{range}"))).unwrap().points >= 1);
        }
        done.store(true, Ordering::SeqCst);
        writer.join().unwrap()
    });
    let last = Point { series: series[0], timestamp: TODAY, value: 5.0 };
    engine.write(None, &[last]).unwrap();
    let window = format!("[{},{TODAY}]", TODAY - 3600 * SECOND);
    assert_eq!(ask(&engine, "COUNT", &window), Some((2 * written + 1) as f64));
    assert_close(&told(&subscriber, &handles), |op| ask(&engine, op, &window));
}
