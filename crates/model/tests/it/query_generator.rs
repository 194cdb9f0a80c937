//! Queries made from a list of throws: every valid text of the language is within reach, and a shorter list makes a
//! simpler one, so that what proptest shrinks to can be read.

use proptest::prelude::*;

/// Throws decided beforehand; all 0 once they are used up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dice {
    throws: std::vec::IntoIter<u8>,
}

pub(crate) fn dice(throws_max: usize) -> impl Strategy<Value = Dice> {
    prop::collection::vec(any::<u8>(), 0..throws_max).prop_map(|throws| Dice { throws: throws.into_iter() })
}

impl Dice {
    /// A number below `sides`, which is at most 256.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        usize::from(self.throws.next().unwrap_or(0)) % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }
}

/// Tags to ask for and to carry; what needs quotes, and what only looks as if it did.
pub(crate) const TAGS: [&str; 16] = [
    "a",
    "b",
    "env=prod",
    "url=http://x:1",
    "c",
    "é",
    "AND",
    "or",
    "Not",
    "NOTE",
    "a b",
    "[x]",
    "(",
    "q\"b\\",
    "",
    "\u{a0}",
];

/// One token of the tag language, by its meaning.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Tag(&'static str),
    And,
    Or,
    Not,
    Open,
    Close,
}

/// Tokens of a valid tag list within the limits of the language.
pub(crate) fn tokens(dice: &mut Dice) -> Vec<Token> {
    let mut out = Vec::new();
    let mut tags_left = 64;
    chain(dice, 0, &mut tags_left, &mut out);
    out
}

fn chain(dice: &mut Dice, depth: usize, tags_left: &mut usize, out: &mut Vec<Token>) {
    loop {
        while dice.roll(4) == 3 {
            out.push(Token::Not);
        }
        if depth < 16 && dice.roll(3) == 2 {
            out.push(Token::Open);
            chain(dice, depth + 1, tags_left, out);
            out.push(Token::Close);
        } else {
            *tags_left -= 1;
            out.push(Token::Tag(TAGS[dice.roll(TAGS.len())]));
        }
        if *tags_left == 0 || dice.roll(3) == 0 {
            return;
        }
        // A connector, or none where the NOT of the next operand is one.
        match dice.roll(3) {
            0 => out.push(Token::And),
            1 => out.push(Token::Or),
            _ => out.push(Token::Not),
        }
    }
}

/// What the tokens mean to a series that carries those tags, straight from the words of the language: one precedence,
/// left to right. Builds no tree.
pub(crate) fn evaluate(tokens: &[Token], carried: &[&str]) -> bool {
    let mut at = 0;
    let value = evaluate_chain(tokens, &mut at, carried);
    assert_eq!(at, tokens.len(), "every token is used");
    value
}

fn evaluate_chain(tokens: &[Token], at: &mut usize, carried: &[&str]) -> bool {
    let mut value = evaluate_operand(tokens, at, carried);
    while let Some(connector) = tokens.get(*at) {
        if *connector == Token::Close {
            break;
        }
        *at += 1;
        let operand = evaluate_operand(tokens, at, carried);
        value = match connector {
            Token::And => value & operand,
            Token::Or => value | operand,
            Token::Not => value & !operand,
            other => panic!("{other:?} connects nothing"),
        };
    }
    value
}

fn evaluate_operand(tokens: &[Token], at: &mut usize, carried: &[&str]) -> bool {
    let token = &tokens[*at];
    *at += 1;
    match token {
        Token::Not => !evaluate_operand(tokens, at, carried),
        Token::Tag(tag) => carried.contains(tag),
        Token::Open => {
            let value = evaluate_chain(tokens, at, carried);
            assert_eq!(tokens[*at], Token::Close);
            *at += 1;
            value
        }
        other => panic!("{other:?} is no operand"),
    }
}

