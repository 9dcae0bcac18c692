//! PROTOCOL 9, the roster over HTTP on the clients' address.

use std::net::SocketAddr;

use crate::common::{Backend, Classroom, on_both_kinds};
use rollcall_loadtest::{GatewayOptions, token};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

on_both_kinds!(
    a_client_reads_the_roster_with_its_token,
    without_a_valid_token_nothing_is_told,
    pages_of_listed_origins_may_read,
    a_user_asks_only_so_often,
);

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn agents(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let further: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{further}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn path(room: &Classroom, query: &str) -> String {
    format!("/api/v1/classrooms/{}/agents{query}", room.id)
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn a_client_reads_the_roster_with_its_token(backend: &Backend) {
    let (room, address) = (backend.classroom(), backend.gateway.address());
    let mut alice = backend.participant(room, "alice").await;
    let bob = backend.participant(room, "bob").await;
    alice.client.request("set_state", json!({"state": {"hand": true}})).await.unwrap();
    let token = room.participant("reader");
    let by_header = ask(address, "GET", &path(room, ""), &[("Authorization", &bearer(&token))]).await;
    let agents = by_header.agents();
    let expected = json!({
        "id": bob.session, "sequence_id": bob.session, "session_id": bob.session, "agent_id": bob.id,
        "role": "participant", "lesson_id": null, "seat": null, "state_n": 0,
    });
    assert_eq!((agents.len(), &agents[1]), (2, &expected));
    assert_eq!(agents[0]["state"], json!({"hand": true}));
    assert_eq!(by_header.header("cache-control"), Some("no-store"));
    let by_query = ask(address, "GET", &path(room, &format!("?limit=1&access_token={token}")), &[]).await;
    assert_eq!(by_query.agents(), agents[..1]);
    let after = format!("?sequence_id={}", alice.session);
    let rest = ask(address, "GET", &path(room, &after), &[("Authorization", &bearer(&token))]).await;
    assert_eq!(rest.agents(), agents[1..]);
    // The admin address returns the same list.
    let (_, body) = backend.gateway.get(&path(room, "")).unwrap();
    assert_eq!(body, by_header.body);
}

async fn without_a_valid_token_nothing_is_told(backend: &Backend) {
    let (room, other, address) = (backend.classroom(), backend.classroom(), backend.gateway.address());
    backend.participant(room, "alice").await;
    let elsewhere = room.token_with("alice", &json!({"classroom_ids": [other.id]}));
    let expired = room.token_with("alice", &json!({"exp": 1_000_000_000}));
    let forged = token::hs256("another secret, of a length that HS256 takes", &token::claims("alice", "participant"));
    for (token, status, detail) in [
        (None, 401, "token missing"),
        (Some("nonsense"), 401, "token malformed"),
        (Some(&expired), 401, "token expired"),
        (Some(&forged), 401, "the token is not valid"),
        (Some(&elsewhere), 403, "the token does not admit this classroom"),
    ] {
        let token = token.map(bearer);
        let headers: Vec<_> = token.iter().map(|token| ("Authorization", token.as_str())).collect();
        let answer = ask(address, "GET", &path(room, ""), &headers).await;
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, &body["detail"]), (status, &json!(detail)));
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
    }
    let token = bearer(&room.participant("reader"));
    let headers = [("Authorization", token.as_str())];
    for (method, path, status) in [
        ("POST", path(room, ""), 405),
        ("OPTIONS", path(room, ""), 405),
        ("GET", path(room, "?limit=many"), 400),
        ("GET", "/api/v1/classrooms/x/agents".to_owned(), 400),
        ("GET", "/api/v1/counters/agent".to_owned(), 404),
    ] {
        assert_eq!(ask(address, method, &path, &headers).await.status, status, "{method} {path}");
    }
}

async fn pages_of_listed_origins_may_read(backend: &Backend) {
    let own =
        backend.another(|options: &GatewayOptions| options.clone().env("ROLLCALL_ORIGINS", "https://school.example"));
    let (room, address) = (own.classroom(), own.gateway.address());
    let token = bearer(&room.participant("reader"));
    let asked = [("Access-Control-Request-Method", "GET"), ("Access-Control-Request-Headers", "authorization")];
    let from = |origin: &'static str| [("Origin", origin), asked[0], asked[1]];
    let preflight = ask(address, "OPTIONS", &path(room, ""), &from("https://school.example")).await;
    assert_eq!(preflight.status, 204);
    for (name, value) in [
        ("access-control-allow-origin", "https://school.example"),
        ("access-control-allow-methods", "GET"),
        ("access-control-allow-headers", "authorization"),
        ("vary", "Origin"),
    ] {
        assert_eq!(preflight.header(name), Some(value));
    }
    for (headers, status) in [
        (vec![("Origin", "https://school.example"), ("Authorization", token.as_str())], 200),
        // The page may read the error, too.
        (vec![("Origin", "https://school.example")], 401),
    ] {
        let answer = ask(address, "GET", &path(room, ""), &headers).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://school.example"));
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    for headers in [vec![("Origin", "https://evil.example"), ("Authorization", token.as_str())], from("null").to_vec()]
    {
        for method in ["GET", "OPTIONS"] {
            let answer = ask(address, method, &path(room, ""), &headers).await;
            assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, None));
        }
    }
}

async fn a_user_asks_only_so_often(backend: &Backend) {
    let own = backend.another(|options: &GatewayOptions| options.clone().env("ROLLCALL_USER_EVENT_RATE", "2"));
    let (room, address) = (own.classroom(), own.gateway.address());
    let [busy, other] = ["busy", "other"].map(|name| bearer(&room.participant(name)));
    let mut refused = 0;
    for _ in 0..30 {
        let answer = ask(address, "GET", &path(room, ""), &[("Authorization", &busy)]).await;
        if answer.status == 429 {
            assert_eq!(answer.header("retry-after"), Some("1"));
            refused += 1;
        }
    }
    assert!(refused > 0, "thirty at once are too many");
    assert_eq!(ask(address, "GET", &path(room, ""), &[("Authorization", &other)]).await.status, 200);
}
