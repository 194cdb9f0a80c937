//! Clocks that jump, and retention that must not follow them.

use slung_store::sim::SimVfs;
use slung_store::{Options, Store};

use crate::common::{Contents, SECOND, SetClock, add, contents, open, options, put};

const KEPT: i64 = 10 * SECOND;
const YEARS: i64 = 20 * 365 * 86_400 * SECOND;

fn keep_up(store: &Store) {
    store.flush().unwrap();
    while store.upkeep().unwrap() {}
}

/// Every point that is not older than the retention, seen from the newest one, is there.
fn check(store: &Store, all: &Contents, what: &str) {
    let found = contents(store).unwrap();
    let newest = all.keys().map(|(_, at)| *at).max().unwrap();
    for (place, bits) in all {
        if place.1 >= newest - KEPT {
            assert_eq!(found.get(place), Some(bits), "{what}: {place:?} is gone");
        }
    }
}

#[test]
fn a_clock_that_jumps_takes_nothing_that_is_young_by_its_own_time() {
    let disk = SimVfs::new(1);
    let clock = SetClock::default();
    let options = Options { retention_micros: Some(KEPT), ..options() };
    let (mut store, _) = open(&disk, &clock, &options).unwrap();
    let mut all = Contents::new();
    // Right, far ahead, right, far back, a little ahead, a little back, the ends of time.
    let offsets = [0, YEARS, 0, -YEARS, 15 * SECOND, -15 * SECOND, i64::MAX, i64::MIN, 0];
    for (step, offset) in (0i64..).zip(offsets.into_iter().cycle().take(36)) {
        let now = 1_700_000_000 * SECOND + step * SECOND;
        clock.set(now.saturating_add(offset));
        let batch = [(0, now, step as f64), (1, now - SECOND / 2, -1.0), (2, now - KEPT, 0.5)];
        put(&store, &batch).unwrap();
        add(&mut all, &batch);
        check(&store, &all, "before");
        keep_up(&store);
        check(&store, &all, "after");
        if step % 5 == 4 {
            drop(store);
            store = open(&disk, &clock, &options).unwrap().0;
            check(&store, &all, "after a start");
        }
    }
    // It does give up points.
    clock.set(1_700_000_040 * SECOND);
    keep_up(&store);
    let oldest = contents(&store).unwrap().keys().map(|(_, at)| *at).min().unwrap();
    assert!(oldest >= (1_700_000_035 * SECOND) - KEPT - SECOND, "{oldest}");
}

#[test]
fn a_point_from_the_far_future_makes_no_other_go_while_the_clock_is_right() {
    let disk = SimVfs::new(1);
    let clock = SetClock::default();
    let options = Options { retention_micros: Some(KEPT), ..options() };
    let (store, _) = open(&disk, &clock, &options).unwrap();
    let mut young = Contents::new();
    put(&store, &[(9, YEARS, 1.0)]).unwrap();
    for step in 0..30 {
        let now = step * SECOND;
        clock.set(now);
        let batch = [(0, now, 1.0), (1, now - KEPT / 2, 2.0)];
        put(&store, &batch).unwrap();
        add(&mut young, &batch);
        keep_up(&store);
        young.retain(|(_, at), _| *at >= now - KEPT);
        let found = contents(&store).unwrap();
        assert!(young.iter().all(|(place, bits)| found.get(place) == Some(bits)), "at {now}");
    }
    assert!(contents(&store).unwrap().len() < 40, "and what is old goes");
}
