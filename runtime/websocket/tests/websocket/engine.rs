//! Engine.IO: cases that its public test suite does not have, mostly about long-polling.
use std::time::Duration;

use rollcall_websocket::{Cause, ListenerOptions, Origins, SocketId, SocketOptions, Violation};

use crate::{
    client::Client,
    harness::{Seen, Server},
};

pub(crate) fn server() -> Server {
    with(SocketOptions::default())
}

pub(crate) fn with(options: SocketOptions) -> Server {
    let origins = Origins::Listed(vec!["https://page.example".into()]);
    let listening = ListenerOptions { engine_path: Some("/engine".into()), origins, ..ListenerOptions::default() };
    Server::with(options, listening, None)
}

/// Sends a request on a connection of its own, and returns the connection.
pub(crate) fn begin(server: &Server, method: &str, query: &str, headers: &str, body: &str) -> Client {
    let mut client = Client::dial(server.address);
    let length = body.len();
    let target = format!("/engine/?EIO=4&transport=polling{query}");
    let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{headers}\r\n");
    client.send(format!("{head}{body}").as_bytes());
    client
}

/// Returns the head and the body of a response.
pub(crate) fn finish(client: &mut Client) -> (String, String) {
    let head = client.head().to_ascii_lowercase();
    let (_, length) = head.split_once("content-length: ").unwrap_or(("", "0\r\n"));
    let length = length.split_once('\r').expect("a line").0.parse().expect("a number");
    let body = String::from_utf8(client.take(length)).expect("UTF-8");
    (head, body)
}

pub(crate) fn ask(server: &Server, method: &str, query: &str, headers: &str, body: &str) -> (String, String) {
    finish(&mut begin(server, method, query, headers, body))
}

pub(crate) fn get(server: &Server, sid: &str) -> (String, String) {
    ask(server, "GET", &format!("&sid={sid}"), "", "")
}

pub(crate) fn post(server: &Server, sid: &str, body: &str) -> (String, String) {
    ask(server, "POST", &format!("&sid={sid}"), "", body)
}

#[track_caller]
pub(crate) fn is(answer: &(String, String), status: u16, body: &str) {
    assert!(answer.0.starts_with(&format!("http/1.1 {status} ")), "{answer:?}");
    assert_eq!(answer.1, body, "{answer:?}");
}

pub(crate) const UNKNOWN: &str = r#"{"code":1,"message":"Session ID unknown"}"#;
pub(crate) const BAD: &str = r#"{"code":3,"message":"Bad request"}"#;

