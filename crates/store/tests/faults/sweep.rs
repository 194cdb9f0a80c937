//! A fault at every call that a workload makes to its files: a loss of power, an error, a full disk.

use std::io::ErrorKind;

use slung_model::TimeRange;
use slung_store::sim::{Fault, SimVfs};
use slung_store::{Error, Options, Store};

use crate::common::{Contents, SECOND, SetClock, Write, add, contents, key, open, options, points, strangers, until};

/// A workload on one disk, and what must be there after it.
struct Run {
    disk: SimVfs,
    clock: SetClock,
    options: Options,
    store: Option<Store>,
    /// What the running store has to show.
    live: Contents,
    /// What a start may find: more than one where something is unconfirmed, each of them as a whole.
    possible: Vec<Contents>,
    batches: usize,
    fault: Option<Fault>,
}

/// The machine has stopped.
#[derive(Debug)]
struct Stopped;

type Step = Result<(), Stopped>;

impl Run {
    fn new(seed: u64, options: &Options, fault: Option<(u64, Fault)>) -> Self {
        let disk = SimVfs::new(seed);
        if let Some((call, fault)) = fault {
            disk.fault_at(call, fault);
        }
        Self {
            disk,
            clock: SetClock::default(),
            options: options.clone(),
            store: None,
            live: Contents::new(),
            possible: vec![Contents::new()],
            batches: 0,
            fault: fault.map(|(_, fault)| fault),
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open")
    }

    /// The process ends in the middle of what it does, or of closing; then the power may go.
    fn die(&mut self, power: bool) {
        self.disk.fault_at(self.disk.calls(), Fault::Stop);
        self.store = None;
        if power { self.disk.restart() } else { self.disk.kill() }
    }

    fn going(&self) -> Step {
        if self.disk.is_stopped() { Err(Stopped) } else { Ok(()) }
    }

    /// An error must be the one that was planted, and say so.
    fn accept(&self, error: &Error) -> Step {
        self.going()?;
        let Some(Fault::Error(kind)) = self.fault else { panic!("an error without a fault: {error}") };
        let found = match error {
            Error::Io { source, .. } => source.kind(),
            Error::ReadOnly { failure } | Error::DiskFull { failure } => failure.source.kind(),
            other => panic!("not what was planted: {other}"),
        };
        assert_eq!(found, kind, "{error}");
        assert!(error.to_string().contains("data"), "it names a file: {error}");
        Ok(())
    }

    /// Opens it, also a second time where the first one met the fault. What is found then is durable.
    fn open(&mut self) -> Step {
        self.store = None;
        let opened = match open(&self.disk, &self.clock, &self.options) {
            Ok(opened) => opened,
            Err(error) => {
                self.accept(&error)?;
                open(&self.disk, &self.clock, &self.options).expect("an error passes")
            }
        };
        let (store, recovery) = opened;
        self.going()?;
        assert_eq!(recovery.damage, [], "nothing was planted");
        self.store = Some(store);
        let found = self.read()?;
        assert!(self.possible.contains(&found), "found {found:#?}\n, expected one of {:#?}", self.possible);
        self.settle(found);
        Ok(())
    }

    fn settle(&mut self, found: Contents) {
        self.possible = vec![found.clone()];
        self.live = found;
    }

    /// All points; reading may meet the fault once.
    fn read(&self) -> Result<Contents, Stopped> {
        match contents(self.store()) {
            Ok(found) => Ok(found),
            Err(error) => {
                self.accept(&error)?;
                Ok(contents(self.store()).expect("an error passes"))
            }
        }
    }

    fn check(&self) -> Step {
        assert_eq!(self.read()?, self.live, "reading goes on");
        Ok(())
    }

    /// Something that changes all contents, and may or may not have happened.
    fn maybe(&mut self, change: impl Fn(&mut Contents)) {
        let mut changed = self.possible.clone();
        changed.iter_mut().for_each(change);
        self.possible.extend(changed);
        self.possible.dedup();
    }

    /// Something that has happened.
    fn sure(&mut self, change: impl Fn(&mut Contents)) {
        self.possible.iter_mut().for_each(&change);
        change(&mut self.live);
    }

    fn write(&mut self, batch: &[Write]) -> Step {
        self.batches += 1;
        let seq = match points(self.store(), batch).and_then(|points| self.store().write(&points)) {
            Ok(seq) => seq,
            Err(error) => return self.accept(&error),
        };
        add(&mut self.live, batch);
        self.maybe(|contents| add(contents, batch));
        match self.store().wait_durable(seq) {
            Ok(()) => {}
            Err(error @ Error::DiskFull { .. }) => {
                self.accept(&error)?;
                until("space", || self.store().health().is_ok());
                self.store().wait_durable(seq).expect("writing goes on by itself");
            }
            Err(error) => return self.accept(&error),
        }
        self.possible.iter_mut().for_each(|contents| add(contents, batch));
        self.possible.dedup();
        self.going()
    }

    /// In order, out of order, and over what is there; some batches span several pieces of the disk.
    fn batch(&self) -> Vec<Write> {
        let n = self.batches;
        let base = i64::try_from(n).unwrap() * SECOND / 4;
        let size = [1, 4, 9][n % 3];
        let write = |i: usize| {
            let back = if i % 4 == 3 { SECOND } else { 0 };
            ((n / 3 + i) % 4, base + i64::try_from(i).unwrap() - back, (n * 100 + i) as f64)
        };
        (0..size).map(write).collect()
    }

    fn write_next(&mut self) -> Step {
        let batch = self.batch();
        self.write(&batch)
    }

    fn flush(&mut self) -> Step {
        self.store().flush().or_else(|error| self.accept(&error))?;
        self.check()
    }

    /// Merges until nothing is left to do.
    fn upkeep(&mut self) -> Step {
        loop {
            match self.store().upkeep() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.accept(&error)?;
                    if let Err(Error::ReadOnly { .. }) = self.store().health() {
                        break;
                    }
                }
            }
        }
        self.check()
    }

    /// Takes a look at the clock, by which points before that time have to go.
    fn retain(&mut self, now: i64, floor: i64) -> Step {
        self.clock.set(now);
        let change = move |contents: &mut Contents| contents.retain(|(_, timestamp), _| *timestamp >= floor);
        self.maybe(change);
        match self.store().upkeep() {
            Ok(_) => self.sure(change),
            Err(error) => {
                self.accept(&error)?;
                let found = self.read()?;
                let before = self.live.clone();
                change(&mut self.live);
                assert!(found == before || found == self.live, "as a whole or not at all");
                self.live = found;
            }
        }
        self.check()
    }

    fn delete(&mut self, number: usize, range: TimeRange) -> Step {
        let change = move |contents: &mut Contents| {
            contents.retain(|(of, timestamp), _| *of != number || !(range.start..=range.end).contains(timestamp));
        };
        let series = match self.store().resolve(&key(number)) {
            Ok((series, _)) => series,
            Err(error) => return self.accept(&error),
        };
        self.maybe(change);
        match self.store().delete(&[series], range) {
            Ok(_) => self.sure(change),
            Err(error) => self.accept(&error)?,
        }
        self.check()
    }

    fn close(&mut self) -> Step {
        self.check()?;
        let store = self.store.take().expect("it is open");
        store.close().or_else(|error| self.accept(&error))?;
        self.going()
    }

    /// What must hold after the power came back; from here the workload could go on.
    fn recover(&mut self) {
        self.fault = None;
        // Long ago, so that retention takes no more.
        self.clock.set(0);
        self.die(true);
        self.open().unwrap();
        assert_eq!(strangers(&self.disk, self.store()), [] as [std::path::PathBuf; 0]);
        self.store().health().expect("writable again");
        let first = self.live.clone();
        // What was found is durable, whatever the system still held back.
        self.die(true);
        self.open().unwrap();
        assert_eq!(self.live, first, "a second start finds the same");
        self.write(&[(0, 99 * SECOND, 0.5), (9, 99 * SECOND, 1.5)]).unwrap();
        self.flush().unwrap();
        self.write(&[(0, 99 * SECOND + 1, 2.5)]).unwrap();
        self.die(true);
        self.open().unwrap();
        self.upkeep().unwrap();
        self.close().unwrap();
        self.open().unwrap();
        assert_eq!(strangers(&self.disk, self.store()), [] as [std::path::PathBuf; 0]);
    }
}

