//! Calls of workflows to the outside: an HTTP client that goes only where the operator allows it, within limits.

mod connect;
mod rules;
mod special;
mod target;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

pub use connect::{Resolve, SystemResolver};
pub use rules::{AllowRule, Refusal, RuleError};

use self::connect::{ConnectError, Connector, Dial, Timed};
use self::rules::Rules;
use self::target::Target;
use crate::stats::{Counters, OutboundOutcome};

/// Connections that are kept open to one host while nobody uses them.
const IDLE_PER_HOST_MAX: usize = 4;
/// How long such a connection is kept: less than most servers do.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// The head of a response, bytes.
const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;

/// What an [`HttpClient`] may do.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboundOptions {
    /// Where calls may go, beside public addresses on ports 80 and 443. Default: nowhere.
    pub allow: Vec<AllowRule>,
    /// Whether calls may go to public addresses on ports 80 and 443 without a rule that names them. Default true.
    pub allow_public: bool,
    /// From the name to a connection, TLS included. Default 3 s.
    pub connect_timeout: Duration,
    /// The whole call, to the last byte of the response. Default 10 s.
    pub total_timeout: Duration,
    /// The body of a request, bytes. Default 256 KiB.
    pub request_bytes_max: usize,
    /// The body of a response, bytes. Default 1 MiB; a larger one fails the call.
    pub response_bytes_max: usize,
}

impl Default for OutboundOptions {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            allow_public: true,
            connect_timeout: Duration::from_secs(3),
            total_timeout: Duration::from_secs(10),
            request_bytes_max: 256 * 1024,
            response_bytes_max: 1024 * 1024,
        }
    }
}

/// What a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpMethod {
    /// GET
    Get,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
}

impl From<HttpMethod> for Method {
    fn from(method: HttpMethod) -> Self {
        match method {
            HttpMethod::Get => Self::GET,
            HttpMethod::Post => Self::POST,
            HttpMethod::Put => Self::PUT,
            HttpMethod::Delete => Self::DELETE,
        }
    }
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status, 100 to 999.
    pub status: u16,
    /// The whole body, as it was sent.
    pub body: Bytes,
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The URL is malformed, or in a spelling that is not accepted.
    #[error("the URL {url:?} is refused: {what}")]
    BadUrl {
        /// The URL, shortened where it is long.
        url: String,
        /// What is wrong with it.
        what: String,
    },
    /// No rule allows it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The name has no address.
    #[error("{0}")]
    Resolve(String),
    /// Nobody answers there, or TLS fails.
    #[error("{0}")]
    Connect(String),
    /// It takes too long.
    #[error("{what} took longer than {} ms", .max.as_millis())]
    TimedOut {
        /// What did.
        what: &'static str,
        /// How long it may take.
        max: Duration,
    },
    /// The body is too large to be sent.
    #[error("the request has {bytes} bytes, at most {bytes_max} are allowed")]
    RequestTooBig {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The body is too large to be taken.
    #[error("the response has more than {bytes_max} bytes")]
    ResponseTooBig {
        /// The limit.
        bytes_max: usize,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("no answer: {0}")]
    Http(String),
}

impl From<&OutboundError> for OutboundOutcome {
    fn from(error: &OutboundError) -> Self {
        match error {
            OutboundError::BadUrl { .. } => Self::BadUrl,
            OutboundError::Refused(_) => Self::Refused,
            OutboundError::Resolve(_) => Self::Resolve,
            OutboundError::Connect(_) => Self::Connect,
            OutboundError::TimedOut { .. } => Self::TimedOut,
            OutboundError::RequestTooBig { .. } => Self::RequestTooBig,
            OutboundError::ResponseTooBig { .. } => Self::ResponseTooBig,
            OutboundError::Http(_) => Self::Http,
        }
    }
}

type Client<C> = legacy::Client<Timed<C>, Full<Bytes>>;

/// An HTTP/1.1 client for workflows. Connections are kept and used again. It follows no redirects, uses no proxies,
/// asks for no compression and sends no cookies. Cloning gives another handle to the same one.
///
/// ```
/// use std::sync::Arc;
/// use slung_net::{Counters, HttpClient, HttpMethod, OutboundOptions};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let options = OutboundOptions { allow: vec!["localhost:9000".parse()?], ..OutboundOptions::default() };
/// let client = HttpClient::new(options, Arc::new(Counters::default()));
/// let refused = client.send(HttpMethod::Get, "http://169.254.169.254/latest/meta-data", "").await.unwrap_err();
/// assert!(refused.to_string().ends_with("--allow-host 169.254.169.254:80 allows it"));
/// # Ok::<(), slung_net::RuleError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct HttpClient(Arc<Inner>);

struct Inner {
    options: OutboundOptions,
    counters: Arc<Counters>,
    connector: Connector,
    http: Client<Connector>,
    /// Made at the first call that needs it: a machine without certificates still speaks HTTP.
    https: OnceCell<Client<HttpsConnector<Connector>>>,
    tls: Option<ClientConfig>,
}

impl HttpClient {
    /// A client that resolves names as the operating system does, and trusts the authorities that it trusts.
    pub fn new(options: OutboundOptions, counters: Arc<Counters>) -> Self {
        Self::with_parts(options, counters, Arc::new(SystemResolver), None)
    }

    /// The same with another resolver, and with a TLS configuration instead of the operating system's authorities (its
    /// ALPN protocols must be empty).
    pub fn with_parts(
        options: OutboundOptions,
        counters: Arc<Counters>,
        resolver: Arc<dyn Resolve>,
        tls: Option<ClientConfig>,
    ) -> Self {
        let dial: Dial = Arc::new(|address| Box::pin(TcpStream::connect(address)));
        Self::with_dial(options, counters, resolver, tls, dial)
    }

