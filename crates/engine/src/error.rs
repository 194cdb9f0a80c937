//! Everything that can go wrong in the engine: what, where, and what to do.

use slung_model::{PointError, QueryError};

/// Why the engine did not do what it was asked to.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Too much waits for the disk. Nothing was stored, and no live query was told.
    #[error("too much waits for the disk: try again after the next commit, or use the blocking form")]
    Busy,
    /// A point is not acceptable. Nothing of the batch was stored, and no live query was told.
    #[error("point {index}: {reason}")]
    Point {
        /// Which point of the batch, from 0.
        index: usize,
        /// What is wrong with it.
        reason: PointError,
    },
    /// The store refused.
    #[error(transparent)]
    Store(slung_store::Error),
    /// The live query is refused: its range or operator is none for a live query, or a limit is reached.
    #[error(transparent)]
    Live(#[from] slung_live::Error),
    /// A text is no query. The engine takes queries that are parsed; this is for who parses one on the way.
    #[error("the query is malformed at {0}")]
    Query(#[from] QueryError),
    /// A thread panicked while it changed live queries, which is a bug. What is stored is safe and can be asked for.
    #[error(
        "a thread panicked among the live queries, which is a bug: reading goes on; open the engine again to write"
    )]
    Panicked,
}

impl From<slung_store::Error> for Error {
    fn from(error: slung_store::Error) -> Self {
        match error {
            slung_store::Error::Busy => Self::Busy,
            error => Self::Store(error),
        }
    }
}
