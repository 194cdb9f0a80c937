//! What the configuration says of one workflow: what it may use, whom it may call, its environment, its secrets.

use std::collections::BTreeMap;
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use serde::Deserialize;
use slung_host::StartOptions;
use slung_net::AllowRule;

use crate::config::Size;
use crate::host_config::MEMORY_BYTES_MIN;

/// The section `[workflows.NAME]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WorkflowConfig {
    /// The module; relative to the configuration file's directory where it stands there. Without one the section says how a
    /// workflow of that name runs that is deployed.
    pub(crate) file: Option<PathBuf>,
    /// Its environment variables; they go before those that it is deployed with.
    pub(crate) env: BTreeMap<String, String>,
    /// Environment variables whose values stand elsewhere. They are read when the workflow is started, and never shown.
    pub(crate) secrets: BTreeMap<String, SecretFrom>,
    /// Linear memory that it may have, a size; `None` for what `[host]` says, which is the most.
    pub(crate) memory_max: Option<Size>,
    /// Live queries that it may have at a time; `None` for what `[host]` says, which is the most.
    pub(crate) handles_max: Option<NonZeroUsize>,
    /// Events that it may write in a second; more are refused to it.
    pub(crate) writes_per_second_max: NonZeroU32,
    /// HTTP requests that it may make in a second; more are refused to it.
    pub(crate) http_calls_per_second_max: NonZeroU32,
    /// Bytes that it may print in a second; more are left out of the log.
    pub(crate) log_bytes_per_second_max: NonZeroU32,
    /// How long it may compute without calling a host function, milliseconds; it is ended then.
    pub(crate) compute_ms_max: NonZeroU32,
    /// Its share of one processor, percent; it is paused when it is over it.
    pub(crate) processor_share_max: NonZeroU8,
    /// Host functions that it may call in a second; it is paused when it calls more.
    pub(crate) host_calls_per_second_max: NonZeroU32,
    /// How long a host function may take, milliseconds; the call fails then.
    pub(crate) host_call_ms_max: NonZeroU32,
    /// Updates that may wait for each of its live queries; `None` for as many as elsewhere.
    pub(crate) queue_updates_max: Option<NonZeroUsize>,
    /// Whether it may answer producers of which it has seen no event.
    pub(crate) answers_anybody: bool,
    /// As [`Config::allow_hosts`](crate::config::Config::allow_hosts), in the place of it.
    pub(crate) allow_hosts: Option<Vec<String>>,
    /// As [`Config::allow_public`](crate::config::Config::allow_public), in the place of it.
    pub(crate) allow_public: Option<bool>,
}

/// Where a secret stands.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SecretFrom {
    /// In a file, but for an end of line at its end; relative to the configuration file's directory.
    File(PathBuf),
    /// In that variable of the server's own environment.
    Env(String),
}

impl Default for WorkflowConfig {
    fn default() -> Self {
        let default = StartOptions::default();
        Self {
            file: None,
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            memory_max: None,
            handles_max: None,
            writes_per_second_max: default.writes_per_second_max,
            http_calls_per_second_max: default.http_calls_per_second_max,
            log_bytes_per_second_max: default.log_bytes_per_second_max,
            compute_ms_max: default.compute_ms_max,
            processor_share_max: default.processor_share_max,
            host_calls_per_second_max: default.host_calls_per_second_max,
            host_call_ms_max: default.host_call_ms_max,
            queue_updates_max: None,
            answers_anybody: false,
            allow_hosts: None,
            allow_public: None,
        }
    }
}

impl WorkflowConfig {
    /// That module, and everything else as by default.
    #[cfg(test)]
    pub(crate) fn of(file: impl Into<PathBuf>) -> Self {
        Self { file: Some(file.into()), ..Self::default() }
    }

    /// Relative paths are meant from there.
    pub(crate) fn start_from(&mut self, folder: &Path) {
        let secrets = self.secrets.values_mut().filter_map(|secret| match secret {
            SecretFrom::File(path) => Some(path),
            SecretFrom::Env(_) => None,
        });
        for path in self.file.iter_mut().chain(secrets) {
            *path = folder.join(&*path);
        }
    }

