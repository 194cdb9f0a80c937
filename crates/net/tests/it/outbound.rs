//! Calls to the outside, against real servers on this machine, which a rule has to allow.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use slung_net::{Counters, HttpClient, HttpMethod, OutboundError, OutboundOptions, Refusal, Resolve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::backend::row;
use crate::rig::nobody;
use crate::web::{self, ok};

/// Answers every name alike, and counts.
#[derive(Default)]
struct Names {
    addresses: Vec<IpAddr>,
    asked: AtomicUsize,
    names: Mutex<Vec<String>>,
    silent: bool,
}

impl Names {
    fn at(addresses: &[&str]) -> Arc<Self> {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Arc::new(Self { addresses, ..Self::default() })
    }
}

impl Resolve for Names {
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Relaxed);
        self.names.lock().unwrap().push(name.to_owned());
        if self.silent {
            return std::future::pending().boxed();
        }
        std::future::ready(Ok(self.addresses.clone())).boxed()
    }
}

fn options(allow: &[&str]) -> OutboundOptions {
    let allow = allow.iter().map(|rule| rule.parse().unwrap()).collect();
    OutboundOptions { allow, ..OutboundOptions::default() }
}

/// A client that may call the whole of this machine.
fn local_client() -> (HttpClient, Arc<Counters>) {
    with_options(options(&["127.0.0.0/8:*"]))
}

fn with_options(options: OutboundOptions) -> (HttpClient, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    (HttpClient::new(options, Arc::clone(&counters)), counters)
}

fn outcome(counters: &Counters, label: &str) -> u64 {
    row(&counters.snapshot().outbound_calls, label)
}

#[tokio::test]
async fn a_call_is_what_was_asked_for_and_nothing_more() {
    let (addr, seen) = web::serve(|_| ok("200 OK", b"done")).await;
    let (client, counters) = local_client();
    let url = format!("http://{addr}/a/b?c=d");
    for (method, body) in [
        (HttpMethod::Get, &b""[..]),
        (HttpMethod::Post, b"{\"text\":\"hello\"}"),
        (HttpMethod::Put, b"hello"),
        (HttpMethod::Delete, b""),
        (HttpMethod::Post, b"\xff"),
    ] {
        let answer = client.send(method, &url, body.to_vec()).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"done"[..]));
    }
    let requests = seen.requests();
    let version = env!("CARGO_PKG_VERSION");
    let expected = |method: &str, more: &str| {
        format!("{method} /a/b?c=d HTTP/1.1\r\nuser-agent: slung/{version}\r\naccept: */*\r\n{more}host: {addr}\r\n")
    };
    let json = expected("POST", "content-type: application/json\r\n");
    assert_eq!(requests[0], expected("GET", "") + "\r\n");
    assert_eq!(requests[1], json + "content-length: 16\r\n\r\n{\"text\":\"hello\"}");
    assert_eq!(
        requests[2],
        expected("PUT", "content-type: text/plain; charset=utf-8\r\n") + "content-length: 5\r\n\r\nhello"
    );
    assert!(requests[3].starts_with("DELETE "), "{}", requests[3]);
    assert!(requests[4].contains("content-type: application/octet-stream\r\n"), "{}", requests[4]);
    assert_eq!(seen.connections(), 1, "the connection is used again");
    assert_eq!(outcome(&counters, "success"), 5);
}

