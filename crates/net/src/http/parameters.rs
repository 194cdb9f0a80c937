//! What stands behind the `?` of a path.

use std::ops::RangeInclusive;

use super::error::{ErrorCode, Failure};
use crate::stats::Route;

/// The parameters of one request, decoded.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    /// Takes the `known` ones, each once. Others are refused: a parameter that does nothing would look as if it did.
    pub(super) fn parse(text: &str, known: &[&'static str]) -> Result<Self, Failure> {
        let parameters = Self::parse_repeated(text, known)?;
        match known.iter().find(|name| parameters.all(name).nth(1).is_some()) {
            Some(name) => Err(Failure::new(ErrorCode::BadRequest, format!("{name} is given twice"))),
            None => Ok(parameters),
        }
    }

    /// Takes the `known` ones, each as often as it is there.
    pub(super) fn parse_repeated(text: &str, known: &[&'static str]) -> Result<Self, Failure> {
        let bad = |message: String| Failure::new(ErrorCode::BadRequest, message);
        let mut parameters = Self::default();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let Some(name) = known.iter().find(|known| **known == name) else {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(bad(format!("the parameter {name:?} is not known here; known: {known}")));
            };
            parameters.0.push((name, decode(name, value).map_err(bad)?));
        }
        Ok(parameters)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of one that may be there several times, in their order.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// The query that `q` is.
    pub(super) fn query(&self, route: Route) -> Result<&str, Failure> {
        self.get("q").ok_or_else(|| {
            let message = format!("the query is missing: {}?q=QUERY, percent-encoded", route.label());
            Failure::new(ErrorCode::BadRequest, message)
        })
    }

    /// How many of something, from 1 to `max`.
    pub(super) fn limit(&self, default: usize, max: usize) -> Result<usize, Failure> {
        let limit = self.number("limit", 1..=max as u64)?;
        Ok(limit.map_or(default, |limit| usize::try_from(limit).unwrap_or(max)))
    }

    /// A number in that range; `None` where it is not given.
    pub(super) fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Failure> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let (min, max) = range.into_inner();
                let message = format!("{name} is a number from {min} to {max}, and not {text:?}");
                Err(Failure::new(ErrorCode::BadRequest, message))
            }
        }
    }
}

/// As browsers and HTML forms encode: `+` is a blank. Stray percent signs stand for themselves.
fn decode(name: &str, value: &str) -> Result<String, String> {
    let value = value.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&value).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|error| format!("{name} is not UTF-8 once decoded: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_nothing_is_guessed() {
        let parse = |text| Parameters::parse(text, &["q", "limit"]);
        let q = |text: &str| Ok(Parameters(vec![("q", text.to_owned())]));
        assert_eq!(parse(""), Ok(Parameters::default()));
        assert_eq!(parse("q=AVG:temp:[]"), q("AVG:temp:[]"));
        assert_eq!(parse("q=a%20b+c%2Bd=e"), q("a b c+d=e"));
        assert_eq!(parse("q=%C3%A9&"), q("é"));
        assert_eq!(parse("q"), q(""));
        assert_eq!(parse("q=100%"), q("100%"));
        assert_eq!(parse("limit=7&q=a").unwrap().limit(5, 7), Ok(7));
        assert_eq!(parse("q=a").unwrap().limit(5, 7), Ok(5));
        for refused in ["q=%ff", "q=a&q=b", "q=a&step=5m", "Q=a"] {
            assert_eq!(parse(refused).map_err(|failure| failure.code), Err(ErrorCode::BadRequest), "{refused}");
        }
        let repeated = Parameters::parse_repeated("q=a%3D1&limit=7&q=&q=b", &["q", "limit"]).unwrap();
        assert_eq!(repeated.all("q").collect::<Vec<_>>(), ["a=1", "", "b"]);
        assert!(Parameters::parse_repeated("q=a&x=b", &["q"]).is_err());
        for refused in ["limit=0", "limit=8", "limit=", "limit=-1", "limit=x"] {
            assert!(parse(refused).unwrap().limit(5, 7).is_err(), "{refused}");
        }
    }
}
