//! The host against guests written as text: honest, mistaken and hostile ones.

mod allocate;
mod check;
mod ends;
mod fake;
mod fixture;
mod functions;
mod hostile;
mod polling;
mod regions;
mod restarts;
mod sandbox;
mod stopping;
