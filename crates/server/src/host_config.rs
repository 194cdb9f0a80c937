//! The section `[host]` of the configuration: what holds for all workflows.

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{anyhow, bail};
use serde::Deserialize;
use slung_host::{DeployOptions, HostOptions};

use crate::config::{Size, duration};
use crate::try_out::CompileLimits;

/// How workflows are compiled, run and deployed.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct HostConfig {
    /// Of the host.
    pub(crate) host: HostOptions,
    /// Of compiling in a process of its own.
    pub(crate) compile: CompileLimits,
    /// Of deploying.
    pub(crate) deploy: DeployOptions,
}

/// The section, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostFile {
    worker_threads: Option<NonZeroUsize>,
    /// A size.
    memory_max: Option<Size>,
    /// A size.
    stack_max: Option<Size>,
    table_elements_max: Option<NonZeroUsize>,
    handles_max: Option<NonZeroUsize>,
    log_lines_max: Option<NonZeroUsize>,
    /// A size.
    log_max: Option<Size>,
    /// A size.
    log_line_max: Option<Size>,
    /// A length of time, as all of the timeouts.
    compile_timeout: Option<String>,
    /// A size.
    compile_memory_max: Option<Size>,
    first_poll_timeout: Option<String>,
    handover_timeout: Option<String>,
    versions_max: Option<NonZeroUsize>,
}

/// A page of linear memory: with less there is no workflow.
pub(crate) const MEMORY_BYTES_MIN: u64 = 64 << 10;
/// As the host has it.
const STACK_BYTES_MIN: u64 = 16 << 10;
/// Below it not even the server's own code fits.
const COMPILE_BYTES_MIN: u64 = 128 << 20;

impl HostFile {
    /// Checks every key; errors name it with its value.
    pub(crate) fn config(&self) -> anyhow::Result<HostConfig> {
        let mut config = HostConfig::default();
        let HostConfig { host, compile, deploy } = &mut config;
        host.worker_threads = self.worker_threads.unwrap_or(host.worker_threads);
        let numbers = [
            (&self.table_elements_max, &mut host.table_elements_max),
            (&self.handles_max, &mut host.handles_max),
            (&self.log_lines_max, &mut host.log_lines_max),
            (&self.versions_max, &mut deploy.versions_max),
        ];
        for (given, option) in numbers {
            *option = given.map_or(*option, NonZeroUsize::get);
        }
        let sizes = [
            ("memory_max", &self.memory_max, MEMORY_BYTES_MIN, &mut host.memory_bytes_max),
            ("stack_max", &self.stack_max, STACK_BYTES_MIN, &mut host.wasm_stack_bytes_max),
            ("log_max", &self.log_max, 1, &mut host.log_bytes_max),
            ("log_line_max", &self.log_line_max, 1, &mut host.log_line_bytes_max),
            ("compile_memory_max", &self.compile_memory_max, COMPILE_BYTES_MIN, &mut compile.bytes_max),
        ];
        for (key, given, least, option) in sizes {
            if let Some(size) = given {
                let key = format!("host.{key}");
                let bytes = size.bytes(&key, least)?;
                *option = usize::try_from(bytes).map_err(|_| anyhow!("{key} = {bytes}: more than there can be"))?;
            }
        }
        let times = [
            ("compile_timeout", &self.compile_timeout, &mut compile.timeout),
            ("first_poll_timeout", &self.first_poll_timeout, &mut deploy.first_poll_timeout),
            ("handover_timeout", &self.handover_timeout, &mut deploy.drain_timeout),
        ];
        for (key, given, option) in times {
            if let Some(text) = given {
                let micros = duration(&format!("host.{key}"), text)?;
                *option = Duration::from_micros(u64::try_from(micros).unwrap_or_default());
                if option.is_zero() {
                    bail!("host.{key} = {text:?}: more than nothing");
                }
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<HostConfig, String> {
        let file: HostFile = toml::from_str(text).map_err(|error| error.to_string())?;
        file.config().map_err(|error| error.to_string())
    }

    #[test]
    fn limits_of_the_host_are_read_and_checked() {
        assert_eq!(config(""), Ok(HostConfig::default()));
        let text = "memory_max = \"1MiB\"\nhandover_timeout = \"5s\"\nversions_max = 3\ncompile_memory_max = \"1GiB\"";
        let mut expected = HostConfig::default();
        expected.host.memory_bytes_max = 1 << 20;
        expected.deploy.drain_timeout = Duration::from_secs(5);
        expected.deploy.versions_max = 3;
        expected.compile.bytes_max = 1 << 30;
        assert_eq!(config(text), Ok(expected));
        for (line, expected) in [
            ("memory_max = \"1kB\"", "host.memory_max = \"1kB\": at least 65536 bytes"),
            ("compile_memory_max = 5", "host.compile_memory_max = 5: at least"),
            ("compile_timeout = \"3\"", "host.compile_timeout = \"3\": expected an amount"),
            ("versions_max = 0", "nonzero"),
            ("memory = 5", "unknown field `memory`"),
        ] {
            let error = config(line).unwrap_err();
            assert!(error.contains(expected), "{line} gives {error}");
        }
    }

    #[test]
    fn the_book_names_every_key_with_its_default() {
        let book = include_str!("../../../docs/getting-started.md");
        let section = book.split("\n[host]\n").nth(1).and_then(|rest| rest.split("\n[").next()).expect("the section");
        let section = section.split("```").next().unwrap();
        // Serde names the keys that it knows.
        let error = toml::from_str::<HostFile>("x = 5").unwrap_err().to_string();
        for key in error.split('`').skip(3).step_by(2) {
            assert!(section.contains(&format!("\n{key} = ")), "{key}");
        }
        // Each machine has its own number of threads.
        let lines: Vec<_> = section.lines().filter(|line| !line.starts_with("worker_threads")).collect();
        assert_eq!(config(&lines.join("\n")), Ok(HostConfig::default()));
    }
}
