//! `slung query`: one question to a running server.

use std::io::{ErrorKind, Write};

use anyhow::{Context, anyhow};
use serde_json::Value;
use slung_net::client;

use crate::cli::QueryArgs;
use crate::show::time;

/// Prints the value, or one for each stretch of time, or the whole answer.
#[expect(clippy::print_stdout, reason = "the command's result")]
#[expect(clippy::print_stderr, reason = "what is missing in it")]
pub(crate) async fn query(args: &QueryArgs) -> anyhow::Result<()> {
    let step = args.step.map(|micros| format!("&step={micros}us")).unwrap_or_default();
    let answer = answer(&args.url, &format!("{}{step}", client::query_path(&args.query))).await?;
    for damage in answer["damage"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("slung: the answer is a partial one: {damage}");
    }
    if args.json {
        println!("{answer}");
    } else if args.step.is_some() {
        let mut lines = String::new();
        for bucket in answer["buckets"].as_array().into_iter().flatten() {
            let start = bucket["start"].as_i64().context("a stretch of time without its start")?;
            lines += &format!("{} {}\n", time(start), shown(&bucket["value"]));
        }
        match std::io::stdout().write_all(lines.as_bytes()) {
            // As behind `| head`: enough was seen.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            written => written.context("stdout")?,
        }
    } else {
        println!("{}", shown(&answer["value"]));
    }
    Ok(())
}

/// A number as short as it can be.
fn shown(value: &Value) -> String {
    value.as_f64().map_or_else(|| "null".to_owned(), |value| value.to_string())
}

/// The server's answer to a query, as JSON.
pub(crate) async fn ask(server: &str, query: &str) -> anyhow::Result<Value> {
    answer(server, &client::query_path(query)).await
}

async fn answer(server: &str, path: &str) -> anyhow::Result<Value> {
    let server = server.trim_end_matches('/');
    let url = format!("{server}{path}");
    let (status, body) = client::http_get(&url).await.context("is `slung serve` running there?")?;
    if status != 200 {
        return Err(refused(server, status, &body));
    }
    serde_json::from_slice(&body).with_context(|| no_json(server, status))
}

/// Why the server has no answer to a query, by what it says instead.
pub(crate) fn refused(server: &str, status: u16, body: &[u8]) -> anyhow::Error {
    let answer: Value = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(error) => return anyhow::Error::new(error).context(no_json(server, status)),
    };
    let error = &answer["error"];
    match (error["message"].as_str(), error["at"].as_u64()) {
        (Some(message), Some(at)) => anyhow!("query, byte {at}: {message}"),
        (Some(message), None) => anyhow!("{message}"),
        (None, _) => anyhow!("{server} answers {status}: {answer}"),
    }
}

fn no_json(server: &str, status: u16) -> String {
    format!("{server} answers {status} without JSON; is it a Slung server?")
}
