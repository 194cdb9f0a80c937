//! The project's files, as far as they are its own: all but what `.gitignore` names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Paths are relative to the root, with `/` between their parts.
#[derive(Default)]
pub(super) struct Tree {
    /// Files that are text.
    pub(super) texts: BTreeMap<String, String>,
    /// All files and folders.
    pub(super) paths: BTreeSet<String>,
}

impl Tree {
    /// Reads all of it. Does not ask git, which may not be there.
    pub(super) fn read(root: &Path) -> Result<Self, String> {
        let ignored = fs::read_to_string(root.join(".gitignore")).map_err(|error| format!(".gitignore: {error}"))?;
        let mut tree = Self::default();
        tree.walk(root, "", &ignored_paths(&ignored)?)?;
        Ok(tree)
    }

    fn walk(&mut self, folder: &Path, prefix: &str, ignored: &BTreeSet<String>) -> Result<(), String> {
        let failed = |error| format!("{}: {error}", folder.display());
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().into_string().map_err(|name| format!("{name:?}: a name that is not UTF-8"))?;
            let path = format!("{prefix}{name}");
            if ignored.contains(&path) {
                continue;
            }
            if entry.file_type().map_err(failed)?.is_dir() {
                self.walk(&entry.path(), &format!("{path}/"), ignored)?;
            } else if let Ok(text) = String::from_utf8(fs::read(entry.path()).map_err(failed)?) {
                self.texts.insert(path.clone(), text);
            }
            self.paths.insert(path);
        }
        Ok(())
    }

    /// Its text files with that ending.
    pub(super) fn ending(&self, end: &str) -> impl Iterator<Item = (&str, &str)> {
        self.texts
            .iter()
            .filter(move |(path, _)| path.ends_with(end))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.texts.insert((*path).into(), (*text).into());
            tree.paths.extend(path.match_indices('/').map(|(end, _)| path[..end].to_owned()));
            tree.paths.insert((*path).into());
        }
        tree
    }
}

fn ignored_paths(gitignore: &str) -> Result<BTreeSet<String>, String> {
    let lines = gitignore.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let paths = lines.map(|line| match line.strip_prefix('/') {
        Some(path) if !path.contains(['*', '?', '[']) => Ok(path.trim_end_matches('/').to_owned()),
        _ => Err(format!(".gitignore: tidy understands paths from the root (`/target`), not `{line}`")),
    });
    std::iter::once(Ok(".git".to_owned())).chain(paths).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_are_paths_from_the_root() {
        let ignored = ignored_paths("# built\n/target\n\n/docs/book/\n").unwrap();
        assert_eq!(ignored, [".git", "target", "docs/book"].map(str::to_owned).into());
        assert!(ignored_paths("*.wasm\n").is_err());
        assert!(ignored_paths("/target/*\n").is_err());
    }
}
