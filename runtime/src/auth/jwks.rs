//! An issuer's public keys, from a JWKS document (RFC 7517) in a file or at an address.
//!
//! Invariant: a [`Key`] has one algorithm, which the document names, and only a key that can be used with its algorithm
//! becomes a [`Key`]. A symmetric key is never taken from a document, because documents are public.
use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hyper::Uri;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use ring::{
    hmac,
    signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
    },
};
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::Mutex, task::spawn_blocking, time::timeout};

use super::{AuthError, token::Unchecked};
use crate::http_client::{Client, FetchError};
use rollcall_base::{file, redacted};

/// The longest document that is read, in bytes.
const MAX_DOCUMENT: usize = 256 * 1024;
/// How long reading a file may take. A connect may wait for the file, and must have time left for its answer.
const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// For how many keys an error says why they cannot be used. A document may have many keys.
const REASONS: usize = 10;

/// The location of an issuer's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file.
    File(PathBuf),
    /// An `http` or `https` address. This issuer's keys are never loaded from another address.
    Url(Uri),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => f.write_str(&redacted(url)),
        }
    }
}

/// Why an issuer's keys could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Read(#[from] io::Error),
    /// The address did not answer with a document.
    #[error("cannot fetch it: {0}")]
    Fetch(#[from] FetchError),
    /// The document is not `{"keys": [...]}`.
    #[error("it is not a JWKS document: {0}")]
    Document(#[from] serde_json::Error),
    /// None of the document's keys can be used.
    #[error("it has no usable key (ES256, RS256 from 2048 bits, or EdDSA with Ed25519){0}")]
    Empty(String),
}

/// A key with its algorithm.
pub(super) struct Key {
    kid: Option<Box<str>>,
    algorithm: Algorithm,
    material: Material,
}

/// The data that signatures are checked with.
enum Material {
    Shared(hmac::Key),
    /// A point on the curve of the key's algorithm.
    Point(UnparsedPublicKey<Vec<u8>>),
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
}

impl Key {
    /// Makes a key of a shared secret.
    pub(super) fn shared(secret: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Self { kid: None, algorithm: Algorithm::HS256, material: Material::Shared(key) }
    }

    /// Checks the signature with this key's own algorithm.
    pub(super) fn check(&self, token: &Unchecked<'_>) -> Result<(), AuthError> {
        if token.algorithm != self.algorithm {
            return Err(AuthError::Algorithm);
        }
        let (message, signature) = (token.message, URL_SAFE_NO_PAD.decode(token.signature));
        let signature = signature.map_err(|_| AuthError::Signature)?;
        let checked = match &self.material {
            Material::Shared(key) => hmac::verify(key, message, &signature),
            Material::Point(key) => key.verify(message, &signature),
            Material::Rsa(key) => key.verify(&RSA_PKCS1_2048_8192_SHA256, message, &signature),
        };
        checked.map_err(|_| AuthError::Signature)
    }
}

/// Returns the key that a token names. If the token has no `kid`, returns the key of its algorithm if there is exactly
/// one.
pub(super) fn choose<'k>(keys: &'k [Key], token: &Unchecked<'_>) -> Result<&'k Key, AuthError> {
    let fits = |key: &&Key| key.algorithm == token.algorithm;
    if let Some(kid) = token.kid.as_deref() {
        let mut named = keys.iter().filter(|key| key.kid.as_deref() == Some(kid)).peekable();
        named.peek().ok_or(AuthError::Key)?;
        return named.find(fits).ok_or(AuthError::Algorithm);
    }
    let mut fitting = keys.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(key), None) => Ok(key),
        _ => Err(AuthError::Key),
    }
}

/// Loads and parses a document. The lock `reading` is held while a file is read.
pub(super) async fn load(
    location: &Location,
    client: &Client,
    reading: &Arc<Mutex<()>>,
) -> Result<Vec<Key>, JwksError> {
    match location {
        Location::File(path) => parse(&read_file(path, reading).await?),
        Location::Url(url) => parse(&client.get(url.clone(), MAX_DOCUMENT).await?),
    }
}

/// Reads a file. If the file system hangs, only one thread is blocked, however many reads are tried.
async fn read_file(path: &Path, reading: &Arc<Mutex<()>>) -> io::Result<Vec<u8>> {
    let (path, reading) = (path.to_owned(), Arc::clone(reading));
    let read = async {
        let alone = reading.lock_owned().await;
        let read = move || {
            let _alone = alone;
            file::read(&path)
        };
        spawn_blocking(read).await.map_err(io::Error::other)?
    };
    let document = timeout(READ_TIMEOUT, read)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("it was not read within {READ_TIMEOUT:?}")))??;
    if document.len() > MAX_DOCUMENT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is larger than {MAX_DOCUMENT} bytes")));
    }
    Ok(document)
}

/// Parses a document. Keys that cannot be used are left out, because other services may need them.
pub(super) fn parse(document: &[u8]) -> Result<Vec<Key>, JwksError> {
    #[derive(Deserialize)]
    struct Document {
        keys: Vec<Value>,
    }
    let Document { keys } = serde_json::from_slice(document)?;
    let mut usable = Vec::with_capacity(keys.len());
    let mut reasons = String::new();
    for (index, key) in keys.into_iter().enumerate() {
        match read(key) {
            Ok(key) => usable.push(key),
            Err(reason) if index < REASONS => reasons.push_str(&format!("; key {}: {reason}", index + 1)),
            Err(_) => {}
        }
    }
    if usable.is_empty() { Err(JwksError::Empty(reasons)) } else { Ok(usable) }
}

fn read(key: Value) -> Result<Key, &'static str> {
    let jwk: Jwk = serde_json::from_value(key).map_err(|_| "not a JWK")?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return Err("not for signatures");
    }
    let (algorithm, named) = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        AlgorithmParameters::OctetKey(_) => return Err("a symmetric key does not belong here"),
        _ => return Err("its kind is not supported"),
    };
    if jwk.common.key_algorithm.is_some_and(|algorithm| algorithm != named) {
        return Err("its algorithm is not supported");
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| "not base64url")?;
    let material = material(&key).ok_or("its length is wrong")?;
    Ok(Key { kid: jwk.common.key_id.map(Into::into), algorithm, material })
}

/// Returns the key if it has the length that its algorithm needs. Otherwise every token would be refused.
fn material(key: &DecodingKey) -> Option<Material> {
    let point = |algorithm, bytes: &[u8]| Material::Point(UnparsedPublicKey::new(algorithm, bytes.to_vec()));
    match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } if (256..=1024).contains(&n.len()) && !e.is_empty() => {
            Some(Material::Rsa(RsaPublicKeyComponents { n: n.clone(), e: e.clone() }))
        }
        DecodingKeyKind::SecretOrDer(bytes) => match key.family() {
            AlgorithmFamily::Ec if bytes.len() == 65 => Some(point(&ECDSA_P256_SHA256_FIXED, bytes)),
            AlgorithmFamily::Ed if bytes.len() == 32 => Some(point(&ED25519, bytes)),
            _ => None,
        },
        DecodingKeyKind::RsaModulusExponent { .. } => None,
    }
}
