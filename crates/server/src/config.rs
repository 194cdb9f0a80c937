//! What the server is told: `slung.toml`, and the flags that override it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use slung_net::{IN_FLIGHT_BYTES_MAX, QUEUE_BYTES_MAX, ServerOptions};

use crate::cli::ServeArgs;
use crate::host_config::{HostConfig, HostFile};
use crate::workflow_config::WorkflowConfig;

/// Everything that `slung serve` needs to know.
#[derive(Debug, PartialEq)]
pub(crate) struct Config {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// Where the data is.
    pub(crate) data: PathBuf,
    /// What workflows may call beside public addresses on ports 80 and 443.
    pub(crate) allow_hosts: Vec<String>,
    /// Whether they may call those without a rule in `allow_hosts`.
    pub(crate) allow_public: bool,
    /// What is said of workflows, by name: those to run that have a file, and of others how they run once they are deployed.
    pub(crate) workflows: BTreeMap<String, WorkflowConfig>,
    /// How the history is kept.
    pub(crate) store: slung_store::Options,
    /// What live queries may keep.
    pub(crate) live: slung_live::Options,
    /// What those who connect may do.
    pub(crate) network: NetworkConfig,
    /// How workflows are compiled, run and deployed.
    pub(crate) host: HostConfig,
}

/// The limits of everything on a socket.
#[derive(Debug, PartialEq)]
pub(crate) struct NetworkConfig {
    /// Of the connections.
    pub(crate) server: ServerOptions,
    /// What may wait for one producer, bytes.
    pub(crate) queue_bytes_max: usize,
    /// What everything in flight may take, bytes.
    pub(crate) in_flight_bytes_max: usize,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        let (queue_bytes_max, in_flight_bytes_max) = (QUEUE_BYTES_MAX, IN_FLIGHT_BYTES_MAX);
        Self { server: ServerOptions::default(), queue_bytes_max, in_flight_bytes_max }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 2077)),
            data: "slung-data".into(),
            allow_hosts: Vec::new(),
            allow_public: true,
            workflows: BTreeMap::new(),
            store: slung_store::Options::default(),
            live: slung_live::Options::default(),
            network: NetworkConfig::default(),
            host: HostConfig::default(),
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
    allow_public: Option<bool>,
    #[serde(default)]
    workflows: BTreeMap<String, WorkflowConfig>,
    #[serde(default)]
    store: StoreFile,
    #[serde(default)]
    live: LiveFile,
    #[serde(default)]
    network: NetworkFile,
    #[serde(default)]
    host: HostFile,
}

/// The section `[network]`, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkFile {
    connections_max: Option<NonZeroUsize>,
    connections_per_address_max: Option<NonZeroUsize>,
    /// A length of time, as all of the timeouts.
    header_timeout: Option<String>,
    /// A size.
    header_max: Option<Size>,
    header_fields_max: Option<NonZeroUsize>,
    /// A size.
    body_max: Option<Size>,
    /// A size.
    module_max: Option<Size>,
    body_timeout: Option<String>,
    write_timeout: Option<String>,
    queries_max: Option<NonZeroUsize>,
    /// A size.
    message_max: Option<Size>,
    /// A size.
    v1_message_max: Option<Size>,
    v1_window: Option<NonZeroU32>,
    idle_timeout: Option<String>,
    slow_reader_timeout: Option<String>,
    drain_timeout: Option<String>,
    live_streams_max: Option<NonZeroUsize>,
    /// A size.
    key_cache_max: Option<Size>,
    /// A size.
    queue_max: Option<Size>,
    /// A size.
    in_flight_max: Option<Size>,
}

/// The longest event there may be fits into a message of so many bytes, and with it all that the limits of a key allow.
const MESSAGE_BYTES_MIN: u64 = 1 << 10;
/// hyper needs it.
const HEADER_BYTES_MIN: u64 = 1 << 10;
/// Below it a single long message would not fit.
const IN_FLIGHT_BYTES_MIN: u64 = 1 << 20;

