//! At every event, a window that keeps its points equals the historical query over the same stretch of time.

use proptest::prelude::*;
use slung_engine::Options;
use slung_model::{Op, Point};
use slung_store::sim::SimVfs;

use crate::support::{SECOND, TODAY, open, query, resolve};

const WIDTHS: [i64; 4] = [0, 3 * SECOND, 20 * SECOND, 1_000 * SECOND];
const OPS: [&str; 11] = ["AVG", "MIN", "MAX", "SUM", "COUNT", "FIRST", "LAST", "STDDEV", "P1", "P50", "P99.9"];

/// Series, step from the newest event time in tenths of a second, value.
fn event() -> impl Strategy<Value = (u32, i64, f64)> {
    let step = prop_oneof![6 => 0..10_i64, 3 => -100..0_i64, 1 => 10..300_i64];
    let value = prop_oneof![4 => -1e3..1e3, 1 => -1e15..1e15];
    (0..3_u32, step, value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_sliding_window_is_the_historical_query_over_it(
        events in prop::collection::vec(event(), 1..150),
        register_at in 0..100_usize,
        op in prop::sample::select(&OPS[..]),
        width in prop::sample::select(&WIDTHS[..]),
        // Not ahead of the clock, where a window may go back to it.
        years_ago in 1..15_i64,
    ) {
        let engine = open(SimVfs::new(3), Options::default());
        let subscriber = engine.subscriber();
        let text = format!("{op}:temp:[NOT n=2]");
        let mut handle = None;
        let mut newest = TODAY - years_ago * 365 * 24 * 3600 * SECOND;
        let mut seen = None;
        let mut late = 0;
        for (index, (sensor, step, value)) in events.into_iter().enumerate() {
            if index == register_at {
                handle = Some(engine.subscribe(&subscriber, &query(&format!("{text}:[{width}us]"))).unwrap());
            }
            let timestamp = newest + step * SECOND / 10;
            newest = newest.max(timestamp);
            engine.write(None, &[Point { series: resolve(&engine, "temp", sensor), timestamp, value }]).unwrap();
            let update = handle.and_then(|handle| subscriber.try_next(handle));
            if sensor == 2 {
                prop_assert!(update.is_none());
                continue;
            }
            let before = seen;
            seen = seen.max(Some(timestamp));
            let Some(handle) = handle else { continue };
            if before.is_some_and(|before| timestamp < before - width) {
                late += 1;
                prop_assert!(update.is_none());
                continue;
            }
            let update = update.unwrap();
            let end = seen.unwrap();
            let range = format!("[{},{end}]", end - width);
            let stored = engine.query(&query(&format!("{text}:{range}"))).unwrap();
            let state = update.state.map(|state| state.1);
            prop_assert!(state.is_none_or(|count| count == stored.count));
            let tolerance = match query(&text).op() {
                Op::Sum => 1e-12 * engine_abs(&engine, &range),
                Op::Avg => 1e-12 * engine_abs(&engine, &range) / stored.count as f64,
                Op::StdDev => 1e-7 * engine_abs(&engine, &range),
                _ => 0.0,
            };
            let stored = stored.value.unwrap();
            prop_assert!((update.value - stored).abs() <= tolerance, "{} live, {stored} stored", update.value);
            prop_assert_eq!(subscriber.handle_stats(handle).unwrap().late, late);
        }
    }
}

/// At least the largest absolute value in the range, which is at most the sum of all of them.
fn engine_abs(engine: &slung_engine::Engine, range: &str) -> f64 {
    let [min, max] =
        ["MIN", "MAX"].map(|op| engine.query(&query(&format!("{op}:temp:[NOT n=2]:{range}"))).unwrap().value.unwrap());
    min.abs().max(max.abs())
}
