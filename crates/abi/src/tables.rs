//! The border as data: what a module imports and exports, by name and signature. A host's linker, the check of a module
//! and a guest's declarations are held against these tables.

use ValueType::{F64, I32, I64};

/// The import module of the host's functions.
pub const IMPORT_MODULE: &str = "env";
/// The import module of WASI preview 1, which is provided beside it.
pub const WASI_MODULE: &str = "wasi_snapshot_preview1";

/// The types of WebAssembly values that this ABI uses. Addresses are i32, read as unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// 64-bit float.
    F64,
}

/// What a function takes and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature {
    /// Its parameters, in order.
    pub params: &'static [ValueType],
    /// Its one result, if it has one.
    pub result: Option<ValueType>,
}

/// A function that the host provides in [`IMPORT_MODULE`]. Its number is its place in [`FUNCTIONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostFunction {
    /// Region of a query's text -> handle, or 0 on failure.
    QueryLive,
    /// Region of a query's text -> the aggregate, or 0.0 on failure (or where that is the answer).
    QueryHistory,
    /// Handle -> Region of one event as JSON, or 0 where there is none now, or on failure.
    PollHandle,
    /// Handle -> 0 if it was freed.
    FreeHandle,
    /// Regions of timestamp, value and tags, all as text -> 0 if the event was accepted.
    WriteEvent,
    /// Producer id, Region of data -> 0 if it was handed to that connection.
    WritebackWs,
    /// Regions of URL and body, method -> Region of the response's body, or 0 if that is empty, or on failure.
    WritebackHttp,
}

/// A row of the table of imports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Import {
    /// Which function.
    pub function: HostFunction,
    /// Its name in [`IMPORT_MODULE`].
    pub name: &'static str,
    /// What it takes and answers.
    pub signature: Signature,
}

/// What the host provides in [`IMPORT_MODULE`].
pub const FUNCTIONS: [Import; 7] = [
    import(HostFunction::QueryLive, "u_query_live", &[I32], I64),
    import(HostFunction::QueryHistory, "u_query_history", &[I32], F64),
    import(HostFunction::PollHandle, "u_poll_handle", &[I64], I32),
    import(HostFunction::FreeHandle, "u_free_handle", &[I64], I32),
    import(HostFunction::WriteEvent, "u_write_event", &[I32, I32, I32], I32),
    import(HostFunction::WritebackWs, "u_writeback_ws", &[I64, I32], I32),
    import(HostFunction::WritebackHttp, "u_writeback_http", &[I32, I32, I32], I32),
];

const fn import(function: HostFunction, name: &'static str, params: &'static [ValueType], result: ValueType) -> Import {
    Import { function, name, signature: Signature { params, result: Some(result) } }
}

impl HostFunction {
    /// Its place in [`FUNCTIONS`].
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Its name in [`IMPORT_MODULE`].
    pub const fn name(self) -> &'static str {
        FUNCTIONS[self.index()].name
    }
}

/// What is exported under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExportKind {
    /// A linear memory with 32-bit addresses.
    Memory,
    /// A function.
    Function(Signature),
}

/// Whether a module has to have an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Needed {
    /// It has to.
    Always,
    /// It is an entry point: of these one is needed, and the first in the table's order is used.
    Entry,
    /// It is used where it is there.
    Optional,
}

/// A row of the table of exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Export {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: ExportKind,
    /// Whether it has to be there.
    pub needed: Needed,
}

/// What a module exports.
pub const EXPORTS: [Export; 6] = [
    Export { name: "memory", kind: ExportKind::Memory, needed: Needed::Always },
    export("allocate", &[I32], Some(I32), Needed::Always),
    export("deallocate", &[I32], None, Needed::Always),
    export("call", &[], Some(I32), Needed::Entry),
    export("_start", &[], None, Needed::Entry),
    export("_initialize", &[], None, Needed::Optional),
];

const fn export(name: &'static str, params: &'static [ValueType], result: Option<ValueType>, needed: Needed) -> Export {
    Export { name, kind: ExportKind::Function(Signature { params, result }), needed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_stand_at_their_number() {
        for (index, import) in FUNCTIONS.iter().enumerate() {
            assert_eq!(import.function.index(), index);
            assert_eq!(import.function.name(), import.name);
        }
    }

    #[test]
    fn names_are_unique() {
        for (index, import) in FUNCTIONS.iter().enumerate() {
            assert!(FUNCTIONS[..index].iter().all(|other| other.name != import.name));
        }
        for (index, export) in EXPORTS.iter().enumerate() {
            assert!(EXPORTS[..index].iter().all(|other| other.name != export.name));
        }
    }
}
