//! Workflows, compiled to WebAssembly: which toolchain can do it, the build, and the check of what came out.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::steps::Steps;
use crate::workspace::{self, Workspace};
use crate::{c, process};

const TARGET: &str = "wasm32-wasip1";

/// Longest wait for `rustup target add`, which downloads about 20 MB: without a network some set-ups wait for ever.
const RUSTUP_SECONDS_MAX: u64 = 180;

/// What has to be there for the Debian way, and the package that brings it.
const DEBIAN: [(&str, &str); 5] = [
    ("/usr/bin/rustc", "rustc-web"),
    ("/usr/bin/cargo", "cargo-web"),
    ("/usr/lib/rustlib/src/rust/library/std/Cargo.toml", "rust-web-src"),
    ("/usr/lib/wasm32-wasi/crt1.o", "wasi-libc"),
    ("/usr/bin/wasm-ld", "lld"),
];

/// A way to compile for WebAssembly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Toolchain {
    /// The active toolchain, which has the target's standard library.
    Active,
    /// Debian's compiler, which builds the standard library from its sources.
    Debian,
}

/// Compiles every workflow, copies it to `target/workflows/NAME.wasm` and has `slung check` look at it.
///
/// # Errors
/// Where no toolchain is found, something does not compile, or a check fails.
pub(crate) fn build_workflows(workspace: &Workspace, steps: &mut Steps) -> Result<(), String> {
    let modules = compile(workspace, steps)?;
    steps.run("build the binary `slung`", || {
        // With the features that the tests turn on, or wasmtime would be built a second time for them: all of the workspace,
        // and `--examples`, which lets cargo count in the dependencies for tests (without compiling them).
        process::run(process::cargo(&workspace.root).args(["build", "--workspace", "--bins", "--examples"]))
    })?;
    steps.run("check the workflows", || {
        for module in &modules {
            process::capture(process::command(workspace.slung()).arg("check").arg(module))?;
            eprintln!("    {}: good", module.display());
        }
        Ok(())
    })
}

/// Compiles every workflow; answers the modules.
fn compile(workspace: &Workspace, steps: &mut Steps) -> Result<Vec<PathBuf>, String> {
    let toolchain = steps.run("find a toolchain for WebAssembly", find_or_install)?;
    steps.run("compile the workflows", || {
        let imports = workspace.target.join("guest").join("imports.txt");
        let table = read(&workspace.root.join("crates/abi/src/tables.rs"))?;
        write_if_changed(&imports, (import_names(&table)?.join("\n") + "\n").as_bytes())?;
        process::run(&mut cargo_build(toolchain, workspace, &imports))?;
        let mut built = binaries(workspace)?;
        built.extend(c::compile(workspace, &workspace.target.join("guest").join("c"))?);
        collect(workspace, &built)
    })
}

fn find_or_install() -> Result<Toolchain, String> {
    if let Some(toolchain) = find()? {
        return Ok(toolchain);
    }
    eprintln!("    Neither the active toolchain nor Debian's packages can compile for {TARGET}: installing.");
    let mut failures = Vec::new();
    for install in [install_by_rustup, install_by_apt] {
        match install() {
            Ok(()) => {
                if let Some(toolchain) = find()? {
                    return Ok(toolchain);
                }
            }
            Err(failure) => failures.push(failure),
        }
    }
    let packages = DEBIAN.map(|(_, package)| package).join(" ");
    Err(format!(
        "no toolchain for {TARGET}, and none could be installed ({}).\nDo one of these, then try again:\n  \
         rustup target add {TARGET}\n  apt-get install -y --no-install-recommends {packages}",
        failures.join("; ")
    ))
}

