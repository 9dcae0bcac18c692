//! Limits of the whole node: connected clients stay, and new clients are told to come later.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rollcall_loadtest::{Client, GatewayOptions};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::common::{Backend, SOON, until};
use crate::raw::{answer, ask, ask_from, upgrade};
use crate::{dropped, with};

#[tokio::test]
async fn so_many_connections_and_no_more() {
    let backend = with(&[("ROLLCALL_MAX_CONNECTIONS", "3")]);
    let (room, address) = (backend.classroom(), backend.gateway.address());
    let mut alice = backend.participant(room, "alice").await;
    let others = [ask(address, &[]).await, ask(address, &[]).await];
    assert_eq!(others.each_ref().map(|(_, answer)| answer.status), [101; 2]);
    ask(address, &[]).await.1.is_later(503);
    assert_eq!(dropped(&backend, "node_full"), 1.0);
    alice.joins(&room.algebra).await;
    drop(others);
    until("a place is free again", SOON, async || ask(address, &[]).await.1.status, |status| *status == 101).await;
}

#[tokio::test]
async fn so_many_wait_to_be_let_in() {
    let backend = with(&[("ROLLCALL_MAX_UNAUTHENTICATED", "2")]);
    let (room, address) = (backend.classroom(), backend.gateway.address());
    let mut client = Client::connect(address).await.unwrap();
    let _silent = ask(address, &[]).await;
    ask(address, &[]).await.1.is_later(503);
    assert_eq!(dropped(&backend, "unauthenticated_full"), 1.0);
    client.connect_request(&room.participant("alice"), &room.id, "web").await.unwrap();
    until("one is in", SOON, async || ask(address, &[]).await.1.status, |status| *status == 101).await;
}

#[tokio::test]
async fn so_many_upgrades_a_second() {
    let backend = with(&[("ROLLCALL_MAX_UPGRADES", "1")]);
    let address = backend.gateway.address();
    let one = || async { ask(address, &[]).await.1 };
    let many = futures_util::future::join_all((0..30).map(|_| one())).await;
    let late: Vec<_> = many.iter().filter(|answer| answer.status != 101).collect();
    assert!((1..30).contains(&late.len()), "{} of 30", late.len());
    late.iter().for_each(|answer| answer.is_later(503));
    assert_eq!(dropped(&backend, "too_fast"), late.len() as f64);
    until("the next second", SOON, async || ask(address, &[]).await.1.status, |status| *status == 101).await;
}

#[tokio::test]
async fn near_the_end_of_memory_new_ones_are_asked_to_come_later() {
    let backend = with(&[("ROLLCALL_MAX_MEMORY", "1MiB")]);
    ask(backend.gateway.address(), &[]).await.1.is_later(503);
    assert_eq!(dropped(&backend, "memory_full"), 1.0);
    // The node itself stays healthy.
    assert_eq!(backend.gateway.get("/healthz").unwrap().0, 200);
}

/// Returns a gateway with few open files, and room for 20 connections that have not upgraded.
fn with_few_files(settings: &[(&str, &str)]) -> Backend {
    let shell = GatewayOptions::new("/bin/sh").arg("-c").arg("ulimit -n 320; exec \"$0\" \"$@\"");
    let few = shell.arg(env!("CARGO_BIN_EXE_rollcall"));
    let few = settings.iter().fold(few, |few, (name, value)| few.env(name, value));
    Backend::embedded().another(|_| few)
}

#[tokio::test]
async fn half_heads_from_many_addresses_keep_no_client_out() {
    let backend = with_few_files(&[
        ("ROLLCALL_HEAD_TIMEOUT", "60s"),
        ("ROLLCALL_LIMIT_LOOPBACK", "true"),
        ("ROLLCALL_MAX_CONNECTIONS_PER_IP", "4"),
    ]);
    let (room, address) = (backend.classroom(), backend.gateway.address());
    let dribbles = async |from: u8| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 9, from], 0))).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        stream.write_all(&upgrade(address, &[]).as_bytes()[..40]).await.unwrap();
        stream
    };
    let mut half = Vec::new();
    for from in 1..=7 {
        for _ in 0..4 {
            half.push(dribbles(from).await);
        }
    }
    // The gateway waits a minute for each head, but closes the oldest connections earlier to make room.
    backend.participant(room, "alice").await.joins(&room.algebra).await;
    until("the oldest are ended", SOON, async || dropped(&backend, "half_open_full"), |ended| *ended >= 9.0).await;
    for mut ended in half.drain(..8) {
        assert!(matches!(ended.read(&mut [0]).await, Ok(0) | Err(_)));
    }
    // A client that now sends the rest of its head is upgraded.
    let mut last = half.pop().unwrap();
    last.write_all(&upgrade(address, &[]).as_bytes()[40..]).await.unwrap();
    assert_eq!(answer(&mut last).await.status, 101);
}

