//! The certificate for clients. A TLS session keeps the certificate with which it began.
use std::{path::PathBuf, sync::Arc};

use rollcall_base::tls::{TlsError, pair, provider};
use rustls::{
    CertificateError, Error, RootCertStore, ServerConfig,
    client::verify_server_cert_signed_by_trust_anchor,
    pki_types::{CertificateDer, UnixTime},
    server::ParsedCertificate,
};

/// A certificate with its key, read from files. It equals another one with the same chain.
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
    /// The certificate chain. The server's own certificate comes first.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
}

impl Certificate {
    /// Returns why clients refuse the certificate at this time, and what to change, or `None` if its time is valid.
    #[must_use]
    pub fn problem(&self) -> Option<&'static str> {
        let own = ParsedCertificate::try_from(self.chain.first()?).ok()?;
        // Without roots the check always fails, but it checks the certificate's time before it looks for the issuer.
        let algorithms = provider().signature_verification_algorithms.all;
        let roots = RootCertStore::empty();
        match verify_server_cert_signed_by_trust_anchor(&own, &roots, &[], UnixTime::now(), algorithms) {
            Err(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
                Some("the certificate has expired, so clients refuse it: renew it")
            }
            Err(Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            )) => Some(
                "the certificate is not valid yet, so clients refuse it: set this machine's clock, or issue another",
            ),
            _ => None,
        }
    }
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// Returns a [`TlsError`] if a file cannot be read or used.
    pub fn read(&self) -> Result<Certificate, TlsError> {
        let (chain, key) = pair(&self.certificate, &self.key, "the certificate for clients")?;
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.expect("the provider has the default versions' ciphers").with_no_client_auth();
        let config = builder.with_single_cert(chain.clone(), key);
        let mut config = config.map_err(|error| TlsError::pair(&self.certificate, &self.key, &error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Certificate { chain, config: Arc::new(config) })
    }
}
