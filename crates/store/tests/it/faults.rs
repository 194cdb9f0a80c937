//! A crash, and an error, at every call that a workload makes to its files.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};

use slung_model::{Seq, TimeRange};
use slung_store::sim::{Fault, SimVfs};
use slung_store::{Error, Store};

use crate::common::{
    Write, all_series, at_once, check_recovered, contents, define, dir, expected, key, log, open, points,
};

/// A workload on one disk, and what it was told.
struct Run {
    disk: SimVfs,
    store: Option<Store>,
    batches: Vec<Vec<Write>>,
    acknowledged: Seq,
}

impl Run {
    fn new(disk: SimVfs) -> Self {
        Self { disk, store: None, batches: Vec::new(), acknowledged: Seq(0) }
    }

    /// In order, out of order, and over what is there; some batches span several pieces of the disk.
    fn batch(&self) -> Vec<Write> {
        let n = self.batches.len();
        let base = i64::try_from(n).unwrap() * 10;
        let size = [1, 4, 9][n % 3];
        let write = |i: usize| {
            let back = if i % 4 == 3 { 25 } else { 0 };
            ((n + i) % 4, base + i64::try_from(i).unwrap() - back, (n * 100 + i) as f64)
        };
        (0..size).map(write).collect()
    }

    /// Opens it, and makes all series known: every write after that is one commit of two calls.
    fn begin(&mut self) {
        self.open().unwrap();
        for number in 0..4 {
            define(self.store.as_ref().unwrap(), &key(number));
        }
    }

    fn write(&mut self) -> Result<Seq, Error> {
        let store = self.store.as_ref().expect("it is open");
        let batch = self.batch();
        let seq = store.write(&points(store, &batch)?)?;
        self.batches.push(batch);
        Ok(seq)
    }

    fn acknowledge(&mut self, seq: Seq) -> Result<(), Error> {
        let store = self.store.as_ref().expect("it is open");
        store.wait_durable(seq)?;
        self.acknowledged = seq;
        Ok(())
    }

    fn open(&mut self) -> Result<(), Error> {
        // The one before gives the directory back first.
        self.store = None;
        self.store = Some(open(&self.disk)?.0);
        Ok(())
    }

    /// Three lives of a store: about a hundred calls.
    fn work(&mut self) -> Result<(), Error> {
        for life in 0..3 {
            self.open()?;
            for round in 0..11 {
                let mut seq = self.write()?;
                if (life + round) % 5 == 0 {
                    seq = self.write()?;
                }
                self.acknowledge(seq)?;
            }
            self.store.take().expect("it is open").close()?;
        }
        Ok(())
    }

    /// What must hold once it is open again; from here the workload could go on.
    fn recover(&mut self) {
        self.open().expect("what a fault leaves can be opened");
        let store = self.store.as_ref().expect("it is open");
        let kept = check_recovered(store, &self.batches, self.acknowledged);
        self.batches.truncate(kept);
    }

    fn write_and_acknowledge(&mut self) {
        let seq = self.write().expect("a write after recovery");
        self.acknowledge(seq).expect("a commit after recovery");
    }
}

