//! Others at the same directory: a second writer, readers beside a writer, those that came before.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use slung_model::{Point, SeriesId, SystemClock, TimeRange};
use slung_store::sim::SimVfs;
use slung_store::{Error, File, Lock, Options, OsVfs, Store, Vfs};

use crate::common::{Contents, SECOND, SetClock, add, all_ids, contents, dir, key, named, open, options, put};

#[test]
fn a_second_writer_is_refused() {
    let disk = SimVfs::new(1);
    let folder = tempfile::tempdir().unwrap();
    let vfs: [(Arc<dyn Vfs>, &Path); 2] = [(Arc::new(disk), dir()), (Arc::new(OsVfs), folder.path())];
    for (vfs, dir) in vfs {
        let open = || Store::open(Arc::clone(&vfs), Arc::new(SystemClock), dir, options());
        let (store, _) = open().unwrap();
        let before = vfs.list(dir).unwrap().len();
        for _ in 0..2 {
            let Err(Error::Locked { dir: told }) = open() else { panic!("two writers") };
            assert_eq!(told, dir);
        }
        assert_eq!(vfs.list(dir).unwrap().len(), before, "it touched nothing");
        put(&store, &[(0, 1, 1.0)]).unwrap();
        drop(store);
        assert_eq!(contents(&open().unwrap().0).unwrap().len(), 1);
    }
}

/// Reads, and fails a test that writes.
struct ReadOnlyVfs(Arc<dyn Vfs>);

fn refused<T>(what: &str, path: &Path) -> io::Result<T> {
    panic!("{what} {} by who only reads", path.display())
}

