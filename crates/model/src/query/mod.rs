//! The query language: the parts of a query and what they select. One text, parsed here and nowhere else, serves live
//! queries, historical queries, HTTP, the command line and the guest SDK.

mod op;
mod parse;
mod print;

use std::hash::{Hash, Hasher};
use std::str::FromStr;

pub use op::{Op, Quantile};
pub use parse::duration_micros;

use crate::{SeriesKey, TimeRange};

/// The longest text of a query, bytes.
pub const QUERY_BYTES_MAX: usize = 4096;
/// The most series names in a query, as written.
pub const QUERY_SERIES_MAX: usize = 16;
/// The most tags in a query, as written.
pub const QUERY_TAGS_MAX: usize = 64;
/// The deepest nesting of parentheses.
pub const QUERY_NESTING_MAX: usize = 16;

/// Which tags a series must carry.
///
/// In a parsed query it is in normal form: [`Filter::All`] stands alone, [`Filter::Not`] holds no other one, a chain
/// has at least two parts and none that is a chain of the same kind, the parts in the order of the text. Depth is at
/// most two levels per tag, so that recursion over it is safe.
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

    fn and(left: Self, right: Self) -> Self {
        let mut parts = if let Self::And(parts) = left { parts } else { vec![left] };
        if let Self::And(more) = right {
            parts.extend(more)
        } else {
            parts.push(right)
        }
        Self::And(parts)
    }

    fn or(left: Self, right: Self) -> Self {
        let mut parts = if let Self::Or(parts) = left { parts } else { vec![left] };
        if let Self::Or(more) = right {
            parts.extend(more)
        } else {
            parts.push(right)
        }
        Self::Or(parts)
    }

    fn negated(self) -> Self {
        if let Self::Not(inner) = self { *inner } else { Self::Not(Box::new(self)) }
    }
}

/// One end of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Time {
    /// Microseconds since the Unix epoch.
    Absolute(i64),
    /// So many microseconds before now; never negative in a parsed query.
    Ago(i64),
}

impl Time {
    const NOW: Self = Self::Ago(0);
}

/// The range of a query as written, earlier end first where that is known without a clock; of an absolute and a
/// relative end, the absolute one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueryRange {
    /// One end.
    pub start: Time,
    /// The other.
    pub end: Time,
}

impl QueryRange {
    fn between(a: Time, b: Time) -> Self {
        let swap = match (a, b) {
            (Time::Absolute(a), Time::Absolute(b)) => a > b,
            (Time::Ago(a), Time::Ago(b)) => a < b,
            (Time::Ago(_), Time::Absolute(_)) => true,
            (Time::Absolute(_), Time::Ago(_)) => false,
        };
        if swap { Self { start: b, end: a } } else { Self { start: a, end: b } }
    }
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
        /// Both ends belong to the window, so one of width 0 (`[now]`) holds what has the newest timestamp.
        width_micros: i64,
    },
}

/// A query, in normal form: two texts that mean the same by the rules of the language (letter case, blanks, `,` for
/// AND, `a NOT b`, NOT NOT, parentheses that change nothing, order and repetition of series, order of the ends of a
/// range, units) are equal. No more than that: `a AND b` is not `b AND a`.
///
/// ```
/// use slung_model::{Op, Query};
/// let query = Query::parse("avg : temp : [ env=prod NOT muted ] : [ 60 seconds, now ]")?;
/// assert_eq!(query.op(), Op::Avg);
/// assert_eq!(query.to_string(), "AVG:temp:[env=prod AND NOT muted]:[1m]");
/// assert_eq!(query, query.to_string().parse()?);
/// # Ok::<(), slung_model::QueryError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Query {
    op: Op,
    series: Vec<Box<str>>,
    filter: Filter,
    range: Option<QueryRange>,
    /// The text as it was written, where that of the normal form is too long to be read again. No part of what the
    /// query means.
    verbatim: Option<Box<str>>,
}

/// Why a text is no query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub struct QueryError {
    /// The byte of the text where it is wrong, from 0; the length of the text where something is missing at its end.
    /// Always on a character boundary.
    pub at: usize,
    /// What is wrong and what was expected, in words.
    pub what: String,
}

