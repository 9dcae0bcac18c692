//! Proxies between clients and the gateway: only their headers and the PROXY protocol name a client's address.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::common::{Backend, SOON};
use crate::raw::{answer, ask, upgrade};
use crate::{metric, with};

/// Returns a gateway behind balancers on 127.0.0.1 that speak the PROXY protocol. Each client may have one connection.
fn behind_balancers() -> Backend {
    with(&[
        ("ROLLCALL_PROXY_PROTOCOL", "true"),
        ("ROLLCALL_TRUSTED_PROXIES", "127.0.0.1"),
        ("ROLLCALL_MAX_CONNECTIONS_PER_IP", "1"),
        ("ROLLCALL_HEAD_TIMEOUT", "500ms"),
    ])
}

/// Returns a connection from this address of the loopback network that begins with these bytes and then asks for an
/// upgrade.
async fn begins(source: &str, address: SocketAddr, header: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    stream.write_all(header).await.unwrap();
    // Writing fails if the gateway has closed the connection already.
    drop(stream.write_all(upgrade(address, &[]).as_bytes()).await);
    stream
}

async fn status(source: &str, backend: &Backend, header: &[u8]) -> (TcpStream, u16) {
    let mut stream = begins(source, backend.gateway.address(), header).await;
    let status = timeout(SOON, answer(&mut stream)).await.expect("an answer in time").status;
    (stream, status)
}

/// Expects that the connection ends without an answer.
async fn is_closed(mut stream: TcpStream) {
    let mut said = Vec::new();
    // A reset also ends the connection.
    drop(timeout(SOON, stream.read_to_end(&mut said)).await.expect("an end in time"));
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

fn v2(client: [u8; 4]) -> Vec<u8> {
    let [a, b, c, d] = client;
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f", &[a, b, c, d, 127, 0, 0, 1, 1, 1, 2, 2, 4, 0, 0][..]].concat()
}

#[tokio::test]
async fn a_balancers_first_bytes_name_the_client() {
    let backend = behind_balancers();
    let (_first, code) = status("127.0.0.1", &backend, b"PROXY TCP4 1.2.3.4 127.0.0.1 5000 80\r\n").await;
    assert_eq!(code, 101);
    let (_same, code) = status("127.0.0.1", &backend, &v2([1, 2, 3, 4])).await;
    assert_eq!(code, 429, "the limit of one client counts by that address");
    let (_other, code) = status("127.0.0.1", &backend, &v2([1, 2, 3, 5])).await;
    assert_eq!(code, 101);
    // A balancer's health checks count for no client.
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        assert_eq!(status("127.0.0.1", &backend, header).await.1, 101);
    }
}

#[tokio::test]
async fn without_the_header_or_from_another_address_a_connection_is_closed_and_counted() {
    let backend = behind_balancers();
    let address = backend.gateway.address();
    is_closed(begins("127.0.0.2", address, b"PROXY TCP4 1.2.3.4 127.0.0.1 5000 80\r\n").await).await;
    assert_eq!(metric(&backend, "rollcall_upgrades_total", "outcome=\"not_a_proxy\""), 1.0);
    for wrong in [&b""[..], b"PROXY TCP9 1.2.3.4 127.0.0.1 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"] {
        is_closed(begins("127.0.0.1", address, wrong).await).await;
    }
    // A client that sends nothing, and one that sends the beginning of a header and never its end.
    for start in [&b""[..], b"PROXY TCP4"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(start).await.unwrap();
        is_closed(stream).await;
    }
    assert_eq!(metric(&backend, "rollcall_upgrades_total", "outcome=\"proxy_protocol\""), 5.0);
}

#[tokio::test]
async fn rfc_7239_is_read_from_trusted_proxies() {
    let backend = with(&[
        ("ROLLCALL_TRUSTED_PROXIES", "127.0.0.0/8"),
        ("ROLLCALL_PROXY_HEADER", "Forwarded"),
        ("ROLLCALL_MAX_CONNECTIONS_PER_IP", "1"),
    ]);
    let address = backend.gateway.address();
    let by = async |forwarded: &str| ask(address, &[("Forwarded", forwarded)]).await;
    let (_first, answer) = by("for=6.6.6.6, for=\"[2001:db8::1]:99\";proto=https").await;
    assert_eq!(answer.status, 101);
    let (_same, answer) = by("for=\"[2001:db8::2]\"").await;
    assert_eq!(answer.status, 429, "one /64");
    let (_spoofed, answer) = by("for=1.1.1.1, for=\"[2001:db8::3]\"").await;
    assert_eq!(answer.status, 429, "only the nearest stranger counts");
    let (_other, answer) = by("for=6.6.6.6").await;
    assert_eq!(answer.status, 101);
}

#[tokio::test]
async fn apps_can_be_listed() {
    let backend = with(&[("ROLLCALL_ORIGINS", "capacitor://localhost, ionic://localhost, app://-")]);
    for (origin, code) in [
        ("capacitor://localhost", 101),
        ("ionic://localhost", 101),
        ("app://-", 101),
        ("tauri://localhost", 403),
        ("http://localhost", 403),
        ("capacitor://evil", 403),
    ] {
        assert_eq!(ask(backend.gateway.address(), &[("Origin", origin)]).await.1.status, code, "{origin}");
    }
}
