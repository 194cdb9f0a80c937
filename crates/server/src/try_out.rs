//! Compiles what is deployed in a process of its own first, which can be ended: a module may be made so that compiling it takes
//! hours, or all the memory there is. What was compiled goes into wasmtime's cache, where the server finds it.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use slung_host::HostOptions;

use crate::cli::TryOutArgs;

/// What compiling a module may take.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CompileLimits {
    /// How long; by default 30 s, ten times what the largest honest modules take.
    pub(crate) timeout: Duration,
    /// Address space of the process, bytes; by default 2 GiB.
    pub(crate) bytes_max: usize,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), bytes_max: 2 << 30 }
    }
}

/// How much later the other process ends by itself.
const AFTER_TIMEOUT_MS: usize = 5_000;
/// Between two looks at whether it is done.
const LOOK: Duration = Duration::from_millis(2);
/// What it may say about a module, bytes.
const SAID_BYTES_MAX: u64 = 64 * 1024;
/// Below everything that serves.
const NICENESS: i32 = 10;

/// Compiles modules for a host with those options, which has a cache; one at a time, so that what they take does not add up.
#[derive(Debug)]
pub(crate) struct Compiler {
    host: HostOptions,
    limits: CompileLimits,
    turn: Mutex<()>,
    closed: Arc<AtomicBool>,
}

/// The other process: says what is wrong with the module on stdin, and exits with 1 then.
#[expect(clippy::print_stdout, reason = "what the server reads")]
pub(crate) fn run(args: &TryOutArgs) -> anyhow::Result<ExitCode> {
    if let Err(error) = hold(args) {
        println!("limiting what compiling takes: {error}");
        return Ok(ExitCode::FAILURE);
    }
    // Where it is not let, it competes with everything else, for as long as it may take.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    // Those on which depends what is compiled, and what is refused.
    let options = HostOptions {
        cache_dir: Some(args.cache.clone()),
        wasm_stack_bytes_max: args.wasm_stack_bytes_max,
        memory_bytes_max: args.memory_bytes_max,
        table_elements_max: args.table_elements_max,
        module_bytes_max: args.module_bytes_max,
        ..HostOptions::default()
    };
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

/// Holds this process to its limits: whoever has started it may be gone by then.
fn hold(args: &TryOutArgs) -> std::io::Result<()> {
    let (_, most) = rlimit::getrlimit(rlimit::Resource::AS)?;
    let bytes_max = args.compile_bytes_max.min(most);
    rlimit::setrlimit(rlimit::Resource::AS, bytes_max, bytes_max)?;
    let timeout = Duration::from_millis(args.compile_ms_max);
    std::thread::Builder::new().name("slung-timeout".to_owned()).spawn(move || {
        std::thread::sleep(timeout);
        std::process::abort();
    })?;
    Ok(())
}

impl Compiler {
    /// For that host, with those limits for each module. Nothing is tried out any more, and what is being so ends, once `closed`
    /// is true.
    pub(crate) fn new(host: HostOptions, limits: CompileLimits, closed: Arc<AtomicBool>) -> Self {
        Self { host, limits, turn: Mutex::default(), closed }
    }

    /// Tries a module out. Blocks, for as long as its limit says at most, and for those before it.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn try_out(&self, name: &str, module: &[u8]) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("compiling in a process of its own: {error}");
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = self.command(name).map_err(failed)?.spawn().map_err(failed)?;
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
            let status = self.wait(&mut child).map_err(failed);
            let said = said.join().unwrap_or_default();
            if self.closed.load(Ordering::Relaxed) {
                return Err("the server stops".to_owned());
            }
            self.verdict(status?, said)
        })
    }

    fn command(&self, name: &str) -> std::io::Result<Command> {
        let mut command = Command::new(this_program()?);
        command.arg("try-out").arg(format!("--name={name}"));
        command.args(self.host.cache_dir.iter().flat_map(|dir| [OsStr::new("--cache"), dir.as_os_str()]));
        let milliseconds = usize::try_from(self.limits.timeout.as_millis()).unwrap_or(usize::MAX);
        for (option, value) in [
            // It is ended here before that.
            ("--compile-ms-max", milliseconds.saturating_add(AFTER_TIMEOUT_MS)),
            ("--compile-bytes-max", self.limits.bytes_max),
            ("--wasm-stack-bytes-max", self.host.wasm_stack_bytes_max),
            ("--memory-bytes-max", self.host.memory_bytes_max),
            ("--table-elements-max", self.host.table_elements_max),
            ("--module-bytes-max", self.host.module_bytes_max),
        ] {
            command.args([option, &value.to_string()]);
        }
        // Nothing of this process's secrets; few arenas, so that its address space is what it uses; no signal of this one's terminal.
        command.env_clear().env("MALLOC_ARENA_MAX", "2").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        Ok(command)
    }

    /// `None` where it had to be ended.
    fn wait(&self, child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + self.limits.timeout;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline || self.closed.load(Ordering::Relaxed) {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            std::thread::sleep(LOOK);
        }
    }

    fn verdict(&self, status: Option<ExitStatus>, said: String) -> Result<(), String> {
        let Some(status) = status else {
            let seconds = self.limits.timeout.as_secs_f64();
            return Err(format!("the module takes longer to compile than {seconds} s (`compile_timeout`)"));
        };
        match status.code() {
            Some(0) => Ok(()),
            Some(_) if !said.is_empty() => Err(said),
            Some(code) => Err(format!("compiling the module in a process of its own failed with status {code}")),
            None => Err(format!(
                "compiling the module takes more than {} MiB of memory (`compile_memory_max`), or breaks the compiler \
                 (signal {})",
                self.limits.bytes_max >> 20,
                status.signal().unwrap_or_default()
            )),
        }
    }
}

/// This very program, also where another one has been put in its place meanwhile.
fn this_program() -> std::io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_the_other_process_is_told() {
        let status = |raw| Some(ExitStatus::from_raw(raw));
        let compiler = Compiler::new(HostOptions::default(), CompileLimits::default(), Arc::default());
        let verdict = |status, said: &str| compiler.verdict(status, said.to_owned());
        assert_eq!(verdict(status(0), ""), Ok(()));
        assert_eq!(verdict(status(1 << 8), "unknown import"), Err("unknown import".to_owned()));
        assert!(verdict(status(2 << 8), "").unwrap_err().contains("status 2"));
        let killed = verdict(status(6), "").unwrap_err();
        assert!(killed.contains("more than 2048 MiB") && killed.contains("breaks the compiler (signal 6)"), "{killed}");
        assert!(verdict(None, "").unwrap_err().contains("longer to compile than 30 s"));
    }
}
