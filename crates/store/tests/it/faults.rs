//! A crash, and an error, at every call that a workload makes to the files of its log.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::thread;

use slung_model::{Seq, TimeRange};
use slung_store::sim::{Fault, SimVfs};
use slung_store::{Error, Store};

use crate::common::{Write, all_series, check_recovered, contents, define, expected, key, log, open, points};

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
    assert!((100..300).contains(&calls), "{calls}");
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
fn an_error_at_any_call_loses_nothing_and_writing_goes_on() {
    for call in 0..calls() {
        for (seed, kind) in (0..).zip([ErrorKind::Other, ErrorKind::StorageFull, ErrorKind::Other]) {
            let mut run = Run::new(SimVfs::new(call << 8 | seed));
            run.disk.fault_at(call, Fault::Error(kind));
            let worked = run.work();
            if run.disk.calls() <= call {
                continue;
            }
            if let (Err(error), Some(store)) = (worked, &run.store) {
                // What failed otherwise was written anew, elsewhere.
                let Error::DiskFull { failure } = error else { panic!("{error}") };
                assert_eq!((failure.source.kind(), kind), (ErrorKind::StorageFull, kind));
                assert_eq!(contents(store), expected(&run.batches), "reading goes on");
                while store.health().is_err() {
                    thread::yield_now();
                }
                run.write_and_acknowledge();
            }
            // Opened anew, on the same running system.
            run.recover();
            run.write_and_acknowledge();
            // What was acknowledged before and after the failure must be on the disk and not only in the system's memory.
            run.disk.restart();
            run.recover();
            run.write_and_acknowledge();
        }
    }
}

/// A sync failed, and the system, which had marked the data as written, would answer success to every later sync. A store
/// that believes it acknowledges points that are nowhere on the disk.
#[test]
fn a_record_whose_sync_failed_is_written_again_to_another_file() {
    for seed in 0..64 {
        let mut run = Run::new(SimVfs::new(seed));
        run.begin();
        run.write_and_acknowledge();
        // The next commit is a write and a sync.
        run.disk.fault_at(run.disk.calls() + 1, Fault::Error(ErrorKind::Other));
        run.write_and_acknowledge();
        assert!(run.disk.read(&log(3)).is_some());
        run.write_and_acknowledge();
        run.disk.restart();
        run.recover();
        assert_eq!(run.batches.len(), 3);
    }
}

/// As before, but the other file can't be made either, and the operator opens the store again. What was read there is
/// only in the system's memory: so the last record is written once more at start.
#[test]
fn a_failed_sync_that_later_claims_success_is_not_believed() {
    for seed in 0..64 {
        let mut run = Run::new(SimVfs::new(seed));
        run.begin();
        run.write_and_acknowledge();
        for call in 1..3 {
            run.disk.fault_at(run.disk.calls() + call, Fault::Error(ErrorKind::Other));
        }
        let seq = run.write().unwrap();
        let error = run.acknowledge(seq).unwrap_err();
        assert!(matches!(error, Error::ReadOnly { .. }));
        assert!(error.to_string().contains("making data/log-00000003.new at byte 0"), "{error}");
        let store = run.store.as_ref().unwrap();
        assert_eq!(contents(store), expected(&run.batches), "reading goes on");
        for refused in
            [store.health(), store.flush(), store.upkeep().map(drop), store.delete(&[], TimeRange::ALL).map(drop)]
        {
            assert!(matches!(refused, Err(Error::ReadOnly { .. })));
        }
        assert!(matches!(store.resolve(&key(77)), Err(Error::ReadOnly { .. })));
        assert!(store.resolve(&key(0)).is_ok(), "known series are");
        assert!(matches!(run.write(), Err(Error::ReadOnly { .. })));
        run.recover();
        assert_eq!(run.batches.len(), 2, "the running system still sees it");
        run.acknowledged = seq;
        run.write_and_acknowledge();
        run.disk.restart();
        run.recover();
    }
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_space() {
    let mut run = Run::new(SimVfs::new(3));
    run.begin();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    run.store.as_ref().unwrap().on_commit(move |seq| hears.lock().unwrap().push(seq));
    run.write_and_acknowledge();
    // It is tried again ten times a second.
    for call in 0..10 {
        run.disk.fault_at(run.disk.calls() + call, Fault::Error(ErrorKind::StorageFull));
    }
    let seq = run.write().unwrap();
    let error = run.acknowledge(seq).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("writing data/log-00000002 at byte "), "{text}");
    assert!(matches!(error, Error::DiskFull { .. }));
    assert!(matches!(run.write(), Err(Error::DiskFull { .. })));
    let store = run.store.as_ref().unwrap();
    assert!(matches!(store.health(), Err(Error::DiskFull { .. })));
    assert_eq!(store.durable_through(), run.acknowledged);
    assert_eq!(store.snapshot(&all_series(store), TimeRange::ALL).seq(), seq, "it stays visible");
    assert!(matches!(store.resolve(&key(77)), Err(Error::DiskFull { .. })));
    assert!(store.resolve(&key(0)).is_ok(), "known series are");
    while store.health().is_err() {
        thread::yield_now();
    }
    run.acknowledge(seq).unwrap();
    run.write_and_acknowledge();
    let mut heard = heard.lock().unwrap().clone();
    // It may still have heard of the last definition, and of the last commit, but need not.
    heard.retain(|heard| (Seq(1)..=seq).contains(heard));
    assert_eq!(heard[..4], [Seq(1), Seq(1), Seq(1), seq][..], "the commit, no space, space, the commit");
    run.disk.restart();
    run.recover();
}

#[test]
fn a_full_disk_keeps_a_store_from_closing_in_peace() {
    let mut run = Run::new(SimVfs::new(3));
    run.begin();
    run.write_and_acknowledge();
    for call in 0..1000 {
        run.disk.fault_at(run.disk.calls() + call, Fault::Error(ErrorKind::StorageFull));
    }
    let seq = run.write().unwrap();
    run.acknowledge(seq).unwrap_err();
    let closed = run.store.take().unwrap().close();
    assert!(matches!(closed, Err(Error::ReadOnly { .. } | Error::DiskFull { .. })), "{closed:?}");
    run.disk.restart();
    run.recover();
}

#[test]
fn the_torn_end_is_reported() {
    let disk = SimVfs::new(1);
    let mut run = Run::new(disk.clone());
    run.begin();
    run.write_and_acknowledge();
    let whole = disk.read(&log(2)).unwrap().len() as u64;
    run.write_and_acknowledge();
    run.store = None;
    let bytes = disk.read(&log(2)).unwrap();
    disk.plant(&log(2), &bytes[..bytes.len() - 40]);
    let (store, recovery) = open(&disk).unwrap();
    let trimmed = recovery.trimmed.expect("something was left out");
    assert_eq!((&trimmed.path, trimmed.offset), (&log(2), whole));
    assert_eq!(trimmed.bytes, bytes.len() as u64 - 40 - whole);
    let text = trimmed.to_string();
    assert!(text.starts_with("data/log-00000002: left out the torn end, "), "{text}");
    assert_eq!((recovery.damage, recovery.points, recovery.series), (vec![], 1, 4));
    assert_eq!(contents(&store), expected(&run.batches[..1]));
    drop(store);
    let (_, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.trimmed, None, "once");
}