    fn with_dial(
        options: OutboundOptions,
        counters: Arc<Counters>,
        resolver: Arc<dyn Resolve>,
        tls: Option<ClientConfig>,
        dial: Dial,
    ) -> Self {
        let timeout = options.connect_timeout;
        let rules = Rules { named: options.allow.as_slice().into(), public: options.allow_public };
        let connector = Connector { rules, resolver, dial, timeout };
        let http = client(connector.clone(), timeout);
        Self(Arc::new(Inner { options, counters, connector, http, https: OnceCell::new(), tls }))
    }

    /// Makes one call and reads the whole answer, whatever its status.
    ///
    /// A body that is JSON is sent as `application/json`, other text as `text/plain`, and what is not UTF-8 as
    /// `application/octet-stream`; an empty one without a type.
    ///
    /// # Errors
    /// [`OutboundError`]. After [`OutboundError::TimedOut`] and [`OutboundError::Http`] the other side may have acted
    /// on the request all the same.
    ///
    /// # Cancel safety
    /// Dropping it gives the call up; the other side may have received it.
    pub async fn send(
        &self,
        method: HttpMethod,
        url: &str,
        body: impl Into<Bytes>,
    ) -> Result<HttpResponse, OutboundError> {
        let answer = self.call(method, url, body.into()).await;
        self.0.counters.outbound_call(match &answer {
            Ok(HttpResponse { status: 200..=299, .. }) => OutboundOutcome::Success,
            Ok(_) => OutboundOutcome::Status,
            Err(error) => error.into(),
        });
        answer
    }

    async fn call(&self, method: HttpMethod, url: &str, body: Bytes) -> Result<HttpResponse, OutboundError> {
        let OutboundOptions { request_bytes_max, total_timeout, .. } = self.0.options;
        if body.len() > request_bytes_max {
            return Err(OutboundError::RequestTooBig { bytes: body.len(), bytes_max: request_bytes_max });
        }
        let target =
            Target::parse(url).map_err(|what| OutboundError::BadUrl { url: url.chars().take(200).collect(), what })?;
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = method.into();
        *request.uri_mut() = target.uri;
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("slung/", env!("CARGO_PKG_VERSION"))));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        if let Some(content_type) = content_type(&body) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        let answered = async {
            let response = if target.https {
                self.https().await?.request(request).await
            } else {
                self.0.http.request(request).await
            };
            let response = response.map_err(classify)?;
            Ok(HttpResponse { status: response.status().as_u16(), body: self.read(response.into_body()).await? })
        };
        match tokio::time::timeout(total_timeout, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(OutboundError::TimedOut { what: "the call", max: total_timeout }),
        }
    }

    async fn read(&self, mut body: Incoming) -> Result<Bytes, OutboundError> {
        let bytes_max = self.0.options.response_bytes_max;
        if body.size_hint().lower() > bytes_max as u64 {
            return Err(OutboundError::ResponseTooBig { bytes_max });
        }
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| OutboundError::Http(chain(&error)))?;
            let Ok(data) = frame.into_data() else { continue };
            if whole.len() + data.len() > bytes_max {
                return Err(OutboundError::ResponseTooBig { bytes_max });
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.into())
    }

    /// Loads the certificates once; where there are none it is tried again with the next call.
    async fn https(&self) -> Result<&Client<HttpsConnector<Connector>>, OutboundError> {
        let make = async || {
            let tls = match &self.0.tls {
                Some(tls) => tls.clone(),
                None => tokio::task::spawn_blocking(native_tls)
                    .await
                    .map_err(io::Error::other)
                    .flatten()
                    .map_err(|error| OutboundError::Connect(format!("no TLS without certificates: {error}")))?,
            };
            let connector = HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_only()
                .enable_http1()
                .wrap_connector(self.0.connector.clone());
            Ok(client(connector, self.0.options.connect_timeout))
        };
        self.0.https.get_or_try_init(make).await
    }
}

fn client<C>(inner: C, timeout: Duration) -> Client<C>
where
    Timed<C>: legacy::connect::Connect + Clone,
{
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .http1_max_buf_size(RESPONSE_HEAD_BYTES_MAX)
        .build(Timed { inner, timeout })
}

/// The operating system's authorities. Reads files.
fn native_tls() -> io::Result<ClientConfig> {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions();
    Ok(config.map_err(io::Error::other)?.with_native_roots()?.with_no_client_auth())
}

fn content_type(body: &[u8]) -> Option<&'static str> {
    if body.is_empty() {
        None
    } else if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() {
        Some("application/json")
    } else if std::str::from_utf8(body).is_ok() {
        Some("text/plain; charset=utf-8")
    } else {
        Some("application/octet-stream")
    }
}

/// What the client library says, as one of ours: the connector's own error lies somewhere below.
fn classify(error: legacy::Error) -> OutboundError {
    let mut source: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(inner) = source {
        match inner.downcast_ref::<ConnectError>() {
            Some(ConnectError::Refused(refusal)) => return OutboundError::Refused(refusal.clone()),
            Some(ConnectError::TimedOut(max)) => return OutboundError::TimedOut { what: "connecting", max: *max },
            Some(failed @ ConnectError::Resolve { .. }) => return OutboundError::Resolve(failed.to_string()),
            Some(failed @ ConnectError::Connect { .. }) => return OutboundError::Connect(failed.to_string()),
            None => source = inner.source(),
        }
    }
    if error.is_connect() { OutboundError::Connect(chain(&error)) } else { OutboundError::Http(chain(&error)) }
}

/// An error and what is behind it, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
