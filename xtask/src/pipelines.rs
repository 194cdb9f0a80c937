//! What is made of many steps: test, demo, ci.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::process::{Command, ExitCode};

use crate::steps::Steps;
use crate::workspace::Workspace;
use crate::{guests, process, tidy};

/// Where the end-to-end tests find the compiled workflows.
const WORKFLOWS_DIR: &str = "SLUNG_WORKFLOWS_DIR";

/// How long each fuzz target is driven, seconds.
const FUZZ_SECONDS: u64 = 60;

/// The workflows, then every test.
///
/// # Errors
/// The first step that fails.
pub(crate) fn test(workspace: &Workspace, steps: &mut Steps, long: bool) -> Result<(), String> {
    guests::build_workflows(workspace, steps)?;
    let test = || {
        let mut cargo = process::cargo(&workspace.root);
        cargo.args(["test", "--workspace", "--no-fail-fast"]).env(WORKFLOWS_DIR, workspace.wasm());
        cargo
    };
    steps.run("test the workspace, end to end too", || process::run(&mut test()))?;
    steps.run("test the workflows natively", || {
        process::run(native_workflows(workspace).args(["test", "--workspace"]))
    })?;
    if long {
        // Not the documentation: an example that is marked `ignore` is not meant to run.
        let targets = ["--lib", "--bins", "--tests", "--", "--ignored"];
        steps.run("run the long tests", || process::run(test().args(targets)))?;
        steps.run("fuzz what strangers send", || fuzz(workspace))?;
    }
    Ok(())
}

/// Each target with a folder of the corpus, from there on. What is found on the way is kept for the next time.
fn fuzz(workspace: &Workspace) -> Result<(), String> {
    let corpus = workspace.root.join("crates/net/tests/corpus");
    let failed = |error| format!("{}: {error}", corpus.display());
    for folder in fs::read_dir(&corpus).map_err(failed)? {
        let folder = folder.map_err(failed)?;
        let found = workspace.target.join("fuzz-corpus").join(folder.file_name());
        fs::create_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
        let mut fuzz = process::command("rustup");
        fuzz.current_dir(&workspace.root).args(["run", "nightly", "cargo", "fuzz", "run", "--fuzz-dir", "fuzz"]);
        fuzz.arg("--target-dir").arg(workspace.target.join("fuzz")).arg(folder.file_name());
        fuzz.args([found, folder.path()]).args(["--", "-max_len=4096", &format!("-max_total_time={FUZZ_SECONDS}")]);
        process::run(&mut fuzz)
            .map_err(|error| format!("{error}; it needs nightly (by rustup) and `cargo install cargo-fuzz`"))?;
    }
    Ok(())
}

/// The store's model test, from that seed on and for so long.
///
/// # Errors
/// Where it fails; it says with which seed.
pub(crate) fn simulate(workspace: &Workspace, steps: &mut Steps, seed: u64, minutes: u64) -> Result<(), String> {
    steps.run("simulate lives of a store", || {
        let mut cargo = process::cargo(&workspace.root);
        cargo.args(["test", "-p", "slung-store", "--test", "it", "--", "--ignored", "--exact", "--nocapture"]);
        cargo.arg("model::simulate");
        cargo.env("SLUNG_SIM_SEED", seed.to_string()).env("SLUNG_SIM_MINUTES", minutes.to_string());
        process::run(&mut cargo)
    })
}

/// The workflows and the binary, then the demo. It takes the place of this process, so that a signal reaches it.
///
/// # Errors
/// The first step that fails.
pub(crate) fn demo(workspace: &Workspace, steps: &mut Steps, arguments: &[OsString]) -> Result<ExitCode, String> {
    guests::build_workflows(workspace, steps)?;
    let mut demo = process::command(workspace.slung());
    demo.arg("demo").arg("--workflows").arg(workspace.wasm());
    demo.arg("--data").arg(workspace.workflows().join("data/machine_temperature_system_failure.csv"));
    demo.args(arguments);
    eprintln!("==> slung demo");
    become_it(demo)
}

#[cfg(unix)]
fn become_it(mut command: Command) -> Result<ExitCode, String> {
    use std::os::unix::process::CommandExt;
    let error = command.exec(); // returns only where it could not be started
    Err(format!("{}: {error}", command.get_program().to_string_lossy()))
}

#[cfg(not(unix))]
fn become_it(mut command: Command) -> Result<ExitCode, String> {
    let status = command.status().map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Everything that has to pass, the quick checks first.
///
/// # Errors
/// The first step that fails.
pub(crate) fn ci(workspace: &Workspace, steps: &mut Steps) -> Result<(), String> {
    let cargo = || process::cargo(&workspace.root);
    steps.run("format", || {
        process::run(cargo().args(["fmt", "--all", "--check"]))?;
        process::run(native_workflows(workspace).args(["fmt", "--all", "--check"]))
    })?;
    steps.run("tidy", || tidy::check(workspace))?;
    // `--locked`: a lock file that is out of date is found here.
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-Dwarnings"];
    steps.run("clippy", || process::run(cargo().args(clippy)))?;
    steps.run("clippy of the workflows", || process::run(native_workflows(workspace).args(clippy)))?;
    steps.run("documentation", || {
        let flags = env::var("RUSTDOCFLAGS").unwrap_or_default() + " -Dwarnings";
        process::run(cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", flags.trim_start()))
    })?;
    test(workspace, steps, false)
}

/// cargo for the workflows on this machine's own platform, with a folder of its own: their profile is another.
fn native_workflows(workspace: &Workspace) -> Command {
    let mut cargo = process::cargo(&workspace.workflows());
    cargo.env("CARGO_TARGET_DIR", workspace.target.join("workflows-native"));
    cargo
}
