//! Listens, serves each connection as a task of its own, and ends them in good order.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::backend::Backend;
use crate::connection;
use crate::http::{self, Protocol};
use crate::memory::Memory;
use crate::producers::Producers;
use crate::stall::Stall;
use crate::stats::{Counters, add};
use crate::v1;

/// Connections that the kernel keeps until they are accepted: after a restart everybody comes back at once, and who
/// finds no room tries again a second later.
const ACCEPT_QUEUE_MAX: u32 = 1024;

/// After an `accept` that failed, for want of file descriptors most of the time.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// How long a client has to take the last answer before the connection is dropped.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// What hyper reads ahead at least, bytes; it panics below.
const HTTP_BUFFER_BYTES_MIN: usize = 8 * 1024;

/// What one connection who is too many is told.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n\
    Retry-After: 10\r\nConnection: close\r\nContent-Length: 62\r\n\r\n\
    {\"error\":{\"code\":\"too_many\",\"message\":\"too many connections\"}}";

/// Limits of a [`Server`].
#[derive(Debug, Clone, PartialEq)]
pub struct ServerOptions {
    /// Connections at once, producers included. Default 10,000. One more is told 503 and closed.
    pub connections_max: usize,
    /// Connections at once from one address, where an IPv6 address stands for its network of 64 bits. Default 256. One
    /// more is told 503 and closed. Behind a proxy all come from its address.
    pub connections_per_address_max: usize,
    /// How long a client has to send the whole head of a request, from when the connection is free for it. Default
    /// 10 s. Whoever is slower, or idle for longer, is closed.
    pub header_timeout: Duration,
    /// The head of a request, bytes. Default 16 KiB; a longer one is answered 431.
    pub header_bytes_max: usize,
    /// Header fields of a request. Default 64; more are answered 431.
    pub header_fields_max: usize,
    /// The body of a request, bytes, before it is decoded. Default 8 MiB: some hundred thousand events; a longer one is
    /// answered 413. Where no body is wanted it is read up to 64 KiB, and thrown away.
    pub body_bytes_max: usize,
    /// A workflow's module as the body of a request, bytes. Default 10 MiB, some hundred times the module of a small
    /// workflow; a longer one is answered 413.
    pub module_bytes_max: usize,
    /// How long a client has to send the body. Default 30 s; then 408.
    pub body_timeout: Duration,
    /// How long a write by HTTP waits for room, and then for the disk. Default 10 s; then 503.
    pub write_timeout: Duration,
    /// Questions to history that are answered at once over HTTP, at least 1. Default 32: more would only read from one
    /// another's disk. Others wait.
    pub queries_max: usize,
    /// Live queries and logs that are streamed over HTTP at once. Default 256: what people and dashboards watch. One more is
    /// answered 503. Every query costs work with each event that feeds it, and up to a full queue of updates where its
    /// reader is slow.
    pub live_streams_max: usize,
    /// How often a live stream tells that it is still there, at least 1 ms. Default 15 s: proxies close what is silent for
    /// a minute, and a client that is gone is noticed when something is sent to it.
    pub live_keep_alive: Duration,
    /// A message of a producer of the plain protocol, bytes, all fragments together. Default 256 KiB; beyond it the
    /// connection is closed with 1009.
    pub message_bytes_max: usize,
    /// A message of a producer of `slung.v1`, bytes, all fragments together. Default 4 MiB; beyond it the connection is
    /// closed with 1009, after a nack.
    pub v1_message_bytes_max: usize,
    /// Messages of a producer of `slung.v1` that may be unanswered. Default 16,384: of one event each they are the 3
    /// million a second that a connection may bring, for the 5 ms that a commit takes. Beyond it nothing is read.
    pub v1_window: u32,
    /// Whether every message goes back to its producer as it came, and none is taken for an event. Default false. Suites
    /// that test WebSocket itself need it: the example `echo` is for them.
    pub echo: bool,
    /// How long a producer may be silent: after half of that it is sent a ping, which every WebSocket library answers by
    /// itself, and after all of it closed. Default 60 s.
    pub idle_timeout: Duration,
    /// How long a producer may take nothing of what is sent to it, or a client of its answer. Default 10 s; then it is
    /// closed, a producer with 1013. Whoever follows a live query may pause: what it does not read is merged.
    pub slow_reader_timeout: Duration,
    /// What connections remember of the series that they named, bytes, all together. Default 64 MiB, some million
    /// series; where it is used up each event is looked up among all series instead, under a lock.
    pub key_cache_bytes_max: usize,
    /// How long a producer has to answer a close frame. Default 2 s.
    pub close_timeout: Duration,
    /// How long everything together may take to end, once the server is told to stop. Default 10 s; what is left is
    /// dropped.
    pub drain_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_address_max: 256,
            header_timeout: Duration::from_secs(10),
            header_bytes_max: 16 * 1024,
            header_fields_max: 64,
            body_bytes_max: 8 * 1024 * 1024,
            module_bytes_max: 10 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(10),
            queries_max: 32,
            live_streams_max: 256,
            live_keep_alive: Duration::from_secs(15),
            message_bytes_max: 256 * 1024,
            v1_message_bytes_max: v1::MESSAGE_BYTES_MAX,
            v1_window: 16_384,
            echo: false,
            idle_timeout: Duration::from_secs(60),
            slow_reader_timeout: Duration::from_secs(10),
            key_cache_bytes_max: 64 * 1024 * 1024,
            close_timeout: Duration::from_secs(2),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// What every connection needs.
pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) producers: Producers,
    pub(crate) counters: Arc<Counters>,
    pub(crate) options: ServerOptions,
    /// A permit for each live stream that there may be.
    pub(crate) live_places: Arc<Semaphore>,
    /// A permit for each question to history that is answered at once.
    pub(crate) query_places: Arc<Semaphore>,
    /// The times of events that come by HTTP without one.
    pub(crate) stamps: http::Stamps,
    /// What the caches of all connections may take.
    pub(crate) key_memory: Memory,
}

