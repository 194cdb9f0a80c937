//! `slung query`: one question to a running server.

use anyhow::{Context, bail};
use serde_json::Value;
use slung_net::client;

use crate::cli::QueryArgs;

/// Prints the value, or the whole answer.
#[expect(clippy::print_stdout, reason = "the command's result")]
pub(crate) async fn query(args: &QueryArgs) -> anyhow::Result<()> {
    let answer = ask(&args.url, &args.query).await?;
    if args.json {
        println!("{answer}");
    } else {
        match answer["value"].as_f64() {
            Some(value) => println!("{value}"),
            None => println!("null"),
        }
    }
    Ok(())
}

/// The server's answer to a query, as JSON.
pub(crate) async fn ask(server: &str, query: &str) -> anyhow::Result<Value> {
    let server = server.trim_end_matches('/');
    let url = format!("{server}{}", client::query_path(query));
    let (status, body) = client::http_get(&url).await.context("is `slung serve` running there?")?;
    let answer: Value = serde_json::from_slice(&body)
        .with_context(|| format!("{server} answers {status} without JSON; is it a Slung server?"))?;
    if status != 200 {
        let error = &answer["error"];
        match (error["message"].as_str(), error["at"].as_u64()) {
            (Some(message), Some(at)) => bail!("query, byte {at}: {message}"),
            (Some(message), None) => bail!("{message}"),
            (None, _) => bail!("{server} answers {status}: {answer}"),
        }
    }
    Ok(answer)
}
