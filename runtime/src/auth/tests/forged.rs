//! Tokens that are refused: every known attack with a JWT.
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{super::*, *};

fn ours() -> Signer {
    Signer::hs256("local", SECRET.as_bytes())
}

async fn verdict(claims: &Value) -> Result<Claims, AuthError> {
    keyring(&[]).await.verify(&ours().token(claims))
}

#[tokio::test]
async fn alg_none_is_refused() {
    let es = Signer::es256("k");
    let keyring = keyring(&[("a", &[&es])]).await;
    for alg in ["none", "None", "NONE", ""] {
        for issuer in ["a", "local"] {
            let header = json!({"alg": alg, "kid": "k"}).to_string();
            let unsigned = format!("{}.{}.", B64.encode(header), B64.encode(claims(issuer).to_string()));
            assert_eq!(keyring.verify(&unsigned), Err(AuthError::Algorithm), "{alg}");
        }
    }
}

#[tokio::test]
async fn a_signature_left_out_or_cut_is_refused() {
    let token = ours().token(&claims("local"));
    let keyring = keyring(&[]).await;
    let message = token.rsplit_once('.').unwrap().0;
    assert_eq!(keyring.verify(&format!("{message}.")), Err(AuthError::Signature));
    assert_eq!(keyring.verify(message), Err(AuthError::Malformed));
    assert_eq!(keyring.verify(&token[..token.len() - 2]), Err(AuthError::Signature));
}

#[tokio::test]
async fn a_public_key_is_no_hmac_secret() {
    let (es, rs, ed) = (Signer::es256("es"), Signer::rs256("rs"), Signer::eddsa("ed"));
    let keyring = keyring(&[("a", &[&es, &rs, &ed])]).await;
    for signer in [&es, &rs, &ed] {
        let document = signer.jwk().to_string();
        for secret in [signer.public(), document.into_bytes(), B64.encode(signer.public()).into_bytes()] {
            let token = Signer::hs256(signer.kid, &secret).token(&claims("a"));
            assert_eq!(keyring.verify(&token), Err(AuthError::Algorithm));
        }
    }
}

#[tokio::test]
async fn the_header_does_not_choose_the_algorithm() {
    let (es, ed) = (Signer::es256("es"), Signer::eddsa("ed"));
    let keyring = keyring(&[("a", &[&es, &ed])]).await;
    for alg in ["ES384", "PS256", "RS512", "HS512", "es256", "RS256", "EdDSA", "Ed25519"] {
        let token = es.headed(&json!({"alg": alg, "kid": "es"}), &claims("a"));
        assert_eq!(keyring.verify(&token), Err(AuthError::Algorithm), "{alg}");
    }
}

#[tokio::test]
async fn the_shared_secret_does_not_serve_an_issuer_with_keys() {
    let es = Signer::es256("k");
    let keyring = keyring(&[("a", &[&es])]).await;
    assert_eq!(keyring.verify(&ours().token(&claims("a"))), Err(AuthError::Algorithm));
}

#[tokio::test]
async fn one_issuer_does_not_sign_for_another() {
    let (a, b) = (Signer::es256("same"), Signer::es256("same"));
    let keyring = keyring(&[("a", &[&a]), ("b", &[&b])]).await;
    assert!(keyring.verify(&a.token(&claims("a"))).is_ok());
    assert!(keyring.verify(&b.token(&claims("b"))).is_ok());
    assert_eq!(keyring.verify(&a.token(&claims("b"))), Err(AuthError::Signature));
    assert_eq!(keyring.verify(&b.token(&claims("a"))), Err(AuthError::Signature));
    assert_eq!(keyring.verify(&a.token(&claims("c"))), Err(AuthError::Algorithm));
}

#[tokio::test]
async fn an_issuer_that_is_not_configured_is_refused() {
    let es = Signer::es256("k");
    let keyring = Keyring::new(Sources { hs256: None, ..sources() }, &Egress::direct());
    for issuer in ["a", ""] {
        assert_eq!(keyring.verify(&es.token(&claims(issuer))), Err(AuthError::Issuer));
        assert_eq!(keyring.verify(&ours().token(&claims(issuer))), Err(AuthError::Issuer));
    }
}

