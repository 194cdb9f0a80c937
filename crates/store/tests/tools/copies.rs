//! Backups and their way back: what was durable is in them, whatever goes on meanwhile and wherever it ends.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use slung_model::{Point, SystemClock, TimeRange};
use slung_store::sim::{Fault, SimVfs};
use slung_store::{Error, Options, OsVfs, Store, tools};

use crate::common::{calm, contents, dir, fill, flip, key, names, open, read};

fn to() -> &'static Path {
    Path::new("copy")
}

#[test]
fn a_copy_holds_what_the_store_holds_and_goes_its_own_way() {
    let vfs = SimVfs::new(1);
    let (store, _) = open(&vfs, dir());
    fill(&store);
    let held = contents(&store);
    let backup = tools::backup(&vfs, dir(), to(), &mut |_| ()).unwrap();
    assert_eq!(backup.linked, store.stats().segments);
    assert!(backup.bytes_written < backup.bytes);
    // The original loses everything, and the copy nothing.
    let all: Vec<_> = store.series().into_iter().map(|(id, _)| id).collect();
    store.delete(&all, TimeRange::ALL).unwrap();
    assert!(contents(&store).is_empty());
    store.close().unwrap();
    assert!(tools::verify(Arc::new(vfs.clone()), to(), &mut |_| ()).unwrap().is_whole());
    assert_eq!(read(Arc::new(vfs.clone()), to()), held);

    let restored = Path::new("again");
    let mut last = tools::Progress::default();
    let copied = tools::restore(&vfs, to(), restored, &mut |progress| last = progress).unwrap();
    assert_eq!((copied.linked, copied.bytes_written, last.done), (0, copied.bytes, last.total));
    vfs.restart();
    let (store, recovery) = open(&vfs, restored);
    assert_eq!(recovery.damage, []);
    assert_eq!(contents(&store), held);
    let (series, is_new) = store.resolve(&key(2)).unwrap();
    assert!(!is_new);
    store.write(&[Point { series, timestamp: 1, value: 1.0 }]).unwrap();
    store.flush().unwrap();
    store.close().unwrap();
    assert_eq!(read(Arc::new(vfs), to()), held, "the backup is nobody's store");
}

#[test]
fn nothing_is_put_where_something_is() {
    let vfs = SimVfs::new(1);
    let (store, _) = open(&vfs, dir());
    fill(&store);
    vfs.plant(&to().join("notes"), b"mine");
    for target in [to(), dir()] {
        let before = vfs.files(Path::new(""));
        for copy in [tools::backup, tools::restore] {
            let error = copy(&vfs, dir(), target, &mut |_| ()).unwrap_err();
            assert!(matches!(&error, Error::NotEmpty { dir } if dir == target), "{error}");
        }
        assert!(before == vfs.files(Path::new("")));
    }
    let error = tools::restore(&vfs, to(), Path::new("new"), &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    assert!(vfs.files(Path::new("new")).is_empty(), "nothing is made for what is no store");
}

/// At every call: an error leaves the target as empty as it was, a power cut leaves a whole copy or none.
#[test]
fn a_copy_that_does_not_come_to_its_end_is_no_store() {
    for with_segments in [true, false] {
        let filled = |seed| {
            let vfs = SimVfs::new(seed);
            let (store, _) = open(&vfs, dir());
            if with_segments {
                fill(&store);
            } else {
                // Several files of the log, and nothing else.
                crate::common::write(&store, 0, 0..50);
                store.close().unwrap();
                let (store, _) = open(&vfs, dir());
                crate::common::write(&store, 1, 0..50);
                store.close().unwrap();
            }
            vfs
        };
        let vfs = filled(0);
        let held = read(Arc::new(vfs.clone()), dir());
        let first = vfs.calls();
        tools::restore(&vfs, dir(), to(), &mut |_| ()).unwrap();
        let calls = vfs.calls() - first;
        assert!(calls > 20, "{calls}");
        for call in 0..calls {
            let vfs = filled(call);
            vfs.fault_at(vfs.calls() + call, Fault::Error(ErrorKind::StorageFull));
            if tools::restore(&vfs, dir(), to(), &mut |_| ()).is_err() {
                assert_eq!(vfs.files(to()), [], "after an error at call {call}");
            }
            let vfs = filled(call);
            vfs.fault_at(vfs.calls() + call, Fault::Stop);
            let _ = tools::restore(&vfs, dir(), to(), &mut |_| ());
            vfs.restart();
            match Store::open_read_only(Arc::new(vfs.clone()), to(), calm()) {
                Ok((store, _)) => assert_eq!(contents(&store), held, "after a power cut at call {call}"),
                Err(error) => assert!(matches!(error, Error::Missing { .. }), "{error}"),
            }
        }
    }
}

#[test]
fn what_is_known_to_be_lost_stays_known() {
    let vfs = SimVfs::new(1);
    let (store, _) = open(&vfs, dir());
    fill(&store);
    store.close().unwrap();
    flip(&vfs, &names(&vfs, "seg-")[0], 3);
    let (store, recovery) = open(&vfs, dir());
    assert_eq!(recovery.damage.len(), 1);
    store.close().unwrap();
    tools::backup(&vfs, dir(), to(), &mut |_| ()).unwrap();
    let (_, recovery) = open(&vfs, to());
    assert_eq!(recovery.damage.len(), 1, "answers would pass for complete");
}

/// Points with rising numbers, flushed and merged all the time: each copy has all that were durable when it began, and no
/// number without those before it.
#[test]
fn every_copy_of_a_store_under_load_is_a_prefix_with_all_that_was_durable() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let options = Options { memtable_bytes_max: 64 << 10, log_file_bytes_max: 16 << 10, ..Options::default() };
    let (store, _) = Store::open(Arc::new(OsVfs), Arc::new(SystemClock), &data, options).unwrap();
    let (series, _) = store.resolve(&key(0)).unwrap();
    let (done, durable) = (AtomicBool::new(false), AtomicI64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = 0;
            while !done.load(Ordering::Relaxed) {
                let points: Vec<Point> =
                    (next..next + 300).map(|timestamp| Point { series, timestamp, value: 0.5 }).collect();
                next += 300;
                let seq = store.write(&points).unwrap();
                if next % 1500 == 0 {
                    store.wait_durable(seq).unwrap();
                    durable.store(next, Ordering::SeqCst);
                }
            }
        });
        let mut number = 0;
        while number < 30 || store.stats().flushes < 10 {
            number += 1;
            let copy = folder.path().join(format!("copy-{number}"));
            let least = durable.load(Ordering::SeqCst);
            let checked = std::panic::catch_unwind(|| {
                tools::backup(&OsVfs, &data, &copy, &mut |_| ()).unwrap();
                let verified = tools::verify(Arc::new(OsVfs), &copy, &mut |_| ()).unwrap();
                assert!(verified.is_whole() && verified.trimmed.is_none(), "{verified:?}");
                let times: Vec<i64> = read(Arc::new(OsVfs), &copy).into_keys().map(|(_, time)| time).collect();
                let count = i64::try_from(times.len()).unwrap();
                assert!(count >= least, "{count} of {least}");
                assert_eq!(times.last(), (count > 0).then_some(&(count - 1)), "a gap");
            });
            done.store(checked.is_err(), Ordering::Relaxed);
            checked.unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(durable.load(Ordering::SeqCst) > 0);
    store.close().unwrap();
}