impl NetworkFile {
    /// Checks every key; errors name it with its value.
    fn config(&self) -> anyhow::Result<NetworkConfig> {
        let mut config = NetworkConfig::default();
        let server = &mut config.server;
        let numbers = [
            (&self.connections_max, &mut server.connections_max),
            (&self.connections_per_address_max, &mut server.connections_per_address_max),
            (&self.header_fields_max, &mut server.header_fields_max),
            (&self.queries_max, &mut server.queries_max),
            (&self.live_streams_max, &mut server.live_streams_max),
        ];
        for (given, option) in numbers {
            *option = given.map_or(*option, NonZeroUsize::get);
        }
        server.v1_window = self.v1_window.map_or(server.v1_window, NonZeroU32::get);
        let times = [
            ("header_timeout", &self.header_timeout, &mut server.header_timeout),
            ("body_timeout", &self.body_timeout, &mut server.body_timeout),
            ("write_timeout", &self.write_timeout, &mut server.write_timeout),
            ("idle_timeout", &self.idle_timeout, &mut server.idle_timeout),
            ("slow_reader_timeout", &self.slow_reader_timeout, &mut server.slow_reader_timeout),
            ("drain_timeout", &self.drain_timeout, &mut server.drain_timeout),
        ];
        for (key, given, option) in times {
            if let Some(text) = given {
                let micros = duration(&format!("network.{key}"), text)?;
                *option = Duration::from_micros(u64::try_from(micros).unwrap_or_default());
                if option.is_zero() {
                    bail!("network.{key} = {text:?}: more than nothing");
                }
            }
        }
        let sizes = [
            ("header_max", &self.header_max, HEADER_BYTES_MIN, &mut server.header_bytes_max),
            ("body_max", &self.body_max, 1, &mut server.body_bytes_max),
            ("module_max", &self.module_max, 1, &mut server.module_bytes_max),
            ("message_max", &self.message_max, MESSAGE_BYTES_MIN, &mut server.message_bytes_max),
            ("v1_message_max", &self.v1_message_max, MESSAGE_BYTES_MIN, &mut server.v1_message_bytes_max),
            ("key_cache_max", &self.key_cache_max, 0, &mut server.key_cache_bytes_max),
            ("queue_max", &self.queue_max, MESSAGE_BYTES_MIN, &mut config.queue_bytes_max),
            ("in_flight_max", &self.in_flight_max, IN_FLIGHT_BYTES_MIN, &mut config.in_flight_bytes_max),
        ];
        for (key, given, least, option) in sizes {
            if let Some(size) = given {
                let key = format!("network.{key}");
                let bytes = size.bytes(&key, least)?;
                *option = usize::try_from(bytes).map_err(|_| anyhow!("{key} = {bytes}: more than there can be"))?;
            }
        }
        Ok(config)
    }
}

/// The section `[live]`, as it is written; the names are those that the errors of a live query give.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LiveFile {
    window_points_max: Option<NonZeroUsize>,
    /// A size.
    windows_bytes_max: Option<Size>,
    handles_max: Option<NonZeroUsize>,
}

impl LiveFile {
    /// Checks every key; errors name it with its value.
    fn options(&self) -> anyhow::Result<slung_live::Options> {
        let mut options = slung_live::Options::default();
        if let Some(points) = self.window_points_max {
            options.window_points_max = points.get();
        }
        if let Some(size) = &self.windows_bytes_max {
            let bytes = size.bytes("live.windows_bytes_max", WINDOWS_BYTES_MIN)?;
            options.windows_bytes_max = usize::try_from(bytes)
                .map_err(|_| anyhow!("live.windows_bytes_max = {bytes}: more than there can be"))?;
        }
        if let Some(handles) = self.handles_max {
            options.handles_max = handles.get();
        }
        Ok(options)
    }
}

/// Below it a few windows of panes would be all.
const WINDOWS_BYTES_MIN: u64 = 1 << 20;

