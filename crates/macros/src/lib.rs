//! `#[main]` and `query!`, for `slung-sdk`: what a workflow needs of the compiler.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod entry;
mod query;

use proc_macro::TokenStream;

/// Makes `fn main` the entry point of a workflow.
///
/// The function takes nothing and answers nothing, or a `Result<(), E>` whose error can be printed. It stays an ordinary
/// `main`: natively it runs with `cargo run`, and a test calls it like any function. Compiled for wasm32 the module also
/// exports `call`, which runs it and answers 0 when it is done and 1 when it returned an error, which goes to stderr. A
/// panic answers 2 where panics unwind, and traps where they abort.
///
/// Used as `slung::main`; see the crate `slung-sdk`.
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    entry::expand(arguments.into(), item.into()).into()
}

/// A query that is checked when it is compiled.
///
/// Takes one string literal and is that literal, a `&'static str`. A text that is no query does not compile; the error
/// shows the byte and the reason.
///
/// Used as `slung::query!`; see the crate `slung-sdk`.
#[proc_macro]
pub fn query(input: TokenStream) -> TokenStream {
    query::expand(input.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