/// One way to write the tokens; other throws write the same in another way.
pub(crate) fn write_tags(tokens: &[Token], dice: &mut Dice) -> String {
    let mut text = String::new();
    for (index, token) in tokens.iter().enumerate() {
        let after_operand = index > 0 && matches!(tokens[index - 1], Token::Tag(_) | Token::Close);
        match token {
            Token::Open => text += "(",
            Token::Close => text += ")",
            Token::And if dice.roll(2) == 0 => text += ",",
            Token::And => word(&mut text, "AND", dice),
            Token::Or => word(&mut text, "OR", dice),
            Token::Not => {
                if after_operand {
                    // `a NOT b` is `a AND NOT b`.
                    match dice.roll(3) {
                        0 => {}
                        1 => text += ",",
                        _ => word(&mut text, "AND", dice),
                    }
                } else if dice.roll(8) == 7 {
                    word(&mut text, "NOT", dice);
                    word(&mut text, "NOT", dice);
                }
                word(&mut text, "NOT", dice);
            }
            Token::Tag(tag) => {
                if needs_quotes(tag) || dice.roll(4) == 3 {
                    blanks(&mut text, dice);
                    text += &quoted(tag);
                } else {
                    if text.ends_with(|c| !",()\" \t\n".contains(c)) {
                        text += " ";
                    }
                    text += tag;
                }
            }
        }
        blanks(&mut text, dice);
    }
    text
}

fn needs_quotes(tag: &str) -> bool {
    tag.is_empty()
        || tag.contains(|c: char| c.is_whitespace() || ",[]()\"".contains(c))
        || ["and", "or", "not"].contains(&tag.to_lowercase().as_str())
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn blanks(text: &mut String, dice: &mut Dice) {
    *text += dice.pick(&["", "", "", " ", "  ", "\t", "\n"]);
}

/// A word in any letter case, with a blank before it where one is needed.
fn word(text: &mut String, word: &str, dice: &mut Dice) {
    if text.ends_with(|c| !",()\" \t\n".contains(c)) {
        *text += " ";
    }
    for c in word.chars() {
        text.push(if dice.roll(2) == 0 { c } else { c.to_ascii_lowercase() });
    }
}

/// A valid tag list as text, with its tokens.
pub(crate) fn tag_list(dice: &mut Dice) -> (String, Vec<Token>) {
    let tokens = tokens(dice);
    // Random blanks may take it past the limit of the language; without throws none is written that isn't needed.
    // Tokens without a limit are the NOTs, and there are fewer of them than throws.
    let mut text = write_tags(&tokens, dice);
    if text.len() > 4000 {
        text = write_tags(&tokens, &mut Dice::default());
    }
    (text, tokens)
}

/// The parts of a query but its tags, each in two ways to write it that mean the same.
pub(crate) struct Frame {
    pub(crate) head: [String; 2],
    pub(crate) tail: [String; 2],
}

pub(crate) fn frame(dice: &mut Dice) -> Frame {
    let ops = [
        ["", ":"],
        ["?:", ""],
        ["AVG:", " avg :"],
        ["MIN:", "Min: "],
        ["MAX:", "maX\t:"],
        ["SUM:", "sum:"],
        ["COUNT:", " Count\n:"],
        ["FIRST:", "first:"],
        ["LAST:", " lasT :"],
        ["STDDEV:", "StdDev:"],
        ["RATE:", " rate:"],
        ["P50:", " p50.00 :"],
        ["P99.9:", "p099.900:"],
        ["P0.001:", "p0.001\t:"],
    ];
    let names = [
        ["t", "\"t\""],
        ["cpu total", " \"cpu total\" "],
        ["\"job:http\"", "\"job:http\" "],
        ["AVG", " AVG "],
        ["a\\b(c", "\"a\\\\b(c\""],
    ];
    let ranges = [
        ["", " "],
        [":[5m]", ":[now,300 seconds]"],
        [":[2h,1h]", " : [ 60MIN , 2 Hours ]"],
        [":[now]", ":[0s]"],
        [":[1,2]", ":[0002,1]"],
        [":[1,7w]", ":[7 weeks,1]"],
        [":[1500ms]", ":[1500000us,0w] "],
    ];
    let op = ops[dice.roll(ops.len())];
    let mut series = vec![names[dice.roll(names.len())]];
    while series.len() < 16 && dice.roll(3) == 2 {
        series.push(names[dice.roll(names.len())]);
    }
    let tail = ranges[dice.roll(ranges.len())];
    let mut heads = [0, 1].map(|way| {
        let mut names: Vec<&str> = series.iter().map(|name| name[way]).collect();
        if way == 1 {
            names.reverse();
        }
        format!("{}{}:", op[way], names.join(","))
    });
    if dice.roll(2) == 1 {
        heads.swap(0, 1);
    }
    Frame { head: heads, tail: tail.map(str::to_owned) }
}
