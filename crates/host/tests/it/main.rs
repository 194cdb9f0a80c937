//! The host against guests written as text: honest, mistaken and hostile ones.

mod allocate;
mod check;
mod deployments;
mod ends;
mod fairness;
mod fake;
mod fixture;
mod functions;
mod hostile;
mod polling;
mod reactions;
mod regions;
mod restarts;
mod sandbox;
mod stopping;
