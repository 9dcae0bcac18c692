//! A connection's stream inside TLS, in the form that tokio-postgres requires.
//!
//! Unlike in the published crates for this, the TLS configuration comes from [`super::tls`], which reads replaced files
//! again.
use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use futures_util::{FutureExt, future::BoxFuture};
use ring::digest;
use rustls::{
    ClientConfig, ProtocolVersion,
    pki_types::{InvalidDnsNameError, ServerName},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream as PostgresTlsStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Begins TLS for one connection.
#[derive(Clone)]
pub(super) struct BeginTls {
    config: Arc<ClientConfig>,
    version: Arc<OnceLock<ProtocolVersion>>,
}

/// The TLS handshake failed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct HandshakeError(#[source] io::Error);

/// The encrypted stream.
pub(super) struct Encrypted<S>(TlsStream<S>);

/// A handshake with one host.
pub(super) struct Handshake {
    begin: BeginTls,
    name: Result<ServerName<'static>, InvalidDnsNameError>,
}

impl BeginTls {
    pub(super) fn new(config: Arc<ClientConfig>) -> Self {
        Self { config, version: Arc::default() }
    }

    /// Returns the negotiated version of TLS, or `None` if the connection is not encrypted.
    pub(super) fn version(&self) -> Option<ProtocolVersion> {
        self.version.get().copied()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for BeginTls {
    type Stream = Encrypted<S>;
    type TlsConnect = Handshake;
    type Error = HandshakeError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, HandshakeError> {
        // A name that no certificate can have is no fault if TLS is not used.
        Ok(Handshake { begin: self.clone(), name: ServerName::try_from(host.to_owned()) })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Handshake {
    type Stream = Encrypted<S>;
    type Error = HandshakeError;
    type Future = BoxFuture<'static, Result<Encrypted<S>, HandshakeError>>;

    fn connect(self, stream: S) -> Self::Future {
        let Self { begin: BeginTls { config, version }, name } = self;
        async move {
            let name = name.map_err(|error| HandshakeError(io::Error::other(error)))?;
            let stream = TlsConnector::from(config).connect(name, stream).await.map_err(HandshakeError)?;
            if let Some(agreed) = stream.get_ref().1.protocol_version() {
                version.get_or_init(|| agreed);
            }
            Ok(Encrypted(stream))
        }
        .boxed()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> PostgresTlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        let shown = self.0.get_ref().1.peer_certificates().and_then(|shown| shown.first());
        match shown.and_then(|certificate| end_point(certificate)) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Returns the channel binding `tls-server-end-point` (RFC 5929, 4.1): the certificate's hash by the algorithm of its
/// signature, but never MD5 or SHA-1. `None` if the signature has no hash, as with Ed25519; such a connection is not
/// bound.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    let algorithm = signature_algorithm(certificate)?;
    let hash = match (algorithm.strip_prefix(RSA), algorithm.strip_prefix(ECDSA)) {
        (Some([0x04 | 0x05 | 0x0b]), _) | (_, Some([0x01] | [0x03, 0x02])) => &digest::SHA256,
        (Some([0x0c]), _) | (_, Some([0x03, 0x03])) => &digest::SHA384,
        (Some([0x0d]), _) | (_, Some([0x03, 0x04])) => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

/// Returns the object identifier in `Certificate ::= SEQUENCE { tbsCertificate, SEQUENCE { OBJECT IDENTIFIER, .. }, ..
/// }`.
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const OBJECT_IDENTIFIER: u8 = 0x06;
    let (fields, _) = element(SEQUENCE, certificate)?;
    let (_, fields) = element(SEQUENCE, fields)?;
    let (algorithm, _) = element(SEQUENCE, fields)?;
    element(OBJECT_IDENTIFIER, algorithm).map(|(identifier, _)| identifier)
}

/// Returns the content of the first DER element, if it has this tag, and the rest.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk()?;
    let (length, rest) = match first {
        0..0x80 => (usize::from(first), rest),
        _ => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length =
                bytes.iter().try_fold(0_usize, |length, byte| Some(length.checked_mul(256)? + usize::from(*byte)));
            (length?, rest)
        }
    };
    (found == tag).then(|| rest.split_at_checked(length))?
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

    use super::*;

    #[test]
    fn a_certificate_is_hashed_by_the_algorithm_of_its_signature() {
        let lengths = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519].map(|algorithm| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
            end_point(certificate.der()).map(|hash| hash.len())
        });
        assert_eq!(lengths, [Some(32), Some(48), None]);
    }

    #[test]
    fn what_is_no_certificate_is_not_hashed() {
        let key = KeyPair::generate().unwrap();
        let whole = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        for length in 0..whole.der().len() {
            assert_eq!(end_point(&whole.der()[..length]), None);
        }
        assert_eq!(end_point(&[0x30, 0xff]), None);
    }
}
