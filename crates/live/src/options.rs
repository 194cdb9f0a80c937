//! The limits of live queries.

/// The updates that may wait per handle: some 90 KiB for a guest that stands still.
pub const QUEUE_UPDATES_MAX: usize = 1024;

/// Limits. None of them is reached by accident; what happens beyond each is said with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Updates that wait per handle, [`QUEUE_UPDATES_MAX`] by default. Beyond it an aggregate merges into its newest
    /// waiting update, and a raw query drops its oldest.
    pub queue_updates_max: usize,
    /// Points that one window keeps, 1,000,000 by default (24 MB). Beyond it a sliding window goes over to panes
    /// ([`crate::WindowState::Panes`]), an absolute one counts writes from then on ([`crate::WindowState::CountsWrites`]).
    pub window_points_max: usize,
    /// Memory of all windows together, 512 MiB by default. Beyond it windows give up their points as above, the largest
    /// first; then a new one is refused, and where those that are there still grow, their panes become longer.
    pub windows_bytes_max: usize,
    /// Handles at once, 100,000 by default. Beyond it a query is refused.
    pub handles_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue_updates_max: QUEUE_UPDATES_MAX,
            window_points_max: 1_000_000,
            windows_bytes_max: 512 << 20,
            handles_max: 100_000,
        }
    }
}
