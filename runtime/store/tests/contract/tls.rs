//! TLS to PostgreSQL with libpq's parameters. The server requires TLS, and its authority is private.
use std::{fs, sync::Arc, sync::LazyLock, time::Instant};

use rollcall_base::RotatingSecret;
use rollcall_loadtest::servers::{self, Authority, Issued, Postgres, Standby, StandbyOptions, psql};
use rollcall_store::{
    Store,
    postgres::{ConnectError, PostgresOptions, PostgresStore},
};

use crate::{
    hosts::serves_again,
    world::{LEASE, register},
};

/// The server's rules: every role must use TLS.
const RULES: &str = "hostssl all certified all cert\n\
    hostssl all app all scram-sha-256\n\
    hostssl all postgres all trust\n\
    hostssl replication postgres all trust\n";

/// A server for `localhost`, its authority, and an authority that it does not trust.
struct Private {
    authority: Authority,
    stranger: Authority,
    server: Postgres,
}

static PRIVATE: LazyLock<Private> = LazyLock::new(|| {
    let (authority, stranger) = (Authority::new().expect("made"), Authority::new().expect("made"));
    let certificate = authority.issue(&["localhost"]).expect("issued");
    let server = start(&authority, &certificate);
    psql(&server.url(), "create role certified login; create role app login password 'right'").expect("created");
    Private { authority, stranger, server }
});

fn start(authority: &Authority, certificate: &Issued) -> Postgres {
    Postgres::start_with(servers::PostgresOptions::with_tls(authority, certificate, RULES).expect("written"))
        .expect("a server")
}

/// Returns the URL of a role at a host on loopback.
fn url(user: &str, host: &str, port: u16, parameters: &str) -> String {
    format!("postgres://{user}@{host}:{port}/postgres?hostaddr=127.0.0.1&{parameters}")
}

fn store(url: &str) -> PostgresStore {
    PostgresStore::connect(&PostgresOptions::new(url)).expect("a URL with good files")
}

/// Returns how a connection is protected, or why none could be made.
async fn reach(url: &str) -> Result<String, ConnectError> {
    let store = store(url);
    store.reach().await.map(|()| store.protection().expect("there was a connection"))
}

/// Returns the advice in the error of a connection.
async fn advice(url: &str) -> String {
    let error = reach(url).await.expect_err("refused");
    let advice = error.advice.clone().unwrap_or_else(|| panic!("no advice for {}", error.why));
    assert!(!advice.contains('\n') && !error.why.contains("password="), "{error:?}");
    advice
}

