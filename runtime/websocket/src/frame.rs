//! RFC 6455 framing without I/O: parses and checks frame headers, and encodes frames.
//!
//! Invariant: a [`Header`] has passed every check that its bytes allow, so later code need not check again. A fault is
//! found at the first byte that proves it, and before anything is allocated for the payload.
use fastwebsockets::{CloseCode, Frame, OpCode, Payload};

use crate::close::{Close, Violation};

/// The bytes of a client's longest header: 2, 8 for the length, and 4 for the mask.
pub(crate) const MAX_HEADER: usize = 14;
/// The longest payload of a control frame.
pub(crate) const MAX_CONTROL: usize = 125;
/// A complete ping frame without payload.
pub(crate) const PING: [u8; 2] = [0x89, 0x00];

/// The state that decides, besides the bytes of a header, whether the header is legal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expect {
    /// Whether a message is incomplete. Then the only data frame that may come is its continuation.
    pub(crate) continuation: bool,
    /// Whether binary messages are accepted.
    pub(crate) binary: bool,
    /// By how many bytes the message may still grow.
    pub(crate) room: usize,
    /// How many fragments the message may still have.
    pub(crate) fragments: u32,
}

/// The header of a legal frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) fin: bool,
    pub(crate) opcode: OpCode,
    pub(crate) mask: [u8; 4],
    pub(crate) length: usize,
}

/// Parses a header at the start of `bytes`. Returns the header and its size, or `None` while bytes are missing.
pub(crate) fn parse(bytes: &[u8], expect: Expect) -> Result<Option<(Header, usize)>, Violation> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(Violation::ReservedBit);
    }
    let fin = first & 0x80 != 0;
    let opcode = OpCode::try_from(first & 0x0f).map_err(|_| Violation::ReservedOpcode)?;
    let control = is_control(opcode);
    match opcode {
        OpCode::Close | OpCode::Ping | OpCode::Pong if !fin => return Err(Violation::FragmentedControl),
        OpCode::Close | OpCode::Ping | OpCode::Pong => {}
        OpCode::Continuation if !expect.continuation => return Err(Violation::StrayContinuation),
        OpCode::Text | OpCode::Binary if expect.continuation => return Err(Violation::NestedMessage),
        _ => {}
    }

    let Some(&second) = bytes.get(1) else { return Ok(None) };
    // The mask is checked before the limits, because an unmasked frame breaks the protocol whatever it contains.
    if second & 0x80 == 0 {
        return Err(Violation::Unmasked);
    }
    if opcode == OpCode::Binary && !expect.binary {
        return Err(Violation::Binary);
    }
    if !control && expect.fragments == 0 {
        return Err(Violation::Fragments);
    }
    if control && usize::from(second & 0x7f) > MAX_CONTROL {
        return Err(Violation::LongControl);
    }
    let (length, masked_from) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10) {
            Some(&[a, b, c, d, e, f, g, h]) => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), 10),
            _ => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    if (masked_from == 4 && length < 126) || (masked_from == 10 && length < 65536) {
        return Err(Violation::LongLength);
    }
    let length = usize::try_from(length).map_err(|_| Violation::TooBig)?;
    if !control && length > expect.room {
        return Err(Violation::TooBig);
    }
    let Some(&[a, b, c, d]) = bytes.get(masked_from..masked_from + 4) else { return Ok(None) };
    Ok(Some((Header { fin, opcode, mask: [a, b, c, d], length }, masked_from + 4)))
}

/// Returns whether frames of this opcode may come between the fragments of a message.
pub(crate) fn is_control(opcode: OpCode) -> bool {
    matches!(opcode, OpCode::Close | OpCode::Ping | OpCode::Pong)
}

/// Returns the code in a close frame's payload, if it has one.
pub(crate) fn parse_close(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Violation::ShortClose),
        [a, b, reason @ ..] => (u16::from_be_bytes([*a, *b]), reason),
    };
    // IANA registered 1014 later, and the codec does not know it.
    if code != 1014 && !CloseCode::from(code).is_allowed() {
        return Err(Violation::CloseCode);
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(Violation::Utf8),
    }
}

/// Appends an unmasked, final frame around `payload`.
pub(crate) fn encode(opcode: OpCode, payload: &[u8], into: &mut Vec<u8>) {
    let mut head = [0; MAX_HEADER];
    let size = Frame::new(true, opcode, None, Payload::Borrowed(payload)).fmt_head(&mut head);
    into.reserve(size + payload.len());
    into.extend_from_slice(&head[..size]);
    into.extend_from_slice(payload);
}

/// Appends a text frame around `payload`.
pub(crate) fn encode_text(payload: &[u8], into: &mut Vec<u8>) {
    encode(OpCode::Text, payload, into);
}

/// Appends the header of a text frame whose payload has this length.
pub(crate) fn encode_text_head(length: usize, into: &mut Vec<u8>) {
    into.push(0x81);
    match length {
        0..=125 => into.push(length as u8),
        126..=0xffff => {
            into.push(126);
            into.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            into.push(127);
            into.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Appends a pong frame.
pub(crate) fn encode_pong(payload: &[u8], into: &mut Vec<u8>) {
    encode(OpCode::Pong, payload, into);
}

/// Appends a close frame.
pub(crate) fn encode_close(close: Option<Close>, into: &mut Vec<u8>) {
    match close {
        Some(Close { code, reason }) => {
            encode(OpCode::Close, &[&code.to_be_bytes()[..], reason.as_bytes()].concat(), into);
        }
        None => encode(OpCode::Close, &[], into),
    }
}

#[cfg(test)]
mod tests;
