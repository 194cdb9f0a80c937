//! `query!`: a literal goes through the one parser of the query language while it is compiled.

use proc_macro2::TokenStream;
use quote::ToTokens;
use slung_model::{Query, QueryError};
use syn::{Error, LitStr};

/// The literal itself, once it is known to be a query.
pub(crate) fn expand(input: TokenStream) -> Result<TokenStream, Error> {
    if input.is_empty() {
        let what = "query! takes the text of a query: query!(\"AVG:temp:[sensor=1]:[5m]\")";
        return Err(Error::new(proc_macro2::Span::call_site(), what));
    }
    let literal: LitStr = syn::parse2(input.clone()).map_err(|_| {
        let what = "query! takes one string literal; pass a text that is made at run time as it is, the host checks it";
        Error::new_spanned(&input, what)
    })?;
    let text = literal.value();
    match Query::parse(&text) {
        Ok(_) => Ok(literal.into_token_stream()),
        Err(error) => Err(Error::new(literal.span(), explain(&text, &error))),
    }
}

/// The reason, and under it the line with a mark below the byte where it is wrong.
fn explain(text: &str, error: &QueryError) -> String {
    let at = text.floor_char_boundary(error.at.min(text.len()));
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    let indent = text[start..at].chars().count();
    format!("not a query: {error}\n  {line}\n  {blank:indent$}^", line = &text[start..end], blank = "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(input: &str) -> Result<String, String> {
        expand(input.parse().unwrap()).map(|tokens| tokens.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_query_is_its_own_literal() {
        for input in ["\"AVG:temp:[sensor=1]:[5m]\"", "r#\"SUM:\"job:http\":[]\"#", "\"temp:[]\""] {
            assert_eq!(expanded(input).as_deref(), Ok(input));
        }
    }

    #[test]
    fn the_error_shows_byte_and_reason() {
        let text = "AVG:temp:[a OR]";
        let reason = Query::parse(text).unwrap_err();
        let expected = format!("not a query: {reason}\n  {text}\n  {}^", " ".repeat(reason.at));
        assert_eq!(expanded(&format!("{text:?}")), Err(expected));
        assert_eq!(reason.at, 14, "the bracket where a tag should be");
    }

    #[test]
    fn the_mark_counts_characters_of_its_line() {
        let error = QueryError { at: "AVG:\nwärme:[x".len(), what: "wrong".into() };
        assert_eq!(explain("AVG:\nwärme:[x\n]", &error), "not a query: byte 14: wrong\n  wärme:[x\n          ^");
        let beyond = QueryError { at: 99, what: "wrong".into() };
        assert_eq!(explain("é", &beyond), "not a query: byte 99: wrong\n  é\n   ^");
        let inside = QueryError { at: 1, what: "wrong".into() };
        assert_eq!(explain("é", &inside), "not a query: byte 1: wrong\n  é\n  ^");
        assert_eq!(explain("", &QueryError { at: 0, what: "empty".into() }), "not a query: byte 0: empty\n  \n  ^");
    }

    #[test]
    fn anything_but_one_literal_is_refused() {
        for (input, what) in [
            ("", "takes the text of a query"),
            ("QUERY", "one string literal"),
            ("\"temp:[]\", 1", "one string literal"),
            ("b\"temp:[]\"", "one string literal"),
            ("concat!(\"temp\", \":[]\")", "one string literal"),
        ] {
            let error = expanded(input).unwrap_err();
            assert!(error.contains(what), "{input}: {error}");
        }
    }
}
