//! Signatures of requests to an app's own services, as in [Standard Webhooks](https://www.standardwebhooks.com): the
//! HMAC-SHA256 of `{id}.{timestamp}.{body}`. They show the receiver who sent the request, and when.
//!
//! Invariant: this module never returns the key, only signatures.
use std::ops::RangeInclusive;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT, URL_SAFE_NO_PAD},
};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use ring::{
    digest::{SHA256, digest},
    hmac::{Context, HMAC_SHA256, Key},
};
use rollcall_schema::Sid;

/// The request's id, which is the same for every attempt.
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
/// When this attempt was signed, in Unix seconds.
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// `v1,` and the signature in base64.
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// How a secret may begin.
const PREFIX: &str = "whsec_";
/// How many bytes a key may have.
const KEY_BYTES: RangeInclusive<usize> = 24..=64;

/// The text is not a secret that can sign requests. The error does not repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write 24 to 64 random bytes in base64, like the output of `openssl rand -base64 32`, or that after whsec_")]
pub struct SigningKeyError;

/// A secret that the gateway shares with a receiver. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct SigningKey(Key);

impl SigningKey {
    /// Reads a secret in base64, with or without the prefix `whsec_`.
    ///
    /// # Errors
    /// Returns a [`SigningKeyError`] if the text is not such a secret.
    pub fn parse(text: &str) -> Result<Self, SigningKeyError> {
        let encoded = text.strip_prefix(PREFIX).unwrap_or(text);
        let key = STANDARD_PAD_INDIFFERENT.decode(encoded).ok().filter(|key| KEY_BYTES.contains(&key.len()));
        key.map(|key| Self(Key::new(HMAC_SHA256, &key))).ok_or(SigningKeyError)
    }

    /// Returns the headers of a request with this id and body, signed at this Unix time in seconds.
    #[must_use]
    pub fn sign(&self, id: &RequestId, timestamp: u64, body: &[u8]) -> HeaderMap {
        let timestamp = timestamp.to_string();
        let mut context = Context::with_key(&self.0);
        for part in [id.as_str().as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            context.update(part);
        }
        let signature = format!("v1,{}", STANDARD.encode(context.sign()));
        let headers = [(WEBHOOK_ID, id.as_str()), (WEBHOOK_TIMESTAMP, &timestamp), (WEBHOOK_SIGNATURE, &signature)];
        let value = |text| HeaderValue::from_str(text).expect("ids, numbers and base64 are ASCII");
        headers.into_iter().map(|(name, text)| (name, value(text))).collect()
    }
}

/// The value of `webhook-id`. It names a request, so that a receiver can tell a second attempt from a second request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// Returns an id that no other request has.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("msg_{}", Sid::random()))
    }

    /// Returns the id of this content. It is always the same for the same content, even if another node sends the
    /// request.
    #[must_use]
    pub fn of_content(content: &[u8]) -> Self {
        Self(format!("msg_{}", URL_SAFE_NO_PAD.encode(digest(&SHA256, content))))
    }

    /// Returns the id's text, which has only letters, digits, `_` and `-`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the reference implementations' own tests.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn a_request_is_signed_as_the_reference_signs_it() {
        let id = RequestId("msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned());
        for secret in [SECRET, &SECRET["whsec_".len()..]] {
            let headers = SigningKey::parse(secret).unwrap().sign(&id, 1_614_265_330, br#"{"test": 2432232314}"#);
            assert_eq!(headers["webhook-id"], "msg_p5jXN8AQM9LWM0D4loKWxJek");
            assert_eq!(headers["webhook-timestamp"], "1614265330");
            assert_eq!(headers["webhook-signature"], SIGNED);
        }
    }

    #[test]
    fn a_secret_is_long_enough_and_never_shown() {
        for faulty in
            ["", "whsec_", "hunter2", "whsec_aHVudGVyMg==", "not base64 but long enough for a key", &"A".repeat(88)]
        {
            assert_eq!(SigningKey::parse(faulty).err(), Some(SigningKeyError), "{faulty}");
        }
        assert!(SigningKey::parse(&"A".repeat(43)).is_ok(), "padding may be left out");
        assert!(!format!("{:?}", SigningKey::parse(SECRET).unwrap()).contains("MfKQ"));
    }

    #[test]
    fn no_two_requests_have_one_id() {
        assert_ne!(RequestId::random(), RequestId::random());
    }
}
