//! TLS for the client library, which expects the host that it connects to as the name in the certificate.
use std::{io, sync::Arc};

use rollcall_base::tls::{self, ClientTls};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::task::spawn_blocking;

/// Reads the files. If there is a name, the server's certificate must have it, whatever host the library connects to.
pub(super) async fn config(tls: &ClientTls, name: Option<String>) -> io::Result<ClientConfig> {
    let tls = tls.clone();
    spawn_blocking(move || {
        let Some(name) = name else { return tls.config().map_err(io::Error::other) };
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let roots = Arc::new(tls.roots().map_err(io::Error::other)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, tls::provider()).build();
        let verifier = NamedVerifier { verifier: verifier.map_err(io::Error::other)?, name };
        tls.config_with_verifier(Arc::new(verifier)).map_err(io::Error::other)
    })
    .await?
}

/// Checks a server's certificate for this name instead of the host's.
#[derive(Debug)]
struct NamedVerifier {
    verifier: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for NamedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
