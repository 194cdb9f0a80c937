//! Steps that say what they do and how long they took.

use std::time::{Duration, Instant};

/// The steps of one run, in order, with their times.
pub(crate) struct Steps {
    done: Vec<Step>,
}

struct Step {
    name: String,
    took: Duration,
    failed: bool,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { done: Vec::new() }
    }

    /// Does one step. Its name stands before its error.
    pub(crate) fn run<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        eprintln!("==> {name}");
        let start = Instant::now();
        let result = work();
        let took = start.elapsed();
        let failed = result.is_err();
        eprintln!("    {name}: {} {}", if failed { "failed after" } else { "done in" }, human(took));
        self.done.push(Step { name: name.to_owned(), took, failed });
        result.map_err(|error| format!("{name}: {error}"))
    }

    /// One line for each step, and the sum.
    pub(crate) fn table(&self) -> String {
        let total = self.done.iter().map(|step| step.took).sum();
        let width = self.done.iter().map(|step| step.name.chars().count()).max().unwrap_or(0).max("total".len());
        let mut table = String::new();
        for Step { name, took, failed } in &self.done {
            let mark = if *failed { "  failed" } else { "" };
            table += &format!("{name:width$}  {:>11}{mark}\n", human(*took));
        }
        table + &format!("{:width$}  {:>11}\n", "total", human(total))
    }
}

fn human(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds >= 60 {
        format!("{} min {:2} s", seconds / 60, seconds % 60)
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_named_and_listed() {
        let mut steps = Steps::new();
        assert_eq!(steps.run("first", || Ok(7)), Ok(7));
        let failed: Result<(), _> = steps.run("second", || Err("no disk".into()));
        assert_eq!(failed, Err("second: no disk".into()));
        let table = steps.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("first "), "{table}");
        assert!(lines[1].starts_with("second ") && lines[1].ends_with("failed"), "{table}");
        assert!(lines[2].starts_with("total "), "{table}");
    }

    #[test]
    fn times() {
        assert_eq!(human(Duration::from_millis(1_240)), "1.2 s");
        assert_eq!(human(Duration::from_secs(61)), "1 min  1 s");
    }
}
