//! The certificate for clients, read at the start and again on SIGHUP.
//!
//! Invariant: an unusable certificate never replaces a usable one. A TLS session keeps the certificate it began with.
use std::{path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::{info, warn};

use rollcall_base::tasks::Tasks;

/// The current certificate; new connections use the latest.
pub type Certificate = watch::Receiver<Arc<ServerConfig>>;

/// The paths of a certificate's PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the server's own first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why a certificate cannot be used. The texts contain nothing of the key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds no certificate or key.
    #[error("{0}: {1}")]
    File(PathBuf, rustls::pki_types::pem::Error),
    /// Certificate and key do not match, or rustls does not support their kind.
    #[error("the certificate and its key: {0}")]
    Pair(#[from] rustls::Error),
    /// The handler for SIGHUP cannot be installed.
    #[error("SIGHUP: {0}")]
    Signal(std::io::Error),
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn read(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let chain = CertificateDer::pem_file_iter(&self.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|error| TlsError::File(self.certificate.clone(), error))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| TlsError::File(self.key.clone(), error))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Reads the files now, and again on each SIGHUP.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn watch(self, tasks: &Tasks) -> Result<Certificate, TlsError> {
        let (current, certificate) = watch::channel(self.read()?);
        let mut hangups = signal(SignalKind::hangup()).map_err(TlsError::Signal)?;
        tasks.spawn("certificate reload", async move {
            while hangups.recv().await.is_some() {
                match self.read() {
                    Ok(config) => {
                        info!("the certificate was read again");
                        current.send_replace(config);
                    }
                    Err(error) => warn!(%error, "the certificate stays as it was"),
                }
            }
        });
        Ok(certificate)
    }
}
