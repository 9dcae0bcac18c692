//! TLS for clients: whole sessions through it, a certificate that is replaced while they run, and bytes that are not
//! TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rollcall_loadtest::servers::{Authority, Issued};
use rollcall_loadtest::{Gateway, GatewayOptions, token};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::common::{SOON, until};
use crate::raw::upgrade;

const ROOM: &str = "5b0c9a52-6c1b-4d7c-8f7e-5a2b0f7a1c11";

/// Writes a new certificate for `localhost` and its key; returns the certificate.
pub(crate) fn certificate(folder: &Path) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), signing_key.serialize_pem()).unwrap();
    cert.der().clone()
}

fn options(folder: &Path) -> GatewayOptions {
    let path = |name| folder.join(name).display().to_string();
    GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"))
        .env("ROLLCALL_TLS_CERT", path("cert.pem"))
        .env("ROLLCALL_TLS_KEY", path("key.pem"))
}

/// Returns a TLS session with a server that has this certificate.
async fn session(gateway: &Gateway, trusted: &CertificateDer<'static>) -> std::io::Result<TlsStream<TcpStream>> {
    encrypted(TcpStream::connect(gateway.address()).await?, trusted).await
}

/// Returns a TLS session on this connection.
pub(crate) async fn encrypted(
    stream: TcpStream,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// A client that has entered through TLS.
pub(crate) struct Agent(WebSocketStream<TlsStream<TcpStream>>);

impl Agent {
    async fn enters(gateway: &Gateway, trusted: &CertificateDer<'static>, name: &str) -> Self {
        Self::enters_at(gateway.address(), trusted, name).await
    }

    /// Creates a client that enters at the address of a proxy.
    pub(crate) async fn enters_at(address: SocketAddr, trusted: &CertificateDer<'static>, name: &str) -> Self {
        let stream = encrypted(TcpStream::connect(address).await.unwrap(), trusted).await.unwrap();
        let url = format!("wss://localhost:{}/ws", address.port());
        let mut agent = Self(tokio_tungstenite::client_async(url, stream).await.unwrap().0);
        let payload = json!({"token": token::participant(name), "classroom_id": ROOM, "agent_label": "web"});
        agent.sends(&json!({"type": "connect_request", "payload": payload})).await;
        assert_eq!(agent.next().await["type"], "connect_success");
        agent
    }

    async fn sends(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// Returns the next message.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            match timeout(SOON, self.0.next()).await.expect("a message in time").unwrap().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("no text but {other:?}"),
            }
        }
    }

    /// Sends a request and returns its ack.
    pub(crate) async fn asks(&mut self, event: &str) -> Value {
        self.sends(&json!({"type": event, "ref": 1, "payload": {"lesson_id": "none"}})).await;
        loop {
            let message = self.next().await;
            if message["type"] == "ack" {
                return message;
            }
        }
    }
}

#[tokio::test]
async fn a_session_runs_through_tls() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = certificate(folder.path());
    let roomy = options(folder.path()).env("ROLLCALL_MAX_QUEUE", "16MiB").env("ROLLCALL_SEND_BUFFER", "16KiB");
    let gateway = Gateway::start(roomy).unwrap();
    let mut alice = Agent::enters(&gateway, &trusted, "alice").await;
    assert_eq!(alice.asks("join_lesson").await["message"], "lesson not found");
    // A large message takes many TLS records, in both directions.
    let padding = "x".repeat(60_000);
    alice.sends(&json!({"type": "nonsense", "ref": 2, "payload": {"padding": padding}})).await;
    assert_eq!(alice.next().await["message"], "unknown event");

    // More events come than the kernel buffers while bob does not read. Then bob reads all of them, in order.
    let mut bob = Agent::enters(&gateway, &trusted, "bob").await;
    alice.next().await;
    for number in 0..40 {
        let body = json!({"number": number, "padding": "y".repeat(100_000)});
        let event = json!({"subject": format!("classroom.{ROOM}.note"), "body": body});
        assert_eq!(gateway.post("/api/v1/publish", &event).unwrap().0, 202);
    }
    for agent in [&mut alice, &mut bob] {
        for number in 0..40 {
            let event = agent.next().await;
            assert_eq!((&event["number"], event["padding"].as_str().unwrap().len()), (&json!(number), 100_000));
        }
    }
    bob.0.close(None).await.unwrap();
    assert_eq!(alice.next().await["id"]["operation"], "left");
    while let Some(Ok(_)) = timeout(SOON, bob.0.next()).await.expect("the end in time") {}
}

