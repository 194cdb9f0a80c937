//! With real files.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use slung_model::{Point, Seq, SystemClock, TimeRange};
use slung_store::{Error, Options, OsVfs, Store, Vfs};

use crate::common::{contents, key};

fn open(dir: &Path) -> Result<Store, Error> {
    Ok(Store::open(Arc::new(OsVfs), Arc::new(SystemClock), dir, Options::default())?.0)
}

#[test]
fn many_writers_and_waiters_lose_nothing() {
    let temp = tempfile::tempdir().unwrap();
    // Directories that are not there yet.
    let dir = temp.path().join("a/b");
    let store = Arc::new(open(&dir).unwrap());
    let write = |number: usize| {
        let store = Arc::clone(&store);
        move || {
            // One series of its own, and one that all share.
            let [own, shared] = [number, 99].map(|number| store.resolve(&key(number)).unwrap().0);
            let mut last = Seq(0);
            for i in 0..500i64 {
                let shared_at = i * 4 + number as i64;
                let seq = store
                    .write(&[
                        Point { series: own, timestamp: i, value: i as f64 },
                        Point { series: shared, timestamp: shared_at, value: number as f64 },
                    ])
                    .unwrap();
                assert!(seq > last);
                last = seq;
                if i % 50 == 0 {
                    store.wait_durable(seq).unwrap();
                    assert!(store.durable_through() >= seq);
                }
            }
        }
    };
    let writers: Vec<_> = (0..4).map(|number| thread::spawn(write(number))).collect();
    for writer in writers {
        writer.join().unwrap();
    }
    assert_eq!(store.snapshot(&[], TimeRange::ALL).seq(), Seq(4000));
    let before = contents(&store);
    assert_eq!(before.len(), 4000);
    store.wait_durable(Seq(4000)).unwrap();
    Arc::into_inner(store).unwrap().close().unwrap();
    let store = open(&dir).unwrap();
    assert_eq!(contents(&store), before);
    let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let logs = names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log-"));
    assert_eq!(store.stats().log_bytes, logs.map(|path| fs::metadata(path).unwrap().len()).sum::<u64>());
}

#[test]
fn a_second_writer_is_refused_by_name_of_the_directory() {
    let temp = tempfile::tempdir().unwrap();
    let first = open(temp.path()).unwrap();
    let error = open(temp.path()).err().unwrap();
    assert!(matches!(error, Error::Locked { .. }));
    assert!(error.to_string().contains(&format!("{} is in use by another store", temp.path().display())), "{error}");
    drop(first);
    open(temp.path()).unwrap();
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error_with_its_path() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(&file.join("data")).err().unwrap().to_string();
    assert!(error.starts_with(&format!("making the directory {}", file.join("data").display())), "{error}");
}

#[test]
fn real_files_do_what_the_trait_says() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("f");
    assert_eq!(OsVfs.open(&path).err().unwrap().kind(), ErrorKind::NotFound);
    let file = OsVfs.create(&path).unwrap();
    file.write_at(3, b"abc").unwrap();
    file.sync().unwrap();
    let mut read = [9; 6];
    file.read_at(0, &mut read).unwrap();
    assert_eq!(&read, b"\0\0\0abc");
    assert_eq!(file.read_at(1, &mut read).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    file.truncate(4).unwrap();
    assert_eq!(file.size().unwrap(), 4);
    OsVfs.rename(&path, &temp.path().join("g")).unwrap();
    OsVfs.sync_dir(temp.path()).unwrap();
    assert_eq!(OsVfs.list(temp.path()).unwrap(), ["g"]);
    let read_only = OsVfs.open_read(&temp.path().join("g")).unwrap();
    assert!(read_only.write_at(0, b"x").is_err());
    OsVfs.link(&temp.path().join("g"), &temp.path().join("h")).unwrap();
    let taken = OsVfs.link(&temp.path().join("g"), &temp.path().join("h")).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    OsVfs.remove(&temp.path().join("h")).unwrap();
    assert_eq!(OsVfs.remove(&temp.path().join("h")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(OsVfs.create(&temp.path().join("g")).unwrap().size().unwrap(), 0);
}
