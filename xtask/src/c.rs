//! Workflows in C: each file `workflows/c/NAME.c`, compiled by clang to `NAME-c.wasm`, where clang is there.

use std::fs;
use std::path::{Path, PathBuf};

use crate::process;
use crate::workspace::Workspace;

/// What has to be there, and the package of Debian's that brings it.
const DEBIAN: [(&str, &str); 4] = [
    ("/usr/bin/clang", "clang"),
    ("/usr/bin/wasm-ld", "lld"),
    ("/usr/lib/wasm32-wasi/crt1-reactor.o", "wasi-libc"),
    // Where exactly it is depends on the version of clang, which knows.
    ("libclang_rt.builtins-wasm32.a", "libclang-rt-dev-wasm32"),
];

/// How the page on other languages and the header say that a workflow is built; beside that, warnings are errors.
const FLAGS: [&str; 5] = ["--target=wasm32-wasi", "--sysroot=/usr", "-mexec-model=reactor", "-O2", "-Wl,--stack-first"];
const STRICT: [&str; 7] = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror"];

/// Compiles every workflow in C to that folder; answers the modules, none where something is missing, which it then says.
///
/// # Errors
/// Something does not compile.
pub(crate) fn compile(workspace: &Workspace, built: &Path) -> Result<Vec<PathBuf>, String> {
    let missing: Vec<&str> = DEBIAN.iter().filter(|(file, _)| !is_there(file)).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        eprintln!("    No workflow in C: of Debian's packages {} is missing.", missing.join(", "));
        return Ok(Vec::new());
    }
    let folder = workspace.workflows().join("c");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    fs::create_dir_all(built).map_err(|error| format!("{}: {error}", built.display()))?;
    let mut modules = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_stem().filter(|_| path.extension().is_some_and(|extension| extension == "c")) else {
            continue;
        };
        let module = built.join(format!("{}-c.wasm", name.to_string_lossy()));
        let mut clang = process::command("/usr/bin/clang");
        process::run(clang.args(FLAGS).args(STRICT).arg("-Wl,--strip-all").arg("-o").arg(&module).arg(&path))?;
        modules.push(module);
    }
    // The header says that it is for C++ as well.
    let mut clang = process::command("/usr/bin/clang");
    clang.args(FLAGS).args(["-fsyntax-only", "-x", "c++", "-std=c++11", "-Wall", "-Wextra", "-Werror"]);
    clang.args(["-Wno-unused-function", "-Wno-unused-command-line-argument", "-DSLUNG_IMPLEMENTATION"]);
    process::run(clang.arg(folder.join("slung.h")))?;
    Ok(modules)
}

fn is_there(file: &str) -> bool {
    if file.starts_with('/') {
        return Path::new(file).exists();
    }
    let asked = process::capture(process::command("/usr/bin/clang").args(FLAGS).arg("--print-libgcc-file-name"));
    asked.is_ok_and(|path| path.trim_end().ends_with(file) && Path::new(path.trim_end()).exists())
}
