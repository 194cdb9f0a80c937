//! When a workflow that has failed is started again, and when no more.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

/// How a workflow that fails is started again: after a pause that doubles with each failure, as what it needs may come
/// back by itself; and no more when it fails again and again, as somebody has to look at it then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartOptions {
    /// The pause after the first failure; by default 1 s. Of each pause up to half is left out, by chance, so that many
    /// workflows that have failed together do not all come back at once.
    pub pause_min: Duration,
    /// The longest pause; by default 5 minutes.
    pub pause_max: Duration,
    /// With so many failures within [`failures_within`](Self::failures_within) it is set aside; by default 10.
    pub failures_max: u32,
    /// How long a failure counts; by default 10 minutes. A workflow that has run for so long begins with the shortest pause
    /// again.
    pub failures_within: Duration,
}

impl Default for RestartOptions {
    fn default() -> Self {
        Self {
            pause_min: Duration::from_secs(1),
            pause_max: Duration::from_secs(5 * 60),
            failures_max: 10,
            failures_within: Duration::from_secs(10 * 60),
        }
    }
}

/// The failures of one workflow that still count.
#[derive(Debug)]
pub(crate) struct Failures {
    options: RestartOptions,
    at: VecDeque<Instant>,
}

impl Failures {
    pub(crate) fn new(options: RestartOptions) -> Self {
        Self { options, at: VecDeque::new() }
    }

    /// It has failed once more. How long to wait before it is started again; `None` where it is not.
    pub(crate) fn add(&mut self, now: Instant) -> Option<Duration> {
        let within = self.options.failures_within;
        while self.at.front().is_some_and(|at| now.duration_since(*at) > within) {
            self.at.pop_front();
        }
        self.at.push_back(now);
        if self.at.len() >= self.options.failures_max as usize {
            return None;
        }
        let doublings = u32::try_from(self.at.len() - 1).unwrap_or(u32::MAX);
        let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
        let pause = self.options.pause_min.saturating_mul(factor).min(self.options.pause_max);
        // Each `RandomState` has keys of its own, which are random: enough for this.
        let chance = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        Some(pause.mul_f64(1.0 - chance / 2.0))
    }

    /// What it has come to, for the operator.
    pub(crate) fn too_many(&self) -> String {
        let minutes = self.options.failures_within.as_secs_f64() / 60.0;
        format!("{} failures within {minutes} minutes: it is set aside", self.at.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end_after_the_last() {
        let mut failures = Failures::new(RestartOptions { failures_max: 12, ..RestartOptions::default() });
        let now = Instant::now();
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let pause = failures.add(now).expect("it is started again");
            let (longest, shortest) = (Duration::from_secs(seconds), Duration::from_secs(seconds) / 2);
            assert!((shortest..=longest).contains(&pause), "{pause:?} for {seconds}");
        }
        assert_eq!(failures.add(now), None);
        assert_eq!(failures.too_many(), "12 failures within 10 minutes: it is set aside");
    }

    #[test]
    fn old_failures_count_no_more() {
        let mut failures = Failures::new(RestartOptions { failures_max: 3, ..RestartOptions::default() });
        let begin = Instant::now();
        for minutes in [0, 6, 12, 18, 24] {
            let pause = failures.add(begin + Duration::from_secs(minutes * 60)).expect("two at most are near");
            assert!(pause <= Duration::from_secs(2), "{pause:?}");
        }
        assert_eq!(failures.add(begin + Duration::from_secs(25 * 60)), None);
    }
}
