//! What holds for every query, and for every text that is none.

use std::collections::HashSet;

use proptest::prelude::*;
use slung_model::{Filter, Query, SeriesKey, Time};

use crate::query_generator::{Dice, TAGS, Token, dice, evaluate, frame, tag_list, write_tags};

/// Any text is a query that prints and parses to itself, or an error inside of it.
fn check_any(text: &str) -> Result<(), TestCaseError> {
    match Query::parse(text) {
        Ok(query) => check_normal(&query),
        Err(error) => {
            prop_assert!(error.at <= text.len(), "{error} in {} bytes", text.len());
            prop_assert!(text.is_char_boundary(error.at), "{error}");
            prop_assert!(!error.what.is_empty() && error.what.len() < 400, "{error}");
            prop_assert!(!error.what.contains(char::is_control), "{:?}", error.what);
            Ok(())
        }
    }
}

fn check_normal(query: &Query) -> Result<(), TestCaseError> {
    let printed = query.to_string();
    prop_assert!(printed.len() <= 4096, "{} bytes", printed.len());
    let again = match Query::parse(&printed) {
        Ok(again) => again,
        Err(error) => return Err(TestCaseError::fail(format!("{printed}: {error}"))),
    };
    prop_assert_eq!(&again, query);
    prop_assert_eq!(again.to_string(), printed);

    let names: Vec<&str> = query.series().collect();
    prop_assert!(!names.is_empty() && names.len() <= 16);
    prop_assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    if *query.filter() != Filter::All {
        check_filter(query.filter())?;
    }
    if let Some(range) = query.range() {
        let ordered = match (range.start, range.end) {
            (Time::Absolute(a), Time::Absolute(b)) => 0 <= a && a <= b,
            (Time::Ago(a), Time::Ago(b)) => a >= b && b >= 0,
            (Time::Absolute(a), Time::Ago(b)) => a >= 0 && b >= 0,
            (Time::Ago(_), Time::Absolute(_)) => false,
        };
        prop_assert!(ordered, "{range:?}");
    }
    Ok(())
}

/// The normal form, as `Filter` documents it.
fn check_filter(filter: &Filter) -> Result<(), TestCaseError> {
    match filter {
        Filter::All => return Err(TestCaseError::fail("All is not alone")),
        Filter::Tag(_) => {}
        Filter::Not(inner) => {
            prop_assert!(!matches!(**inner, Filter::Not(_)));
            check_filter(inner)?;
        }
        Filter::And(parts) | Filter::Or(parts) => {
            prop_assert!(parts.len() >= 2);
            for part in parts {
                let same = matches!((filter, part), (Filter::And(_), Filter::And(_)) | (Filter::Or(_), Filter::Or(_)));
                prop_assert!(!same, "a chain in a chain of its kind");
                check_filter(part)?;
            }
        }
    }
    Ok(())
}

fn query_text(dice: &mut Dice) -> String {
    let (tags, _) = tag_list(dice);
    let tags = if dice.roll(8) == 7 { String::new() } else { tags };
    let frame = frame(dice);
    format!("{}[{tags}]{}", frame.head[0], frame.tail[0])
}

/// Puts parentheses that change nothing around some tags and around it all, as deep as they may go.
fn with_parentheses(tokens: &[Token], dice: &mut Dice) -> Vec<Token> {
    let mut depth = 1;
    let mut deepest = 1;
    let mut out = vec![Token::Open];
    for token in tokens {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth -= 1,
            _ => {}
        }
        let extra = if matches!(token, Token::Tag(_)) { dice.roll(3).min(16usize.saturating_sub(depth)) } else { 0 };
        deepest = deepest.max(depth + extra);
        out.extend(vec![Token::Open; extra]);
        out.push(token.clone());
        out.extend(vec![Token::Close; extra]);
    }
    if deepest > 16 {
        return tokens.to_vec();
    }
    out.push(Token::Close);
    out
}

fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&WORDS[..])
}

