//! PostgreSQL behind TLS: what `rollcall check` and a start say, and the seed's flows.

use std::sync::LazyLock;

use crate::common::{Backend, Servers};
use crate::{seed_000_entered, seed_000_left, seed_003_participant, seed_003_teacher};
use rollcall_loadtest::GatewayOptions;
use rollcall_loadtest::servers::{Authority, Issued, Postgres, PostgresOptions, psql};

/// The server's rules: Rollcall's role needs TLS and a certificate, the test's own connection needs nothing.
const RULES: &str = "hostssl all rollcall all cert\n\
    hostssl all reader all cert\n\
    host all postgres all trust\n";

struct Private {
    authority: Authority,
    stranger: Authority,
    server: Postgres,
}

static PRIVATE: LazyLock<Private> = LazyLock::new(|| {
    let (authority, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
    let server = start(&authority, &authority.issue(&["localhost"]).unwrap());
    psql(&server.url(), "create role rollcall login createdb; create role reader login").unwrap();
    Private { authority, stranger, server }
});

fn start(authority: &Authority, certificate: &Issued) -> Postgres {
    Postgres::start_with(PostgresOptions::with_tls(authority, certificate, RULES).unwrap()).unwrap()
}

/// A fresh database of Rollcall's role, with its URL for the test and its URL for a role that comes by TLS.
struct Database<'a> {
    outside: String,
    name: String,
    private: &'a Private,
}

impl Database<'_> {
    fn new(private: &Private) -> Database<'_> {
        let outside = private.server.create_database().unwrap();
        let name = outside.rsplit_once('/').unwrap().1.to_owned();
        psql(&outside, &format!("alter database {name} owner to rollcall")).unwrap();
        Database { outside, name, private }
    }

    fn url(&self, role: &str, host: &str, trusted: &Authority, own: Option<&Issued>) -> String {
        let port = self.private.server.port();
        let ca = trusted.certificate();
        let own = own.map_or(String::new(), |own| {
            format!("&sslcert={}&sslkey={}", own.certificate.display(), own.key.display())
        });
        format!(
            "postgres://{role}@{host}:{port}/{}?hostaddr=127.0.0.1&sslmode=verify-full&sslrootcert={}{own}",
            self.name,
            ca.display()
        )
    }
}

fn options(url: &str) -> GatewayOptions {
    GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"))
        .env("DATABASE_URL", url)
        .env("ROLLCALL_LISTEN", "127.0.0.1:0")
        .env("ROLLCALL_ADMIN_LISTEN", "127.0.0.1:0")
}

/// Returns the line of `rollcall check` for the database.
fn check(url: &str) -> String {
    let output = options(url).command().arg("check").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().find(|line| line.contains(" database ")).unwrap_or_else(|| panic!("{said}")).to_owned()
}

/// Returns the output of a gateway that does not start.
fn refused_start(url: &str) -> String {
    let output = options(url).command().output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// Expects that the check and the start both fail with this advice in one line.
fn is_refused(url: &str, advice: &str) {
    let line = check(url);
    assert!(line.starts_with("FAIL") && line.contains(advice), "{advice}: {line}");
    let said = refused_start(url);
    assert!(said.contains(advice), "{advice}: {said}");
}

#[test]
fn a_check_says_how_the_database_is_reached_or_what_to_change() {
    let Private { authority, stranger, server } = &*PRIVATE;
    let database = Database::new(&PRIVATE);
    let own = authority.issue(&["rollcall"]).unwrap();
    let url = |host: &str, trusted: &Authority, own: Option<&Issued>| database.url("rollcall", host, trusted, own);
    let line = check(&url("localhost", authority, Some(&own)));
    assert!(line.contains(", TLS 1.3, certificate and name checked"), "{line}");
    let line = check(&format!("postgres://postgres@127.0.0.1:{}/{}?sslmode=disable", server.port(), database.name));
    assert!(line.contains(", without TLS"), "{line}");

    is_refused(&url("localhost", stranger, Some(&own)), "to the file of sslrootcert in DATABASE_URL");
    is_refused(&url("db.example", authority, Some(&own)), "its certificate is for localhost, not for db.example");
    is_refused(&url("localhost", authority, None), "give a certificate that the server's authority signed, by sslcert");
    is_refused(&url("localhost", authority, Some(&stranger.issue(&["rollcall"]).unwrap())), "add it on the server");
    let missing = Issued { certificate: "/nowhere/own.crt".into(), ..own };
    is_refused(&url("localhost", authority, Some(&missing)), "/nowhere/own.crt");

    let expired = start(authority, &authority.issue_expired(&["localhost"]).unwrap());
    let parameters = format!("sslmode=verify-ca&sslrootcert={}", authority.certificate().display());
    is_refused(
        &format!("postgres://postgres@127.0.0.1:{}/postgres?{parameters}", expired.port()),
        "renew it on the server",
    );
}

#[test]
fn a_right_that_is_missing_is_told_by_the_check_and_at_the_start() {
    let Private { authority, .. } = &*PRIVATE;
    let database = Database::new(&PRIVATE);
    let [owner, reader] = ["rollcall", "reader"].map(|role| {
        let own = authority.issue(&[role]).unwrap();
        database.url(role, "localhost", authority, Some(&own))
    });
    assert!(options(&owner).command().arg("migrate").output().unwrap().status.success());
    psql(&database.outside, "grant select on all tables in schema public to reader").unwrap();
    is_refused(&reader, "permission denied for table installation: grant the role what is missing");
    psql(&database.outside, "grant update on installation to reader").unwrap();
    is_refused(&reader, "the role reader lacks rights on node (insert, update, delete), agent_session (insert");
}

#[tokio::test]
async fn the_seeds_flows_go_over_tls() {
    let database = Database::new(&PRIVATE);
    let own = PRIVATE.authority.issue(&["rollcall"]).unwrap();
    let url = database.url("rollcall", "localhost", &PRIVATE.authority, Some(&own));
    let servers = Servers { postgres: database.outside.clone(), ..Servers::shared() };
    let backend = Backend::start(Some(servers), |options| options.clone().env("DATABASE_URL", url));
    seed_000_entered::the_diagram(&backend).await;
    seed_000_left::the_diagram(&backend).await;
    seed_003_teacher::the_diagram(&backend).await;
    seed_003_participant::the_diagram(&backend).await;
}
