//! Upgrade requests, and the responses to them.
use std::time::{Duration, Instant};

use rollcall_websocket::{ListenerOptions, SocketOptions};

use crate::{
    client::{Client, frame, text, upgrade},
    harness::{Seen, Server},
};

fn ask(server: &Server, request: &str) -> String {
    let mut client = Client::dial(server.address);
    client.send(request.as_bytes());
    client.head().to_ascii_lowercase()
}

#[track_caller]
fn refused(request: &str, status: &str) -> String {
    let server = Server::start();
    let head = ask(&server, request);
    assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
    assert_eq!(server.workers.connections(), 0);
    head
}

#[test]
fn an_upgrade_negotiates_nothing_that_it_offers() {
    let server = Server::start();
    let mut client = Client::dial(server.address);
    let offers =
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Protocol: chat\r\n";
    client.send(upgrade("/ws?lesson_id=algebra-1", offers).as_bytes());
    let head = client.head().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    assert!(!head.contains("sec-websocket-extensions") && !head.contains("sec-websocket-protocol"), "{head}");
    assert!(matches!(server.seen(), Seen::Opened(_, Some(query)) if query == "lesson_id=algebra-1"));
}

#[test]
fn a_frame_right_after_the_request_is_not_lost() {
    let server = Server::start();
    let mut client = Client::dial(server.address);
    client.send(&[upgrade("/ws", "").into_bytes(), text("eager")].concat());
    client.head();
    let Seen::Opened(id, None) = server.seen() else { panic!("opened comes first") };
    assert_eq!(server.seen(), Seen::Text(id, "eager".into()));
}

#[test]
fn a_foreign_or_null_origin_gets_403() {
    refused(&upgrade("/ws", "Origin: http://evil.example.org\r\n"), "403");
    refused(&upgrade("/ws", "Origin: null\r\n"), "403");
}

#[test]
fn the_hosts_own_origin_passes() {
    let server = Server::start();
    assert!(ask(&server, &upgrade("/ws", "Origin: http://localhost\r\n")).starts_with("http/1.1 101 "));
}

#[test]
fn a_post_gets_405() {
    refused(&upgrade("/ws", "").replace("GET", "POST"), "405");
}

#[test]
fn a_missing_or_short_key_gets_400() {
    refused(&upgrade("/ws", "").replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), "400");
    refused(&upgrade("/ws", "").replace("Sec-WebSocket-Key", "X-Key"), "400");
}

#[test]
fn no_upgrade_or_connection_gets_426() {
    refused(&upgrade("/ws", "").replace("Upgrade: websocket\r\n", ""), "426");
    refused(&upgrade("/ws", "").replace("Connection: Upgrade\r\n", ""), "426");
}

#[test]
fn version_12_gets_426_and_the_supported_version() {
    let head = refused(&upgrade("/ws", "").replace("Version: 13", "Version: 12"), "426");
    assert!(head.contains("sec-websocket-version: 13\r\n"), "{head}");
}

#[test]
fn over_100_headers_get_431() {
    refused(&upgrade("/ws", &"X: y\r\n".repeat(100)), "431");
}

#[test]
fn a_head_over_16_kib_gets_431_though_more_is_unread() {
    refused(&upgrade("/ws", &format!("X: {}\r\n", "y".repeat(100 << 10))), "431");
}

#[test]
fn a_head_that_comes_slowly_or_never_is_closed_in_time() {
    let listening = ListenerOptions { head_timeout: Duration::from_millis(300), ..ListenerOptions::default() };
    let server = Server::with(SocketOptions::default(), listening, None);
    let mut silent = Client::dial(server.address);
    let start = Instant::now();
    assert_eq!(silent.rest(), b"");
    assert!(start.elapsed() >= Duration::from_millis(250));
    let start = Instant::now();
    let mut slow = Client::dial(server.address);
    let head = upgrade("/ws", &"X: y\r\n".repeat(90));
    slow.send_slowly(head.bytes(), Duration::from_millis(10));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn other_paths_are_the_applications_own() {
    let server = Server::start();
    let mut client = Client::dial(server.address);
    for _ in 0..2 {
        client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(client.head().starts_with("HTTP/1.1 200 OK"));
        assert_eq!(client.take(14), b"other /healthz");
    }
}

#[test]
fn half_open_connections_are_bounded_and_one_more_evicts_the_oldest() {
    let listening =
        ListenerOptions { max_half_open: 2, head_timeout: Duration::from_secs(60), ..ListenerOptions::default() };
    let server = Server::with(SocketOptions::default(), listening, None);
    let dial = |part: &str| {
        let mut client = Client::dial(server.address);
        client.send(part.as_bytes());
        client
    };
    let head = upgrade("/ws", "");
    // The connections are accepted in this order.
    let (mut oldest, mut second, mut third) = (dial(""), dial(&head[..10]), dial(&head));
    assert!(third.head().starts_with("HTTP/1.1 101"));
    assert_eq!(oldest.rest(), b"");
    // An upgraded connection gives its slot back when its worker has the connection.
    third.send(&frame(0x89, b""));
    assert_eq!(third.frame(), (0x8a, Vec::new()));
    let mut fourth = dial(&head);
    assert!(fourth.head().starts_with("HTTP/1.1 101"));
    second.send(&head.as_bytes()[10..]);
    assert!(second.head().starts_with("HTTP/1.1 101"));
}
