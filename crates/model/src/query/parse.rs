//! From text to query: recursive descent with the limits of the language, and errors that name a byte.

use super::op::looks_like_quantile;
use super::print::normal_form;
use super::{
    Filter, Op, QUERY_BYTES_MAX, QUERY_NESTING_MAX, QUERY_SERIES_MAX, QUERY_TAGS_MAX, Query, QueryError, QueryRange,
    Time, UNITS, bare_in_names, bare_in_tags,
};

/// What an error message quotes of the text at most, characters: enough to recognise the place.
const QUOTED_CHARS_MAX: usize = 32;

/// Reads the whole text.
pub(super) fn parse(text: &str) -> Result<Query, QueryError> {
    if text.len() > QUERY_BYTES_MAX {
        let what = format!("the query has {} bytes, at most {QUERY_BYTES_MAX} are allowed", text.len());
        return Err(QueryError { at: text.floor_char_boundary(QUERY_BYTES_MAX), what });
    }
    let mut query = Parser { text, at: 0, tags: 0 }.query()?;
    if normal_form(&query).len() > QUERY_BYTES_MAX {
        query.verbatim = Some(text.into());
    }
    Ok(query)
}

/// Reads a length of time as it stands in a range: an amount and a unit, such as `90d`.
///
/// ```
/// assert_eq!(slung_model::duration_micros("5 min"), Ok(300_000_000));
/// assert!(slung_model::duration_micros("5").is_err() && slung_model::duration_micros("1mo").is_err());
/// ```
///
/// # Errors
/// [`QueryError`] names what is wrong and the byte where it is.
pub fn duration_micros(text: &str) -> Result<i64, QueryError> {
    let mut parser = Parser { text, at: 0, tags: 0 };
    let time = parser.time()?;
    parser.skip_blanks();
    match time {
        Time::Ago(micros) if micros > 0 && parser.at == text.len() => Ok(micros),
        _ => Err(error_at(0, "expected an amount above 0 and a unit, such as 90d".to_owned())),
    }
}

struct Parser<'t> {
    text: &'t str,
    /// The byte that is looked at next; always on a character boundary.
    at: usize,
    /// Tags read so far.
    tags: usize,
}

impl<'t> Parser<'t> {
    fn query(mut self) -> Result<Query, QueryError> {
        let op = if self.starts_with_op() { self.op()? } else { Op::Raw };
        let series = self.series()?;
        self.expect('[', "`[` with the tags")?;
        self.skip_blanks();
        let filter = if self.peek() == Some(']') { Filter::All } else { self.tags(0)? };
        self.expect(']', "AND, OR, NOT, `,` or `]`")?;
        let range = if self.eat(':') { Some(self.range()?) } else { None };
        self.skip_blanks();
        if self.at < self.text.len() {
            let expected = if range.is_some() { "the end" } else { "the end, or `:` with a range" };
            return Err(self.unexpected(expected));
        }
        Ok(Query { op, series, filter, range, verbatim: None })
    }

    /// What precedes the first `:` is the series list if `[` follows that `:`, otherwise the op. With a comma, a quote
    /// or a bracket in it, it can only be a series list, and it says more about a mistake to read it as one.
    fn starts_with_op(&self) -> bool {
        match self.text.split_once([':', ',', '"', '[', ']']) {
            Some((head, tail)) => self.text[head.len()..].starts_with(':') && !tail.trim_start().starts_with('['),
            None => false,
        }
    }

    fn op(&mut self) -> Result<Op, QueryError> {
        self.skip_blanks();
        let name = self.run(|c| c != ':').trim_end();
        let op = match Op::parse(name) {
            Some(op) => op,
            None if name.is_empty() => Op::Raw,
            None => return Err(self.unknown_op(name)),
        };
        self.at += name.len();
        self.expect(':', "`:`")?;
        Ok(op)
    }

    fn unknown_op(&self, name: &str) -> QueryError {
        let shown = shortened(name);
        let series = format!("(or, if `{shown}` is a series, `[` with the tags after its `:`)");
        if looks_like_quantile(name) {
            return self.error(format!(
                "`{shown}` is no quantile, expected P and a percentage above 0 and below 100 with up to 3 digits behind the \
                 point, such as P99.9 {series}"
            ));
        }
        self.error(format!(
            "unknown op `{shown}`, expected AVG, MIN, MAX, SUM, COUNT, FIRST, LAST, STDDEV, RATE, a quantile such as P99, \
             or ? {series}"
        ))
    }