#[tokio::test]
async fn each_mode_protects_as_libpq_has_it() {
    let Private { authority, server, .. } = &*PRIVATE;
    let ca = format!("sslrootcert={}", authority.certificate().display());
    let cases = [
        ("localhost", String::new(), "TLS 1.3, certificate not checked (sslmode=prefer)"),
        ("localhost", "sslmode=allow".to_owned(), "TLS 1.3, certificate not checked (sslmode=allow)"),
        ("localhost", "sslmode=require".to_owned(), "TLS 1.3, certificate not checked (sslmode=require)"),
        (
            "localhost",
            format!("sslmode=require&{ca}"),
            "TLS 1.3, certificate checked without its name (sslmode=require)",
        ),
        // The certificate does not have this name.
        (
            "db.example",
            format!("sslmode=verify-ca&{ca}"),
            "TLS 1.3, certificate checked without its name (sslmode=verify-ca)",
        ),
        ("localhost", format!("sslmode=verify-full&{ca}"), "TLS 1.3, certificate and name checked"),
    ];
    for (host, parameters, protection) in cases {
        let reached = reach(&url("postgres", host, server.port(), &parameters)).await;
        assert_eq!(reached.as_deref().ok(), Some(protection), "{parameters}: {reached:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told_with_what_to_change() {
    let Private { authority, stranger, server } = &*PRIVATE;
    let verify = |authority: &Authority, host| {
        let parameters = format!("sslmode=verify-full&sslrootcert={}", authority.certificate().display());
        url("postgres", host, server.port(), &parameters)
    };
    let name = advice(&verify(authority, "db.example")).await;
    assert!(name.starts_with("its certificate is for localhost, not for db.example"), "{name}");
    assert!(advice(&verify(stranger, "localhost")).await.contains("to the file of sslrootcert"));
    assert!(advice(&url("postgres", "localhost", server.port(), "sslrootcert=system")).await.contains("sslrootcert"));
    assert!(advice(&url("postgres", "localhost", server.port(), "sslmode=disable")).await.contains("sslmode=require"));

    let expired = start(authority, &authority.issue_expired(&["localhost"]).expect("issued"));
    let parameters = format!("sslmode=verify-ca&sslrootcert={}", authority.certificate().display());
    let told = advice(&url("postgres", "localhost", expired.port(), &parameters)).await;
    assert!(told.starts_with("its certificate expired ") && told.ends_with("renew it on the server"), "{told}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_required() {
    let plain = crate::world::start_server().expect("a server");
    let told = advice(&url("postgres", "localhost", plain.port(), "sslmode=require")).await;
    assert!(told.contains("ssl = on"), "{told}");
    let reached = reach(&url("postgres", "localhost", plain.port(), "")).await;
    assert_eq!(reached.expect("prefer goes without"), "without TLS");
}

#[tokio::test]
async fn a_client_is_let_in_by_its_certificate() {
    let Private { authority, stranger, server } = &*PRIVATE;
    let with = |issued: &Issued| {
        let parameters =
            format!("sslmode=require&sslcert={}&sslkey={}", issued.certificate.display(), issued.key.display());
        url("certified", "localhost", server.port(), &parameters)
    };
    let issue = |authority: &Authority, name| authority.issue(&[name]).expect("issued");
    reach(&with(&issue(authority, "certified"))).await.expect("let in");
    let wrong = advice(&with(&issue(authority, "somebody"))).await;
    assert!(wrong.contains("common name is the role's"), "{wrong}");
    let none = advice(&url("certified", "localhost", server.port(), "sslmode=require")).await;
    assert!(none.contains("sslcert and sslkey"), "{none}");
    let untrusted = advice(&with(&issue(stranger, "certified"))).await;
    assert!(untrusted.contains("does not trust the authority of this client's certificate"), "{untrusted}");
}

#[tokio::test]
async fn a_password_is_bound_to_the_server_s_certificate() {
    let Private { server, .. } = &*PRIVATE;
    let with = |password, parameters| url(&format!("app:{password}"), "localhost", server.port(), parameters);
    reach(&with("right", "channel_binding=require")).await.expect("bound");
    let wrong = advice(&with("wrong", "sslmode=require")).await;
    assert!(wrong.starts_with("correct the password"), "{wrong}");
    let none = advice(&url("app", "localhost", server.port(), "sslmode=require")).await;
    assert!(none.starts_with("give the password"), "{none}");
    let plain = url("postgres", "localhost", server.port(), "sslmode=require&channel_binding=require");
    assert!(advice(&plain).await.contains("channel_binding"), "trusted without a password: nothing is bound");
}

#[tokio::test]
async fn a_password_in_a_file_is_read_for_each_connection() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    let password = |text: &str| {
        fs::write(&file, text).expect("written");
        RotatingSecret::in_file(text.trim(), "ROLLCALL_DATABASE_PASSWORD", file.clone(), |_| Ok(()))
    };
    let url = url("app:another", "localhost", PRIVATE.server.port(), "sslmode=require");
    let options = PostgresOptions { password: Some(password("right\n")), ..PostgresOptions::new(url) };
    let store = PostgresStore::connect(&options).expect("a URL");
    store.reach().await.expect("it wins over the URL's");
    password("wrong");
    store.reach().await.expect_err("replaced");
    password("right");
    store.reach().await.expect("replaced again");
}

#[tokio::test]
async fn files_that_are_replaced_count_from_the_next_connection_on() {
    let Private { authority, stranger, server } = &*PRIVATE;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.crt");
    let becomes = |authority: &Authority| {
        let next = folder.path().join("next");
        fs::copy(authority.certificate(), &next).expect("written");
        fs::rename(next, &file).expect("renamed");
    };
    becomes(authority);
    let parameters = format!("sslmode=verify-full&sslrootcert={}", file.display());
    let store = store(&url("postgres", "localhost", server.port(), &parameters));
    store.reach().await.expect("trusted");
    becomes(stranger);
    store.reach().await.expect_err("not trusted any more");
    fs::write(&file, "half").expect("written");
    store.reach().await.expect_err("the last good one stays in use");
    becomes(authority);
    store.reach().await.expect("trusted again");

    let none = format!("sslmode=verify-full&sslrootcert={}", folder.path().join("none.crt").display());
    let refused = PostgresStore::connect(&PostgresOptions::new(url("postgres", "localhost", 1, &none)));
    assert!(refused.err().expect("no such file").to_string().contains("none.crt"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failover_the_new_primary_is_found_over_tls() {
    let authority = Authority::new().expect("made");
    let certificate = authority.issue(&["localhost"]).expect("issued");
    let options = || servers::PostgresOptions::with_tls(&authority, &certificate, RULES).expect("written");
    let primary = Postgres::start_with(options()).expect("a server");
    let standby =
        Standby::start_with(StandbyOptions { primary: primary.port(), server: options() }).expect("a standby");
    let ports = [primary.port(), standby.port()];
    let url = format!(
        "postgres://postgres@localhost:{},localhost:{}/postgres?hostaddr=127.0.0.1,127.0.0.1\
         &sslmode=verify-full&sslrootcert={}",
        ports[0],
        ports[1],
        authority.certificate().display()
    );
    let store: Arc<dyn Store> = Arc::new(PostgresStore::connect(&PostgresOptions::new(url)).expect("a URL"));
    store.migrate().await.expect("migrated");
    let lease = register(&*store, LEASE).await;
    standby.catch_up(&primary.url()).expect("caught up");

    // The connections stay open, and nothing answers.
    primary.pause().expect("paused");
    standby.promote().expect("promoted");
    serves_again(&*store, Instant::now()).await;
    store.renew_lease(lease, LEASE).await.expect("the new primary has the lease");
    assert_eq!(store.protection().expect("connected"), "TLS 1.3, certificate and name checked");
    primary.resume().expect("resumed");
}
