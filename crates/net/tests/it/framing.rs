//! HTTP/1.1 on the wire: where a request ends, and so what the next one is. Each raw request is followed by another one;
//! the answers tell whether both sides agree on where it begins. Where it could be read in two ways, there is only the
//! refusal, and nothing that follows is looked at.

use std::time::Duration;

use slung_net::ServerOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::backend::PATIENCE;
use crate::rig::{HANDSHAKE, Rig};

/// What comes behind each request. There is nothing at its path, so its answer is a 404 and no other one.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

const BODY_BYTES_MAX: usize = 1_000;

/// What it is, the request, and the statuses of all answers until the server closes.
type Row = (&'static str, String, &'static [u16]);

/// A request that has no body.
fn get(fields: &str) -> String {
    format!("GET /health HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
}

/// A request with that behind its head.
fn post(fields: &str, body: &str) -> String {
    format!("POST /health HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// Both are answered: the first with a status of its own, and the one behind it.
const GOOD: &[u16] = &[200, 404];
/// The same where the method is not one that the path has.
const POSTED: &[u16] = &[405, 404];
const REFUSED: &[u16] = &[400];

fn lengths() -> Vec<Row> {
    let big = "x".repeat(BODY_BYTES_MAX + 1);
    vec![
        ("no body", get(""), GOOD),
        ("a length of nothing", post("Content-Length: 0\r\n", ""), POSTED),
        ("a length", post("Content-Length: 3\r\n", "abc"), POSTED),
        ("a length on a GET", format!("{}abc", get("Content-Length: 3\r\n")), GOOD),
        ("a request as a body", post(&format!("Content-Length: {}\r\n", NEXT.len()), NEXT), POSTED),
        ("a POST without a length", post("", ""), POSTED),
        ("a name in capitals", post("CONTENT-LENGTH: 3\r\n", "abc"), POSTED),
        ("blanks around the number", post("Content-Length: \t 3 \t \r\n", "abc"), POSTED),
        ("zeros in front", post("Content-Length: 0003\r\n", "abc"), POSTED),
        ("a body as long as allowed", post(&format!("Content-Length: {BODY_BYTES_MAX}\r\n"), &big[1..]), POSTED),
        ("a body over the limit", post(&format!("Content-Length: {}\r\n", big.len()), &big), &[413]),
        ("a length over the limit, and no body", post("Content-Length: 99999999999\r\n", ""), &[413]),
        ("the same length twice", post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"), POSTED),
        ("two lengths", post("Content-Length: 3\r\nContent-Length: 4\r\n", "abcd"), REFUSED),
        ("two lengths, the shorter one last", post("Content-Length: 4\r\nContent-Length: 3\r\n", "abcd"), REFUSED),
        ("two lengths in a list", post("Content-Length: 3, 4\r\n", "abcd"), REFUSED),
        ("the same length in a list", post("Content-Length: 3, 3\r\n", "abc"), REFUSED),
        ("no number", post("Content-Length: \r\n", ""), REFUSED),
        ("a word", post("Content-Length: three\r\n", "abc"), REFUSED),
        ("a minus", post("Content-Length: -3\r\n", "abc"), REFUSED),
        ("a plus", post("Content-Length: +3\r\n", "abc"), REFUSED),
        ("hex", post("Content-Length: 0x3\r\n", "abc"), REFUSED),
        ("a fraction", post("Content-Length: 3.0\r\n", "abc"), REFUSED),
        ("more than one number", post("Content-Length: 3 4\r\n", "abc"), REFUSED),
        ("more than 64 bits", post("Content-Length: 18446744073709551619\r\n", "abc"), REFUSED),
        ("digits of another script", post("Content-Length: \u{663}\r\n", "abc"), REFUSED),
    ]
}

fn chunks() -> Vec<Row> {
    let big = format!("{:x}\r\n{}\r\n0\r\n\r\n", BODY_BYTES_MAX + 1, "x".repeat(BODY_BYTES_MAX + 1));
    let many = format!("{}0\r\n\r\n", "1\r\nx\r\n".repeat(BODY_BYTES_MAX + 1));
    let next = format!("{:x}\r\n{NEXT}\r\n0\r\n\r\n", NEXT.len());
    vec![
        ("one chunk", chunked("3\r\nabc\r\n0\r\n\r\n"), POSTED),
        ("no chunk", chunked("0\r\n\r\n"), POSTED),
        ("some chunks", chunked("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"), POSTED),
        ("a request as a chunk", chunked(&next), POSTED),
        ("hex in both cases", chunked("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"), POSTED),
        ("zeros in front of the size", chunked("0003\r\nabc\r\n000\r\n\r\n"), POSTED),
        ("an extension", chunked("3;name=value\r\nabc\r\n0;last\r\n\r\n"), POSTED),
        ("a quoted extension", chunked("3;name=\"a b\"\r\nabc\r\n0\r\n\r\n"), POSTED),
        ("a trailer", chunked("3\r\nabc\r\n0\r\nName: value\r\n\r\n"), POSTED),
        ("a trailer that names a length", chunked("3\r\nabc\r\n0\r\nContent-Length: 50\r\n\r\n"), POSTED),
        ("a name in capitals", post("TRANSFER-ENCODING: CHUNKED\r\n", "0\r\n\r\n"), POSTED),
        ("chunks over the limit", chunked(&big), &[413]),
        ("many chunks over the limit", chunked(&many), &[413]),
        ("no size", chunked("\r\nabc\r\n0\r\n\r\n"), REFUSED),
        ("a size that is no hex", chunked("g\r\nabc\r\n0\r\n\r\n"), REFUSED),
        ("a size with a prefix", chunked("0x3\r\nabc\r\n0\r\n\r\n"), REFUSED),
        ("a minus", chunked("-3\r\nabc\r\n0\r\n\r\n"), REFUSED),
        ("a plus", chunked("+3\r\nabc\r\n0\r\n\r\n"), REFUSED),
        ("a blank in front of the size", chunked(" 3\r\nabc\r\n0\r\n\r\n"), REFUSED),
        ("a size of more than 64 bits", chunked("10000000000000003\r\nabc\r\n0\r\n\r\n"), REFUSED),
        ("a size in front of more bytes", chunked("2\r\nabc\r\n0\r\n\r\n"), REFUSED),
        ("a size in front of fewer bytes", chunked("5\r\nabc\r\n0\r\n\r\n"), REFUSED),
        ("a chunk that ends with LF", chunked("3\r\nabc\n0\r\n\r\n"), REFUSED),
        ("a size that ends with LF", chunked("3\nabc\r\n0\r\n\r\n"), REFUSED),
        ("an extension with an LF", chunked("3;a\nb\r\nabc\r\n0\r\n\r\n"), REFUSED),
    ]
}

/// Ways to say two things about the length at once, or to hide one of them.
fn encodings() -> Vec<Row> {
    let both = |fields: &str| post(fields, "3\r\nabc\r\n0\r\n\r\n");
    vec![
        // Chunks win, and the connection is over: RFC 9112, 6.3.
        ("chunks behind a length", both("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"), &[405]),
        ("a length behind chunks", both("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), &[405]),
        ("a length of nothing and chunks", both("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"), &[405]),
        // Nobody may send that. It is not read twice, and where it ends everybody agrees who reads it at all.
        ("chunked twice", both("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), REFUSED),
        ("chunked twice in a list", both("Transfer-Encoding: chunked, chunked\r\n"), REFUSED),
        ("identity", both("Transfer-Encoding: identity\r\n"), REFUSED),
        ("chunked, and then identity", both("Transfer-Encoding: chunked, identity\r\n"), REFUSED),
        ("gzip", both("Transfer-Encoding: gzip\r\n"), REFUSED),
        ("chunked, and then gzip", both("Transfer-Encoding: chunked, gzip\r\n"), REFUSED),
        ("an encoding that nobody has", both("Transfer-Encoding: xchunked\r\n"), REFUSED),
        ("an empty encoding", both("Transfer-Encoding:\r\n"), REFUSED),
        ("chunked in quotes", both("Transfer-Encoding: \"chunked\"\r\n"), REFUSED),
        ("chunked with a vertical tab", both("Transfer-Encoding: \u{b}chunked\r\n"), REFUSED),
        ("chunked behind a bare CR", both("Transfer-Encoding: \rchunked\r\n"), REFUSED),
        ("a blank in front of the colon", both("Transfer-Encoding : chunked\r\n"), REFUSED),
        ("a folded encoding", both("Transfer-Encoding:\r\n chunked\r\n"), REFUSED),
        ("chunks in HTTP/1.0", both("Transfer-Encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0"), REFUSED),
    ]
}

fn heads() -> Vec<Row> {
    let fields = |count: usize| get(&"a: b\r\n".repeat(count));
    let long = |bytes: usize| get(&format!("a: {}\r\n", "b".repeat(bytes)));
    let line = |line: &str| format!("{line}\r\nHost: x\r\n\r\n");
    vec![
        ("empty lines in front", format!("\r\n\r\n{}", get("")), GOOD),
        // RFC 9112, 2.2: a line may be taken to end there. What is left of it has no CR in the middle, see below.
        ("lines that end with LF", get("a: b\r\n").replace("\r\n", "\n"), GOOD),
        ("one line that ends with LF", get("a: b\nc: d\r\n"), GOOD),
        ("obs-text in a value", get("a: caf\u{e9}\r\n"), GOOD),
        ("a tab in a value", get("a: b\tc\r\n"), GOOD),
        ("an empty value", get("a:\r\n"), GOOD),
        ("no blank behind the colon", get("a:b\r\n"), GOOD),
        ("every character of a name", get("!#$%&'*+-.^_`|~09azAZ: b\r\n"), GOOD),
        ("64 fields", fields(63), GOOD),
        ("65 fields", fields(64), &[431]),
        ("a head of 15 KiB", long(15 * 1024), GOOD),
        ("a head of 17 KiB", long(17 * 1024), &[431]),
        ("a path of 17 KiB", line(&format!("GET /{} HTTP/1.1", "a".repeat(17 * 1024))), &[431]),
        ("the absolute form", line("GET http://x/health HTTP/1.1"), GOOD),
        ("the absolute form of another host", line("GET http://elsewhere:1/health HTTP/1.1"), GOOD),
        ("the asterisk form", line("OPTIONS * HTTP/1.1"), &[404, 404]),
        ("a fragment", line("GET /health#part HTTP/1.1"), GOOD),
        ("dots in the path", line("GET /next/../health HTTP/1.1"), &[404, 404]),
        ("encoded slashes", line("GET /%2e%2e/health HTTP/1.1"), &[404, 404]),
        ("a folded field", get("a: b\r\n c\r\n"), REFUSED),
        ("a first field that starts with a blank", line("GET /health HTTP/1.1\r\n a: b"), REFUSED),
        ("a blank in front of the colon", get("a : b\r\n"), REFUSED),
        ("a blank in a name", get("a b: c\r\n"), REFUSED),
        ("no name", get(": b\r\n"), REFUSED),
        ("no colon", get("a\r\n"), REFUSED),
        ("a name that is not ASCII", get("caf\u{e9}: b\r\n"), REFUSED),
        ("NUL in a name", get("a\0: b\r\n"), REFUSED),
        ("NUL in a value", get("a: b\0c\r\n"), REFUSED),
        ("a control character in a value", get("a: b\u{1}c\r\n"), REFUSED),
        ("DEL in a value", get("a: b\u{7f}c\r\n"), REFUSED),
        ("a bare CR in a value", get("a: b\rc\r\n"), REFUSED),
        ("NUL in the path", line("GET /hea\0lth HTTP/1.1"), REFUSED),
        ("two blanks in the line", line("GET  /health HTTP/1.1"), REFUSED),
        ("a tab in the line", line("GET\t/health HTTP/1.1"), REFUSED),
        ("a blank in the path", line("GET /hea lth HTTP/1.1"), REFUSED),
        ("a blank behind the version", line("GET /health HTTP/1.1 "), REFUSED),
        ("a blank in front of the line", line(" GET /health HTTP/1.1"), REFUSED),
        ("no path", line("GET HTTP/1.1"), REFUSED),
        ("no version", line("GET /health"), REFUSED),
        ("a version in lower case", line("GET /health http/1.1"), REFUSED),
        ("version 1.2", line("GET /health HTTP/1.2"), REFUSED),
        ("version 2.0", line("GET /health HTTP/2.0"), REFUSED),
        ("version 0.9", line("GET /health HTTP/0.9"), REFUSED),
        ("version 1.10", line("GET /health HTTP/1.10"), REFUSED),
        ("a method with a bracket", line("GE(T /health HTTP/1.1"), REFUSED),
        ("a method that nobody has", line("SMUGGLE /health HTTP/1.1"), POSTED),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}\u{3}\u{3}\r\n\r\n".to_owned(), REFUSED),
    ]
}

fn connections() -> Vec<Row> {
    let old = |fields: &str| format!("GET /health HTTP/1.0\r\n{fields}\r\n");
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
    let socket = |fields: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    vec![
        ("keep-alive", get("Connection: keep-alive\r\n"), GOOD),
        ("close", get("Connection: close\r\n"), &[200]),
        ("close in a list", get("Connection: x, CLOSE\r\n"), &[200]),
        ("close behind keep-alive", get("Connection: keep-alive\r\nConnection: close\r\n"), &[200]),
        ("HTTP/1.0", old("Host: x\r\n"), &[200]),
        ("HTTP/1.0 without a host", old(""), &[200]),
        ("HTTP/1.0 with keep-alive", old("Connection: keep-alive\r\n"), GOOD),
        (
            "pipelined",
            get("").repeat(20),
            &[200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 200, 404],
        ),
        ("pipelined with bodies", post("Content-Length: 3\r\n", "abc").repeat(3), &[405, 405, 405, 404]),
        ("a close among pipelined ones", get("") + &get("Connection: close\r\n") + &get(""), &[200, 200]),
        ("no host", "GET /health HTTP/1.1\r\n\r\n".to_owned(), REFUSED),
        ("two hosts", get("Host: y\r\n"), REFUSED),
        ("the same host twice", get("Host: x\r\n"), REFUSED),
        ("an empty host", "GET /health HTTP/1.1\r\nHost:\r\n\r\n".to_owned(), GOOD),
        ("a continue that is awaited", post("Content-Length: 3\r\nExpect: 100-continue\r\n", "abc"), &[100, 405, 404]),
        ("a continue without a body", get("Expect: 100-continue\r\n"), GOOD),
        ("a continue for too much", post("Content-Length: 9999\r\nExpect: 100-continue\r\n", ""), &[413]),
        ("another expectation", get("Expect: 200-ok\r\n"), GOOD),
        ("an upgrade to HTTP/2", get("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"), GOOD),
        ("an upgrade without a key", socket(upgrade), &[400, 404]),
        ("an upgrade of another version", socket(&upgrade.replace("13", "8")), &[426, 404]),
        ("an upgrade elsewhere", get(upgrade), GOOD),
        ("a POST as an upgrade", HANDSHAKE.replace("GET", "POST"), &[400, 404]),
        ("an upgrade in HTTP/1.0", HANDSHAKE.replace("HTTP/1.1", "HTTP/1.0"), &[426]),
    ]
}

/// Bodies that are read for what is in them: one event in each, which is stored where the status is 204.
fn events() -> Vec<Row> {
    const EVENT: &str = r#"{"series":"a","value":1}"#;
    const STORED: &[u16] = &[204, 404];
    /// Read to its end, and refused for what it says.
    const READ: &[u16] = &[400, 404];
    let to = |path: &str, fields: &str, body: &str| format!("POST {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}");
    let post = |fields: &str, body: &str| to("/api/v1/events", fields, body);
    let sized = |fields: &str, body: &str| post(&format!("{fields}Content-Length: {}\r\n", body.len()), body);
    let chunk = |body: &str| format!("{:x}\r\n{body}\r\n", body.len());
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    let expected = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", EVENT.len());
    let both = format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", EVENT.len());
    vec![
        ("an event", sized("", EVENT), STORED),
        ("an event in a chunk", chunked(&(chunk(EVENT) + "0\r\n\r\n")), STORED),
        ("an event in two chunks", chunked(&(chunk(&EVENT[..9]) + &chunk(&EVENT[9..]) + "0\r\n\r\n")), STORED),
        ("an event with a trailer", chunked(&(chunk(EVENT) + "0\r\nExpires: never\r\n\r\n")), STORED),
        ("an event that is awaited", post(&expected, EVENT), &[100, 204, 404]),
        ("an event in chunks, with a length", post(&both, &(chunk(EVENT) + "0\r\n\r\n")), &[204]),
        ("an event and a request in one body", sized("", &format!("{EVENT}\n{NEXT}")), READ),
        ("nothing", sized("", ""), READ),
        ("no length", post("", ""), READ),
        ("an event behind no length", post("", EVENT), &[400, 400]),
        ("an event that is longer than its length", post("Content-Length: 9\r\n", EVENT), &[400, 400]),
        ("a bad chunk behind the event", chunked(&(chunk(EVENT) + "x\r\n")), REFUSED),
        ("a chunk that goes on too long", chunked(&format!("{:x}\r\n{EVENT}x\r\n0\r\n\r\n", EVENT.len())), REFUSED),
        ("two lengths", post("Content-Length: 3\r\nContent-Length: 4\r\n", EVENT), REFUSED),
        ("a body over the limit", sized("", &format!("{EVENT}{}", " ".repeat(BODY_BYTES_MAX))), &[413]),
        // Refused before the body is read, which may never come: nothing behind is looked at.
        ("an encoding that is not taken", sized("Content-Encoding: br\r\n", EVENT), &[415]),
        ("gzip twice", sized("Content-Encoding: gzip, gzip\r\n", EVENT), &[415]),
        ("what a web page sends", sized("Origin: http://x\r\n", EVENT), &[403]),
        ("a parameter that is not known", to("/api/v1/events?a=b", "Content-Length: 0\r\n", ""), REFUSED),
        ("a body that is awaited, and not taken", post(&format!("{expected}Origin: http://x\r\n"), EVENT), &[403]),
        ("no gzip", sized("Content-Encoding: gzip\r\n", EVENT), READ),
    ]
}

/// The statuses of the answers, one after the other, and whether all of it was answers.
fn statuses(mut answers: &str) -> Option<Vec<u16>> {
    let mut statuses = Vec::new();
    while !answers.is_empty() {
        let (head, rest) = answers.split_once("\r\n\r\n")?;
        statuses.push(head.strip_prefix("HTTP/1.1 ").or(head.strip_prefix("HTTP/1.0 "))?.get(..3)?.parse().ok()?);
        let head = head.to_ascii_lowercase();
        let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: "));
        answers = rest.get(length.unwrap_or("0").parse().ok()?..)?;
    }
    Some(statuses)
}

/// Sends bytes, all at once or one by one, and reads until the server closes.
async fn exchange(rig: &Rig, bytes: &[u8], one_by_one: bool) -> String {
    let tcp = TcpStream::connect(rig.addr).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let (mut back, mut to) = tcp.into_split();
    let writing = async {
        let piece_bytes = if one_by_one { 1 } else { bytes.len().max(1) };
        for piece in bytes.chunks(piece_bytes) {
            // The server may close before it has read all.
            if to.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        to
    };
    let mut answers = Vec::new();
    let (to, read) = tokio::join!(writing, timeout(PATIENCE, back.read_to_end(&mut answers)));
    drop(to);
    let read = read.unwrap_or_else(|_| panic!("the server does not close after {}", String::from_utf8_lossy(&answers)));
    if let Err(error) = read {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    String::from_utf8(answers).unwrap()
}

async fn check_all(rows: &[Row]) {
    let rig = Rig::with(ServerOptions { body_bytes_max: BODY_BYTES_MAX, ..ServerOptions::default() }).await;
    rig.backend.state(|state| state.sync = true);
    let mut wrong = Vec::new();
    for (what, request, expected) in rows {
        for one_by_one in [false, true] {
            let answers =
                exchange(&rig, format!("{request}{NEXT}").as_bytes(), one_by_one && request.len() < 4_000).await;
            let answered = statuses(&answers).unwrap_or_else(|| panic!("{what}: these are no answers: {answers}"));
            if answered != *expected {
                wrong.push(format!("{what} ({one_by_one}): {answered:?} and not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Each row was sent twice.
    let stored = 2 * rows.iter().filter(|(_, _, expected)| expected.contains(&204)).count();
    assert_eq!(rig.backend.state(|state| state.stored.len()), stored);
}

/// Where a client stops in the middle of what it has to say, and what it is told when its time is over.
#[tokio::test]
async fn whoever_stops_in_the_middle_is_told_or_closed() {
    let limit = Duration::from_millis(100);
    let rig = Rig::with(ServerOptions { header_timeout: limit, body_timeout: limit, ..ServerOptions::default() }).await;
    let rows: Vec<Row> = vec![
        ("nothing", String::new(), &[]),
        ("a method", "GET".to_owned(), &[]),
        ("a line", "GET /health HTTP/1.1\r\n".to_owned(), &[]),
        ("half a field", "GET /health HTTP/1.1\r\nHo".to_owned(), &[]),
        ("all but the empty line", "GET /health HTTP/1.1\r\nHost: x\r\n".to_owned(), &[]),
        ("a request, and then nothing", get(""), &[200]),
        ("a request, and then a part of one", format!("{}GET /hea", get("")), &[200]),
        ("a body that is awaited", post("Content-Length: 3\r\n", ""), &[408]),
        ("half a body", post("Content-Length: 3\r\n", "a"), &[408]),
        ("a body that is asked for", post("Content-Length: 3\r\nExpect: 100-continue\r\n", ""), &[100, 408]),
        ("half a size", chunked("1"), &[408]),
        ("half a chunk", chunked("3\r\na"), &[408]),
        ("half a line end", chunked("1\r\na\r"), &[408]),
        ("no last chunk", chunked("1\r\na\r\n"), &[408]),
        ("half a trailer", chunked("0\r\nName: val"), &[408]),
    ];
    for (what, started, expected) in rows {
        let answers = exchange(&rig, started.as_bytes(), false).await;
        assert_eq!(statuses(&answers).as_deref(), Some(expected), "{what}: {answers}");
    }
}

/// Time is counted for all of it: one byte now and then does not help.
#[tokio::test]
async fn whoever_never_stops_is_closed_as_well() {
    let limit = Duration::from_millis(100);
    let rig = Rig::with(ServerOptions { header_timeout: limit, body_timeout: limit, ..ServerOptions::default() }).await;
    for (what, start, again, expected) in [
        ("a line", "GET /", "a", &[][..]),
        ("fields", "GET /health HTTP/1.1\r\nHost: x\r\n", "a: b\r\n", &[]),
        ("empty lines", "", "\r\n", &[]),
        ("a body", "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n", "a", &[408]),
        ("chunks", "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n", &[408]),
        ("an extension", "POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;", "a", &[408]),
    ] {
        let (mut back, mut to) = TcpStream::connect(rig.addr).await.unwrap().into_split();
        to.write_all(start.as_bytes()).await.unwrap();
        let dripping = tokio::spawn(async move {
            while to.write_all(again.as_bytes()).await.is_ok() {
                tokio::time::sleep(limit / 20).await;
            }
        });
        let mut answers = Vec::new();
        let read = timeout(PATIENCE, back.read_to_end(&mut answers)).await;
        assert!(read.is_ok(), "{what}: the server does not close");
        dripping.abort();
        assert_eq!(statuses(&String::from_utf8(answers).unwrap()).as_deref(), Some(expected), "{what}");
    }
}

#[test]
fn the_table_is_long_enough() {
    let tables = [lengths(), chunks(), encodings(), heads(), connections(), events()];
    assert!(tables.iter().map(Vec::len).sum::<usize>() >= 100);
}

#[tokio::test]
async fn a_body_is_as_long_as_its_one_length_says() {
    check_all(&lengths()).await;
}

#[tokio::test]
async fn chunks_are_read_exactly() {
    check_all(&chunks()).await;
}

#[tokio::test]
async fn two_ways_to_read_a_length_are_none() {
    check_all(&encodings()).await;
}

#[tokio::test]
async fn heads_are_read_strictly() {
    check_all(&heads()).await;
}

#[tokio::test]
async fn connections_go_on_where_both_sides_know_it() {
    check_all(&connections()).await;
}

#[tokio::test]
async fn events_are_taken_from_whole_bodies_only() {
    check_all(&events()).await;
}
