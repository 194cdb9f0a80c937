//! Compiles what is deployed in a process of its own first, which can be ended: a module may be made so that compiling it takes
//! hours, or all the memory there is. What was compiled goes into wasmtime's cache, where the server finds it.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use slung_host::HostOptions;

use crate::cli::TryOutArgs;

/// How long it may take: ten times what the largest honest modules do.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(30);
/// Address space that the process may take, bytes.
const COMPILE_BYTES_MAX: u64 = 2 << 30;
/// Between two looks at whether it is done.
const LOOK: Duration = Duration::from_millis(2);
/// What it may say about a module, bytes.
const SAID_BYTES_MAX: u64 = 64 * 1024;
/// Below everything that serves.
const NICENESS: i32 = 10;

/// The host's options wherever modules are compiled: what is in the cache depends on them.
pub(crate) fn host_options(cache_dir: PathBuf) -> HostOptions {
    HostOptions { cache_dir: Some(cache_dir), ..HostOptions::default() }
}

/// The other process: says what is wrong with the module on stdin, and exits with 1 then.
#[expect(clippy::print_stdout, reason = "what the server reads")]
pub(crate) fn run(args: &TryOutArgs) -> anyhow::Result<ExitCode> {
    rlimit::setrlimit(rlimit::Resource::AS, COMPILE_BYTES_MAX, COMPILE_BYTES_MAX).context("limiting the memory")?;
    // Where it is not let, it competes with everything else, for as long as it may take.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let options = host_options(args.cache.clone());
    let mut module = Vec::new();
    std::io::stdin().lock().take(options.module_bytes_max as u64 + 1).read_to_end(&mut module)?;
    Ok(match slung_host::check(&options, &args.name, &module) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    })
}

/// Tries a module out. Blocks, for [`COMPILE_TIMEOUT`] at most.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn try_out(cache_dir: &Path, name: &str, module: &[u8]) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("compiling in a process of its own: {error}");
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(["try-out", "--name", name, "--cache"]).arg(cache_dir);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = piped.map_err(failed)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // One that ends before it has read everything says why.
            let _ = stdin.map(|mut stdin| stdin.write_all(module));
        });
        let said = scope.spawn(move || {
            let mut said = Vec::new();
            // What it could not say is as good as nothing said.
            let _ = stdout.map(|stdout| stdout.take(SAID_BYTES_MAX).read_to_end(&mut said));
            String::from_utf8_lossy(&said).trim_end().to_owned()
        });
        let status = wait(&mut child).map_err(failed);
        let said = said.join().unwrap_or_default();
        verdict(status?, said)
    })
}

/// `None` where it had to be ended.
fn wait(child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + COMPILE_TIMEOUT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

fn verdict(status: Option<ExitStatus>, said: String) -> Result<(), String> {
    let Some(status) = status else {
        return Err(format!("the module takes longer to compile than {} s", COMPILE_TIMEOUT.as_secs()));
    };
    match status.code() {
        Some(0) => Ok(()),
        Some(_) if !said.is_empty() => Err(said),
        Some(code) => Err(format!("compiling the module in a process of its own failed with status {code}")),
        None => Err(format!(
            "compiling the module takes more than {} GiB of memory, or breaks the compiler (signal {})",
            COMPILE_BYTES_MAX >> 30,
            status.signal().unwrap_or_default()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_the_other_process_is_told() {
        let status = |raw| Some(ExitStatus::from_raw(raw));
        assert_eq!(verdict(status(0), String::new()), Ok(()));
        assert_eq!(verdict(status(1 << 8), "unknown import".to_owned()), Err("unknown import".to_owned()));
        assert!(verdict(status(2 << 8), String::new()).unwrap_err().contains("status 2"));
        assert!(
            verdict(status(6), String::new())
                .unwrap_err()
                .contains("2 GiB of memory, or breaks the compiler (signal 6)")
        );
        assert!(verdict(None, String::new()).unwrap_err().contains("longer to compile than 30 s"));
    }
}
