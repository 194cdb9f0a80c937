//! `verify`: no damage is overlooked, and nothing whole is called damaged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use slung_model::SystemClock;
use slung_store::sim::SimVfs;
use slung_store::tools::{self, Verified};
use slung_store::{Error, Options, OsVfs, Store};

use crate::common::{WEEK, dir, fill, flip, key, names, open, write};

fn verify(vfs: &SimVfs) -> Verified {
    tools::verify(Arc::new(vfs.clone()), dir(), &mut |_| ()).unwrap()
}

fn filled() -> SimVfs {
    let vfs = SimVfs::new(1);
    let (store, _) = open(&vfs, dir());
    fill(&store);
    store.close().unwrap();
    vfs
}

#[test]
fn a_whole_directory_is_read_to_its_end() {
    let vfs = filled();
    let before = vfs.files(dir());
    let mut steps = Vec::new();
    let verified = tools::verify(Arc::new(vfs.clone()), dir(), &mut |progress| steps.push(progress)).unwrap();
    assert!(verified.is_whole() && verified.trimmed.is_none(), "{verified:?}");
    assert_eq!((verified.series, verified.points, verified.segments), (3, 10_860, 2));
    let last = steps.last().unwrap();
    assert_eq!((last.done, last.total), (verified.bytes, verified.bytes));
    assert!(steps.is_sorted_by_key(|progress| progress.done));
    assert!(before == vfs.files(dir()), "it only reads");
}

/// The store opens with most of these flips, and answers with less than it has: that somebody finds out is what this is for.
#[test]
fn every_bit_that_turns_is_found_with_its_file_and_whose_points_it_takes() {
    for prefix in ["seg-", "series-", "manifest"] {
        for file in names(&filled(), prefix) {
            let length = filled().read(&file).unwrap().len();
            for at in (0..length).step_by((length / 60).max(1)).chain([length - 1]) {
                let vfs = filled();
                flip(&vfs, &file, at);
                let verified = verify(&vfs);
                assert!(!verified.is_whole(), "byte {at} of {} was overlooked", file.display());
                if prefix == "manifest" {
                    assert!(verified.unusable.unwrap().to_string().contains("manifest"));
                    continue;
                }
                let named = verified.damage.iter().all(|found| found.damage.path == file);
                // A flip in the number of the format's version may stand for a version that is not known yet.
                let newer = verified.unusable.as_ref().is_some_and(|error| matches!(error, Error::Newer { .. }));
                let told = newer || !verified.damage.is_empty();
                assert!(named && told, "byte {at} of {}: {verified:?}", file.display());
            }
        }
    }
}

#[test]
fn a_damaged_chunk_is_told_with_its_series_and_its_time() {
    let vfs = filled();
    // The first chunk of the first segment stands right behind the header.
    flip(&vfs, &names(&vfs, "seg-")[0], 80);
    let verified = verify(&vfs);
    let [found] = &verified.damage[..] else { panic!("{verified:?}") };
    assert_eq!(found.key.as_deref(), Some(&key(0)));
    assert_eq!((found.damage.range.start, found.damage.range.end), (0, 8_191_000_000));
    assert!(found.damage.offset > 0 && found.damage.offset <= 80, "{found:?}");
}

#[test]
fn damage_in_the_log_is_told_from_what_a_crash_leaves() {
    let vfs = filled();
    let log = names(&vfs, "log-").pop().unwrap();
    let length = vfs.read(&log).unwrap().len();
    flip(&vfs, &log, length - 1);
    let torn = verify(&vfs);
    assert!(torn.is_whole() && torn.trimmed.is_some(), "{torn:?}");

    let vfs = filled();
    flip(&vfs, &log, 40);
    let damaged = verify(&vfs);
    assert!(!damaged.is_whole() && damaged.damage[0].damage.path == log, "{damaged:?}");
}

#[test]
fn a_missing_segment_keeps_nobody_from_reading_the_others() {
    let vfs = filled();
    let segments = names(&vfs, "seg-");
    slung_store::Vfs::remove(&vfs, &segments[0]).unwrap();
    flip(&vfs, &segments[1], 80);
    let verified = verify(&vfs);
    assert!(verified.unusable.as_ref().unwrap().to_string().contains("seg-"), "{verified:?}");
    let files: Vec<_> = verified.damage.iter().map(|found| found.damage.path.clone()).collect();
    assert_eq!(files, segments);
    assert_eq!(verified.segments, 1);
}

/// Flushes and merges take files away while they are read.
#[test]
fn nothing_is_called_damaged_beside_a_store_that_writes() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { memtable_bytes_max: 64 << 10, log_file_bytes_max: 32 << 10, ..Options::default() };
    let (store, _) = Store::open(Arc::new(OsVfs), Arc::new(SystemClock), folder.path(), options).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let start = i64::from(round % 3) * WEEK + i64::from(round) * 500;
                write(&store, round as u32 % 5, (0..500).map(|n| start + n));
            }
        });
        let mut rounds = 0;
        while rounds < 40 || store.stats().flushes < 10 {
            rounds += 1;
            let verified = tools::verify(Arc::new(OsVfs), folder.path(), &mut |_| ());
            let inspected = tools::inspect(Arc::new(OsVfs), folder.path());
            let whole = verified.as_ref().is_ok_and(Verified::is_whole);
            let good = whole && inspected.as_ref().is_ok_and(|found| found.damage.is_empty());
            done.store(!good, Ordering::Relaxed);
            assert!(good, "{verified:?} {inspected:?}");
        }
        done.store(true, Ordering::Relaxed);
    });
    store.close().unwrap();
}
