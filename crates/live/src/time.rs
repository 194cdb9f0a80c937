//! Time that passes, from a clock that may jump.

/// How far a clock may seem to go back because two threads read it in one order and got here in the other, microseconds:
/// far above any such delay, far below a correction of the clock that matters to a window.
const REORDER_MICROS_MAX: i64 = 1_000_000;

/// When something arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The time that has passed, as [`Passed`] adds it up, microseconds.
    pub(crate) passed: i64,
    /// The clock, microseconds since the Unix epoch.
    pub(crate) now: i64,
}

impl Arrival {
    /// How much time will have passed when the clock gets there.
    pub(crate) fn when(self, timestamp: i64) -> i64 {
        self.passed.saturating_add(timestamp.saturating_sub(self.now).max(0))
    }
}

/// Adds up how much time has passed. A clock that is set back counts as standing still for that moment, and goes on from
/// there: a window whose source is silent would otherwise wait for the clock to be where it was.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// The clock's time when it was last believed.
    now: Option<i64>,
    micros: i64,
}

impl Passed {
    /// The arrival of something with the clock at `now`: time counts from the first call.
    pub(crate) fn arrival(&mut self, now: i64) -> Arrival {
        Arrival { passed: self.at(now), now }
    }

    fn at(&mut self, now: i64) -> i64 {
        let before = *self.now.get_or_insert(now);
        let step = now.saturating_sub(before);
        if step >= 0 {
            self.micros = self.micros.saturating_add(step);
            self.now = Some(now);
        } else if step < -REORDER_MICROS_MAX {
            self.now = Some(now);
        }
        self.micros
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_back_stand_still_and_swapped_readings_count_once() {
        let mut passed = Passed::default();
        assert_eq!(passed.at(5_000_000), 0);
        assert_eq!(passed.at(5_000_007), 7);
        assert_eq!(passed.at(5_000_004), 7);
        assert_eq!(passed.at(5_000_009), 9);
        assert_eq!(passed.at(1_000_000), 9);
        assert_eq!(passed.at(1_000_001), 10);
        assert_eq!(passed.at(i64::MAX), 10 + (i64::MAX - 1_000_001));
        assert_eq!(passed.at(i64::MIN), 10 + (i64::MAX - 1_000_001));
        assert_eq!(passed.at(i64::MAX), i64::MAX, "the sum stays there");
    }
}
