//! A node behind nginx and behind Caddy, which end TLS, with the examples of runtime/deploy/proxies: sessions run
//! through them, the gateway learns each client's own address, and paths for operators are not reachable from outside.

use std::net::SocketAddr;

use rollcall_loadtest::servers::{TlsProxy, TlsProxyKind};
use rollcall_loadtest::{Gateway, GatewayOptions};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::common::SOON;
use crate::raw::upgrade;
use crate::tls::{Agent, certificate, encrypted};

/// Connects from this address of the loopback network and sends a request. Returns the connection and the first line of
/// the answer.
async fn asks(
    source: &str,
    proxy: SocketAddr,
    trusted: &CertificateDer<'static>,
    request: &str,
) -> (TlsStream<TcpStream>, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    let mut stream = encrypted(socket.connect(proxy).await.unwrap(), trusted).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(timeout(SOON, stream.read_u8()).await.expect("an answer in time").unwrap());
    }
    (stream, String::from_utf8(line).unwrap())
}

#[tokio::test]
async fn a_proxy_that_ends_tls_passes_sessions_on_and_says_who_the_client_is() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = certificate(folder.path());
    let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")).env("ROLLCALL_TRUSTED_PROXIES", "127.0.0.1");
    let options = options.env("ROLLCALL_LIMIT_LOOPBACK", "true").env("ROLLCALL_MAX_CONNECTIONS_PER_IP", "2");
    for kind in [TlsProxyKind::Nginx, TlsProxyKind::Caddy] {
        let gateway = Gateway::start(options.clone()).unwrap();
        let running = TlsProxy::start(kind, gateway.address(), folder.path()).unwrap();
        let proxy = running.address();
        let mut alice = Agent::enters_at(proxy, &trusted, "alice").await;
        let _bob = Agent::enters_at(proxy, &trusted, "bob").await;
        assert_eq!(alice.next().await["id"]["operation"], "entered", "a push comes through {kind:?}");
        assert_eq!(alice.asks("join_lesson").await["message"], "lesson not found");

        let ask = async |source, headers: &[(&str, &str)]| {
            let request = upgrade(proxy, headers).replace("Host: 127.0.0.1", "Host: localhost");
            asks(source, proxy, &trusted, &request).await
        };
        let (_third, line) = ask("127.0.0.1", &[]).await;
        assert!(line.starts_with("HTTP/1.1 429"), "both connections of that address are taken: {line}");
        let (_other, line) = ask("127.0.0.2", &[]).await;
        assert!(line.starts_with("HTTP/1.1 101"), "another address has its own: {line}");
        let (_forged, line) = ask("127.0.0.1", &[("X-Forwarded-For", "127.0.0.3")]).await;
        assert!(line.starts_with("HTTP/1.1 429"), "a client does not choose its address: {line}");

        for (path, status) in [("/healthz", 200), ("/metrics", 404), ("/api/v1/nodes", 404), ("/readyz", 404)] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let (_, line) = asks("127.0.0.1", proxy, &trusted, &request).await;
            assert!(line.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {line}");
        }
    }
}
