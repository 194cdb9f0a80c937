//! The labelled failure windows of a data set, and which of them a run of alerts has hit.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;

use crate::input::timestamp_micros;

/// Alerts further apart than this belong to different incidents: 6 hours, as the machine cools and recovers for hours.
const INCIDENT_GAP_MICROS: i64 = 6 * 60 * 60 * 1_000_000;

/// One stretch of time in which the machine is known to have been failing; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Window {
    /// Microseconds since 1970.
    pub(crate) start: i64,
    /// Microseconds since 1970.
    pub(crate) end: i64,
}

/// Reads `windows.json` beside the data file: an object from file name to a list of pairs of times.
pub(crate) fn windows_beside(data: &Path) -> anyhow::Result<Vec<Window>> {
    let path = data.with_file_name("windows.json");
    let name = data.file_name().unwrap_or_default().to_string_lossy();
    let read = || -> anyhow::Result<Vec<Window>> {
        let mut all: BTreeMap<String, Vec<[String; 2]>> = serde_json::from_slice(&std::fs::read(&path)?)?;
        let pairs = all.remove(name.as_ref()).with_context(|| format!("it has no windows for {name}"))?;
        pairs
            .iter()
            .map(|[start, end]| Ok(Window { start: timestamp_micros(start)?, end: timestamp_micros(end)? }))
            .collect()
    };
    read().with_context(|| format!("the labels of the failures, {}", path.display()))
}

/// Groups alerts into incidents and counts the windows that they hit. Alerts come in the order of their event times,
/// nearly.
#[derive(Debug)]
pub(crate) struct Judge {
    windows: Vec<Window>,
    hit: Vec<bool>,
    newest: Option<i64>,
    incidents: usize,
}

/// What an alert turned out to be.
#[derive(Debug, PartialEq)]
pub(crate) struct Verdict {
    /// It opens a new incident.
    pub(crate) new_incident: bool,
    /// The window that it lies in, from 0.
    pub(crate) window: Option<usize>,
}

impl Judge {
    /// Nothing has been hit yet.
    pub(crate) fn new(windows: Vec<Window>) -> Self {
        Self { hit: vec![false; windows.len()], windows, newest: None, incidents: 0 }
    }

    /// Takes the event time of one alert.
    pub(crate) fn alert(&mut self, timestamp: i64) -> Verdict {
        let new_incident = self.newest.is_none_or(|newest| timestamp - newest > INCIDENT_GAP_MICROS);
        self.newest = self.newest.max(Some(timestamp));
        self.incidents += usize::from(new_incident);
        let window = self.windows.iter().position(|window| (window.start..=window.end).contains(&timestamp));
        if let Some(index) = window {
            self.hit[index] = true;
        }
        Verdict { new_incident, window }
    }

    /// How many windows an alert fell into, and how many there are.
    pub(crate) fn windows_hit(&self) -> (usize, usize) {
        (self.hit.iter().filter(|hit| **hit).count(), self.windows.len())
    }

    /// How many incidents there were.
    pub(crate) fn incidents(&self) -> usize {
        self.incidents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_grouped_and_windows_counted_once() {
        let hour = 3_600_000_000;
        let mut judge =
            Judge::new(vec![Window { start: 10 * hour, end: 20 * hour }, Window { start: 30 * hour, end: 40 * hour }]);
        assert_eq!(judge.alert(hour), Verdict { new_incident: true, window: None });
        assert_eq!(judge.alert(7 * hour), Verdict { new_incident: false, window: None });
        assert_eq!(judge.alert(20 * hour), Verdict { new_incident: true, window: Some(0) });
        assert_eq!(judge.alert(20 * hour + 1), Verdict { new_incident: false, window: None });
        assert_eq!((judge.windows_hit(), judge.incidents()), ((1, 2), 2));
    }

    #[test]
    fn labels_are_read_and_their_absence_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("a.csv");
        let error = format!("{:#}", windows_beside(&data).unwrap_err());
        assert!(error.contains("windows.json"), "{error}");
        let labels = r#"{"a.csv":[["1970-01-01 00:00:01.000000","1970-01-01 00:00:02.000000"]]}"#;
        std::fs::write(folder.path().join("windows.json"), labels).unwrap();
        assert_eq!(windows_beside(&data).unwrap(), [Window { start: 1_000_000, end: 2_000_000 }]);
        let other = format!("{:#}", windows_beside(&folder.path().join("b.csv")).unwrap_err());
        assert!(other.contains("no windows for b.csv"), "{other}");
    }
}
