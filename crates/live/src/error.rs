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
    /// All windows together take as much memory as they may, and none of them has points left to give up.
    #[error(
        "all windows together may take {windows_bytes_max} bytes, which leaves no room for this one: free handles with long ranges, or raise windows_bytes_max"
    )]
    NoRoom {
        /// The limit.
        windows_bytes_max: usize,
    },
}