/// Begins a session by long-polling. Returns its sid and its socket.
pub(crate) fn session(server: &Server) -> (String, SocketId) {
    let (_, body) = ask(server, "GET", "", "", "");
    let (_, rest) = body.split_once(r#"0{"sid":""#).expect("the open packet");
    let Seen::Opened(id, _) = server.seen() else { panic!("opened comes first") };
    (rest.split_once('"').expect("a sid").0.to_owned(), id)
}

#[test]
fn what_is_sent_waits_for_the_next_get() {
    let server = server();
    let (sid, id) = session(&server);
    server.with_socket(id, |socket| {
        socket.send_text(b"one");
        socket.send_binary(&[1, 2, 3, 4]);
    });
    is(&get(&server, &sid), 200, "4one\x1ebAQIDBA==");
    let mut waiting = begin(&server, "GET", &format!("&sid={sid}"), "", "");
    is(&post(&server, &sid, "4a\x1e4b"), 200, "ok");
    assert_eq!([server.seen(), server.seen()], [Seen::Text(id, "a".into()), Seen::Text(id, "b".into())]);
    server.with_socket(id, |socket| socket.send_text(b"two"));
    is(&finish(&mut waiting), 200, "4two");
}

#[test]
fn a_close_can_be_fetched_and_then_the_session_is_unknown() {
    let server = server();
    let (sid, id) = session(&server);
    server.with_socket(id, |socket| socket.close(3001, Some(&b"terminated"[..])));
    assert_eq!(server.seen(), Seen::Closed(id, Cause::ClosedByServer));
    is(&get(&server, &sid), 200, "4terminated");
    is(&get(&server, &sid), 400, UNKNOWN);
    server.emptied();
}

#[test]
fn a_get_whose_client_goes_away_ends_the_session() {
    let server = server();
    let (sid, id) = session(&server);
    let waiting = begin(&server, "GET", &format!("&sid={sid}"), "", "");
    drop(waiting);
    assert_eq!(server.seen(), Seen::Closed(id, Cause::Lost));
    is(&get(&server, &sid), 400, UNKNOWN);
    server.emptied();
}

#[test]
fn a_paused_session_is_pinged_all_the_same() {
    let tick = Duration::from_millis(10);
    let server = with(SocketOptions { ping_interval: 2 * tick, tick, ..SocketOptions::default() });
    let (sid, id) = session(&server);
    server.with_socket(id, |socket| socket.pause());
    is(&get(&server, &sid), 200, "2");
}

#[test]
fn a_body_is_read_for_its_session_only_and_once_at_a_time() {
    let server = server();
    let (sid, id) = session(&server);
    let query = format!("&sid={sid}");
    is(&ask(&server, "POST", &query, "Content-Type: application/octet-stream\r\n", "4a"), 400, BAD);
    is(&post(&server, &sid, &format!("4{}", "x".repeat(65_536))), 413, "");
    is(&ask(&server, "POST", &format!("&sid=x{sid}x"), "", "4a"), 400, UNKNOWN);
    is(&ask(&server, "PUT", &query, "", ""), 400, BAD);
    // None of these requests has ended the session.
    is(&post(&server, &sid, "4a"), 200, "ok");
    assert_eq!(server.seen(), Seen::Text(id, "a".into()));
    let mut client = Client::dial(server.address);
    client.send(
        format!("POST /engine?EIO=4&transport=polling{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n4a")
            .as_bytes(),
    );
    // The gateway is reading the first body when it refuses another one.
    let refused = loop {
        let answer = post(&server, &sid, "4b");
        if answer.1 != "ok" {
            break answer;
        }
        assert_eq!(server.seen(), Seen::Text(id, "b".into()));
    };
    assert!(refused.0.starts_with("http/1.1 400 "), "{refused:?}");
    assert_eq!(server.seen(), Seen::Closed(id, Cause::Violation(Violation::Overlap)));
}

#[test]
fn a_post_that_breaks_off_ends_the_session() {
    let server = server();
    let (sid, id) = session(&server);
    let mut client = Client::dial(server.address);
    let target = format!("/engine?EIO=4&transport=polling&sid={sid}");
    client.send(format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n4a").as_bytes());
    drop(client);
    assert_eq!(server.seen(), Seen::Closed(id, Cause::Lost));
}

#[test]
fn many_gets_of_one_session_end_it_and_leave_nothing() {
    let server = server();
    let (sid, id) = session(&server);
    let mut waiting: Vec<_> = (0..200).map(|_| begin(&server, "GET", &format!("&sid={sid}"), "", "")).collect();
    let answers: Vec<_> = waiting.iter_mut().map(finish).collect();
    assert_eq!(answers.iter().filter(|(head, body)| head.starts_with("http/1.1 200 ") && body == "1").count(), 1);
    assert_eq!(answers.iter().filter(|(head, _)| head.starts_with("http/1.1 400 ")).count(), 199);
    assert_eq!(server.seen(), Seen::Closed(id, Cause::Violation(Violation::Overlap)));
    drop(waiting);
    server.emptied();
}

#[test]
fn a_body_that_takes_too_long_ends_its_session() {
    let http_timeout = Duration::from_millis(200);
    let listening = ListenerOptions { engine_path: Some("/engine".into()), http_timeout, ..ListenerOptions::default() };
    let server = Server::with(SocketOptions::default(), listening, None);
    let (sid, id) = session(&server);
    let mut client = Client::dial(server.address);
    let target = format!("/engine?EIO=4&transport=polling&sid={sid}");
    client.send(format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n4a").as_bytes());
    assert_eq!(server.seen(), Seen::Closed(id, Cause::Lost));
}

#[test]
fn a_client_that_fetches_nothing_is_bounded_and_closed() {
    let server = with(SocketOptions { max_outbound: 8 << 10, ..SocketOptions::default() });
    let (sid, id) = session(&server);
    server.with_socket(id, |socket| (0..100).for_each(|_| socket.send_text(&[b'x'; 1000])));
    assert_eq!(server.seen(), Seen::Closed(id, Cause::SlowConsumer));
    let (head, body) = get(&server, &sid);
    assert!(head.starts_with("http/1.1 200 ") && body.ends_with("\x1e4slow_consumer"), "{head}");
    is(&get(&server, &sid), 400, UNKNOWN);
    server.emptied();
}
