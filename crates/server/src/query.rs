//! `slung query`: one question to a running server.

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cli::QueryArgs;

/// Prints the value, or the whole answer.
#[expect(clippy::print_stdout, reason = "the command's result")]
pub(crate) async fn query(args: &QueryArgs) -> anyhow::Result<()> {
    let answer = ask(&args.url, &args.query).await?;
    if args.json {
        println!("{answer}");
    } else {
        println!("{}", answer.get("value").unwrap_or(&Value::Null));
    }
    Ok(())
}

/// The server's answer to a query, as JSON.
pub(crate) async fn ask(server: &str, query: &str) -> anyhow::Result<Value> {
    let server = server.trim_end_matches('/');
    let encoded: String = query.bytes().map(percent).collect();
    let url = format!("{server}/api/v1/query?q={encoded}");
    let (status, body) = slung_net::client::http_get(&url)
        .await
        .with_context(|| format!("no answer from {server}; is `slung serve` running there?"))?;
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

fn percent(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        char::from(byte).to_string()
    } else {
        format!("%{byte:02X}")
    }
}
