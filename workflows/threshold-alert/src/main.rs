//! Watches a live average and alerts the producers whose events brought it below a threshold.
//!
//! | environment | default |
//! | --- | --- |
//! | `ALERT_QUERY` | `AVG:temperature:[]:[1h]` |
//! | `ALERT_BELOW` | `55` |

use std::env;
use std::io::Error;

use serde::Serialize;
use slung::prelude::*;

const QUERY: &str = query!("AVG:temperature:[]:[1h]");
const BELOW: f64 = 55.0;

/// What a producer receives.
#[derive(Serialize)]
struct Alert<'a> {
    alert: &'static str,
    value: f64,
    threshold: f64,
    timestamp: i64,
    tags: &'a [String],
}

#[main]
fn main() -> Result<()> {
    let query = env::var("ALERT_QUERY").unwrap_or_else(|_| QUERY.to_owned());
    let below = env::var("ALERT_BELOW").map_or(Ok(BELOW), |text| text.parse());
    let below = below.map_err(|error| Error::other(format!("ALERT_BELOW is no number: {error}")))?;
    poll_handle(query_live(query)?, alert, below)
}

fn alert(event: Event, threshold: f64) -> Result<()> {
    if event.value >= threshold {
        return Ok(());
    }
    let Event { value, timestamp, ref tags, .. } = event;
    let alert = serde_json::to_vec(&Alert { alert: "below", value, threshold, timestamp, tags })?;
    for producer in event.producers {
        // One that is gone is no reason to stop; the host has logged it.
        let _ = writeback_ws(producer, &alert);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