/// Why a query is for historical queries only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotLive {
    /// The range moves with the clock at both ends, or mixes absolute and relative.
    #[error("a live query's range is absolute, or one time back from now such as [5m]")]
    Range,
    /// What is computed needs more than a live query keeps: RATE.
    #[error(
        "{0} is for historical queries only: it needs the points of each series by themselves, and a live query has them together"
    )]
    Op(Op),
}

impl NotLive {
    /// The byte of the query's text where it is.
    pub fn at(self, text: &str) -> usize {
        match self {
            // The range comes last, and has no bracket but its own.
            Self::Range => text.rfind('[').unwrap_or(0),
            Self::Op(_) => text.len() - text.trim_start().len(),
        }
    }
}

impl Query {
    /// Reads the text of a query.
    ///
    /// # Errors
    /// [`QueryError`] names what is wrong and the byte where it is.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        parse::parse(text)
    }

    fn meaning(&self) -> (Op, &[Box<str>], &Filter, Option<QueryRange>) {
        (self.op, &self.series, &self.filter, self.range)
    }

    /// Something else about the same series: another operator, another range.
    ///
    /// ```
    /// use slung_model::{Op, Query};
    /// let points = Query::parse("temp:[sensor=1]:[1h]")?;
    /// assert_eq!(points.with(Op::Count, points.range()).to_string(), "COUNT:temp:[sensor=1]:[1h]");
    /// # Ok::<(), slung_model::QueryError>(())
    /// ```
    #[must_use]
    pub fn with(&self, op: Op, range: Option<QueryRange>) -> Self {
        Self { op, series: self.series.clone(), filter: self.filter.clone(), range, verbatim: None }
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

    /// The range of a historical query with the clock at `now`, in microseconds since the Unix epoch; all of time
    /// without one.
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
    /// [`NotLive`] for what only a historical query can have: see there.
    pub fn window(&self) -> Result<Window, NotLive> {
        if !self.op.is_live() {
            return Err(NotLive::Op(self.op));
        }
        match self.range {
            None => Ok(Window::Running),
            Some(QueryRange { start: Time::Absolute(a), end: Time::Absolute(b) }) => {
                Ok(Window::Absolute(TimeRange::between(a, b)))
            }
            Some(QueryRange { start: Time::Ago(width_micros), end: Time::NOW }) => Ok(Window::Sliding { width_micros }),
            Some(_) => Err(NotLive::Range),
        }
    }
}

impl PartialEq for Query {
    fn eq(&self, other: &Self) -> bool {
        self.meaning() == other.meaning()
    }
}

impl Eq for Query {}

impl Hash for Query {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.meaning().hash(state);
    }
}

impl FromStr for Query {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, QueryError> {
        Self::parse(text)
    }
}

/// A unit of time: its names, the one that is printed first, and its length.
struct Unit {
    names: &'static [&'static str],
    micros: i64,
}

/// Longest first, so that the first that divides an amount is the one to print. The last divides everything.
const UNITS: [Unit; 7] = [
    Unit { names: &["w", "wk", "wks", "week", "weeks"], micros: 7 * 24 * 3600 * 1_000_000 },
    Unit { names: &["d", "day", "days"], micros: 24 * 3600 * 1_000_000 },
    Unit { names: &["h", "hr", "hrs", "hour", "hours"], micros: 3600 * 1_000_000 },
    Unit { names: &["m", "min", "mins", "minute", "minutes"], micros: 60 * 1_000_000 },
    Unit { names: &["s", "sec", "secs", "second", "seconds"], micros: 1_000_000 },
    Unit { names: &["ms"], micros: 1000 },
    Unit { names: &["us"], micros: 1 },
];

/// Whether a character may stand in a series name without quotes: a run of them is a name, without the blanks around
/// it. Control characters end no run, they are refused in it.
fn bare_in_names(c: char) -> bool {
    !matches!(c, ':' | ',' | '[' | ']' | '"')
}

/// Whether a character may stand in a tag without quotes. `:` may.
fn bare_in_tags(c: char) -> bool {
    !matches!(c, ',' | '[' | ']' | '"' | '(' | ')') && !c.is_whitespace() && !c.is_control()
}

/// Whether a word has a meaning of its own between tags, so that a tag of that name needs quotes.
fn is_connector(word: &str) -> bool {
    ["AND", "OR", "NOT"].iter().any(|connector| connector.eq_ignore_ascii_case(word))
}