#[tokio::test]
async fn bytes_that_are_not_tls_are_not_answered() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let gateway = Gateway::start(options(folder.path())).unwrap();
    let mut plain = TcpStream::connect(gateway.address()).await.unwrap();
    plain.write_all(upgrade(gateway.address(), &[]).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A reset also ends the connection.
    let _ = timeout(SOON, plain.read_to_end(&mut answer)).await.expect("the end in time");
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP"), "{answer:?}");
    // A client that sends nothing delays no other client.
    let mut silent = TcpStream::connect(gateway.address()).await.unwrap();
    let ended = timeout(Duration::from_secs(8), silent.read_u8()).await;
    assert!(ended.expect("closed within 5 s").is_err());
    assert!(gateway.metric("rollcall_upgrades_total", &["outcome=\"tls\""]).unwrap() >= 1.0);
}

#[tokio::test]
async fn a_new_certificate_counts_from_sighup_on() {
    let folder = tempfile::tempdir().unwrap();
    let first = certificate(folder.path());
    let gateway = Gateway::start(options(folder.path())).unwrap();
    let mut alice = Agent::enters(&gateway, &first, "alice").await;
    // A pair of files with one faulty file replaces nothing.
    std::fs::write(folder.path().join("cert.pem"), "no certificate").unwrap();
    gateway.hang_up().unwrap();
    until("a warning", SOON, async || gateway.output(), |said| said.contains("ROLLCALL_TLS_CERT: ")).await;
    assert!(session(&gateway, &first).await.is_ok());

    let second = certificate(folder.path());
    gateway.hang_up().unwrap();
    until("the second", SOON, async || session(&gateway, &second).await.is_ok(), |trusted| *trusted).await;
    assert!(session(&gateway, &first).await.is_err());
    assert_eq!(alice.asks("join_lesson").await["message"], "lesson not found", "her session goes on");
}

#[tokio::test]
async fn files_that_cannot_be_used_are_a_start_up_error() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let key = std::fs::read_to_string(folder.path().join("key.pem")).unwrap();
    let run = |options: GatewayOptions| {
        let output = options.command().current_dir(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, said) = run(options(folder.path()).without("ROLLCALL_TLS_KEY"));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("ROLLCALL_TLS_KEY"), "{said}");
    // The key belongs to another certificate.
    let other = tempfile::tempdir().unwrap();
    certificate(other.path());
    let mixed = options(folder.path()).env("ROLLCALL_TLS_KEY", other.path().join("key.pem").display());
    for options in [mixed, options(folder.path()).env("ROLLCALL_TLS_CERT", "/nowhere/cert.pem")] {
        let (code, said) =
            run(options.env("ROLLCALL_LISTEN", "127.0.0.1:0").env("ROLLCALL_ADMIN_LISTEN", "127.0.0.1:0"));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("ROLLCALL_TLS_CERT") && !said.contains(key.lines().nth(1).unwrap()), "{said}");
    }
}

#[test]
fn a_certificate_that_has_expired_is_told_by_the_check_and_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    let Issued { certificate, key } = authority.issue_expired(&["localhost"]).unwrap();
    let options = options(folder.path());
    std::fs::copy(certificate, folder.path().join("cert.pem")).unwrap();
    std::fs::copy(key, folder.path().join("key.pem")).unwrap();
    let check = options.clone().arg("check");
    let output = check.command().current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find(|line| line.starts_with("FAIL  certificate")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.ends_with("has expired, so clients refuse it: renew it") && !output.status.success(), "{said}");
    let gateway = Gateway::start(options).unwrap();
    assert!(gateway.output().contains("ROLLCALL_TLS_CERT: the certificate has expired"), "{}", gateway.output());
}
