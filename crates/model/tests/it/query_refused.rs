//! Every text that the language refuses, with the byte and the words of the refusal.

use slung_model::{Query, QueryError};

fn check(rows: &[(&str, usize, &str)]) {
    for (text, at, what) in rows {
        let error = Query::parse(text).expect_err(text);
        assert_eq!(error, QueryError { at: *at, what: (*what).to_owned() }, "{text}");
    }
}

#[test]
fn examples_of_the_language() {
    check(&[
        ("AVG:temp:x", 9, "expected `[` with the tags, found `x`"),
        ("AVG:temp:[a AND]", 15, "expected a tag, NOT or `(`, found `]`"),
        ("AVG:temp:[x]:1,2", 13, "expected `[` with a range, found `1`"),
        ("AVG:temp:[x]:[1mo,now]", 15, "unknown unit `mo`, expected s, m, h, d, w, ms or us"),
        ("AVG:temp:[x]:[1,2]:more", 18, "expected the end, found `:more`"),
        ("AVG::[x]", 4, "expected a series name, found `:`"),
    ]);
}

fn unknown(op: &str) -> String {
    format!(
        "unknown op `{op}`, expected AVG, MIN, MAX, SUM, COUNT, FIRST, LAST, STDDEV, RATE, a quantile such as P99, or ? (or, \
         if `{op}` is a series, `[` with the tags after its `:`)"
    )
}

