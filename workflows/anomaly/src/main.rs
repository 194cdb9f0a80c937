//! Scores every event of a series by its distance from what is usual, in standard deviations, and writes the scores as a
//! series of their own: those of `temperature` as `temperature.anomaly`, with the tags of the event.
//!
//! | environment | default |
//! | --- | --- |
//! | `ANOMALY_SERIES`: the name of the series | `temperature` |
//! | `ANOMALY_TAGS`: which of that name, as in a query | all of them, as if they were one |

use std::env;

use slung::prelude::*;

/// The weight of a new event in what is usual: half of it comes from the last 70 events, nearly all from the last 500.
const WEIGHT: f64 = 0.01;
/// Before that many events, stored ones included, what is usual is not known well enough to judge by.
const WARM_UP: f64 = 30.0;

#[main]
fn main() -> Result<()> {
    let series = env::var("ANOMALY_SERIES").unwrap_or_else(|_| "temperature".to_owned());
    let tags = env::var("ANOMALY_TAGS").unwrap_or_default();
    watch(&series, &tags)
}

fn watch(series: &str, tags: &str) -> Result<()> {
    // First live, then history: an event that arrives in between counts twice. The other way round it would be missing.
    let handle = query_live(format!("\"{series}\":[{tags}]"))?;
    let mut usual = Usual::of_history(&format!("\"{series}\":[{tags}]:[7d]"))?;
    // The query above selects by name, so that it never sees what is written under this one.
    let name = format!("series={series}.anomaly");
    let judge = |event: Event, ()| {
        if let Some(score) = usual.score(event.value) {
            let written = write_event(event.timestamp, score, event.tags.iter().chain([&name]));
            // A score that can't be written (a tag with a comma) is no reason to leave the other events unjudged.
            written.unwrap_or_else(|error| eprintln!("{error}"));
        }
        usual.learn(event.value);
        Ok(())
    };
    poll_handle(handle, judge, ())
}

/// An exponentially weighted mean and variance, as in Finch, "Incremental calculation of weighted mean and variance"
/// (2009). As long as there are few events each weighs the same, which makes both exact at the start. An anomaly is
/// learned like everything else: one that lasts becomes usual.
struct Usual {
    events: f64,
    mean: f64,
    variance: f64,
}

impl Usual {
    /// History tells no variance: the standard deviation is taken for a quarter of the range, a rule of thumb that the
    /// weighting soon replaces by what is measured.
    fn of_history(selected: &str) -> Result<Self> {
        let ask = |op: &str| query_history(format!("{op}:{selected}"));
        let deviation = (ask("MAX")? - ask("MIN")?) / 4.0;
        Ok(Self { events: ask("COUNT")?, mean: ask("AVG")?, variance: deviation * deviation })
    }

    /// How many standard deviations above (or below) the mean; `None` while nothing can be said.
    fn score(&self, value: f64) -> Option<f64> {
        (self.events >= WARM_UP && self.variance > 0.0).then(|| (value - self.mean) / self.variance.sqrt())
    }

    fn learn(&mut self, value: f64) {
        self.events += 1.0;
        let weight = WEIGHT.max(1.0 / self.events);
        let distance = value - self.mean;
        self.mean += weight * distance;
        self.variance = (1.0 - weight) * (self.variance + weight * distance * distance);
    }
}

#[cfg(test)]
mod tests;
