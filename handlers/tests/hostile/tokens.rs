//! Tokens that no configured issuer has made: each is refused as unauthenticated, writes no row, and causes no request
//! for keys.

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Signature};
use rollcall_loadtest::client::Closing;
use rollcall_loadtest::token;
use serde_json::{Value, json};

use crate::common::{Backend, Classroom, refused, session_error};
use crate::with;

const A: &str = "https://a.example";
const B: &str = "https://b.example";

/// An issuer with one ES256 key. All issuers of these tests give their key the same `kid`.
struct Issuer {
    name: &'static str,
    key: KeyPair,
}

impl Issuer {
    fn new(name: &'static str) -> Self {
        Self { name, key: KeyPair::generate().unwrap() }
    }

    /// Returns the issuer's key set. The key is written as the coordinates of its point.
    fn jwks(&self) -> Value {
        let (x, y) = self.key.der_bytes()[1..].split_at(32);
        let key = json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)});
        json!({"keys": [key]})
    }

    fn signs(&self, header: &Value, claims: &Value) -> String {
        token::signed(header, claims, |message| self.signature(message))
    }

    fn signature(&self, message: &[u8]) -> Signature {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::from_pkcs8(algorithm, &self.key.serialize_der(), &random).unwrap();
        key.sign(&random, message).unwrap()
    }
}

/// A gateway that accepts two issuers by files, one by an address, and tokens with a secret.
struct Stage {
    backend: Backend,
    a: Issuer,
    b: Issuer,
    /// The number of connections to the address of the third issuer's keys.
    calls: Arc<AtomicUsize>,
    trap: String,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn get() -> &'static Self {
        static STAGE: OnceLock<Stage> = OnceLock::new();
        STAGE.get_or_init(Self::start)
    }

    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (Issuer::new(A), Issuer::new(B));
        let file = |name: &str, issuer: &Issuer| {
            let path = folder.path().join(name);
            std::fs::write(&path, issuer.jwks().to_string()).unwrap();
            path.display().to_string()
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let trap = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                drop(stream);
            }
        });
        let jwks = format!("{A}={},{B}={}", file("a.json", &a), file("b.json", &b));
        let backend = with(&[("ROLLCALL_JWKS", &jwks)]);
        Self { backend, a, b, calls, trap, _folder: folder }
    }

    /// Expects that this token is refused, and that the gateway makes no request.
    async fn refuses(&self, room: &Classroom, token: &str, why: &str) {
        let request = json!({"type": "connect_request", "payload": room.connect_request(token, "web")});
        let closing = refused(&self.backend, &request.to_string()).await;
        let mut payload = json!({"type": "unauthenticated", "title": "Unauthenticated", "status": 401});
        if let Some(detail) = closing.error.as_ref().and_then(|error| error["payload"].get("detail")) {
            assert!(detail == "token expired" || detail == "token malformed", "{why}: {detail}");
            payload["detail"] = detail.clone();
        }
        let error = json!({"type": "unrecoverable_session_error", "payload": payload});
        assert_eq!(closing, Closing { error: Some(error), code: Some(3500) }, "{why}");
        assert_eq!(self.backend.live(room).await, [""; 0], "{why}");
        assert_eq!(self.calls.load(Ordering::SeqCst), 0, "{why}");
    }
}

fn es256(kid: &str) -> Value {
    json!({"alg": "ES256", "typ": "JWT", "kid": kid})
}

fn claims(issuer: &str) -> Value {
    let mut claims = token::claims("alice", "participant");
    claims["iss"] = json!(issuer);
    claims
}

#[tokio::test]
async fn each_issuer_is_believed_about_its_own() {
    let stage = Stage::get();
    for issuer in [&stage.a, &stage.b] {
        let room = stage.backend.classroom();
        stage.backend.enters(room, &issuer.signs(&es256("1"), &claims(issuer.name))).await;
    }
}

