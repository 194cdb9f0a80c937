//! What is valid and takes a compiler long: small enough here for an ordinary test. Some of it takes minutes and gigabytes at the
//! 10 MiB that a module may have.

use super::{Row, call};
use crate::fixture::guest;

pub(super) fn rows() -> Vec<Row> {
    let row = |does, module| Row::new(does, module, "done");
    vec![
        row("50,000 functions", functions(50_000)),
        row("50,000 functions with loops", loops(50_000)),
        row("a long function", instructions(50_000)),
        row("a function that is nothing but calls", calls(20_000)),
        row("blocks inside of blocks", nested("block", 2_000)),
        row("loops inside of loops", nested("loop", 1_000)),
        row("a huge br_table", targets(50_000)),
        row("a huge br_table into blocks inside of blocks", spread(1_000)),
        row("many values alive at the same time", alive(1_000)),
        row("many locals through many loops", locals(100)),
        row("a block that hands on 1,000 values, left in many places", handed_on(10)),
        row("many globals and exports", globals(20_000)),
    ]
}

fn functions(count: usize) -> Vec<u8> {
    guest(&format!("{} {}", "(func)".repeat(count), call("")))
}

fn loops(count: usize) -> Vec<u8> {
    guest(&format!("{} {}", "(func (loop (br 0)))".repeat(count), call("")))
}

fn calls(count: usize) -> Vec<u8> {
    guest(&format!("(func $nothing) {}", call(&"(call $nothing)".repeat(count))))
}

fn instructions(count: usize) -> Vec<u8> {
    let body = "(local.set 0 (i32.mul (i32.add (local.get 0) (i32.const 3)) (local.get 0)))".repeat(count / 5);
    guest(&call(&format!("(local i32) {body}")))
}

fn nested(what: &str, depth: usize) -> Vec<u8> {
    guest(&call(&format!("{} {}", format!("{what} ").repeat(depth), "end ".repeat(depth))))
}

fn targets(count: usize) -> Vec<u8> {
    guest(&call(&format!("(block $a (block $b (br_table {} (i32.const 1))))", "$a $b ".repeat(count / 2))))
}

fn spread(depth: usize) -> Vec<u8> {
    let targets: String = (0..depth).map(|target| format!("{target} ")).collect();
    guest(&call(&format!("{} (br_table {targets} (i32.const 1)) {}", "block ".repeat(depth), "end ".repeat(depth))))
}

fn alive(count: usize) -> Vec<u8> {
    let loads: String = (0..count).map(|at| format!("(i64.load (i32.const {}))", at * 8)).collect();
    guest(&call(&format!("{loads} {} drop", "i64.xor ".repeat(count - 1))))
}

fn locals(count: usize) -> Vec<u8> {
    let changes: String = (0..count)
        .map(|local| {
            format!(
                "(loop (local.set {local} (i64.add (local.get {local}) (local.get {}))) (br_if 0 (i32.const 0)))",
                (local * 7 + 1) % count
            )
        })
        .collect();
    guest(&call(&format!("(local {}) {changes}", "i64 ".repeat(count))))
}

fn handed_on(branches: usize) -> Vec<u8> {
    let (types, values) = ("i64 ".repeat(1_000), "i64.const 1 ".repeat(1_000));
    let (branches, drops) = ("i32.const 0 br_if 0 ".repeat(branches), "drop ".repeat(1_000));
    guest(&call(&format!("block (result {types}) {values} {branches} end {drops}")))
}

fn globals(count: usize) -> Vec<u8> {
    let globals: String =
        (0..count).map(|n| format!(r#"(global (export "g{n}") (mut i64) (i64.const {n}))"#)).collect();
    guest(&format!("{globals} {}", call("")))
}