#[tokio::test]
async fn a_kid_with_a_path_or_sql_finds_nothing() {
    let es = Signer::es256("k");
    let keyring = keyring(&[("a", &[&es])]).await;
    for kid in ["../../../dev/null", "/etc/passwd", "k' OR '1'='1", "k; DROP TABLE node --", "", "k\0", "K"] {
        let token = es.headed(&json!({"alg": "ES256", "kid": kid}), &claims("a"));
        assert_eq!(keyring.verify(&token), Err(AuthError::Key), "{kid}");
    }
    // The shared secret has no name, so any `kid` is accepted unless it is a path or a database query.
    let shared = |kid: &str| ours().headed(&json!({"alg": "HS256", "kid": kid}), &claims("local"));
    for kid in ["../../../dev/null", "/etc/passwd", "k' OR '1'='1", "k; DROP TABLE node --", "k\0", "k\r\n", "é"] {
        assert_eq!(keyring.verify(&shared(kid)), Err(AuthError::Key), "{kid}");
    }
    assert!(keyring.verify(&shared("2026-11")).is_ok());
    for kid in [json!(7), json!(null), json!(["k"]), json!({"k": "k"})] {
        let token = es.headed(&json!({"alg": "ES256", "kid": kid}), &claims("a"));
        assert_eq!(keyring.verify(&token), Err(AuthError::Malformed), "{kid}");
    }
}

#[tokio::test]
async fn keys_and_addresses_in_the_header_are_refused() {
    let (es, own) = (Signer::es256("k"), Signer::es256("k"));
    let keyring = keyring(&[("a", &[&es])]).await;
    let tempting = [
        ("jku", json!("http://127.0.0.1:9/jwks")),
        ("x5u", json!("http://127.0.0.1:9/x5u")),
        ("jwk", own.jwk()),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
    ];
    let none = tempting.clone().map(|(name, _)| (name, json!(null)));
    for (name, value) in tempting.into_iter().chain(none) {
        let header = json!({"alg": "ES256", "kid": "k", name: value});
        // The token is refused even with the right signature, because no configured issuer sends a token with this
        // header.
        assert_eq!(keyring.verify(&es.headed(&header, &claims("a"))), Err(AuthError::Header), "{name}");
        assert_eq!(keyring.verify(&own.headed(&header, &claims("a"))), Err(AuthError::Header), "{name}");
    }
}

#[tokio::test]
async fn times_must_be_numbers_in_range() {
    for exp in [json!("4102444800"), json!(null), json!(true), json!([4_102_444_800_u64]), json!(-1), json!(1e300)] {
        assert_eq!(verdict(&with("exp", exp.clone())).await, Err(AuthError::Claim), "{exp}");
    }
    for iat in [json!("0"), json!(true), json!(-1)] {
        assert_eq!(verdict(&with("iat", iat.clone())).await, Err(AuthError::Claim), "{iat}");
    }
    for nbf in [json!("0"), json!(false), json!({}), json!(-1), json!(1e300)] {
        assert_eq!(verdict(&with("nbf", nbf.clone())).await, Err(AuthError::Claim), "{nbf}");
    }
    assert_eq!(verdict(&with("exp", json!(unix_now() - 1))).await, Err(AuthError::Expired));
    assert_eq!(verdict(&with("nbf", json!(unix_now() + 30))).await, Err(AuthError::Early));
}

#[tokio::test]
async fn info_is_a_small_object() {
    let object = |length: usize| json!({"a": "x".repeat(length - 8)});
    assert!(verdict(&with("info", object(1024))).await.is_ok());
    for info in [object(1025), json!([]), json!("{}"), json!(1), Value::Null] {
        let mut claims = claims("local");
        claims["info"] = info.clone();
        assert_eq!(verdict(&claims).await, Err(AuthError::Info), "{info}");
    }
    assert_eq!(AuthError::Info.detail(), Some("info: a JSON object of at most 1024 bytes"));
}

#[tokio::test]
async fn a_null_is_not_a_claim_left_out() {
    for name in ["nbf", "iat", "role", "lesson_id", "classroom_ids", "lesson_ids"] {
        let mut claims = claims("local");
        claims[name] = Value::Null;
        assert_eq!(verdict(&claims).await, Err(AuthError::Claim), "{name}");
    }
}

