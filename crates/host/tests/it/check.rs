//! Each way in which a module can be wrong, with the words for it.

use slung_abi::{FUNCTIONS, ValueType};
use slung_host::{Entry, Host, HostOptions, Problem, check};

use crate::fixture::{guest, options, parse};

/// What the ABI asks for, and nothing else.
const GOOD: &str = r#"(memory (export "memory") 1)
    (func (export "allocate") (param i32) (result i32) (i32.const 0))
    (func (export "deallocate") (param i32))
    (func (export "call") (result i32) (i32.const 0))"#;

fn problems_of(bytes: &[u8]) -> Vec<Problem> {
    let error = check(&HostOptions::default(), "m", bytes).expect_err("it is wrong");
    assert_eq!((error.module.as_str(), error.more), ("m", 0));
    error.problems
}

fn words(text: &str) -> Vec<String> {
    problems_of(&parse(&format!("(module {text})"))).iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_module_is_reported() {
    let report =
        check(&HostOptions::default(), "m", &guest(r#"(func (export "call") (result i32) (i32.const 0))"#)).unwrap();
    assert_eq!(report.entry, Entry::Call);
    assert_eq!(report.memory_bytes, 2 * 65_536);
    assert_eq!(report.imports.len(), 10);
    let shown = report.to_string();
    for part in
        ["env.u_write_event (i32, i32, i32) -> i32\n", "entry    call\n", "exports  memory\n", "no limit of its own"]
    {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
}

#[test]
fn every_function_of_the_table_can_be_imported() {
    let name = |value: &ValueType| match value {
        ValueType::I32 => "i32",
        ValueType::I64 => "i64",
        ValueType::F64 => "f64",
    };
    let imports: String = FUNCTIONS
        .iter()
        .map(|row| {
            let params: Vec<_> = row.signature.params.iter().map(name).collect();
            let result = row.signature.result.iter().map(name).next().unwrap_or_default();
            format!(r#"(import "env" "{}" (func (param {}) (result {result})))"#, row.name, params.join(" "))
        })
        .collect();
    let report = check(&HostOptions::default(), "m", &parse(&format!("(module {imports} {GOOD})"))).unwrap();
    assert_eq!(report.imports.len(), FUNCTIONS.len());
}

#[test]
fn start_is_the_entry_where_there_is_no_call() {
    let module = GOOD.replace(r#"(func (export "call") (result i32) (i32.const 0))"#, r#"(func (export "_start"))"#);
    assert_eq!(check(&HostOptions::default(), "m", &parse(&format!("(module {module})"))).unwrap().entry, Entry::Start);
    // Where there is `call`, `_start` is never entered, so it may be anything.
    let both = parse(&format!(r#"(module {GOOD} (global (export "_start") i32 (i32.const 0)))"#));
    assert_eq!(check(&HostOptions::default(), "m", &both).unwrap().entry, Entry::Call);
}

#[test]
fn bytes_that_are_no_module() {
    for bytes in [&b""[..], b"\0asm", b"\0asm\x02\0\0\0", b"#!/bin/sh\n", b"\x7fELF\x02\x01\x01\0\0\0"] {
        assert_eq!(problems_of(bytes), [Problem::NotWasm], "{bytes:?}");
    }
    assert_eq!(problems_of(b"\0asm\x0d\0\x01\0"), [Problem::Component]);
    let [Problem::Invalid { reason }] = &problems_of(b"\0asm\x01\0\0\0\x01\xff")[..] else { panic!("not as expected") };
    assert!(reason.contains("offset"), "{reason}");
    let invalid = parse("(module (func (result i32)))");
    assert!(matches!(problems_of(&invalid)[..], [Problem::Invalid { .. }]));
}

#[test]
fn sizes() {
    let host = Host::new(HostOptions { module_bytes_max: 100, memory_bytes_max: 65_536, ..options() }).unwrap();
    let big = parse(&format!(r#"(module {GOOD} (@custom "x" "{}"))"#, "y".repeat(200)));
    let error = host.compile("m", &big).err().expect("it is too big");
    assert_eq!(error.problems, [Problem::TooBig { bytes: big.len(), bytes_max: 100 }]);
    let host = Host::new(HostOptions { memory_bytes_max: 65_536, table_elements_max: 10, ..options() }).unwrap();
    let error = host.compile("m", &guest(r#"(func (export "call") (result i32) (i32.const 0)) (table 11 funcref)"#));
    let expected = [
        Problem::MemoryTooBig { bytes: 131_072, bytes_max: 65_536 },
        Problem::TablesTooBig { tables: 1, elements: 11, elements_max: 10 },
    ];
    assert_eq!(error.err().expect("two things are too big").problems, expected);
    let many = format!("{GOOD} {}", "(table 1 funcref)".repeat(5));
    assert_eq!(words(&many), ["5 tables of up to 1 elements, at most 4 of 100000 are allowed"]);
}

#[test]
fn all_problems_are_listed() {
    let module = r#"
        (import "env" "u_query_life" (func (param i32) (result i64)))
        (import "env" "u_query_live" (func (param i64) (result i64)))
        (import "env" "u_poll_handle" (global i32))
        (import "env" "memory" (memory 1))
        (import "wasi_snapshot_preview1" "fd_write" (func))
        (import "wasi_unstable" "fd_write" (func))
        (global (export "memory") i32 (i32.const 0))
        (func (export "allocate") (param i32 i32) (result i32) (i32.const 0))
        (func (export "_initialize") (param f32))"#;
    assert_eq!(
        words(module),
        [
            "unknown import `env.u_query_life`: this host provides the functions of `env` in the guest ABI and WASI preview 1",
            "import `env.u_query_live` is a function (i64) -> i64, provided is a function (i32) -> i64",
            "import `env.u_poll_handle` is a global, provided is a function (i64) -> i32",
            "unknown import `env.memory`: this host provides the functions of `env` in the guest ABI and WASI preview 1",
            "import `wasi_snapshot_preview1.fd_write` is a function (), provided is a function (i32, i32, i32, i32) -> i32",
            "unknown import `wasi_unstable.fd_write`: this host provides the functions of `env` in the guest ABI and WASI preview 1",
            "export `memory` is a global, needed is a memory",
            "export `allocate` is a function (i32, i32) -> i32, needed is a function (i32) -> i32",
            "export `deallocate` is missing: a function (i32) is needed",
            "export `_initialize` is a function (f32), needed is a function ()",
            "nothing to start: neither `call`, a function () -> i32, nor `_start`, a function (), is exported",
        ]
    );
    let error = check(&HostOptions::default(), "alerts", &parse(&format!("(module {module})")))
        .expect_err("it is wrong")
        .to_string();
    assert!(error.starts_with("module alerts can't be loaded\n- unknown import `env.u_query_life`"), "{error}");
}

#[test]
fn entries_with_the_wrong_signature() {
    let rest = r#"(memory (export "memory") 1) (func (export "allocate") (param i32) (result i32) (i32.const 0))
        (func (export "deallocate") (param i32))"#;
    assert_eq!(
        words(&format!(r#"{rest} (func (export "call")) (func (export "_start"))"#)),
        ["export `call` is a function (), needed is a function () -> i32"]
    );
    assert_eq!(
        words(&format!(r#"{rest} (func (export "_start") (result i32) (i32.const 0))"#)),
        ["export `_start` is a function () -> i32, needed is a function ()"]
    );
}

#[test]
fn no_memory_export() {
    let module = GOOD.replace(r#"(memory (export "memory") 1)"#, "(memory 1)");
    assert_eq!(words(&module), ["export `memory` is missing: a memory is needed"]);
}

#[test]
fn many_problems_and_hostile_names_stay_readable() {
    let mut module = String::new();
    for index in 0..1_000 {
        module += &format!(r#"(import "\u{{1b}}[2J" "{}{index}" (func))"#, "x".repeat(5_000));
    }
    let error =
        check(&HostOptions::default(), "m", &parse(&format!("(module {module} {GOOD})"))).expect_err("it is wrong");
    assert_eq!((error.problems.len(), error.more), (32, 968));
    let shown = error.to_string();
    assert!(shown.len() < 32 * 600 && !shown.contains('\u{1b}'), "{} bytes", shown.len());
    assert!(shown.contains("`\\u{1b}[2J.xxx") && shown.ends_with("and 968 more"));
}
