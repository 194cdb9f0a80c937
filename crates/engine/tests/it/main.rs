//! What a user of the engine relies on, from outside.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod agreement;
mod contract;
mod crash;
mod deleting;
mod reads;
mod seam;
mod support;
