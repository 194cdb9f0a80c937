//! Deployed workflows on disk: the modules of the latest versions, and which of them runs. What counts is one small file per
//! workflow, which is replaced at once or not at all; everything else in the directory is what it names, or rubbish.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What this version writes, and the latest that it reads.
const FORMAT: u32 = 1;
/// The file that counts.
const RECORD: &str = "deployment.json";
/// What is being written ends with it.
const UNFINISHED: &str = ".tmp";

/// One version of a deployed workflow.
///
/// [`Debug`](fmt::Debug) shows the names of its environment, and no values.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// From 1; never used again for another one of the same workflow.
    pub number: u64,
    /// Size of the module.
    pub bytes: u64,
    /// SHA-256 of the module, in hexadecimal.
    pub sha256: String,
    /// When it was deployed, microseconds since the Unix epoch.
    pub deployed_micros: i64,
    /// The environment that it was deployed with.
    pub env: BTreeMap<String, String>,
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, bytes, sha256, deployed_micros, env } = self;
        f.debug_struct("Version")
            .field("number", number)
            .field("bytes", bytes)
            .field("sha256", sha256)
            .field("deployed_micros", deployed_micros)
            .field("env", &env.keys())
            .finish()
    }
}

/// What is kept of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    format: u32,
    /// Whether it is to run.
    pub(crate) runs: bool,
    /// The number of the version that is to run.
    pub(crate) current: u64,
    /// By number; the current one is among them.
    pub(crate) versions: Vec<Version>,
}

impl Record {
    /// With one version, which runs.
    pub(crate) fn new(version: Version) -> Self {
        Self { format: FORMAT, runs: true, current: version.number, versions: vec![version] }
    }

    pub(crate) fn version(&self, number: u64) -> Option<&Version> {
        self.versions.iter().find(|version| version.number == number)
    }

    /// The number of the next one.
    pub(crate) fn next(&self) -> u64 {
        self.versions.last().map_or(1, |last| last.number + 1)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if head.format != FORMAT {
            return Err(format!("its format is {}, this version reads {FORMAT}", head.format));
        }
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if !record.versions.is_sorted_by(|a, b| a.number < b.number) || record.version(record.current).is_none() {
            return Err("its versions are not in order, or lack the current one".to_owned());
        }
        Ok(record)
    }
}

/// The directory of all deployed workflows, one directory in it for each.
#[derive(Debug)]
pub(crate) struct Versions {
    dir: PathBuf,
}

/// What is known of a workflow, or why nothing is.
pub(crate) type Found = Result<Record, String>;

impl Versions {
    /// Reads what there is. The directory need not be there; it is made with the first version. What a crash has left
    /// unfinished is taken away.
    pub(crate) fn open(dir: PathBuf) -> io::Result<(Self, BTreeMap<String, Found>)> {
        let versions = Self { dir };
        let mut found = BTreeMap::new();
        let entries = match fs::read_dir(&versions.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((versions, found)),
            entries => entries.map_err(at(&versions.dir))?,
        };
        for entry in entries {
            let entry = entry.map_err(at(&versions.dir))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let path = versions.record_path(&name);
            let record = match fs::read(&path) {
                // It was being made, or taken away; or somebody else's.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    left_over(&name, versions.discard(&name));
                    continue;
                }
                Err(error) => Err(error.to_string()),
                Ok(bytes) => Record::decode(&bytes),
            };
            if let Ok(record) = &record {
                left_over(&name, versions.sweep(&name, record));
            }
            found.insert(name, record.map_err(|why| format!("{}: {why}", path.display())));
        }
        Ok((versions, found))
    }

    /// Keeps a module, durable on return; it counts once a record names it.
    pub(crate) fn put(&self, name: &str, version: &Version, module: &[u8]) -> io::Result<()> {
        let dir = self.dir.join(name);
        if !dir.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(at(&dir))?;
            sync(&self.dir)?;
            // That of a relative path of one name is where the process is.
            let parent =
                self.dir.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
            parent.map_or(Ok(()), sync)?;
        }
        self.replace(&self.module_path(name, version.number), module)
    }

    /// A module that was put.
    ///
    /// # Errors
    /// It can't be read, or is not what it was.
    pub(crate) fn module(&self, name: &str, version: &Version) -> Result<Vec<u8>, String> {
        let path = self.module_path(name, version.number);
        let bytes = fs::read(&path).map_err(|error| at(&path)(error).to_string())?;
        if digest(&bytes) != version.sha256 {
            return Err(format!("{}: damaged, as its SHA-256 is another one; deploy the module again", path.display()));
        }
        Ok(bytes)
    }

    /// From now on, and after a crash, this is what is known of the workflow. Modules that it does not name are taken away.
    pub(crate) fn commit(&self, name: &str, record: &Record) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(record).expect("strings and numbers have a JSON form");
        text.push(b'\n');
        self.replace(&self.record_path(name), &text)?;
        left_over(name, self.sweep(name, record));
        Ok(())
    }

    /// Forgets the workflow, at once or not at all.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        let (dir, record) = (self.dir.join(name), self.record_path(name));
        fs::remove_file(&record).map_err(at(&record))?;
        sync(&dir)?;
        left_over(name, self.discard(name));
        Ok(())
    }

    fn record_path(&self, name: &str) -> PathBuf {
        self.dir.join(name).join(RECORD)
    }

    fn module_path(&self, name: &str, number: u64) -> PathBuf {
        self.dir.join(name).join(format!("{number}.wasm"))
    }

    /// Takes away what the record does not name.
    fn sweep(&self, name: &str, record: &Record) -> io::Result<()> {
        self.remove_ours(name, |path| {
            record.versions.iter().any(|version| path == self.module_path(name, version.number))
                || path == self.record_path(name)
        })
    }

    /// Takes a directory away that has no record, if there is nothing in it but what was ours.
    fn discard(&self, name: &str) -> io::Result<()> {
        self.remove_ours(name, |_| false)?;
        let dir = self.dir.join(name);
        match fs::remove_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed.map_err(at(&dir)),
        }
    }

    /// Removes files of ours from a workflow's directory. What has another name was put there by somebody else, and stays.
    fn remove_ours(&self, name: &str, keep: impl Fn(&Path) -> bool) -> io::Result<()> {
        let dir = self.dir.join(name);
        for entry in fs::read_dir(&dir).map_err(at(&dir))? {
            let path = entry.map_err(at(&dir))?.path();
            let is_ours = path.file_name().and_then(OsStr::to_str).is_some_and(|file| {
                let file = file.strip_suffix(UNFINISHED).unwrap_or(file);
                file == RECORD || file.strip_suffix(".wasm").is_some_and(|number| number.parse::<u64>().is_ok())
            });
            if is_ours && !keep(&path) {
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }

    /// Writes a file in the place of what it was, durable on return.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(UNFINISHED);
        let unfinished = PathBuf::from(unfinished);
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&unfinished, path)
        };
        write().map_err(at(path))?;
        path.parent().map_or(Ok(()), sync)
    }
}