/// The first way that is open, said aloud.
fn find() -> Result<Option<Toolchain>, String> {
    let libdir = process::command("rustc").args(["--print", "target-libdir", "--target", TARGET]).output();
    let libdir = libdir.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    if let Some(libdir) = libdir.and_then(|libdir| String::from_utf8(libdir).ok())
        && has_std(Path::new(libdir.trim_end()))
    {
        eprintln!("    The active toolchain has {TARGET}.");
        return Ok(Some(Toolchain::Active));
    }
    let missing: Vec<&str> =
        DEBIAN.iter().filter(|(file, _)| !Path::new(file).exists()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        let version = process::capture(debian("rustc").arg("--version"))?;
        eprintln!("    Debian's packages are there: {}, with the standard library's sources.", version.trim_end());
        return Ok(Some(Toolchain::Debian));
    }
    Ok(None)
}

/// rustc prints the folder even where nothing is in it.
fn has_std(libdir: &Path) -> bool {
    let names = fs::read_dir(libdir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.into_string().ok()).any(|name| name.starts_with("libstd-") && name.ends_with(".rlib"))
}

fn install_by_rustup() -> Result<(), String> {
    let limit = Duration::from_secs(RUSTUP_SECONDS_MAX);
    process::run_within(process::command("rustup").args(["target", "add", TARGET]), limit)
}

fn install_by_apt() -> Result<(), String> {
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err("this is not a Debian machine".into());
    }
    if process::capture(process::command("id").arg("-u"))?.trim_end() != "0" {
        return Err("apt-get needs root".into());
    }
    let apt = || {
        let mut command = process::command("/usr/bin/apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    process::run(apt().arg("update"))?;
    process::run(apt().args(["install", "-y", "--no-install-recommends"]).args(DEBIAN.map(|(_, package)| package)))
}

/// The command that compiles all workflows.
fn cargo_build(toolchain: Toolchain, workspace: &Workspace, imports: &Path) -> Command {
    let mut flags = vec![
        // A guest that declares its imports without a module name links too; a typo in a name stays an error.
        format!("-Clink-arg=--allow-undefined-file={}", imports.display()),
    ];
    let folder = workspace.workflows();
    let mut command = match toolchain {
        Toolchain::Active => {
            // Has the same effect on exports as `crt1.o` below, which rustup's target does not bring.
            flags.push("-Clink-arg=--export=__wasm_call_ctors".into());
            guest(process::cargo(&folder))
        }
        Toolchain::Debian => {
            flags.extend([
                "-Clinker=/usr/bin/wasm-ld".into(),
                "-Clinker-flavor=wasm-ld".into(),
                "-Clink-self-contained=no".into(),
                "-Lnative=/usr/lib/wasm32-wasi".into(),
                // With `crt1-command.o` every export, `allocate` too, would be wrapped in constructors and destructors.
                "-Clink-arg=/usr/lib/wasm32-wasi/crt1.o".into(),
            ]);
            let mut command = guest(debian("cargo"));
            command.current_dir(&folder).env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
            command.arg("-Zbuild-std=std,panic_abort");
            command
        }
    };
    command.args(["build", "--release", "--target", TARGET]);
    command.env("CARGO_TARGET_DIR", workspace.target.join("guest"));
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    command
}

/// A program of Debian's, kept away from the toolchain that rustup chose and from its libraries.
fn debian(program: &str) -> Command {
    let mut command = process::command(Path::new("/usr/bin").join(program));
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("LD_LIBRARY_PATH").env_remove("CARGO");
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(PathBuf::from("/usr/bin")).chain(env::split_paths(&path));
    // No folder can contain the separator: all but the first, which does not, were split at it.
    if let Ok(path) = env::join_paths(folders) {
        command.env("PATH", path);
    }
    command
}

/// Without settings of the environment that are meant for the host's own platform. `RUSTUP_TOOLCHAIN` stays: it names the
/// active toolchain, in which the target was found.
fn guest(mut command: Command) -> Command {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_for_the_host) {
            command.env_remove(name);
        }
    }
    command
}

