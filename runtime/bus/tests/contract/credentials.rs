//! Credentials of accounts (`.creds` files and nkeys), and the limits of accounts.
use std::{fs, time::SystemTime};

use async_nats::{
    ConnectOptions,
    jetstream::{self, consumer::pull, stream::Config},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use rollcall_base::RotatingSecret;
use rollcall_bus::{
    Bus, ProbeError,
    nats::{NatsBus, NatsOptions, StreamOptions, check_credentials},
};
use rollcall_loadtest::servers::{MemberOptions, NatsMember, NatsVersion};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    bench::{PAUSE, classroom, collect, ids, note, publish_surely},
    tls::{VERSIONS, fails, start},
};

fn member(version: NatsVersion, settings: &str) -> NatsMember {
    NatsMember::start_with(MemberOptions::new(version, settings).unwrap()).unwrap()
}

fn seconds() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// Returns a token about one key that another key signs.
fn token(issuer: &KeyPair, subject: &KeyPair, expires: Option<u64>, nats: &Value) -> String {
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let mut claims = json!({"jti": "test", "iat": seconds(), "iss": issuer.public_key(), "name": "test",
        "sub": subject.public_key(), "nats": nats});
    if let Some(expires) = expires {
        claims["exp"] = expires.into();
    }
    let text = format!("{}.{}", encode(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), encode(&claims));
    let signature = issuer.sign(text.as_bytes()).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// An operator with one account that has all rights.
struct Operator {
    account: KeyPair,
    settings: String,
}

impl Operator {
    fn new() -> Self {
        let (operator, system, account) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
        let limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1});
        let unlimited = json!({"type": "account", "version": 2, "limits": limits});
        let settings = format!(
            "jetstream {{ store_dir: store }}\noperator: {}\nsystem_account: {}\nresolver: MEMORY\n\
             resolver_preload: {{ {}: {}, {}: {} }}\n",
            token(&operator, &operator, None, &json!({"type": "operator", "version": 2})),
            system.public_key(),
            system.public_key(),
            token(&operator, &system, None, &json!({"type": "account", "version": 2})),
            account.public_key(),
            token(&operator, &account, None, &unlimited),
        );
        Self { account, settings }
    }

    /// Returns the text of a `.creds` file.
    fn user(&self, issuer: &KeyPair, expires: Option<u64>) -> String {
        let user = KeyPair::new_user();
        let unlimited = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
        format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\nKeep it secret.\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            token(issuer, &user, expires, &unlimited),
            user.seed().unwrap()
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creds_file_is_used_and_read_again_before_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.creds");
    for version in VERSIONS {
        let operator = Operator::new();
        let server = member(version, &operator.settings);
        let with = |text: &str| {
            let credentials = RotatingSecret::in_file(text, "ROLLCALL_NATS_CREDS", file.clone(), check_credentials);
            NatsOptions { credentials: Some(credentials), ..NatsOptions::new(server.url()) }
        };
        start(&with(&operator.user(&operator.account, None))).await.unwrap();
        let (expires, (bus, mut feed)) = loop {
            let expires = seconds() + 3;
            let text = operator.user(&operator.account, Some(expires));
            fs::write(&file, &text).unwrap();
            // On a busy machine the credentials may expire before the connection is made.
            if let Ok(connected) = NatsBus::connect_with(with(&text)).await {
                break (expires, connected);
            }
        };
        fs::write(&file, operator.user(&operator.account, None)).unwrap();
        let room = classroom();
        while bus.subscribe(&room).await.is_err() {}
        // The server closes all connections of a user whose credentials expire.
        let mut number = 0;
        while seconds() <= expires + 1 {
            number += 1;
            publish_surely(&bus, &room, number).await;
            sleep(20 * PAUSE).await;
        }
        publish_surely(&bus, &room, number + 1).await;
        let heard = ids(&collect(&mut feed, number as usize + 1).await);
        assert_eq!(heard, (1..=number + 1).collect::<Vec<_>>());
        fs::remove_file(&file).unwrap();
        // A user of an account that the server does not know.
        let stranger = operator.user(&KeyPair::new_account(), None);
        let stranger =
            NatsOptions { credentials: Some(RotatingSecret::new(stranger)), ..NatsOptions::new(server.url()) };
        fails(&stranger, &["NATS refuses the user of ROLLCALL_NATS_CREDS"]).await;
        fails(&NatsOptions::new(server.url()), &["NATS refuses a client without credentials", "ROLLCALL_NATS_CREDS"])
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_nkey_is_used() {
    let (user, other) = (KeyPair::new_user(), KeyPair::new_user());
    for version in VERSIONS {
        let settings = format!(
            "jetstream {{ store_dir: store }}\nauthorization {{ users: [{{ nkey: {} }}] }}\n",
            user.public_key()
        );
        let server = member(version, &settings);
        let with = |key: &KeyPair| {
            let credentials = Some(RotatingSecret::new(key.seed().unwrap()));
            NatsOptions { credentials, ..NatsOptions::new(server.url()) }
        };
        publish_surely(&start(&with(&user)).await.unwrap(), &classroom(), 1).await;
        fails(&with(&other), &["NATS refuses the nkey of ROLLCALL_NATS_CREDS"]).await;
    }
}

#[test]
fn a_text_that_is_no_credentials_is_told_without_a_word_of_it() {
    let operator = Operator::new();
    let whole = operator.user(&operator.account, None);
    check_credentials(&whole).unwrap();
    check_credentials(&format!("{}\n", KeyPair::new_user().seed().unwrap())).unwrap();
    let half = whole.split("-----BEGIN USER").next().unwrap();
    let account = operator.account.seed().unwrap();
    for (text, advice) in
        [("/etc/node.creds", "ROLLCALL_NATS_CREDS_FILE"), (half, "the whole"), (&account, "user's nkey seed")]
    {
        let error = check_credentials(text).unwrap_err();
        assert!(error.contains(advice) && !error.contains(text.trim()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_account_limits_is_named_with_what_to_change() {
    for version in VERSIONS {
        let account = |limits: &str| {
            let settings = format!(
                "jetstream {{ store_dir: store }}\n\
                 accounts {{ A: {{ jetstream: {{ {limits} }}, users: [{{ user: u, password: p }}] }} }}\n"
            );
            member(version, &settings)
        };
        let options = |server: &NatsMember| NatsOptions::new(format!("nats://u:p@127.0.0.1:{}", server.port()));
        let context = async |server: &NatsMember| {
            let login = ConnectOptions::with_user_and_password("u".to_owned(), "p".to_owned());
            jetstream::new(login.connect(server.url()).await.unwrap())
        };
        let other = Config { name: "OTHER".to_owned(), subjects: vec!["other".to_owned()], ..Config::default() };

        let server = account("max_streams: 1");
        let made = context(&server).await;
        // JetStream is ready a moment after the server.
        while made.create_stream(other.clone()).await.is_err() {}
        fails(&options(&server), &["maximum number of streams", "ROLLCALL_STREAM"]).await;

        let server = account("max_bytes_required: true");
        fails(&options(&server), &["set ROLLCALL_STREAM_MAX_BYTES"]).await;
        let stream = StreamOptions { max_bytes: Some(1 << 20), ..StreamOptions::default() };
        start(&NatsOptions { stream, ..options(&server) }).await.unwrap();

        let server = account("max_consumers: 1");
        start(&options(&server)).await.unwrap();
        let stream = context(&server).await.get_stream("CLASSROOM").await.unwrap();
        let durable = pull::Config { durable_name: Some("taken".to_owned()), ..pull::Config::default() };
        stream.create_consumer(durable).await.unwrap();
        fails(&options(&server), &["maximum consumers", "raise the maximum of consumers"]).await;

        let stream = StreamOptions { replicas: 3, ..StreamOptions::default() };
        let server = account("max_streams: 1");
        fails(&NatsOptions { stream, ..options(&server) }, &["ROLLCALL_STREAM_REPLICAS"]).await;

        let server = account("max_file: 8KB");
        let bus = start(&options(&server)).await.unwrap();
        let (room, until, mut number) = (classroom(), Instant::now() + Duration::from_secs(30), 0);
        loop {
            number += 1;
            let stored = bus.publish(vec![note(&room, number.to_string(), number)]).await.remove(0);
            if stored.is_err_and(|error| error.to_string().contains("ROLLCALL_STREAM_MAX_BYTES")) {
                break;
            }
            assert!(Instant::now() < until, "the account is full");
        }
        let why = loop {
            match bus.probe().await {
                Err(ProbeError::Unable(why)) => break why,
                other => assert!(Instant::now() < until, "{other:?}"),
            }
        };
        assert!(why.contains("ROLLCALL_STREAM_MAX_BYTES"), "{why}");
    }
}
