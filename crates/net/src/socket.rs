//! A TCP stream that never blocks, in the shape that the WebSocket library reads from and writes to.

use std::io::{self, Read, Write};

use tokio::net::TcpStream;

/// Bytes are read and written as far as the kernel has them and takes them; beyond that it is
/// [`io::ErrorKind::WouldBlock`], and the owner waits with [`TcpStream::readable`] and [`TcpStream::writable`].
#[derive(Debug)]
pub(crate) struct Socket {
    tcp: TcpStream,
    /// Bytes that may still be read before others have their turn. Without it a peer that is fast enough keeps the
    /// library reading for ever, with fragments that never become a message for instance.
    read_bytes_left: usize,
    /// The last read has brought all that there was.
    drained: bool,
    bytes_read: u64,
    bytes_written: u64,
}

impl Socket {
    /// May read so many bytes before it must be allowed more.
    pub(crate) fn new(tcp: TcpStream, read_bytes_max: usize) -> Self {
        Self { tcp, read_bytes_left: read_bytes_max, drained: false, bytes_read: 0, bytes_written: 0 }
    }

    /// Allows so many bytes to be read, whatever was allowed before.
    pub(crate) fn allow(&mut self, bytes: usize) {
        self.read_bytes_left = bytes;
    }

    /// Whether nothing is read any more until [`Socket::allow`].
    pub(crate) fn is_spent(&self) -> bool {
        self.read_bytes_left == 0
    }

    /// Asks the kernel again, though the last read has brought all that there was.
    pub(crate) fn resume(&mut self) {
        self.drained = false;
    }

    /// Bytes that the kernel has given so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// Bytes that the kernel has taken so far.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.bytes_written
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
        if self.drained || self.is_spent() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let read = self.tcp.try_read(buffer)?;
        self.read_bytes_left = self.read_bytes_left.saturating_sub(read);
        self.bytes_read += read as u64;
        // Less than there was room for: what it brought is acted on before the kernel is asked again, most likely to
        // hear that there is nothing.
        self.drained = read < buffer.len();
        Ok(read)
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.tcp.try_write(buffer)?;
        self.bytes_written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
