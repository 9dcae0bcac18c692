//! PROTOCOL 11 against hostile clients: what is refused on `/ws` is refused on Socket.IO, and everything that only
//! Socket.IO has is bounded: long-polling, attachments, upgrades, namespaces.

use std::net::SocketAddr;
use std::time::Duration;

use crate::common::{Backend, Packet, Polling, SOON, SocketIo, polling_request, until};
use crate::{metric, with};
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{interval, timeout};

const UNKNOWN: &str = r#"{"code":1,"message":"Session ID unknown"}"#;

fn dropped(backend: &Backend) -> f64 {
    metric(backend, "rollcall_dropped_total", "reason=\"unknown_sid\"")
}

fn connections(backend: &Backend) -> f64 {
    backend.gateway.metric("rollcall_connections", &[]).unwrap()
}

/// Waits until the node has `wanted` connections.
async fn has_connections(backend: &Backend, wanted: f64) {
    let count = async || connections(backend);
    until("the connections are gone", SOON, count, |count| *count == wanted).await;
}

/// Returns the head of a request.
fn head(method: &str, address: SocketAddr, query: &str, rest: &str) -> String {
    format!(
        "{method} /socket.io/?EIO=4&transport=polling{query} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{rest}\r\n"
    )
}

/// Sends bytes, and returns everything that comes until the connection ends.
async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let answer = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // The gateway does not read the rest of a request that it refuses. That may reset the connection.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    timeout(SOON, answer).await.expect("an answer in time")
}

#[tokio::test]
async fn a_sid_cannot_be_guessed_and_a_guess_does_no_harm() {
    let backend = with(&[]);
    let other = with(&[]);
    let room = backend.classroom();
    let address = backend.gateway.address();
    let mut alice = Polling::connect(address, &json!({"token": room.participant("alice")})).await;
    let stranger = Polling::connect(other.gateway.address(), &json!({"token": room.participant("eve")})).await;
    let (label, secret) = alice.sid.split_once('.').unwrap();
    let mut near = secret.to_owned().into_bytes();
    // The session's own number with another signature.
    near[20] = if near[20] == b'A' { b'B' } else { b'A' };
    let near = String::from_utf8(near).unwrap();
    let guesses = [
        stranger.sid.clone(),
        format!("{label}.{near}"),
        format!("{label}.{}", &secret[..secret.len() - 2]),
        format!("{label}."),
        "AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        "..%2f..%2f".to_owned(),
        "%00".to_owned(),
        "x".repeat(4_000),
    ];
    for guess in &guesses {
        for (method, body) in [("GET", ""), ("POST", "41")] {
            assert_eq!(polling_request(address, method, guess, body).await, (400, UNKNOWN.to_owned()), "{guess}");
        }
    }
    assert_eq!(dropped(&backend), 2.0 * guesses.len() as f64);
    alice.joins(&room.algebra).await;
}

#[tokio::test]
async fn thousands_of_polls_on_one_sid_end_it_and_leave_nothing() {
    let backend = with(&[]);
    let room = backend.classroom();
    let address = backend.gateway.address();
    let mut witness = SocketIo::connect(&backend, &json!({"token": room.participant("witness")})).await;
    witness.joins(&room.algebra).await;
    let alice = Polling::connect(address, &json!({"token": room.participant("alice")})).await;
    for _ in 0..10 {
        let polls = (0..200).map(|_| polling_request(address, "GET", &alice.sid, ""));
        for (status, body) in join_all(polls).await {
            assert!(status == 200 || status == 400, "{status} {body}");
        }
    }
    assert_eq!(polling_request(address, "POST", &alice.sid, "41").await, (400, UNKNOWN.to_owned()));
    has_connections(&backend, 1.0).await;
    witness.joins(&room.biology).await;
}