#[tokio::test]
async fn ids_are_checked() {
    let long = "a".repeat(129);
    for sub in [
        "",
        "a b",
        "*",
        ">",
        "a\r\nb",
        "a\0",
        "{a}",
        "lesson_teacher_42",
        "rollcall:x",
        "' OR 1=1",
        "\"",
        "\\",
        &long,
        "é",
    ] {
        assert_eq!(verdict(&with("sub", json!(sub))).await, Err(AuthError::Claim), "{sub:?}");
    }
    assert_eq!(verdict(&with("sub", json!(7))).await, Err(AuthError::Claim));
    assert_eq!(verdict(&with("sub", Value::Null)).await, Err(AuthError::Claim));
    assert_eq!(verdict(&with("aud", Value::Null)).await, Err(AuthError::Claim));
    assert_eq!(verdict(&with("role", json!("admin"))).await, Err(AuthError::Claim));
    assert_eq!(verdict(&with("lesson_id", json!("a.b"))).await, Err(AuthError::Claim));
    assert_eq!(verdict(&with("lesson_ids", json!("algebra-1"))).await, Err(AuthError::Claim));
    assert_eq!(verdict(&with("classroom_ids", json!(["x"]))).await, Err(AuthError::Claim));
    assert_eq!(verdict(&with("iss", Value::Null)).await, Err(AuthError::Malformed));
    assert_eq!(verdict(&with("iss", json!(["local"]))).await, Err(AuthError::Malformed));
}

#[tokio::test]
async fn claims_given_twice_are_refused() {
    let keyring = keyring(&[]).await;
    for (name, value) in [("sub", json!("mallory")), ("exp", json!(1)), ("role", json!("teacher"))] {
        let mut text = with("role", json!("hub")).to_string();
        text.insert_str(1, &format!("{name:?}:{value},"));
        let token = ours().raw(&json!({"alg": "HS256"}).to_string(), &text);
        assert_eq!(keyring.verify(&token), Err(AuthError::Claim), "{name}");
    }
}

#[tokio::test]
async fn what_is_not_a_token_is_refused() {
    let keyring = keyring(&[]).await;
    let deep = "[".repeat(6000);
    let header = json!({"alg": "HS256"}).to_string();
    let deep = ours().raw(&header, &format!("{{\"iss\":\"local\",\"x\":{deep}"));
    let array = ours().raw(&header, "[\"local\"]");
    let padded = format!("{}=", ours().token(&claims("local")));
    let long = format!("{}.a", "a.".repeat(super::super::token::MAX_TOKEN));
    // The value is skipped, and is still not JSON.
    let binary = B64.encode(b"{\"alg\":\"HS256\",\"typ\":\"\xff\"}");
    let binary = format!("{binary}.{}.AAAA", B64.encode(b"{\"iss\":\"local\"}"));
    for token in
        ["", ".", "..", "...", "a.b", "a.b.c", "a.b.c.d", "e30.e30.", "e30.e30.e30", &deep, &array, &long, &binary]
    {
        let verdict = keyring.verify(token);
        assert_eq!(verdict, Err(AuthError::Malformed), "{token:.40}");
    }
    assert_eq!(keyring.verify(&padded), Err(AuthError::Signature));
}

proptest! {
    #[test]
    fn no_text_is_let_in_or_panics(text in ".{0,200}") {
        let keyring = Keyring::new(sources(), &Egress::direct());
        prop_assert!(keyring.verify(&text).is_err());
    }

    #[test]
    fn no_signed_nonsense_panics(header in "\\PC{0,60}", claims in "\\PC{0,120}") {
        let keyring = Keyring::new(sources(), &Egress::direct());
        prop_assert!(keyring.verify(&ours().raw(&header, &claims)).is_err());
        let wrapped = format!("{{\"iss\":\"local\",{claims}}}");
        let token = ours().raw("{\"alg\":\"HS256\"}", &wrapped);
        prop_assert!(keyring.verify(&token).is_err());
    }

    #[test]
    fn a_token_with_one_byte_changed_is_refused(place in any::<prop::sample::Index>(), byte in 0x21_u8..0x7f) {
        let keyring = Keyring::new(sources(), &Egress::direct());
        let token = ours().token(&claims("local"));
        let mut bytes = token.clone().into_bytes();
        let place = place.index(bytes.len());
        prop_assume!(bytes[place] != byte);
        bytes[place] = byte;
        prop_assert!(keyring.verify(std::str::from_utf8(&bytes).unwrap()).is_err());
    }
}
