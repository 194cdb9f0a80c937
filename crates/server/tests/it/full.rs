//! A disk that is really full: a small file system in memory, which only the server sees.

use std::net::SocketAddr;
use std::process::Command;

use crate::server::{Server, http};

/// In a mount namespace of its own, with a file system of 24 MiB on the data directory.
fn on_a_small_disk(data: &std::path::Path) -> Command {
    let mut command = Command::new("unshare");
    let script = r#"mount -t tmpfs -o size=24m small "$1" && shift && exec "$@""#;
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(data).arg(env!("CARGO_BIN_EXE_slung"));
    command
}

fn post(server: &Server, first: u64) -> (u16, String) {
    let events: String = (first..first + 20_000)
        .map(|index| {
            format!("{{\"timestamp\":{},\"value\":{index}.5,\"series\":\"s\"}}\n", 1_700_000_000_000_000 + index)
        })
        .collect();
    let head =
        format!("POST /api/v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}", events.len());
    http(server.addr(), format!("{head}\r\n\r\n{events}"))
}

#[test]
#[ignore = "needs `unshare` with mounts, which containers often refuse"]
fn writing_stops_with_507_reading_goes_on_and_writing_resumes_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    // All of it stays in the log, whose files are short.
    let config = folder.path().join("slung.toml");
    std::fs::write(&config, "[store]\nlog_file = \"1MiB\"\n").unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let server = Server::start_by(on_a_small_disk(&data), any, &data, &["--config", config.to_str().unwrap()]);
    let (mut stored, mut sent) = (0, 0);
    let refused = loop {
        assert!(sent < 10_000_000, "24 MiB never get full");
        let answer = post(&server, sent);
        sent += 20_000;
        match answer.0 {
            204 => stored = sent,
            _ => break answer,
        }
    };
    assert_eq!(refused.0, 507, "{}", refused.1);
    assert!(refused.1.contains("\"code\":\"disk_full\""), "{}", refused.1);
    assert_eq!(server.get("/health").0, 503);
    assert_eq!(post(&server, sent).0, 507, "as long as it is full");
    let there = server.query("COUNT:s:[]").as_f64().unwrap() as u64;
    assert!(there >= stored && stored > 0, "{stored} were acknowledged, {there} are there");

    let more = Command::new("nsenter")
        .args(["--target", &server.pid().to_string(), "--mount", "--user", "--preserve-credentials"])
        .args(["mount", "-o", "remount,size=200m"])
        .arg(&data)
        .status()
        .unwrap();
    assert!(more.success(), "the file system grows");
    server.wait_until("it is writable again", |server| server.get("/health").0 == 200);
    let again = post(&server, sent);
    assert_eq!(again.0, 204, "{}", again.1);
    let there = server.query("COUNT:s:[]").as_f64().unwrap() as u64;
    assert!(there >= stored + 20_000, "{there}");
    assert!(server.terminate().success());
}