#[tokio::test]
async fn slow_and_huge_posts_cost_little_and_end_with_their_connection() {
    let backend = with(&[]);
    let room = backend.classroom();
    let address = backend.gateway.address();
    let auths: Vec<_> = (0..100).map(|n| json!({"token": room.participant(&format!("user-{n}"))})).collect();
    let sessions = join_all(auths.iter().map(|auth| Polling::connect(address, auth))).await;
    let before = crate::amplification::memory(&backend);
    let mut slow = Vec::new();
    for session in &sessions {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let sid = format!("&sid={}", session.sid);
        stream.write_all(head("POST", address, &sid, "Content-Length: 60000\r\n").as_bytes()).await.unwrap();
        stream.write_all(&[b'4'; 1_000]).await.unwrap();
        slow.push(stream);
    }
    // While the gateway reads one body, a second POST ends the session.
    let (status, body) = polling_request(address, "POST", &sessions[0].sid, "43[]").await;
    assert_eq!((status, body.as_str()), (400, r#"{"code":3,"message":"Bad request"}"#));
    let cost = crate::amplification::memory(&backend).saturating_sub(before);
    assert!(cost < 100 * (64 << 10), "{cost} bytes for 100 slow bodies");
    drop(slow);
    has_connections(&backend, 0.0).await;

    let mut alice = Polling::connect(address, &json!({"token": room.participant("alice")})).await;
    let sid = format!("&sid={}", alice.sid);
    for announced in ["Content-Length: 10000000000\r\n", "Content-Length: 65537\r\n", "Transfer-Encoding: chunked\r\n"]
    {
        let mut request = head("POST", address, &sid, announced).into_bytes();
        request.extend_from_slice(b"11170\r\n");
        request.extend_from_slice(&[b'4'; 70_000]);
        let answer = exchange(address, &request).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{announced}: {answer}");
        // The session goes on.
        until(
            "it may post again",
            SOON,
            async || polling_request(address, "POST", &alice.sid, "43[]").await,
            |a| a.0 == 200,
        )
        .await;
    }
    alice.joins(&room.algebra).await;
}

#[tokio::test]
async fn attachments_that_never_come_and_deep_data_are_harmless() {
    let backend = with(&[]);
    let room = backend.classroom();
    let auth = json!({"token": room.participant("alice")});
    let deep = |open: &str, close: &str, depth: usize| format!("{}{}", open.repeat(depth), close.repeat(depth));
    for packet in [
        r#"451-["x",{"_placeholder":true,"num":0}]"#.to_owned(),
        r#"4511-["x"]"#.to_owned(),
        r#"4599999999999999999999-["x"]"#.to_owned(),
        r#"451-["x",{"_placeholder":true,"num":1}]"#.to_owned(),
        r#"451-["x",{"_placeholder":true,"num":-1}]"#.to_owned(),
        format!(r#"451-["x",{}]"#, deep("[", "]", 10_000)),
        format!(r#"451-["x",{}]"#, deep(r#"{"_placeholder":"#, "}", 1_000)),
        format!("42{}", "[".repeat(60_000)),
    ] {
        let mut client = SocketIo::connect(&backend, &auth).await;
        client.send(&packet).await;
        // Only an attachment may follow a packet that announces one.
        client.send_late("43[]").await;
        assert_eq!(client.next().await, Packet::Closed(Some(1002)), "{}", &packet[..10]);
    }
    // The depth of an argument does not matter if it is not a payload.
    let mut client = SocketIo::connect(&backend, &auth).await;
    client.send(&format!(r#"421["join_lesson",{}]"#, deep("[", "]", 10_000))).await;
    let Packet::Ack(1, answers) = client.next().await else { panic!("no answer") };
    assert_eq!(answers[0]["message"], "invalid payload");
    client.joins(&room.algebra).await;
}

#[tokio::test]
async fn of_a_storm_of_upgrades_none_harms_the_session() {
    let backend = with(&[]);
    let room = backend.classroom();
    let address = backend.gateway.address();
    let mut alice = Polling::connect(address, &json!({"token": room.participant("alice")})).await;
    let query = format!("/socket.io/?EIO=4&transport=websocket&sid={}", alice.sid);
    let storm = (0..100).map(async |_| {
        let url = format!("ws://{address}{query}");
        let stream = TcpStream::connect(address).await.unwrap();
        tokio_tungstenite::client_async(url, stream).await
    });
    let sockets: Vec<_> = join_all(storm).await.into_iter().flatten().collect();
    alice.joins(&room.algebra).await;
    drop(sockets);
    has_connections(&backend, 1.0).await;
    alice.joins(&room.biology).await;
}

#[tokio::test]
async fn a_node_without_room_refuses_handshakes() {
    for (settings, status) in [
        (&[("ROLLCALL_MAX_CONNECTIONS", "4")][..], "503"),
        (&[("ROLLCALL_MAX_CONNECTIONS_PER_IP", "4"), ("ROLLCALL_LIMIT_LOOPBACK", "true")], "429"),
    ] {
        let backend = with(settings);
        let (room, address) = (backend.classroom(), backend.gateway.address());
        let mut clients = Vec::new();
        for name in ["a", "b", "c", "d"] {
            clients.push(SocketIo::connect(&backend, &json!({"token": room.participant(name)})).await);
        }
        let polling = head("GET", address, "", "");
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let websocket = polling.replace("polling", "websocket").replace("Connection: close\r\n", upgrade);
        for request in [polling, websocket] {
            let answer = exchange(address, request.as_bytes()).await.to_ascii_lowercase();
            assert!(answer.starts_with(&format!("http/1.1 {status} ")), "{answer}");
            assert!(answer.contains("\r\nretry-after: "), "{answer}");
        }
        clients[0].joins(&room.algebra).await;
    }
}

#[tokio::test]
async fn a_flood_of_connects_is_turned_away() {
    let backend = with(&[("ROLLCALL_EVENT_RATE", "10")]);
    let room = backend.classroom();
    for packet in ["40/nowhere,", r#"40/nowhere,{"token":"x"}"#] {
        let mut client = SocketIo::open(&backend, "").await.in_namespace("/nowhere");
        for _ in 0..200 {
            client.send_late(packet).await;
        }
        let end = until("it is closed", SOON, async || client.text().await, Result::is_err).await;
        assert_eq!(end, Err(Some(3013)), "{packet}");
    }
    SocketIo::connect(&backend, &json!({"token": room.participant("alice")})).await.joins(&room.algebra).await;
}

#[tokio::test]
async fn who_is_never_let_in_is_closed_however_often_it_tries() {
    let backend = with(&[]);
    let mut eve = SocketIo::open(&backend, "").await;
    let tries = async {
        let mut pace = interval(Duration::from_secs(1));
        loop {
            pace.tick().await;
            eve.send_late(r#"40{"token":"x"}"#).await;
            match eve.text().await {
                Ok(refusal) => assert!(refusal.starts_with("44"), "{refusal}"),
                Err(code) => return code,
            }
        }
    };
    assert_eq!(timeout(Duration::from_secs(60), tries).await.expect("it is closed"), Some(3502));
}

#[tokio::test]
async fn ids_and_pages_that_are_none_get_nothing() {
    let backend = with(&[]);
    let room = backend.classroom();
    let address = backend.gateway.address();
    let token = room.participant("alice");
    for (field, value) in [
        ("classroom_id", "*"),
        ("classroom_id", "' OR 1=1"),
        ("agent_label", "a.b"),
        ("agent_label", "\u{1b}[31m\r\n"),
        ("lesson_id", ">"),
        ("lesson_id", "../x"),
    ] {
        let mut auth = json!({"token": token});
        auth[field] = value.into();
        let mut client = SocketIo::open(&backend, "").await;
        client.send(&format!("40{auth}")).await;
        let Packet::Refused(error) = client.next().await else { panic!("let in with {auth}") };
        assert_eq!(error["message"], "serialization_failed", "{auth}");
    }
    let mut client = SocketIo::connect(&backend, &json!({"token": token})).await;
    for lesson in [json!("*"), json!("a\u{0}b"), json!(7), json!("x".repeat(65))] {
        let ack = client.emit("join_lesson", &[json!({"lesson_id": lesson})]).await;
        assert_eq!(ack["message"], "invalid payload", "{lesson}");
    }
    // A foreign page gets nothing, with any kind of request.
    let before = connections(&backend);
    let foreign = |method: &str, query: &str, rest: &str| {
        head(method, address, query, &format!("Origin: https://evil.example\r\n{rest}"))
    };
    for request in
        [foreign("GET", "", ""), foreign("POST", "&sid=x", "Content-Length: 0\r\n"), foreign("OPTIONS", "", "")]
    {
        let answer = exchange(address, request.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 403 ") && answer.ends_with(r#"{"code":4,"message":"Forbidden"}"#),
            "{answer}"
        );
    }
    assert_eq!(connections(&backend), before);
    let large = format!("&token={}", "x".repeat(20 << 10));
    assert!(exchange(address, head("GET", address, &large, "").as_bytes()).await.starts_with("HTTP/1.1 431 "));
}
