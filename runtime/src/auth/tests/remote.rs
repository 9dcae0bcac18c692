//! Keys at an address: they are fetched only from that address, rotated, and fetched at a limited rate.
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper::StatusCode;
use serde_json::json;

use super::{super::*, *};
use crate::http_client::{
    egress::Egress,
    fixture::{Fixture, Reply, soon},
};

/// Starts a server with an issuer's document, which the test can change.
async fn published(document: String) -> (Fixture, Arc<Mutex<String>>) {
    let document = Arc::new(Mutex::new(document));
    let shown = Arc::clone(&document);
    let server = Fixture::start(move |_| Reply::Answer(StatusCode::OK, shown.lock().unwrap().clone())).await;
    (server, document)
}

fn at(server: &Fixture) -> Keyring {
    Keyring::new(
        Sources { jwks: vec![("a".into(), Location::Url(server.url("/jwks?v=1")))], ..sources() },
        &Egress::direct(),
    )
}

fn fetches(server: &mut Fixture) -> usize {
    std::iter::from_fn(|| server.requests.try_recv().ok()).count()
}

#[tokio::test]
async fn keys_are_fetched_and_rotated_without_a_restart() {
    let (old, new) = (Signer::es256("old"), Signer::eddsa("new"));
    let (mut server, document) = published(signer::document(&[&old])).await;
    let keyring = at(&server);
    assert!(keyring.load().await.is_empty());
    assert_eq!(server.next().await.uri, "/jwks?v=1");
    assert!(keyring.admit(&old.token(&claims("a"))).await.is_ok());
    *document.lock().unwrap() = signer::document(&[&new]);
    assert!(soon(keyring.admit(&new.token(&claims("a")))).await.is_ok());
    assert_eq!(keyring.admit(&old.token(&claims("a"))).await, Err(AuthError::Key), "the old key is gone");
    assert_eq!(fetches(&mut server), 2);
}

#[tokio::test]
async fn a_burst_of_unknown_keys_fetches_once() {
    let (known, unknown) = (Signer::es256("known"), Signer::es256("unknown"));
    let (mut server, _) = published(signer::document(&[&known])).await;
    let keyring = at(&server);
    let kids = (0..200).map(|kid| unknown.headed(&json!({"alg": "ES256", "kid": format!("k{kid}")}), &claims("a")));
    let tokens: Vec<_> = kids.collect();
    let verdicts = futures_util::future::join_all(tokens.iter().map(|token| keyring.admit(token)));
    assert!(soon(verdicts).await.into_iter().all(|verdict| verdict == Err(AuthError::Key)));
    assert_eq!(fetches(&mut server), 1);
    // The token that waited for that fetch is checked with the new keys.
    assert!(keyring.verify(&known.token(&claims("a"))).is_ok());
}

#[tokio::test]
async fn an_issuer_that_is_away_refuses_nobody_permanently_and_is_unusable_until_it_is_back() {
    let key = Signer::es256("k");
    let (token, kidless) = (key.token(&claims("a")), key.headed(&json!({"alg": "ES256"}), &claims("a")));
    let document = signer::document(&[&key]);
    let answer = move |number| match number {
        0..8 => Reply::Answer(StatusCode::SERVICE_UNAVAILABLE, String::new()),
        _ => Reply::Answer(StatusCode::OK, document.clone()),
    };
    let server = Fixture::start(answer).await;
    let sources = Sources { hs256: None, cooldown: Duration::from_millis(1), ..sources() };
    let jwks = vec![("a".into(), Location::Url(server.url("/")))];
    let keyring = Keyring::new(Sources { jwks, ..sources }, &Egress::direct());
    assert_eq!(keyring.load().await.len(), 1);
    assert!(!keyring.is_usable());
    for token in [&token, &kidless] {
        assert_eq!(soon(keyring.admit(token)).await, Err(AuthError::KeysUnavailable));
    }
    let mut admitted = false;
    for _ in 0..1_000 {
        admitted = soon(keyring.admit(&token)).await.is_ok();
        if admitted {
            break;
        }
    }
    assert!(admitted && keyring.is_usable());
    assert!(soon(keyring.admit(&kidless)).await.is_ok());
}

