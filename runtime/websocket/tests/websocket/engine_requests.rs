//! Tests of Engine.IO: the requests that are refused, and the answers that pages may read.
use rollcall_websocket::{ListenerOptions, SocketOptions};

use crate::{
    client::{Client, upgrade},
    engine::{BAD, UNKNOWN, ask, begin, finish, is, post, server, session},
    harness::{Seen, Server},
};

#[test]
fn pages_that_are_let_in_may_read_answers() {
    let server = server();
    let origin = "Origin: https://page.example\r\n";
    let answer = ask(&server, "GET", "&sid=nobody", origin, "");
    is(&answer, 400, UNKNOWN);
    let preflight = ask(&server, "OPTIONS", "", &format!("{origin}Access-Control-Request-Headers: x-a\r\n"), "");
    is(&preflight, 204, "");
    assert!(preflight.0.contains("access-control-allow-headers: x-a\r\n"), "{}", preflight.0);
    for head in [answer.0, preflight.0] {
        assert!(head.contains("access-control-allow-origin: https://page.example\r\n"), "{head}");
        assert!(head.contains("access-control-allow-credentials: true\r\n"), "{head}");
        assert!(head.contains("vary: origin\r\n"), "{head}");
    }
    let refused = ask(&server, "GET", "", "Origin: https://other.example\r\n", "");
    is(&refused, 403, r#"{"code":4,"message":"Forbidden"}"#);
    assert!(!refused.0.contains("access-control-allow-origin"), "{}", refused.0);
    assert!(refused.0.contains("vary: origin\r\n"), "{}", refused.0);
}

#[test]
fn requests_are_refused_as_the_reference_does() {
    let server = server();
    let (sid, _) = session(&server);
    let refused = |method: &str, query: &str| {
        let mut client = Client::dial(server.address);
        let head = format!("{method} /engine/?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        client.send(head.as_bytes());
        let (head, body) = finish(&mut client);
        assert!(head.starts_with("http/1.1 400 "), "{query}: {head}");
        body
    };
    const TRANSPORT: &str = r#"{"code":0,"message":"Transport unknown"}"#;
    const METHOD: &str = r#"{"code":2,"message":"Bad handshake method"}"#;
    const VERSION: &str = r#"{"code":5,"message":"Unsupported protocol version"}"#;
    for (method, query, body) in [
        ("GET", "EIO=4&transport=webtransport".to_owned(), TRANSPORT),
        ("GET", "EIO=3&transport=polling".to_owned(), VERSION),
        ("GET", "EIO=3&transport=websocket".to_owned(), BAD),
        ("POST", "EIO=3&transport=polling&sid=".to_owned(), METHOD),
        ("GET", "EIO=3&transport=polling&sid=x".to_owned(), UNKNOWN),
        ("GET", "EIO=4&transport=websocket&sid=x".to_owned(), UNKNOWN),
        ("GET", format!("EIO=3&transport=polling&sid={sid}"), BAD),
        ("GET", format!("EIO=4&transport=websocket&sid={sid}"), BAD),
        ("GET", format!("EIO=4&transport=polling&sid=other{sid}"), UNKNOWN),
    ] {
        assert_eq!(refused(method, &query), body, "{method} {query}");
    }
    is(&ask(&server, "POST", &format!("&sid=x&sid={}", sid.replace('.', "%2e")), "", "4a"), 200, "ok");
}

#[test]
fn what_asks_for_another_upgrade_is_answered_as_it_is() {
    let server = server();
    let headers = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let (head, body) = ask(&server, "GET", "", headers, "");
    assert!(head.starts_with("http/1.1 200 ") && body.starts_with('0'), "{head}{body}");
}

#[test]
fn a_connection_is_kept_for_the_next_request_only_while_there_is_room() {
    let listening =
        ListenerOptions { engine_path: Some("/engine".into()), max_half_open: 16, ..ListenerOptions::default() };
    let server = Server::with(SocketOptions::default(), listening, None);
    let begins = || {
        let mut client = begin(&server, "GET", "", "", "");
        let (head, _) = finish(&mut client);
        (head.contains("connection: close\r\n"), client)
    };
    let kept: Vec<_> = (0..8).map(|_| begins()).collect();
    assert!(kept.iter().all(|(closes, _)| !closes));
    for _ in 0..4 {
        let (closes, mut client) = begins();
        assert!(closes);
        assert_eq!(client.rest(), b"");
    }
    let mut other = Client::dial(server.address);
    other.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(other.head().to_ascii_lowercase().contains("connection: close\r\n"));
    drop(other);
    let mut socket = Client::dial(server.address);
    socket.send(upgrade("/ws", "").as_bytes());
    assert!(!socket.head().contains("close"), "an upgraded connection goes on");
}

#[test]
fn the_first_subprotocol_is_accepted() {
    let server = server();
    let accepted = |query: &str, offered: &str| {
        let mut client = Client::dial(server.address);
        let offer = format!("Sec-WebSocket-Protocol: {offered}\r\n");
        client.send(upgrade(&format!("/engine/?EIO=4&transport=websocket{query}"), &offer).as_bytes());
        let head = client.head().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        let (_, rest) = head.split_once("sec-websocket-protocol: ")?;
        Some(rest.split_once('\r')?.0.to_owned())
    };
    assert_eq!(accepted("", "class-v1, class-v2").as_deref(), Some("class-v1"));
    assert_eq!(accepted("", "\"class\""), None);
    let (sid, _) = session(&server);
    assert_eq!(accepted(&format!("&sid={sid}"), "class-v1").as_deref(), Some("class-v1"));
}

#[test]
fn a_get_that_another_request_follows_is_answered() {
    let server = server();
    let (sid, id) = session(&server);
    let target = format!("/engine/?EIO=4&transport=polling&sid={sid}");
    let follower = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n4a");
    let mut client = Client::dial(server.address);
    client.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n{follower}").as_bytes());
    is(&finish(&mut client), 200, "6");
    let mut client = begin(&server, "GET", &format!("&sid={sid}"), "", "");
    client.send(follower.as_bytes());
    let answer = finish(&mut client);
    assert!(answer.0.contains("connection: close\r\n"), "{answer:?}");
    is(&answer, 200, "6");
    // The session goes on, and has received neither body.
    is(&post(&server, &sid, "4b"), 200, "ok");
    assert_eq!(server.seen(), Seen::Text(id, "b".into()));
}
