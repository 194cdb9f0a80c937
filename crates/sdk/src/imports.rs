//! The host's functions, declared once: the linker's declarations and what the tests hold against the ABI's table.

use slung_abi::{Signature, ValueType};

use crate::Region;

/// A Rust type that crosses the border, and what it is there.
trait Crossing {
    const AS: ValueType;
}

impl Crossing for i32 {
    const AS: ValueType = ValueType::I32;
}

impl Crossing for u64 {
    const AS: ValueType = ValueType::I64;
}

impl Crossing for f64 {
    const AS: ValueType = ValueType::F64;
}

/// The address of an argument. The borrow lasts for the call, which is as long as the host may look.
impl Crossing for &Region<'_> {
    const AS: ValueType = ValueType::I32;
}

/// The address of a result, or null.
impl Crossing for *mut Region<'static> {
    const AS: ValueType = ValueType::I32;
}

/// One list, two uses: the imports of a guest, and the table of them.
macro_rules! imports {
    (module $module:literal; $(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        /// Where the host's functions are imported from, each with its signature.
        #[cfg_attr(not(test), expect(dead_code, reason = "held against the ABI's table by a test"))]
        const DECLARED: (&str, &[(&str, Signature)]) = ($module, &[$((
            stringify!($name),
            Signature { params: &[$(<$type as Crossing>::AS),*], result: Some(<$result as Crossing>::AS) },
        )),*]);

        // SAFETY: the names and signatures are those of the ABI, see `DECLARED`. Each function is safe to call: the host
        // reads what a Region describes during the call and keeps nothing, and a Region only ever describes bytes that
        // are borrowed for longer. Every other argument may have any value.
        #[cfg(target_arch = "wasm32")]
        #[link(wasm_import_module = $module)]
        #[expect(unsafe_code, reason = "functions that the host provides")]
        unsafe extern "C" {
            $(pub(crate) safe fn $name($($argument: $type),*) -> $result;)*
        }
    };
}

imports! {
    module "env";
    fn u_query_live(query: &Region<'_>) -> u64;
    fn u_query_history(query: &Region<'_>) -> f64;
    fn u_poll_handle(handle: u64) -> *mut Region<'static>;
    fn u_free_handle(handle: u64) -> i32;
    fn u_write_event(timestamp: &Region<'_>, value: &Region<'_>, tags: &Region<'_>) -> i32;
    fn u_writeback_ws(producer: u64, data: &Region<'_>) -> i32;
    fn u_writeback_http(url: &Region<'_>, body: &Region<'_>, method: i32) -> *mut Region<'static>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_imports_are_those_of_the_abi() {
        let (module, declared) = DECLARED;
        assert_eq!(module, slung_abi::IMPORT_MODULE);
        let table = slung_abi::FUNCTIONS.map(|import| (import.name, import.signature));
        assert_eq!(declared, table);
    }
}