#[tokio::test]
async fn this_machine_is_out_of_reach_without_a_rule() {
    let (addr, seen) = web::serve(|_| ok("200 OK", b"secret")).await;
    let port = addr.port();
    let (client, counters) = with_options(options(&["localhost", "127.0.0.1", "127.0.0.2:*", "localhost:1"]));
    for host in ["127.0.0.1", "localhost", "LOCALHOST.", "127.0.0.1."] {
        let refused = client.send(HttpMethod::Get, &format!("http://{host}:{port}/"), "").await.unwrap_err();
        assert!(matches!(refused, OutboundError::Refused(Refusal::Address { .. })), "{host}: {refused}");
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let hint = format!("--allow-host {host}:{port} allows it");
        assert!(refused.to_string().ends_with(&hint), "{refused}");
    }
    // What the message says to set is what helps.
    let (allowed, _) = with_options(options(&[&format!("localhost:{port}")]));
    assert_eq!(allowed.send(HttpMethod::Get, &format!("http://localhost:{port}/"), "").await.unwrap().body, "secret");
    assert!(allowed.send(HttpMethod::Get, &format!("http://127.0.0.1:{port}/"), "").await.is_err());
    assert_eq!((seen.connections(), outcome(&counters, "refused")), (1, 4));
}

/// A name is judged by what it leads to, and by all of it.
#[tokio::test]
async fn names_that_lead_inside_are_refused_whatever_else_they_lead_to() {
    for addresses in [
        &["127.0.0.1"][..],
        &["10.0.0.1"],
        &["169.254.169.254"],
        &["::1"],
        &["::ffff:10.0.0.1"],
        &["64:ff9b::a00:1"],
        &["2002:7f00:1::"],
        &["fe80::1"],
        &["fd00::1"],
        &["93.184.215.14", "10.0.0.1"],
        &["10.0.0.1", "93.184.215.14"],
        &["2606:4700::1111", "93.184.215.14", "0.0.0.0"],
    ] {
        let names = Names::at(addresses);
        let client = HttpClient::with_parts(options(&[]), Arc::default(), names.clone(), None);
        for url in ["http://inside.example/", "https://inside.example/"] {
            let refused = client.send(HttpMethod::Post, url, "x").await.unwrap_err();
            assert!(matches!(refused, OutboundError::Refused(Refusal::Address { .. })), "{addresses:?}: {refused}");
        }
        assert_eq!(names.asked.load(Relaxed), 2, "resolved once per connection");
    }
    let client = HttpClient::with_parts(options(&[]), Arc::default(), Names::at(&["93.184.215.14"]), None);
    let refused = client.send(HttpMethod::Get, "http://outside.example:22/", "").await.unwrap_err();
    assert!(matches!(refused, OutboundError::Refused(Refusal::Port { port: 22, .. })), "{refused}");
}

#[tokio::test]
async fn a_name_is_resolved_once_per_connection_and_the_first_address_that_answers_is_taken() {
    let (addr, seen) = web::serve(|_| ok("200 OK", b"")).await;
    // Nobody listens at the first one.
    let names = Names::at(&["127.0.0.77", "127.0.0.1"]);
    let rule = format!("plc.test:{}", addr.port());
    let client = HttpClient::with_parts(options(&[&rule]), Arc::default(), names.clone(), None);
    for _ in 0..3 {
        let url = format!("http://PLC.test.:{}/", addr.port());
        assert_eq!(client.send(HttpMethod::Get, &url, "").await.unwrap().status, 200);
    }
    assert_eq!((names.asked.load(Relaxed), seen.connections()), (1, 1));
    assert_eq!(names.names.lock().unwrap()[..], ["plc.test"]);
    assert!(seen.requests()[0].contains(&format!("\r\nhost: plc.test:{}\r\n", addr.port())));
}