#[tokio::test]
async fn a_client_cannot_choose_the_algorithm() {
    let stage = Stage::get();
    let room = stage.backend.classroom();
    for alg in ["none", "None", "nOnE", ""] {
        let header = json!({"alg": alg, "typ": "JWT", "kid": "1"});
        stage.refuses(room, &token::signed(&header, &claims(A), |_| b""), alg).await;
        stage.refuses(room, &token::signed(&header, &claims(A), |_| b"nonsense"), alg).await;
    }
    // A public key is not accepted as a secret, in any encoding.
    let public = &stage.a.key;
    let raw = public.der_bytes();
    for secret in
        [public.public_key_pem().into_bytes(), public.subject_public_key_info(), raw.to_vec(), raw[1..].to_vec()]
    {
        let header = json!({"alg": "HS256", "typ": "JWT", "kid": "1"});
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let forged = token::signed(&header, &claims(A), |message| hmac::sign(&key, message));
        stage.refuses(room, &forged, "the public key as a secret").await;
    }
    // The gateway's secret does not prove tokens of an issuer that has keys.
    stage.refuses(room, &token::hs256(token::SECRET, &claims(A)), "the secret").await;
}

#[tokio::test]
async fn one_issuer_does_not_vouch_for_another() {
    let stage = Stage::get();
    let room = stage.backend.classroom();
    // Both issuers use the same `kid`, too.
    stage.refuses(room, &stage.b.signs(&es256("1"), &claims(A)), "b for a").await;
    stage.refuses(room, &stage.a.signs(&es256("1"), &claims(B)), "a for b").await;
    for unknown in [&stage.trap, "https://c.example", "", "https://a.example/"] {
        let header = json!({"alg": "ES256", "typ": "JWT"});
        stage.refuses(room, &stage.a.signs(&es256("1"), &claims(unknown)), unknown).await;
        stage.refuses(room, &stage.a.signs(&header, &claims(unknown)), unknown).await;
    }
}

#[tokio::test]
async fn nothing_in_the_header_is_followed() {
    let stage = Stage::get();
    let room = stage.backend.classroom();
    let long = "k".repeat(2_000);
    for kid in
        ["../../../../dev/null", "/etc/passwd", "1' OR '1'='1", "1; drop table agent_session", "1\0", "\r\n1", &long]
    {
        stage.refuses(room, &stage.a.signs(&es256(kid), &claims(A)), kid).await;
    }
    let jwk = stage.b.jwks()["keys"][0].clone();
    for (name, value) in [
        ("jku", json!(stage.trap)),
        ("x5u", json!(stage.trap)),
        ("jwk", jwk),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
    ] {
        let mut header = json!({"alg": "ES256", "typ": "JWT", "kid": "1"});
        header[name] = value;
        // The token is signed by the key that its own header carries.
        stage.refuses(room, &stage.b.signs(&header, &claims(A)), name).await;
    }
}

#[tokio::test]
async fn times_and_ids_must_be_valid() {
    let stage = Stage::get();
    let room = stage.backend.classroom();
    let far = 4_000_000_000_u64;
    for (claim, value) in [
        ("exp", json!("4000000000")),
        ("exp", json!(null)),
        ("exp", json!(1_000_000_000)),
        ("exp", json!(-1)),
        ("exp", json!(1e300)),
        ("nbf", json!("0")),
        ("nbf", json!(far)),
        ("iat", json!(far)),
        ("iat", json!("0")),
        ("sub", json!("lesson_teacher_42")),
        ("sub", json!("lesson_")),
        ("sub", json!("")),
        ("sub", json!("*")),
        ("sub", json!(">")),
        ("sub", json!("{a}")),
        ("sub", json!("rollcall:x")),
        ("sub", json!("a b")),
        ("sub", json!("a\r\nb")),
        ("sub", json!("a\u{0}b")),
        ("sub", json!("a".repeat(129))),
        ("sub", json!(7)),
        ("aud", json!("*")),
        ("aud", json!("a.>")),
        ("aud", json!("a b.example")),
        ("aud", json!(["a.example", "b.example"])),
        ("aud", json!("a".repeat(300))),
        ("role", json!("root")),
        ("role", json!(null)),
        ("classroom_ids", json!("all")),
        ("lesson_ids", json!(["*"])),
        ("lesson_id", json!("a.b")),
    ] {
        let mut claims = claims(A);
        claims[claim] = value.clone();
        stage.refuses(room, &stage.a.signs(&es256("1"), &claims), &format!("{claim}: {value}")).await;
    }
    for missing in ["exp", "sub", "aud", "iss"] {
        let mut claims = claims(A);
        claims.as_object_mut().unwrap().remove(missing);
        stage.refuses(room, &stage.a.signs(&es256("1"), &claims), missing).await;
    }
}

