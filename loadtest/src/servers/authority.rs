//! A private certificate authority, and certificates for servers and clients.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

use super::private_folder;
use super::server_user::server_user;

/// A private certificate authority. Its files are deleted with this value.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    issued: AtomicU32,
    folder: tempfile::TempDir,
}

/// The PEM files of a certificate. PostgreSQL's user may read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// Returns an error if the files cannot be written.
    pub fn new() -> io::Result<Self> {
        let mut params = CertificateParams::default();
        // Each authority has a name of its own, as real ones have.
        let folder = private_folder("authority")?;
        let name = folder.path().file_name().unwrap_or_default().to_string_lossy();
        params.distinguished_name.push(DnType::CommonName, name.into_owned());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)?;
        write(&folder.path().join("ca.crt"), &issuer.pem())?;
        Ok(Self { issuer, issued: AtomicU32::new(1), folder })
    }

    /// Returns the PEM file of the authority's own certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Returns the folder of the authority's files. Other users may read it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Issues a certificate for a server or a client with these names or addresses. The first one is also the common
    /// name.
    ///
    /// # Errors
    /// Returns an error if the certificate's files cannot be written.
    pub fn issue(&self, names: &[&str]) -> io::Result<Issued> {
        self.sign(params(names)?)
    }

    /// Issues a certificate that expired years ago.
    ///
    /// # Errors
    /// Returns an error if the certificate's files cannot be written.
    pub fn issue_expired(&self, names: &[&str]) -> io::Result<Issued> {
        let mut params = params(names)?;
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> io::Result<Issued> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        let path = |ending| self.folder.path().join(format!("{number}.{ending}"));
        let issued = Issued { certificate: path("crt"), key: path("key") };
        write(&issued.certificate, &certificate.pem())?;
        write(&issued.key, &key.serialize_pem())?;
        // PostgreSQL refuses a key that other users may read.
        fs::set_permissions(&issued.key, fs::Permissions::from_mode(0o600))?;
        Ok(issued)
    }
}

fn params(names: &[&str]) -> io::Result<CertificateParams> {
    let all: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(all).map_err(io::Error::other)?;
    params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody"));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    match server_user()? {
        Some((uid, gid)) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}