/// The section `[store]`, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreFile {
    /// A length of time.
    retention: Option<String>,
    /// A size, as the ones below.
    disk_max: Option<Size>,
    memtable: Option<Size>,
    log_file: Option<Size>,
    /// A length of time.
    partition: Option<String>,
    series_max: Option<NonZeroU32>,
}

/// A number of bytes, as it is written.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Size {
    /// As a number.
    Bytes(i64),
    /// With a unit, perhaps.
    Text(String),
}

/// Smaller ones would be more files than points.
const LOG_FILE_BYTES_MIN: u64 = 64 << 10;

impl StoreFile {
    /// Checks every key; errors name it with its value.
    fn options(&self) -> anyhow::Result<slung_store::Options> {
        let mut options = slung_store::Options::default();
        if let Some(text) = &self.retention {
            options.retention_micros = Some(duration("store.retention", text)?);
        }
        if let Some(text) = &self.partition {
            options.partition_micros = duration("store.partition", text)?;
        }
        if let Some(series) = self.series_max {
            options.series_max = series.get();
        }
        if let Some(size) = &self.disk_max {
            options.disk_bytes_max = Some(size.bytes("store.disk_max", 1)?);
        }
        if let Some(size) = &self.log_file {
            options.log_file_bytes_max = size.bytes("store.log_file", LOG_FILE_BYTES_MIN)?;
        }
        if let Some(size) = &self.memtable {
            let bytes = size.bytes("store.memtable", MEMTABLE_BYTES_MIN)?;
            options.memtable_bytes_max =
                usize::try_from(bytes).map_err(|_| anyhow!("store.memtable = {bytes}: more than there can be"))?;
        }
        if options.partition_micros < PARTITION_MICROS_MIN {
            bail!("store.partition = {:?}: at least an hour", self.partition.as_deref().unwrap_or_default());
        }
        Ok(options)
    }
}

/// Below it every few thousand events would be a segment of their own.
const MEMTABLE_BYTES_MIN: u64 = 256 << 10;
/// Below it there would be thousands of partitions a year, each with a segment at least.
const PARTITION_MICROS_MIN: i64 = 3600 * 1_000_000;

pub(crate) fn duration(key: &str, text: &str) -> anyhow::Result<i64> {
    slung_model::duration_micros(text).map_err(|error| anyhow!("{key} = {text:?}: {}", error.what))
}

