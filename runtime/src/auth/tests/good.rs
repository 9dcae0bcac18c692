//! Tokens that are accepted, and what is read from them.
use std::time::Duration;

use rollcall_schema::{Audience, ClassroomId, JsonObject, LessonId, Role, UserId};
use serde_json::json;

use super::{super::*, *};

#[tokio::test]
async fn every_kind_of_key_lets_its_own_tokens_in() {
    let (es, rs, ed) = (Signer::es256("es"), Signer::rs256("rs"), Signer::eddsa("ed"));
    let keyring = keyring(&[("https://a.example", &[&es, &rs, &ed])]).await;
    for signer in [&es, &rs, &ed] {
        let claims = keyring.verify(&signer.token(&claims("https://a.example"))).unwrap();
        assert_eq!(claims.user.as_str(), "alice");
        assert_eq!(claims.audience.as_str(), "example.org");
        assert_eq!(claims.role, Role::Participant);
        assert_eq!(claims.limits, None);
    }
    assert!(keyring.verify(&Signer::hs256("local", SECRET.as_bytes()).token(&claims("local"))).is_ok());
}

#[tokio::test]
async fn a_token_without_kid_is_checked_by_the_only_key_of_its_kind() {
    let (es, other, ed) = (Signer::es256("1"), Signer::es256("2"), Signer::eddsa("3"));
    let keyring = keyring(&[("one", &[&es, &ed]), ("two", &[&es, &other])]).await;
    let headed = |issuer| es.headed(&json!({"alg": "ES256"}), &claims(issuer));
    assert!(keyring.verify(&headed("one")).is_ok());
    assert_eq!(keyring.verify(&headed("two")), Err(AuthError::Key));
}

#[tokio::test]
async fn an_audience_may_be_an_array_of_one() {
    let keyring = keyring(&[]).await;
    let verify = |aud| keyring.verify(&Signer::hs256("local", SECRET.as_bytes()).token(&with("aud", aud)));
    assert_eq!(verify(json!(["a.example"])).unwrap().audience.as_str(), "a.example");
    for aud in [json!([]), json!(7), json!("a b"), json!(".."), json!(["a b"]), json!([7])] {
        assert_eq!(verify(aud.clone()), Err(AuthError::Claim), "{aud}");
    }
    assert_eq!(verify(json!(["a.example", "b.example"])), Err(AuthError::Audience), "which of them?");
}

#[tokio::test]
async fn of_several_audiences_exactly_one_must_be_ours() {
    let audiences = vec![Audience::parse("a.example").unwrap(), Audience::parse("b.example").unwrap()];
    let keyring = Keyring::new(Sources { audiences, ..sources() }, &Egress::direct());
    let verify = |aud| {
        let verdict = keyring.verify(&Signer::hs256("local", SECRET.as_bytes()).token(&with("aud", aud)));
        verdict.map(|claims| claims.audience.to_string())
    };
    assert_eq!(verify(json!(["https://idp.example/userinfo", "b.example"])), Ok("b.example".into()));
    assert_eq!(verify(json!(["x.example", "a.example", "y.example"])), Ok("a.example".into()));
    for aud in [json!(["a.example", "b.example"]), json!(["x.example", "y.example"]), json!(["x.example"])] {
        assert_eq!(verify(aud.clone()), Err(AuthError::Audience), "{aud}");
    }
}

#[tokio::test]
async fn the_secret_before_counts_while_it_is_replaced() {
    let previous = "the secret before, also long enough for HS256";
    let token = |secret: &str| Signer::hs256("local", secret.as_bytes()).token(&claims("local"));
    let both = Keyring::new(Sources { hs256_previous: Some(Secret::new(previous)), ..sources() }, &Egress::direct());
    assert!(both.verify(&token(SECRET)).is_ok() && both.verify(&token(previous)).is_ok());
    assert_eq!(both.verify(&token("another")), Err(AuthError::Signature));
    assert_eq!(Keyring::new(sources(), &Egress::direct()).verify(&token(previous)), Err(AuthError::Signature));
}

#[tokio::test]
async fn subs_of_common_identity_providers_are_let_in() {
    let keyring = keyring(&[]).await;
    for sub in ["auth0|64f0", "alice@school.example", "google-oauth2|1", "urn:user:7", "a.b"] {
        let token = Signer::hs256("local", SECRET.as_bytes()).token(&with("sub", json!(sub)));
        assert_eq!(keyring.verify(&token).unwrap().user.as_str(), sub);
    }
}