#[tokio::test]
async fn urls_in_odd_spellings_never_get_as_far_as_a_name() {
    let names = Names::at(&["93.184.215.14"]);
    let counters = Arc::new(Counters::default());
    let client = HttpClient::with_parts(options(&["0.0.0.0/0:*", "[::/0]:*"]), counters.clone(), names.clone(), None);
    let odd = [
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://user@localhost/",
        "http://localhost\\@example.com/",
        "http://[::1%25lo]/",
        "http://\u{ff11}27.0.0.1/",
        "file:///etc/passwd",
        "x",
    ];
    for url in odd {
        let refused = client.send(HttpMethod::Get, url, "").await.unwrap_err();
        assert!(matches!(refused, OutboundError::BadUrl { .. }), "{url}: {refused}");
    }
    assert_eq!((names.asked.load(Relaxed), outcome(&counters, "bad_url")), (0, odd.len() as u64));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let (inside, inside_seen) = web::serve(|_| ok("200 OK", b"secret")).await;
    static INSIDE: Mutex<String> = Mutex::new(String::new());
    *INSIDE.lock().unwrap() = inside.to_string();
    let (addr, _) = web::serve(|request| {
        if request.starts_with("GET /error ") {
            return ok("500 Internal Server Error", b"a page");
        }
        let inside = INSIDE.lock().unwrap();
        Some(format!("HTTP/1.1 302 Found\r\nLocation: http://{inside}/\r\nContent-Length: 0\r\n\r\n").into_bytes())
    })
    .await;
    let (client, counters) = local_client();
    let answer = client.send(HttpMethod::Get, &format!("http://{addr}/"), "").await.unwrap();
    assert_eq!(answer.status, 302);
    assert!(inside_seen.requests().is_empty());
    let answer = client.send(HttpMethod::Get, &format!("http://{addr}/error"), "").await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (500, &b"a page"[..]));
    assert_eq!((outcome(&counters, "status"), outcome(&counters, "success")), (2, 0));
}

/// A workflow gets what was sent, and nothing that is small on the wire and large in memory.
#[tokio::test]
async fn what_is_compressed_stays_compressed() {
    const GZIP: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\0\0\x83\x16\xdc\x8c\x01\0\0\0";
    let (addr, seen) = web::serve(|_| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", GZIP.len());
        Some([head.as_bytes(), GZIP].concat())
    })
    .await;
    let (client, _) = local_client();
    assert_eq!(client.send(HttpMethod::Get, &format!("http://{addr}/"), "").await.unwrap().body, GZIP);
    assert!(!seen.requests()[0].contains("encoding"), "{}", seen.requests()[0]);
}

/// The environment belongs to the whole process, so this starts one: this program once more, with a test that knows
/// each byte of its requests.
#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    let (proxy, seen) = web::serve(|_| ok("200 OK", b"by the proxy")).await;
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "outbound::a_call_is_what_was_asked_for_and_nothing_more"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        again.env(name, format!("http://{proxy}"));
    }
    again.env_remove("NO_PROXY").env_remove("no_proxy");
    let output = tokio::task::spawn_blocking(move || again.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(seen.connections(), 0);
}