/// Where, how many bytes go, and what comes in their place.
fn damage() -> impl Strategy<Value = (prop::sample::Index, usize, &'static str)> {
    (any::<prop::sample::Index>(), 0..5usize, prop_oneof![Just(""), word()])
}

proptest! {
    #[test]
    fn a_valid_text_is_accepted_and_prints_to_itself(mut throws in dice(400)) {
        let text = query_text(&mut throws);
        let query = match Query::parse(&text) {
            Ok(query) => query,
            Err(error) => return Err(TestCaseError::fail(format!("{text}: {error}"))),
        };
        check_normal(&query)?;
    }

    #[test]
    fn a_filter_means_what_its_words_say(
        mut throws in dice(300),
        carried in prop::sample::subsequence(TAGS.to_vec(), 0..=TAGS.len()),
    ) {
        let (text, tokens) = tag_list(&mut throws);
        let query = Query::parse(&format!("t:[{text}]")).unwrap();
        let key = SeriesKey::new("t", &carried).unwrap();
        prop_assert_eq!(query.filter().matches(&key), evaluate(&tokens, &carried), "{}", text);
    }

    #[test]
    fn texts_that_mean_the_same_are_equal(mut throws in dice(300), mut other in dice(600)) {
        let (one, tokens) = tag_list(&mut throws);
        let frame = frame(&mut throws);
        let two = write_tags(&with_parentheses(&tokens, &mut other), &mut other);
        let one = format!("{}[{one}]{}", frame.head[0], frame.tail[0]);
        let two = format!("{}[{two}]{}", frame.head[1], frame.tail[1]);
        prop_assume!(two.len() <= 4096);
        let (a, b) = (Query::parse(&one), Query::parse(&two));
        prop_assert!(a.is_ok(), "{}: {:?}", one, a);
        prop_assert_eq!(&a, &b, "{} and {}", one, two);
        prop_assert_eq!(HashSet::from([a.unwrap(), b.unwrap()]).len(), 1, "the hashes differ");
    }

    /// Written without a blank too many and padded up to the limit, a query still prints within the limit.
    #[test]
    fn a_text_of_the_full_length_prints_within_the_limit(mut throws in dice(250)) {
        let (_, tokens) = tag_list(&mut throws);
        let text = format!("t:[{}", write_tags(&tokens, &mut Dice::default()));
        let tags = tokens.iter().filter(|token| matches!(token, Token::Tag(_))).count();
        prop_assume!(tags < 64 && text.len() < 4096 - 2);
        let padding = "x".repeat(4096 - text.len() - 2);
        let text = format!("{text},{padding}]");
        prop_assert_eq!(text.len(), 4096);
        check_normal(&Query::parse(&text).unwrap())?;
    }

    #[test]
    fn any_characters(text: String) {
        check_any(&text)?;
    }

    #[test]
    fn any_bytes(bytes: Vec<u8>) {
        check_any(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn any_words_of_the_language(words in prop::collection::vec(word(), 0..60)) {
        check_any(&words.concat())?;
    }

    #[test]
    fn a_valid_text_with_some_damage(mut throws in dice(200), damage in prop::collection::vec(damage(), 1..6)) {
        let mut text = query_text(&mut throws);
        for (at, taken, word) in damage {
            let start = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text.floor_char_boundary(start + taken);
            text.replace_range(start..end, word);
        }
        check_any(&text)?;
    }
}

const WORDS: [&str; 40] = [
    ":",
    ",",
    "[",
    "]",
    "\"",
    "(",
    ")",
    "\\",
    " ",
    "\t",
    "\0",
    "é",
    "\u{a0}",
    "\u{85}",
    "a",
    "b=1",
    "AND",
    "or",
    "Not",
    "AVG",
    "?",
    "now",
    "5",
    "m",
    "ms",
    "weeks",
    "9223372036854775807",
    "99999999999999999999",
    "((((((((",
    "))))))))",
    "NOT NOT ",
    ":[",
    "]:[",
    "t:[",
    "\"\"",
    "-1",
    "RATE",
    "P",
    "P99",
    ".9",
];
