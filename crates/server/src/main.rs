//! The binary `slung`: reads the command line and runs what it asks for.

mod acquainted;
mod backend;
mod check;
mod cli;
mod config;
mod copies;
mod delete;
mod demo;
mod deploy;
mod event;
#[cfg(test)]
mod event_test;
mod export;
mod feedback;
mod host_config;
mod import;
mod input;
mod inspect;
mod labels;
mod live;
mod logs;
mod metrics;
mod ps;
mod query;
mod serve;
mod show;
mod site;
mod try_out;
mod verify;
mod watch;
mod workflow_config;
mod workflows;
mod world;
mod write;

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use slung_net::WorkflowChange;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli).await {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // The demo shows a result, not a server's life.
    let default = if matches!(cli.command, Command::Serve(_)) { "info" } else { "warn" };
    log_to_stderr(cli.log.as_deref().unwrap_or(default))?;
    match cli.command {
        Command::Serve(args) => serve::serve(&args).await?,
        Command::Write(args) => write::write(args).await?,
        Command::Query(args) => query::query(&args).await?,
        Command::Live(args) => live::live(&args).await?,
        Command::Delete(args) => delete::delete(&args).await?,
        Command::Deploy(args) => deploy::deploy(args).await?,
        Command::Ps(args) => ps::ps(&args).await?,
        Command::Logs(args) => logs::logs(&args).await?,
        Command::Rollback(args) => deploy::rollback(&args).await?,
        Command::Stop(args) => deploy::change(&args, WorkflowChange::Stop).await?,
        Command::Start(args) => deploy::change(&args, WorkflowChange::Start).await?,
        Command::Remove(args) => deploy::change(&args, WorkflowChange::Remove).await?,
        Command::Check(args) => check::check(&args)?,
        Command::TryOut(args) => return try_out::run(&args),
        Command::Inspect(args) => return inspect::inspect(&args),
        Command::Verify(args) => return verify::verify(&args),
        Command::Backup(args) => return copies::backup(&args),
        Command::Restore(args) => return copies::restore(&args),
        Command::Export(args) => return export::export(&args),
        Command::Import(args) => import::import(&args)?,
        Command::Demo(args) => return demo::demo(&args).await,
    }
    Ok(ExitCode::SUCCESS)
}

fn log_to_stderr(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("--log {filter:?}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the last word of a command that failed")]
fn complain(error: &anyhow::Error) {
    eprintln!("slung: {error:#}");
}
