//! Violations of RFC 6455 or a limit: the client gets the exact close frame, and then the server's FIN.
use std::time::{Duration, Instant};

use rollcall_websocket::{Cause, SocketOptions, Violation};

use crate::{
    client::{Client, frame, text},
    harness::{Seen, Server},
};

/// Sends `bytes`, and expects the violation's close frame within a second, then the FIN and the `closed` call.
#[track_caller]
fn violates(bytes: &[u8], violation: Violation, code: u16) {
    let server = Server::start();
    violates_on(&server, &mut server.client(), bytes, violation, code);
}

#[track_caller]
fn violates_on(server: &Server, client: &mut Client, bytes: &[u8], violation: Violation, code: u16) {
    let start = Instant::now();
    client.send(bytes);
    client.expect_close(code);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(violation.code(), code);
    assert_eq!(server.seen(), Seen::Closed(client.id(), Cause::Violation(violation)));
}

#[test]
fn an_unmasked_frame_closes_1002() {
    for opcode in [0x81, 0x01, 0x82, 0x88, 0x89, 0x8a] {
        violates(&[opcode, 2, b'h', b'i'], Violation::Unmasked, 1002);
    }
}

#[test]
fn a_reserved_bit_closes_1002() {
    for bit in [0x40, 0x20, 0x10] {
        violates(&frame(0x81 | bit, b"hi"), Violation::ReservedBit, 1002);
    }
}

#[test]
fn a_reserved_opcode_closes_1002() {
    for opcode in [0x83, 0x87, 0x8b, 0x8f] {
        violates(&frame(opcode, b""), Violation::ReservedOpcode, 1002);
    }
}

#[test]
fn a_long_control_frame_closes_1002() {
    for opcode in [0x88, 0x89, 0x8a] {
        violates(&frame(opcode, &[b'a'; 126]), Violation::LongControl, 1002);
    }
}

#[test]
fn a_fragmented_control_frame_closes_1002() {
    for opcode in [0x08, 0x09, 0x0a] {
        violates(&frame(opcode, b"hi"), Violation::FragmentedControl, 1002);
    }
}

#[test]
fn a_first_fragment_inside_a_message_closes_1002() {
    violates(&[frame(0x01, b"a"), frame(0x01, b"b")].concat(), Violation::NestedMessage, 1002);
    violates(&[frame(0x01, b"a"), text("b")].concat(), Violation::NestedMessage, 1002);
}

#[test]
fn a_continuation_of_nothing_closes_1002() {
    violates(&frame(0x80, b"a"), Violation::StrayContinuation, 1002);
    violates(&frame(0x00, b"a"), Violation::StrayContinuation, 1002);
}

#[test]
fn a_length_in_more_bytes_than_it_needs_closes_1002() {
    violates(b"\x81\xfe\x00\x02\0\0\0\0hi", Violation::LongLength, 1002);
    violates(b"\x81\xff\0\0\0\0\0\0\x00\x02\0\0\0\0hi", Violation::LongLength, 1002);
}

#[test]
fn a_faulty_close_frame_closes_1002_or_1007() {
    violates(&frame(0x88, b"\x03"), Violation::ShortClose, 1002);
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
        violates(&frame(0x88, &code.to_be_bytes()), Violation::CloseCode, 1002);
    }
    violates(&frame(0x88, b"\x03\xe8\xff"), Violation::Utf8, 1007);
}

#[test]
fn a_binary_message_closes_1003() {
    violates(&frame(0x82, b"hi"), Violation::Binary, 1003);
    violates(&frame(0x02, b"hi"), Violation::Binary, 1003);
}

#[test]
fn binary_messages_are_taken_where_they_are_allowed() {
    let server = Server::with_options(SocketOptions { binary: true, ..SocketOptions::default() });
    let mut client = server.client();
    client.send(&frame(0x82, b"\xff\x00"));
    assert_eq!(server.seen(), Seen::Binary(client.id(), b"\xff\x00".into()));
}

#[test]
fn broken_utf8_closes_1007() {
    for broken in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok\x80"] {
        violates(&frame(0x81, broken), Violation::Utf8, 1007);
    }
}

#[test]
fn utf8_cut_off_at_the_end_closes_1007() {
    violates(&frame(0x81, b"\xe2\x82"), Violation::Utf8, 1007);
    violates(&[frame(0x01, b"a\xe2"), frame(0x80, b"\x82")].concat(), Violation::Utf8, 1007);
}

#[test]
fn broken_utf8_closes_1007_before_the_message_is_whole() {
    violates(&frame(0x01, b"\xff"), Violation::Utf8, 1007);
    violates(&frame(0x81, b"abc\xff and more")[..10], Violation::Utf8, 1007);
}

#[test]
fn an_announced_length_over_the_limit_closes_1009() {
    violates(b"\x81\xff\0\0\0\0\0\x01\0\x01", Violation::TooBig, 1009);
    violates(b"\x81\xff\0\0\0\0\0\x01\0\x01\0\0\0\0", Violation::TooBig, 1009);
    violates(b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", Violation::TooBig, 1009);
    violates(b"\x81\xff\x80\0\0\0\0\0\0\0\0\0\0\0", Violation::TooBig, 1009);
}

#[test]
fn a_message_of_exactly_the_limit_is_taken() {
    let server = Server::start();
    let mut client = server.client();
    let long = "a".repeat(64 << 10);
    client.send(&text(&long));
    assert_eq!(server.seen(), Seen::Text(client.id(), long));
}

#[test]
fn fragments_totalling_over_the_limit_close_1009() {
    let half = [b'a'; 40_000];
    violates(&[frame(0x01, &half), frame(0x80, &half)].concat(), Violation::TooBig, 1009);
}

#[test]
fn over_1024_fragments_close_1008() {
    let server = Server::start();
    let mut client = server.client();
    let fragments = [frame(0x01, b"a"), frame(0x00, b"a").repeat(1022)].concat();
    client.send(&[fragments.clone(), frame(0x80, b"a")].concat());
    assert_eq!(server.seen(), Seen::Text(client.id(), "a".repeat(1024)));
    let bytes = [fragments, frame(0x00, b"a").repeat(2)].concat();
    violates_on(&server, &mut client, &bytes, Violation::Fragments, 1008);
}

#[test]
fn the_close_frame_survives_a_client_that_goes_on_sending() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&frame(0x83, b""));
    client.send(&vec![0; 1 << 20]);
    client.expect_close(1002);
    drop(client);
    server.emptied();
}

#[test]
fn messages_before_the_violation_are_delivered() {
    let server = Server::start();
    let mut client = server.client();
    client.send(&[text("one"), frame(0x89, b"p"), text("two"), frame(0x83, b"")].concat());
    assert_eq!(client.rest(), b"\x8a\x01p\x88\x02\x03\xea");
    assert_eq!(server.seen(), Seen::Text(client.id(), "one".into()));
    assert_eq!(server.seen(), Seen::Text(client.id(), "two".into()));
    assert_eq!(server.seen(), Seen::Closed(client.id(), Cause::Violation(Violation::ReservedOpcode)));
}
