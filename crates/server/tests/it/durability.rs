//! What a server holds after it ended, in whichever way.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::process::Stdio;

use crate::server::{Server, slung};

const START: u64 = 1_700_000_000_000_000;

#[tokio::test]
async fn an_orderly_stop_keeps_every_event_and_tells_the_producers() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let mut producer = server.connect().await;
    for index in 0..10_000 {
        producer.event("s", &["a=1"], index, 1.0).await;
    }
    assert!(producer.has_nothing_waiting().await);
    let stopping = tokio::task::spawn_blocking(move || server.terminate());
    assert_eq!(producer.close_code().await, Some(1012));
    assert!(stopping.await.unwrap().success());

    let server = Server::start(folder.path(), &[]);
    assert_eq!(server.query("COUNT:s:[a=1]"), 10_000.0);
    assert!(!server.log().contains("torn end"), "{}", server.log());
}

/// A server that is killed while events stream in, as fast as a producer can send them.
#[test]
fn kill_in_the_middle_of_a_stream_loses_nothing_that_was_stored_a_second_before() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), &[]);
    let (child, feeder) = server.write_without_end();
    server.wait_until("some are stored", |server| server.query("COUNT:s:[]").as_f64() > Some(20_000.0));
    let stored = server.query("COUNT:s:[]").as_f64().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    server.kill();
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "the sender notices");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("events acknowledged in ") && error.contains("sent that may or may not be"), "{error}");

    // A write that the power cut short, at the end of whatever the log was.
    let log = newest_log(folder.path());
    let length = fs::metadata(&log).unwrap().len();
    fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(&[7; 13]).unwrap();

    let server = Server::start(folder.path(), &[]);
    let count = server.query("COUNT:s:[]").as_f64().unwrap();
    assert!(count >= stored, "{stored} were stored a second before the end, {count} are there");
    // In order and without a hole: the timestamps count up from the first.
    let last = 1_700_000_000_000_000.0 + count - 1.0;
    assert_eq!(server.query(&format!("COUNT:s:[]:[1700000000000000,{last}]")), count);
    let line = server.wait_for_log("torn end");
    assert!(line.contains(log.file_name().unwrap().to_str().unwrap()), "{line}");
    // What the kill itself cut short may lie before the thirteen bytes.
    let offset = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok());
    assert!(offset.clone().any(|offset| offset <= length && offset > 0), "{line} names no offset up to {length}");

    // And nothing is torn any more.
    drop(server);
    let server = Server::start(folder.path(), &[]);
    assert_eq!(server.query("COUNT:s:[]"), count);
    assert!(!server.log().contains("torn end"), "{}", server.log());
}

/// What `slung write` says is acknowledged is there, and it says so of everything, whatever happens to the server meanwhile.
#[test]
fn a_server_that_is_killed_while_a_file_is_written_loses_nothing() {
    const EVENTS: u64 = 400_000;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.csv");
    let mut csv = String::from("timestamp,value\n");
    for index in 0..EVENTS {
        writeln!(csv, "{},{}", START + index, index % 1_009).unwrap();
    }
    fs::write(&file, csv).unwrap();
    let data = folder.path().join("data");
    let mut server = Server::start(&data, &[]);
    let child = slung()
        .args(["write", file.to_str().unwrap(), "--series", "s", "--wait", "0", "--url", &server.ws_url()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for stored in [50_000.0, 200_000.0] {
        server.wait_until("some are stored", |server| server.query("COUNT:s:[]").as_f64() > Some(stored));
        let listen = server.addr();
        server.kill();
        server = Server::start_at(listen, &data, &[]);
    }
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{error}");
    assert!(error.contains(&format!("{EVENTS} events acknowledged in ")), "{error}");
    assert!(error.contains("connecting again"), "the server was away while it wrote: {error}");
    assert_eq!(server.query("COUNT:s:[]"), EVENTS as f64);
    assert_eq!(server.query("SUM:s:[]"), (0..EVENTS).map(|index| index % 1_009).sum::<u64>() as f64);
}

/// The file of the log that was written last.
fn newest_log(data: &std::path::Path) -> std::path::PathBuf {
    let files = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log-"));
    logs.max().expect("a log")
}
