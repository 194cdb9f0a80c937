//! Time that passes, from a clock that may jump.

/// How far a clock may seem to go back because two threads read it in one order and got here in the other, microseconds:
/// far above any such delay, far below a correction of the clock that matters to a window.
const REORDER_MICROS_MAX: i64 = 1_000_000;

/// Adds up how much time has passed. A clock that is set back counts as standing still for that moment, and goes on from
/// there: a window whose source is silent would otherwise wait for the clock to be where it was.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// The clock's time when it was last believed.
    now: Option<i64>,
    micros: i64,
}

impl Passed {
    /// The time that has passed since the first call, microseconds, with the clock at `now`.
    pub(crate) fn at(&mut self, now: i64) -> i64 {
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
