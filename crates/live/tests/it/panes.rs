//! A window that does not keep its points shows its range and up to one pane more, whatever comes in whichever order.

use proptest::prelude::*;
use slung_live::{Options, WindowState};
use slung_model::{Aggregate, Op, Point};

use crate::support::{SECOND, World, of};

/// Series, step from the newest event time in hundredths of a second, value.
fn event() -> impl Strategy<Value = (u32, i64, i32)> {
    let step = prop_oneof![6 => 0..300_i64, 3 => -1_500..0_i64, 1 => 300..1_500_i64, 1 => Just(0)];
    (0..2_u32, step, -50..50_i32)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn panes_show_the_window_and_up_to_one_pane_more(
        events in prop::collection::vec(event(), 1..200),
        width in prop::sample::select(&[3 * SECOND, 20 * SECOND, 1_000][..]),
        windows_bytes_max in prop::sample::select(&[100_000_usize, 6_000][..]),
    ) {
        // Points are given up with the second one, and with little memory panes become longer.
        let options = Options { window_points_max: 1, windows_bytes_max, ..Options::default() };
        let mut world = World::with(2, options);
        let ops = [Op::Count, Op::Min, Op::Max, Op::Sum];
        let handles = ops.map(|op| world.subscribe(&format!("{op}:temp:[]:[{width}us]")));
        let (mut newest, mut written) = (0, Vec::<Point>::new());
        for (series, step, value) in events {
            let point = of(series, newest + step * SECOND / 100, f64::from(value));
            if written.iter().any(|other| (other.timestamp, other.series) == (point.timestamp, point.series)) {
                continue;
            }
            if written.is_empty() {
                newest = point.timestamp;
            }
            world.write(&[point]);
            let start = newest.max(point.timestamp) - width;
            let told = handles.map(|handle| world.values(handle));
            if point.timestamp < start {
                prop_assert!(told.iter().all(Vec::is_empty), "late");
                continue;
            }
            newest = newest.max(point.timestamp);
            written.push(point);
            let since = |start: i64| {
                Aggregate::of(written.iter().filter(|point| point.timestamp >= start).map(|point| point.value))
            };
            for ((op, handle), told) in ops.into_iter().zip(handles).zip(told) {
                let micros = match world.live.window_stats(handle).unwrap().state {
                    WindowState::Panes { micros } => micros,
                    _ => 0,
                };
                prop_assert!(micros == 0 || micros >= (width / 1_024).max(1));
                // What is shown begins between the start of the window and that of the pane that it cuts.
                let starts = written.iter().map(|point| point.timestamp).chain([start]);
                let mut shown = starts.filter(|at| (start - micros..=start).contains(at));
                prop_assert!(
                    shown.any(|at| since(at).value(op) == Some(told[0])),
                    "{op}: {told:?} is not what begins at {start} or up to {micros} us before it"
                );
            }
            prop_assert!(world.live.stats().bytes <= windows_bytes_max);
        }
    }
}
