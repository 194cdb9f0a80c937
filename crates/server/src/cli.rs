//! The command line: what there is to say, with its help. What each command does is in the module of its name.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Functions that run next to live data, with its whole history at hand.
#[derive(Debug, Parser)]
#[command(name = "slung", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to log, to stderr: error, warn, info, debug, trace, or a filter such as `info,slung_net=debug`.
    #[arg(long, global = true, env = "SLUNG_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server: take events, store them, run workflows.
    Serve(ServeArgs),
    /// Send events from a file or stdin as a producer, and print what workflows send back.
    Write(WriteArgs),
    /// Ask a running server's history.
    Query(QueryArgs),
    /// Follow a live query of a running server: a line per update, as a workflow would get it.
    Live(LiveArgs),
    /// Delete points from a running server, for good.
    Delete(DeleteArgs),
    /// Deploy a module as a workflow of a running server, in place of the version that runs.
    Deploy(DeployArgs),
    /// Show the workflows of a running server: what they do, and what they take.
    Ps(PsArgs),
    /// Show what a workflow of a running server has logged, and what it logs.
    Logs(LogsArgs),
    /// Run an older version of a workflow again.
    Rollback(RollbackArgs),
    /// Stop a workflow of a running server, and keep it.
    Stop(WorkflowArgs),
    /// Start a workflow that is stopped, set aside or at its end.
    Start(WorkflowArgs),
    /// Stop a workflow of a running server, and forget it with all its versions.
    Remove(WorkflowArgs),
    /// Show what is in a data directory: segments, partitions, the log, damage. A server may be using it.
    Inspect(InspectArgs),
    /// Read every byte of a data directory or a backup, and name what is damaged. A server may be using it.
    Verify(VerifyArgs),
    /// Copy a data directory, while a server is using it or not.
    Backup(BackupArgs),
    /// Make a data directory out of a backup.
    Restore(RestoreArgs),
    /// Write points as CSV that `slung import` reads back exactly. A server may be using the directory.
    Export(ExportArgs),
    /// Read points from a file into a data directory that no server is using.
    Import(ImportArgs),
    /// Check that a WebAssembly module is a workflow that this server would load, without running it.
    Check(CheckArgs),
    /// Compile the module on stdin into the cache: what the server runs for each module that is deployed, before it takes it.
    #[command(hide = true)]
    TryOut(TryOutArgs),
    /// Watch a workflow raise alerts on a real machine's temperatures, and judge it against the labelled failures.
    Demo(DemoArgs),
}

/// `slung serve`
#[derive(Debug, Args, Default)]
#[command(after_help = "\
Flags override the configuration file. Example:
  slung serve --data /var/lib/slung --workflow alert=target/workflows/threshold-alert.wasm

Stop it with Ctrl-C or SIGTERM: it stops accepting, stores what it has received, and ends.")]
pub(crate) struct ServeArgs {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:2077]. There is no access control yet: keep it on loopback or
    /// behind a proxy that has one.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Data directory; made if it is not there [default: slung-data].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// A workflow to run; may be given several times.
    #[arg(long = "workflow", value_name = "NAME=FILE.wasm", value_parser = named_file)]
    pub(crate) workflows: Vec<(String, PathBuf)>,
    /// A place that workflows may call by HTTP although it is not a public address on port 80 or 443: HOST[:PORT], where
    /// HOST is a name, an address, addresses as CIDR, or a pattern such as *.example.com for the names below it (at public
    /// addresses only); may be given several times.
    #[arg(long = "allow-host", value_name = "HOST[:PORT]|CIDR")]
    pub(crate) allow_hosts: Vec<String>,
    /// Whether workflows may call public addresses on ports 80 and 443 that no --allow-host names [default: true].
    #[arg(long, value_name = "true|false", action = clap::ArgAction::Set)]
    pub(crate) allow_public: Option<bool>,
}

