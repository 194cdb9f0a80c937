//! Workflows by HTTP: which there are, what one logs, and what is to be done with it. A module comes as the body that it is.

use std::sync::Arc;

use futures_util::StreamExt;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::sync::watch;

use super::buffer::Buffer;
use super::error::{ErrorCode, Failure};
use super::live::place;
use super::parameters::Parameters;
use super::query::refuse_web_page;
use super::{Answer, in_time, json, last, read_body, with};
use crate::live::Streamed;
use crate::server::Shared;
use crate::stats::Route;
use crate::workflows::{LogEntry, WorkflowChange, WorkflowLog, WorkflowRefused, check_env, check_workflow_name};

/// Lines of a log unless asked otherwise.
pub(super) const LINES_DEFAULT: u64 = 100;
/// The most lines of a log that one answer begins with: 10,000.
pub(super) const LINES_MAX: u64 = 10_000;

/// What a followed log says so that something is said: an empty line, which is no JSON and which readers of lines skip.
const KEEP_ALIVE: &[u8] = b"\n";

const NDJSON: &str = "application/x-ndjson";

/// Answers `GET /api/v1/workflows`.
pub(super) fn list(shared: &Shared, parameters: &str) -> Result<Answer, Failure> {
    Parameters::parse(parameters, &[])?;
    let mut buffer = Buffer::new(shared.producers.memory(), usize::MAX);
    buffer.push(b"{\"workflows\":[")?;
    for (index, status) in shared.backend.workflows().iter().enumerate() {
        if index > 0 {
            buffer.push(b",")?;
        }
        buffer.push(&to_json(status))?;
    }
    buffer.push(b"]}")?;
    Ok(buffered(buffer, "application/json"))
}

/// Answers `GET /api/v1/workflows/{name}`.
pub(super) fn show(shared: &Shared, request: &Request<Incoming>) -> Result<Answer, Failure> {
    Parameters::parse(request.uri().query().unwrap_or_default(), &[])?;
    let name = known_name(request)?;
    match shared.backend.workflow(&name) {
        Some(status) => Ok(json(StatusCode::OK, &status)),
        None => Err(WorkflowRefused::NotFound(format!("there is no workflow {name}")).into()),
    }
}

/// Answers `PUT /api/v1/workflows/{name}`.
pub(super) async fn deploy(shared: &Shared, mut request: Request<Incoming>) -> Result<Answer, Failure> {
    // Whoever is refused here may not have sent all: the connection ends with the answer.
    let (name, env) = deployment(&request).map_err(Failure::last)?;
    let bytes_max = shared.options.module_bytes_max;
    let refusal = || format!("the module is larger than {bytes_max} bytes (module_max)");
    let module = in_time(shared, read_body(shared, request.body_mut(), bytes_max, refusal)).await?;
    change(shared, name, WorkflowChange::Deploy { module: module.into_body(), env }).await
}

/// What is deployed as what, with which environment: all that is wrong with either.
fn deployment(request: &Request<Incoming>) -> Result<(String, Vec<(String, String)>), Failure> {
    refuse_web_page(request, "a deployment")?;
    let parameters = Parameters::parse_repeated(request.uri().query().unwrap_or_default(), &["env"])?;
    let name = name(request);
    let mut wrong: Vec<String> = check_workflow_name(&name).err().into_iter().collect();
    let mut env = Vec::new();
    for variable in parameters.all("env") {
        match variable.split_once('=') {
            Some((name, value)) => env.push((name.to_owned(), value.to_owned())),
            // It is not shown: who forgets the name has written a value.
            None => wrong.push("a variable of the environment is env=NAME=VALUE, and one has no `=`".to_owned()),
        }
    }
    wrong.extend(check_env(&env).err().into_iter().flatten());
    if wrong.is_empty() {
        return Ok((name, env));
    }
    let listed: String = wrong.iter().map(|what| format!("\n- {what}")).collect();
    Err(WorkflowRefused::Invalid(format!("this can't be deployed{listed}")).into())
}

