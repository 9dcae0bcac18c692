//! Clients that do not read, that flood, or that the application pauses.
use std::time::{Duration, Instant};

use bytes::Bytes;
use rollcall_websocket::{Cause, Framing, ListenerOptions, SocketOptions};

use crate::{
    client::{Client, frame, text},
    harness::{Seen, Server},
};

const LIMIT: usize = 256 << 10;

/// Options with ticks and timeouts that are short enough for a test.
fn quick() -> SocketOptions {
    SocketOptions {
        tick: Duration::from_millis(20),
        pong_timeout: Duration::from_millis(200),
        close_timeout: Duration::from_millis(200),
        flush_timeout: Duration::from_secs(1),
        ..SocketOptions::default()
    }
}

/// Sends until the queue is full. Returns the highest number of queued bytes.
fn fill(server: &Server, client: &Client) -> usize {
    let id = client.id();
    server.run(move |sockets| {
        let mut frames = Vec::new();
        Framing::WebSocket.encode_text(&[b'x'; 1000], &mut frames);
        let frames = Bytes::from(frames);
        let mut max_queued = 0;
        while let Some(mut socket) = sockets.get_mut(id) {
            socket.send_frames(&frames);
            max_queued = max_queued.max(socket.queued());
        }
        max_queued
    })
}

#[test]
fn a_client_that_stops_reading_is_a_slow_consumer_and_is_told_so_if_it_reads_again() {
    let server = Server::with_options(quick());
    let mut client = server.client();
    let max_queued = fill(&server, &client);
    assert!((LIMIT - 4096..=LIMIT).contains(&max_queued), "{max_queued}");
    assert_eq!(server.seen(), Seen::Closed(client.id(), Cause::SlowConsumer));
    loop {
        match client.frame() {
            (0x81, payload) if payload.len() == 1000 => {}
            last => {
                assert_eq!(last, (0x81, b"slow_consumer".to_vec()));
                break;
            }
        }
    }
    client.expect_close(3008);
}

#[test]
fn a_client_that_never_reads_again_is_gone_within_ten_seconds() {
    // The default options, for which the protocol makes this promise.
    let server = Server::start();
    let client = server.client();
    fill(&server, &client);
    assert_eq!(server.seen(), Seen::Closed(client.id(), Cause::SlowConsumer));
    assert!(server.emptied() < Duration::from_secs(10));
}

#[test]
fn a_reader_gets_everything_in_order_however_much_waits() {
    let server = Server::with_options(quick());
    let mut client = server.client();
    let id = client.id();
    let sent = server.run(move |sockets| {
        let mut socket = sockets.get_mut(id).expect("open");
        let mut number = 0u32;
        while socket.queued() < LIMIT / 2 {
            socket.send_text(format!("{number:0500}").as_bytes());
            let mut frames = Vec::new();
            Framing::WebSocket.encode_text(format!("{:0500}", number + 1).as_bytes(), &mut frames);
            Framing::WebSocket.encode_text(format!("{:0500}", number + 2).as_bytes(), &mut frames);
            socket.send_frames(&Bytes::from(frames));
            number += 3;
        }
        number
    });
    for number in 0..sent {
        assert_eq!(client.frame(), (0x81, format!("{number:0500}").into_bytes()));
    }
    assert_eq!(server.with_socket(id, |socket| socket.queued()), 0);
}

#[test]
fn one_send_into_an_empty_queue_may_have_any_size() {
    let server = Server::with_options(quick());
    let mut client = server.client();
    server.with_socket(client.id(), |socket| socket.send_text(&vec![b'y'; 4 << 20]));
    assert_eq!(client.frame(), (0x81, vec![b'y'; 4 << 20]));
}

#[test]
fn all_of_a_few_pings_are_answered_in_order() {
    let server = Server::start();
    let mut client = server.client();
    let pings: Vec<Vec<u8>> = (0..10u8).map(|number| frame(0x89, &[number; 100])).collect();
    client.send(&pings.concat());
    for number in 0..10 {
        assert_eq!(client.frame(), (0x8a, vec![number; 100]));
    }
}

#[test]
fn a_ping_flood_that_reads_nothing_queues_little_and_is_closed() {
    let server = Server::with_options(quick());
    let mut client = server.client();
    let start = Instant::now();
    let pings = frame(0x89, &[b'p'; 125]).repeat(100);
    client.flood(&pings);
    assert_eq!(server.seen(), Seen::Closed(client.id(), Cause::SlowConsumer));
    server.emptied();
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_flood_does_not_delay_other_clients() {
    let server = Server::start();
    let mut flooder = server.client();
    let mut other = server.client();
    let flood = text("f").repeat(20_000);
    std::thread::scope(|scope| {
        scope.spawn(|| flooder.send(&flood));
        other.send(&text("me too"));
        let mut before = 0;
        while server.seen() != Seen::Text(other.id(), "me too".into()) {
            before += 1;
        }
        assert!(before < 20_000, "the other waited for all of the flood");
    });
}

#[test]
fn a_pause_holds_messages_back_and_resume_delivers_them_in_order() {
    let server = Server::with(quick(), ListenerOptions::default(), Some("stop"));
    let mut client = server.client();
    let id = client.id();
    client.send(&[text("one"), frame(0x89, b"before"), text("stop"), frame(0x89, b"after"), text("two")].concat());
    assert_eq!(server.seen(), Seen::Text(id, "one".into()));
    assert_eq!(server.seen(), Seen::Text(id, "stop".into()));
    assert_eq!(client.frame(), (0x8a, b"before".to_vec()));
    client.send(&text("three"));
    server.with_socket(id, |socket| socket.send_text(b"nothing but this"));
    assert_eq!(client.frame(), (0x81, b"nothing but this".to_vec()));
    server.with_socket(id, |socket| socket.resume());
    assert_eq!(server.seen(), Seen::Text(id, "two".into()));
    assert_eq!(client.frame(), (0x8a, b"after".to_vec()));
    assert_eq!(server.seen(), Seen::Text(id, "three".into()));
}

#[test]
fn a_paused_socket_can_be_closed_and_its_input_is_discarded() {
    let server = Server::with(quick(), ListenerOptions::default(), Some("stop"));
    let mut client = server.client();
    client.send(&[text("stop"), text("ignored").repeat(1000)].concat());
    assert_eq!(server.seen(), Seen::Text(client.id(), "stop".into()));
    server.with_socket(client.id(), |socket| socket.close(3013, None));
    client.expect_close(3013);
    assert_eq!(server.seen(), Seen::Closed(client.id(), Cause::ClosedByServer));
}