fn calls() -> u64 {
    let mut run = Run::new(SimVfs::new(0));
    run.work().unwrap();
    let calls = run.disk.calls();
    assert!((80..200).contains(&calls), "{calls}");
    // Two writes in a row take one commit or two: the count differs a little from run to run.
    calls + 10
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_every_call() {
    for call in 0..calls() {
        for seed in 0..8 {
            let mut run = Run::new(SimVfs::new(call << 8 | seed));
            run.disk.fault_at(call, Fault::Stop);
            if run.work().is_ok() {
                assert!(!run.disk.is_stopped(), "a stop does not go unnoticed");
            }
            run.disk.restart();
            run.recover();
            run.write_and_acknowledge();
            // And the next crash, in the middle of nothing.
            run.disk.restart();
            run.recover();
        }
    }
}

/// A process that is killed leaves what it wrote to the system, synced or not. What was read from there counts as durable,
/// so it must be before the power goes.
#[test]
fn what_is_read_after_a_kill_survives_a_crash() {
    for call in 0..calls() {
        for seed in 0..4 {
            let mut run = Run::new(SimVfs::new(call << 8 | seed));
            run.disk.fault_at(call, Fault::Error(ErrorKind::Interrupted));
            let _ = run.work();
            run.disk.kill();
            run.recover();
            run.acknowledged = run.store.as_ref().unwrap().durable_through();
            run.disk.restart();
            run.recover();
        }
    }
}

#[test]
fn an_error_at_any_call_stops_writing_but_loses_nothing_that_was_acknowledged() {
    for call in 0..calls() {
        for (seed, kind) in (0..).zip([ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::Other, ErrorKind::Other]) {
            let mut run = Run::new(SimVfs::new(call << 8 | seed));
            run.disk.fault_at(call, Fault::Error(kind));
            if run.work().is_ok() {
                continue;
            }
            if let Some(store) = &run.store {
                let Err(Error::ReadOnly { failure }) = store.health() else { panic!("it says why") };
                assert_eq!(failure.source.kind(), kind);
                assert_eq!(contents(store), expected(&run.batches), "reading goes on");
                let before = run.batches.len();
                assert!(matches!(run.write(), Err(Error::ReadOnly { .. })));
                assert_eq!(run.batches.len(), before);
            }
            // The disk works again: opened anew, on the same running system.
            run.recover();
            run.write_and_acknowledge();
            // What was acknowledged before and after the failure must be on the disk and not only in the system's memory.
            run.disk.restart();
            run.recover();
            run.write_and_acknowledge();
        }
    }
}

/// A sync failed, the operator opened the store again, and the system, which had marked the data as written, answered
/// success to every later sync. A store that believes it acknowledges points that are nowhere on the disk, and after the
/// next power loss finds a hole in its log with good records behind it. So the last record is written once more at start.
#[test]
fn a_failed_sync_that_later_claims_success_is_not_believed() {
    for seed in 0..64 {
        let mut run = Run::new(SimVfs::new(seed));
        run.begin();
        run.write_and_acknowledge();
        // The next commit is a write and a sync.
        run.disk.fault_at(run.disk.calls() + 1, Fault::Error(ErrorKind::Other));
        let seq = run.write().unwrap();
        assert!(matches!(run.acknowledge(seq), Err(Error::ReadOnly { .. })));
        run.recover();
        assert_eq!(run.batches.len(), 2, "the running system still sees it");
        run.acknowledged = seq;
        run.write_and_acknowledge();
        run.disk.restart();
        run.recover();
    }
}

#[test]
fn a_full_disk_refuses_writes_and_says_so() {
    let mut run = Run::new(SimVfs::new(3));
    run.begin();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    run.store.as_ref().unwrap().on_commit(move |seq| hears.lock().unwrap().push(seq));
    run.write_and_acknowledge();
    run.disk.fault_at(run.disk.calls(), Fault::Error(ErrorKind::StorageFull));
    let seq = run.write().unwrap();
    let error = run.acknowledge(seq).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("writing data/log-00000001 at byte "), "{text}");
    let Error::ReadOnly { failure } = error else { panic!("{error}") };
    assert_eq!(failure.source.kind(), ErrorKind::StorageFull);
    let store = run.store.as_ref().unwrap();
    assert_eq!(store.durable_through(), run.acknowledged);
    assert_eq!(store.snapshot(&all_series(store), TimeRange::ALL).seq(), seq, "it stays visible");
    assert!(matches!(store.resolve(&key(77)), Err(Error::ReadOnly { .. })));
    assert!(store.resolve(&key(0)).is_ok(), "known series are");
    // Space returns.
    assert!(matches!(run.store.take().unwrap().close(), Err(Error::ReadOnly { .. })));
    run.recover();
    run.write_and_acknowledge();
    let mut heard = heard.lock().unwrap().clone();
    // It may still have heard of the last definition.
    heard.retain(|seq| *seq > Seq(0));
    assert_eq!(heard, [Seq(1), Seq(1)], "the commit, and the failure");
}

#[test]
fn the_torn_end_is_reported() {
    let disk = SimVfs::new(1);
    let mut run = Run::new(disk.clone());
    run.begin();
    run.write_and_acknowledge();
    let whole = disk.read(log()).unwrap().len() as u64;
    run.write_and_acknowledge();
    run.store = None;
    let bytes = disk.read(log()).unwrap();
    disk.plant(log(), &bytes[..bytes.len() - 40]);
    let (store, recovery) = Store::open(Arc::new(disk.clone()), dir(), at_once()).unwrap();
    let trimmed = recovery.trimmed.expect("something was cut off");
    assert_eq!((trimmed.path.as_path(), trimmed.offset), (log(), whole));
    assert_eq!(trimmed.bytes, bytes.len() as u64 - 40 - whole);
    let text = trimmed.to_string();
    assert!(text.starts_with("data/log-00000001: cut off the torn end, "), "{text}");
    assert_eq!((recovery.log_bytes, recovery.points, recovery.series), (whole, 1, 4));
    assert_eq!(contents(&store), expected(&run.batches[..1]));
    drop(store);
    let (_, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.trimmed, None, "once");
}
