//! Rust in documents: every example is one of a crate's README, where it is compiled with the documentation tests.

use std::collections::BTreeSet;

use super::tree::Tree;

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let is_compiled = |path: &str| {
        let library = path.strip_suffix("README.md").map(|folder| format!("{folder}src/lib.rs"));
        let library = library.and_then(|library| tree.texts.get(&library));
        library.is_some_and(|library| library.contains("include_str!(\"../README.md\")"))
    };
    let texts = || tree.ending(".md");
    let compiled: BTreeSet<String> =
        texts().filter(|(path, _)| is_compiled(path)).flat_map(|(_, text)| rust(text)).map(|(_, code)| code).collect();
    let mut problems = Vec::new();
    for (path, text) in texts().filter(|(path, _)| !is_compiled(path)) {
        let untested = rust(text).into_iter().filter(|(_, code)| !compiled.contains(code));
        problems
            .extend(untested.map(|(line, _)| format!("{path}:{line}: this Rust is in no crate's README: untested")));
    }
    problems
}

/// The blocks of Rust, each with the number of its first line.
fn rust(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let code: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| !line.starts_with("```")).collect();
        if language.split(',').next() == Some("rust") {
            blocks.push((index + 1, code.join("\n")));
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_that_no_crate_has_is_found() {
        let example = "# A\n```rust,no_run\nfn main() {}\n```\n";
        let library = "#![doc = include_str!(\"../README.md\")]\n";
        let with = |readme: &'static str, page: &'static str| {
            check(&Tree::of(&[
                ("crates/a/README.md", readme),
                ("crates/a/src/lib.rs", library),
                ("docs/page.md", page),
            ]))
        };
        assert!(with(example, "text\n\n```rust\nfn main() {}\n```\n```toml\n[a]\n```\n").is_empty());
        assert_eq!(
            with(example, "```sh\ncargo\n```\n```rust\nfn main() { }\n```\n"),
            ["docs/page.md:4: this Rust is in no crate's README: untested"]
        );
        assert_eq!(check(&Tree::of(&[("crates/a/README.md", example), ("crates/a/src/lib.rs", "//! A.\n")])).len(), 1);
    }
}
