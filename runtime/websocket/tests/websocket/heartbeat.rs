//! Pings, and what happens to silent clients. A tick is 20 ms instead of a second.
use std::time::{Duration, Instant};

use rollcall_websocket::{Cause, SocketOptions};

use crate::{
    client::{Client, frame, text},
    harness::{DEADLINE, Seen, Server},
};

const TICK: Duration = Duration::from_millis(20);

fn quick() -> SocketOptions {
    SocketOptions { tick: TICK, ping_interval: 10 * TICK, pong_timeout: 5 * TICK, ..SocketOptions::default() }
}

#[test]
fn a_client_that_answers_is_pinged_again_and_again() {
    let server = Server::with_options(quick());
    let mut client = server.client();
    let start = Instant::now();
    for _ in 0..5 {
        assert_eq!(client.frame(), (0x89, vec![]));
        client.send(&frame(0x8a, b""));
    }
    // The first ping may come at any time within an interval, and the others follow one interval apart.
    assert!(start.elapsed() >= 4 * 9 * TICK, "{:?}", start.elapsed());
    client.send(&text("alive"));
    assert_eq!(server.seen(), Seen::Text(client.id(), "alive".into()));
}

#[test]
fn silence_after_a_ping_is_pong_timed_out() {
    let server = Server::with_options(quick());
    let mut client = server.client();
    // The time is measured from before the ping, because on a busy machine the ping may be read long after it was sent.
    let start = Instant::now();
    assert_eq!(client.frame(), (0x89, vec![]));
    assert_eq!(client.rest(), b"\x81\x0epong_timed_out\x88\x02\x0b\xc4");
    assert!(start.elapsed() >= 4 * TICK);
    assert_eq!(server.seen(), Seen::Closed(client.id(), Cause::PongTimedOut));
}

#[test]
fn any_frame_counts_as_an_answer() {
    let server = Server::with_options(quick());
    let mut client = server.client();
    for number in 0..3 {
        assert_eq!(client.frame(), (0x89, vec![]));
        client.send(&text("not a pong"));
        assert_eq!(server.seen(), Seen::Text(client.id(), "not a pong".into()), "{number}");
    }
}

#[test]
fn a_paused_socket_never_times_out() {
    let server = Server::with_options(quick());
    let mut client = server.client();
    let paused = client.id();
    assert_eq!(client.frame(), (0x89, vec![]));
    server.with_socket(paused, |socket| socket.pause());
    // Meanwhile another client is pinged and times out. The paused one stays.
    let mut other = server.client();
    assert_eq!(other.frame(), (0x89, vec![]));
    other.rest();
    assert_eq!(server.seen(), Seen::Closed(other.id(), Cause::PongTimedOut));
    client.send(&text("still here"));
    server.with_socket(paused, |socket| socket.resume());
    assert_eq!(server.seen(), Seen::Text(paused, "still here".into()));
}

#[test]
fn pings_of_clients_that_connected_at_once_are_spread() {
    // The times are so long that no ping is due before the last client has connected, and that no client times out
    // meanwhile.
    let server = Server::with_options(SocketOptions { ping_interval: 100 * TICK, pong_timeout: DEADLINE, ..quick() });
    let clients: Vec<_> = (0..20).map(|_| server.client()).collect();
    let wait = |mut client: Client| {
        client.frame();
        Instant::now()
    };
    let first: Vec<Instant> = std::thread::scope(|scope| {
        let waiting: Vec<_> = clients.into_iter().map(|client| scope.spawn(|| wait(client))).collect();
        waiting.into_iter().map(|waiting| waiting.join().expect("pinged")).collect()
    });
    let (earliest, latest) = (first.iter().min().expect("some"), first.iter().max().expect("some"));
    assert!(*latest - *earliest >= 5 * TICK);
}
