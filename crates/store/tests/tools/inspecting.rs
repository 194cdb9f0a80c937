//! `inspect`: what it says is what there is.

use std::path::Path;
use std::sync::Arc;

use slung_model::TimeRange;
use slung_store::sim::SimVfs;
use slung_store::{Error, tools};

use crate::common::{WEEK, dir, fill, flip, key, names, open};

#[test]
fn everything_is_counted_beside_a_store_that_is_open() {
    let vfs = SimVfs::new(1);
    let (store, _) = open(&vfs, dir());
    fill(&store);
    let before = vfs.files(dir());
    let found = tools::inspect(Arc::new(vfs.clone()), dir()).unwrap();
    assert!(before == vfs.files(dir()), "it only looks");

    assert_eq!((found.series, found.points, found.log_points), (3, 10_860, 60));
    assert_eq!(found.points, store.stats().points);
    assert_eq!(found.segments.iter().map(|segment| segment.points).sum::<u64>(), 10_800);
    assert_eq!(found.segments.len() as u64, store.stats().segments);
    assert_eq!(found.segment_bytes(), store.stats().segment_bytes);
    for segment in &found.segments {
        let file = vfs.read(&dir().join(&segment.file)).unwrap();
        assert_eq!(segment.bytes, file.len() as u64);
    }
    let (first, last) = (&found.segments[0], found.segments.last().unwrap());
    assert!(first.generation < last.generation, "{found:?}");
    assert_eq!(first.range, TimeRange { start: 0, end: 9_999_000_000 });
    let partition = |number: i64| Some(TimeRange { start: number * WEEK, end: (number + 1) * WEEK - 1 });
    let partitions: Vec<_> = found.partitions.iter().map(|partition| (partition.range, partition.points)).collect();
    assert_eq!(partitions, [(partition(0), 10_500), (partition(1), 300)]);
    let largest: Vec<_> = found.largest.iter().map(|size| ((*size.key).clone(), size.points)).collect();
    assert_eq!(largest, [(key(0), 10_020), (key(1), 800), (key(2), 40)]);
    assert_eq!(found.log_files.len(), 1);
    assert!(found.log_bytes() > 0 && found.series_bytes > 0 && found.manifest_bytes > 0);
    assert_eq!(found.given_up_before, None);
    assert!(found.damage.is_empty() && found.quarantine.is_empty());
}

#[test]
fn what_was_kept_aside_is_named() {
    let vfs = SimVfs::new(1);
    let (store, _) = open(&vfs, dir());
    fill(&store);
    store.close().unwrap();
    let segment = names(&vfs, "seg-").remove(0);
    flip(&vfs, &segment, vfs.read(&segment).unwrap().len() - 1);
    let before = tools::inspect(Arc::new(vfs.clone()), dir()).unwrap();
    assert_eq!((before.damage.len(), before.quarantine.len()), (1, 0));

    open(&vfs, dir()).0.close().unwrap();
    let after = tools::inspect(Arc::new(vfs.clone()), dir()).unwrap();
    assert_eq!((after.damage.len(), after.quarantine.len()), (1, 1));
    assert_eq!(after.quarantine[0].name, segment.file_name().unwrap().to_str().unwrap());
    assert_eq!(after.segments.len() + 1, before.segments.len() + 1);
}

#[test]
fn what_is_no_store_is_said_to_be_none() {
    let vfs = SimVfs::new(1);
    vfs.plant(Path::new("data/notes"), b"mine");
    let error = tools::inspect(Arc::new(vfs), dir()).unwrap_err();
    assert!(matches!(&error, Error::Missing { path } if path.ends_with("manifest")), "{error}");
}