#[test]
fn ops() {
    check(&[
        ("STDEV:temp:[x]", 0, &unknown("STDEV")),
        ("LASTS:temp:[x]", 0, &unknown("LASTS")),
        ("  MEAN : temp:[x]", 2, &unknown("MEAN")),
        ("??:temp:[x]", 0, &unknown("??")),
        ("temp:sensor=1", 0, &unknown("temp")),
        ("temp:", 0, &unknown("temp")),
        ("a\0b:temp:[x]", 0, &unknown("a b")),
        // What no op can hold is read as a series list.
        (r#""AVG":temp:[x]"#, 6, "expected `[` with the tags, found `temp:`"),
        ("a,b:temp:[x]", 4, "expected `[` with the tags, found `temp:`"),
    ]);
    let long = format!("{}:t:[]", "é".repeat(100));
    check(&[(&long, 0, &unknown(&format!("{}...", "é".repeat(32))))]);
}

#[test]
fn quantiles() {
    for op in ["P", "p", "PP", "P P", "PQ9", "P9x", "P1e1", "Pinf", "PNaN", "P٣", "Q50", "P-", "P."] {
        check(&[(&format!("{op}:temp:[x]"), 0, &unknown(op))]);
    }
    let numbers = [
        "P0",
        "P0.0",
        "P0.000",
        "P100",
        "p100.000",
        "P101",
        "P99.9999",
        "P1.2345",
        "P1.0000",
        "P-1",
        "P+1",
        "P1.",
        "P.5",
        "P1.2.3",
        "P1.-2",
        "P1.+2",
        "P 1",
        "P1 0",
        "P1_0",
        "P99%",
        "P4294967.346",
        "P99999999999999999999999",
    ];
    for op in numbers {
        let what = format!(
            "`{op}` is no quantile, expected P and a percentage above 0 and below 100 with up to 3 digits behind the point, \
             such as P99.9 (or, if `{op}` is a series, `[` with the tags after its `:`)"
        );
        check(&[(&format!(" {op} :temp:[x]"), 1, &what)]);
    }
    // One that is too large to be read as a number at all, and a comma, which no op can hold.
    let long = "9".repeat(300);
    assert_eq!(Query::parse(&format!("P{long}:t:[]")).unwrap_err().at, 0);
    check(&[("P99,9:temp:[x]", 6, "expected `[` with the tags, found `temp:`")]);
}

#[test]
fn series() {
    check(&[
        ("", 0, "expected a series name, found the end of the text"),
        ("  ", 2, "expected a series name, found the end of the text"),
        (":", 1, "expected a series name, found the end of the text"),
        (":[x]", 0, "expected a series name, found `:`"),
        ("AVG: :[x]", 5, "expected a series name, found `:`"),
        ("temp", 4, "expected `,` with another series, or `:` with the tags, found the end of the text"),
        ("AVG:temp", 8, "expected `,` with another series, or `:` with the tags, found the end of the text"),
        ("temp[x]", 4, "expected `,` with another series, or `:` with the tags, found `[`"),
        ("temp[a:b]", 4, "expected `,` with another series, or `:` with the tags, found `[`"),
        ("AVG:a,:[x]", 6, "expected a series name, found `:`"),
        ("a,,b:[x]", 2, "expected a series name, found `,`"),
        (",a:[x]", 0, "expected a series name, found `,`"),
        ("AVG:]:[x]", 4, "expected a series name, found `]`"),
        (r#""":[x]"#, 0, "the series name is empty"),
        (r#"AVG:"a:[x]"#, 4, "this `\"` is never closed"),
        (r#"AVG:a"b":[x]"#, 5, "`\"` inside of a series name: quotes go around the whole series name"),
        (r#"AVG:"a"b:[x]"#, 7, "expected `,` with another series, or `:` with the tags, found `b:`"),
        ("AVG:a\0b:[x]", 5, "control character U+0000 in a series name"),
        ("AVG:é\tb:[x]", 6, "control character U+0009 in a series name"),
        ("AVG:\u{7f}:[x]", 4, "control character U+007F in a series name"),
        ("AVG:\"a\nb\":[x]", 6, "control character U+000A in quotes"),
        (r#"AVG:"a\n":[x]"#, 6, "a `\\` in quotes is followed by `\"` or `\\`; write `\\\\` for one"),
        (r#"AVG:"a\"#, 6, "a `\\` in quotes is followed by `\"` or `\\`; write `\\\\` for one"),
    ]);
}

#[test]
fn tags() {
    let close = "AND, OR, NOT, `,` or `]`";
    check(&[
        ("t:", 0, &unknown("t")),
        ("t:[", 3, "expected a tag, NOT or `(`, found the end of the text"),
        ("t:[a", 4, &format!("expected {close}, found the end of the text")),
        ("t:[a b]", 5, &format!("expected {close}, found `b`")),
        ("t:[a)]", 4, &format!("expected {close}, found `)`")),
        ("t:[a(b)]", 4, &format!("expected {close}, found `(`")),
        ("t:[a\0]", 4, &format!("expected {close}, found control character U+0000")),
        ("t:[\u{1b}]", 3, "expected a tag, NOT or `(`, found control character U+001B"),
        ("t:[,a]", 3, "expected a tag, NOT or `(`, found `,`"),
        ("t:[a,]", 5, "expected a tag, NOT or `(`, found `]`"),
        ("t:[a,,b]", 5, "expected a tag, NOT or `(`, found `,`"),
        ("t:[AND a]", 3, "expected a tag, NOT or `(`, found `AND`"),
        ("t:[or]", 3, "expected a tag, NOT or `(`, found `or`"),
        ("t:[NOT]", 6, "expected a tag, NOT or `(`, found `]`"),
        ("t:[a NOT]", 8, "expected a tag, NOT or `(`, found `]`"),
        ("t:[NOT AND a]", 7, "expected a tag, NOT or `(`, found `AND`"),
        ("t:[a AND OR b]", 9, "expected a tag, NOT or `(`, found `OR`"),
        ("t:[a AND , b]", 9, "expected a tag, NOT or `(`, found `,`"),
        ("t:[()]", 4, "expected a tag, NOT or `(`, found `)`"),
        ("t:[[a]]", 3, "expected a tag, NOT or `(`, found `[`"),
        ("t:[(a]", 5, "expected AND, OR, NOT, `,` or the `)` to the `(` at byte 3, found `]`"),
        ("t:[(a b)]", 6, "expected AND, OR, NOT, `,` or the `)` to the `(` at byte 3, found `b`"),
        (r#"t:[key="value"]"#, 7, "`\"` inside of a tag: quotes go around the whole tag"),
        (r#"t:["a""b"]"#, 6, &format!("expected {close}, found `\"`")),
        (r#"t:["a]"#, 3, "this `\"` is never closed"),
        (r#"t:["a\"]"#, 3, "this `\"` is never closed"),
        (r#"t:["\x"]"#, 4, "a `\\` in quotes is followed by `\"` or `\\`; write `\\\\` for one"),
        ("t:[a] b", 6, "expected the end, or `:` with a range, found `b`"),
        ("t:[a]]", 5, "expected the end, or `:` with a range, found `]`"),
    ]);
}

#[test]
fn ranges() {
    let time = "a time: now, microseconds since 1970, or an amount and a unit such as 5m";
    let unit = "a unit, `,` or `]` after a whole number";
    check(&[
        ("t:[]:", 5, "expected `[` with a range, found the end of the text"),
        ("t:[]:[]", 6, &format!("expected {time}, found `]`")),
        ("t:[]:[,1]", 6, &format!("expected {time}, found `,`")),
        ("t:[]:[1,]", 8, &format!("expected {time}, found `]`")),
        ("t:[]:[-5]", 6, &format!("expected {time}, found `-5`")),
        ("t:[]:[m]", 6, &format!("expected {time}, found `m`")),
        ("t:[]:[nowish]", 6, &format!("expected {time}, found `nowish`")),
        ("t:[]:[\"now\"]", 6, &format!("expected {time}, found `\"`")),
        ("t:[]:[٣m]", 6, &format!("expected {time}, found `٣m`")),
        ("t:[]:[1.5h]", 7, &format!("expected {unit}, found `.5h`")),
        ("t:[]:[1 000]", 8, &format!("expected {unit}, found `000`")),
        ("t:[]:[5m30s]", 8, "expected `,` or `]`, found `30s`"),
        ("t:[]:[5 m ago]", 10, "expected `,` or `]`, found `ago`"),
        ("t:[]:[1,2,3]", 9, "expected `,` or `]`, found `,`"),
        ("t:[]:[1", 7, "expected `,` or `]`, found the end of the text"),
        ("t:[]:[1,2] x", 11, "expected the end, found `x`"),
        ("t:[]:[5fortnights]", 7, "unknown unit `fortnights`, expected s, m, h, d, w, ms or us"),
        ("t:[]:[5 µs]", 8, "unknown unit `µs`, expected s, m, h, d, w, ms or us"),
        ("t:[]:[9223372036854775808]", 6, "the time `9223372036854775808` is too big"),
        ("t:[]:[now,9223372036854775808us]", 10, "the time `9223372036854775808` is too big"),
        ("t:[]:[9223372036854775807ms]", 6, "the time `9223372036854775807` is too big"),
        ("t:[]:[15250285w]", 6, "the time `15250285` is too big"),
    ]);
}

#[test]
fn limits() {
    let series = (0..17).map(|n| format!("s{n:02}")).collect::<Vec<_>>().join(",");
    check(&[(&format!("AVG:{series}:[]"), 4 + 16 * 4, "more than 16 series")]);
    // As written: that two of them are the same is not looked at.
    check(&[(&format!("{}:[]", ["s"; 17].join(",")), 32, "more than 16 series")]);

    let tags = vec!["x"; 65].join(",");
    check(&[(&format!("t:[{tags}]"), 3 + 64 * 2, "more than 64 tags")]);
    let tags = vec![r#""x""#; 65].join(",");
    check(&[(&format!("t:[{tags}]"), 3 + 64 * 4, "more than 64 tags")]);

    let deep = format!("t:[{}a{}]", "(".repeat(17), ")".repeat(17));
    check(&[(&deep, 3 + 16, "parentheses are nested more than 16 deep")]);
    // NOT does not nest, its parentheses do.
    let deep = format!("t:[{}a{}]", "NOT(".repeat(17), ")".repeat(17));
    check(&[(&deep, 3 + 16 * 4 + 3, "parentheses are nested more than 16 deep")]);
    check(&[(&format!("t:[{}", "(".repeat(4000)), 3 + 16, "parentheses are nested more than 16 deep")]);

    let long = format!("t:[{}]", "x".repeat(4097 - 4));
    check(&[(&long, 4096, "the query has 4097 bytes, at most 4096 are allowed")]);
    let long = format!("t:[{}]", "é".repeat(2500));
    check(&[(&long, 4095, "the query has 5004 bytes, at most 4096 are allowed")]);
}

#[test]
fn the_error_names_the_byte() {
    let error = Query::parse("AVG:temp:[a AND]").unwrap_err();
    assert_eq!(error.to_string(), "byte 15: expected a tag, NOT or `(`, found `]`");
}
