//! How connections end. Afterwards nothing of them is left.
use std::{net::Shutdown, time::Duration};

use rollcall_websocket::{Cause, Close, SocketOptions};

use crate::{
    client::{frame, text},
    harness::{Seen, Server},
};

#[test]
fn a_clients_close_frame_is_echoed_with_its_code() {
    let server = Server::start();
    for (payload, echo) in
        [(&b"\x03\xe8"[..], &b"\x88\x02\x03\xe8"[..]), (b"\x0b\xb8because", b"\x88\x02\x0b\xb8"), (b"", b"\x88\x00")]
    {
        let mut client = server.client();
        client.send(&frame(0x88, payload));
        assert_eq!(client.rest(), echo);
        assert_eq!(server.seen(), Seen::Closed(client.id(), Cause::ClosedByClient));
    }
    server.emptied();
}

#[test]
fn what_comes_after_a_close_frame_is_not_delivered() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&[frame(0x88, b"\x03\xe8"), text("ghost")].concat());
    client.expect_close(1000);
    assert_eq!(server.seen(), Seen::Closed(client.id(), Cause::ClosedByClient));
    drop(client);
    server.emptied();
    server.client();
}

#[test]
fn the_applications_close_sends_its_last_message_and_its_code() {
    let server = Server::start();
    let mut client = server.client();
    server.with_socket(client.id(), |socket| {
        socket.close(Close { code: 3500, reason: "gone" }, Some(b"bye"));
        socket.send_text(b"too late");
        socket.close(3501, None);
    });
    assert_eq!(client.rest(), b"\x81\x03bye\x88\x06\x0d\xacgone");
    assert_eq!(server.seen(), Seen::Closed(client.id(), Cause::ClosedByServer));
}

#[test]
fn a_broken_socket_is_lost() {
    let server = Server::start();
    let client = server.client();
    let id = client.id();
    drop(client);
    assert_eq!(server.seen(), Seen::Closed(id, Cause::Lost));
    server.emptied();
}

#[test]
fn a_fin_without_a_close_frame_is_lost_after_the_last_message() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&[text("last"), frame(0x01, b"half")].concat());
    client.stream().shutdown(Shutdown::Write).expect("a half-close");
    assert_eq!(server.seen(), Seen::Text(client.id(), "last".into()));
    assert_eq!(server.seen(), Seen::Closed(client.id(), Cause::Lost));
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_client_that_never_answers_our_close_is_gone_after_the_timeout() {
    let options = SocketOptions {
        tick: Duration::from_millis(20),
        close_timeout: Duration::from_millis(100),
        ..SocketOptions::default()
    };
    let server = Server::with_options(options);
    let mut client = server.client();
    server.with_socket(client.id(), |socket| socket.close(3001, None));
    assert!(server.emptied() < Duration::from_secs(2));
    client.expect_close(3001);
}

#[test]
fn an_id_stays_invalid_when_its_slab_entry_is_reused() {
    let server = Server::start();
    let first = server.client();
    let old = first.id();
    drop(first);
    assert_eq!(server.seen(), Seen::Closed(old, Cause::Lost));
    let second = server.client();
    assert_ne!(second.id(), old);
    assert!(server.run(move |sockets| sockets.get_mut(old).is_none() && sockets.len() == 1));
}

#[test]
fn a_shutdown_sends_every_client_the_close_notice_and_ends() {
    let server = Server::start();
    let mut clients = [server.client(), server.client(), server.client()];
    server.shut_down_while(|| {
        for client in &mut clients {
            assert_eq!(client.rest(), b"\x81\x0aterminated\x88\x02\x0b\xb9");
            client.stream().shutdown(Shutdown::Both).expect("closed");
        }
    });
    assert_eq!(server.workers.connections(), 0);
    for _ in clients {
        assert!(matches!(server.seen(), Seen::Closed(_, Cause::ClosedByServer)));
    }
}