/// `slung write`
#[derive(Debug, Args)]
#[command(after_help = "\
CSV needs a header with the columns `timestamp` and `value`; times are ISO 8601 (UTC where they name no offset) or \
microseconds since 1970; `series` and `tags` (a JSON array) may be there too. JSON has an object a line: {\"timestamp\":1700000000000000,\"value\":21.5}, optionally with \
\"series\" and \"tags\". Which of the two it is shows in the first character.

Every event is sent again until the server has acknowledged it: it is on disk then, and survives a power cut. A server that \
restarts is waited for. The exit code is 1 where events were refused or may not be stored. Ctrl-C ends the reading, and \
waits for what was sent; a second one does not. Example:
  slung write temps.csv --series temperature --tag machine=1 --speed 3600x")]
pub(crate) struct WriteArgs {
    /// File to read; `-` is stdin.
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,
    /// Name of the series that the events belong to.
    #[arg(long, value_name = "NAME", default_value = "value")]
    pub(crate) series: String,
    /// A tag of the series, usually key=value; may be given several times.
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Send as fast as the events' own times say, so many times faster: 1x is real time. Without it, at full speed.
    #[arg(long, value_name = "TIMES", value_parser = speed)]
    pub(crate) speed: Option<f64>,
    /// The server.
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:2077/")]
    pub(crate) url: String,
    /// How long to wait, after the last event, for what workflows still send, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    pub(crate) wait: f64,
    /// How long to go on while the server acknowledges nothing, because it is away for instance, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    pub(crate) give_up: f64,
}

/// `slung query`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slung query 'AVG:temperature:[machine=1]:[1h]'
  slung query 'MAX:temperature:[]:[1d]' --step 1h
  slung query 'COUNT:temperature:[]' --json")]
pub(crate) struct QueryArgs {
    /// The query, for example `AVG:temp:[sensor=1]:[5m]`.
    pub(crate) query: String,
    /// A value for each stretch of that length, a line each with the time (UTC) at which it begins; without points there is
    /// none.
    #[arg(long, value_name = "TIME", value_parser = step)]
    pub(crate) step: Option<i64>,
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:2077")]
    pub(crate) url: String,
    /// Print the server's whole answer as JSON instead of the value.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `slung live`
#[derive(Debug, Args)]
#[command(after_help = "\
A line has the time of the newest event in the update (UTC), the value, and the tags of the event that caused it. What \
comes faster than it is printed is merged, or dropped for raw values, as for a workflow. It ends with Ctrl-C, or when the \
server stops. Examples:
  slung live 'AVG:temperature:[machine=1]:[1h]'
  slung live ':temperature:[]' --json")]
pub(crate) struct LiveArgs {
    /// The query, for example `AVG:temp:[sensor=1]:[5m]`.
    pub(crate) query: String,
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:2077")]
    pub(crate) url: String,
    /// Print each update as the JSON that a workflow gets.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `slung delete`
#[derive(Debug, Args)]
#[command(after_help = "\
It says how many points that is and asks, before it deletes. Workflows keep what their live queries have. Examples:
  slung delete 'temperature:[machine=1]'
  slung delete 'temperature:[]:[1700000000000000,1700003600000000]' --yes")]
pub(crate) struct DeleteArgs {
    /// The points: a query without an operator, for example `temp:[sensor=1]:[2h,1h]`.
    pub(crate) query: String,
    /// Delete without a question.
    #[arg(long)]
    pub(crate) yes: bool,
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:2077")]
    pub(crate) url: String,
}

/// `slung deploy`
#[derive(Debug, Args)]
#[command(after_help = "\
The new version is loaded, checked and run to its first poll; then, at one event, it takes the place of the one before. What is \
wrong with the module is listed, and the exit code is 1: what ran before still runs. A name is 1 to 64 of A-Z a-z 0-9 - _ . \
and does not begin with a dot. Secrets belong into the server's configuration: arguments can be seen by others. Examples:
  slung deploy alert target/workflows/threshold-alert.wasm --env ALERT_BELOW=60
  slung deploy alert target/workflows/threshold-alert.wasm && slung logs alert -f")]
pub(crate) struct DeployArgs {
    /// The workflow's name.
    pub(crate) name: String,
    /// The module.
    #[arg(value_name = "FILE.wasm")]
    pub(crate) file: PathBuf,
    /// A variable of its environment; may be given several times. A new version has those that it is deployed with, and none
    /// of the version before.
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:2077")]
    pub(crate) url: String,
}

/// `slung ps`
#[derive(Debug, Args)]
#[command(after_help = "\
P50/P99 is the time from an event to what the workflow does about it, CPU the time on a thread since the server started. \
Examples:
  slung ps
  slung ps alert")]
pub(crate) struct PsArgs {
    /// Only this workflow, with all there is to know of it.
    pub(crate) name: Option<String>,
    /// Print it as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:2077")]
    pub(crate) url: String,
}

/// `slung logs`
#[derive(Debug, Args)]
#[command(after_help = "\
A line has the time (UTC), the level, where it comes from (stdout, stderr, or host: what the server says about the workflow) \
and the text. With -f it ends with Ctrl-C; the exit code is 1 where the server goes before. Examples:
  slung logs alert
  slung logs alert -f -n 10")]
pub(crate) struct LogsArgs {
    /// The workflow's name.
    pub(crate) name: String,
    /// Go on with what it logs from now on.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How many lines to begin with, the last ones: up to 10000.
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) lines: u32,
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:2077")]
    pub(crate) url: String,
}

/// `slung rollback`
#[derive(Debug, Args)]
#[command(after_help = "\
`slung ps NAME` lists the versions that there are. Examples:
  slung rollback alert
  slung rollback alert --to 3")]
pub(crate) struct RollbackArgs {
    /// The workflow's name.
    pub(crate) name: String,
    /// The version to run [default: the one before the one that runs].
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) to: Option<u64>,
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:2077")]
    pub(crate) url: String,
}

/// `slung stop`, `slung start` and `slung remove`
#[derive(Debug, Args)]
pub(crate) struct WorkflowArgs {
    /// The workflow's name.
    pub(crate) name: String,
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:2077")]
    pub(crate) url: String,
}

/// `slung inspect`
#[derive(Debug, Args)]
#[command(after_help = "\
The exit code is 1 where something is known to be damaged; only `slung verify` reads everything. Example:
  slung inspect slung-data")]
pub(crate) struct InspectArgs {
    /// The data directory.
    pub(crate) dir: PathBuf,
    /// Print it as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `slung try-out`
#[derive(Debug, Args)]
pub(crate) struct TryOutArgs {
    /// Where what was compiled goes.
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: PathBuf,
    /// How long it may take, milliseconds.
    #[arg(long)]
    pub(crate) compile_ms_max: u64,
    /// Address space that it may take, bytes.
    #[arg(long)]
    pub(crate) compile_bytes_max: u64,
    /// As the host's options, the ones below.
    #[arg(long)]
    pub(crate) wasm_stack_bytes_max: usize,
    /// Bytes.
    #[arg(long)]
    pub(crate) memory_bytes_max: usize,
    /// Elements of one table.
    #[arg(long)]
    pub(crate) table_elements_max: usize,
    /// Bytes.
    #[arg(long)]
    pub(crate) module_bytes_max: usize,
    /// What errors call the module.
    #[arg(long)]
    pub(crate) name: String,
}

/// `slung verify`
#[derive(Debug, Args)]
#[command(after_help = "\
The exit code is 1 where something is damaged or missing. Nothing is changed. Example:
  slung verify slung-data")]
pub(crate) struct VerifyArgs {
    /// The data directory, or a backup.
    pub(crate) dir: PathBuf,
}

/// `slung backup`
#[derive(Debug, Args)]
#[command(after_help = "\
The backup has every event that was on disk when it began. On the same file system its segments are hard links, which take \
no space and protect from deletion and mistakes, but not from a disk that fails: for that, copy it elsewhere, or name a \
directory on another disk. Example:
  slung backup slung-data /mnt/backup/slung-2026-11-23")]
pub(crate) struct BackupArgs {
    /// The data directory.
    pub(crate) dir: PathBuf,
    /// Where the backup goes: a directory that is empty or not there.
    pub(crate) to: PathBuf,
    /// Do not read the backup when it is made.
    #[arg(long)]
    pub(crate) no_verify: bool,
}

/// `slung restore`
#[derive(Debug, Args)]
#[command(after_help = "\
All is copied, the backup stays as it is. Example:
  slung restore /mnt/backup/slung-2026-11-23 slung-data")]
pub(crate) struct RestoreArgs {
    /// The backup.
    pub(crate) from: PathBuf,
    /// The data directory to make: one that is empty or not there.
    pub(crate) dir: PathBuf,
    /// Do not read the directory when it is made.
    #[arg(long)]
    pub(crate) no_verify: bool,
}

/// `slung export`
#[derive(Debug, Args)]
#[command(after_help = "\
The columns are timestamp (microseconds since 1970), value, series, and tags as a JSON array. The exit code is 1 where points \
are missing because they are damaged. Example:
  slung export slung-data 'temperature:[]:[30d]' --out temperature.csv")]
pub(crate) struct ExportArgs {
    /// The data directory.
    pub(crate) dir: PathBuf,
    /// The points: a query without an operator, for example `temp:[sensor=1]:[2h,1h]`.
    pub(crate) query: String,
    /// Where to write it [default: stdout].
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// `slung import`
#[derive(Debug, Args)]
#[command(after_help = "\
It reads what `slung export` writes, and whatever `slung write` reads. A line that is wrong ends it; what stands before it \
is stored, and reading the whole file again stores nothing twice. Example:
  slung import slung-data temperature.csv")]
pub(crate) struct ImportArgs {
    /// The data directory; made if it is not there.
    pub(crate) dir: PathBuf,
    /// File to read; `-` is stdin.
    pub(crate) file: PathBuf,
    /// Name of the series, for lines that name none.
    #[arg(long, value_name = "NAME", default_value = "value")]
    pub(crate) series: String,
    /// A tag of the series, usually key=value; may be given several times. Added to those that a line names.
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
}

/// `slung check`
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The module.
    #[arg(value_name = "FILE.wasm")]
    pub(crate) file: PathBuf,
}

/// `slung demo`
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where threshold-alert.wasm is.
    #[arg(long, value_name = "DIR", default_value = "target/workflows")]
    pub(crate) workflows: PathBuf,
    /// Readings as CSV; `windows.json` beside it labels the failures.
    #[arg(long, value_name = "FILE", default_value = "workflows/data/machine_temperature_system_failure.csv")]
    pub(crate) data: PathBuf,
    /// Readings sent per second. Slow enough that the workflow keeps up with each one: its queue holds 1,024.
    #[arg(long, value_name = "N", default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: u32,
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("expected NAME=FILE.wasm, for example alert=threshold-alert.wasm".to_owned()),
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, for example THRESHOLD=80".to_owned()),
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.strip_suffix(['x', 'X']).unwrap_or(text).parse() {
        Ok(times) if f64::is_finite(times) && times > 0.0 => Ok(times),
        _ => Err("expected a factor above 0, for example 60x".to_owned()),
    }
}

/// Microseconds.
fn step(text: &str) -> Result<i64, String> {
    slung_model::duration_micros(text).map_err(|error| error.what)
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds from 0 to 86400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn values_are_checked_while_parsing() {
        assert_eq!(speed("60x"), Ok(60.0));
        assert_eq!(speed("0.5"), Ok(0.5));
        for bad in ["", "x", "0x", "-1x", "infx", "NaN", "60y"] {
            assert!(speed(bad).is_err(), "{bad}");
        }
        assert_eq!(named_file("a=b=c.wasm"), Ok(("a".to_owned(), "b=c.wasm".into())));
        for bad in ["", "a", "=b", "a="] {
            assert!(named_file(bad).is_err(), "{bad}");
        }
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!((variable("A=b=c"), variable("A=")), (pair("A", "b=c"), pair("A", "")));
        for bad in ["", "A", "=b"] {
            assert!(variable(bad).is_err(), "{bad}");
        }
    }
}
