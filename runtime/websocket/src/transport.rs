//! The stream under a connection: the one place that knows what carries the bytes.
use std::{
    io::{self, IoSlice, Read, Write},
    net::{Shutdown, SocketAddr},
    time::Duration,
};

use mio::{Interest, Registry, Token, net::TcpStream};

use super::{maybe_tls_stream::Handoff, tls::Tls};

/// A non-blocking stream; an answer of `None` is "not now".
#[derive(Debug)]
pub(super) enum Transport {
    /// TCP as it is.
    Plain(TcpStream),
    /// TLS over it.
    Tls(Box<Tls>),
}

impl Transport {
    /// Takes over an accepted, non-blocking socket; both directions are watched once and for all, edge-triggered.
    pub(super) fn new(
        Handoff { stream, session }: Handoff,
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
        Ok(match session {
            None => Self::Plain(stream),
            Some(session) => Self::Tls(Box::new(Tls { stream, session: *session })),
        })
    }

    /// One read; 0 at the end of the stream.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Plain(stream) => attempt(|| stream.read(into)),
            Self::Tls(tls) => tls.read(into),
        }
    }

    /// Whether a short read means that the socket is empty: TLS may have more decrypted, or half of a record.
    pub(super) fn short_read_is_last(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// One write. A plain `send` is a few per cent cheaper than the same by `write_vectored`.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        match self {
            Self::Plain(stream) => attempt(|| stream.write(bytes)),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    /// One write of several pieces.
    pub(super) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        match self {
            Self::Plain(stream) => attempt(|| stream.write_vectored(slices)),
            Self::Tls(tls) => tls.write_vectored(slices),
        }
    }

    /// Whether something that was taken has not left.
    pub(super) fn pending(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.pending())
    }

    /// Sends that; whether all of it has left.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(tls) => tls.flush(),
        }
    }

    /// Our FIN, behind everything written.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if let Self::Tls(tls) = self {
            tls.finish()?;
        }
        self.stream().shutdown(Shutdown::Write)
    }

    /// Makes the end of this value a reset: the kernel would hold what is unsent for minutes.
    pub(super) fn abort(&self) {
        // Where that fails, the stream is closed the slow way.
        let _ = socket2::SockRef::from(self.stream()).set_linger(Some(Duration::ZERO));
    }

    /// The address at the other end.
    pub(super) fn remote(&self) -> Option<SocketAddr> {
        self.stream().peer_addr().ok()
    }

    fn stream(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => &tls.stream,
        }
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
