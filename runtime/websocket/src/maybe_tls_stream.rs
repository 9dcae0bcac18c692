//! A connection while hyper reads its head: plain TCP or TLS.
use std::{io, sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::either::Either;

use crate::{certificate::Certificate, handoff::Handoff};

/// An accepted connection.
pub(crate) type MaybeTlsStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Makes the TLS handshake if there is a certificate. Returns `None` if the client fails the handshake or takes too
/// long.
pub(crate) async fn open(
    stream: TcpStream,
    certificate: Option<&Certificate>,
    handshake_timeout: Duration,
) -> Option<MaybeTlsStream> {
    let Some(certificate) = certificate else { return Some(Either::Left(stream)) };
    let config = Arc::clone(&certificate.config);
    let handshake = timeout(handshake_timeout, TlsAcceptor::from(config).accept(stream)).await;
    Some(Either::Right(Box::new(handshake.ok()?.ok()?)))
}

/// Detaches the stream from tokio.
pub(crate) fn into_handoff(stream: MaybeTlsStream) -> io::Result<Handoff> {
    let (stream, session) = match stream {
        Either::Left(stream) => (stream, None),
        Either::Right(tls) => {
            let (stream, session) = tls.into_inner();
            (stream, Some(Box::new(session)))
        }
    };
    Ok(Handoff { stream: stream.into_std()?, session })
}
