use fastwebsockets::unmask;
use proptest::prelude::*;

use super::{Event, Inbound};
use crate::{Message, SocketOptions, Violation};

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

impl From<Event<'_>> for Heard {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message(Message::Text(text)) => Self::Text(text.into()),
            Event::Message(Message::Binary(data)) => Self::Binary(data.into()),
            Event::Ping(payload) => Self::Ping(payload.into()),
            Event::Pong => Self::Pong,
            Event::Close(code) => Self::Close(code),
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

/// Feeds the pieces one after the other, as reads would bring them.
fn hear(pieces: &[&[u8]], options: &SocketOptions) -> (Vec<Heard>, Option<Violation>, Inbound) {
    let mut inbound = Inbound::default();
    let mut heard = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut input = &mut bytes[..];
        loop {
            match inbound.next(&mut input, options) {
                Ok(Some(event)) => heard.push(event.into()),
                Ok(None) => break,
                Err(violation) => return (heard, Some(violation), inbound),
            }
        }
        assert!(input.is_empty());
    }
    (heard, None, inbound)
}

#[test]
fn a_message_in_fragments_with_a_ping_between() {
    let bytes =
        [frame(0x01, b"frag"), frame(0x89, b"alive?"), frame(0x00, "mén".as_bytes()), frame(0x80, b"t")].concat();
    let (heard, violation, inbound) = hear(&[&bytes], &options());
    assert_eq!(heard, [Heard::Ping(b"alive?".into()), Heard::Text("fragmént".into())]);
    assert_eq!(violation, None);
    assert!(inbound.is_idle());
}

#[test]
fn broken_text_fails_before_its_frame_ends() {
    let mut bytes = frame(0x81, b"\xce\xba\xe1\xbd\xb9\xf4\x90\x80\x80 and more that never comes");
    bytes.truncate(6 + 7);
    assert_eq!(hear(&[&bytes], &options()).1, Some(Violation::Utf8));
}

#[test]
fn a_character_may_be_cut_between_fragments_but_not_at_the_end() {
    let cut = [frame(0x01, b"\xe2\x82"), frame(0x80, b"\xac")].concat();
    assert_eq!(hear(&[&cut], &options()).0, [Heard::Text("€".into())]);
    let ended = [frame(0x01, b"a"), frame(0x80, b"\xe2\x82")].concat();
    assert_eq!(hear(&[&ended], &options()).1, Some(Violation::Utf8));
}

#[test]
fn fragments_are_limited_together_and_in_number() {
    let long = [frame(0x01, &[b'a'; 4000]), frame(0x80, &[b'a'; 97])].concat();
    assert_eq!(hear(&[&long], &options()).1, Some(Violation::TooBig));
    let fits = [frame(0x01, &[b'a'; 4000]), frame(0x80, &[b'a'; 96])].concat();
    assert_eq!(hear(&[&fits], &options()).1, None);
    let mut many = [frame(0x01, b""), frame(0x00, b"").repeat(6)].concat();
    assert_eq!(hear(&[&many, &frame(0x80, b"")], &options()).0, [Heard::Text(String::new())]);
    many.extend(frame(0x00, b"").repeat(2));
    assert_eq!(hear(&[&many], &options()).1, Some(Violation::Fragments));
}

#[test]
fn nothing_is_allocated_for_what_is_only_announced() {
    let options = SocketOptions { max_message: 64 << 20, ..options() };
    let header = &frame(0x81, &[b'a'; 1 << 20])[..14];
    let (_, _, inbound) = hear(&[header], &options);
    assert_eq!(inbound.data.capacity(), 0);
}

#[test]
fn memory_follows_what_has_come() {
    let options = SocketOptions { max_message: 64 << 20, ..options() };
    let bytes = frame(0x81, &vec![b'a'; 1 << 20]);
    let mut inbound = Inbound::default();
    let mut come = 0;
    for piece in bytes.chunks(1000) {
        let mut piece = piece.to_vec();
        let mut input = &mut piece[..];
        while inbound.next(&mut input, &options).expect("legal").is_some() {}
        come += piece.len();
        assert!(inbound.data.capacity() <= 2 * come);
    }
}

/// A legal conversation as a model: what is said, and the frames that say it.
fn conversation() -> impl Strategy<Value = (Vec<Heard>, Vec<u8>)> {
    let control = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..=125)
            .prop_map(|payload| (Heard::Ping(payload.clone()), frame(0x89, &payload))),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(|payload| (Heard::Pong, frame(0x8a, &payload))),
    ];
    let controls = prop::collection::vec(control, 0..3);
    let said = prop_oneof![
        "\\PC{0,300}".prop_map(|text| (Heard::Text(text.clone()), 0x1u8, text.into_bytes())),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|data| (Heard::Binary(data.clone()), 0x2, data)),
    ];
    let message = (said, prop::collection::vec(any::<prop::sample::Index>(), 0..7), controls);
    prop::collection::vec(message, 0..6).prop_map(|messages| {
        let (mut heard, mut bytes) = (Vec::new(), Vec::new());
        for ((said, opcode, payload), cuts, controls) in messages {
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
                    heard.push(event);
                    bytes.extend(control);
                }
            }
            heard.push(said);
            for (event, control) in controls {
                heard.push(event);
                bytes.extend(control);
            }
        }
        (heard, bytes)
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
    fn a_conversation_is_heard_as_it_was_said(
        (said, bytes) in conversation(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (heard, violation, inbound) = hear(&pieces(&bytes, &cuts), &options());
        prop_assert_eq!(violation, None);
        prop_assert_eq!(heard, said);
        prop_assert!(inbound.is_idle());
    }

    /// Legal frames, then noise: what comes out does not depend on how the bytes were cut into reads.
    #[test]
    fn cuts_change_nothing(
        (_, mut bytes) in conversation(),
        noise in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        bytes.splice(at.index(bytes.len() + 1).., noise);
        let (whole, why, _) = hear(&[&bytes], &options());
        let (cut, why_cut, _) = hear(&pieces(&bytes, &cuts), &options());
        prop_assert_eq!(whole, cut);
        prop_assert_eq!(why, why_cut);
    }
}
