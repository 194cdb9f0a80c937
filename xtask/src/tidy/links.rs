//! Links in Markdown: a relative one leads to a file that is there, and to a heading in it; the book lists its pages.

use super::tree::Tree;

/// The book's folder, and its list of pages.
const BOOK: &str = "docs/";
const SUMMARY: &str = "docs/SUMMARY.md";

pub(super) fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    let mut listed = vec![SUMMARY.to_owned()];
    for (path, text) in tree.ending(".md") {
        for (line, link) in links(text) {
            match resolve(tree, path, link) {
                Ok(Some(file)) if path == SUMMARY => listed.push(file),
                Ok(_) => {}
                Err(why) => problems.push(format!("{path}:{line}: `{link}` {why}")),
            }
        }
    }
    for (path, _) in tree.ending(".md").filter(|(path, _)| path.starts_with(BOOK)) {
        if !listed.iter().any(|listed| listed == path) {
            problems.push(format!("{path}: is not listed in {SUMMARY}"));
        }
    }
    problems
}

/// The file that a link leads to; `None` for one that leads out of the project.
fn resolve(tree: &Tree, from: &str, link: &str) -> Result<Option<String>, String> {
    // With `::` it is a path that rustdoc resolves.
    if link.starts_with("https://") || link.starts_with("http://") || link.starts_with("mailto:") || link.contains("::")
    {
        return Ok(None);
    }
    if link.starts_with('/') {
        return Err("is absolute: links are relative to their file".into());
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let file = if path.is_empty() { from.to_owned() } else { join(from, path).ok_or("leads out of the project")? };
    if !tree.paths.contains(&file) {
        return Err("leads nowhere".into());
    }
    if from.starts_with(BOOK) && !file.starts_with(BOOK) {
        return Err("leads out of the book, where it would be broken".into());
    }
    let anchored = anchor.is_empty() || tree.texts.get(&file).is_none_or(|text| has_heading(text, anchor));
    if anchored { Ok(Some(file)) } else { Err(format!("leads to a heading that {file} does not have")) }
}

/// A relative path, from the file that it stands in.
fn join(from: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Targets of inline links, `[text](target)`, and of definitions, `[name]: target`, with their line numbers. What stands
/// in code is no link.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let definition = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        if let Some((_, target)) = definition {
            found.extend(target.split_whitespace().next().map(|target| (number, target)));
            continue;
        }
        let mut code = false;
        for (at, character) in line.char_indices() {
            match character {
                '`' => code = !code,
                ']' if !code => {
                    let target = line[at + 1..].strip_prefix('(').and_then(|rest| rest.split_once(')'));
                    found.extend(
                        target.and_then(|(target, _)| target.split_whitespace().next()).map(|target| (number, target)),
                    );
                }
                _ => {}
            }
        }
    }
    found
}

/// The lines that are not in a fenced block of code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

fn has_heading(text: &str, anchor: &str) -> bool {
    let headings = prose(text).filter(|(_, line)| line.starts_with('#'));
    headings.map(|(_, line)| line.trim_start_matches('#').trim()).any(|heading| slug(heading) == anchor)
}

/// The anchor of a heading: lower case, dashes for blanks, and of all else only letters, digits, `_` and `-`.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '_' | '-'));
    kept.flat_map(char::to_lowercase).map(|character| if character == ' ' { '-' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(readme: &str) -> Vec<String> {
        let summary = ("docs/SUMMARY.md", "- [ABI](abi.md)\n");
        let page = ("docs/abi.md", "# The ABI\n```\n# no heading\n```\n## What `call` answers, in full\n");
        check(&Tree::of(&[("README.md", readme), summary, page, ("crates/abi/src/lib.rs", "")]))
    }

    #[test]
    fn good_links() {
        let readme = "\
[abi](docs/abi.md), [call](docs/abi.md#what-call-answers-in-full) ![x](crates/abi/) [here](#start \"title\")
# Start
[web](https://example.org/x) [item](crate::Store) `[code](gone.md)` a[0](i) [ref]
```text
[fenced](gone.md)
```
[ref]: ./docs/../docs/abi.md
";
        assert_eq!(problems(readme.replace(" a[0](i)", "").as_str()), Vec::<String>::new());
        assert_eq!(problems(readme).len(), 1);
    }

    #[test]
    fn bad_links() {
        let bad = [
            ("[x](docs/gone.md)", "leads nowhere"),
            ("a\n\n![x](docs/gone.png)", "leads nowhere"),
            ("[x](docs/abi.md#no-heading)", "a heading"),
            ("[x](#gone)", "a heading"),
            ("[x](/docs/abi.md)", "absolute"),
            ("[x](../outside.md)", "out of the project"),
            ("[x]: docs/gone.md", "leads nowhere"),
        ];
        for (readme, why) in bad {
            let found = problems(readme);
            assert!(found.len() == 1 && found[0].contains(why), "{readme}: {found:?}");
        }
        assert!(problems("a\n\n[x](gone.md)")[0].starts_with("README.md:3: `gone.md` "));
    }

    #[test]
    fn the_book_is_whole_and_closed() {
        let summary = ("docs/SUMMARY.md", "- [A](a.md)\n");
        let tree =
            Tree::of(&[("README.md", ""), summary, ("docs/a.md", "[x](../README.md)"), ("docs/format/log.md", "")]);
        let found = check(&tree);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("docs/a.md:1: `../README.md` leads out of the book"));
        assert!(found[1].starts_with("docs/format/log.md: is not listed"));
    }
}