impl Vfs for ReadOnlyVfs {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        refused("create_dir", dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        refused("open", path)
    }
    fn open_read(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.0.open_read(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn File>> {
        refused("create", path)
    }
    fn rename(&self, from: &Path, _: &Path) -> io::Result<()> {
        refused("rename", from)
    }
    fn link(&self, from: &Path, _: &Path) -> io::Result<()> {
        refused("link", from)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        refused("remove", path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        refused("sync_dir", dir)
    }
    fn lock(&self, dir: &Path) -> io::Result<Lock> {
        refused("lock", dir)
    }
}

/// All of a closed store's files: two flushes, and a log.
fn some_files() -> (SimVfs, Contents) {
    let disk = SimVfs::new(4);
    let (store, _) = open(&disk, &SetClock::default(), &options()).unwrap();
    let mut all = Contents::new();
    for round in 0..3i64 {
        let batch: Vec<_> = (0..40).map(|i| ((i % 2) as usize, round * SECOND + i, (i * i) as f64)).collect();
        put(&store, &batch).unwrap();
        add(&mut all, &batch);
        if round < 2 {
            store.flush().unwrap();
        }
    }
    drop(store);
    (disk, all)
}

#[test]
fn who_only_reads_changes_nothing() {
    let (disk, all) = some_files();
    let before = disk.files(dir());
    let vfs = Arc::new(ReadOnlyVfs(Arc::new(disk.clone())));
    let (store, recovery) = Store::open_read_only(vfs.clone(), dir(), options()).unwrap();
    assert_eq!(recovery.damage, []);
    assert_eq!(contents(&store).unwrap(), all);
    let point = Point { series: SeriesId(0), timestamp: 1, value: 1.0 };
    assert!(matches!(store.write(&[point]), Err(Error::ReadOnly { .. })));
    assert!(matches!(store.resolve(&key(50)), Err(Error::ReadOnly { .. })));
    assert!(matches!(store.flush(), Err(Error::ReadOnly { .. })));
    assert!(matches!(store.upkeep(), Err(Error::ReadOnly { .. })));
    assert!(matches!(store.delete(&[SeriesId(0)], TimeRange::ALL), Err(Error::ReadOnly { .. })));
    store.close().unwrap();
    assert_eq!(disk.files(dir()), before);
    // Where there is nothing, nothing is made.
    let error = Store::open_read_only(vfs, Path::new("nowhere"), options()).err().unwrap();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
}

/// What is damaged is told as it is to who writes, but stays where it is.
#[test]
fn who_only_reads_is_told_of_damage() {
    let (disk, all) = some_files();
    let mut told = 0;
    for (path, bytes) in disk.files(dir()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if ["manifest", "reserve"].contains(&name.as_str()) {
            continue;
        }
        for at in (0..bytes.len()).step_by(11) {
            let damaged = SimVfs::new(5);
            disk.files(dir()).iter().for_each(|(path, bytes)| damaged.plant(path, bytes));
            let mut bytes = bytes.clone();
            bytes[at] ^= 4;
            damaged.plant(&path, &bytes);
            let before = damaged.files(dir());
            let vfs = Arc::new(ReadOnlyVfs(Arc::new(damaged.clone())));
            let Ok((store, _)) = Store::open_read_only(vfs, dir(), options()) else { continue };
            let snapshot = store.snapshot(&all_ids(&store), TimeRange::ALL);
            let mut found = Contents::new();
            for point in snapshot.scan() {
                let point = point.unwrap();
                if let Some(number) = crate::common::number(&store.key(point.series).unwrap()) {
                    found.insert((number, point.timestamp), point.value.to_bits());
                }
            }
            assert!(found == all || !snapshot.damage().is_empty(), "byte {at} of {name}: silently partial");
            told += usize::from(!snapshot.damage().is_empty());
            drop(store);
            assert_eq!(damaged.files(dir()), before);
        }
    }
    assert!(told > 50, "{told}");
}

/// A writer that flushes and merges as fast as it can, and readers beside it that see more each time.
#[test]
fn readers_beside_a_writer_see_ever_more() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let busy = Options { log_file_bytes_max: 4096, ..options() };
    let (store, _) = Store::open(Arc::new(OsVfs), Arc::new(SystemClock), dir, busy).unwrap();
    let value = |at: i64| (at * 3) as f64;
    let (acknowledged, done) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let begun = Instant::now();
            let mut at = 0;
            while begun.elapsed() < Duration::from_secs(4) {
                let batch: Vec<_> = (0..20).map(|i| (0, at + i, value(at + i))).collect();
                put(&store, &batch).unwrap();
                at += 20;
                acknowledged.store(at as u64, Ordering::Release);
                if at % 100 == 0 {
                    store.flush().unwrap();
                    store.upkeep().unwrap();
                }
            }
            done.store(true, Ordering::Release);
        });
        let (mut last, mut opened) = (0, 0);
        while !done.load(Ordering::Acquire) {
            let before = acknowledged.load(Ordering::Acquire);
            let vfs = Arc::new(ReadOnlyVfs(Arc::new(OsVfs)));
            let (reader, recovery) = match Store::open_read_only(vfs, dir, options()) {
                Ok(opened) => opened,
                Err(error) => {
                    // The scope would wait for the writer.
                    done.store(true, Ordering::Release);
                    panic!("{error}")
                }
            };
            opened += 1;
            assert_eq!(recovery.damage, []);
            let found = contents(&reader).unwrap();
            assert!(found.iter().all(|(&(_, at), &bits)| bits == value(at).to_bits()));
            let count = found.len() as u64;
            assert!(found.keys().next_back().is_none_or(|(_, at)| *at as u64 + 1 == count), "without a hole");
            assert!(count >= before, "what was acknowledged before it opened is there: {count} of {before}");
            assert!(count >= last);
            last = count;
        }
        assert!(opened > 20 && last > 200, "{opened} times, {last} points");
    });
}

