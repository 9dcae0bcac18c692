//! The certificate for clients. A TLS session keeps the certificate it began with.
use std::{path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// A certificate that was read, with its key. It equals another one of the same chain.
#[derive(Clone, Debug)]
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    pub(crate) config: Arc<ServerConfig>,
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.chain == other.chain
    }
}

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
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn read(&self) -> Result<Certificate, TlsError> {
        let chain = CertificateDer::pem_file_iter(&self.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.map_err(|error| TlsError::File(self.certificate.clone(), error))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| TlsError::File(self.key.clone(), error))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = builder.with_single_cert(chain.clone(), key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Certificate { chain, config: Arc::new(config) })
    }
}