/// Runs a workload with each fault at each of its calls.
fn sweep(name: &str, options: &Options, seeds: u64, work: impl Fn(&mut Run) -> Step) {
    let calls = {
        let mut run = Run::new(0, options, None);
        work(&mut run).unwrap();
        run.store = None;
        run.disk.calls()
    };
    assert!((60..700).contains(&calls), "{name}: {calls} calls");
    let errors = [ErrorKind::Other, ErrorKind::StorageFull].map(Fault::Error);
    for call in 0..calls {
        for seed in 0..seeds {
            let mut run = Run::new(call << 16 | seed, options, Some((call, Fault::Stop)));
            let done = work(&mut run);
            assert!(done.is_err() || !run.disk.is_stopped(), "{name}: a stop does not go unnoticed");
            run.recover();
        }
        for (seed, fault) in (0..seeds).flat_map(|seed| errors.map(|fault| (seed, fault))) {
            let mut run = Run::new(call << 16 | 1 << 8 | seed, options, Some((call, fault)));
            work(&mut run).unwrap();
            if seed % 2 == 1 {
                // The process is killed first, the power goes later: what was found in between counts.
                run.die(false);
                run.fault = None;
                run.open().unwrap();
            }
            run.recover();
        }
    }
}

#[test]
fn the_log_changes_files() {
    let options = Options { log_file_bytes_max: 400, ..options() };
    sweep("log", &options, 4, |run| {
        run.open()?;
        for _ in 0..14 {
            run.write_next()?;
        }
        run.close()?;
        run.open()?;
        for _ in 0..6 {
            run.write_next()?;
        }
        run.close()
    });
}