/// Another process that writes until it is killed; each acknowledged number goes to its output.
#[test]
#[ignore = "the process that another test starts"]
fn a_writer_in_a_process_of_its_own() {
    use std::io::Write;
    let Some(dir) = std::env::var_os("SLUNG_TEST_DIR").map(PathBuf::from) else { return };
    let busy = Options { log_file_bytes_max: 4096, background: true, ..options() };
    let (store, _) = Store::open(Arc::new(OsVfs), Arc::new(SystemClock), &dir, busy).unwrap();
    let mut out = io::stdout();
    for at in store.stats().last as i64.. {
        put(&store, &[(0, at, at as f64)]).unwrap();
        writeln!(out, "\n{at} is durable").unwrap();
        if at % 20 == 19 {
            store.flush().unwrap();
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sharing::a_writer_in_a_process_of_its_own", "--ignored", "--nocapture"])
            .env("SLUNG_TEST_DIR", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut last = -1;
        let mut seen = 0;
        for line in lines {
            if let Some(at) = line.unwrap().strip_suffix(" is durable") {
                last = at.parse::<i64>().unwrap();
                seen += 1;
                if seen == 30 + round {
                    // SIGKILL; what it had written to the pipe is read to its end.
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(seen >= 30);
        let vfs = Arc::new(ReadOnlyVfs(Arc::new(OsVfs)));
        let (reader, recovery) = Store::open_read_only(vfs, folder.path(), options()).unwrap();
        assert_eq!(recovery.damage, []);
        let found = contents(&reader).unwrap();
        assert!(found.len() as i64 > last, "{} points, {last} was acknowledged", found.len());
        drop(reader);
        let (store, _) = Store::open(Arc::new(OsVfs), Arc::new(SystemClock), folder.path(), options()).unwrap();
        assert_eq!(contents(&store).unwrap(), found);
    }
}

/// A log as the first version wrote it: one file, by the bytes that `docs/format/log.md` describes.
struct OldLog {
    bytes: Vec<u8>,
    next_seq: u64,
}

const OLD_LOG_ID: u64 = 0x0123_4567_89ab_cdef;

impl OldLog {
    fn new() -> Self {
        let mut bytes = b"SLUNGLOG".to_vec();
        bytes.extend_from_slice(&1u32.to_le_bytes());
        let mut sealed = bytes.clone();
        sealed.extend_from_slice(&OLD_LOG_ID.to_le_bytes());
        sealed.extend_from_slice(&0u64.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&sealed).to_le_bytes());
        bytes.extend_from_slice(&sealed[12..]);
        Self { bytes, next_seq: 1 }
    }

    fn record(&mut self, body: &[u8], points: u32) {
        let mut header = crc32fast::hash(body).to_le_bytes().to_vec();
        header.extend_from_slice(&(self.bytes.len() as u64).to_le_bytes());
        header.extend_from_slice(&self.next_seq.to_le_bytes());
        header.extend_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        header.extend_from_slice(&points.to_le_bytes());
        let mut sealed = OLD_LOG_ID.to_le_bytes().to_vec();
        sealed.extend_from_slice(&header);
        self.bytes.extend_from_slice(&crc32fast::hash(&sealed).to_le_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(body);
        self.next_seq += u64::from(points);
    }

    fn define(&mut self, id: u32) {
        let mut body = vec![1];
        body.extend_from_slice(&id.to_le_bytes());
        key(id as usize).encode(&mut body);
        self.record(&body, 0);
    }

    fn write(&mut self, points: &[(u32, i64, f64)]) {
        let count = u32::try_from(points.len()).unwrap();
        let mut body = vec![2];
        body.extend_from_slice(&count.to_le_bytes());
        for (series, timestamp, value) in points {
            body.extend_from_slice(&series.to_le_bytes());
            body.extend_from_slice(&timestamp.to_le_bytes());
            body.extend_from_slice(&value.to_le_bytes());
        }
        self.record(&body, count);
    }
}

#[test]
fn a_store_of_the_first_version_is_read_and_goes_on() {
    let mut log = OldLog::new();
    let mut all = Contents::new();
    log.define(0);
    log.define(1);
    for round in 0..20i64 {
        let points = [(0, round * SECOND / 3, round as f64), (1, round, -1.5), (0, 7, 0.25)];
        log.write(&points);
        add(&mut all, &points.map(|(series, at, value)| (series as usize, at, value)));
    }
    for closed in [false, true] {
        if closed {
            log.record(&[], 0);
        }
        let disk = SimVfs::new(8);
        disk.plant(&dir().join("log-00000001"), &log.bytes);
        let vfs = Arc::new(ReadOnlyVfs(Arc::new(disk.clone())));
        let (reader, _) = Store::open_read_only(vfs, dir(), options()).unwrap();
        assert_eq!(contents(&reader).unwrap(), all);
        let (mut store, recovery) = open(&disk, &SetClock::default(), &options()).unwrap();
        assert_eq!((recovery.series, recovery.trimmed, recovery.damage), (2, None, vec![]));
        let mut now = all.clone();
        for round in 0..4 {
            assert_eq!(contents(&store).unwrap(), now);
            put(&store, &[(round, 30 * SECOND, 9.0)]).unwrap();
            add(&mut now, &[(round, 30 * SECOND, 9.0)]);
            if round % 2 == 1 {
                store.flush().unwrap();
            }
            disk.restart();
            drop(store);
            store = open(&disk, &SetClock::default(), &options()).unwrap().0;
        }
        assert_eq!(contents(&store).unwrap(), now);
        assert_eq!(disk.read(&dir().join("log-00000001")), None, "all of it is in segments by now");
        let by_name: BTreeMap<_, _> = store.series().into_iter().map(|(id, key)| (id.0, key)).collect();
        assert!(by_name.iter().all(|(id, name)| **name == key(*id as usize)));
        let snapshot = store.snapshot(&[SeriesId(1)], TimeRange::ALL);
        assert_eq!(named(&store, &snapshot).unwrap().len(), 21);
    }
}
