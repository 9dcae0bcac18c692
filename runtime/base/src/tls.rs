//! TLS as a client of a backend: which authorities are trusted, and the certificate that this process shows.
//!
//! Invariant: a file that cannot be used is an error that names it and says what to change. The errors contain no part
//! of a key.
use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    ClientConfig, RootCertStore,
    client::danger::ServerCertVerifier,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

use super::file;

/// The files of a client. No file is read before [`Self::config`] is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// Whether to trust the authorities that this machine trusts (`SSL_CERT_FILE` names others).
    pub system_roots: bool,
    /// A PEM file of authorities to trust in addition.
    pub ca_file: Option<PathBuf>,
    /// The certificate for servers that ask for one.
    pub certificate: Option<ClientCertificate>,
}

/// The PEM files of a client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate chain. The client's own certificate comes first.
    pub chain: PathBuf,
    /// The private key of the certificate, not encrypted.
    pub key: PathBuf,
}

/// Why the files cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or does not contain what it must.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file, and what to write there.
        problem: String,
    },
    /// The machine has no list of authorities.
    #[error("this machine trusts no authority{0}: install ca-certificates, or name a PEM file of the authorities")]
    NoSystemRoots(String),
    /// The certificate and the key do not belong together.
    #[error("{} and {}: {problem}; use the key that the certificate was made for", chain.display(), key.display())]
    Pair {
        /// The certificate's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The error of rustls.
        problem: String,
    },
}

impl TlsError {
    /// Returns the error for a certificate and a key that do not belong together.
    #[must_use]
    pub fn pair(chain: &Path, key: &Path, problem: &rustls::Error) -> Self {
        Self::Pair { chain: chain.to_owned(), key: key.to_owned(), problem: problem.to_string() }
    }
}

/// A version of a file, which differs after the file was replaced or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileVersion {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl FileVersion {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self { modified: found.modified().ok(), length: found.len(), inode: found.ino() })
    }
}

impl Default for ClientTls {
    /// Trusts the authorities that this machine trusts, and has no certificate.
    fn default() -> Self {
        Self { system_roots: true, ca_file: None, certificate: None }
    }
}

impl ClientTls {
    /// Reads the files. This call blocks.
    ///
    /// # Errors
    /// Returns a [`TlsError`] if a file cannot be read or used.
    pub fn config(&self) -> Result<ClientConfig, TlsError> {
        let config = builder().with_root_certificates(self.roots()?);
        self.with_certificate(config)
    }

    /// Reads only the client's certificate, and lets `verifier` check the server's. This call blocks.
    ///
    /// # Errors
    /// Returns a [`TlsError`] if a file cannot be read or used.
    pub fn config_with_verifier(&self, verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, TlsError> {
        self.with_certificate(builder().dangerous().with_custom_certificate_verifier(verifier))
    }

    /// Reads the trusted authorities. This call blocks.
    ///
    /// # Errors
    /// Returns a [`TlsError`] if the file cannot be read or used.
    pub fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        if self.system_roots {
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = roots.add_parsable_certificates(found.certs);
            // The machine needs no authorities of its own if the settings name a file of authorities.
            if added == 0 && self.ca_file.is_none() {
                let why = found.errors.first().map(|error| format!(" ({error})"));
                return Err(TlsError::NoSystemRoots(why.unwrap_or_default()));
            }
        }
        if let Some(path) = &self.ca_file {
            for certificate in certificates(path, "the certificate of the authority that signed the server's")? {
                roots.add(certificate).map_err(|error| TlsError::File {
                    path: path.clone(),
                    problem: format!("a certificate in it cannot be used ({error}): replace it"),
                })?;
            }
        }
        Ok(roots)
    }

    /// Returns the files that are read. When one of them is replaced, [`Self::config`] may return something else.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let own = self.certificate.iter().flat_map(|own| [&own.chain, &own.key]);
        self.ca_file.iter().chain(own).map(PathBuf::as_path)
    }

    /// Returns the versions of [`Self::files`]. They must be taken before [`Self::config`] is called, so that a file
    /// that is replaced meanwhile is read again.
    #[must_use]
    pub fn versions(&self) -> Vec<Option<FileVersion>> {
        self.files().map(FileVersion::of).collect()
    }

    fn with_certificate(
        &self,
        config: rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>,
    ) -> Result<ClientConfig, TlsError> {
        let Some(ClientCertificate { chain, key }) = &self.certificate else {
            return Ok(config.with_no_client_auth());
        };
        let (certificates, private) = pair(chain, key, "this client's certificate")?;
        config.with_client_auth_cert(certificates, private).map_err(|error| TlsError::pair(chain, key, &error))
    }
}