    /// The names, sorted, each once, and the `:` behind them.
    fn series(&mut self) -> Result<Vec<Box<str>>, QueryError> {
        let mut names = Vec::new();
        loop {
            self.skip_blanks();
            if names.len() == QUERY_SERIES_MAX {
                return Err(self.error(format!("more than {QUERY_SERIES_MAX} series")));
            }
            names.push(self.name()?);
            if self.eat(':') {
                break;
            }
            self.expect(',', "`,` with another series, or `:` with the tags")?;
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn name(&mut self) -> Result<Box<str>, QueryError> {
        if self.peek() == Some('"') {
            let start = self.at;
            let name = self.quoted()?;
            return if name.is_empty() { Err(error_at(start, "the series name is empty")) } else { Ok(name) };
        }
        // Blanks inside of a name belong to it, those around it don't.
        let run = self.run(bare_in_names).trim_end();
        if let Some((at, c)) = run.char_indices().find(|(_, c)| c.is_control()) {
            self.at += at;
            return Err(self.error(format!("{} in a series name", control(c))));
        }
        if run.is_empty() {
            return Err(self.unexpected("a series name"));
        }
        self.at += run.len();
        self.refuse_quote_inside("series name")?;
        Ok(run.into())
    }

    /// Operands and connectors up to the bracket or parenthesis that closes them. One precedence, left to right.
    fn tags(&mut self, depth: usize) -> Result<Filter, QueryError> {
        let mut all = self.operand(depth)?;
        loop {
            self.skip_blanks();
            let word = self.word();
            if self.eat(',') {
                all = Filter::and(all, self.operand(depth)?);
            } else if word.eq_ignore_ascii_case("AND") {
                self.at += word.len();
                all = Filter::and(all, self.operand(depth)?);
            } else if word.eq_ignore_ascii_case("OR") {
                self.at += word.len();
                all = Filter::or(all, self.operand(depth)?);
            } else if word.eq_ignore_ascii_case("NOT") {
                // `a NOT b` is `a AND NOT b`: the word is left for the operand.
                all = Filter::and(all, self.operand(depth)?);
            } else {
                return Ok(all);
            }
        }
    }

    /// A tag or a group, with the NOTs before it. Recursion goes with the parentheses only, which are limited.
    fn operand(&mut self, depth: usize) -> Result<Filter, QueryError> {
        let mut negated = false;
        let filter = loop {
            self.skip_blanks();
            let word = self.word();
            if word.eq_ignore_ascii_case("NOT") {
                self.at += word.len();
                negated = !negated;
            } else if self.peek() == Some('(') {
                break self.group(depth)?;
            } else {
                break Filter::Tag(self.tag(word)?);
            }
        };
        Ok(if negated { filter.negated() } else { filter })
    }

    fn group(&mut self, depth: usize) -> Result<Filter, QueryError> {
        let open = self.at;
        if depth == QUERY_NESTING_MAX {
            return Err(self.error(format!("parentheses are nested more than {QUERY_NESTING_MAX} deep")));
        }
        self.at += 1;
        let inner = self.tags(depth + 1)?;
        self.expect(')', &format!("AND, OR, NOT, `,` or the `)` to the `(` at byte {open}"))?;
        Ok(inner)
    }

    /// The tag that starts here; `word` is what stands here without quotes.
    fn tag(&mut self, word: &str) -> Result<Box<str>, QueryError> {
        let is_quoted = self.peek() == Some('"');
        let is_connector = word.eq_ignore_ascii_case("AND") || word.eq_ignore_ascii_case("OR");
        if !is_quoted && (word.is_empty() || is_connector) {
            return Err(self.unexpected("a tag, NOT or `(`"));
        }
        if self.tags == QUERY_TAGS_MAX {
            return Err(self.error(format!("more than {QUERY_TAGS_MAX} tags")));
        }
        self.tags += 1;
        if is_quoted {
            return self.quoted();
        }
        self.at += word.len();
        self.refuse_quote_inside("tag")?;
        Ok(word.into())
    }

    /// `[`, one time or two, `]`.
    fn range(&mut self) -> Result<QueryRange, QueryError> {
        self.expect('[', "`[` with a range")?;
        let first = self.time()?;
        let second = if self.eat(',') { self.time()? } else { Time::NOW };
        self.expect(']', "`,` or `]`")?;
        Ok(QueryRange::between(first, second))
    }

    fn time(&mut self) -> Result<Time, QueryError> {
        self.skip_blanks();
        let start = self.at;
        let digits = self.run(|c| c.is_ascii_digit());
        if digits.is_empty() {
            if self.word().eq_ignore_ascii_case("now") {
                self.at += "now".len();
                return Ok(Time::NOW);
            }
            return Err(self.unexpected("a time: now, microseconds since 1970, or an amount and a unit such as 5m"));
        }
        self.at += digits.len();
        let too_big = || error_at(start, format!("the time `{}` is too big", shortened(digits)));
        let number: i64 = digits.parse().map_err(|_| too_big())?;
        self.skip_blanks();
        let unit = self.run(char::is_alphabetic);
        if unit.is_empty() {
            return match self.peek() {
                None | Some(',' | ']') => Ok(Time::Absolute(number)),
                Some(_) => Err(self.unexpected("a unit, `,` or `]` after a whole number")),
            };
        }
        let Some(known) = UNITS.iter().find(|known| known.names.iter().any(|name| name.eq_ignore_ascii_case(unit)))
        else {
            let unit = shortened(unit);
            return Err(self.error(format!("unknown unit `{unit}`, expected s, m, h, d, w, ms or us")));
        };
        self.at += unit.len();
        number.checked_mul(known.micros).map(Time::Ago).ok_or_else(too_big)
    }

    /// Text in double quotes, in which `\"` and `\\` stand for `"` and `\`.
    fn quoted(&mut self) -> Result<Box<str>, QueryError> {
        let open = self.at;
        let mut content = String::new();
        self.at += 1;
        while let Some(c) = self.peek() {
            let escaped = self.rest()[c.len_utf8()..].chars().next();
            match (c, escaped) {
                ('"', _) => {
                    self.at += 1;
                    return Ok(content.into());
                }
                ('\\', Some(escaped @ ('"' | '\\'))) => {
                    content.push(escaped);
                    self.at += 2;
                }
                ('\\', _) => {
                    return Err(self.error("a `\\` in quotes is followed by `\"` or `\\`; write `\\\\` for one"));
                }
                _ if c.is_control() => return Err(self.error(format!("{} in quotes", control(c)))),
                _ => {
                    content.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
        Err(error_at(open, "this `\"` is never closed"))
    }

    /// `key="value"` is a likely slip: quotes go around the whole.
    fn refuse_quote_inside(&self, part: &str) -> Result<(), QueryError> {
        match self.peek() {
            Some('"') => Err(self.error(format!("`\"` inside of a {part}: quotes go around the whole {part}"))),
            _ => Ok(()),
        }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip_blanks(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// The characters from here on that are of that kind.
    fn run(&self, kind: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        &rest[..rest.find(|c| !kind(c)).unwrap_or(rest.len())]
    }

    /// What stands here and needs no quotes inside of brackets; may be empty.
    fn word(&self) -> &'t str {
        self.run(bare_in_tags)
    }

    /// Takes that character, and the blanks before it, if it comes next.
    fn eat(&mut self, c: char) -> bool {
        self.skip_blanks();
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    fn expect(&mut self, c: char, expected: &str) -> Result<(), QueryError> {
        if self.eat(c) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn unexpected(&self, expected: &str) -> QueryError {
        let found = match (self.word(), self.peek()) {
            (_, None) => "the end of the text".to_owned(),
            ("", Some(c)) if c.is_control() => control(c),
            ("", Some(c)) => format!("`{c}`"),
            (word, _) => format!("`{}`", shortened(word)),
        };
        self.error(format!("expected {expected}, found {found}"))
    }

    fn error(&self, what: impl Into<String>) -> QueryError {
        error_at(self.at, what)
    }
}

fn error_at(at: usize, what: impl Into<String>) -> QueryError {
    QueryError { at, what: what.into() }
}

fn control(c: char) -> String {
    format!("control character U+{:04X}", u32::from(c))
}

fn shortened(text: &str) -> String {
    let mut shown: String = text.chars().take(QUOTED_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(QUOTED_CHARS_MAX).is_some() {
        shown.push_str("...");
    }
    shown
}
