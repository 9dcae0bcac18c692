//! Limits of one client: of its address, its connections and its events.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use rollcall_loadtest::Client;
use rollcall_loadtest::client::ClientError;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::common::{Agent, Backend, SOON, refused, session_error, until};
use crate::raw::{ask, ask_from};
use crate::{dropped, with};

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let backend = with(&[("ROLLCALL_MAX_CONNECTIONS_PER_IP", "2"), ("ROLLCALL_LIMIT_LOOPBACK", "true")]);
    let address = backend.gateway.address();
    let from = |last: u8| ask_from(Some(IpAddr::V4(Ipv4Addr::new(127, 0, 7, last))), address, &[]);
    let (first, second) = (from(1).await, from(1).await);
    assert_eq!((first.1.status, second.1.status), (101, 101));
    from(1).await.1.is_later(429);
    assert_eq!(from(2).await.1.status, 101, "another address");
    assert_eq!(dropped(&backend, "client_full"), 1.0);
    drop(first);
    until("a place is free again", SOON, async || from(1).await.1.status, |status| *status == 101).await;
}

#[tokio::test]
async fn an_addresss_silent_connections_make_way_for_its_next() {
    let backend = with(&[("ROLLCALL_MAX_CONNECTIONS_PER_IP", "2"), ("ROLLCALL_LIMIT_LOOPBACK", "true")]);
    let (room, address) = (backend.classroom(), backend.gateway.address());
    let mut alice = backend.participant(room, "alice").await;
    let (mut silent, answer) = ask(address, &[]).await;
    assert_eq!(answer.status, 101);
    let bob = until(
        "the silent connection is closed for another",
        SOON,
        async || Client::connect(address).await,
        Result::is_ok,
    )
    .await;
    bob.unwrap().connect_request(&room.participant("bob"), &room.id, "web").await.unwrap();
    let mut said = Vec::new();
    tokio::time::timeout(SOON, silent.read_to_end(&mut said)).await.expect("it is closed").unwrap();
    assert!(String::from_utf8_lossy(&said).contains(r#""type":"too_many_requests""#), "{said:?}");
    alice.joins(&room.algebra).await;
}

#[tokio::test]
async fn loopback_is_not_limited_unless_it_is_said() {
    let backend = with(&[("ROLLCALL_MAX_CONNECTIONS_PER_IP", "1")]);
    let address = backend.gateway.address();
    let streams = [ask(address, &[]).await, ask(address, &[]).await, ask(address, &[]).await];
    assert!(streams.iter().all(|(_, answer)| answer.status == 101));
}

#[tokio::test]
async fn behind_a_trusted_proxy_its_header_names_the_address() {
    let backend = with(&[("ROLLCALL_MAX_CONNECTIONS_PER_IP", "1"), ("ROLLCALL_TRUSTED_PROXIES", "127.0.0.1")]);
    let address = backend.gateway.address();
    let named = async |header: &str| ask(address, &[("X-Forwarded-For", header)]).await;
    let (first, other) = (named("203.0.113.7").await, named("203.0.113.8").await);
    assert_eq!((first.1.status, other.1.status), (101, 101));
    named("198.51.100.1, 203.0.113.7").await.1.is_later(429);
    // All addresses of a /64 count as one.
    let six = named("2001:db8:1:2::1").await;
    assert_eq!(six.1.status, 101);
    named("2001:db8:1:2:ffff::9").await.1.is_later(429);
    assert_eq!(named("2001:db8:1:3::1").await.1.status, 101);
    // A client that is not a trusted proxy counts by its own address, whatever its headers say.
    let invented = [("X-Forwarded-For", "203.0.113.7")];
    let stranger = ask_from(Some(IpAddr::V4(Ipv4Addr::new(127, 0, 7, 9))), address, &invented).await;
    assert_eq!(stranger.1.status, 101);
}

/// Sends `count` requests at once, and returns their acks in order. Events of other agents may come between the acks.
async fn burst(agent: &mut Agent, count: usize) -> Vec<Value> {
    for reference in 0..count {
        agent.client.send(&json!({"type": "nonsense", "ref": reference})).await.unwrap();
    }
    let mut acks = Vec::new();
    for reference in 0..count {
        let ack = loop {
            let message = agent.client.next_message(SOON).await.unwrap();
            if message["type"] == "ack" {
                break message;
            }
        };
        assert_eq!(ack["ref"], reference, "{ack}");
        acks.push(ack);
    }
    acks
}

fn is_refusal(ack: &Value) -> bool {
    ack["message"] == "too many requests"
}

#[tokio::test]
async fn too_many_events_are_answered_with_when_to_come_again() {
    let backend = with(&[("ROLLCALL_EVENT_RATE", "5")]);
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let acks = burst(&mut alice, 100).await;
    let (refusals, done): (Vec<_>, Vec<_>) = acks.iter().partition(|ack| is_refusal(ack));
    assert!(done.len() >= 20 && done.iter().all(|ack| ack["message"] == "unknown event"), "{}", done.len());
    assert!(!refusals.is_empty());
    let hint = |ack: &Value| ack["retry_after_ms"].as_u64().unwrap();
    assert!(refusals.iter().all(|ack| ack["status"] == "ERROR" && (1..=1_000).contains(&hint(ack))), "{refusals:?}");
    let counted = dropped(&backend, "too_many_requests");
    assert!(counted >= refusals.len() as f64, "{counted}");
    // After that time alice's next event is handled on the same connection. The events of a classmate are handled all
    // the time.
    alice.client.expect_silence(Duration::from_millis(hint(refusals[refusals.len() - 1]) + 50)).await.unwrap();
    alice.joins(&room.algebra).await;
    backend.participant(room, "bob").await.joins(&room.algebra).await;
}

#[tokio::test]
async fn a_user_has_one_limit_over_all_its_connections() {
    let backend = with(&[("ROLLCALL_EVENT_RATE", "1000"), ("ROLLCALL_USER_EVENT_RATE", "5")]);
    let room = backend.classroom();
    let token = room.participant("alice");
    let (mut web, mut app) = (backend.enters(room, &token).await, backend.enters_as(room, &token, "app").await);
    web.sees("entered", &app.whom()).await;
    assert!(burst(&mut web, 100).await.iter().any(is_refusal));
    assert!(burst(&mut app, 10).await.iter().any(is_refusal), "the other one's are counted too");
    let mut bob = backend.participant(room, "bob").await;
    assert!(!burst(&mut bob, 10).await.iter().any(is_refusal));
}

/// Expects that a client with this connect_request is refused with too_many_requests.
async fn is_turned_away(backend: &Backend, request: Value) {
    let closing = refused(backend, &json!({"type": "connect_request", "payload": request}).to_string()).await;
    session_error(&closing, "too_many_requests", 429, 3013);
}

#[tokio::test]
async fn a_user_connects_only_so_often_under_whatever_label() {
    let backend = with(&[("ROLLCALL_USER_CONNECT_RATE", "1")]);
    let room = backend.classroom();
    let token = room.participant("alice");
    for number in 0..4 {
        drop(backend.enters_as(room, &token, &format!("label{number}")).await);
    }
    is_turned_away(&backend, room.connect_request(&token, "label4")).await;
    backend.participant(room, "bob").await.joins(&room.algebra).await;
    // One second later one connect is allowed again.
    let again = async || {
        let mut client = backend.client().await;
        client.connect_request(&token, &room.id, "label5").await
    };
    until("its next turn", SOON, again, Result::is_ok).await.unwrap();
}

#[tokio::test]
async fn a_user_has_only_so_many_sessions() {
    let backend = with(&[("ROLLCALL_USER_SESSIONS", "3"), ("ROLLCALL_USER_CONNECT_RATE", "1000")]);
    let room = backend.classroom();
    let token = room.participant("alice");
    let labels: Vec<_> = (0..30).map(|number| format!("label{number}")).collect();
    let enters = labels.iter().map(async |label| {
        let mut client = backend.client().await;
        let success = client.connect_request(&token, &room.id, label).await;
        success.ok().map(|success| Agent::of(client, &success))
    });
    // All agents enter at once. The gateway writes no two batches of one user at the same time.
    let entered = futures_util::future::join_all(enters).await;
    let mut agents: Vec<_> = entered.into_iter().flatten().collect();
    assert_eq!(agents.len(), 3);
    is_turned_away(&backend, room.connect_request(&token, "one-more")).await;
    // An agent of them may enter again, and when an agent leaves, another may enter.
    let label = agents[0].id.split('.').next().unwrap().to_owned();
    assert_eq!(backend.enters_as(room, &token, &label).await.session, agents[0].session);
    agents.pop().unwrap().leaves().await;
    let again = async || {
        let mut client = backend.client().await;
        client.connect_request(&token, &room.id, "one-more").await
    };
    until("a place is free", SOON, again, Result::is_ok).await.unwrap();
}

#[tokio::test]
async fn the_guests_of_an_address_have_one_limit() {
    let settings = [("ROLLCALL_GUESTS", "true"), ("ROLLCALL_GUEST_RATE", "1"), ("ROLLCALL_LIMIT_LOOPBACK", "true")];
    let backend = with(&settings);
    let room = backend.classroom();
    let request = json!({"classroom_id": room.id, "agent_label": "web"});
    let mut guests = Vec::new();
    for _ in 0..2 {
        let mut client = backend.client().await;
        client.connect_request_with(request.clone()).await.unwrap();
        guests.push(client);
    }
    let mut over = 0;
    for guest in &mut guests {
        for _ in 0..4 {
            let ack = guest.request("nonsense", json!({})).await.unwrap();
            over += usize::from(is_refusal(&ack));
        }
    }
    // Two connects and two events are allowed at once, and a slow run allows a few more.
    assert!((4..=6).contains(&over), "{over} of 8");
    is_turned_away(&backend, request).await;
    // A client with a token is not a guest.
    backend.participant(room, "alice").await.joins(&room.algebra).await;
}

#[tokio::test]
async fn only_a_client_that_goes_on_for_seconds_is_closed() {
    let backend = with(&[("ROLLCALL_EVENT_RATE", "5"), ("ROLLCALL_ABUSE_AFTER", "2s")]);
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    let started = Instant::now();
    let closing = loop {
        assert!(started.elapsed() < SOON + SOON);
        // The gateway may close the connection between two events.
        if alice.client.send(&json!({"type": "nonsense", "ref": 1})).await.is_err() {
            break alice.client.expect_close(SOON).await.unwrap();
        }
        match alice.client.next_message(SOON).await {
            Ok(answer) if answer["type"] == "ack" => {}
            Ok(error) => {
                let closing = alice.client.expect_close(SOON).await.unwrap();
                break rollcall_loadtest::client::Closing { error: Some(error), ..closing };
            }
            Err(ClientError::Closed(closing)) => break closing,
            Err(other) => panic!("{other}"),
        }
    };
    session_error(&closing, "too_many_requests", 429, 3013);
    // The gateway counts seconds of the clock, so the first one may be short.
    assert!(started.elapsed() > Duration::from_secs(1), "after {:?}", started.elapsed());
    let counted = backend.gateway.metric("rollcall_disconnects_total", &["reason=\"too_many_requests\""]).unwrap();
    assert_eq!(counted, 1.0);
}
