//! Requests to a server's HTTP interface: one GET or POST, and the paths to ask for.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{CONNECT_TIMEOUT, ClientError};

/// How long an HTTP request may take: a query may go over much data.
pub(super) const HTTP_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest HTTP answer, bytes: an answer to a query has some hundred.
const HTTP_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The path that asks a query, to be put behind `http://HOST:PORT`.
///
/// ```
/// assert_eq!(slung_net::client::query_path("AVG:temp:[a=1]"), "/api/v1/query?q=AVG%3Atemp%3A%5Ba%3D1%5D");
/// ```
pub fn query_path(query: &str) -> String {
    format!("/api/v1/query?q={}", encoded(query))
}

/// The path that deletes what a query means, to be put behind `http://HOST:PORT`, for [`http_post`].
///
/// ```
/// assert_eq!(slung_net::client::delete_path("temp:[a=1]"), "/api/v1/delete?q=temp%3A%5Ba%3D1%5D");
/// ```
pub fn delete_path(query: &str) -> String {
    format!("/api/v1/delete?q={}", encoded(query))
}

/// The path that follows a live query, to be put behind `http://HOST:PORT` for [`Updates::connect`](super::Updates::connect).
///
/// ```
/// assert_eq!(slung_net::client::live_path("AVG:temp:[]"), "/api/v1/live?q=AVG%3Atemp%3A%5B%5D");
/// ```
pub fn live_path(query: &str) -> String {
    format!("/api/v1/live?q={}", encoded(query))
}

pub(super) fn encoded(text: &str) -> percent_encoding::PercentEncode<'_> {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
}

/// One GET, without TLS, redirects or proxies: status and body.
///
/// # Errors
/// [`ClientError::Url`] where it is not `http://HOST[:PORT]/...`, [`ClientError::Connect`], [`ClientError::Lost`] where
/// the answer breaks off or is over 16 MiB, [`ClientError::TimedOut`] after 60 s.
///
/// # Cancel safety
/// Dropping it gives the request up.
pub async fn http_get(url: &str) -> Result<(u16, Bytes), ClientError> {
    whole_within(Method::GET, url, Bytes::new(), HTTP_TIMEOUT).await
}

/// One POST without a body, without TLS, redirects or proxies: status and body.
///
/// # Errors
/// As [`http_get`], but [`ClientError::TimedOut`] after `timeout`.
///
/// # Cancel safety
/// Dropping it closes the connection; the server may do what it was asked to all the same.
pub async fn http_post(url: &str, timeout: Duration) -> Result<(u16, Bytes), ClientError> {
    whole_within(Method::POST, url, Bytes::new(), timeout).await
}

/// One request: status and body of the answer.
pub(super) async fn whole_within(
    method: Method,
    url: &str,
    body: Bytes,
    timeout: Duration,
) -> Result<(u16, Bytes), ClientError> {
    let asked = async {
        let (response, mut connection) = request(method, url, body).await?;
        whole(response, &mut connection).await
    };
    match tokio::time::timeout(timeout, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(ClientError::TimedOut { what: "the request", max: timeout }),
    }
}

/// Never completes, but has to be polled for anything to move: what it has to say about a failure the request and its
/// body say too.
pub(super) type Connection = BoxFuture<'static, ()>;

/// Connects, and sends one request.
pub(super) async fn request(
    method: Method,
    url: &str,
    body: Bytes,
) -> Result<(Response<Incoming>, Connection), ClientError> {
    let bad = |what: &str| ClientError::Url { url: url.to_owned(), what: what.to_owned() };
    let no_connection =
        |error: &dyn std::error::Error| ClientError::Connect { url: url.to_owned(), what: error.to_string() };
    let uri: Uri = url.parse().map_err(|_| bad("not a URL"))?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"));
    let authority = authority.ok_or_else(|| bad("not of the form http://HOST[:PORT]/PATH"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let connecting = TcpStream::connect((host, authority.port_u16().unwrap_or(80)));
    let tcp = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|error| no_connection(&error))?,
        Err(_) => return Err(ClientError::TimedOut { what: "connecting", max: CONNECT_TIMEOUT }),
    };
    let (mut http, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.map_err(|error| no_connection(&error))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder().method(method).uri(path).header(HOST, authority.as_str()).body(Full::new(body));
    let request = request.map_err(|error| bad(&error.to_string()))?;
    let mut connection = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    }
    .boxed();
    tokio::select! {
        answer = http.send_request(request) => match answer {
            Ok(response) => Ok((response, connection)),
            Err(error) => Err(ClientError::Lost(error.to_string())),
        },
        () = &mut connection => unreachable!("it never completes"),
    }
}

/// Status and body.
pub(super) async fn whole(
    response: Response<Incoming>,
    connection: &mut Connection,
) -> Result<(u16, Bytes), ClientError> {
    let status = response.status().as_u16();
    tokio::select! {
        body = Limited::new(response.into_body(), HTTP_BYTES_MAX).collect() => {
            Ok((status, body.map_err(|error| ClientError::Lost(error.to_string()))?.to_bytes()))
        }
        () = connection => unreachable!("it never completes"),
    }
}
