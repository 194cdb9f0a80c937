//! The tables against the contract's own words: a change to either shows.

use slung_abi::{EXPORTS, ExportKind, FUNCTIONS, Needed, Signature, ValueType};

fn signature(signature: Signature) -> String {
    let name = |value: &ValueType| match value {
        ValueType::I32 => "i32",
        ValueType::I64 => "i64",
        ValueType::F64 => "f64",
    };
    let params: Vec<_> = signature.params.iter().map(name).collect();
    let result = signature.result.map_or(String::new(), |result| format!(" -> {}", name(&result)));
    format!("({}){result}", params.join(", "))
}

#[test]
fn imports() {
    let rows: Vec<_> = FUNCTIONS.iter().map(|row| (row.name, signature(row.signature))).collect();
    let expected = [
        ("u_query_live", "(i32) -> i64"),
        ("u_query_history", "(i32) -> f64"),
        ("u_poll_handle", "(i64) -> i32"),
        ("u_free_handle", "(i64) -> i32"),
        ("u_write_event", "(i32, i32, i32) -> i32"),
        ("u_writeback_ws", "(i64, i32) -> i32"),
        ("u_writeback_http", "(i32, i32, i32) -> i32"),
    ];
    assert_eq!(rows, expected.map(|(name, signature)| (name, signature.to_owned())));
}

#[test]
fn exports() {
    let rows: Vec<_> = EXPORTS
        .iter()
        .map(|row| {
            let kind = match row.kind {
                ExportKind::Memory => "memory".to_owned(),
                ExportKind::Function(of) => signature(of),
            };
            (row.name, kind, row.needed)
        })
        .collect();
    let expected = [
        ("memory", "memory", Needed::Always),
        ("allocate", "(i32) -> i32", Needed::Always),
        ("deallocate", "(i32)", Needed::Always),
        ("call", "() -> i32", Needed::Entry),
        ("_start", "()", Needed::Entry),
        ("_initialize", "()", Needed::Optional),
    ];
    assert_eq!(rows, expected.map(|(name, kind, needed)| (name, kind.to_owned(), needed)));
}
