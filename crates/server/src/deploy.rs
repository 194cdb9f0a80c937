//! `slung deploy`, `rollback`, `stop`, `start` and `remove`: a change of one workflow of a running server.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use slung_net::client::{self, ClientError};
use slung_net::{IN_FLIGHT_BYTES_MAX, WorkflowChange, WorkflowState, WorkflowStatus};

use crate::cli::{DeployArgs, RollbackArgs, WorkflowArgs};
use crate::show::{bytes, printable, printable_lines};

/// Sends the module and says what became of it.
#[expect(clippy::print_stdout, reason = "the command's result")]
pub(crate) async fn deploy(args: DeployArgs) -> anyhow::Result<()> {
    let module = read_module(&args.file)?.into();
    let change = WorkflowChange::Deploy { module, env: args.env };
    let status = client::change_workflow(&args.url, &args.name, change).await.map_err(undone)?;
    println!("{}", running(&status));
    Ok(())
}

/// Goes back to an older version.
#[expect(clippy::print_stdout, reason = "the command's result")]
pub(crate) async fn rollback(args: &RollbackArgs) -> anyhow::Result<()> {
    let change = WorkflowChange::Rollback { version: args.to };
    let status = client::change_workflow(&args.url, &args.name, change).await.map_err(undone)?;
    println!("{}", running(&status));
    Ok(())
}

/// Stops, starts or removes it.
#[expect(clippy::print_stdout, reason = "the command's result")]
pub(crate) async fn change(args: &WorkflowArgs, change: WorkflowChange) -> anyhow::Result<()> {
    let removed = change == WorkflowChange::Remove;
    let status = client::change_workflow(&args.url, &args.name, change).await.map_err(undone)?;
    if removed {
        println!("{}: removed", printable(&status.name));
    } else {
        println!("{}", running(&status));
    }
    Ok(())
}

/// Says before anything is sent that there is nothing to send, or more than any server takes.
fn read_module(file: &Path) -> anyhow::Result<Vec<u8>> {
    let path = file.display();
    let cannot_read = || format!("cannot read {path}");
    let metadata = std::fs::metadata(file).with_context(cannot_read)?;
    if !metadata.is_file() {
        bail!("{path} is not a file");
    }
    match metadata.len() {
        0 => bail!("{path} is empty"),
        length if length > IN_FLIGHT_BYTES_MAX as u64 => bail!("{path} has {}: no module is so large", bytes(length)),
        _ => std::fs::read(file).with_context(cannot_read),
    }
}

/// What runs now, and what it sees.
fn running(status: &WorkflowStatus) -> String {
    let mut shown = format!("{}: {}", printable(&status.name), status.state.label());
    if let Some(version) = status.version {
        shown += &format!(", version {version}");
    }
    let goes_on = matches!(status.state, WorkflowState::Running | WorkflowState::Restarting);
    if let Some(seq) = status.sees_after.filter(|_| goes_on) {
        shown += &format!("; it sees the events after number {seq}");
    }
    if let Some(reason) = &status.reason {
        shown += &format!(" ({})", printable(reason));
    }
    shown
}

/// What a server has said instead of an answer, or why it said nothing.
pub(crate) fn told(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Answered { message, .. } => anyhow!(printable_lines(&message)),
        ClientError::Connect { .. } => anyhow::Error::new(error).context("is `slung serve` running there?"),
        error => error.into(),
    }
}

/// The same where something was to be done.
fn undone(error: ClientError) -> anyhow::Error {
    let is_unknown = matches!(error, ClientError::Lost(_) | ClientError::TimedOut { .. });
    let error = told(error);
    if is_unknown { error.context("whether it was done is unknown: see `slung ps`") } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_says_what_runs_and_what_it_sees() {
        let mut status = WorkflowStatus { name: "alert".to_owned(), version: Some(2), ..WorkflowStatus::default() };
        (status.state, status.sees_after) = (WorkflowState::Running, Some(1207));
        assert_eq!(running(&status), "alert: running, version 2; it sees the events after number 1207");
        (status.state, status.reason) = (WorkflowState::Stopped, Some("by a client\u{7}".to_owned()));
        assert_eq!(running(&status), "alert: stopped, version 2 (by a client\\u{7})");
        status = WorkflowStatus { name: "a".to_owned(), ..WorkflowStatus::default() };
        assert_eq!(running(&status), "a: running");
    }

    #[test]
    fn what_can_be_no_module_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.wasm");
        let refused = |file: &Path| format!("{:#}", read_module(file).unwrap_err());
        assert!(refused(&file).starts_with("cannot read "), "{}", refused(&file));
        assert!(refused(folder.path()).ends_with(" is not a file"));
        std::fs::write(&file, b"").unwrap();
        assert!(refused(&file).ends_with("x.wasm is empty"));
        // Without a byte of it on disk.
        std::fs::File::options().write(true).open(&file).unwrap().set_len(IN_FLIGHT_BYTES_MAX as u64 + 1).unwrap();
        assert!(refused(&file).ends_with("x.wasm has 256.00 MiB: no module is so large"), "{}", refused(&file));
        std::fs::write(&file, b"\0asm").unwrap();
        assert_eq!(read_module(&file).unwrap(), b"\0asm");
    }
}
