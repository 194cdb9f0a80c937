//! What the server is told: `slung.toml`, and the flags that override it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::cli::ServeArgs;

/// Longest name of a workflow, bytes: it is a label in logs and metrics.
const WORKFLOW_NAME_BYTES_MAX: usize = 64;

/// Everything that `slung serve` needs to know.
#[derive(Debug, PartialEq)]
pub(crate) struct Config {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// Where the data is.
    pub(crate) data: PathBuf,
    /// What workflows may call beyond public addresses on ports 80 and 443.
    pub(crate) allow_hosts: Vec<String>,
    /// The workflows to run, by name.
    pub(crate) workflows: BTreeMap<String, WorkflowConfig>,
}

/// One workflow.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkflowConfig {
    /// The module; relative to the configuration file's directory where it stands there.
    pub(crate) file: PathBuf,
    /// Its environment variables.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 2077)),
            data: "slung-data".into(),
            allow_hosts: Vec::new(),
            workflows: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    data: Option<PathBuf>,
    #[serde(default)]
    allow_hosts: Vec<String>,
    #[serde(default)]
    workflows: BTreeMap<String, WorkflowConfig>,
}

impl Config {
    /// Reads the file that the flags name, if any, and lets the flags override it.
    pub(crate) fn load(args: &ServeArgs) -> anyhow::Result<Self> {
        let file = match &args.config {
            Some(path) => read(path).with_context(|| format!("configuration file {}", path.display()))?,
            None => File::default(),
        };
        let default = Self::default();
        let mut config = Self {
            listen: args.listen.or(file.listen).unwrap_or(default.listen),
            data: args.data.clone().or(file.data).unwrap_or(default.data),
            allow_hosts: file.allow_hosts,
            workflows: file.workflows,
        };
        config.allow_hosts.extend_from_slice(&args.allow_hosts);
        for (index, (name, file)) in args.workflows.iter().enumerate() {
            if args.workflows[..index].iter().any(|(other, _)| other == name) {
                bail!("--workflow {name} is given twice");
            }
            // A file's environment stays: the flag replaces the module, as when a new build is tried.
            let env = config.workflows.remove(name).map(|workflow| workflow.env).unwrap_or_default();
            config.workflows.insert(name.clone(), WorkflowConfig { file: file.clone(), env });
        }
        for name in config.workflows.keys() {
            let word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            if !word || name.is_empty() || name.len() > WORKFLOW_NAME_BYTES_MAX {
                bail!("{name:?} is no workflow name: 1 to {WORKFLOW_NAME_BYTES_MAX} of A-Z a-z 0-9 - _ . are");
            }
        }
        Ok(config)
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path)?;
    let mut file: File = toml::from_str(&text)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    for workflow in file.workflows.values_mut() {
        workflow.file = folder.join(&workflow.file);
    }
    file.data = file.data.map(|data| folder.join(data));
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, args: ServeArgs) -> anyhow::Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slung.toml");
        std::fs::write(&path, text).unwrap();
        let mut config = Config::load(&ServeArgs { config: Some(path), ..args })?;
        // So that expectations need not know the folder.
        let relative = |path: &mut PathBuf| {
            if let Ok(rest) = path.strip_prefix(folder.path()) {
                *path = rest.into();
            }
        };
        relative(&mut config.data);
        config.workflows.values_mut().for_each(|workflow| relative(&mut workflow.file));
        Ok(config)
    }

    #[test]
    fn nothing_said_gives_the_defaults() {
        assert_eq!(Config::load(&ServeArgs::default()).unwrap(), Config::default());
        assert_eq!(load("", ServeArgs::default()).unwrap(), Config::default());
    }

    #[test]
    fn flags_override_the_file_and_paths_are_relative_to_it() {
        let text = r#"
            listen = "127.0.0.1:9"
            data = "here"
            allow_hosts = ["localhost:9000"]
            [workflows.alert]
            file = "alert.wasm"
            env = { ALERT_BELOW = "60" }
        "#;
        let config = load(text, ServeArgs::default()).unwrap();
        assert_eq!(config.listen.port(), 9);
        assert_eq!(config.data, PathBuf::from("here"));
        assert_eq!(config.workflows["alert"].file, PathBuf::from("alert.wasm"));

        let flags = ServeArgs {
            listen: Some("127.0.0.1:10".parse().unwrap()),
            allow_hosts: vec!["10.0.0.0/8".to_owned()],
            workflows: vec![("alert".to_owned(), "new.wasm".into())],
            ..ServeArgs::default()
        };
        let config = load(text, flags).unwrap();
        assert_eq!(config.listen.port(), 10);
        assert_eq!(config.allow_hosts, ["localhost:9000", "10.0.0.0/8"]);
        assert_eq!(config.workflows["alert"].file, PathBuf::from("new.wasm"));
        assert_eq!(config.workflows["alert"].env["ALERT_BELOW"], "60");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let error = |text| format!("{:#}", load(text, ServeArgs::default()).unwrap_err());
        let unknown = error("listen = \"127.0.0.1:9\"\nlisten_on = 3");
        assert!(unknown.contains("line 2") && unknown.contains("listen_on"), "{unknown}");
        assert!(error("[workflows.a]\nenv = {}").contains("file"));
        assert!(error("[workflows.\"a b\"]\nfile = \"x\"").contains("\"a b\" is no workflow name"));
        let twice = ServeArgs {
            workflows: vec![("a".to_owned(), "x".into()), ("a".to_owned(), "y".into())],
            ..ServeArgs::default()
        };
        assert!(Config::load(&twice).unwrap_err().to_string().contains("given twice"));
    }

    #[test]
    fn the_book_names_every_key_and_every_command() {
        use clap::CommandFactory;
        let book = include_str!("../../../docs/getting-started.md");
        let example = book.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
        let File { listen, data, allow_hosts, workflows } = toml::from_str(example).unwrap();
        assert!(listen.is_some() && data.is_some() && !allow_hosts.is_empty());
        assert!(workflows.values().all(|workflow| !workflow.env.is_empty()) && !workflows.is_empty());
        for command in crate::cli::Cli::command().get_subcommands() {
            let row = format!("| `slung {}", command.get_name());
            assert!(book.contains(&row), "the table of commands has no row that starts with {row}");
        }
    }
}
