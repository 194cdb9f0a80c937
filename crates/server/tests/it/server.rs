//! A server process under test, and the few ways to talk to it. Its clients are not the product's own.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream as AsyncTcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// How long anything may take before a test gives up: generous, as the machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test.
pub(crate) fn slung() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slung"));
    command.env_remove("SLUNG_LOG");
    command
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the binary starts")
}

/// A workflow that was built before: xtask says where, if it is not the usual place.
pub(crate) fn workflow(name: &str) -> PathBuf {
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/workflows");
    let path = std::env::var_os("SLUNG_WORKFLOWS_DIR").map_or_else(usual, PathBuf::from).join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is not there: run `cargo xtask build-workflows` first", path.display());
    path
}

/// A file of the example data.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workflows/data").join(name)
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

/// A running `slung serve`; killed when dropped.
pub(crate) struct Server {
    child: Child,
    log: Arc<Log>,
    addr: SocketAddr,
}

impl Server {
    /// Starts one on a free port, with those arguments, and waits until it listens.
    pub(crate) fn start(data: &Path, args: &[&str]) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), data, args)
    }

    /// The same on that port.
    pub(crate) fn start_at(listen: SocketAddr, data: &Path, args: &[&str]) -> Self {
        let mut child = slung()
            .args(["serve", "--listen", &listen.to_string(), "--data"])
            .arg(data)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Log::default());
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lines.lock().unwrap().push(line);
                lines.grown.notify_all();
            }
        });
        let mut server = Self { child, log, addr: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let line = server.wait_for_log("listening on http://");
        let (_, addr) = line.split_once("listening on http://").expect("waited for");
        server.addr = addr.split_whitespace().next().and_then(|addr| addr.parse().ok()).expect("an address follows");
        server
    }

    /// The first log line with that text, now or later.
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no log line has {text:?}:\n{}", lines.join("\n"));
            lines = self.log.grown.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// All log lines so far.
    pub(crate) fn log(&self) -> String {
        self.log.lines.lock().unwrap().join("\n")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn http_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn ws_url(&self) -> String {
        format!("ws://{}/", self.addr)
    }

    /// Ends it as a power cut would, as far as the process goes.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill is there").success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "SIGTERM did not end it:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// One HTTP request by hand: status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        http(self.addr, format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.addr))
    }

    /// As [`Server::get`], with the head in between.
    pub(crate) fn get_with_head(&self, path: &str) -> (u16, String, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.addr);
        http_with_head(self.addr, request)
    }

    /// The value of a query.
    pub(crate) fn query(&self, query: &str) -> serde_json::Value {
        let (status, body) = self.get(&format!("/api/v1/query?q={}", percent_encoded(query)));
        assert_eq!(status, 200, "{query}: {body}");
        serde_json::from_str::<serde_json::Value>(&body).expect("JSON")["value"].clone()
    }

    /// `slung write` with a stream that has no end, timestamps counting up from 1,700,000,000 s; it ends a second
    /// after the server has gone. And the thread that feeds it.
    pub(crate) fn write_without_end(&self) -> (Child, std::thread::JoinHandle<()>) {
        let mut child = slung()
            .args(["write", "-", "--series", "s", "--wait", "0", "--give-up", "1", "--url", &self.ws_url()])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || {
            writeln!(stdin, "timestamp,value").unwrap();
            // Ends with the pipe, when the sender has lost its server.
            for index in 0_u64.. {
                if writeln!(stdin, "{},{}", 1_700_000_000_000_000_u64 + index, index % 100).is_err() {
                    return;
                }
            }
        });
        (child, feeder)
    }

    /// The updates of a live query, once it is registered.
    pub(crate) fn watch(&self, query: &str) -> Updates {
        let mut stream = TcpStream::connect(self.addr).expect("it connects");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // HTTP/1.0 has no chunks.
        stream.write_all(format!("GET /api/v1/live?q={} HTTP/1.0\r\n\r\n", percent_encoded(query)).as_bytes()).unwrap();
        let mut lines = BufReader::new(stream).lines();
        let status = lines.next().unwrap().unwrap();
        assert!(status.contains(" 200 "), "{status}");
        assert!(lines.by_ref().map(Result::unwrap).any(|line| line.is_empty()), "the end of the head");
        Updates(lines)
    }

    /// The sum of a metric over its labels; 0 where it is not there.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (status, body) = self.get("/metrics");
        assert_eq!(status, 200, "{body}");
        let samples = body.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            (rest.starts_with('{') || rest.starts_with(' ')).then(|| rest.rsplit(' ').next())?
        });
        samples.map(|value| value.parse::<f64>().expect("a number")).sum()
    }

    /// Asks until the answer is as wished.
    pub(crate) fn wait_until(&self, what: &str, mut wish: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wish(self) {
            assert!(Instant::now() < deadline, "never happened: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A producer's connection.
    pub(crate) async fn connect(&self) -> Producer {
        let (socket, _) = tokio_tungstenite::connect_async(self.ws_url()).await.expect("it connects");
        Producer { socket }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone after `kill` and `terminate`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn percent_encoded(query: &str) -> String {
    query.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// A live query as it is streamed over HTTP; dropped, it hangs up.
pub(crate) struct Updates(Lines<BufReader<TcpStream>>);

impl Updates {
    /// The next one, now or later.
    pub(crate) fn next(&mut self) -> serde_json::Value {
        let event = self.0.find_map(|line| line.unwrap().strip_prefix("data: ").map(str::to_owned));
        serde_json::from_str(&event.expect("the stream goes on")).unwrap()
    }
}

/// Sends a raw request and reads the answer to its end: status and body.
pub(crate) fn http(addr: SocketAddr, request: impl AsRef<[u8]>) -> (u16, String) {
    let (status, _, body) = http_with_head(addr, request);
    (status, body)
}

/// As [`http`], with the head in between.
fn http_with_head(addr: SocketAddr, request: impl AsRef<[u8]>) -> (u16, String, String) {
    let mut stream = TcpStream::connect(addr).expect("it connects");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_ref()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// A producer that is not the product's own client.
pub(crate) struct Producer {
    socket: WebSocketStream<MaybeTlsStream<AsyncTcpStream>>,
}

impl Producer {
    pub(crate) async fn send(&mut self, message: Message) {
        self.socket.send(message).await.expect("the connection is there");
    }

    pub(crate) async fn event(&mut self, series: &str, tags: &[&str], timestamp: i64, value: f64) {
        self.send(Message::Binary(frame(series, tags, timestamp, value).into())).await;
    }

    /// The next message from a workflow.
    pub(crate) async fn message(&mut self) -> String {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a message comes in time");
            match message.expect("the connection is there").expect("it is a good frame") {
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Whether nothing but a pong comes back after a ping: every message sent before has been handed over by then.
    pub(crate) async fn has_nothing_waiting(&mut self) -> bool {
        self.send(Message::Ping(b"now"[..].into())).await;
        let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("the pong comes in time");
        matches!(message, Some(Ok(Message::Pong(_))))
    }

    /// The code with which the server closes.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        loop {
            match tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("it ends in time") {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }
}

/// An event as the wire format has it, written out once more so that the product's encoder is not its own judge.
pub(crate) fn frame(series: &str, tags: &[&str], timestamp: i64, value: f64) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(timestamp.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    bytes.extend((series.len() as u16).to_le_bytes());
    bytes.extend((tags.len() as u16).to_le_bytes());
    bytes.extend(series.as_bytes());
    for tag in tags {
        bytes.extend((tag.len() as u16).to_le_bytes());
        bytes.extend(tag.as_bytes());
    }
    bytes
}
