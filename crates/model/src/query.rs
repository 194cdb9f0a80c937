//! The query language: its parts, its text, and what it selects. (Skeleton: parser, printer and tests are being written.)

use std::fmt;
use std::str::FromStr;

use crate::{SeriesKey, TimeRange};

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// No aggregate: every event with its own value, or the latest one.
    Raw,
    /// The mean.
    Avg,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The sum.
    Sum,
    /// How many.
    Count,
}

/// Which tags a series must carry. Normalised by the parser.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Every series.
    All,
    /// Those that carry exactly this tag.
    Tag(Box<str>),
    /// Those that the other one does not match.
    Not(Box<Filter>),
    /// Those that each of them matches.
    And(Vec<Filter>),
    /// Those that at least one of them matches.
    Or(Vec<Filter>),
}

impl Filter {
    /// Whether a series with that key is meant.
    pub fn matches(&self, key: &SeriesKey) -> bool {
        match self {
            Self::All => true,
            Self::Tag(tag) => key.has_tag(tag),
            Self::Not(inner) => !inner.matches(key),
            Self::And(parts) => parts.iter().all(|part| part.matches(key)),
            Self::Or(parts) => parts.iter().any(|part| part.matches(key)),
        }
    }
}

/// One end of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Time {
    /// Microseconds since the Unix epoch.
    Absolute(i64),
    /// So many microseconds before now.
    Ago(i64),
}

/// The range of a query as written, earlier end first where that is known without a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueryRange {
    /// One end.
    pub start: Time,
    /// The other.
    pub end: Time,
}

/// What a range means to a live query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Window {
    /// No range: everything from registration on.
    Running,
    /// What is stored there, and what falls into it.
    Absolute(TimeRange),
    /// The last so many microseconds, by event time.
    Sliding {
        /// Both ends belong to the window.
        width_micros: i64,
    },
}

/// A query, normalised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Query {
    op: Op,
    series: Vec<Box<str>>,
    filter: Filter,
    range: Option<QueryRange>,
}

/// Why a text is no query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub struct QueryError {
    /// The byte of the text where it is wrong, from 0.
    pub at: usize,
    /// What is wrong, in words.
    pub what: String,
}

/// A range that no live query can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a live query's range is absolute, or one time back from now such as [5m]")]
pub struct NotLive;

impl Query {
    /// Reads the text of a query.
    ///
    /// # Errors
    /// [`QueryError`] names what is wrong and the byte where it is.
    pub fn parse(_text: &str) -> Result<Self, QueryError> {
        unimplemented!("skeleton")
    }

    /// What is computed.
    pub fn op(&self) -> Op {
        self.op
    }

    /// The series' names, sorted, each once.
    pub fn series(&self) -> impl ExactSizeIterator<Item = &str> {
        self.series.iter().map(AsRef::as_ref)
    }

    /// Which tags they must carry.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Whether a series with that key is meant.
    pub fn matches(&self, key: &SeriesKey) -> bool {
        self.series.iter().any(|name| **name == *key.name()) && self.filter.matches(key)
    }

    /// The range as written.
    pub fn range(&self) -> Option<QueryRange> {
        self.range
    }

    /// The range of a historical query with the clock at `now`; all of time without one.
    pub fn time_range(&self, now: i64) -> TimeRange {
        let resolve = |time| match time {
            Time::Absolute(at) => at,
            Time::Ago(micros) => now.saturating_sub(micros),
        };
        self.range.map_or(TimeRange::ALL, |range| TimeRange::between(resolve(range.start), resolve(range.end)))
    }

    /// What the range means to a live query.
    ///
    /// # Errors
    /// [`NotLive`] for ranges that move with the clock at both ends, or mix absolute and relative.
    pub fn window(&self) -> Result<Window, NotLive> {
        match self.range {
            None => Ok(Window::Running),
            Some(QueryRange { start: Time::Absolute(a), end: Time::Absolute(b) }) => {
                Ok(Window::Absolute(TimeRange::between(a, b)))
            }
            Some(QueryRange { start: Time::Ago(width_micros), end: Time::Ago(0) }) => {
                Ok(Window::Sliding { width_micros })
            }
            Some(_) => Err(NotLive),
        }
    }
}

impl FromStr for Query {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        Self::parse(text)
    }
}

/// The text of the query, which parses to the same query again.
impl fmt::Display for Query {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!("skeleton")
    }
}
