//! The updates of a live query, as they are streamed over HTTP.

use bytes::{Buf, Bytes, BytesMut};

use super::ClientError;
use super::stream::Stream;

/// The longest event of a live stream, bytes. One that names 4,096 producers and has all tags that a series may have is
/// shorter.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// The updates of a live query as they come, one GET that goes on: without TLS, redirects or proxies.
///
/// ```no_run
/// use slung_net::client::{Updates, live_path};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let url = format!("http://127.0.0.1:2077{}", live_path("AVG:temp:[]:[5m]"));
/// let mut updates = Updates::connect(&url).await?;
/// while let Some(json) = updates.next().await? {
///     println!("{}", String::from_utf8_lossy(&json));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Updates {
    stream: Stream,
    events: EventReader,
}

impl Updates {
    /// Asks for the stream. On return the query is registered: what is written from then on is in it.
    ///
    /// # Errors
    /// [`ClientError::NoStream`] where the server refuses; others as for [`http_get`](super::http_get).
    ///
    /// # Cancel safety
    /// Dropping it gives the request up.
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        let stream = Stream::connect(url, "text/event-stream").await?;
        Ok(Self { stream, events: EventReader::default() })
    }

    /// The next update, as JSON on one line; `None` once the server has ended the stream, which it does when it stops.
    ///
    /// # Errors
    /// [`ClientError::Lost`] where the connection breaks off or an event is over 1 MiB, [`ClientError::TimedOut`] where
    /// nothing came for 60 s, not even a sign of life.
    ///
    /// # Cancel safety
    /// No update is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(event) = self.events.next()? {
                return Ok(Some(event));
            }
            match self.stream.next().await? {
                Some(bytes) => self.events.take(&bytes),
                None => return Ok(None),
            }
        }
    }
}

/// Takes server-sent events apart. Only their data is looked at.
#[derive(Debug, Default)]
struct EventReader {
    /// What has come and was not looked at yet.
    bytes: BytesMut,
    /// So many of them are known to have no end of a line.
    searched: usize,
    /// The data of the event that has begun.
    data: BytesMut,
}

impl EventReader {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(end) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line = self.bytes.split_to(self.searched + end);
            self.bytes.advance(1);
            self.searched = 0;
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if line.is_empty() && !self.data.is_empty() {
                return Ok(Some(self.data.split().freeze()));
            }
            if let Some(data) = line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    self.data.extend_from_slice(b"\n");
                }
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            }
            self.check_size()?;
        }
        self.searched = self.bytes.len();
        self.check_size().map(|()| None)
    }

    /// One piece of the body is no longer than what is read from the socket at once.
    fn check_size(&self) -> Result<(), ClientError> {
        if self.searched.max(self.data.len()) > EVENT_BYTES_MAX {
            return Err(ClientError::Lost(format!("an event of more than {EVENT_BYTES_MAX} bytes")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever pieces they come in.
    #[test]
    fn events_are_read_and_all_else_is_skipped() {
        let text = b":\n\ndata: {\"a\":1}\n\n: note\n\nid: 7\r\nevent: x\r\ndata:b\r\ndata: c\r\n\r\ndata\n\ndata: unfinished\n";
        for piece in 1..text.len() {
            let mut reader = EventReader::default();
            let mut events = Vec::new();
            for bytes in text.chunks(piece) {
                reader.take(bytes);
                while let Some(event) = reader.next().unwrap() {
                    events.push(event);
                }
            }
            assert_eq!(events, [&b"{\"a\":1}"[..], b"b\nc"], "pieces of {piece}");
        }
    }

    #[test]
    fn an_event_without_an_end_is_given_up() {
        for line in [&b"x"[..], b"data: x\n"] {
            let mut reader = EventReader::default();
            let given_up = (0..=EVENT_BYTES_MAX).any(|_| {
                reader.take(line);
                reader.next().is_err()
            });
            assert!(given_up, "{line:?}");
        }
    }
}
