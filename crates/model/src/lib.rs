//! The shared vocabulary of Slung: what a series, a point, a query and an aggregate *are*. No I/O.
//!
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod aggregate;
mod catalogue;
mod clock;
mod increase;
mod key;
mod point;
mod query;
mod sketch;
mod spread;
mod summary;

pub use aggregate::Aggregate;
pub use catalogue::{Catalogue, CatalogueFull};
pub use clock::{Clock, SystemClock};
pub use increase::Increase;
pub use key::{DecodeError, KeyError, NAME_BYTES_MAX, SeriesId, SeriesKey, TAG_BYTES_MAX, TAGS_MAX};
pub use point::{
    AHEAD_MICROS_MAX, Point, PointError, ProducerId, Seq, TIMESTAMP_MAX, TIMESTAMP_MIN, TimeRange, validate_point,
};
pub use query::{
    Filter, NotLive, Op, QUERY_BYTES_MAX, QUERY_NESTING_MAX, QUERY_SERIES_MAX, QUERY_TAGS_MAX, Quantile, Query,
    QueryError, QueryRange, Time, Window, duration_micros,
};
pub use sketch::Sketch;
pub use spread::Spread;
pub use summary::Summary;