/// A server that listens but does not answer yet: [`Server::run`] does.
pub struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    /// Listens on an address; port 0 takes a free one. `producers` is where its connections can be answered, and its
    /// counters are the server's too.
    ///
    /// # Errors
    /// Those of the operating system: the address is in use, is not one of this machine, or needs privileges.
    pub async fn bind(
        listen: impl ToSocketAddrs,
        options: ServerOptions,
        backend: Arc<dyn Backend>,
        producers: Producers,
    ) -> io::Result<Self> {
        let mut listener = Err(io::ErrorKind::AddrNotAvailable.into());
        for addr in tokio::net::lookup_host(listen).await? {
            listener = listen_at(addr);
            if listener.is_ok() {
                break;
            }
        }
        let listener = listener?;
        let addr = listener.local_addr()?;
        let counters = Arc::clone(producers.counters());
        let live_places = Arc::new(Semaphore::new(options.live_streams_max.min(Semaphore::MAX_PERMITS)));
        let query_places = Arc::new(Semaphore::new(options.queries_max.clamp(1, Semaphore::MAX_PERMITS)));
        let stamps = http::Stamps::default();
        let key_memory = Memory::new(options.key_cache_bytes_max);
        let shared =
            Arc::new(Shared { backend, producers, counters, options, live_places, query_places, stamps, key_memory });
        Ok(Self { listener, addr, shared })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `stop` completes, and then ends: no more connections are accepted, requests under way are answered,
    /// live streams end where they are, what producers have sent is handed to the backend, and they are closed with
    /// 1012. Returns when all are gone, after [`ServerOptions::drain_timeout`] at the latest.
    ///
    /// # Cancel safety
    /// Dropping it drops every connection where it stands. Let `stop` complete instead.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { listener, shared, .. } = self;
        let (stopping, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let addresses = Addresses::default();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(ended) = connections.join_next() => report(ended),
                accepted = listener.accept() => match accepted {
                    Ok((tcp, _)) if connections.len() >= shared.options.connections_max => turn_away(&shared, &tcp),
                    Ok((tcp, peer)) => match addresses.enter(peer.ip(), shared.options.connections_per_address_max) {
                        Some(place) => {
                            connections.spawn(serve(Arc::clone(&shared), tcp, peer, place, stopped.clone()));
                        }
                        None => turn_away_one_address(&shared, &tcp, peer),
                    },
                    Err(error) => {
                        error!("accept: {error}; trying again");
                        tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
                    }
                },
            }
        }
        drop(listener);
        stopping.send_replace(true);
        info!("no more connections are accepted; {} are ending", connections.len());
        let drained = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
        };
        if tokio::time::timeout(shared.options.drain_timeout, drained).await.is_err() {
            warn!("{} connections did not end in time and are dropped", connections.len());
            connections.shutdown().await;
        }
    }
}

fn listen_at(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A server that was restarted need not wait for its old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(ACCEPT_QUEUE_MAX)
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!("a connection ended with a panic: {error}");
    }
}

/// Says why, as far as a new socket takes it at once, which it does.
fn turn_away(shared: &Shared, tcp: &TcpStream) {
    let refused = shared.counters.connections_refused.fetch_add(1, Relaxed);
    if refused.is_power_of_two() || refused == 0 {
        warn!(
            "{} connections are open, the most that are allowed: {} turned away",
            shared.options.connections_max,
            refused + 1
        );
    }
    let _ = tcp.try_write(TOO_MANY);
}