#[tokio::test]
async fn near_the_limit_of_files_old_ones_stay() {
    let backend = with_few_files(&[("ROLLCALL_MAX_UNAUTHENTICATED", "1000")]);
    let (room, address) = (backend.classroom(), backend.gateway.address());
    let mut alice = backend.participant(room, "alice").await;
    let mut open = Vec::new();
    let last = loop {
        let (stream, answer) = ask(address, &[]).await;
        if answer.status != 101 || open.len() > 400 {
            break answer;
        }
        open.push(stream);
    };
    last.is_later(503);
    assert!(open.len() > 100, "{}", open.len());
    alice.joins(&room.algebra).await;
    assert_eq!(backend.gateway.get("/readyz").unwrap().0, 200);
    assert_eq!(backend.rows("select 1").await, ["1"]);
    // The node is full of silent connections, and closes them for new clients.
    for name in ["bob", "carl", "dora"] {
        let client = until("it is let in", SOON, async || Client::connect(address).await, Result::is_ok).await;
        let success = client.unwrap().connect_request(&room.participant(name), &room.id, "web").await;
        assert!(success.is_ok(), "{success:?}");
    }
    assert!(dropped(&backend, "silent") >= 1.0);
    alice.joins(&room.biology).await;
}

#[tokio::test]
async fn silent_connections_from_two_addresses_keep_no_client_out() {
    let backend = with_few_files(&[]);
    let (room, address) = (backend.classroom(), backend.gateway.address());
    let mut held = Vec::new();
    for last in [2, 3] {
        let from = IpAddr::from([127, 0, 0, last]);
        loop {
            let (stream, answer) = ask_from(Some(from), address, &[]).await;
            if answer.status != 101 || held.len() > 300 {
                break;
            }
            held.push(stream);
        }
    }
    assert!((50..120).contains(&held.len()), "{}", held.len());
    // Students enter with as many connections as the node has left.
    let mut students = Vec::new();
    for number in 0..60 {
        let client = until("a student is let in", SOON, async || Client::connect(address).await, Result::is_ok).await;
        let mut client = client.unwrap();
        client.connect_request(&room.participant(&format!("student{number}")), &room.id, "web").await.unwrap();
        assert_eq!(client.join_lesson(&room.algebra).await.unwrap()["status"], "SUCCESS");
        students.push(client);
    }
    // The silent connections with the most queued bytes are told to reconnect. The first of them is closed first.
    let mut said = Vec::new();
    tokio::time::timeout(SOON, held[0].read_to_end(&mut said)).await.expect("it is closed").unwrap();
    assert!(String::from_utf8_lossy(&said).contains(r#""type":"too_many_requests""#), "{said:?}");
}

/// Returns a client that has entered and then reads nothing.
async fn stalled(backend: &Backend, name: &str, room: &crate::common::Classroom) -> Client {
    let mut client = backend.client().await;
    client.connect_request(&room.participant(name), &room.id, "web").await.unwrap();
    client
}

/// Reads until the end of the stream. Returns the number of bytes.
async fn drained(stream: &mut TcpStream) -> usize {
    let (mut all, mut scratch) = (0, vec![0; 64 << 10]);
    while let Ok(size @ 1..) = stream.read(&mut scratch).await {
        all += size;
    }
    all
}

#[tokio::test]
async fn the_bytes_that_wait_for_slow_readers_are_bounded_for_the_node() {
    // 8 MiB may be queued for each connection, but only 1 MiB for all of them together.
    let backend = with(&[
        ("ROLLCALL_MAX_QUEUE", "8MiB"),
        ("ROLLCALL_MAX_IN_FLIGHT", "1MiB"),
        ("ROLLCALL_SEND_BUFFER", "16KiB"),
        ("ROLLCALL_PING_INTERVAL", "60s"),
    ]);
    let room = backend.classroom();
    let mut slow = Vec::new();
    for name in ["ann", "ben", "cat"] {
        slow.push(stalled(&backend, name, room).await);
    }
    let mut reader = backend.participant(room, "reader").await;
    let body = json!({"text": "x".repeat(100 << 10)});
    let shed = || dropped(&backend, "in_flight");
    let mut published = 0;
    while shed() < 3.0 {
        assert!(published < 200, "{} were shed", shed());
        backend.publish(&room.subject("note"), &body);
        // Events that the other agents left may come in between. A client that reads loses nothing.
        while reader.client.next_event(SOON).await.unwrap().body != body {}
        published += 1;
    }
    for client in &mut slow {
        let ended = tokio::time::timeout(Duration::from_secs(15), drained(client.stream())).await;
        assert!(ended.is_ok(), "the connection ends");
    }
    let closed = backend.gateway.metric("rollcall_disconnects_total", &["reason=\"slow_consumer\""]).unwrap();
    assert_eq!(closed, 3.0);
}
