//! Tokens for tests (PROTOCOL 6), signed with the secret of every test's gateway.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

/// The HS256 secret of the tests' gateways.
pub const SECRET: &str = "a secret for tests alone, long enough for HS256";

/// The issuer in the tests' tokens.
pub const ISSUER: &str = "rollcall-tests";

/// The audience in the tests' tokens.
pub const AUDIENCE: &str = "example.org";

const LIFETIME: Duration = Duration::from_secs(3600);

/// Returns the complete claims of a token that is valid for an hour. A test changes or removes the claim that it is
/// about.
#[must_use]
pub fn claims(sub: &str, role: &str) -> Value {
    json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": sub,
        "role": role,
        "exp": seconds(SystemTime::now() + LIFETIME),
    })
}

/// Returns a participant's token.
#[must_use]
pub fn participant(sub: &str) -> String {
    hs256(SECRET, &claims(sub, "participant"))
}

/// Returns a teacher's token.
#[must_use]
pub fn teacher(sub: &str) -> String {
    hs256(SECRET, &claims(sub, "teacher"))
}

/// Returns a token with any claims, signed with any secret.
#[must_use]
pub fn hs256(secret: &str, claims: &Value) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    signed(&json!({"typ": "JWT", "alg": "HS256"}), claims, |message| hmac::sign(&key, message))
}

/// Returns a token with any header, claims and signature.
#[must_use]
pub fn signed<S: AsRef<[u8]>>(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> S) -> String {
    let message = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// Returns a moment in seconds, as in `exp` and `nbf`.
#[must_use]
pub fn seconds(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