#[tokio::test]
async fn keys_that_rotate_after_a_stranger_s_token_are_seen_at_once() {
    let (old, new, stranger) = (Signer::es256("old"), Signer::es256("new"), Signer::es256("made-up"));
    let (_server, document) = published(signer::document(&[&old])).await;
    let keyring = at(&_server);
    assert!(keyring.load().await.is_empty());
    assert_eq!(soon(keyring.admit(&stranger.token(&claims("a")))).await, Err(AuthError::Key));
    *document.lock().unwrap() = signer::document(&[&old, &new]);
    assert!(soon(keyring.admit(&new.token(&claims("a")))).await.is_ok());
}

#[tokio::test]
async fn whoever_uses_up_the_loads_keeps_nobody_out_permanently() {
    let (old, new, stranger) = (Signer::es256("old"), Signer::es256("new"), Signer::es256("made-up"));
    let (mut server, document) = published(signer::document(&[&old])).await;
    let keyring = at(&server);
    assert!(keyring.load().await.is_empty());
    for number in 0..50 {
        let token = stranger.headed(&json!({"alg": "ES256", "kid": format!("k{number}")}), &claims("a"));
        assert!(soon(keyring.admit(&token)).await.is_err());
    }
    assert_eq!(fetches(&mut server), 6, "one at the start, and a few at once");
    *document.lock().unwrap() = signer::document(&[&new]);
    let token = new.token(&claims("a"));
    assert_eq!(soon(keyring.admit(&token)).await, Err(AuthError::KeysUnavailable));
    let gone = stranger.token(&claims("a"));
    assert_eq!(soon(keyring.admit(&gone)).await, Err(AuthError::KeysUnavailable), "not looked up yet");
    assert!(keyring.load().await.is_empty());
    assert!(soon(keyring.admit(&token)).await.is_ok());
    assert_eq!(soon(keyring.admit(&gone)).await, Err(AuthError::Key), "looked up since");
}

#[tokio::test]
async fn a_key_without_a_name_rotates_too() {
    let (old, new) = (Signer::es256("old"), Signer::es256("new"));
    let (server, document) = published(signer::document(&[&old])).await;
    let keyring = at(&server);
    assert!(keyring.load().await.is_empty());
    *document.lock().unwrap() = signer::document(&[&new]);
    let kidless = |signer: &Signer| signer.headed(&json!({"alg": "ES256"}), &claims("a"));
    assert!(soon(keyring.admit(&kidless(&new))).await.is_ok());
    assert_eq!(soon(keyring.admit(&kidless(&old))).await, Err(AuthError::Signature));
}