fn turn_away_one_address(shared: &Shared, tcp: &TcpStream, peer: SocketAddr) {
    let refused = shared.counters.connections_refused_by_address.fetch_add(1, Relaxed);
    if refused.is_power_of_two() || refused == 0 {
        warn!(
            "{} has {} connections, the most that one address may have (connections_per_address_max): {} turned away",
            peer.ip(),
            shared.options.connections_per_address_max,
            refused + 1
        );
    }
    let _ = tcp.try_write(TOO_MANY);
}

/// How many connections there are from each address.
#[derive(Debug, Default, Clone)]
struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection from an address, for as long as it lives.
#[derive(Debug)]
struct Place {
    addresses: Addresses,
    from: IpAddr,
}

impl Addresses {
    fn enter(&self, address: IpAddr, each_max: usize) -> Option<Place> {
        let from = match address.to_canonical() {
            // Who has one address of a network of 64 bits has them all.
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
            v4 => v4,
        };
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(from).or_default();
        if *count >= each_max {
            return None;
        }
        *count += 1;
        Some(Place { addresses: self.clone(), from })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.addresses.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = open.entry(self.from) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// Counts a connection while it lives.
struct Counted<'a>(&'a Counters);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.connections_now.fetch_sub(1, Relaxed);
    }
}

/// One connection: HTTP first, and a producer's protocol if it is upgraded to that.
async fn serve(shared: Arc<Shared>, tcp: TcpStream, peer: SocketAddr, _place: Place, mut stop: watch::Receiver<bool>) {
    add(&shared.counters.connections_total, 1);
    add(&shared.counters.connections_now, 1);
    let _counted = Counted(&shared.counters);
    // Answers are small and waited for.
    if let Err(error) = tcp.set_nodelay(true) {
        debug!(%peer, "TCP_NODELAY: {error}");
    }
    // Boxed, so that what HTTP needs is given back before a producer's long life begins.
    if let Some((tcp, read_ahead, protocol)) = Box::pin(serve_http(&shared, tcp, peer, &mut stop)).await {
        connection::serve(&shared, tcp, read_ahead, peer, protocol, &mut stop).await;
    }
}

/// Answers requests. Where one was upgraded: the stream, what was read of it behind the request, and what is to be spoken.
async fn serve_http(
    shared: &Shared,
    tcp: TcpStream,
    peer: SocketAddr,
    stop: &mut watch::Receiver<bool>,
) -> Option<(TcpStream, Vec<u8>, Protocol)> {
    let (upgraded, streaming) = (OnceLock::new(), Arc::new(AtomicBool::new(false)));
    let ending = stop.clone();
    let service = service_fn(|request| {
        Box::pin(async {
            let answer = http::answer(shared, request, &ending).await;
            streaming.store(http::is_stream(&answer), Relaxed);
            if let Some(protocol) = answer.extensions().get::<Protocol>() {
                upgraded.get_or_init(|| *protocol);
            }
            Ok::<_, Infallible>(answer)
        })
    });
    let options = &shared.options;
    let tcp = Stall::new(tcp, options.slow_reader_timeout, Arc::clone(&streaming), Arc::clone(&shared.counters));
    let mut served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_headers(options.header_fields_max)
        .max_header_size(options.header_bytes_max)
        .max_buf_size(options.header_bytes_max.max(HTTP_BUFFER_BYTES_MIN))
        .serve_connection(TokioIo::new(tcp), service);
    let mut stopping = false;
    let dropped_at = tokio::time::sleep(Duration::MAX);
    tokio::pin!(dropped_at);
    let ended = loop {
        tokio::select! {
            ended = std::future::poll_fn(|context| served.poll_without_shutdown(context)) => break ended,
            _ = stop.wait_for(|stop| *stop), if !stopping => {
                stopping = true;
                if streaming.load(Relaxed) {
                    dropped_at.as_mut().reset(Instant::now() + LINGER_MAX);
                }
                std::pin::Pin::new(&mut served).graceful_shutdown();
            }
            // A stream has no last answer that would be worth more patience with who does not read.
            () = &mut dropped_at, if stopping => break Ok(()),
        }
    };
    let parts = served.into_parts();
    let tcp = parts.io.into_inner().into_tcp();
    match (ended, upgraded.get()) {
        (Ok(()), Some(protocol)) => return Some((tcp, parts.read_buf.into(), *protocol)),
        (Ok(()), None) => {}
        (Err(error), _) => debug!(%peer, "HTTP: {error}"),
    }
    if !stopping {
        connection::linger(tcp, Instant::now() + LINGER_MAX).await;
    }
    None
}
