//! The texts of `u_write_event`: numbers and tags, read strictly.

/// Microseconds as decimal text: digits, with `-` before them or not. Nothing else, no blanks.
///
/// # Errors
/// Anything else, and what does not fit i64.
pub(crate) fn timestamp(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("timestamp: {text:?} is no whole number of microseconds"));
    }
    text.parse().map_err(|_| format!("timestamp: {text} is out of range"))
}

/// A finite value as decimal text: digits with at most one point among them, `-` before and an exponent (`e`, sign,
/// digits) after, or not. Nothing else: no blanks, no `+` before, no `inf` or `nan`.
///
/// # Errors
/// Anything else, and what is too large to be finite.
pub(crate) fn value(text: &str) -> Result<f64, String> {
    let allowed = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
    if text.starts_with('+') || !text.bytes().all(allowed) {
        return Err(format!("value: {text:?} is no decimal number"));
    }
    let value: f64 = text.parse().map_err(|_| format!("value: {text:?} is no decimal number"))?;
    if value.is_finite() { Ok(value) } else { Err(format!("value: {text} is out of range")) }
}

/// Series name and tags out of comma-separated text: `series=NAME` names the series, every other token is a tag. Blanks
/// (space, tab) around a token or a name don't count, empty tokens are passed over. Names and tags with commas in them
/// can't be written this way.
///
/// # Errors
/// No series, an empty one, or more than one.
pub(crate) fn event_tags(text: &str) -> Result<(&str, Vec<&str>), String> {
    let mut series = None;
    let mut tags = Vec::new();
    for token in text.split(',').map(trim).filter(|token| !token.is_empty()) {
        let Some(name) = token.strip_prefix("series=") else {
            tags.push(token);
            continue;
        };
        if series.replace(trim(name)).is_some() {
            return Err("tags: more than one series=NAME".to_owned());
        }
    }
    match series {
        Some("") => Err("tags: the name in series=NAME is empty".to_owned()),
        Some(name) => Ok((name, tags)),
        None => Err("tags: no series=NAME".to_owned()),
    }
}

fn trim(part: &str) -> &str {
    part.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps() {
        for (text, number) in [
            ("0", 0),
            ("-0", 0),
            ("007", 7),
            ("1700000000000000", 1_700_000_000_000_000),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(timestamp(text), Ok(number), "{text}");
        }
        for text in ["", "-", "+1", " 1", "1 ", "1\n", "1\0", "1.0", "1e3", "--1", "0x10", "١", "9223372036854775808"]
        {
            assert!(timestamp(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn values() {
        for (text, number) in
            [("0", 0.0), ("-21.5", -21.5), (".5", 0.5), ("5.", 5.0), ("1e3", 1e3), ("1E-2", 0.01), ("1e+06", 1e6)]
        {
            assert_eq!(value(text), Ok(number), "{text}");
        }
        for text in ["", "-", ".", "+1", " 1", "1 ", "1,5", "1_000", "0x10", "inf", "-inf", "nan", "NaN", "1e999", "e5"]
        {
            assert!(value(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn tags() {
        for (text, series, tags) in [
            ("series=temp", "temp", &[][..]),
            ("series=temp,env=prod,muted", "temp", &["env=prod", "muted"]),
            ("env=prod,series=temp", "temp", &["env=prod"]),
            (" a=1 , series= temp ,\t, b = 2,", "temp", &["a=1", "b = 2"]),
            ("series=series=x,Series=y", "series=x", &["Series=y"]),
            ("series=ü,a=1,a=1", "ü", &["a=1", "a=1"]),
        ] {
            assert_eq!(event_tags(text), Ok((series, tags.to_vec())), "{text}");
        }
        for text in ["", ",,", "temp", "series", "series=", "series= ,a=1", "series=a,series=b", "series=a,series=a"] {
            assert!(event_tags(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_as_rust_writes_them_are_read(time in any::<i64>(), number in any::<f64>()) {
            prop_assert_eq!(timestamp(&time.to_string()), Ok(time));
            if number.is_finite() {
                prop_assert_eq!(value(&number.to_string()), Ok(number));
                prop_assert_eq!(value(&format!("{number:e}")), Ok(number));
            } else {
                prop_assert!(value(&number.to_string()).is_err());
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = timestamp(&text);
            prop_assert!(value(&text).map_or(true, f64::is_finite));
            if let Ok((series, tags)) = event_tags(&text) {
                prop_assert!(!series.is_empty() && tags.iter().all(|tag| !tag.is_empty()));
            }
        }
    }
}