#[tokio::test]
async fn a_sub_of_an_identity_provider_enters_and_leaves_as_itself() {
    let stage = Stage::get();
    let room = stage.backend.classroom();
    for (sub, encoded) in [
        ("auth0|64f0", "auth0|64f0"),
        ("alice@school.example", "alice@school%2Eexample"),
        ("urn:x:100%", "urn%3Ax%3A100%25"),
    ] {
        let mut claims = claims(A);
        claims["sub"] = json!(sub);
        let audience = claims["aud"].as_str().unwrap().to_owned();
        let mut agent = stage.backend.enters(room, &stage.a.signs(&es256("1"), &claims)).await;
        assert_eq!(agent.id, format!("web.{encoded}.{audience}"));
        agent.joins(&room.algebra).await;
        let (live, id) = (format!("select count(*) from agent_session where agent_id = '{}'", agent.id), agent.session);
        agent.leaves().await;
        stage.backend.wait_for_rows(&live, &["0"]).await;
        let history = format!("select agent_id from agent_session_history where id = {id}");
        assert_eq!(stage.backend.value(&history).await, format!("web.{encoded}.{audience}"));
    }
}

#[tokio::test]
async fn why_a_token_was_refused_is_for_the_operator() {
    let stage = Stage::get();
    let room = stage.backend.classroom();
    let before = refusals(stage, "expired");
    let mut claims = claims(A);
    claims["exp"] = json!(1_000_000_000);
    stage.refuses(room, &stage.a.signs(&es256("1"), &claims), "expired").await;
    assert!(refusals(stage, "expired") > before);
}

fn refusals(stage: &Stage, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    stage.backend.gateway.metric("rollcall_tokens_refused_total", &[&label]).unwrap()
}

#[tokio::test]
async fn a_role_and_the_admitted_rooms_come_from_the_token() {
    let stage = Stage::get();
    let (room, other) = (stage.backend.classroom(), stage.backend.classroom());
    let mut claims = claims(A);
    claims["classroom_ids"] = json!([room.id]);
    let token = stage.a.signs(&es256("1"), &claims);
    // The witness must not be seen from outside its classroom, and must not see anything from outside.
    let mut witness = stage.backend.participant(other, "witness").await;
    let mut request = json!({"type": "connect_request", "payload": other.connect_request(&token, "web")});
    request["payload"]["role"] = json!("teacher");
    request["payload"]["resume"] = json!({"lesson_id": other.algebra});
    session_error(&refused(&stage.backend, &request.to_string()).await, "access_denied", 403, 3507);
    stage.backend.nothing_came(other, [&mut witness]).await;

    // The payload's role is ignored, and a lesson of another classroom is not found.
    let mut payload = room.connect_request(&token, "web");
    payload["role"] = json!("teacher");
    let mut client = stage.backend.client().await;
    let success = client.connect_request_with(payload).await.unwrap();
    let mut mallory = crate::common::Agent::of(client, &success);
    let role = format!("select role from agent_session where id = {}", mallory.session);
    assert_eq!(stage.backend.value(&role).await, "participant");
    mallory.is_refused(json!({"lesson_id": other.algebra, "role": "teacher"}), "lesson not found").await;
    stage.backend.publish(&format!("lesson.{}.board", other.algebra), &json!({"theirs": 1}));
    stage.backend.nothing_came(room, [&mut mallory]).await;
}