/// Answers `DELETE /api/v1/workflows/{name}`, and what is posted below that.
pub(super) async fn command(shared: &Shared, request: &Request<Incoming>, route: Route) -> Result<Answer, Failure> {
    refuse_web_page(request, "a change of a workflow")?;
    let known: &[&str] = if route == Route::WorkflowRollback { &["version"] } else { &[] };
    let parameters = Parameters::parse(request.uri().query().unwrap_or_default(), known)?;
    let wanted = match route {
        Route::WorkflowRollback => WorkflowChange::Rollback { version: parameters.number("version", 1..=u64::MAX)? },
        Route::WorkflowStop => WorkflowChange::Stop,
        Route::WorkflowStart => WorkflowChange::Start,
        _ => WorkflowChange::Remove,
    };
    change(shared, known_name(request)?, wanted).await
}

/// Lets the backend do it, to its end also when nobody waits for the answer any more.
async fn change(shared: &Shared, name: String, wanted: WorkflowChange) -> Result<Answer, Failure> {
    let backend = Arc::clone(&shared.backend);
    let done = tokio::spawn(async move { backend.change_workflow(&name, wanted).await });
    match done.await {
        Ok(status) => Ok(json(StatusCode::OK, &status?)),
        Err(panicked) => Err(Failure::new(ErrorCode::WorkflowFailed, panicked.to_string())),
    }
}

/// Answers `GET /api/v1/workflows/{name}/log`.
pub(super) async fn log(
    shared: &Shared,
    request: &Request<Incoming>,
    stop: &watch::Receiver<bool>,
) -> Result<Answer, Failure> {
    let parameters = Parameters::parse(request.uri().query().unwrap_or_default(), &["lines", "follow"])?;
    let lines = parameters.number("lines", 0..=LINES_MAX)?.unwrap_or(LINES_DEFAULT);
    let lines = usize::try_from(lines).unwrap_or(usize::MAX);
    let name = known_name(request)?;
    match parameters.get("follow") {
        None | Some("false") => whole_log(shared, shared.backend.workflow_log(&name, lines, false)?).await,
        Some("true") => {
            let place = place(shared)?;
            let entries = shared.backend.workflow_log(&name, lines, true)?;
            let body = Streamed::new(shared, entries.map(|entry| line(&entry).into()), KEEP_ALIVE, place, stop.clone());
            Ok(last(with(Response::new(Either::Right(body)), header::CONTENT_TYPE, NDJSON)))
        }
        Some(other) => Err(Failure::new(ErrorCode::BadRequest, format!("follow is true or false, and not {other:?}"))),
    }
}

async fn whole_log(shared: &Shared, mut entries: WorkflowLog) -> Result<Answer, Failure> {
    let mut buffer = Buffer::new(shared.producers.memory(), usize::MAX);
    while let Some(entry) = entries.next().await {
        buffer.push(&line(&entry))?;
    }
    Ok(buffered(buffer, NDJSON))
}

fn line(entry: &LogEntry) -> Vec<u8> {
    let mut line = to_json(entry);
    line.push(b'\n');
    line
}

/// The name in the path, whatever it is.
fn name(request: &Request<Incoming>) -> String {
    let segment = request.uri().path().strip_prefix(Route::Workflows.label()).unwrap_or_default();
    let segment = segment.split('/').nth(1).unwrap_or_default();
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

/// The name in the path, where a workflow may have it.
fn known_name(request: &Request<Incoming>) -> Result<String, Failure> {
    let name = name(request);
    check_workflow_name(&name).map_err(WorkflowRefused::NotFound)?;
    Ok(name)
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("structs of strings and numbers have a JSON form")
}

fn buffered(buffer: Buffer, content_type: &'static str) -> Answer {
    let answer = Response::new(Either::Left(Full::new(buffer.into_body())));
    with(answer, header::CONTENT_TYPE, content_type)
}
