//! Other programs: run with a clean environment, named in every error.

use std::env;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A program to run, without input and without what `cargo run` left in the environment for this one: build scripts that
/// look at it would otherwise run again each time cargo is called from here and then by hand.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    for (name, _) in env::vars_os() {
        let set_by_cargo = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || matches!(name, "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR")
        });
        if set_by_cargo {
            command.env_remove(name);
        }
    }
    command
}

/// The cargo that runs this.
pub(crate) fn cargo(folder: &Path) -> Command {
    let mut command = command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(folder);
    command
}

/// Runs to the end, with its output shown.
///
/// # Errors
/// Where it can't be started or does not succeed.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    eprintln!("    $ {}", line(command));
    let status = command.status().map_err(|error| not_started(command, &error))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", line(command))) }
}

/// As [`run`], but kills it when the time is over.
///
/// # Errors
/// Where it can't be started, does not succeed, or takes too long.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> Result<(), String> {
    eprintln!("    $ {}", line(command));
    let end = Instant::now() + limit;
    let mut child = command.spawn().map_err(|error| not_started(command, &error))?;
    loop {
        let ended = child.try_wait().map_err(|error| format!("`{}`: {error}", line(command)))?;
        match ended {
            Some(status) if status.success() => return Ok(()),
            Some(status) => return Err(format!("`{}` ended with {status}", line(command))),
            None if Instant::now() >= end => break,
            None => thread::sleep(Duration::from_millis(50)),
        }
    }
    child.kill().and_then(|()| child.wait()).map_err(|error| format!("`{}`: {error}", line(command)))?;
    Err(format!("`{}` was stopped after {} s", line(command), limit.as_secs()))
}

/// What it prints on its standard output.
///
/// # Errors
/// Where it can't be started or does not succeed: with what it printed on its standard error.
pub(crate) fn capture(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| not_started(command, &error))?;
    if !output.status.success() {
        let printed = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{}` ended with {}\n{}", line(command), output.status, printed.trim_end()));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("what `{}` prints is not UTF-8", line(command)))
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn not_started(command: &Command, error: &std::io::Error) -> String {
    format!("`{}` could not be started: {error}", line(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_command() {
        let wrong = run(Command::new("/nonexistent/tool").arg("--now"));
        assert!(wrong.is_err_and(|error| error.starts_with("`tool --now` could not be started")));
        let failed = capture(cargo(Path::new(".")).arg("no-such-command"));
        assert!(failed.is_err_and(|error| error.contains("no-such-command` ended with exit status: 101")));
    }

    #[cfg(unix)]
    #[test]
    fn what_hangs_is_stopped() {
        let stopped = run_within(command("sleep").arg("600"), Duration::from_millis(100));
        assert_eq!(stopped, Err("`sleep 600` was stopped after 0 s".into()));
        assert_eq!(run_within(&mut command("true"), Duration::from_secs(60)), Ok(()));
    }
}
