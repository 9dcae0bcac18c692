//! The stream under a connection: the one place that knows what carries the bytes. TLS would be a second variant, with
//! its records between these calls and the socket.
use std::{
    io::{self, IoSlice, Read, Write},
    net::{Shutdown, SocketAddr},
    time::Duration,
};

use mio::{Interest, Registry, Token, net::TcpStream};

/// A non-blocking stream; an answer of `None` is the kernel's "not now".
#[derive(Debug)]
pub(super) enum Transport {
    /// TCP as it is.
    Plain(TcpStream),
}

impl Transport {
    /// Takes over an accepted, non-blocking socket; both directions are watched once and for all, edge-triggered.
    pub(super) fn plain(
        stream: std::net::TcpStream,
        send_buffer: Option<usize>,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        if let Some(size) = send_buffer {
            socket2::SockRef::from(&stream).set_send_buffer_size(size)?;
        }
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self::Plain(stream))
    }

    /// One read; 0 at the end of the stream.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let Self::Plain(stream) = self;
        attempt(|| stream.read(into))
    }

    /// One write. A plain `send` is a few per cent cheaper than the same by `write_vectored`.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let Self::Plain(stream) = self;
        attempt(|| stream.write(bytes))
    }

    /// One write of several pieces.
    pub(super) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        let Self::Plain(stream) = self;
        attempt(|| stream.write_vectored(slices))
    }

    /// Our FIN, behind everything written.
    pub(super) fn finish(&self) -> io::Result<()> {
        let Self::Plain(stream) = self;
        stream.shutdown(Shutdown::Write)
    }

    /// Makes the end of this value a reset: the kernel would hold what is unsent for minutes.
    pub(super) fn abort(&self) {
        let Self::Plain(stream) = self;
        // Where that fails, the stream is closed the slow way.
        let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }

    /// The address at the other end.
    pub(super) fn remote(&self) -> Option<SocketAddr> {
        let Self::Plain(stream) = self;
        stream.peer_addr().ok()
    }
}

fn attempt(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(size) => return Ok(Some(size)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