#[tokio::test]
async fn only_the_audiences_named_are_let_in() {
    let audiences = vec![Audience::parse("a.example").unwrap(), Audience::parse("b.example").unwrap()];
    let keyring = Keyring::new(Sources { audiences, ..sources() }, &Egress::direct());
    let verify = |aud| keyring.verify(&Signer::hs256("local", SECRET.as_bytes()).token(&with("aud", json!(aud))));
    assert!(verify("b.example").is_ok());
    assert_eq!(verify("c.example"), Err(AuthError::Audience));
}

#[tokio::test]
async fn the_lists_say_where_the_bearer_may_go() {
    let keyring = keyring(&[]).await;
    let room = ClassroomId::parse("2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c001").unwrap();
    let elsewhere = ClassroomId::parse("2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c002").unwrap();
    let lesson = |text| LessonId::parse(text).unwrap();
    let mut claims = with("lesson_id", json!("algebra-1"));
    claims["classroom_ids"] = json!([room]);
    claims["lesson_ids"] = json!(["algebra-1", "algebra-2"]);
    let claims = keyring.verify(&Signer::hs256("local", SECRET.as_bytes()).token(&claims)).unwrap();
    assert_eq!(claims.lesson(), Some(&lesson("algebra-1")));
    assert!(claims.admits_classroom(room) && !claims.admits_classroom(elsewhere));
    assert!(claims.admits_lesson(&lesson("algebra-2")) && !claims.admits_lesson(&lesson("algebra-3")));
}

#[tokio::test]
async fn an_empty_list_admits_nowhere_and_no_list_anywhere() {
    let keyring = keyring(&[]).await;
    let room = ClassroomId::parse("2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c001").unwrap();
    let verify = |claims| keyring.verify(&Signer::hs256("local", SECRET.as_bytes()).token(&claims)).unwrap();
    assert!(!verify(with("classroom_ids", json!([]))).admits_classroom(room));
    assert!(verify(with("lesson_ids", json!([]))).admits_classroom(room));
}

#[tokio::test]
async fn a_token_counts_from_nbf_with_leeway_until_exp_without() {
    let keyring = keyring(&[]).await;
    let mut claims = with("exp", json!(1000));
    claims["nbf"] = json!(900.5);
    claims["iat"] = json!(910);
    let token = Signer::hs256("local", SECRET.as_bytes()).token(&claims);
    let at = |now| keyring.verify_at(&token, now).map(|claims| claims.expires);
    assert_eq!(at(895), Err(AuthError::Early));
    assert_eq!(at(904), Err(AuthError::Early), "iat counts, too");
    assert_eq!(at(905), Ok(1000));
    claims.as_object_mut().unwrap().remove("iat");
    let token = Signer::hs256("local", SECRET.as_bytes()).token(&claims);
    let at = |now| keyring.verify_at(&token, now).map(|claims| claims.expires);
    assert_eq!(at(895), Err(AuthError::Early));
    assert_eq!(at(896), Ok(1000));
    assert_eq!(at(999), Ok(1000));
    assert_eq!(at(1000), Err(AuthError::Expired));
}

#[tokio::test]
async fn a_token_of_our_own_is_let_in() {
    let spec = TokenSpec {
        issuer: "rollcall".into(),
        user: UserId::parse("bob").unwrap(),
        audience: Audience::parse("example.org").unwrap(),
        role: Role::Teacher,
        lifetime: Duration::from_secs(60),
        lesson_id: Some(LessonId::parse("algebra-1").unwrap()),
        classroom_ids: Vec::new(),
        lesson_ids: Vec::new(),
        info: JsonObject::parse(r#"{ "name": "Bob" }"#).ok(),
    };
    let token = mint(&Secret::new(SECRET), &spec);
    let claims = keyring(&[]).await.verify(&token).unwrap();
    assert_eq!(claims.info(), spec.info.as_ref(), "as it was written");
    assert_eq!((claims.user, claims.role), (spec.user, Role::Teacher));
    assert_eq!(claims.limits.unwrap().lesson_id, spec.lesson_id);
    assert!(claims.expires > unix_now() + 50);
}