/// How often a copy begins again because a version went meanwhile.
const COPIES_MAX: u32 = 10;

/// Copies what is deployed in one directory to another, which has nothing yet; a host may be using the first. Answers how many
/// workflows there are. Each is as it was at one moment; on return all of it is durable.
///
/// # Errors
/// A record or a module can't be read, or is damaged; the system lets nothing be written.
pub fn copy_deployments(from: &Path, to: &Path) -> io::Result<usize> {
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(at(from))?,
    };
    let (source, target) = (Versions { dir: from.to_owned() }, Versions { dir: to.to_owned() });
    let mut copied = 0;
    for entry in entries {
        let Ok(name) = entry.map_err(at(from))?.file_name().into_string() else { continue };
        copied += usize::from(copy(&source, &target, &name)?);
    }
    Ok(copied)
}

/// Whether there was such a workflow.
fn copy(source: &Versions, target: &Versions, name: &str) -> io::Result<bool> {
    let path = source.record_path(name);
    let mut failed = None;
    for _ in 0..COPIES_MAX {
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(false),
            bytes => bytes.map_err(at(&path))?,
        };
        let record = Record::decode(&bytes).map_err(|why| io::Error::other(format!("{}: {why}", path.display())))?;
        let copied = record.versions.iter().try_for_each(|version| {
            target.put(name, version, &source.module(name, version).map_err(io::Error::other)?)
        });
        match copied {
            Ok(()) => return target.commit(name, &record).map(|()| true),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(false), Err)
}

