//! Servers with TLS, and the error if a handshake fails.
use rollcall_base::tls::ClientTls;
use rollcall_keys::RedisOptions;
use rollcall_loadtest::servers::Authority;

use crate::{
    bench::{connected, options, participant},
    kinds::{Tls, client_tls},
};

/// Returns the error of a connection that cannot be made.
async fn refusal(options: RedisOptions) -> String {
    let error = rollcall_keys::connect(options).await.err().expect("no connection").to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[tokio::test]
async fn what_is_wrong_with_certificates_is_told_in_one_line() {
    let tls = Tls::start();
    let of = |client: ClientTls| RedisOptions { tls: client, ..options(tls.url(), "") };
    let said = refusal(of(ClientTls::default())).await;
    assert!(said.contains("signed by no authority that is trusted here") && said.contains("CA_FILE"), "{said}");
    let other = Authority::new().unwrap();
    let said = refusal(of(client_tls(&other, Some(&tls.client)))).await;
    assert!(said.contains("add that authority's certificate to the CA file"), "{said}");
    let said = refusal(of(client_tls(&tls.authority, None))).await;
    assert!(said.contains("asks for a client certificate") && said.contains("ROLLCALL_REDIS_CERT"), "{said}");
    let stranger = other.issue(&["gateway.example"]).unwrap();
    let said = refusal(of(client_tls(&tls.authority, Some(&stranger)))).await;
    assert!(said.contains("does not trust the authority of this client's certificate"), "{said}");
    let by_name = format!("rediss://localhost:{}", tls.port);
    let said = refusal(RedisOptions { tls: tls.trusted(), ..options(by_name, "") }).await;
    assert!(said.contains("its certificate is for") && said.contains("not for localhost"), "{said}");
    let gone = ClientTls { ca_file: Some("/nowhere/ca.crt".into()), ..tls.trusted() };
    let said = refusal(of(gone)).await;
    assert!(said.contains("/nowhere/ca.crt"), "{said}");
}

#[tokio::test]
async fn tls_where_there_is_none_and_none_where_there_is_are_told() {
    let tls = Tls::start();
    let plain = format!("rediss://127.0.0.1:{}", tls.redis.port());
    let said = refusal(RedisOptions { tls: tls.trusted(), ..options(plain, "") }).await;
    assert!(said.contains("if it speaks no TLS, let REDIS_URL begin with redis"), "{said}");
    let said = refusal(options(format!("redis://127.0.0.1:{}", tls.port), "")).await;
    assert!(said.contains("if it speaks TLS, let REDIS_URL begin with rediss"), "{said}");
}

/// The next connection uses a certificate that replaced the earlier one.
#[tokio::test]
async fn a_certificate_that_was_renewed_is_used() {
    let mut tls = Tls::start();
    let kv = rollcall_keys::connect(RedisOptions { tls: tls.trusted(), ..options(tls.url(), "") }).await.unwrap();
    let renewed = tls.authority.issue(&["renewed.example"]).unwrap();
    let shown = async |redis: &rollcall_loadtest::servers::Redis| redis.tell("PING").unwrap();
    shown(&tls.redis).await;
    std::fs::copy(&renewed.key, &tls.client.key).unwrap();
    std::fs::copy(&renewed.certificate, &tls.client.certificate).unwrap();
    tls.redis.restart().unwrap();
    kv.join(&participant("algebra-1", "alice", 1), None).await.unwrap();
    // A certificate that does not fit its key leaves the last good pair in use.
    let other = tls.authority.issue(&["other.example"]).unwrap();
    std::fs::copy(&other.key, &tls.client.key).unwrap();
    tls.redis.restart().unwrap();
    kv.join(&participant("algebra-1", "bob", 2), None).await.unwrap();
    connected(tls.redis.url(), "").await.ping().await.unwrap();
}
