//! What stands behind the `?` of a path.

use super::error::{ErrorCode, Failure};
use crate::stats::Route;

/// The parameters of one request, decoded, each once.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Parameters(Vec<(&'static str, String)>);

impl Parameters {
    /// Takes the `known` ones. Others are refused: a parameter that does nothing would look as if it did.
    pub(super) fn parse(text: &str, known: &[&'static str]) -> Result<Self, Failure> {
        let bad = |message: String| Failure::new(ErrorCode::BadRequest, message);
        let mut parameters = Self::default();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let Some(name) = known.iter().find(|known| **known == name) else {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(bad(format!("the parameter {name:?} is not known here; known: {known}")));
            };
            if parameters.get(name).is_some() {
                return Err(bad(format!("{name} is given twice")));
            }
            parameters.0.push((name, decode(name, value).map_err(bad)?));
        }
        Ok(parameters)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
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
        let Some(text) = self.get("limit") else { return Ok(default) };
        match text.parse() {
            Ok(limit) if (1..=max).contains(&limit) => Ok(limit),
            _ => {
                Err(Failure::new(ErrorCode::BadRequest, format!("limit is a number from 1 to {max}, and not {text:?}")))
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
        for refused in ["limit=0", "limit=8", "limit=", "limit=-1", "limit=x"] {
            assert!(parse(refused).unwrap().limit(5, 7).is_err(), "{refused}");
        }
    }
}
