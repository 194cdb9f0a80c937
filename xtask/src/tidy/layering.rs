//! Which crate may depend on which: the table in docs/architecture.md, held against the manifests.

use std::collections::BTreeMap;
use std::path::Path;

use super::tree::Tree;
use crate::workspace::{Dependency, Package};

const DOCUMENT: &str = "docs/architecture.md";

/// Dependencies that stand for something, and the folders that may have them.
const OTHERS: [(&str, &[&str]); 3] = [
    // A runtime is the business of what waits for sockets and guests; the engine below is synchronous.
    ("tokio", &["crates/host", "crates/net", "crates/server", "benches"]),
    ("wasmtime", &["crates/host", "benches"]),
    // Libraries have errors that a caller can match.
    ("anyhow", &["crates/server", "benches", "xtask"]),
];

/// What a folder's crate may use of ours: `None` stands for all.
type Rule<'a> = Option<Vec<Use<'a>>>;

/// A crate that may be used, by the last part of its folder.
#[derive(Debug, PartialEq, Eq)]
struct Use<'a> {
    name: &'a str,
    /// Only in a section of the manifest for other targets than wasm32.
    off_wasm32: bool,
}

/// Holds every declared edge against the table. Edges for tests, examples and benches are free: they reach no user.
pub(super) fn check(root: &Path, tree: &Tree, packages: &[Package]) -> Vec<String> {
    let rules = tree.texts.get(DOCUMENT).map(|document| rules(document)).unwrap_or_default();
    if rules.is_empty() {
        return vec![format!("{DOCUMENT}: no table with the columns `folder` and `may use (of ours)`")];
    }
    let folders: BTreeMap<&str, String> =
        packages.iter().map(|package| (package.name.as_str(), folder(root, package))).collect();
    let mut problems = Vec::new();
    for package in packages {
        let folder = &folders[package.name.as_str()];
        let parent = folder.rsplit_once('/').map_or("", |(parent, _)| parent);
        let Some(rule) = rules.get(folder.as_str()).or_else(|| rules.get(format!("{parent}/*").as_str())) else {
            problems.push(format!("{folder}: is not in the table in {DOCUMENT}"));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| !dependency.dev) {
            let used = folders.get(dependency.name.as_str());
            let wrong = match used {
                Some(used) => wrong_use(rule, used, dependency),
                None => {
                    let limited = OTHERS.iter().find(|(name, _)| *name == dependency.name);
                    limited.and_then(|(_, allowed)| {
                        (!allowed.contains(&folder.as_str())).then(|| format!("only {} may", allowed.join(", ")))
                    })
                }
            };
            if let Some(why) = wrong {
                problems.push(format!("{folder}/Cargo.toml: depends on {}: {why}", dependency.name));
            }
        }
    }
    let known = |rule: &str| rule.ends_with("/*") || folders.values().any(|folder| folder == rule);
    let gone = rules.keys().filter(|rule| !known(rule));
    problems.extend(gone.map(|rule| format!("{DOCUMENT}: the table names {rule}, which is no crate")));
    problems
}

fn wrong_use(rule: &Rule<'_>, used: &str, dependency: &Dependency) -> Option<String> {
    let Some(uses) = rule else { return None };
    let name = used.rsplit('/').next().unwrap_or(used);
    let Some(allowed) = uses.iter().find(|allowed| allowed.name == name) else {
        let allowed: Vec<&str> = uses.iter().map(|allowed| allowed.name).collect();
        let allowed = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
        return Some(format!("by {DOCUMENT} it may use {allowed} of ours"));
    };
    let off_wasm32 = dependency.target.as_deref() == Some("cfg(not(target_arch = \"wasm32\"))");
    (allowed.off_wasm32 && !off_wasm32).then(|| "only under [target.'cfg(not(target_arch = \"wasm32\"))']".to_owned())
}

fn folder(root: &Path, package: &Package) -> String {
    let folder = package.folder.strip_prefix(root).unwrap_or(&package.folder);
    folder.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// The rows of the table, by folder.
fn rules(document: &str) -> BTreeMap<&str, Rule<'_>> {
    let mut lines = document.lines().skip_while(|line| {
        let cells = cells(line);
        cells.first() != Some(&"folder") || cells.last() != Some(&"may use (of ours)")
    });
    let rows = lines.by_ref().skip(2).map(cells).take_while(|cells| cells.len() > 1);
    rows.map(|cells| (cells[0].trim_matches('`'), rule(cells[cells.len() - 1]))).collect()
}

