//! TLS to the server: the configuration for rustls from the URL's parameters. It is made again when a file was
//! replaced.
//!
//! Invariant: as in libpq, the server's certificate is checked if `sslrootcert` is given, in every mode. Without it the
//! certificate is not checked, but the server must always prove that the certificate is its own. The name is checked in
//! verify-full only. If the URL asks for something else than before, and its files cannot be used, no connection is
//! made rather than a weaker one.
use std::sync::Arc;

use rollcall_base::{
    reloaded::Reloaded,
    tls::{ClientTls, FileVersion, TlsError, provider},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::{
    connect_error::ConnectError,
    url::{RootCertificates, SslMode, TlsParameters},
};

/// The protocol that PostgreSQL 17 expects if TLS begins without a request for it. Earlier servers ignore it.
const PROTOCOL: &[u8] = b"postgresql";

/// What a connection needs for TLS.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) parameters: TlsParameters,
    pub(super) config: Arc<ClientConfig>,
    /// The versions of the files from which the configuration was made.
    versions: Vec<Option<FileVersion>>,
}

/// The TLS configuration of the latest connection, which is renewed from its files.
pub(super) struct TlsSource(Reloaded<Tls>);

impl TlsSource {
    /// Reads the files (see [`ClientTls`]).
    pub(super) fn read(parameters: &TlsParameters) -> Result<Self, TlsError> {
        Ok(Self(Reloaded::new("the files of DATABASE_URL's sslrootcert, sslcert and sslkey", Tls::read(parameters)?)))
    }

    /// Returns the configuration for a new connection with these parameters. The files are read again if one has
    /// changed. If they cannot be used, those of the last connection stay in use, provided it had the same parameters.
    pub(super) async fn current(&self, parameters: TlsParameters) -> Result<Tls, ConnectError> {
        let asked = parameters.clone();
        let read = move |last: &Tls| {
            let same = last.parameters == parameters && last.versions == files(&parameters).versions();
            if same { Ok(None) } else { Tls::read(&parameters).map(Some).map_err(|error| error.to_string()) }
        };
        let current = self.0.current_if(|last| last.parameters == asked, read).await;
        current.map_err(|why| ConnectError::plain(format!("DATABASE_URL has sslmode={}: {why}", asked.mode.name())))
    }
}

impl Tls {
    fn read(parameters: &TlsParameters) -> Result<Self, TlsError> {
        let files = files(parameters);
        let versions = files.versions();
        let mut config = match (&parameters.roots, parameters.mode) {
            (Some(_), SslMode::VerifyFull) => files.config()?,
            (roots, _) => {
                let roots = roots.is_some().then(|| files.roots()).transpose()?;
                files.config_with_verifier(Arc::new(Verifier::new(roots)))?
            }
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self { parameters: parameters.clone(), config: Arc::new(config), versions })
    }
}

fn files(parameters: &TlsParameters) -> ClientTls {
    ClientTls {
        system_roots: parameters.roots == Some(RootCertificates::System),
        ca_file: match &parameters.roots {
            Some(RootCertificates::File(path)) => Some(path.clone()),
            _ => None,
        },
        certificate: parameters.certificate.clone(),
    }
}

/// Checks less than rustls does: everything but the name, or only that the certificate is the server's own.
#[derive(Debug)]
struct Verifier {
    roots: Option<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(roots: Option<RootCertStore>) -> Self {
        Self { roots, algorithms: provider().signature_verification_algorithms }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(certificate)?;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, self.algorithms.all)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    // Without this check an attacker could show the server's certificate, and channel binding would prove nothing.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::generate_simple_self_signed;

    use super::*;

    #[tokio::test]
    async fn a_stricter_mode_is_refused_until_its_files_can_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let roots = Some(RootCertificates::File(file.clone()));
        let (weak, strict) =
            (TlsParameters::default(), TlsParameters { mode: SslMode::VerifyFull, roots, certificate: None });
        let source = TlsSource::read(&weak).unwrap();
        let refused = source.current(strict.clone()).await.err().unwrap().why;
        let (begins, advice) = ("DATABASE_URL has sslmode=verify-full: /", "ca.pem: No such file");
        assert!(
            refused.starts_with(begins) && refused.contains(advice) && refused.contains("make it readable"),
            "{refused}"
        );
        assert_eq!(source.current(weak.clone()).await.unwrap().parameters, weak, "as long as that is asked for");

        let authority = generate_simple_self_signed(["db.example".to_owned()]).unwrap();
        fs::write(&file, authority.cert.pem()).unwrap();
        assert_eq!(source.current(strict.clone()).await.unwrap().parameters, strict);
        fs::write(&file, "half").unwrap();
        assert_eq!(source.current(strict.clone()).await.unwrap().parameters, strict, "while it is replaced");
        fs::remove_file(&file).unwrap();
        assert_eq!(source.current(weak.clone()).await.unwrap().parameters, weak);
        assert!(source.current(strict).await.is_err(), "not those of two connections before");
    }
}
