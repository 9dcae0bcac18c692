use fastwebsockets::unmask;
use proptest::prelude::*;

use super::{Decoded, MessageDecoder};
use crate::{Message, SocketOptions, Violation};

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Received {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

impl From<Decoded<'_>> for Received {
    fn from(event: Decoded<'_>) -> Self {
        match event {
            Decoded::Message(Message::Text(text)) => Self::Text(text.into()),
            Decoded::Message(Message::Binary(data)) => Self::Binary(data.into()),
            Decoded::Ping(payload) => Self::Ping(payload.into()),
            Decoded::Pong => Self::Pong,
            Decoded::Close(code) => Self::Close(code),
        }
    }
}

fn options() -> SocketOptions {
    SocketOptions { binary: true, max_message: 4096, max_fragments: 8, ..SocketOptions::default() }
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        size @ 0..126 => bytes.push(0x80 | size as u8),
        size @ 126..65536 => {
            bytes.push(0xfe);
            bytes.extend_from_slice(&(size as u16).to_be_bytes());
        }
        size => {
            bytes.push(0xff);
            bytes.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    unmask(&mut bytes[start..], MASK);
    bytes
}

/// Decodes the pieces one after the other, as single reads.
fn decode(pieces: &[&[u8]], options: &SocketOptions) -> (Vec<Received>, Option<Violation>, MessageDecoder) {
    let mut decoder = MessageDecoder::default();
    let mut received = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut input = &mut bytes[..];
        loop {
            match decoder.next(&mut input, options) {
                Ok(Some(event)) => received.push(event.into()),
                Ok(None) => break,
                Err(violation) => return (received, Some(violation), decoder),
            }
        }
        assert!(input.is_empty());
    }
    (received, None, decoder)
}

#[test]
fn a_message_in_fragments_with_a_ping_between() {
    let bytes =
        [frame(0x01, b"frag"), frame(0x89, b"alive?"), frame(0x00, "mén".as_bytes()), frame(0x80, b"t")].concat();
    let (received, violation, decoder) = decode(&[&bytes], &options());
    assert_eq!(received, [Received::Ping(b"alive?".into()), Received::Text("fragmént".into())]);
    assert_eq!(violation, None);
    assert!(decoder.is_idle());
}

#[test]
fn invalid_text_fails_before_its_frame_ends() {
    let mut bytes = frame(0x81, b"\xce\xba\xe1\xbd\xb9\xf4\x90\x80\x80 and more that never comes");
    bytes.truncate(6 + 7);
    assert_eq!(decode(&[&bytes], &options()).1, Some(Violation::Utf8));
}

#[test]
fn a_character_may_be_split_between_fragments_but_not_cut_at_the_end() {
    let cut = [frame(0x01, b"\xe2\x82"), frame(0x80, b"\xac")].concat();
    assert_eq!(decode(&[&cut], &options()).0, [Received::Text("€".into())]);
    let ended = [frame(0x01, b"a"), frame(0x80, b"\xe2\x82")].concat();
    assert_eq!(decode(&[&ended], &options()).1, Some(Violation::Utf8));
}

#[test]
fn fragments_are_limited_in_total_size_and_in_number() {
    let long = [frame(0x01, &[b'a'; 4000]), frame(0x80, &[b'a'; 97])].concat();
    assert_eq!(decode(&[&long], &options()).1, Some(Violation::TooBig));
    let fits = [frame(0x01, &[b'a'; 4000]), frame(0x80, &[b'a'; 96])].concat();
    assert_eq!(decode(&[&fits], &options()).1, None);
    let mut many = [frame(0x01, b""), frame(0x00, b"").repeat(6)].concat();
    assert_eq!(decode(&[&many, &frame(0x80, b"")], &options()).0, [Received::Text(String::new())]);
    many.extend(frame(0x00, b"").repeat(2));
    assert_eq!(decode(&[&many], &options()).1, Some(Violation::Fragments));
}

#[test]
fn nothing_is_allocated_for_a_header_alone() {
    let options = SocketOptions { max_message: 64 << 20, ..options() };
    let header = &frame(0x81, &[b'a'; 1 << 20])[..14];
    let (_, _, decoder) = decode(&[header], &options);
    assert_eq!(decoder.data.capacity(), 0);
}

#[test]
fn memory_is_at_most_twice_the_input() {
    let options = SocketOptions { max_message: 64 << 20, ..options() };
    let bytes = frame(0x81, &vec![b'a'; 1 << 20]);
    let mut decoder = MessageDecoder::default();
    let mut size = 0;
    for piece in bytes.chunks(1000) {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        while decoder.next(&mut input, &options).expect("legal").is_some() {}
        size += piece.len();
        assert!(decoder.data.capacity() <= 2 * size);
    }
}

/// Returns a legal conversation: the messages to receive, and the frames that carry them.
fn conversation() -> impl Strategy<Value = (Vec<Received>, Vec<u8>)> {
    let control = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..=125)
            .prop_map(|payload| (Received::Ping(payload.clone()), frame(0x89, &payload))),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(|payload| (Received::Pong, frame(0x8a, &payload))),
    ];
    let controls = prop::collection::vec(control, 0..3);
    let sent = prop_oneof![
        "\\PC{0,300}".prop_map(|text| (Received::Text(text.clone()), 0x1u8, text.into_bytes())),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|data| (Received::Binary(data.clone()), 0x2, data)),
    ];
    let message = (sent, prop::collection::vec(any::<prop::sample::Index>(), 0..7), controls);
    prop::collection::vec(message, 0..6).prop_map(|messages| {
        let (mut received, mut bytes) = (Vec::new(), Vec::new());
        for ((sent, opcode, payload), cuts, controls) in messages {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
            cuts.push(payload.len());
            cuts.sort_unstable();
            let mut controls = controls.into_iter();
            let mut from = 0;
            for (number, &to) in cuts.iter().enumerate() {
                let last = number + 1 == cuts.len();
                let first = if last { 0x80 } else { 0 } | if number == 0 { opcode } else { 0 };
                bytes.extend(frame(first, &payload[from..to]));
                from = to;
                if !last && let Some((event, control)) = controls.next() {
                    received.push(event);
                    bytes.extend(control);
                }
            }
            received.push(sent);
            for (event, control) in controls {
                received.push(event);
                bytes.extend(control);
            }
        }
        (received, bytes)
    })
}

fn pieces<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    let mut from = 0;
    cuts.iter().map(|&to| &bytes[std::mem::replace(&mut from, to)..to]).collect()
}

proptest! {
    #[test]
    fn a_conversation_is_received_as_it_was_sent(
        (sent, bytes) in conversation(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (received, violation, decoder) = decode(&pieces(&bytes, &cuts), &options());
        prop_assert_eq!(violation, None);
        prop_assert_eq!(received, sent);
        prop_assert!(decoder.is_idle());
    }

    /// Random bytes follow legal frames. The output must not depend on how the bytes are split into reads.
    #[test]
    fn the_split_into_reads_does_not_change_the_output(
        (_, mut bytes) in conversation(),
        noise in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        bytes.splice(at.index(bytes.len() + 1).., noise);
        let (whole, why, _) = decode(&[&bytes], &options());
        let (cut, why_cut, _) = decode(&pieces(&bytes, &cuts), &options());
        prop_assert_eq!(whole, cut);
        prop_assert_eq!(why, why_cut);
    }
}
