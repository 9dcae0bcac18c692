//! A connection while hyper reads its head: plain, or with a TLS session around it, which goes on to the worker with it.
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{ServerConfig, ServerConnection};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The certificate that counts now; a new one is for connections that come after it.
pub type Certificate = watch::Receiver<Arc<ServerConfig>>;

/// A socket on its way to a worker.
#[derive(Debug)]
pub struct Handoff {
    /// Non-blocking.
    pub(super) stream: std::net::TcpStream,
    /// With its handshake done.
    pub(super) session: Option<Box<ServerConnection>>,
}

impl From<std::net::TcpStream> for Handoff {
    fn from(stream: std::net::TcpStream) -> Self {
        Self { stream, session: None }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub(super) enum MaybeTlsStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl MaybeTlsStream {
    /// Shakes hands where there is a certificate; `None` where the client does not, in time.
    pub(super) async fn open(stream: TcpStream, certificate: Option<&Certificate>, patience: Duration) -> Option<Self> {
        let Some(certificate) = certificate else { return Some(Self::Plain(stream)) };
        let config = Arc::clone(&certificate.borrow());
        let handshake = timeout(patience, TlsAcceptor::from(config).accept(stream)).await;
        Some(Self::Tls(Box::new(handshake.ok()?.ok()?)))
    }

    /// Away from tokio.
    pub(super) fn into_carrier(self) -> io::Result<Handoff> {
        let (stream, session) = match self {
            Self::Plain(stream) => (stream, None),
            Self::Tls(tls) => {
                let (stream, session) = tls.into_inner();
                (stream, Some(Box::new(session)))
            }
        };
        Ok(Handoff { stream: stream.into_std()?, session })
    }
}

impl AsyncRead for MaybeTlsStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_read(context, into),
        }
    }
}

impl AsyncWrite for MaybeTlsStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_shutdown(context),
        }
    }
}
