//! Tests of valid and invalid tokens, and of keys that change.
mod forged;
mod good;
mod remote;
mod signer;

use serde_json::{Value, json};

use super::{Keyring, Location, Sources, unix_now};
use crate::http_client::egress::Egress;
use rollcall_base::Secret;
use signer::Signer;

const SECRET: &str = "a secret for tests alone, long enough for HS256";

/// Returns the claims of a token that is valid for a minute.
fn claims(issuer: &str) -> Value {
    json!({"iss": issuer, "aud": "example.org", "sub": "alice", "exp": unix_now() + 60})
}

/// Returns the same claims with one replaced. `null` removes the claim.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims("local");
    let object = claims.as_object_mut().unwrap();
    object.remove(name);
    if !value.is_null() {
        object.insert(name.to_owned(), value);
    }
    claims
}

/// Returns a keyring with the shared secret, and with issuers whose documents are in files.
async fn keyring(issuers: &[(&str, &[&Signer])]) -> Keyring {
    let folder = tempfile::tempdir().unwrap();
    let jwks = issuers.iter().enumerate().map(|(index, (issuer, signers))| {
        let path = folder.path().join(index.to_string());
        std::fs::write(&path, signer::document(signers)).unwrap();
        ((*issuer).to_owned(), Location::File(path))
    });
    let keyring = Keyring::new(Sources { jwks: jwks.collect(), ..sources() }, &Egress::direct());
    assert!(keyring.load().await.is_empty());
    keyring
}

fn sources() -> Sources {
    Sources::from_secret(Secret::new(SECRET))
}
