//! A TCP stream that never blocks, in the shape that the WebSocket library reads from and writes to.

use std::io::{self, Read, Write};

use tokio::net::TcpStream;

/// Bytes are read and written as far as the kernel has them and takes them; beyond that it is
/// [`io::ErrorKind::WouldBlock`], and the owner waits with [`TcpStream::readable`] and [`TcpStream::writable`].
#[derive(Debug)]
pub(crate) struct Socket {
    tcp: TcpStream,
    /// Bytes that may still be read before the owner has its turn again: a peer that is fast enough would otherwise keep
    /// the library reading for ever, with fragments that never become a message for instance.
    read_bytes_left: usize,
}

impl Socket {
    /// Reads nothing before [`Socket::allow`].
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { tcp, read_bytes_left: 0 }
    }

    /// Allows so many bytes to be read, whatever was allowed before.
    pub(crate) fn allow(&mut self, bytes: usize) {
        self.read_bytes_left = bytes;
    }

    /// The stream, to wait on.
    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Gives the stream back.
    pub(crate) fn into_tcp(self) -> TcpStream {
        self.tcp
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read_bytes_left == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let read = self.tcp.try_read(buffer)?;
        // Less than there was room for is all that had arrived: what it brought is acted on before the kernel is asked
        // again, only to hear that there is nothing.
        self.read_bytes_left = if read < buffer.len() { 0 } else { self.read_bytes_left.saturating_sub(read) };
        Ok(read)
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.tcp.try_write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