/// SHA-256 in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What can't be removed takes space, and nothing else: the next start tries again.
fn left_over(name: &str, removed: io::Result<()>) {
    if let Err(error) = removed {
        tracing::warn!("workflow {name}: what is left over can't be removed: {error}");
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
}

/// Says where it was.
fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64, module: &[u8]) -> Version {
        let env = BTreeMap::from([("ALERT_BELOW".to_owned(), "60".to_owned())]);
        let bytes = module.len() as u64;
        Version { number, bytes, sha256: digest(module), deployed_micros: 1_700_000_000_000_000, env }
    }

    #[test]
    fn what_was_committed_is_found_again_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("workflows");
        let (versions, found) = Versions::open(dir.clone()).unwrap();
        assert!(found.is_empty() && !dir.exists(), "nothing is made before it is needed");

        let (one, two) = (version(1, b"one"), version(2, b"two"));
        versions.put("alert", &one, b"one").unwrap();
        let (_, found) = Versions::open(dir.clone()).unwrap();
        assert!(found.is_empty() && !dir.join("alert").exists(), "it was put, and never committed");
        versions.put("alert", &one, b"one").unwrap();
        let mut record = Record::new(one.clone());
        versions.commit("alert", &record).unwrap();
        versions.put("alert", &two, b"two").unwrap();
        fs::write(dir.join("alert/deployment.json.tmp"), "{").unwrap();
        let (versions, found) = Versions::open(dir.clone()).unwrap();
        assert_eq!(found, BTreeMap::from([("alert".to_owned(), Ok(record.clone()))]));
        assert_eq!(fs::read_dir(dir.join("alert")).unwrap().count(), 2, "what a crash left is gone");
        assert_eq!(versions.module("alert", &one).unwrap(), b"one");

        versions.put("alert", &two, b"two").unwrap();
        record.versions = vec![two.clone()];
        record.current = 2;
        versions.commit("alert", &record).unwrap();
        assert!(versions.module("alert", &one).is_err() && versions.module("alert", &two).is_ok());
        versions.remove("alert").unwrap();
        assert!(Versions::open(dir.clone()).unwrap().1.is_empty() && !dir.join("alert").exists());
    }

    #[test]
    fn what_is_somebody_elses_stays() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("workflows");
        fs::create_dir_all(dir.join("alert/src")).unwrap();
        for file in ["alert/src/main.rs", "alert/Cargo.toml", "alert/alert.wasm", "README.md"] {
            fs::write(dir.join(file), "mine").unwrap();
        }
        let (versions, found) = Versions::open(dir.clone()).unwrap();
        assert!(found.is_empty());
        let one = version(1, b"one");
        versions.put("alert", &one, b"one").unwrap();
        versions.commit("alert", &Record::new(one)).unwrap();
        versions.remove("alert").unwrap();
        let (_, found) = Versions::open(dir.clone()).unwrap();
        assert!(found.is_empty());
        let mut left: Vec<_> = fs::read_dir(dir.join("alert")).unwrap().map(|file| file.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["Cargo.toml", "alert.wasm", "src"]);
        assert!(dir.join("README.md").exists());
    }

    #[test]
    fn a_copy_has_what_counts() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        assert_eq!(copy_deployments(&from, &to).unwrap(), 0);
        let (versions, _) = Versions::open(from.clone()).unwrap();
        let one = version(1, b"one");
        versions.put("alert", &one, b"one").unwrap();
        versions.commit("alert", &Record::new(one.clone())).unwrap();
        versions.put("other", &one, b"one").unwrap();
        fs::write(from.join("alert/2.wasm.tmp"), "half").unwrap();
        fs::write(from.join("stray"), "").unwrap();
        assert_eq!(copy_deployments(&from, &to).unwrap(), 1);
        assert!(from.join("alert/2.wasm.tmp").exists(), "a server may be writing it");
        let (copied, found) = Versions::open(to.clone()).unwrap();
        assert_eq!(found, BTreeMap::from([("alert".to_owned(), Ok(Record::new(one.clone())))]));
        assert_eq!(copied.module("alert", &one).unwrap(), b"one");

        fs::write(from.join("alert/1.wasm"), "onf").unwrap();
        let error = copy_deployments(&from, &folder.path().join("again")).unwrap_err();
        assert!(error.to_string().contains("1.wasm: damaged"), "{error}");
    }

    #[test]
    fn what_is_damaged_is_said_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().to_owned();
        let (versions, _) = Versions::open(dir.clone()).unwrap();
        let one = version(1, b"one");
        versions.put("alert", &one, b"one").unwrap();
        versions.commit("alert", &Record::new(one.clone())).unwrap();
        fs::write(dir.join("alert/1.wasm"), "onf").unwrap();
        assert!(versions.module("alert", &one).unwrap_err().contains("1.wasm: damaged"));

        let path = dir.join("alert/deployment.json");
        let text = fs::read_to_string(&path).unwrap();
        for (from, to, expected) in [
            ("{", "", "expected"),
            ("\"format\": 1", "\"format\": 2", "its format is 2, this version reads 1"),
            ("\"current\": 1", "\"current\": 2", "lack the current one"),
            ("\"runs\"", "\"run\"", "unknown field `run`"),
        ] {
            fs::write(&path, text.replacen(from, to, 1)).unwrap();
            let (_, found) = Versions::open(dir.clone()).unwrap();
            let why = found["alert"].clone().unwrap_err();
            assert!(why.contains("deployment.json") && why.contains(expected), "{why}");
            assert!(dir.join("alert/1.wasm").exists());
        }
        // Nor does one that can't be read at all keep the others from running.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        versions.put("other", &one, b"one").unwrap();
        versions.commit("other", &Record::new(one)).unwrap();
        let (_, found) = Versions::open(dir).unwrap();
        assert!(found["alert"].is_err() && found["other"].is_ok());
    }

    /// The page on the format shows what this version writes.
    #[test]
    fn the_book_shows_the_record() {
        let page = include_str!("../../../../docs/format/deployment.md");
        let example = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let record = Record::decode(example.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string_pretty(&record).unwrap(), example.trim_end());
        assert_eq!(record.current, 1);
        assert_eq!(record.next(), 3);
    }
}
