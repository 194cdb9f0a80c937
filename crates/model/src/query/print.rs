//! From query to text: the normal form, which parses to the same query again.

use std::fmt::{self, Write};

use super::{Filter, Op, QUERY_BYTES_MAX, Query, QueryRange, Time, UNITS, bare_in_names, bare_in_tags, is_connector};

/// The text of the query, which parses to the same query again: parentheses, quotes and the two ends of a range only where
/// they are needed, each time in the largest unit that is exact. Queries that come near the limit of the language with
/// their words squeezed together (`"a b"OR"c d",x`) are printed that way; all others with `AND` and blanks.
impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Printer::print(self, false);
        if text.len() > QUERY_BYTES_MAX {
            text = Printer::print(self, true);
        }
        f.write_str(&text)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

struct Printer {
    out: String,
    /// No byte more than the shortest text of the query that there is, so that what was parsed never prints longer.
    tight: bool,
}

impl Printer {
    fn print(query: &Query, tight: bool) -> String {
        let mut printer = Self { out: String::new(), tight };
        if query.op != Op::Raw {
            printer.out.push_str(query.op.name());
            printer.out.push(':');
        }
        for (index, name) in query.series.iter().enumerate() {
            if index > 0 {
                printer.out.push(',');
            }
            let bare = name.chars().all(bare_in_names) && name.trim().len() == name.len();
            if bare { printer.out.push_str(name) } else { printer.out.push_str(&quoted(name)) }
        }
        printer.out.push_str(":[");
        printer.chain(&query.filter);
        printer.out.push(']');
        if let Some(range) = query.range {
            printer.range(range);
        }
        printer.out
    }

    /// What stands between brackets or parentheses. Evaluation goes from left to right, so the first part of a chain needs
    /// no parentheses, whatever it is.
    fn chain(&mut self, filter: &Filter) {
        let (word, parts) = match filter {
            Filter::All => return,
            Filter::Tag(_) | Filter::Not(_) => return self.operand(filter),
            Filter::And(parts) => ("AND", parts),
            Filter::Or(parts) => ("OR", parts),
        };
        for (index, part) in parts.iter().enumerate() {
            if index == 0 {
                self.chain(part);
                continue;
            }
            match (word, part) {
                ("AND", Filter::Not(_)) if self.tight => {}
                ("AND", _) if self.tight => self.token(","),
                _ => self.token(word),
            }
            self.operand(part);
        }
    }

    fn operand(&mut self, filter: &Filter) {
        match filter {
            Filter::Tag(tag) if !tag.is_empty() && tag.chars().all(bare_in_tags) && !is_connector(tag) => {
                self.token(tag)
            }
            Filter::Tag(tag) => self.token(&quoted(tag)),
            Filter::Not(inner) => {
                self.token("NOT");
                self.operand(inner);
            }
            Filter::All | Filter::And(_) | Filter::Or(_) => {
                self.token("(");
                self.chain(filter);
                self.token(")");
            }
        }
    }

    /// Appends a token of the tag language, with a blank before it where one is needed, or reads better.
    fn token(&mut self, token: &str) {
        let blank = if self.tight {
            self.out.ends_with(bare_in_tags) && token.starts_with(bare_in_tags)
        } else {
            !self.out.ends_with(['[', '(']) && token != ")"
        };
        if blank {
            self.out.push(' ');
        }
        self.out.push_str(token);
    }

    fn range(&mut self, range: QueryRange) {
        self.out.push_str(":[");
        self.time(range.start);
        if range.end != Time::NOW {
            self.out.push(',');
            self.time(range.end);
        }
        self.out.push(']');
    }

    fn time(&mut self, time: Time) {
        let written = match time {
            Time::NOW if self.tight => self.out.write_str("0s"),
            Time::NOW => self.out.write_str("now"),
            Time::Absolute(at) => write!(self.out, "{at}"),
            Time::Ago(micros) => {
                let exact =
                    UNITS.iter().find(|unit| micros % unit.micros == 0).expect("microseconds divide everything");
                write!(self.out, "{}{}", micros / exact.micros, exact.names[0])
            }
        };
        written.expect("a string takes everything");
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