    /// What can be wrong before it is used.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.allow_rules()?;
        self.memory_bytes_max()?;
        let share = self.processor_share_max;
        if share.get() > 100 {
            return Err(anyhow!("processor_share_max = {share}: from 1 to 100 percent of a processor"));
        }
        match self.secrets.keys().find(|name| self.env.contains_key(*name)) {
            Some(twice) => Err(anyhow!("{twice} is in `env` and in `secrets`")),
            None => Ok(()),
        }
    }

    /// The rules of `allow_hosts`, if it is there.
    pub(crate) fn allow_rules(&self) -> anyhow::Result<Option<Vec<AllowRule>>> {
        let Some(hosts) = &self.allow_hosts else { return Ok(None) };
        let rules = hosts.iter().map(|rule| rule.parse()).collect::<Result<_, _>>();
        Ok(Some(rules.context("allow_hosts")?))
    }

    fn memory_bytes_max(&self) -> anyhow::Result<Option<usize>> {
        let Some(size) = &self.memory_max else { return Ok(None) };
        let bytes = size.bytes("memory_max", MEMORY_BYTES_MIN)?;
        Ok(Some(usize::try_from(bytes).map_err(|_| anyhow!("memory_max = {bytes}: more than there can be"))?))
    }

    /// How a workflow of that name is started that was deployed with that environment.
    ///
    /// # Errors
    /// A secret is not where it should be.
    pub(crate) fn start_options(
        &self,
        name: &str,
        deployed: &BTreeMap<String, String>,
    ) -> Result<StartOptions, String> {
        let mut env = deployed.clone();
        env.extend(self.env.clone());
        for (variable, from) in &self.secrets {
            env.insert(variable.clone(), from.read().map_err(|why| format!("the secret {variable}: {why}"))?);
        }
        let &Self {
            writes_per_second_max,
            http_calls_per_second_max,
            log_bytes_per_second_max,
            compute_ms_max,
            processor_share_max,
            host_calls_per_second_max,
            host_call_ms_max,
            ..
        } = self;
        Ok(StartOptions {
            name: name.to_owned(),
            args: vec![name.to_owned()],
            env: env.into_iter().collect(),
            memory_bytes_max: self.memory_bytes_max().map_err(|error| error.to_string())?,
            handles_max: self.handles_max.map(NonZeroUsize::get),
            writes_per_second_max,
            http_calls_per_second_max,
            log_bytes_per_second_max,
            compute_ms_max,
            processor_share_max,
            host_calls_per_second_max,
            host_call_ms_max,
        })
    }
}

impl SecretFrom {
    /// The secret. Errors say where it should be, and never what it is.
    fn read(&self) -> Result<String, String> {
        let (secret, place) = match self {
            Self::File(path) => {
                let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
                let text = String::from_utf8(text).map_err(|_| format!("{}: it is not UTF-8", path.display()))?;
                let text =
                    text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
                (text.to_owned(), path.display().to_string())
            }
            Self::Env(name) => {
                let text = std::env::var(name).map_err(|_| format!("the server has no environment variable {name}"))?;
                (text, name.clone())
            }
        };
        match secret.as_str() {
            "" => Err(format!("{place}: it is empty")),
            text if text.contains('\0') => Err(format!("{place}: it has a NUL in it")),
            _ => Ok(secret),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_files_and_the_environment_and_are_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "s3cret\r\n").unwrap();
        let text = r#"
            env = { A = "configured", B = "configured" }
            [secrets]
            TOKEN = { file = "token" }
            HOME_OF = { env = "PATH" }
        "#;
        let mut config: WorkflowConfig = toml::from_str(text).unwrap();
        config.start_from(folder.path());
        config.check().unwrap();
        let deployed =
            BTreeMap::from([("A", "deployed"), ("C", "deployed")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        let options = config.start_options("alert", &deployed).unwrap();
        let value = |name: &str| options.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!((value("A"), value("B"), value("C")), (Some("configured"), Some("configured"), Some("deployed")));
        assert_eq!(value("TOKEN"), Some("s3cret"));
        assert_eq!(value("HOME_OF"), std::env::var("PATH").ok().as_deref());
        assert!(!format!("{config:?}").contains("s3cret"));

        for (contents, expected) in [
            (Some(&b""[..]), "token: it is empty"),
            (Some(b"\n"), "token: it is empty"),
            (Some(b"a\0b"), "a NUL"),
            (Some(b"\xff"), "not UTF-8"),
            (None, "No such file"),
        ] {
            let path = folder.path().join("token");
            match contents {
                Some(contents) => std::fs::write(path, contents).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
            let why = config.start_options("alert", &deployed).unwrap_err();
            assert!(why.starts_with("the secret TOKEN: ") && why.contains(expected), "{why}");
        }
    }

    #[test]
    fn what_is_wrong_is_found_before_it_is_used() {
        let check = |text: &str| toml::from_str::<WorkflowConfig>(text).unwrap().check().map_err(|e| format!("{e:#}"));
        assert_eq!(check("allow_hosts = [\"localhost:9000\"]\nallow_public = false"), Ok(()));
        assert!(check("allow_hosts = [\"http://x\"]").unwrap_err().contains("allow_hosts"));
        assert_eq!(check("processor_share_max = 100"), Ok(()));
        assert_eq!(
            check("processor_share_max = 101"),
            Err("processor_share_max = 101: from 1 to 100 percent of a processor".to_owned())
        );
        let twice = check("env = { A = \"1\" }\nsecrets = { A = { env = \"A\" } }").unwrap_err();
        assert_eq!(twice, "A is in `env` and in `secrets`");
        assert!(toml::from_str::<WorkflowConfig>("secrets = { A = \"plain\" }").is_err(), "a secret never stands here");
    }
}
