//! Tests of Engine.IO: the upgrade of a long-polling session to a WebSocket.
use std::time::Duration;

use rollcall_websocket::{Cause, SocketOptions};

use crate::{
    client::{Client, frame, text, upgrade},
    engine::{BAD, begin, finish, get, is, post, server, session, with},
    harness::{Seen, Server},
};

/// Opens a WebSocket for a session.
pub(crate) fn probe(server: &Server, sid: &str) -> Client {
    let mut client = Client::dial(server.address);
    client.send(upgrade(&format!("/engine/?EIO=4&transport=websocket&sid={sid}"), "").as_bytes());
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    client
}

#[test]
fn an_upgrade_loses_and_reorders_nothing() {
    let server = server();
    let (sid, id) = session(&server);
    let mut waiting = begin(&server, "GET", &format!("&sid={sid}"), "", "");
    let mut client = probe(&server, &sid);
    client.send(&text("2probe"));
    assert_eq!(client.frame(), (0x81, b"3probe".to_vec()));
    is(&finish(&mut waiting), 200, "6");
    // No request fetches these messages any more.
    server.with_socket(id, |socket| {
        socket.send_text(b"one");
        socket.send_binary(&[7]);
    });
    client.send(&[text("5"), text("4first"), text("4second")].concat());
    assert_eq!(client.frame(), (0x81, b"4one".to_vec()));
    assert_eq!(client.frame(), (0x82, vec![7]));
    assert_eq!([server.seen(), server.seen()], [Seen::Text(id, "first".into()), Seen::Text(id, "second".into())]);
    server.with_socket(id, |socket| socket.send_text(b"two"));
    assert_eq!(client.frame(), (0x81, b"4two".to_vec()));
    is(&get(&server, &sid), 400, BAD);
    is(&post(&server, &sid, "4a"), 400, BAD);
    drop(client);
    assert_eq!(server.seen(), Seen::Closed(id, Cause::Lost));
    server.emptied();
}

#[test]
fn a_websocket_that_does_not_take_over_leaves_its_session_as_it_is() {
    let server = server();
    let (sid, id) = session(&server);
    for messages in [vec![], vec![text("2probe")], vec![text("5")], vec![text("4a")], vec![vec![0xff]]] {
        let mut client = probe(&server, &sid);
        messages.iter().for_each(|message| client.send(message));
        drop(client);
    }
    server.with_socket(id, |socket| socket.send_text(b"still"));
    is(&get(&server, &sid), 200, "4still");
    is(&post(&server, &sid, "1"), 200, "ok");
    assert_eq!(server.seen(), Seen::Closed(id, Cause::ClosedByClient));
}

#[test]
fn a_renewed_socket_keeps_its_transport() {
    let server = server();
    let (sid, id) = session(&server);
    let renewed = server.with_socket(id, |socket| {
        let (old, ()) = socket.renew(());
        (old, socket.io.id())
    });
    assert_eq!(renewed.0, id);
    assert_ne!(renewed.1, id);
    is(&post(&server, &sid, "4a"), 200, "ok");
    assert_eq!(server.seen(), Seen::Text(renewed.1, "a".into()));
    let mut client = probe(&server, &sid);
    client.send(&text("2probe"));
    assert_eq!(client.frame(), (0x81, b"3probe".to_vec()));
    client.send(&[text("5"), text("4b")].concat());
    assert_eq!(server.seen(), Seen::Text(renewed.1, "b".into()));
    let again = server.with_socket(renewed.1, |socket| {
        socket.renew(());
        socket.io.id()
    });
    client.send(&text("4c"));
    assert_eq!(server.seen(), Seen::Text(again, "c".into()));
}

#[test]
fn of_a_storm_of_websockets_one_takes_over() {
    let server = server();
    let (sid, id) = session(&server);
    let mut first = probe(&server, &sid);
    first.send(&text("2probe"));
    assert_eq!(first.frame(), (0x81, b"3probe".to_vec()));
    let mut others: Vec<_> = (0..50).map(|_| probe(&server, &sid)).collect();
    others.iter_mut().for_each(|other| other.expect_close(1000));
    first.send(&[text("5"), text("4a")].concat());
    assert_eq!(server.seen(), Seen::Text(id, "a".into()));
    probe(&server, &sid).expect_close(1000);
    drop((first, others));
    assert_eq!(server.seen(), Seen::Closed(id, Cause::Lost));
    server.emptied();
}

#[test]
fn a_websocket_that_says_nothing_is_closed_in_time() {
    let tick = Duration::from_millis(10);
    let server = with(SocketOptions { engine_upgrade_timeout: 3 * tick, tick, ..SocketOptions::default() });
    let (sid, id) = session(&server);
    probe(&server, &sid).expect_close(1000);
    server.with_socket(id, |socket| socket.send_text(b"still"));
    is(&get(&server, &sid), 200, "4still");
}

#[test]
fn a_websocket_that_probes_is_answered_as_long_as_it_reads() {
    let server = server();
    let (sid, id) = session(&server);
    let mut client = probe(&server, &sid);
    client.send(&frame(0x89, b"there?"));
    assert_eq!(client.frame(), (0x8a, b"there?".to_vec()));
    client.flood(&text("2probe").repeat(1_000));
    while server.workers.connections() > 1 {
        std::thread::yield_now();
    }
    // The client is no longer asked to stop polling.
    let mut waiting = begin(&server, "GET", &format!("&sid={sid}"), "", "");
    server.with_socket(id, |socket| socket.send_text(b"still"));
    is(&finish(&mut waiting), 200, "4still");
}