fn cells(line: &str) -> Vec<&str> {
    let row = line.trim().strip_prefix('|').and_then(|row| row.strip_suffix('|'));
    row.map(|row| row.split('|').map(str::trim).collect()).unwrap_or_default()
}

/// `nothing`, `all`, or names with commas between them; behind a semicolon those that are not for wasm32.
fn rule(cell: &str) -> Rule<'_> {
    if cell == "all" {
        return None;
    }
    let (always, off_wasm32) = cell.split_once("; off wasm32 ").unwrap_or((cell, ""));
    let mut uses = Vec::new();
    for (cell, off_wasm32) in [(always, false), (off_wasm32, true)] {
        let names = cell.split(',').map(str::trim).filter(|name| !matches!(*name, "" | "nothing"));
        uses.extend(names.map(|name| Use { name, off_wasm32 }));
    }
    Some(uses)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
# Architecture
| folder | package | may use (of ours) |
| --- | --- | --- |
| `crates/model` | `slung-model` | nothing |
| `crates/store` | `slung-store` | model |
| `crates/live` | `slung-live` | model |
| `crates/sdk` | `slung-sdk` | model; off wasm32 store, live |
| `workflows/*` | one each | sdk |
| `benches` | `slung-benches` | all |

| folder | something else |
";

    fn package(folder: &str, name: &str, dependencies: &[(&str, bool, Option<&str>)]) -> Package {
        let dependencies = dependencies.iter().map(|(name, dev, target)| Dependency {
            name: (*name).into(),
            dev: *dev,
            target: target.map(str::to_owned),
        });
        Package {
            name: name.into(),
            folder: Path::new("/r").join(folder),
            dependencies: dependencies.collect(),
            ..Package::default()
        }
    }

    fn packages() -> Vec<Package> {
        let off_wasm32 = Some("cfg(not(target_arch = \"wasm32\"))");
        vec![
            package("crates/model", "slung-model", &[("thiserror", false, None)]),
            package("crates/store", "slung-store", &[("slung-model", false, None), ("slung-live", true, None)]),
            package("crates/live", "slung-live", &[("slung-model", false, None), ("tokio", true, None)]),
            package("crates/sdk", "slung-sdk", &[("slung-model", false, None), ("slung-live", false, off_wasm32)]),
            package("workflows/alert", "alert", &[("slung-sdk", false, None)]),
            package("benches", "slung-benches", &[("slung-sdk", false, None), ("tokio", false, None)]),
        ]
    }

    fn problems(packages: &[Package]) -> Vec<String> {
        check(Path::new("/r"), &Tree::of(&[(DOCUMENT, TABLE)]), packages)
    }

    #[test]
    fn what_the_table_allows_is_no_problem() {
        assert_eq!(problems(&packages()), Vec::<String>::new());
    }

    #[test]
    fn every_wrong_edge_is_found() {
        let mut wrong = packages();
        wrong[0] = package("crates/model", "slung-model", &[("tokio", false, None)]);
        wrong[1] = package("crates/store", "slung-store", &[("slung-live", false, None)]);
        wrong[3] = package(
            "crates/sdk",
            "slung-sdk",
            &[("slung-live", false, None), ("slung-store", false, Some("cfg(unix)"))],
        );
        wrong[4] = package("workflows/alert", "alert", &[("slung-model", false, None)]);
        let found = problems(&wrong);
        let starts = [
            "crates/model/Cargo.toml: depends on tokio: only crates/host",
            "crates/store/Cargo.toml: depends on slung-live: by docs/architecture.md it may use model of ours",
            "crates/sdk/Cargo.toml: depends on slung-live: only under",
            "crates/sdk/Cargo.toml: depends on slung-store: only under",
            "workflows/alert/Cargo.toml: depends on slung-model: by docs/architecture.md it may use sdk of ours",
        ];
        assert_eq!(found.len(), starts.len(), "{found:?}");
        for (found, start) in found.iter().zip(starts) {
            assert!(found.starts_with(start), "{found}");
        }
    }

    #[test]
    fn crates_and_table_name_the_same() {
        let mut more = packages();
        more.push(package("crates/common", "slung-common", &[]));
        assert_eq!(problems(&more), ["crates/common: is not in the table in docs/architecture.md"]);
        let fewer: Vec<Package> = packages().into_iter().filter(|package| package.name != "slung-benches").collect();
        assert_eq!(problems(&fewer), ["docs/architecture.md: the table names benches, which is no crate"]);
        let without = check(Path::new("/r"), &Tree::of(&[(DOCUMENT, "# Architecture\n")]), &packages());
        assert_eq!(without.len(), 1);
    }
}
