//! From query to text: the normal form, which parses to the same query again.

use std::fmt::{self, Write};

use super::{Filter, Op, Query, QueryRange, Time, UNITS, bare_in_names, bare_in_tags, is_connector};

/// The text of the query, which parses to the same query again: parentheses, quotes and the two ends of a range only
/// where they are needed, each time in the largest unit that is exact. A query whose text would come out longer than
/// [`QUERY_BYTES_MAX`](super::QUERY_BYTES_MAX), since it was written with fewer blanks, stays as it was written.
impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verbatim {
            Some(text) => f.write_str(text),
            None => f.write_str(&normal_form(self)),
        }
    }
}

/// May be several times as long as what was parsed: `,` becomes ` AND `.
pub(super) fn normal_form(query: &Query) -> String {
    let mut printer = Printer { out: String::new() };
    printer.query(query);
    printer.out
}

struct Printer {
    out: String,
}

impl Printer {
    fn query(&mut self, query: &Query) {
        if query.op != Op::Raw {
            self.out.push_str(&query.op.to_string());
            self.out.push(':');
        }
        for (index, name) in query.series.iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            let bare = name.chars().all(bare_in_names) && name.trim().len() == name.len();
            if bare { self.out.push_str(name) } else { self.out.push_str(&quoted(name)) }
        }
        self.out.push_str(":[");
        self.chain(&query.filter);
        self.out.push(']');
        if let Some(range) = query.range {
            self.range(range);
        }
    }

    /// What stands between brackets or parentheses. Evaluation goes from left to right, so the first part of a chain
    /// needs no parentheses, whatever it is.
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
            self.token(word);
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

    fn token(&mut self, token: &str) {
        if !self.out.ends_with(['[', '(']) && token != ")" {
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
