//! Where things are, and what the packages are: read from `cargo metadata`.

use std::env;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::process;

/// The project's folders.
pub(crate) struct Workspace {
    /// Where the root `Cargo.toml` is.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
    /// Members of the root workspace.
    pub(crate) packages: Vec<Package>,
}

/// A package, as its manifest declares it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Names of its binaries.
    pub(crate) binaries: Vec<String>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency, as declared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// The package's own name, whatever it is imported as.
    pub(crate) name: String,
    /// Only for tests, examples and benches.
    pub(crate) dev: bool,
    /// The platforms that it is for; `None`: all.
    pub(crate) target: Option<String>,
}

impl Workspace {
    /// The workspace that this tool belongs to.
    ///
    /// # Errors
    /// Where cargo can't read a manifest.
    pub(crate) fn find() -> Result<Self, String> {
        // `cargo run` says where the package is now; the folder at compile time is for a binary that is run by hand.
        let own = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = own.parent().ok_or("xtask has no folder above it")?.to_owned();
        let (packages, target) = metadata(&root)?;
        Ok(Self { root, target, packages })
    }

    /// Where the workflows' sources are: a workspace of its own.
    pub(crate) fn workflows(&self) -> PathBuf {
        self.root.join("workflows")
    }

    /// Where the compiled workflows go.
    pub(crate) fn wasm(&self) -> PathBuf {
        self.target.join("workflows")
    }

    /// The binary `slung`, as `cargo build` leaves it.
    pub(crate) fn slung(&self) -> PathBuf {
        self.target.join("debug").join(format!("slung{}", env::consts::EXE_SUFFIX))
    }
}

/// The packages of the workspace in a folder, and where it builds. Needs no network: nothing is resolved.
///
/// # Errors
/// Where cargo can't read a manifest, or says something that was not expected.
pub(crate) fn metadata(folder: &Path) -> Result<(Vec<Package>, PathBuf), String> {
    let text =
        process::capture(process::cargo(folder).args(["metadata", "--no-deps", "--offline", "--format-version", "1"]))?;
    parse(&text).ok_or_else(|| "`cargo metadata` printed something that this tool does not understand".into())
}

fn parse(text: &str) -> Option<(Vec<Package>, PathBuf)> {
    let value: Value = serde_json::from_str(text).ok()?;
    let packages = value["packages"].as_array()?.iter().map(package).collect::<Option<_>>()?;
    Some((packages, value["target_directory"].as_str()?.into()))
}

fn package(value: &Value) -> Option<Package> {
    let binaries = value["targets"].as_array()?.iter().filter(|target| target["kind"][0] == "bin");
    let dependencies = value["dependencies"].as_array()?.iter().map(|dependency| {
        Some(Dependency {
            name: dependency["name"].as_str()?.to_owned(),
            dev: dependency["kind"] == "dev",
            target: dependency["target"].as_str().map(str::to_owned),
        })
    });
    Some(Package {
        name: value["name"].as_str()?.to_owned(),
        folder: Path::new(value["manifest_path"].as_str()?).parent()?.to_owned(),
        binaries: binaries.map(|target| target["name"].as_str().map(str::to_owned)).collect::<Option<_>>()?,
        dependencies: dependencies.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_understood() {
        let text = r#"{"packages":[{"name":"slung-net","manifest_path":"/r/crates/net/Cargo.toml",
            "targets":[{"kind":["lib"],"name":"slung_net"},{"kind":["bin"],"name":"probe"}],
            "dependencies":[
                {"name":"slung-model","kind":null,"target":null,"rename":"model"},
                {"name":"wat","kind":"dev","target":"cfg(unix)","rename":null}]}],
            "target_directory":"/r/target"}"#;
        let (packages, target) = parse(text).unwrap();
        assert_eq!(target, Path::new("/r/target"));
        let model = Dependency { name: "slung-model".into(), dev: false, target: None };
        let wat = Dependency { name: "wat".into(), dev: true, target: Some("cfg(unix)".into()) };
        let expected = Package {
            name: "slung-net".into(),
            folder: "/r/crates/net".into(),
            binaries: vec!["probe".into()],
            dependencies: vec![model, wat],
        };
        assert_eq!(packages, [expected]);
        assert_eq!(parse(r#"{"packages":[{"name":7}],"target_directory":"/r"}"#), None);
    }

    #[test]
    fn this_workspace_is_found() {
        let workspace = Workspace::find().unwrap();
        assert!(workspace.packages.iter().any(|package| package.name == "xtask"));
        assert!(workspace.root.join("Cargo.lock").is_file());
    }
}
