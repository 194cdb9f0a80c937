//! What a query computes, and how it is written.

use std::fmt;

/// What is computed. Prints as it is written in a query: `AVG`, `P99.9`, or `?` for raw values.
///
/// ```
/// use slung_model::{Op, Quantile, Query};
/// let query = Query::parse("p99.90:latency:[]")?;
/// assert_eq!(query.op(), Op::Quantile(Quantile::from_percent("99.9").expect("between 0 and 100")));
/// assert_eq!(query.op().to_string(), "P99.9");
/// # Ok::<(), slung_model::QueryError>(())
/// ```
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
    /// The value with the smallest timestamp.
    First,
    /// The value with the greatest timestamp.
    Last,
    /// The standard deviation of the population: the root of the mean squared difference from the mean.
    StdDev,
    /// By how much counters went up per second, each series for itself and then added up.
    Rate,
    /// The value that so many percent of all values do not exceed.
    Quantile(Quantile),
}

impl Op {
    /// Those that are a word.
    const NAMED: [(&'static str, Self); 10] = [
        ("?", Self::Raw),
        ("AVG", Self::Avg),
        ("MIN", Self::Min),
        ("MAX", Self::Max),
        ("SUM", Self::Sum),
        ("COUNT", Self::Count),
        ("FIRST", Self::First),
        ("LAST", Self::Last),
        ("STDDEV", Self::StdDev),
        ("RATE", Self::Rate),
    ];

    /// Reads what stands before the `:`, in any letter case.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let named = Self::NAMED.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        let quantile = || percent_of(text).and_then(Quantile::from_percent).map(Self::Quantile);
        named.map(|(_, op)| op).or_else(quantile)
    }

    /// Whether a live query may have it. RATE may not: it needs the order of each series' points, and a window has those
    /// of all series together.
    pub fn is_live(self) -> bool {
        self != Self::Rate
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Quantile(quantile) = self {
            return quantile.fmt(f);
        }
        let named = Self::NAMED.iter().find(|(_, op)| op == self);
        f.write_str(named.map_or("?", |(name, _)| name))
    }
}

/// What follows the `P` of a quantile.
fn percent_of(text: &str) -> Option<&str> {
    text.strip_prefix(['P', 'p'])
}

/// Whether somebody who wrote that meant a quantile.
pub(super) fn looks_like_quantile(text: &str) -> bool {
    let number =
        |percent: &str| percent.contains(|c: char| c.is_ascii_digit()) && !percent.contains(char::is_alphabetic);
    percent_of(text).is_some_and(number)
}

/// Which quantile: a percentage above 0 and below 100, with up to three digits behind the point. Prints as in a query,
/// `P50` or `P99.9`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantile {
    /// Thousandths of a percent.
    thousandths: u32,
}

/// What is the whole, in thousandths of a percent.
const WHOLE: u32 = 100_000;

impl Quantile {
    /// Of a percentage as text: digits, and up to three more behind a point. `None` for anything else, and for what is not
    /// above 0 and below 100.
    pub fn from_percent(text: &str) -> Option<Self> {
        let (whole, decimals) = match text.split_once('.') {
            Some((whole, decimals)) if (1..=3).contains(&decimals.len()) => (whole, decimals),
            Some(_) => return None,
            None => (text, ""),
        };
        let all_digits = [whole, decimals].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        if whole.is_empty() || !all_digits {
            return None;
        }
        let thousandths = format!("{}{decimals:0<3}", whole.trim_start_matches('0')).parse().ok()?;
        (0 < thousandths && thousandths < WHOLE).then_some(Self { thousandths })
    }

    /// As a fraction of 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.thousandths) / f64::from(WHOLE)
    }

    /// The nearest rank: which of so many values in rising order is meant, from 1; 0 of none. The smallest whole number
    /// that is not below `fraction() * count`, exactly.
    pub fn rank(self, count: u64) -> u64 {
        let rank = (u128::from(self.thousandths) * u128::from(count)).div_ceil(u128::from(WHOLE));
        u64::try_from(rank).unwrap_or(count)
    }
}

impl fmt::Display for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, decimals) = (self.thousandths / 1000, self.thousandths % 1000);
        if decimals == 0 {
            return write!(f, "P{whole}");
        }
        write!(f, "P{whole}.{}", format!("{decimals:03}").trim_end_matches('0'))
    }
}
