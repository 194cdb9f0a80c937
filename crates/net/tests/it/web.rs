//! A web server for the outbound client to call, that answers what it is told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// What a server has seen.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    connections: Arc<Mutex<usize>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Seen {
    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// How a server answers a request; `None` is silence for ever.
pub(crate) type Script = fn(&str) -> Option<Vec<u8>>;

/// Answers every request with what the script says, one after another on each connection.
pub(crate) async fn serve(script: Script) -> (SocketAddr, Seen) {
    let (listener, addr, seen) = listen().await;
    let seen_there = seen.clone();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(answer(tcp, script, seen_there.clone()));
        }
    });
    (addr, seen)
}

/// The same with TLS, as `plc.test`.
pub(crate) async fn serve_tls(script: Script, tls: tokio_rustls::TlsAcceptor) -> (SocketAddr, Seen) {
    let (listener, addr, seen) = listen().await;
    let seen_there = seen.clone();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (tls, seen) = (tls.clone(), seen_there.clone());
            tokio::spawn(async move {
                if let Ok(stream) = tls.accept(tcp).await {
                    answer(stream, script, seen).await;
                }
            });
        }
    });
    (addr, seen)
}

async fn listen() -> (TcpListener, SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr, Seen::default())
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, script: Script, seen: Seen) {
    *seen.connections.lock().unwrap() += 1;
    loop {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => request.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(request.clone()).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        request.extend(body);
        let request = String::from_utf8_lossy(&request).into_owned();
        seen.requests.lock().unwrap().push(request.clone());
        match script(&request) {
            Some(answer) => {
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
            None => std::future::pending().await,
        }
    }
}

/// An answer of that status with a body.
pub(crate) fn ok(status: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend(body);
    Some(answer)
}
