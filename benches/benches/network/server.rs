//! The processes that are measured: the real server with its data directory, and a bare WebSocket server that throws away.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use slung_benches::cost;
use tokio::net::TcpListener;

use crate::Result;
use crate::producer::PATIENCE;

/// A running process that takes events; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl Process {
    /// `slung serve` on a free port.
    pub(crate) fn slung(binary: &Path, data: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args(["--log", "info", "serve", "--listen", "127.0.0.1:0", "--data"]).arg(data).args(arguments);
        command.env_remove("SLUNG_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", binary.display()))?;
        let mut log = BufReader::new(child.stderr.take().ok_or("it is piped")?);
        let mut started = Self { child, addr: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let mut line = String::new();
        started.addr = loop {
            line.clear();
            if log.read_line(&mut line)? == 0 {
                return Err("the server did not start".into());
            }
            if let Some((_, rest)) = line.split_once("listening on http://") {
                break rest.split_whitespace().next().ok_or("an address follows")?.parse()?;
            }
        };
        // Read on, so that the server never waits for its log.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Ok(started)
    }

    /// This program again, as [`sink`].
    pub(crate) fn sink() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("--sink").stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("it is piped")?).read_line(&mut line)?;
        Ok(Self { addr: line.trim().parse()?, child })
    }

    /// Processor time of all its threads so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        Ok(cost::process_cpu(self.child.id())?)
    }

    /// The memory that it has, and the most that it had, bytes.
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        Ok((cost::process_memory_bytes(self.child.id())?, cost::process_memory_peak_bytes(self.child.id())?))
    }

    /// The memory that it has, pages that it shares with itself counted once, bytes.
    pub(crate) fn proportional_memory(&self) -> Result<u64> {
        Ok(cost::process_proportional_bytes(self.child.id())?)
    }

    /// Ends it as a power cut would, as far as the process goes.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The answer to a request, which must be a good one.
    pub(crate) fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.addr)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.addr)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
            _ => Err(answer.into()),
        }
    }

    /// The number that a query asks for.
    pub(crate) fn count(&self, query: &str) -> Result<u64> {
        let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let body = self.get(&format!("/api/v1/query?q={query}"))?;
        let answer: serde_json::Value = serde_json::from_str(&body)?;
        Ok(answer["count"].as_u64().ok_or(body)?)
    }

    /// A metric without labels.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        let body = self.get("/metrics")?;
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.ok_or(format!("no metric {name}"))?.parse()?)
    }

    /// Asks until a metric is as wished.
    pub(crate) fn wait_for_metric(&self, name: &str, wish: f64) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.metric(name)? != wish {
            if Instant::now() > deadline {
                return Err(format!("{name} never was {wish}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone after `kill`.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a WebSocket server is at least: messages are read, pings answered, and nothing else. Ends with the process.
pub(crate) fn sink() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut out = std::io::stdout();
        writeln!(out, "{}", listener.local_addr()?)?;
        out.flush()?;
        loop {
            let (tcp, _) = listener.accept().await?;
            tcp.set_nodelay(true)?;
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(tcp).await?;
                while let Some(message) = socket.next().await {
                    std::hint::black_box(message?);
                }
                Ok::<(), tokio_tungstenite::tungstenite::Error>(())
            });
        }
    })
}

/// The server's binary: beside this one, as cargo puts it, unless it was named.
pub(crate) fn binary(named: Option<PathBuf>) -> Result<PathBuf> {
    let path = match named {
        Some(path) => path,
        None => {
            let own = std::env::current_exe()?;
            let profile = own.parent().and_then(Path::parent).ok_or("cargo puts benches into a directory")?;
            profile.join(format!("slung{}", std::env::consts::EXE_SUFFIX))
        }
    };
    if !path.exists() {
        return Err(format!("{} is not there: build it first, as README.md says", path.display()).into());
    }
    Ok(path)
}
