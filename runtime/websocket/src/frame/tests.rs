use fastwebsockets::OpCode;
use proptest::prelude::*;

use super::{Expect, encode_close, encode_pong, encode_text, parse, parse_close};
use crate::close::Violation;

const EXPECT: Expect = Expect { continuation: false, binary: true, room: 1 << 20, fragments: 8 };
const INSIDE: Expect = Expect { continuation: true, ..EXPECT };

#[track_caller]
fn refused(bytes: &[u8], expect: Expect, violation: Violation) {
    assert_eq!(parse(bytes, expect), Err(violation), "{bytes:02x?}");
}

#[test]
fn every_reserved_bit_is_refused_at_the_first_byte() {
    for bit in [0x40, 0x20, 0x10] {
        refused(&[0x81 | bit], EXPECT, Violation::ReservedBit);
    }
}

#[test]
fn every_reserved_opcode_is_refused_at_the_first_byte() {
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        refused(&[0x80 | opcode], EXPECT, Violation::ReservedOpcode);
    }
}

#[test]
fn frames_must_be_masked() {
    for first in [0x81, 0x01, 0x82, 0x88, 0x89, 0x8a] {
        refused(&[first, 0x05], Expect { binary: false, ..EXPECT }, Violation::Unmasked);
    }
    refused(&[0x00, 0x05], Expect { fragments: 0, ..INSIDE }, Violation::Unmasked);
}

#[test]
fn control_frames_are_short_and_whole() {
    for opcode in [0x8, 0x9, 0xa] {
        refused(&[opcode], EXPECT, Violation::FragmentedControl);
        refused(&[0x80 | opcode, 0xfe], EXPECT, Violation::LongControl);
        refused(&[0x80 | opcode, 0xff], EXPECT, Violation::LongControl);
        assert!(
            matches!(parse(&[0x80 | opcode, 0xfd, 1, 2, 3, 4], INSIDE), Ok(Some((header, 6))) if header.length == 125)
        );
    }
}

#[test]
fn messages_do_not_nest_and_continuations_need_a_message() {
    refused(&[0x80], EXPECT, Violation::StrayContinuation);
    refused(&[0x01], INSIDE, Violation::NestedMessage);
    refused(&[0x82], INSIDE, Violation::NestedMessage);
    refused(&[0x82, 0x85], Expect { binary: false, ..EXPECT }, Violation::Binary);
    refused(&[0x00, 0x85], Expect { fragments: 0, ..INSIDE }, Violation::Fragments);
}

#[test]
fn lengths_are_minimal() {
    refused(&[0x81, 0xfe, 0, 125], EXPECT, Violation::LongLength);
    refused(&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], EXPECT, Violation::LongLength);
    assert!(matches!(parse(&[0x81, 0xfe, 0, 126, 0, 0, 0, 0], EXPECT), Ok(Some((header, 8))) if header.length == 126));
}

#[test]
fn a_length_over_the_limit_is_refused_before_the_mask_arrives() {
    let small = Expect { room: 1000, ..EXPECT };
    refused(&[0x81, 0xfe, 0x03, 0xe9], small, Violation::TooBig);
    assert_eq!(parse(&[0x81, 0xfe, 0x03, 0xe8], small), Ok(None));
    refused(&[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], EXPECT, Violation::TooBig);
    refused(&[0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], EXPECT, Violation::TooBig);
}

#[test]
fn close_payloads() {
    assert_eq!(parse_close(&[]), Ok(None));
    assert_eq!(parse_close(&[3]), Err(Violation::ShortClose));
    assert_eq!(parse_close(b"\x03\xe8bye"), Ok(Some(1000)));
    assert_eq!(parse_close(b"\x03\xe8\xc3"), Err(Violation::Utf8));
    for code in (1000..=1003).chain(1007..=1014).chain([3000, 3999, 4000, 4999]) {
        assert_eq!(parse_close(&u16::to_be_bytes(code)), Ok(Some(code)));
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        assert_eq!(parse_close(&u16::to_be_bytes(code)), Err(Violation::CloseCode), "{code}");
    }
}

#[test]
fn encoded_frames() {
    let mut bytes = Vec::new();
    encode_text(b"hi", &mut bytes);
    encode_pong(b"p", &mut bytes);
    encode_close(Some(1002.into()), &mut bytes);
    encode_close(None, &mut bytes);
    assert_eq!(bytes, b"\x81\x02hi\x8a\x01p\x88\x02\x03\xea\x88\x00");
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..20), inside: bool, binary: bool) {
        let expect = Expect { continuation: inside, binary, ..EXPECT };
        if let Ok(Some((header, size))) = parse(&bytes, expect) {
            prop_assert!(size <= bytes.len() && header.length <= expect.room);
            // The header does not depend on the bytes after it.
            prop_assert_eq!(parse(&bytes[..size], expect), Ok(Some((header, size))));
        }
    }

    /// Further bytes may complete a header or make it refused. They never make a refused header legal.
    #[test]
    fn a_refusal_is_final(bytes in prop::collection::vec(any::<u8>(), 0..16), cut in 0usize..16) {
        let early = parse(&bytes[..cut.min(bytes.len())], EXPECT);
        let all = parse(&bytes, EXPECT);
        if early != Ok(None) {
            prop_assert_eq!(early, all);
        }
    }

    #[test]
    fn encoded_frames_are_parsed_back(byte: u8, size in 0usize..70_000) {
        let payload = vec![byte; size];
        let mut bytes = Vec::new();
        encode_text(&payload, &mut bytes);
        let head = bytes.len() - payload.len();
        // A client's frame differs in the mask bit and the mask.
        bytes[1] |= 0x80;
        bytes.splice(head..head, [0; 4]);
        let (header, size) = parse(&bytes, EXPECT).expect("legal").expect("whole");
        prop_assert_eq!((header.fin, header.opcode, header.length), (true, OpCode::Text, payload.len()));
        prop_assert_eq!(&bytes[size..], &payload[..]);
    }
}
