//! What the seam is locked with. A test lets another library take its place, which tries the orders in which threads may run.

pub(crate) use std::sync::{Mutex, MutexGuard};
