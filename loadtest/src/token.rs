//! Tokens for tests (PROTOCOL 6), signed with the secret that every test's gateway is given.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// The HS256 secret of test gateways.
pub const SECRET: &str = "a secret for tests alone, long enough for HS256";

/// The issuer that test tokens name.
pub const ISSUER: &str = "rollcall-tests";

/// The audience that test tokens name.
pub const AUDIENCE: &str = "example.org";

const LIFETIME: Duration = Duration::from_secs(3600);

/// The complete claims of a token that is valid for an hour; change or remove what a test is about.
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

/// A participant's token.
#[must_use]
pub fn participant(sub: &str) -> String {
    hs256(SECRET, &claims(sub, "participant"))
}

/// A teacher's token.
#[must_use]
pub fn teacher(sub: &str) -> String {
    hs256(SECRET, &claims(sub, "teacher"))
}

/// Any claims, signed with any secret.
///
/// # Panics
/// When the claims are not an object.
#[must_use]
pub fn hs256(secret: &str, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("an object can be signed")
}

/// A moment as `exp` and `nbf` want it.
#[must_use]
pub fn seconds(moment: SystemTime) -> u64 {
    moment.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