impl Size {
    /// Errors name the key with its value.
    pub(crate) fn bytes(&self, key: &str, least: u64) -> anyhow::Result<u64> {
        /// Longest first: each ends with `B`.
        const UNITS: [(&str, u64); 9] = [
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("TiB", 1 << 40),
            ("kB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("TB", 1_000_000_000_000),
            ("B", 1),
        ];
        let (shown, bytes) = match self {
            Self::Bytes(bytes) => (bytes.to_string(), u64::try_from(*bytes).ok()),
            Self::Text(text) => {
                let (number, unit) =
                    UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit))).unwrap_or((text, 1));
                let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
                (format!("{text:?}"), bytes)
            }
        };
        match bytes {
            Some(bytes) if bytes >= least => Ok(bytes),
            Some(_) => bail!("{key} = {shown}: at least {least} bytes"),
            None => {
                bail!("{key} = {shown}: expected a whole number of bytes, or one with a unit such as \"50GiB\"")
            }
        }
    }
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
            allow_public: args.allow_public.or(file.allow_public).unwrap_or(default.allow_public),
            workflows: file.workflows,
            store: file.store.options().context("the configuration")?,
            live: file.live.options().context("the configuration")?,
            network: file.network.config().context("the configuration")?,
            host: file.host.config().context("the configuration")?,
        };
        config.host.host.module_bytes_max = config.network.server.module_bytes_max;
        config.allow_hosts.extend_from_slice(&args.allow_hosts);
        for (index, (name, file)) in args.workflows.iter().enumerate() {
            if args.workflows[..index].iter().any(|(other, _)| other == name) {
                bail!("--workflow {name} is given twice");
            }
            // What else the file says stays: the flag replaces the module, as when a new build is tried.
            config.workflows.entry(name.clone()).or_default().file = Some(file.clone());
        }
        for (name, workflow) in &config.workflows {
            slung_host::check_name(name).map_err(|error| anyhow!(error))?;
            workflow.check().with_context(|| format!("workflow {name}"))?;
        }
        Ok(config)
    }
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(path)?;
    let mut file: File = toml::from_str(&text)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    for workflow in file.workflows.values_mut() {
        workflow.start_from(folder);
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
        config.workflows.values_mut().filter_map(|workflow| workflow.file.as_mut()).for_each(relative);
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
            allow_public = false
            [workflows.alert]
            file = "alert.wasm"
            env = { ALERT_BELOW = "60" }
            writes_per_second_max = 5
            http_calls_per_second_max = 6
            compute_ms_max = 7
            processor_share_max = 8
            host_calls_per_second_max = 9
            host_call_ms_max = 10
            answers_anybody = true
        "#;
        let config = load(text, ServeArgs::default()).unwrap();
        assert_eq!(config.listen.port(), 9);
        assert!(!config.allow_public);
        assert_eq!(config.data, PathBuf::from("here"));
        assert_eq!(config.workflows["alert"].file, Some(PathBuf::from("alert.wasm")));

        let flags = ServeArgs {
            listen: Some("127.0.0.1:10".parse().unwrap()),
            allow_hosts: vec!["10.0.0.0/8".to_owned()],
            allow_public: Some(true),
            workflows: vec![("alert".to_owned(), "new.wasm".into()), ("other".to_owned(), "other.wasm".into())],
            ..ServeArgs::default()
        };
        let config = load(text, flags).unwrap();
        assert_eq!(config.listen.port(), 10);
        assert_eq!(config.allow_hosts, ["localhost:9000", "10.0.0.0/8"]);
        assert!(config.allow_public);
        assert_eq!(config.workflows["alert"].file, Some(PathBuf::from("new.wasm")));
        assert_eq!(config.workflows["alert"].env["ALERT_BELOW"], "60");
        assert_eq!(config.workflows["alert"].writes_per_second_max.get(), 5);
        assert_eq!(config.workflows["alert"].http_calls_per_second_max.get(), 6);
        let alert = &config.workflows["alert"];
        assert_eq!((alert.compute_ms_max.get(), alert.processor_share_max.get()), (7, 8));
        assert_eq!((alert.host_calls_per_second_max.get(), alert.host_call_ms_max.get()), (9, 10));
        assert!(config.workflows["alert"].answers_anybody && !config.workflows["other"].answers_anybody);
        assert_eq!(config.workflows["other"], WorkflowConfig::of("other.wasm"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let error = |text: &str| format!("{:#}", load(text, ServeArgs::default()).unwrap_err());
        let unknown = error("listen = \"127.0.0.1:9\"\nlisten_on = 3");
        assert!(unknown.contains("line 2") && unknown.contains("listen_on"), "{unknown}");
        assert!(error("[workflows.a]\nallow_hosts = [\"http://a\"]").contains("workflow a: allow_hosts"));
        assert!(
            error("[workflows.a]\nprocessor_share_max = 101")
                .contains("workflow a: processor_share_max = 101: from 1 to")
        );
        for key in [
            "writes_per_second_max",
            "http_calls_per_second_max",
            "compute_ms_max",
            "processor_share_max",
            "host_calls_per_second_max",
            "host_call_ms_max",
        ] {
            let none = error(&format!("[workflows.a]\nfile = \"a\"\n{key} = 0"));
            assert!(none.contains("line 3") && none.contains("nonzero"), "{none}");
        }
        assert!(error("[workflows.\"a b\"]\nfile = \"x\"").contains("\"a b\" is no workflow name"));
        let twice = ServeArgs {
            workflows: vec![("a".to_owned(), "x".into()), ("a".to_owned(), "y".into())],
            ..ServeArgs::default()
        };
        assert!(Config::load(&twice).unwrap_err().to_string().contains("given twice"));
    }

    #[test]
    fn the_store_is_set_in_units_that_people_write() {
        let text = "[store]\nretention = \"90d\"\ndisk_max = \"50GiB\"\nmemtable = 67108864\npartition = \"1 day\"\nlog_file = \"16MB\"";
        let store = load(text, ServeArgs::default()).unwrap().store;
        let day = 24 * 3600 * 1_000_000;
        let expected = slung_store::Options {
            retention_micros: Some(90 * day),
            disk_bytes_max: Some(50 << 30),
            memtable_bytes_max: 64 << 20,
            partition_micros: day,
            log_file_bytes_max: 16_000_000,
            ..slung_store::Options::default()
        };
        assert_eq!(store, expected);
    }

    #[test]
    fn what_is_wrong_in_the_store_is_said_with_key_and_value() {
        for (line, expected) in [
            ("retention = \"90\"", "store.retention = \"90\": expected an amount"),
            ("retention = \"1mo\"", "store.retention = \"1mo\": unknown unit `mo`"),
            ("retention = \"0d\"", "store.retention = \"0d\": expected an amount above 0"),
            ("partition = \"1s\"", "store.partition = \"1s\": at least an hour"),
            ("disk_max = \"50 gigs\"", "store.disk_max = \"50 gigs\": expected a whole number of bytes"),
            ("disk_max = 0", "store.disk_max = 0: at least 1 bytes"),
            ("disk_max = \"99999999999TiB\"", "store.disk_max = \"99999999999TiB\": expected"),
            ("memtable = -5", "store.memtable = -5: expected"),
            ("memtable = \"1KiB\"", "store.memtable = \"1KiB\": at least 262144 bytes"),
            ("log_file = \"1.5GiB\"", "store.log_file = \"1.5GiB\": expected"),
            ("memory = 5", "memory"),
        ] {
            let error = format!("{:#}", load(&format!("[store]\n{line}"), ServeArgs::default()).unwrap_err());
            assert!(error.contains(expected), "{line} gives {error}");
        }
    }

    #[test]
    fn limits_of_live_queries_are_read_and_checked() {
        let text = "[live]\nwindow_points_max = 5\nwindows_bytes_max = \"2MiB\"\nhandles_max = 7";
        let expected = slung_live::Options {
            window_points_max: 5,
            windows_bytes_max: 2 << 20,
            handles_max: 7,
            ..slung_live::Options::default()
        };
        assert_eq!(load(text, ServeArgs::default()).unwrap().live, expected);
        for (line, expected) in [
            ("windows_bytes_max = \"1kB\"", "live.windows_bytes_max = \"1kB\": at least 1048576 bytes"),
            ("windows_bytes_max = \"lots\"", "live.windows_bytes_max = \"lots\": expected"),
            ("window_points_max = 0", "nonzero"),
            ("points_max = 5", "points_max"),
        ] {
            let error = format!("{:#}", load(&format!("[live]\n{line}"), ServeArgs::default()).unwrap_err());
            assert!(error.contains(expected), "{line} gives {error}");
        }
    }

    /// What `NetworkFile` reads, as serde itself says it.
    const NETWORK_KEYS: [&str; 20] = [
        "connections_max",
        "connections_per_address_max",
        "header_timeout",
        "header_max",
        "header_fields_max",
        "body_max",
        "module_max",
        "body_timeout",
        "write_timeout",
        "queries_max",
        "message_max",
        "v1_message_max",
        "v1_window",
        "idle_timeout",
        "slow_reader_timeout",
        "drain_timeout",
        "live_streams_max",
        "key_cache_max",
        "queue_max",
        "in_flight_max",
    ];

    #[test]
    fn limits_of_the_network_are_read_and_checked() {
        let text = "[network]\nconnections_max = 5\nidle_timeout = \"3s\"\nin_flight_max = \"2MiB\"\nv1_window = 7";
        let network = load(text, ServeArgs::default()).unwrap().network;
        let server = ServerOptions {
            connections_max: 5,
            idle_timeout: Duration::from_secs(3),
            v1_window: 7,
            ..ServerOptions::default()
        };
        assert_eq!(network, NetworkConfig { server, in_flight_bytes_max: 2 << 20, ..NetworkConfig::default() });
        for (line, expected) in [
            ("idle_timeout = \"3\"", "network.idle_timeout = \"3\": expected an amount"),
            ("in_flight_max = \"1kB\"", "network.in_flight_max = \"1kB\": at least 1048576 bytes"),
            ("message_max = -1", "network.message_max = -1: expected"),
            ("connections_max = 0", "nonzero"),
            ("v1_window = 5000000000", "u32"),
            ("windows = 5", "windows"),
        ] {
            let error = format!("{:#}", load(&format!("[network]\n{line}"), ServeArgs::default()).unwrap_err());
            assert!(error.contains(expected), "{line} gives {error}");
        }
        // Serde names the keys that it knows.
        let error = load("[network]\nx = 5", ServeArgs::default()).unwrap_err();
        let known: Vec<_> = format!("{error:#}").split('`').skip(3).step_by(2).map(str::to_owned).collect();
        assert_eq!(known, NETWORK_KEYS);
    }

    #[test]
    fn the_book_names_every_key_and_every_command() {
        use clap::CommandFactory;
        let book = include_str!("../../../docs/getting-started.md");
        let example = book.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
        let File { listen, data, allow_hosts, allow_public, workflows, store, live, network, host: _ } =
            toml::from_str(example).unwrap();
        assert_eq!(network.config().unwrap(), NetworkConfig::default(), "the example has the defaults");
        let section = example.split("[network]\n").nth(1).expect("the section");
        for key in NETWORK_KEYS {
            assert!(section.contains(&format!("\n{key} = ")), "{key}");
        }
        let LiveFile { window_points_max, windows_bytes_max, handles_max } = &live;
        assert!(window_points_max.is_some() && windows_bytes_max.is_some() && handles_max.is_some());
        assert_eq!(live.options().unwrap(), slung_live::Options::default(), "the example has the defaults");
        let StoreFile { retention, disk_max, memtable, log_file, partition, series_max } = &store;
        assert!(retention.is_some() && disk_max.is_some() && memtable.is_some());
        assert!(log_file.is_some() && partition.is_some() && series_max.is_some());
        // The example has the defaults, where there are any.
        let default = slung_store::Options::default();
        let named = slung_store::Options { retention_micros: None, disk_bytes_max: None, ..store.options().unwrap() };
        assert_eq!(named, default);
        assert!(listen.is_some() && data.is_some() && !allow_hosts.is_empty());
        assert_eq!(allow_public, Some(Config::default().allow_public));
        // Serde names the keys that it knows.
        let error = toml::from_str::<WorkflowConfig>("x = 5").unwrap_err().to_string();
        for key in error.split('`').skip(3).step_by(2) {
            assert!(example.contains(&format!("\n{key} = ")), "{key}");
        }
        let alert = &workflows["alert"];
        assert!(!alert.env.is_empty() && !alert.secrets.is_empty());
        let named = WorkflowConfig {
            file: None,
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            memory_max: None,
            handles_max: None,
            queue_updates_max: alert.queue_updates_max.filter(|updates| updates.get() != slung_live::QUEUE_UPDATES_MAX),
            allow_hosts: None,
            allow_public: None,
            ..alert.clone()
        };
        assert_eq!(named, WorkflowConfig::default(), "the example has the defaults");
        for command in crate::cli::Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let row = format!("| `slung {}", command.get_name());
            assert!(book.contains(&row), "the table of commands has no row that starts with {row}");
        }
    }
}
