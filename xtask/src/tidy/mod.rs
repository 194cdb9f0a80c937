//! `tidy`: what the compiler does not check. Each check is a function of file texts and manifests to a list of problems.

mod examples;
mod layering;
mod links;
mod sources;
mod tree;

use crate::workspace::{self, Workspace};
use tree::Tree;

/// Makes every check and prints every problem.
///
/// # Errors
/// Where there is a problem, or a file or manifest can't be read.
pub(crate) fn check(workspace: &Workspace) -> Result<(), String> {
    let tree = Tree::read(&workspace.root)?;
    let (workflows, _) = workspace::metadata(&workspace.workflows())?;
    let packages: Vec<_> = workspace.packages.iter().chain(&workflows).cloned().collect();
    let checks = [
        ("layering", layering::check(&workspace.root, &tree, &packages)),
        ("links", links::check(&tree)),
        ("examples", examples::check(&tree)),
        ("first lines", sources::first_lines(&tree)),
        ("paths and hosts", sources::places(&tree)),
        ("READMEs and lints", sources::crates(&tree)),
        ("unsafe code", sources::unsafe_code(&tree)),
    ];
    let mut count = 0;
    for (name, problems) in checks {
        eprintln!("    {name}: {}", if problems.is_empty() { "ok" } else { "not ok" });
        problems.iter().for_each(|problem| eprintln!("      {problem}"));
        count += problems.len();
    }
    match count {
        0 => Ok(()),
        1 => Err("1 problem, see above".into()),
        _ => Err(format!("{count} problems, see above")),
    }
}
