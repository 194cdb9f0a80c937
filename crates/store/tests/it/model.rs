//! Random lives of a store, against a sorted map.

use proptest::prelude::*;
use slung_model::{Seq, TimeRange};
use slung_store::Store;
use slung_store::sim::SimVfs;

use crate::common::{Write, all_series, check_recovered, contents, expected, key, open, points};

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<Write>),
    WaitDurable,
    Query { series: Vec<usize>, range: (i64, i64) },
    Close,
    Kill,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let time = -40i64..40;
    let write = (0usize..5, time.clone(), -1e3..1e3f64);
    let series = proptest::collection::vec(0usize..5, 0..5);
    prop_oneof![
        8 => proptest::collection::vec(write, 0..30).prop_map(Step::Write),
        3 => (0i64..100_000, 1i64..9000).prop_map(|(from, many)| {
            // Enough to fill blocks, and to split them when it overlaps with what is there.
            Step::Write((0..many).map(|i| (0, from + i * 3, i as f64)).collect())
        }),
        2 => Just(Step::WaitDurable),
        4 => (series, (time.clone(), time)).prop_map(|(series, range)| Step::Query { series, range }),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => Just(Step::Crash),
    ]
}

struct Life {
    disk: SimVfs,
    store: Option<Store>,
    batches: Vec<Vec<Write>>,
    acknowledged: Seq,
}

impl Life {
    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open between steps")
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(open(&self.disk).expect("it can be opened").0);
        let kept = check_recovered(self.store(), &self.batches, self.acknowledged);
        self.batches.truncate(kept);
        self.acknowledged = self.store().durable_through();
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Write(batch) => {
                let points = points(self.store(), &batch).unwrap();
                let before = self.store().stats().last;
                let seq = self.store().write(&points).unwrap();
                assert_eq!(seq, Seq(before + points.len() as u64));
                self.batches.push(batch);
            }
            Step::WaitDurable => {
                let seq = Seq(self.store().stats().last);
                self.store().wait_durable(seq).unwrap();
                assert!(self.store().durable_through() >= seq);
                self.acknowledged = seq;
            }
            Step::Query { series, range } => self.query(&series, TimeRange { start: range.0, end: range.1 }),
            Step::Close => {
                self.store.take().unwrap().close().unwrap();
                self.acknowledged = Seq(self.batches.iter().map(|batch| batch.len() as u64).sum());
                self.reopen();
            }
            Step::Kill => {
                self.acknowledged = self.store().durable_through();
                self.disk.kill();
                self.reopen();
            }
            Step::Crash => {
                self.acknowledged = self.store().durable_through();
                self.disk.restart();
                self.reopen();
            }
        }
    }

    fn query(&self, series: &[usize], range: TimeRange) {
        let ids: Vec<_> = series.iter().map(|&number| self.store().resolve(&key(number)).unwrap().0).collect();
        let snapshot = self.store().snapshot(&ids, range);
        let names: Vec<String> = series.iter().map(|&number| key(number).to_string()).collect();
        let mut all = expected(&self.batches);
        all.retain(|(timestamp, name), _| range.contains(*timestamp) && names.contains(name));
        let named = |point: slung_model::Point| {
            ((point.timestamp, self.store().key(point.series).unwrap().to_string()), point.value)
        };
        let found: Vec<_> = snapshot.points().map(named).collect();
        assert_eq!(found.len(), all.len());
        assert_eq!(found.into_iter().collect::<std::collections::BTreeMap<_, _>>(), all);
        assert_eq!(snapshot.aggregate().count() as usize, all.len());
        // Of those with the greatest timestamp the one that was written last.
        let newest = all.keys().map(|(timestamp, _)| *timestamp).max();
        let mut writes = self.batches.iter().flatten();
        let last = writes.rfind(|(number, timestamp, _)| Some(*timestamp) == newest && series.contains(number));
        let answer = snapshot.last().map(|p| (self.store().key(p.series).unwrap().to_string(), p.timestamp, p.value));
        assert_eq!(answer, last.map(|&(number, timestamp, value)| (key(number).to_string(), timestamp, value)));
        assert_eq!(snapshot.seq().0, self.store().stats().last);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn it_holds_what_a_sorted_map_holds(seed: u64, steps in proptest::collection::vec(step(), 1..40)) {
        let disk = SimVfs::new(seed);
        let store = open(&disk).unwrap().0;
        let mut life = Life { disk, store: Some(store), batches: Vec::new(), acknowledged: Seq(0) };
        for step in steps {
            life.take(step);
        }
        prop_assert_eq!(contents(life.store()), expected(&life.batches));
        let held = life.store().snapshot(&all_series(life.store()), TimeRange::ALL);
        life.take(Step::Close);
        prop_assert_eq!(held.aggregate().count(), life.store().stats().points, "a snapshot outlives its store");
    }
}
