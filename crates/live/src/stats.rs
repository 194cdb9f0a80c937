//! What there is to say of windows and live queries.

use crate::window::Window;

/// What a window promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WindowState {
    /// Every point that belongs to it is in it, each once. Also a running aggregate, which promises to count writes.
    Exact,
    /// A sliding window that was too big to keep its points, and knows of each stretch of so many microseconds what the
    /// writes in it add up to. What it tells is of its range and up to one such stretch before it; a point that is
    /// written again counts again.
    Panes {
        /// How long a stretch is: a 1,024th of the width, unless memory ran short.
        micros: i64,
    },
    /// An absolute window that was too big to keep its points: a point that is written again counts again.
    CountsWrites,
}

/// One live query as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowStats {
    /// Points that it keeps, hidden ones included.
    pub points: usize,
    /// Memory that they take, or what is kept instead of them.
    pub bytes: usize,
    /// What it promises.
    pub state: WindowState,
    /// Whether it may lack points: what is stored of it was damaged when it was read, or more of that was ahead of the clock
    /// than it may keep.
    pub is_partial: bool,
}

/// All live queries together; the numbers of updates are each [`crate::Subscriber`]'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Live queries that are registered.
    pub handles: usize,
    /// Windows that they have; those with the same query share one.
    pub windows: usize,
    /// Points that the windows keep.
    pub points: usize,
    /// Memory of the windows.
    pub bytes: usize,
    /// Windows that are [`WindowState::Panes`] now.
    pub windows_in_panes: usize,
    /// Windows that are [`WindowState::CountsWrites`] now.
    pub windows_counting_writes: usize,
    /// Windows that may lack points, see [`WindowStats::is_partial`].
    pub windows_partial: usize,
    /// How often a window gave up its points, or half of its panes, for want of room, since the start.
    pub given_up: u64,
    /// Events that were too old for a sliding window, since the start; one per handle that did not get it.
    pub late: u64,
    /// Events that were too far ahead of the clock for a sliding window, and waited for their time, since the start; one
    /// per window.
    pub ahead: u64,
    /// Those of them that were let go for want of room before their time came.
    pub ahead_cut: u64,
    /// How often a sum left the finite range, since the start; one per window until it is back.
    pub sums_saturated: u64,
}

impl WindowStats {
    pub(crate) fn of(window: &Window, is_partial: bool) -> Self {
        let state = match window.pane_micros() {
            Some(micros) => WindowState::Panes { micros },
            None if window.counts_writes() => WindowState::CountsWrites,
            None => WindowState::Exact,
        };
        Self { points: window.points(), bytes: window.bytes(), state, is_partial }
    }
}