fn is_for_the_host(name: &str) -> bool {
    let prefixes = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_UNSTABLE_"];
    let names = [
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "RUSTC",
        "RUSTC_BOOTSTRAP",
        "RUSTC_LINKER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
    ];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) || names.contains(&name)
}

/// What cargo has compiled.
fn binaries(workspace: &Workspace) -> Result<Vec<PathBuf>, String> {
    let built = workspace.target.join("guest").join(TARGET).join("release");
    let (packages, _) = workspace::metadata(&workspace.workflows())?;
    let names: BTreeSet<String> = packages.into_iter().flat_map(|package| package.binaries).collect();
    if names.is_empty() {
        return Err("no crate in workflows/ has a binary".into());
    }
    Ok(names.into_iter().map(|name| built.join(name + ".wasm")).collect())
}

/// Copies what was compiled, and removes what is no longer there to be compiled.
fn collect(workspace: &Workspace, built: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut modules = Vec::new();
    for built in built {
        let module = workspace.wasm().join(built.file_name().unwrap_or_default());
        let bytes = fs::read(built).map_err(|error| format!("{}: {error}", built.display()))?;
        write_if_changed(&module, &bytes)?;
        eprintln!("    {} ({} KiB)", module.display(), bytes.len().div_ceil(1_024));
        modules.push(module);
    }
    for entry in fs::read_dir(workspace.wasm()).into_iter().flatten().flatten() {
        let path = entry.path();
        let stale = path.extension().is_some_and(|extension| extension == "wasm") && !modules.contains(&path);
        if stale {
            fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
    }
    Ok(modules)
}

/// The names of the host's functions, out of the ABI's table: its file is read, so that this tool builds when that crate
/// does not. The table says how many there are.
fn import_names(source: &str) -> Result<Vec<&str>, String> {
    let table = source.split_once("pub const FUNCTIONS: [Import; ").and_then(|(_, rest)| rest.split_once("];"));
    let (count, rows) = table.and_then(|(table, _)| table.split_once(']')).unwrap_or_default();
    let names: Vec<&str> = rows.split('"').skip(1).step_by(2).collect();
    if names.is_empty() || count.parse() != Ok(names.len()) {
        return Err(
            "crates/abi/src/tables.rs has no table `pub const FUNCTIONS: [Import; COUNT]` with that many names: \
                    bring `import_names` in xtask/src/guests.rs up to date"
                .into(),
        );
    }
    Ok(names)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Leaves a file alone that has these bytes: what is built from it stays fresh.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<(), String> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, bytes));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_names_are_those_of_the_abi() {
        let table = read(&Workspace::find().unwrap().root.join("crates/abi/src/tables.rs")).unwrap();
        let expected = [
            "u_query_live",
            "u_query_history",
            "u_poll_handle",
            "u_free_handle",
            "u_write_event",
            "u_writeback_ws",
            "u_writeback_http",
        ];
        assert_eq!(import_names(&table).unwrap(), expected);
    }

    #[test]
    fn a_table_that_is_not_understood_is_an_error() {
        let table = "pub const FUNCTIONS: [Import; 2] = [import(A, \"a\"), import(B, \"b\")];\nconst C: &str = \"c\";";
        assert_eq!(import_names(table).unwrap(), ["a", "b"]);
        assert!(import_names(&table.replace("; 2", "; 3")).is_err());
        assert!(import_names(&table.replace("FUNCTIONS", "IMPORTS")).is_err());
        assert!(import_names("pub const FUNCTIONS: [Import; 0] = [];").is_err());
    }

    #[test]
    fn settings_for_the_host_are_told_apart() {
        for name in
            ["RUSTFLAGS", "RUSTC_WRAPPER", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "CARGO_PROFILE_RELEASE_LTO"]
        {
            assert!(is_for_the_host(name), "{name}");
        }
        for name in ["PATH", "CARGO_HOME", "RUSTUP_TOOLCHAIN", "CARGO_NET_OFFLINE"] {
            assert!(!is_for_the_host(name), "{name}");
        }
    }
}
