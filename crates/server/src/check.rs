//! `slung check`: the load-time checks on one module.

use anyhow::Context;

use crate::cli::CheckArgs;

/// Prints what the module is; fails with everything that is wrong with it.
#[expect(clippy::print_stdout, reason = "the command's result")]
pub(crate) fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let path = args.file.display().to_string();
    let bytes = std::fs::read(&args.file).with_context(|| format!("cannot read {path}"))?;
    println!("{}", slung_host::check(&slung_host::HostOptions::default(), &path, &bytes)?);
    Ok(())
}
