//! `slung backup` and `slung restore`: copies of a data directory, there and back.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use slung_host::copy_deployments;
use slung_store::OsVfs;
use slung_store::tools::{self, Copied};

use crate::cli::{BackupArgs, RestoreArgs};
use crate::serve::WORKFLOWS_DIR;
use crate::show::{bytes, bytes_bar, count, show};
use crate::verify::verify_dir;

/// Copies a data directory, and reads the copy.
pub(crate) fn backup(args: &BackupArgs) -> anyhow::Result<ExitCode> {
    let bar = bytes_bar("copying");
    let copied = tools::backup(&OsVfs, &args.dir, &args.to, &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    finish(&args.dir, &args.to, copied.context("no backup was made")?, args.no_verify)
}

/// Makes a data directory out of a backup, and reads it.
pub(crate) fn restore(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let bar = bytes_bar("copying");
    let copied = tools::restore(&OsVfs, &args.from, &args.dir, &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    finish(&args.from, &args.dir, copied.context("nothing was restored")?, args.no_verify)
}

#[expect(clippy::print_stdout, reason = "the command's result")]
fn finish(from: &Path, to: &Path, copied: Copied, no_verify: bool) -> anyhow::Result<ExitCode> {
    let mut links = String::new();
    if copied.linked > 0 {
        let segments = if copied.linked == 1 { "segment" } else { "segments" };
        links = format!("; {} {segments} as hard links, {} written", copied.linked, bytes(copied.bytes_written));
    }
    let files = count(copied.files, "file", "files");
    let deployed =
        copy_deployments(&from.join(WORKFLOWS_DIR), &to.join(WORKFLOWS_DIR)).context("deployed workflows")?;
    if deployed > 0 {
        links.push_str(&format!("; {}", count(deployed as u64, "deployed workflow", "deployed workflows")));
    }
    println!("{} copied to {}: {files}, {}{links}", from.display(), to.display(), bytes(copied.bytes));
    Ok(if no_verify || verify_dir(to)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