/// Returns a client that trusts these authorities, and has no certificate.
#[must_use]
pub fn config(roots: RootCertStore) -> ClientConfig {
    builder().with_root_certificates(roots).with_no_client_auth()
}

/// Returns the library of cryptography for every client's handshake.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions' ciphers")
}

/// Reads a certificate's chain and its private key, each from a PEM file. `wanted` says what the first file should
/// contain, for the error. This call blocks.
///
/// # Errors
/// Returns [`TlsError::File`] if a file cannot be read or used.
pub fn pair(
    chain: &Path,
    key: &Path,
    wanted: &str,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let certificates = certificates(chain, wanted)?;
    let private = file::read(key).map_err(pem::Error::Io).and_then(|text| PrivateKeyDer::from_pem_slice(&text));
    let private = private.map_err(|error| unusable(key, &error, "the certificate's private key, not encrypted"))?;
    Ok((certificates, private))
}

/// Reads the certificates of a PEM file, which must contain at least one.
fn certificates(path: &Path, wanted: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = file::read(path).map_err(pem::Error::Io);
    let read = read.and_then(|text| CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>());
    let certificates = read.map_err(|error| unusable(path, &error, wanted))?;
    match certificates.is_empty() {
        true => Err(unusable(path, &pem::Error::NoItemsFound, wanted)),
        false => Ok(certificates),
    }
}

fn unusable(path: &Path, error: &pem::Error, wanted: &str) -> TlsError {
    let problem = match error {
        pem::Error::Io(error) => format!("{error}; make it readable for this process, or name another file"),
        // The library's text would show a line of the file, which may be part of a key.
        pem::Error::NoItemsFound => format!("it does not contain {wanted}; write it there in PEM"),
        _ => format!("it is not PEM; write {wanted} there in PEM"),
    };
    TlsError::File { path: path.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            fs::write(self.path(name), text).unwrap();
            self.path(name)
        }

        fn pair(&self, name: &str) -> ClientCertificate {
            let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let chain = self.write(&format!("{name}.crt"), &cert.pem());
            ClientCertificate { chain, key: self.write(&format!("{name}.key"), &signing_key.serialize_pem()) }
        }
    }

    fn only(ca_file: PathBuf) -> ClientTls {
        ClientTls { system_roots: false, ca_file: Some(ca_file), certificate: None }
    }

    #[test]
    fn authorities_of_a_file_and_a_certificate_are_used() {
        let files = Files::new();
        let [authority, own] = ["authority", "own"].map(|name| files.pair(name));
        let tls = ClientTls { certificate: Some(own.clone()), ..only(authority.chain.clone()) };
        assert_eq!(tls.roots().unwrap().len(), 1);
        assert!(tls.config().unwrap().client_auth_cert_resolver.has_certs());
        assert!(!only(authority.chain.clone()).config().unwrap().client_auth_cert_resolver.has_certs());
        assert_eq!(tls.files().collect::<Vec<_>>(), [&authority.chain, &own.chain, &own.key]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_what_to_change() {
        let files = Files::new();
        let [own, other] = ["own", "other"].map(|name| files.pair(name));
        let with = |certificate| ClientTls { certificate: Some(certificate), ..only(own.chain.clone()) };
        let key = fs::read_to_string(&own.key).unwrap();
        let cases = [
            (only(files.path("none.crt")), "none.crt", "readable"),
            (only(files.write("empty.crt", "")), "empty.crt", "the authority that signed the server's; write it"),
            (only(own.key.clone()), "own.key", "the authority that signed the server's; write it"),
            (only(files.write("torn.crt", &key[..key.len() / 2])), "torn.crt", "not PEM"),
            (with(ClientCertificate { key: files.path("none.key"), ..own.clone() }), "none.key", "readable"),
            (with(ClientCertificate { key: own.chain.clone(), ..own.clone() }), "own.crt", "not encrypted; write it"),
            (with(ClientCertificate { key: other.key.clone(), ..own.clone() }), "other.key", "use the key that"),
        ];
        for (tls, file, advice) in cases {
            let error = tls.config().unwrap_err().to_string();
            assert!(error.contains(file) && error.contains(advice) && !error.contains('\n'), "{file}: {error}");
            assert!(!error.contains(key.lines().nth(1).unwrap()), "{error}");
        }
    }
}
