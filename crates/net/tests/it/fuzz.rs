//! The fuzz targets over the committed corpus, as it is and mutated.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::targets::TARGETS;

/// A file of the corpus and what is in it.
type Case = (PathBuf, Vec<u8>);

/// The files of a target, in the order of their names.
fn corpus(target: &str) -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn every_file_of_the_corpus_holds() {
    for (name, target) in TARGETS {
        let files = corpus(name);
        assert!(files.len() >= 10, "{name}: {} files", files.len());
        for (path, bytes) in files {
            assert!(bytes.len() <= 4_096, "{}", path.display());
            let held = std::panic::catch_unwind(|| target(&bytes));
            assert!(held.is_ok(), "{}", path.display());
        }
    }
}

/// One change to a file, as fuzzers make them.
#[derive(Debug, Clone)]
enum Mutation {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    /// A part of another file comes there, or of this one.
    Splice(Index, Index, Index, usize),
    /// A number that is near a limit, little-endian, in 2, 4 or 8 bytes.
    Number(Index, u64, usize),
    Cut(Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let numbers = prop::sample::select(vec![0, 1, 64, 65, 255, 256, 1_024, 1_025, 0xffff, 0xffff_ffff, 1 << 53, !0]);
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        2 => (any::<Index>(), vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (any::<Index>(), 1_usize..16).prop_map(|(at, bytes)| Mutation::Remove(at, bytes)),
        2 => (any::<Index>(), any::<Index>(), any::<Index>(), 1_usize..64)
            .prop_map(|(at, file, from, bytes)| Mutation::Splice(at, file, from, bytes)),
        2 => (any::<Index>(), numbers, prop::sample::select(vec![2, 4, 8]))
            .prop_map(|(at, number, bytes)| Mutation::Number(at, number, bytes)),
        1 => any::<Index>().prop_map(Mutation::Cut),
    ]
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>, files: &[Case]) {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match self {
            Self::Set(at, byte) => {
                let at = place(at);
                bytes.splice(at..(at + 1).min(bytes.len()), [*byte]);
            }
            Self::Insert(at, more) => {
                let at = place(at);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = place(at);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Self::Splice(at, file, from, count) => {
                let at = place(at);
                let other = &files[file.index(files.len())].1;
                let from = from.index(other.len() + 1);
                bytes.splice(at..at, other[from..(from + count).min(other.len())].iter().copied());
            }
            Self::Number(at, number, count) => {
                let at = place(at);
                bytes.splice(at..(at + count).min(bytes.len()), number.to_le_bytes()[..*count].iter().copied());
            }
            Self::Cut(at) => {
                let at = place(at);
                bytes.truncate(at);
            }
        }
    }
}

/// The corpora of all targets, read once: each case needs one.
static CORPORA: LazyLock<Vec<Vec<Case>>> = LazyLock::new(|| TARGETS.iter().map(|(name, _)| corpus(name)).collect());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_target_holds_for_what_is_near_the_corpus(start in any::<Index>(), mutations in vec(mutation(), 0..6)) {
        for ((_, target), files) in TARGETS.iter().zip(&*CORPORA) {
            let mut bytes = files[start.index(files.len())].1.clone();
            mutations.iter().for_each(|mutation| mutation.apply(&mut bytes, files));
            target(&bytes);
        }
    }

    #[test]
    fn every_target_holds_for_any_bytes(bytes in vec(any::<u8>(), 0..200)) {
        TARGETS.iter().for_each(|(_, target)| target(&bytes));
    }

    #[test]
    fn every_target_holds_for_any_text(text in any::<String>()) {
        TARGETS.iter().for_each(|(_, target)| target(text.as_bytes()));
    }
}
