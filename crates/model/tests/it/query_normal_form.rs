//! Every statement and example of the language about texts that are accepted: what they mean, and how they print.

use std::collections::HashSet;

use slung_model::{Filter, NotLive, Op, Quantile, Query, QueryRange, SeriesKey, Time, TimeRange, Window};

fn parse(text: &str) -> Query {
    Query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Each text, and what it prints as; equal normal forms are equal queries.
fn check(rows: &[(&str, &str)]) {
    for (text, normal) in rows {
        let query = parse(text);
        assert_eq!(query.to_string(), *normal, "{text}");
        assert_eq!(query, parse(normal), "{text}");
    }
}

#[test]
fn examples_of_the_language() {
    check(&[
        ("AVG:temp:[sensor=1]", "AVG:temp:[sensor=1]"),
        ("SUM:requests:[status=200,method=GET]:[1h]", "SUM:requests:[status=200 AND method=GET]:[1h]"),
        (
            "MAX:cpu.total:[region=us-west AND NOT host=test]:[1700000000000000,1700000100000000]",
            "MAX:cpu.total:[region=us-west AND NOT host=test]:[1700000000000000,1700000100000000]",
        ),
        ("MIN:a,b:[x OR y]:[2h,1h]", "MIN:a,b:[x OR y]:[2h,1h]"),
        ("COUNT:errors:[]:[1d]", "COUNT:errors:[]:[1d]"),
        (":temp:[sensor=1]", "temp:[sensor=1]"),
        ("?:temp:[sensor=1]", "temp:[sensor=1]"),
        ("temp:[sensor=1]", "temp:[sensor=1]"),
        (r#"SUM:"job:http":["a b" OR NOT "x]y"]"#, r#"SUM:"job:http":["a b" OR NOT "x]y"]"#),
    ]);
}

#[test]
fn ops() {
    let rows = [
        ("AVG:t:[]", Op::Avg),
        ("avg:t:[]", Op::Avg),
        ("Min:t:[]", Op::Min),
        ("mAX:t:[]", Op::Max),
        ("sum:t:[]", Op::Sum),
        ("count:t:[]", Op::Count),
        ("FIRST:t:[]", Op::First),
        ("last : t:[]", Op::Last),
        ("StdDev:t:[]", Op::StdDev),
        ("rate:t:[]", Op::Rate),
        ("p50:t:[]", Op::Quantile(quantile("50"))),
        ("?:t:[]", Op::Raw),
        (":t:[]", Op::Raw),
        ("t:[]", Op::Raw),
        ("  \t:t:[]", Op::Raw),
        (" ? : t : [ ]", Op::Raw),
    ];
    for (text, op) in rows {
        assert_eq!(parse(text).op(), op, "{text}");
        assert_eq!(parse(text).series().collect::<Vec<_>>(), ["t"], "{text}");
    }
}

fn quantile(percent: &str) -> Quantile {
    Quantile::from_percent(percent).expect("a percentage")
}

#[test]
fn every_op_prints_as_it_is_written() {
    let ops = ["?", "AVG", "MIN", "MAX", "SUM", "COUNT", "FIRST", "LAST", "STDDEV", "RATE", "P50", "P0.001", "P99.999"];
    for name in ops {
        let query = parse(&format!("{name}:t:[]"));
        assert_eq!(query.op().to_string(), name);
        let printed = if name == "?" { "t:[]".to_owned() } else { format!("{name}:t:[]") };
        assert_eq!(query.to_string(), printed);
        assert_eq!(query, parse(&printed));
    }
}

#[test]
fn quantiles() {
    check(&[
        ("P99.9:t:[]", "P99.9:t:[]"),
        (" p99.90 :t:[]", "P99.9:t:[]"),
        ("P99.900:t:[]", "P99.9:t:[]"),
        ("P50.0:t:[]", "P50:t:[]"),
        ("P050:t:[]", "P50:t:[]"),
        ("P0.050:t:[]", "P0.05:t:[]"),
        ("P000.001:t:[]", "P0.001:t:[]"),
        ("P99.999:t:[]", "P99.999:t:[]"),
        ("P10:t:[]", "P10:t:[]"),
        ("P1:t:[]", "P1:t:[]"),
        // A series of that name.
        ("P99:[x]", "P99:[x]"),
        ("P99.9,P0:[x]", "P0,P99.9:[x]"),
        ("P99:P99:[x]", "P99:P99:[x]"),
    ]);
    assert_ne!(parse("P50:t:[]"), parse("P50.001:t:[]"));
    assert_eq!(HashSet::from([parse("P50:t:[]"), parse("p50.0:t:[]"), parse("P050:t:[]")]).len(), 1);
    for thousandths in 1..100_000_u32 {
        let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
        let quantile = quantile(&text);
        assert_eq!(quantile.fraction(), f64::from(thousandths) / 1e5, "{text}");
        assert_eq!(Quantile::from_percent(&quantile.to_string()[1..]), Some(quantile), "{text}");
    }
}

#[test]
fn the_rank_of_a_quantile_is_the_nearest_one_exactly() {
    let rows = [
        ("50", 0, 0),
        ("50", 1, 1),
        ("50", 2, 1),
        ("50", 3, 2),
        ("99", 100, 99),
        ("99", 101, 100),
        ("99.9", 1_000, 999),
        ("0.001", 100_000, 1),
        ("0.001", 100_001, 2),
        ("99.999", 5, 5),
        // As fractions of 1 these would be rounded up to the next.
        ("7", 100, 7),
        ("55", 100, 55),
        ("50", u64::MAX, 1 << 63),
        ("99.999", u64::MAX, 18_446_559_606_268_814_520),
    ];
    for (percent, count, rank) in rows {
        assert_eq!(quantile(percent).rank(count), rank, "P{percent} of {count}");
    }
}

#[test]
fn what_precedes_the_first_colon_is_the_series_list_if_a_bracket_follows() {
    let rows: [(&str, Op, &[&str]); 8] = [
        ("AVG:[x]", Op::Raw, &["AVG"]),
        ("AVG : [x]", Op::Raw, &["AVG"]),
        ("?:[x]", Op::Raw, &["?"]),
        ("count,avg:[x]", Op::Raw, &["avg", "count"]),
        ("AVG:AVG:[x]", Op::Avg, &["AVG"]),
        (":AVG:[x]", Op::Raw, &["AVG"]),
        (r#""AVG":[x]"#, Op::Raw, &["AVG"]),
        (r#""a:b","c:[d":[x]"#, Op::Raw, &["a:b", "c:[d"]),
    ];
    for (text, op, series) in rows {
        let query = parse(text);
        assert_eq!(query.op(), op, "{text}");
        assert_eq!(query.series().collect::<Vec<_>>(), series, "{text}");
        assert_eq!(query, parse(&query.to_string()), "{text}");
    }
}

#[test]
fn series_names() {
    check(&[
        // Sorted, each once.
        ("b,a,b:[]", "a,b:[]"),
        (r#""a",a:[]"#, "a:[]"),
        // Blanks around a name are nothing, those inside belong to it.
        (" cpu total ,\n temp : []", "cpu total,temp:[]"),
        // All but `:` `,` `[` `]` `"` and control characters may stand bare.
        (r"a(b)\c=1.é-\n;{}:[]", r"a(b)\c=1.é-\n;{}:[]"),
        ("and,NOT,now:[]", "NOT,and,now:[]"),
        // Quoted where it is needed, and only there.
        (r#""plain":[]"#, "plain:[]"),
        (r#""a,b":[]"#, r#""a,b":[]"#),
        (r#""[":[]"#, r#""[":[]"#),
        (r#""]":[]"#, r#""]":[]"#),
        (r#"" lead","trail ":[]"#, r#"" lead","trail ":[]"#),
        ("\"\u{a0}\":[]", "\"\u{a0}\":[]"),
        (r#""q\"uote":[]"#, r#""q\"uote":[]"#),
        // A backslash means something in quotes only.
        (r#""back\\slash":[]"#, r"back\slash:[]"),
        (r#""back\\sl:ash":[]"#, r#""back\\sl:ash":[]"#),
    ]);
}

#[test]
fn tags() {
    check(&[
        ("t:[ ]", "t:[]"),
        ("t:[muted]", "t:[muted]"),
        // `:` needs no quotes inside of the brackets.
        ("t:[url=http://a:80/b]", "t:[url=http://a:80/b]"),
        (r#"t:["plain=1"]"#, "t:[plain=1]"),
        (r#"t:["a b"]"#, r#"t:["a b"]"#),
        (r#"t:["a,b" AND "[" AND "]" AND "(" AND ")"]"#, r#"t:["a,b" AND "[" AND "]" AND "(" AND ")"]"#),
        (r#"t:["a\"b\\c"]"#, r#"t:["a\"b\\c"]"#),
        (r#"t:["b\\c"]"#, r"t:[b\c]"),
        (r"t:[b\c]", r"t:[b\c]"),
        (r#"t:["AND" OR "or" OR "Not"]"#, r#"t:["AND" OR "or" OR "Not"]"#),
        ("t:[ANDy OR NOTE OR nor]", "t:[ANDy OR NOTE OR nor]"),
        ("t:[now OR AVG OR 5m]", "t:[now OR AVG OR 5m]"),
        (r#"t:[""]"#, r#"t:[""]"#),
        ("t:[\u{a0}a\u{a0}OR\u{a0}é]", "t:[a OR é]"),
        ("t:[a\tOR\r\nb]", "t:[a OR b]"),
    ]);
}

#[test]
fn connectors() {
    check(&[
        // `,` is AND, letter case is ignored.
        ("t:[a,b]", "t:[a AND b]"),
        ("t:[a and b]", "t:[a AND b]"),
        ("t:[a oR b]", "t:[a OR b]"),
        ("t:[a anD noT b]", "t:[a AND NOT b]"),
        // One precedence, from left to right.
        ("t:[a AND b OR c]", "t:[a AND b OR c]"),
        ("t:[(a AND b) OR c]", "t:[a AND b OR c]"),
        ("t:[a OR b AND c]", "t:[a OR b AND c]"),
        ("t:[(a OR b) AND c]", "t:[a OR b AND c]"),
        ("t:[a OR (b AND c)]", "t:[a OR (b AND c)]"),
        ("t:[a AND (b OR c)]", "t:[a AND (b OR c)]"),
        ("t:[a,b OR c,d]", "t:[a AND b OR c AND d]"),
        // NOT before an operand, between two, and twice.
        ("t:[NOT a]", "t:[NOT a]"),
        ("t:[a NOT b]", "t:[a AND NOT b]"),
        ("t:[a AND NOT b]", "t:[a AND NOT b]"),
        ("t:[a, NOT b]", "t:[a AND NOT b]"),
        ("t:[a NOT NOT b]", "t:[a AND b]"),
        ("t:[a OR NOT b]", "t:[a OR NOT b]"),
        ("t:[a OR b NOT c]", "t:[a OR b AND NOT c]"),
        ("t:[NOT NOT a]", "t:[a]"),
        ("t:[NOT NOT NOT a]", "t:[NOT a]"),
        ("t:[NOT a AND b]", "t:[NOT a AND b]"),
        ("t:[NOT (a AND b)]", "t:[NOT (a AND b)]"),
        ("t:[NOT(a)]", "t:[NOT a]"),
        ("t:[NOT (NOT a)]", "t:[a]"),
        ("t:[a NOT (NOT (b AND c))]", "t:[a AND b AND c]"),
        // Blanks are needed between words only.
        (r#"t:["a"OR"b"AND(c)NOT(d)]"#, "t:[a OR b AND c AND NOT d]"),
        // Parentheses that change nothing.
        ("t:[(((a)))]", "t:[a]"),
        ("t:[(a AND b) AND (c AND d)]", "t:[a AND b AND c AND d]"),
        ("t:[a OR (b OR (c OR d))]", "t:[a OR b OR c OR d]"),
        ("t:[a AND (b OR c AND d)]", "t:[a AND (b OR c) AND d]"),
        // Nothing is reordered, nothing is computed.
        ("t:[b AND a AND b]", "t:[b AND a AND b]"),
        ("t:[a OR NOT a]", "t:[a OR NOT a]"),
    ]);
    assert_ne!(parse("t:[a AND b]"), parse("t:[b AND a]"));
}

#[test]
fn filter_has_the_documented_shape() {
    let tag = |name: &str| Filter::Tag(name.into());
    assert_eq!(*parse("t:[]").filter(), Filter::All);
    assert_eq!(*parse("t:[a,b OR c]").filter(), Filter::Or(vec![Filter::And(vec![tag("a"), tag("b")]), tag("c")]));
    assert_eq!(*parse("t:[a NOT b]").filter(), Filter::And(vec![tag("a"), Filter::Not(Box::new(tag("b")))]));
}

#[test]
fn ranges() {
    check(&[
        ("t:[]:[5m]", "t:[]:[5m]"),
        ("t:[]:[5m,now]", "t:[]:[5m]"),
        ("t:[]:[now,5m]", "t:[]:[5m]"),
        ("t:[]:[5m,0s]", "t:[]:[5m]"),
        ("t:[] : [ 5 m , NOW ] ", "t:[]:[5m]"),
        ("t:[]:[1 minute,now]", "t:[]:[1m]"),
        ("t:[]:[2weeks,now]", "t:[]:[2w]"),
        ("t:[]:[now]", "t:[]:[now]"),
        ("t:[]:[0s]", "t:[]:[now]"),
        ("t:[]:[now,now]", "t:[]:[now]"),
        ("t:[]:[1h,2h]", "t:[]:[2h,1h]"),
        ("t:[]:[2h,1h]", "t:[]:[2h,1h]"),
        ("t:[]:[9,5]", "t:[]:[5,9]"),
        ("t:[]:[5,9]", "t:[]:[5,9]"),
        ("t:[]:[0007,00]", "t:[]:[0,7]"),
        ("t:[]:[5]", "t:[]:[5]"),
        ("t:[]:[now,5]", "t:[]:[5]"),
        ("t:[]:[5m,5]", "t:[]:[5,5m]"),
        ("t:[]:[9223372036854775807]", "t:[]:[9223372036854775807]"),
        ("t:[]:[9223372036854775807us]", "t:[]:[9223372036854775807us]"),
        ("t:[]:[15250284w]", "t:[]:[15250284w]"),
        // The largest unit that is exact.
        ("t:[]:[60s]", "t:[]:[1m]"),
        ("t:[]:[61s]", "t:[]:[61s]"),
        ("t:[]:[90 min]", "t:[]:[90m]"),
        ("t:[]:[168h]", "t:[]:[1w]"),
        ("t:[]:[8d]", "t:[]:[8d]"),
        ("t:[]:[1000us]", "t:[]:[1ms]"),
        ("t:[]:[1500000us]", "t:[]:[1500ms]"),
        ("t:[]:[1 us]", "t:[]:[1us]"),
    ]);
}

#[test]
fn units_have_many_names() {
    let rows: [(&[&str], i64); 7] = [
        (&["s", "sec", "secs", "second", "seconds", "SEC"], 1_000_000),
        (&["m", "min", "mins", "minute", "minutes", "M"], 60_000_000),
        (&["h", "hr", "hrs", "hour", "hours", "Hrs"], 3_600_000_000),
        (&["d", "day", "days", "DAYS"], 86_400_000_000),
        (&["w", "wk", "wks", "week", "weeks", "Week"], 604_800_000_000),
        (&["ms", "MS"], 1000),
        (&["us", "Us"], 1),
    ];
    for (names, micros) in rows {
        for name in names {
            for text in [format!("t:[]:[3{name}]"), format!("t:[]:[3 {name} , now]"), format!("t:[]:[3\t{name}]")] {
                let range = QueryRange { start: Time::Ago(3 * micros), end: Time::Ago(0) };
                assert_eq!(parse(&text).range(), Some(range), "{text}");
            }
        }
    }
}

#[test]
fn ranges_of_historical_queries() {
    let rows = [
        ("t:[]", TimeRange::ALL),
        ("t:[]:[100]", TimeRange { start: 100, end: 1_000_000 }),
        ("t:[]:[5000000]", TimeRange { start: 1_000_000, end: 5_000_000 }),
        ("t:[]:[7,3]", TimeRange { start: 3, end: 7 }),
        ("t:[]:[now]", TimeRange { start: 1_000_000, end: 1_000_000 }),
        ("t:[]:[1s]", TimeRange { start: 0, end: 1_000_000 }),
        ("t:[]:[1ms,2s]", TimeRange { start: -1_000_000, end: 999_000 }),
        ("t:[]:[1s,50]", TimeRange { start: 0, end: 50 }),
        ("t:[]:[1ms,50]", TimeRange { start: 50, end: 999_000 }),
    ];
    for (text, range) in rows {
        assert_eq!(parse(text).time_range(1_000_000), range, "{text}");
    }
    let longest = parse("t:[]:[9223372036854775807us]").time_range(-2);
    assert_eq!(longest, TimeRange { start: i64::MIN, end: -2 }, "stops at the end of time");
}

#[test]
fn ranges_of_live_queries() {
    let sliding = |width_micros| Ok(Window::Sliding { width_micros });
    let rows = [
        ("t:[]", Ok(Window::Running)),
        ("t:[]:[5m]", sliding(300_000_000)),
        ("t:[]:[5m,now]", sliding(300_000_000)),
        ("t:[]:[now,5m]", sliding(300_000_000)),
        ("t:[]:[now]", sliding(0)),
        ("t:[]:[0s]", sliding(0)),
        ("t:[]:[9,5]", Ok(Window::Absolute(TimeRange { start: 5, end: 9 }))),
        ("t:[]:[9,9]", Ok(Window::Absolute(TimeRange { start: 9, end: 9 }))),
        ("t:[]:[2h,1h]", Err(NotLive::Range)),
        ("t:[]:[1h,1h]", Err(NotLive::Range)),
        ("t:[]:[9]", Err(NotLive::Range)),
        ("t:[]:[9,5m]", Err(NotLive::Range)),
        ("t:[]:[5m,9]", Err(NotLive::Range)),
        ("t:[]:[now,9]", Err(NotLive::Range)),
    ];
    for (text, window) in rows {
        assert_eq!(parse(text).window(), window, "{text}");
    }
}

#[test]
fn what_only_a_historical_query_computes_is_not_live() {
    for range in ["", ":[5m]", ":[1,2]", ":[2h,1h]"] {
        let text = format!("  RATE:t:[a]{range}");
        let error = parse(&text).window().unwrap_err();
        assert_eq!((error, error.at(&text)), (NotLive::Op(Op::Rate), 2));
        assert!(error.to_string().starts_with("RATE is for historical queries only: it needs"), "{error}");
    }
    for op in ["?", "AVG", "MIN", "MAX", "SUM", "COUNT", "FIRST", "LAST", "STDDEV", "P50", "P99.9"] {
        assert_eq!(parse(&format!("{op}:t:[a]:[5m]")).window(), Ok(Window::Sliding { width_micros: 300_000_000 }));
    }
    for (text, at) in [("t:[a]:[2h,1h]", 6), (r#"t:["]:["]:[9] "#, 10)] {
        let error = parse(text).window().unwrap_err();
        assert_eq!((error, error.at(text)), (NotLive::Range, at));
    }
}

#[test]
fn matches_by_name_and_exact_tags() {
    let key = SeriesKey::new("temp", ["sensor=1", "muted", "a b", ""]).unwrap();
    let rows = [
        ("temp:[]", true),
        ("other,temp:[]", true),
        ("tem:[]", false),
        ("temperature:[]", false),
        ("Temp:[]", false),
        ("temp:[muted]", true),
        ("temp:[Muted]", false),
        ("temp:[sensor]", false),
        ("temp:[sensor=1 AND muted]", true),
        ("temp:[sensor=2 OR muted]", true),
        ("temp:[NOT sensor=2]", true),
        ("temp:[sensor=1 NOT muted]", false),
        ("temp:[sensor=2 AND muted OR sensor=1]", true),
        ("temp:[sensor=1 OR muted AND no]", false),
        ("temp:[sensor=1 OR (muted AND no)]", true),
        (r#"temp:["a b"]"#, true),
        (r#"temp:["a" OR "b"]"#, false),
        (r#"temp:[""]"#, true),
    ];
    for (text, expected) in rows {
        assert_eq!(parse(text).matches(&key), expected, "{text}");
    }
}

#[test]
fn limits_are_reached_but_not_passed() {
    let series: Vec<String> = (10..26).map(|n| format!("s{n}")).collect();
    assert_eq!(parse(&format!("{}:[]", series.join(","))).series().len(), 16);

    let tags = vec!["x"; 64].join(" OR ");
    assert!(matches!(parse(&format!("t:[{tags}]")).filter(), Filter::Or(parts) if parts.len() == 64));

    let deep = format!("t:[{}a{}]", "(".repeat(16), ")".repeat(16));
    assert_eq!(parse(&deep).to_string(), "t:[a]");

    let long = format!("t:[{}]", "x".repeat(4096 - 4));
    assert_eq!(parse(&long).to_string(), long);
}

#[test]
fn a_thousand_nots_are_a_matter_of_parity() {
    let nots = "NOT ".repeat(1000);
    assert_eq!(parse(&format!("t:[{nots}a]")), parse("t:[a]"));
    assert_eq!(parse(&format!("t:[{nots}NOT a]")), parse("t:[NOT a]"));
}

#[test]
fn the_deepest_trees_print_and_parse() {
    // 64 operands whose connectors alternate nest to the left, 63 deep, without a parenthesis.
    let mut left = "x0".to_owned();
    for index in 1..64 {
        left += if index % 2 == 0 { " AND " } else { " OR " };
        left += &format!("x{index}");
    }
    let left = format!("t:[{left}]");
    assert_eq!(parse(&left).to_string(), left);

    // To the right with parentheses, as deep as they may go.
    let mut right = String::new();
    for index in 0..16 {
        right += &format!("x{index} {} NOT (", if index % 2 == 0 { "AND" } else { "OR" });
    }
    let right = format!("t:[{right}a AND b{}]", ")".repeat(16));
    assert_eq!(parse(&right).to_string(), right);
}

/// A text at the limit that leaves out every blank it can has a normal form that is over the limit. If it printed so,
/// it would be refused when read back.
#[test]
fn a_query_whose_normal_form_is_too_long_prints_as_it_was_written() {
    let most = (0..62).map(|n| format!(r#""{n:02} {}""#, "x".repeat(54))).collect::<Vec<_>>();
    for connector in ["OR", ",", "NOT", "OR NOT", ",NOT"] {
        let tags = most.join(connector);
        let last = "y".repeat(4096 - format!("t:[({tags}),]").len());
        let [text, other] = [format!("t:[{tags},{last}]"), format!("t:[({tags}),{last}]")];
        assert_eq!(other.len(), 4096);
        assert_eq!(parse(&text).to_string(), text);
        assert_eq!(parse(&other).to_string(), other);
        assert_eq!(parse(&text), parse(&other), "how it was written is no part of what it means");
        assert_eq!(HashSet::from([parse(&text), parse(&other)]).len(), 1);
    }
    let tags = vec!["a b".repeat(10); 64];
    let commas = format!("t:[\"{}\"]", tags.join("\",\""));
    assert_eq!(parse(&commas).to_string(), commas.replace(',', " AND "), "well below the limit");
}
