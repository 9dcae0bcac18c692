//! A proxy that ends TLS before a server that accepts only plain TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::servers::Issued;

/// A running proxy. It ends when it is dropped.
pub struct TlsFront {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl TlsFront {
    /// Starts a proxy with this certificate before this server.
    ///
    /// # Errors
    /// Returns an error if the certificate cannot be used, or there is no free port.
    pub async fn start(files: &Issued, server: SocketAddr) -> io::Result<Self> {
        let chain = CertificateDer::pem_file_iter(&files.certificate).and_then(Iterator::collect);
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(io::Error::other)?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?.with_no_client_auth();
        let config = config.with_single_cert(chain.map_err(io::Error::other)?, key).map_err(io::Error::other)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // If a client does not trust the certificate or breaks off, only its own connection ends.
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut client = acceptor.accept(stream).await?;
                    copy_bidirectional(&mut client, &mut TcpStream::connect(server).await?).await
                });
            }
        });
        Ok(Self { address, task })
    }

    /// Returns the address for clients.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}