#[test]
fn flushes_into_several_partitions_with_new_series() {
    let options = Options { log_file_bytes_max: 600, ..options() };
    sweep("flush", &options, 3, |run| {
        run.open()?;
        for round in 0..4i32 {
            run.write_next()?;
            let at = i64::from(round) * SECOND;
            run.write(&[(round as usize + 4, at, 1.0), (0, at + 5, 2.0), (1, at + SECOND, 3.0)])?;
            run.flush()?;
        }
        run.write_next()?;
        run.close()
    });
}

#[test]
fn merging_of_segments_that_overlap() {
    sweep("merge", &options(), 2, |run| {
        run.open()?;
        for round in 0..5i32 {
            let write = |i: i32| ((i % 2) as usize, i64::from(i * (round + 1)), f64::from(round * 100 + i));
            run.write(&(0..20).map(write).collect::<Vec<_>>())?;
            run.flush()?;
        }
        run.upkeep()?;
        run.write(&[(0, 3, -1.0), (1, SECOND * 3, -2.0)])?;
        run.flush()?;
        run.upkeep()?;
        run.close()
    });
}

#[test]
fn deletion_and_retention() {
    let options = Options { retention_micros: Some(3 * SECOND), ..options() };
    sweep("delete", &options, 2, |run| {
        run.open()?;
        for round in 0..4 {
            run.write(&[(0, round * SECOND, 1.0), (1, round * SECOND + 7, 2.0), (2, round * SECOND / 2, 3.0)])?;
            if round % 2 == 1 {
                run.flush()?;
            }
        }
        run.delete(1, TimeRange::between(SECOND, 2 * SECOND + 7))?;
        run.write(&[(1, SECOND + 7, 4.0), (0, 5 * SECOND, 5.0)])?;
        run.delete(0, TimeRange::between(0, SECOND))?;
        run.flush()?;
        // Seen from the newest point, as the clock is ahead.
        run.retain(50 * SECOND, 2 * SECOND)?;
        run.delete(2, TimeRange::ALL)?;
        run.write(&[(0, 7 * SECOND, 6.0)])?;
        run.close()
    });
}

#[test]
fn many_starts() {
    let options = Options { log_file_bytes_max: 500, ..options() };
    sweep("starts", &options, 1, |run| {
        for life in 0..10 {
            run.open()?;
            if life % 3 != 2 {
                run.write_next()?;
            }
            if life % 2 == 0 {
                run.close()?;
            }
        }
        Ok(())
    });
}

/// A sync failed, the store was opened again, and the system, which had marked the data as written, answered success to
/// every later sync. A store that believes it acknowledges points that are nowhere on the disk.
#[test]
fn a_start_after_a_failed_sync() {
    sweep("failed sync", &options(), 1, |run| {
        run.open()?;
        run.write_next()?;
        run.write_next()?;
        for _ in 0..3 {
            run.die(false);
            run.open()?;
            run.write_next()?;
            run.flush()?;
        }
        run.close()
    });
    for seed in 0..64 {
        let mut run = Run::new(seed, &options(), None);
        run.fault = Some(Fault::Error(ErrorKind::Other));
        run.open().unwrap();
        run.write_next().unwrap();
        // The next commit is a write and a sync, then all of a new file.
        for call in 1..4 {
            run.disk.fault_at(run.disk.calls() + call, Fault::Error(ErrorKind::Other));
        }
        run.write(&[(0, 5, 5.0)]).unwrap();
        assert!(matches!(run.store().health(), Err(Error::ReadOnly { .. })), "both syncs failed");
        run.open().unwrap();
        run.write_next().unwrap();
        run.recover();
    }
}
