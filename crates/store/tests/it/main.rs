//! The store through its public interface: against a model, and against disks that fail.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should say where; not all of it is in test functions")]

mod common;
mod damage;
mod faults;
mod format_doc;
mod gate;
mod model;
mod os;
mod pressure;
mod reading;
mod reference;
