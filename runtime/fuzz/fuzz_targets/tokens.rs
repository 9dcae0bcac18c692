//! Verifies any token, signed or not. There must be no panic. No token may be accepted without its signature, or with
//! an invalid id.
#![no_main]
use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use libfuzzer_sys::fuzz_target;
use ring::hmac;
use rollcall_base::Secret;
use rollcall_runtime::auth::{Keyring, Sources, unix_now};
use rollcall_runtime::http_client::egress::{Egress, EgressOptions};
use rollcall_schema::{Audience, UserId};
use serde_json::Value;

const SECRET: &str = "a secret of the fuzzer's, long enough for HS256";

static KEYRING: LazyLock<Keyring> = LazyLock::new(|| {
    let egress = Egress::open(&EgressOptions::default()).expect("no file is named");
    Keyring::new(Sources::from_secret(Secret::new(SECRET)), &egress)
});

fuzz_target!(|data: &[u8]| {
    // The input itself is the token, which has no valid signature.
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(KEYRING.verify(text).is_err());
    }
    // The input is the header and the claims of a token that is signed here.
    let split = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (header, claims) = (&data[..split], data.get(split + 1..).unwrap_or_default());
    let message = format!("{}.{}", B64.encode(header), B64.encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message.as_bytes());
    let token = format!("{message}.{}", B64.encode(signature.as_ref()));
    let Ok(bearer) = KEYRING.verify(&token) else { return };
    let header = std::str::from_utf8(header).expect("JSON is UTF-8");
    // The check is skipped if the JSON nests too deep for a tree.
    if let Ok(header) = serde_json::from_str::<Value>(header) {
        assert_eq!(header["alg"], "HS256");
        assert!(["jku", "x5u", "x5c", "jwk", "crit"].iter().all(|name| header[name].is_null()));
    }
    assert!(bearer.expires > unix_now());
    assert!(UserId::parse(bearer.user.as_str()).is_ok() && Audience::parse(bearer.audience.as_str()).is_ok());
    // With one bit of the signature changed, the token is refused.
    let mut broken = signature.as_ref().to_vec();
    broken[0] ^= 1;
    assert!(KEYRING.verify(&format!("{message}.{}", B64.encode(broken))).is_err());
});
