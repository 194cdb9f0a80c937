//! The way to a socket: name to addresses, judged, then connected to one of exactly those.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower_service::Service;

use super::rules::{Refusal, Rules};
use super::target::{Host, Target};

/// How names become addresses. Replaced in tests.
pub trait Resolve: Send + Sync + 'static {
    /// Every address of a host name, the one to try first in front.
    ///
    /// # Errors
    /// There is none, or nobody could be asked.
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The operating system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let name = name.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// The last step, TCP to an address that was judged. The tests put a recorder there.
pub(super) type Dial = Arc<dyn Fn(SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> + Send + Sync>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{host} has no address: {why}")]
    Resolve { host: String, why: String },
    #[error("no connection to {host}: {why}")]
    Connect { host: String, why: String },
    #[error("no connection within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

/// Connects to where the rules allow it.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) rules: Rules,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) dial: Dial,
    pub(super) timeout: Duration,
}

impl Connector {
    async fn connect(self, uri: Uri) -> Result<TcpStream, ConnectError> {
        // Read anew, so that whatever led here, what is judged is what is connected to.
        let target = Target::parse(&uri.to_string())
            .map_err(|why| ConnectError::Connect { host: uri.host().unwrap_or_default().to_owned(), why })?;
        let host = target.host.to_string();
        let addresses = match &target.host {
            Host::Ip(address) => vec![*address],
            Host::Name(name) => match self.resolver.resolve(name).await {
                Ok(addresses) if !addresses.is_empty() => addresses,
                Ok(_) => return Err(ConnectError::Resolve { host, why: "the answer is empty".to_owned() }),
                Err(error) => return Err(ConnectError::Resolve { host, why: error.to_string() }),
            },
        };
        self.rules.judge(&target, &addresses)?;
        connect_to_one(&self.dial, &addresses, target.port, Instant::now() + self.timeout)
            .await
            .map_err(|error| ConnectError::Connect { host, why: error.to_string() })
    }
}

/// The first that answers. One that does not must leave time for the others.
async fn connect_to_one(dial: &Dial, addresses: &[IpAddr], port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (index, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        last = match tokio::time::timeout(share, dial(SocketAddr::new(*address, port))).await {
            Ok(Ok(tcp)) => {
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
    }
    Err(last)
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Self::Response, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connected = self.clone().connect(uri);
        Box::pin(async { connected.await.map(TokioIo::new) })
    }
}

/// Another connector with a limit on its time: resolution, TCP and TLS together.
#[derive(Clone)]
pub(super) struct Timed<C> {
    pub(super) inner: C,
    pub(super) timeout: Duration,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl<C> Service<Uri> for Timed<C>
where
    C: Service<Uri>,
    C::Error: Into<BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<C::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let timeout = self.timeout;
        let connected = self.inner.call(uri);
        Box::pin(async move {
            match tokio::time::timeout(timeout, connected).await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => Err(ConnectError::TimedOut(timeout).into()),
            }
        })
    }
}
