//! `#[main]`: what makes a function the entry point of a workflow, and what a wrong signature is told.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, ItemFn, ReturnType, Safety, Signature};

/// The function as it was, and beside it the export `call`.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    if !arguments.is_empty() {
        let error = Error::new_spanned(&arguments, "#[main] takes no arguments").into_compile_error();
        return quote!(#error #item);
    }
    let function: ItemFn = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(_) => {
            let error = Error::new_spanned(&item, "#[main] belongs on a function: `fn main() -> Result<()>`");
            let error = error.into_compile_error();
            return quote!(#error #item);
        }
    };
    match check(&function.sig) {
        Ok(()) => export(&function),
        Err(error) => {
            // An empty `main`, so that the compiler does not also complain that there is none.
            let error = error.into_compile_error();
            quote!(#error fn main() {})
        }
    }
}

fn export(function: &ItemFn) -> TokenStream {
    let answered = match &function.sig.output {
        ReturnType::Default => function.sig.ident.span(),
        ReturnType::Type(_, answered) => answered.span(),
    };
    // Spanned, so that an answer that is no outcome is marked where it is written.
    let run = quote_spanned!(answered=> ::slung::entry::call(main));
    // Checked on every target, exported where there is a host to call it.
    quote! {
        #function

        const _: () = {
            #[cfg_attr(target_arch = "wasm32", unsafe(export_name = "call"))]
            #[allow(dead_code, reason = "called by the host")]
            extern "C" fn call() -> i32 {
                #run
            }
        };
    }
}

/// Every complaint at once, each at its place.
fn check(signature: &Signature) -> Result<(), Error> {
    let mut complaints: Vec<Error> = Vec::new();
    let mut refuse = |place: &dyn ToTokens, what: &str| complaints.push(Error::new_spanned(place, what));
    if signature.ident != "main" {
        refuse(&signature.ident, "a workflow starts at `main`: rename this function");
    }
    if let Some(place) = &signature.asyncness {
        refuse(place, "a workflow is not async: it waits by polling, which costs nothing while nothing arrives");
    }
    if let Safety::Unsafe(place) = &signature.safety {
        refuse(place, "the host calls `main`, so it can't be unsafe");
    }
    if let Some(place) = &signature.abi {
        refuse(place, "`main` is a plain Rust function; what the host calls is made for it");
    }
    if !signature.generics.params.is_empty() {
        refuse(&signature.generics.params, "`main` can't be generic: nobody names the types");
    }
    if let Some(place) = &signature.generics.where_clause {
        refuse(place, "`main` can't be generic: nobody names the types");
    }
    if !signature.inputs.is_empty() {
        let what = "`main` takes no arguments; a workflow is configured by its environment: `std::env::var(\"NAME\")`";
        refuse(&signature.inputs, what);
    }
    complaints
        .into_iter()
        .reduce(|mut all, next| {
            all.combine(next);
            all
        })
        .map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(arguments: &str, item: &str) -> String {
        expand(arguments.parse().unwrap(), item.parse().unwrap()).to_string()
    }

    fn complaints(item: &str) -> Vec<String> {
        let function: ItemFn = syn::parse_str(item).unwrap();
        match check(&function.sig) {
            Ok(()) => Vec::new(),
            Err(error) => error.into_iter().map(|one| one.to_string()).collect(),
        }
    }

    #[test]
    fn the_function_stays_as_it_is_and_call_is_exported_beside_it() {
        let item = "# [doc = \"Hello\"] fn main () -> Result < () > { work () }";
        let text = expanded("", item);
        assert!(text.starts_with(item), "{text}");
        assert!(text.contains("unsafe (export_name = \"call\")"), "{text}");
        assert!(text.contains(":: slung :: entry :: call (main)"), "{text}");
        assert!(!text.contains("compile_error"), "{text}");
    }

    #[test]
    fn signatures_that_can_be_called() {
        for item in ["fn main() {}", "fn main() -> Result<()> {}", "pub fn main() -> Result<(), Box<dyn Error>> {}"] {
            assert_eq!(complaints(item), Vec::<String>::new(), "{item}");
        }
    }

    #[test]
    fn signatures_that_can_not() {
        for (item, what) in [
            ("fn start() {}", "starts at `main`"),
            ("async fn main() {}", "not async"),
            ("unsafe fn main() {}", "unsafe"),
            ("extern \"C\" fn main() {}", "plain Rust function"),
            ("fn main<T>() {}", "generic"),
            ("fn main<'a>() {}", "generic"),
            ("fn main() where u8: Copy {}", "generic"),
            ("fn main(threshold: f64) {}", "takes no arguments"),
        ] {
            let found = complaints(item);
            assert_eq!(found.len(), 1, "{item}: {found:?}");
            assert!(found[0].contains(what), "{item}: {found:?}");
        }
        assert_eq!(complaints("async fn start<T>(t: T) {}").len(), 4, "all of them are told at once");
    }

    #[test]
    fn a_refused_function_leaves_an_empty_main_behind() {
        let text = expanded("", "async fn main() { work().await }");
        assert!(text.contains("compile_error"), "{text}");
        assert!(text.ends_with("fn main () { }"), "{text}");
    }

    #[test]
    fn arguments_and_other_items_are_refused() {
        let text = expanded("threads = 2", "fn main() {}");
        assert!(text.contains("takes no arguments"), "{text}");
        let text = expanded("", "struct Main;");
        assert!(text.contains("belongs on a function") && text.ends_with("struct Main ;"), "{text}");
    }
}
