//! Why a live query is refused.

use slung_model::NotLive;

/// Why a live query is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The range, or what is computed, is none that a live query can have.
    #[error(transparent)]
    NotLive(#[from] NotLive),
    /// As many queries are registered as may be.
    #[error(
        "{handles_max} live queries are registered, the most that are allowed: free handles that are not polled, or raise handles_max"
    )]
    TooManyHandles {
        /// The limit.
        handles_max: usize,
    },
    /// What is stored of the window is more than one window may keep.
    #[error(
        "more than {window_points_max} points are stored within this window, the most that one may keep: ask for a shorter range or fewer series, or raise window_points_max"
    )]
    WindowTooBig {
        /// The limit.
        window_points_max: usize,
    },
    /// All windows together keep as many points as they may.
    #[error(
        "all windows together may keep {points_max} points, which leaves no room for this one: free handles with long ranges, or raise points_max"
    )]
    NoRoom {
        /// The limit.
        points_max: usize,
    },
}
