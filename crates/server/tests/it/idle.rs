//! What waiting costs. Measures processor time, so it runs with the long tests only.

use std::path::Path;
use std::time::Duration;

use crate::server::{Server, workflow};

/// Processor time of a process so far, in hundredths of a second (the kernel's fixed unit for users).
fn processor_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    // The command's name, in parentheses, may hold blanks: fields are counted from behind it.
    let fields: Vec<&str> = stat.rsplit_once(')').expect("the name's end").1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn share(server: &Server) -> f64 {
    std::thread::sleep(Duration::from_secs(2));
    let before = processor_ticks(server.pid());
    std::thread::sleep(Duration::from_secs(10));
    (processor_ticks(server.pid()) - before) as f64 / 1_000.0
}

/// A workflow in the text format that makes two queries and polls the handle of one of them for ever; where `query` is
/// no query, that handle is 0.
fn poller(folder: &Path, query: &str) -> String {
    let module = format!(
        r#"(module
        (import "env" "u_query_live" (func $query_live (param i32) (result i64)))
        (import "env" "u_poll_handle" (func $poll_handle (param i64) (result i32)))
        (memory (export "memory") 2)
        (global $next (mut i32) (i32.const 4096))
        (data (i32.const 8) "\20\00\00\00\40\00\00\00\{length:02x}\00\00\00\60\00\00\00\40\00\00\00\07\00\00\00")
        (data (i32.const 32) "{query}")
        (data (i32.const 96) "s:[b=1]")
        (func (export "allocate") (param i32) (result i32)
            (global.set $next (i32.add (global.get $next) (i32.const 512)))
            (if (i32.gt_u (global.get $next) (i32.const 60000)) (then (global.set $next (i32.const 4096))))
            (global.get $next))
        (func (export "deallocate") (param i32))
        (func (export "call") (result i32)
            (local $handle i64)
            (local.set $handle (call $query_live (i32.const 8)))
            (drop (call $query_live (i32.const 20)))
            (loop $again (drop (call $poll_handle (local.get $handle))) (br $again))
            (i32.const 0)))"#,
        length = query.len(),
    );
    let path = folder.join(format!("{}.wasm", query.len()));
    std::fs::write(&path, wat::parse_str(module).unwrap()).unwrap();
    path.display().to_string()
}

#[tokio::test]
#[ignore = "measures processor time for a minute"]
async fn waiting_workflows_cost_no_processor_time() {
    let folder = tempfile::tempdir().unwrap();
    let alert = workflow("threshold-alert");
    let mut args = vec!["--workflow".to_owned(), format!("anomaly={}", workflow("anomaly").display())];
    for index in 0..100 {
        args.extend(["--workflow".to_owned(), format!("parked-{index}={}", alert.display())]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let server = Server::start(&folder.path().join("parked"), &args);
    server.wait_until("all have subscribed", |server| server.metric("slung_live_handles") == 101.0);
    let parked = share(&server);
    drop(server);

    for (name, query, handles) in [("one of two handles", "s:[a=1]", 2.0), ("a refused handle", "no query", 1.0)] {
        let module = poller(folder.path(), query);
        let server = Server::start(&folder.path().join(name), &["--workflow", &format!("poller={module}")]);
        server.wait_until("it has subscribed", |server| server.metric("slung_live_handles") == handles);
        // What arrives for the handle that nobody polls stays there, and must not keep the other from sleeping.
        let mut producer = server.connect().await;
        for index in 0..5_000 {
            producer.event("s", &["b=1"], 1_700_000_000_000_000 + index, 1.0).await;
        }
        server.wait_until("all is stored", |server| server.query("COUNT:s:[b=1]") == 5_000.0);
        let share = share(&server);
        println!("{name}: {:.2} % of a core", share * 100.0);
        assert!(share < 0.02, "{name}: {share}");
    }
    println!("101 parked workflows: {:.2} % of a core", parked * 100.0);
    assert!(parked < 0.02, "{parked}");
}
