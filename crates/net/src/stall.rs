//! A TCP stream for HTTP that gives a peer up who does not read his answer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use crate::stats::{Counters, add};

/// Writing fails with [`io::ErrorKind::TimedOut`] when the kernel has taken nothing for the timeout. Otherwise an answer,
/// and the memory that it takes, would stay for as long as the peer likes.
pub(crate) struct Stall {
    tcp: TcpStream,
    timeout: Duration,
    /// The answer has no end, and its reader may pause: it is bounded by itself.
    streaming: Arc<AtomicBool>,
    counters: Arc<Counters>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(crate) fn new(tcp: TcpStream, timeout: Duration, streaming: Arc<AtomicBool>, counters: Arc<Counters>) -> Self {
        Self { tcp, timeout, streaming, counters, waiting: None }
    }

    /// Gives the stream back.
    pub(crate) fn into_tcp(self) -> TcpStream {
        self.tcp
    }

    fn watch(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() || self.streaming.load(Relaxed) {
            self.waiting = None;
            return written;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.timeout)));
        if waiting.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        add(&self.counters.slow_readers, 1);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "nothing of the answer was read for too long")))
    }
}

impl AsyncRead for Stall {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stall {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(context, bytes);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
