//! Posts to a URL when a live average crosses a threshold, either way, and does what the response says: JSON such as
//! `{"threshold":95}` sets the threshold, any other text goes to the producers.
//!
//! | environment | default |
//! | --- | --- |
//! | `WEBHOOK_URL` | none: it has to be set |
//! | `WEBHOOK_QUERY` | `AVG:temperature:[]:[10m]` |
//! | `WEBHOOK_THRESHOLD` | `90` |

use std::env;
use std::io::Error;

use serde::{Deserialize, Serialize};
use slung::prelude::*;

const QUERY: &str = query!("AVG:temperature:[]:[10m]");
const THRESHOLD: f64 = 90.0;

/// What is posted.
#[derive(Serialize)]
struct Crossing<'a> {
    now: &'static str,
    value: f64,
    threshold: f64,
    timestamp: i64,
    tags: &'a [String],
}

/// A response that sets the threshold.
#[derive(Deserialize)]
struct Adjustment {
    threshold: f64,
}

#[main]
fn main() -> Result<()> {
    let url = env::var("WEBHOOK_URL").map_err(|error| Error::other(format!("WEBHOOK_URL: {error}")))?;
    let query = env::var("WEBHOOK_QUERY").unwrap_or_else(|_| QUERY.to_owned());
    let threshold = env::var("WEBHOOK_THRESHOLD").map_or(Ok(THRESHOLD), |text| text.parse());
    let threshold = threshold.map_err(|error| Error::other(format!("WEBHOOK_THRESHOLD is no number: {error}")))?;
    watch(&url, &query, threshold)
}

fn watch(url: &str, query: &str, mut threshold: f64) -> Result<()> {
    let mut above = false;
    let on_event = |event: Event, ()| {
        if (event.value > threshold) == above {
            return Ok(());
        }
        above = !above;
        let Event { value, timestamp, ref tags, .. } = event;
        let now = if above { "above" } else { "below" };
        let body = serde_json::to_vec(&Crossing { now, value, threshold, timestamp, tags })?;
        // No body may also mean that the request failed: the host has logged it, and there is nothing to do here.
        let Some(response) = writeback_http(url, body, WritebackMethod::POST)? else { return Ok(()) };
        if let Ok(adjustment) = serde_json::from_slice::<Adjustment>(&response) {
            threshold = adjustment.threshold;
            return Ok(());
        }
        for producer in event.producers {
            // One that is gone is no reason to stop; the host has logged it.
            let _ = writeback_ws(producer, &response);
        }
        Ok(())
    };
    poll_handle(query_live(query)?, on_event, ())
}

#[cfg(test)]
mod tests;
