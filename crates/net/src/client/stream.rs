//! The answer to a GET that goes on until one side has enough of it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;

use super::ClientError;
use super::http::{Connection, HTTP_TIMEOUT, request, whole};

/// How long a stream may be silent: the server sends something every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(60);

pub(super) struct Stream {
    body: Incoming,
    connection: Connection,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl Stream {
    /// Asks for a stream of that type.
    ///
    /// # Errors
    /// [`ClientError::NoStream`] where something else comes; others as for [`http_get`](super::http_get).
    pub(super) async fn connect(url: &str, wanted_type: &str) -> Result<Self, ClientError> {
        let asked = async {
            let (response, mut connection) = request(Method::GET, url, Bytes::new()).await?;
            let content_type = response.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
            if response.status() == 200 && content_type.starts_with(wanted_type.as_bytes()) {
                return Ok(Self { body: response.into_body(), connection });
            }
            let (status, body) = whole(response, &mut connection).await?;
            Err(ClientError::NoStream { url: url.to_owned(), status, body })
        };
        match tokio::time::timeout(HTTP_TIMEOUT, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::TimedOut { what: "the request", max: HTTP_TIMEOUT }),
        }
    }

    /// The next bytes, maybe none; `None` once the server has ended the stream.
    ///
    /// # Errors
    /// [`ClientError::Lost`] where the connection breaks off, [`ClientError::TimedOut`] where nothing came for 60 s.
    ///
    /// # Cancel safety
    /// No byte is lost.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let frame = async {
            tokio::select! {
                frame = self.body.frame() => frame,
                () = &mut self.connection => unreachable!("it never completes"),
            }
        };
        match tokio::time::timeout(SILENCE_MAX, frame).await {
            Ok(Some(Ok(frame))) => Ok(Some(frame.into_data().unwrap_or_default())),
            Ok(Some(Err(error))) => Err(ClientError::Lost(error.to_string())),
            Ok(None) => Ok(None),
            Err(_) => Err(ClientError::TimedOut { what: "a sign of life", max: SILENCE_MAX }),
        }
    }
}
