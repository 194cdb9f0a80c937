//! How a workflow begins and ends: what `call` runs, and what it answers.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

use slung_abi::CallResult;

/// What `main` of a workflow answers: nothing, or a result whose error can be printed.
#[diagnostic::on_unimplemented(
    message = "a workflow's `main` can't answer `{Self}`",
    label = "not `()` and not a `Result<(), E>` with an error that can be printed",
    note = "write `fn main() -> Result<()>`, with `Result` from `slung::prelude`"
)]
pub trait Outcome {
    /// The same, with any error boxed.
    ///
    /// # Errors
    /// The workflow's own.
    fn into_result(self) -> Result<(), Box<dyn Error>>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), Box<dyn Error>> {
        Ok(())
    }
}

impl<E: Into<Box<dyn Error>>> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), Box<dyn Error>> {
        self.map_err(Into::into)
    }
}

/// Runs a workflow for the host: 0 = done, 1 = it returned an error (now on stderr), 2 = it panicked (which the panic
/// itself has printed). Where panics abort, as in release builds of guests, the third is a trap instead.
#[expect(clippy::print_stderr, reason = "a workflow's stderr is its log")]
pub fn call<O: Outcome>(workflow: fn() -> O) -> i32 {
    let result = match catch_unwind(AssertUnwindSafe(|| workflow().into_result())) {
        Err(_) => CallResult::Panic,
        Ok(Ok(())) => CallResult::Done,
        Ok(Err(error)) => {
            eprintln!("error: {}", chain(&*error));
            CallResult::Error
        }
    };
    result.code()
}

/// The error and what caused it, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_answers_how_it_ended() {
        fn failed() -> std::io::Result<()> {
            Err(std::io::Error::other("no luck"))
        }
        assert_eq!(call(|| ()), 0);
        assert_eq!(call(|| Ok::<(), std::io::Error>(())), 0);
        assert_eq!(call(failed), 1);
        assert_eq!(call(|| Err::<(), &str>("any error that can be printed")), 1);
        assert_eq!(call(|| -> Result<(), Box<dyn Error>> { Err("boxed".into()) }), 1);
        assert_eq!(call(|| -> () { panic!("caught") }), 2);
    }

    #[test]
    fn causes_are_printed() {
        #[derive(Debug)]
        struct Outer(std::io::Error);
        impl std::fmt::Display for Outer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("reading the answer")
            }
        }
        impl Error for Outer {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }
        assert_eq!(chain(&Outer(std::io::Error::other("no luck"))), "reading the answer: no luck");
    }
}