#[tokio::test]
async fn a_key_that_is_replaced_under_its_name_is_seen_at_once() {
    let (old, new) = (Signer::es256("k"), Signer::es256("k"));
    let (mut server, document) = published(signer::document(&[&old])).await;
    let keyring = at(&server);
    assert!(keyring.load().await.is_empty());
    *document.lock().unwrap() = signer::document(&[&new]);
    assert!(soon(keyring.admit(&new.token(&claims("a")))).await.is_ok());
    for _ in 0..50 {
        assert_eq!(soon(keyring.admit(&old.token(&claims("a")))).await, Err(AuthError::Signature));
    }
    assert_eq!(fetches(&mut server), 6, "one at the start, and a few at once");
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_buy_another_fetch() {
    let unknown = Signer::es256("unknown");
    let mut server = Fixture::start(|_| Reply::Hang).await;
    let keyring = at(&server);
    let token = unknown.token(&claims("a"));
    for _ in 0..3 {
        let mut waiting = std::pin::pin!(keyring.admit(&token));
        assert!(futures_util::poll!(&mut waiting).is_pending());
    }
    server.next().await;
    assert_eq!((fetches(&mut server), server.connections()), (0, 1));
}

#[tokio::test]
async fn what_cannot_be_a_rotation_opens_no_connection() {
    let (es, secret) = (Signer::es256("k"), Signer::hs256("k", b"public"));
    let server = Fixture::start(|_| Reply::Answer(StatusCode::OK, signer::document(&[]))).await;
    let keyring = at(&server);
    let jwks = format!("http://{}/own", server.address);
    let headers = [
        json!({"alg": "none", "kid": "x"}),
        json!({"alg": "RS512", "kid": "x"}),
        json!({"alg": "ES256", "kid": "../x"}),
        json!({"alg": "ES256", "kid": "/etc/passwd"}),
        json!({"alg": "ES256", "kid": "x' OR 1=1"}),
        json!({"alg": "ES256", "kid": "x--"}),
        json!({"alg": "ES256"}),
        json!({"alg": "ES256", "kid": "x", "jku": jwks}),
        json!({"alg": "ES256", "kid": "x", "x5u": jwks}),
        json!({"alg": "ES256", "kid": "x", "jwk": es.jwk()}),
    ];
    for header in headers {
        assert!(keyring.admit(&es.headed(&header, &claims("a"))).await.is_err(), "{header}");
    }
    assert!(keyring.admit(&secret.token(&claims("a"))).await.is_err());
    assert!(keyring.admit(&es.token(&claims("somebody"))).await.is_err(), "an issuer without keys");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Fixture::start(|_| Reply::Answer(StatusCode::OK, String::new())).await;
    let target = elsewhere.url("/jwks");
    let server = Fixture::start(move |_| Reply::Moved(target.clone())).await;
    let faults = at(&server).load().await;
    assert!(faults[0].to_string().contains("302"), "{}", faults[0]);
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_failed_load_leaves_the_keys_at_hand() {
    let es = Signer::es256("k");
    let (server, document) = published(signer::document(&[&es])).await;
    let keyring = at(&server);
    assert!(keyring.load().await.is_empty());
    for broken in ["", "{}", "{\"keys\":[]}", "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}"] {
        *document.lock().unwrap() = broken.to_owned();
        assert_eq!(keyring.load().await.len(), 1, "{broken}");
        assert!(keyring.verify(&es.token(&claims("a"))).is_ok());
    }
}

#[tokio::test]
async fn a_load_that_hangs_leaves_time_to_say_what_the_token_is_worth() {
    let server = Fixture::start(|_| Reply::Hang).await;
    let keyring = at(&server);
    let token = Signer::es256("unknown").token(&claims("a"));
    let verdict = tokio::time::timeout(Duration::from_secs(5), keyring.admit(&token)).await;
    assert_eq!(verdict.expect("before a connect times out"), Err(AuthError::KeysUnavailable));
}

#[tokio::test]
async fn a_document_too_large_is_not_read() {
    let server = Fixture::start(|_| Reply::Answer(StatusCode::OK, " ".repeat(1 << 20))).await;
    let faults = at(&server).load().await;
    assert!(faults[0].to_string().contains("too large"), "{}", faults[0]);
}

#[tokio::test]
async fn however_many_keys_are_of_no_use_the_fault_is_a_line() {
    let document = format!("{{\"keys\":[{}null]}}", "null,".repeat(40_000));
    let server = Fixture::start(move |_| Reply::Answer(StatusCode::OK, document.clone())).await;
    let fault = at(&server).load().await.remove(0).to_string();
    assert!(fault.contains("key 1: not a JWK") && fault.len() < 1_000, "{} bytes", fault.len());
}

#[tokio::test]
async fn a_missing_file_names_issuer_and_path() {
    let keyring = Keyring::new(
        Sources { jwks: vec![("a".into(), Location::File("/nowhere/a".into()))], ..sources() },
        &Egress::direct(),
    );
    let fault = keyring.load().await.remove(0).to_string();
    assert!(fault.contains("issuer a") && fault.contains("/nowhere/a"), "{fault}");
}