/// The ways in which an answer ends, and answers that are none.
#[tokio::test]
async fn every_way_to_end_an_answer_is_read_and_what_breaks_off_is_no_answer() {
    /// Status and body, where it is an answer.
    type Expected = Option<(u16, &'static str)>;
    const ANSWERS: &[(&str, &str, Expected)] = &[
        ("length", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", Some((200, "body"))),
        (
            "chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n3;x=y\r\nody\r\n0\r\nT: r\r\n\r\n",
            Some((200, "body")),
        ),
        ("close", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbody", Some((200, "body"))),
        ("1.0", "HTTP/1.0 200 OK\r\n\r\nbody", Some((200, "body"))),
        ("none", "HTTP/1.1 204 No Content\r\n\r\n", Some((204, ""))),
        ("informed", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 202 A\r\nContent-Length: 1\r\n\r\nb", Some((202, "b"))),
        ("odd", "HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n", Some((999, ""))),
        ("short", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbody", None),
        ("cut", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n", None),
        ("lengths", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody", None),
        ("chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nbody\r\n0\r\n\r\n", None),
        ("negative", "HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\nbody", None),
        ("status", "HTTP/1.1 20 OK\r\n\r\n", None),
        ("version", "HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n", None),
        ("head", "HTTP/1.1 200 OK\r\nContent-Le", None),
        ("nothing", "", None),
    ];
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for (_, answer, _) in ANSWERS {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = tcp.read(&mut request).await;
            tcp.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    for (what, answer, expected) in ANSWERS {
        // A new one each time: what is left of a connection that was closed is not to be mistaken for the next answer.
        let (client, _) = local_client();
        let got = client.send(HttpMethod::Get, &format!("http://{addr}/"), "").await;
        match (got, expected) {
            (Ok(got), Some((status, body))) => {
                assert_eq!((got.status, &got.body[..]), (*status, body.as_bytes()), "{what}: {answer:?}");
            }
            (Err(OutboundError::Http(_)), None) => {}
            (got, _) => panic!("{what}: {answer:?} is {got:?}"),
        }
    }
}

#[tokio::test]
async fn bodies_over_the_limit_fail_the_call() {
    let (addr, seen) = web::serve(|request| {
        let body = vec![b'x'; 1_001];
        if request.starts_with("GET /exact ") {
            return ok("200 OK", &body[..1_000]);
        }
        if request.starts_with("GET /length ") {
            return ok("200 OK", &body);
        }
        // Without a length, and without an end.
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..100 {
            answer.extend(b"64\r\n");
            answer.extend([b'x'; 100]);
            answer.extend(b"\r\n");
        }
        Some(answer)
    })
    .await;
    let (client, counters) = with_options(OutboundOptions {
        request_bytes_max: 1_000,
        response_bytes_max: 1_000,
        ..options(&["127.0.0.1:*"])
    });
    let url = |path: &str| format!("http://{addr}/{path}");
    assert_eq!(client.send(HttpMethod::Get, &url("exact"), "").await.unwrap().body.len(), 1_000);
    for path in ["length", "chunked"] {
        let error = client.send(HttpMethod::Get, &url(path), "").await.unwrap_err();
        assert_eq!(error, OutboundError::ResponseTooBig { bytes_max: 1_000 }, "{path}");
    }
    assert!(client.send(HttpMethod::Get, &url("exact"), "").await.is_ok());
    let before = seen.requests().len();
    let error = client.send(HttpMethod::Post, &url("exact"), vec![0; 1_001]).await.unwrap_err();
    assert_eq!(error, OutboundError::RequestTooBig { bytes: 1_001, bytes_max: 1_000 });
    assert_eq!(seen.requests().len(), before);
    assert_eq!((outcome(&counters, "response_too_big"), outcome(&counters, "request_too_big")), (2, 1));
}

#[tokio::test]
async fn every_wait_has_an_end() {
    let limit = Duration::from_millis(100);
    // A resolver that says nothing.
    let names = Arc::new(Names { silent: true, ..Names::default() });
    let quick = OutboundOptions { connect_timeout: limit, ..options(&["127.0.0.1:*"]) };
    let client = HttpClient::with_parts(quick, Arc::default(), names, None);
    let error = client.send(HttpMethod::Get, "http://silent.example/", "").await.unwrap_err();
    assert_eq!(error, OutboundError::TimedOut { what: "connecting", max: limit });

    // A server that says nothing, or stops in the middle.
    let quick = OutboundOptions { total_timeout: limit, ..options(&["127.0.0.1:*"]) };
    let (client, counters) = with_options(quick);
    let (silent, _) = web::serve(|_| None).await;
    let (stops, _) = web::serve(|_| Some(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec())).await;
    for addr in [silent, stops] {
        let error = client.send(HttpMethod::Get, &format!("http://{addr}/"), "").await.unwrap_err();
        assert_eq!(error, OutboundError::TimedOut { what: "the call", max: limit });
    }
    assert_eq!(outcome(&counters, "timed_out"), 2);

    // One that accepts and never speaks TLS.
    let quick = OutboundOptions { connect_timeout: limit, ..options(&["127.0.0.1:*"]) };
    let client = HttpClient::with_parts(quick, Arc::default(), Names::at(&[]), Some(trusting()));
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", mute.local_addr().unwrap());
    let error = client.send(HttpMethod::Get, &url, "").await.unwrap_err();
    assert_eq!(error, OutboundError::TimedOut { what: "connecting", max: limit });
}

#[tokio::test]
async fn what_is_not_there_or_not_http_is_said_so() {
    let (client, counters) = local_client();
    let (_held, addr) = nobody();
    let error = client.send(HttpMethod::Get, &format!("http://{addr}/"), "").await.unwrap_err();
    assert!(error.to_string().starts_with("no connection to 127.0.0.1: "), "{error}");
    let nobody = HttpClient::with_parts(options(&[]), Arc::default(), Names::at(&[]), None);
    let error = nobody.send(HttpMethod::Get, "http://nobody.example/", "").await.unwrap_err();
    assert_eq!(error, OutboundError::Resolve("nobody.example has no address: the answer is empty".into()));
    let (addr, _) = web::serve(|_| Some(b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec())).await;
    let error = client.send(HttpMethod::Get, &format!("http://{addr}/"), "").await.unwrap_err();
    assert!(matches!(&error, OutboundError::Http(_)), "{error}");
    let mut head = b"HTTP/1.1 200 OK\r\na: ".to_vec();
    head.resize(200_000, b'b');
    static HEAD: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    *HEAD.lock().unwrap() = head;
    let (addr, _) = web::serve(|_| Some(HEAD.lock().unwrap().clone())).await;
    let error = client.send(HttpMethod::Get, &format!("http://{addr}/"), "").await.unwrap_err();
    assert!(matches!(&error, OutboundError::Http(_)), "{error}");
    assert_eq!((outcome(&counters, "connect"), outcome(&counters, "http")), (1, 2));
}

// An authority of the tests' own and a certificate of it for `plc.test`, good until 2125, made by
// `openssl req -x509` and `openssl x509 -req -CA` on the curve P-256. The authority's key was thrown away.
const AUTHORITY: &[u8] = include_bytes!("tls/authority.der");
const CERTIFICATE: &[u8] = include_bytes!("tls/server.der");
const KEY: &[u8] = include_bytes!("tls/server.key.der");

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Trusts the tests' authority only.
fn trusting() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(AUTHORITY)).unwrap();
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    config.with_root_certificates(roots).with_no_client_auth()
}

fn acceptor() -> tokio_rustls::TlsAcceptor {
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(KEY).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![CertificateDer::from(CERTIFICATE)], key);
    Arc::new(config.unwrap()).into()
}

#[tokio::test]
async fn tls_is_spoken_with_those_that_can_be_trusted() {
    let (addr, seen) = web::serve_tls(|_| ok("200 OK", b"over TLS"), acceptor()).await;
    let port = addr.port();
    let client = |tls| {
        let rules = options(&["127.0.0.1:*"]);
        HttpClient::with_parts(rules, Arc::default(), Names::at(&[&Ipv4Addr::LOCALHOST.to_string()]), tls)
    };
    let trusting = client(Some(trusting()));
    for _ in 0..2 {
        let answer = trusting.send(HttpMethod::Post, &format!("https://plc.test:{port}/"), "x").await.unwrap();
        assert_eq!(answer.body, "over TLS");
    }
    assert_eq!(seen.connections(), 1);
    // Another name than that of the certificate, and an authority that nobody knows.
    let error = trusting.send(HttpMethod::Get, &format!("https://other.test:{port}/"), "").await.unwrap_err();
    assert!(matches!(error, OutboundError::Connect(_)), "{error}");
    let nobody = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let nobody = nobody.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let error = client(Some(nobody)).send(HttpMethod::Get, &format!("https://plc.test:{port}/"), "").await.unwrap_err();
    assert!(error.to_string().to_ascii_lowercase().contains("certificate"), "{error}");
    // The rules hold for TLS too.
    let strict = HttpClient::with_parts(options(&[]), Arc::default(), Names::at(&["127.0.0.1"]), None);
    let error = strict.send(HttpMethod::Get, &format!("https://plc.test:{port}/"), "").await.unwrap_err();
    assert!(matches!(error, OutboundError::Refused(_) | OutboundError::Connect(_)), "{error}");
    assert_eq!(seen.connections(), 1);
}
