//! Issuers for tests: private keys and tokens of every kind, also tokens that no issuer would sign.
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use ring::{
    hmac,
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use serde_json::{Value, json};

/// ring cannot create RSA keys, so this key was made with `openssl genrsa 2048 | openssl rsa -outform DER
/// -traditional`.
const RSA_KEY: &[u8] = include_bytes!("rsa.der");

enum Private {
    Es(EcdsaKeyPair),
    Rs(RsaKeyPair),
    Ed(Ed25519KeyPair),
    Hs(Vec<u8>),
}

/// A private key with a name.
pub(super) struct Signer {
    pub(super) kid: &'static str,
    key: Private,
}

impl Signer {
    pub(super) fn es256(kid: &'static str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self { kid, key: Private::Es(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap()) }
    }

    pub(super) fn rs256(kid: &'static str) -> Self {
        Self { kid, key: Private::Rs(RsaKeyPair::from_der(RSA_KEY).unwrap()) }
    }

    pub(super) fn eddsa(kid: &'static str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { kid, key: Private::Ed(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()) }
    }

    /// Creates an HMAC signer from any bytes: a secret, or a public key that a forger uses as a secret.
    pub(super) fn hs256(kid: &'static str, secret: &[u8]) -> Self {
        Self { kid, key: Private::Hs(secret.to_vec()) }
    }

    fn algorithm(&self) -> &'static str {
        match self.key {
            Private::Es(_) => "ES256",
            Private::Rs(_) => "RS256",
            Private::Ed(_) => "EdDSA",
            Private::Hs(_) => "HS256",
        }
    }

    /// Returns the public key in the raw form that a forger would use.
    pub(super) fn public(&self) -> Vec<u8> {
        match &self.key {
            Private::Es(key) => key.public_key().as_ref().to_vec(),
            Private::Rs(key) => key.public_key().as_ref().to_vec(),
            Private::Ed(key) => key.public_key().as_ref().to_vec(),
            Private::Hs(_) => panic!("a secret has no public half"),
        }
    }

    /// Returns the public key as a JWK.
    pub(super) fn jwk(&self) -> Value {
        let public = self.public();
        match &self.key {
            Private::Es(_) => json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid,
                "x": B64.encode(&public[1..33]), "y": B64.encode(&public[33..])}),
            Private::Rs(key) => {
                let PublicKeyComponents::<Vec<u8>> { n, e } = key.public().into();
                json!({"kty": "RSA", "kid": self.kid, "n": B64.encode(n), "e": B64.encode(e)})
            }
            Private::Ed(_) => json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": B64.encode(&public)}),
            Private::Hs(secret) => json!({"kty": "oct", "kid": self.kid, "k": B64.encode(secret)}),
        }
    }

    /// Returns a token as an honest issuer makes it.
    pub(super) fn token(&self, claims: &Value) -> String {
        self.raw(&json!({"alg": self.algorithm(), "typ": "JWT", "kid": self.kid}).to_string(), &claims.to_string())
    }

    /// Returns a token with any header.
    pub(super) fn headed(&self, header: &Value, claims: &Value) -> String {
        self.raw(&header.to_string(), &claims.to_string())
    }

    /// Returns a token of any two texts.
    pub(super) fn raw(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", B64.encode(header), B64.encode(claims));
        format!("{message}.{}", B64.encode(self.sign(message.as_bytes())))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Private::Es(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Private::Ed(key) => key.sign(message).as_ref().to_vec(),
            Private::Rs(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Private::Hs(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec(),
        }
    }
}

/// Returns a JWKS document of these signers' public keys.
pub(super) fn document(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string()
}
