//! What every source file and every crate has, and what none has.

use super::tree::Tree;

/// The folders that may contain `unsafe`: the guest side of the SDK, and what `#[main]` puts into a guest.
const UNSAFE: [&str; 4] =
    ["crates/sdk/src/guest.rs", "crates/sdk/src/imports.rs", "crates/sdk/src/region.rs", "crates/macros/src/entry.rs"];

/// Hosts of package registries: which one is used is a matter of each machine's configuration. In pieces, so that this
/// file does not contain them.
const HOSTS: [&str; 6] = [
    concat!("crates", ".io"),
    concat!("npmjs", ".com"),
    concat!("npmjs", ".org"),
    concat!("pypi", ".org"),
    concat!("deb.debian", ".org"),
    concat!("proxy.golang", ".org"),
];

/// Folders of one machine.
const FOLDERS: [&str; 5] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/"), concat!("/t", "mp/")];

/// The first line of every source file says why the file exists.
pub(super) fn first_lines(tree: &Tree) -> Vec<String> {
    let wrong = tree.ending(".rs").filter(|(_, text)| {
        let line = text.lines().next().unwrap_or_default();
        line.strip_prefix("//!").is_none_or(|why| why.trim().is_empty())
    });
    wrong.map(|(path, _)| format!("{path}: the first line is not `//!` and why the file exists")).collect()
}

/// No file names a registry's host or a folder that only one machine has. Lock files name the registry by cargo's own hand.
pub(super) fn places(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.texts.iter().filter(|(path, _)| !path.ends_with("Cargo.lock")) {
        for (index, line) in text.lines().enumerate() {
            let host = HOSTS.into_iter().find(|host| line.contains(host));
            let folder = FOLDERS.into_iter().find(|folder| names_folder(line, folder));
            let what =
                host.map(|host| ("the registry", host)).or(folder.map(|folder| ("a folder of one machine,", folder)));
            problems.extend(what.map(|(what, name)| format!("{path}:{}: names {what} {name}", index + 1)));
        }
    }
    problems
}

/// Whether an absolute path begins there: inside a longer path, or behind a host or a variable, it is another one.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        !line[..at].ends_with(|before: char| {
            before.is_alphanumeric() || matches!(before, '.' | '_' | '-' | '~' | '*' | '}' | '>')
        })
    })
}

/// Every crate explains itself and takes the workspace's lints.
pub(super) fn crates(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.ending("/Cargo.toml").filter(|(path, _)| path.starts_with("crates/")) {
        let readme = path.replace("Cargo.toml", "README.md");
        if tree.texts.get(&readme).is_none_or(|text| text.trim().is_empty()) {
            problems.push(format!("{readme}: is missing"));
        }
        if !text.contains("\n[lints]\nworkspace = true\n") {
            problems
                .push(format!("{path}: does not take the workspace's lints: add `[lints]` with `workspace = true`"));
        }
    }
    problems
}

/// `unsafe` only where docs/architecture.md allows it.
pub(super) fn unsafe_code(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (path, text) in tree.ending(".rs").filter(|(path, _)| !UNSAFE.contains(path)) {
        let lines = text.lines().enumerate().filter(|(_, line)| is_unsafe(line));
        problems.extend(lines.map(|(index, _)| format!("{path}:{}: unsafe code, see docs/architecture.md", index + 1)));
    }
    problems
}

/// Whether the keyword stands there, outside of a comment.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let keyword = concat!("un", "safe");
    code.match_indices(keyword).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + keyword.len()..].trim_start();
        let is_word = before.is_none_or(|before| !before.is_alphanumeric() && !matches!(before, '_' | '"' | '`'));
        let opens = ["{", "(", "fn ", "impl ", "impl<", "trait ", "extern "].iter().any(|open| after.starts_with(open));
        is_word && (opens || after.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_say_why() {
        let good = [("a.rs", "//! Why.\nfn main() {}\n"), ("a.txt", "")];
        assert!(first_lines(&Tree::of(&good)).is_empty());
        for text in ["", "\n//! Why.\n", "//!\n", "// Why.\n", "#![forbid(unsafe_code)]\n"] {
            assert_eq!(first_lines(&Tree::of(&[("a.rs", text)])).len(), 1, "{text:?}");
        }
    }

    #[test]
    fn registries_and_folders_are_found() {
        for text in HOSTS.into_iter().chain(FOLDERS) {
            let found = places(&Tree::of(&[("docs/a.md", &format!("first\nsee \"{text}x\"\n"))]));
            assert!(found.len() == 1 && found[0].starts_with("docs/a.md:2: "), "{text}: {found:?}");
        }
        assert!(places(&Tree::of(&[("workflows/Cargo.lock", HOSTS[0])])).is_empty());
    }

    #[test]
    fn a_part_of_another_path_is_no_folder_of_one_machine() {
        for before in ["target", "https://example.org", "<root>", "${base}", "~", ".."] {
            for folder in FOLDERS {
                assert!(!names_folder(&format!("{before}{folder}x"), folder), "{before}{folder}");
            }
        }
    }

    #[test]
    fn crates_need_readme_and_lints() {
        let manifest = "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n";
        let good = [("crates/a/Cargo.toml", manifest), ("crates/a/README.md", "# a\n"), ("xtask/Cargo.toml", "")];
        assert!(crates(&Tree::of(&good)).is_empty());
        assert_eq!(crates(&Tree::of(&good[..1])), ["crates/a/README.md: is missing"]);
        let bare = [("crates/a/Cargo.toml", "[package]\n"), good[1]];
        assert!(crates(&Tree::of(&bare))[0].starts_with("crates/a/Cargo.toml: does not take"));
    }

    #[test]
    fn the_keyword_is_found_where_it_is_code() {
        let word = concat!("un", "safe");
        let code = [" { *p }", " fn f() {}", " impl Send for X {}", "(no_mangle)]", " extern \"C\" {", ""];
        for after in code {
            let text = format!("//! Why.\nlet x = {word}{after}\n");
            assert_eq!(unsafe_code(&Tree::of(&[("crates/store/src/a.rs", &text)])).len(), 1, "{text}");
            assert!(unsafe_code(&Tree::of(&[(UNSAFE[0], &text)])).is_empty());
        }
        for line in [
            format!("#![forbid({word}_code)]"),
            format!("// {word} {{"),
            format!("is_{word}(x)"),
            format!("an {word} word"),
        ] {
            assert!(!is_unsafe(&line), "{line}");
        }
    }
}
