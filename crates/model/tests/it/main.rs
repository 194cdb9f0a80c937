//! Everything that is tested through the crate's public interface, as one binary.

mod aggregate;
mod catalogue;
mod increase;
mod key;
mod point;
mod query_generator;
mod query_normal_form;
mod query_properties;
mod query_refused;
mod sketch;
mod spread;
mod summary;
