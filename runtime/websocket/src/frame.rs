//! RFC 6455 framing without I/O: the checks that stand in front of the codec, and the heads of what is written.
//!
//! Invariant: a [`Header`] that exists has passed every check that its bytes allow, so nobody behind it checks again.
//! Faults are found at the first byte that proves them, and before anything is allocated for the payload.
use fastwebsockets::{CloseCode, Frame, OpCode, Payload};

use super::Close;

/// Bytes of the longest header of a client: 2, 8 of length, 4 of mask.
pub(super) const MAX_HEADER: usize = 14;
/// The longest payload of a control frame.
pub(super) const MAX_CONTROL: usize = 125;
/// A whole ping without payload.
pub(super) const PING: [u8; 2] = [0x89, 0x00];

/// How a client broke RFC 6455 or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// RFC 6455, 5.1.
    #[error("unmasked frame")]
    Unmasked,
    /// No extension was negotiated.
    #[error("reserved bit")]
    ReservedBit,
    /// 0x3-0x7, 0xB-0xF.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A control frame without FIN.
    #[error("fragmented control frame")]
    FragmentedControl,
    /// A control frame of more than 125 bytes.
    #[error("control frame too long")]
    LongControl,
    /// A length in more bytes than it needs (5.2: the minimal number MUST be used).
    #[error("length not minimal")]
    LongLength,
    /// A continuation without a message.
    #[error("continuation of nothing")]
    StrayContinuation,
    /// A first fragment inside a message.
    #[error("message inside a message")]
    NestedMessage,
    /// A close frame whose payload is one byte.
    #[error("close frame of one byte")]
    ShortClose,
    /// A close code that may not be on the wire.
    #[error("invalid close code")]
    CloseCode,
    /// Binary data, where only text is taken.
    #[error("binary message")]
    Binary,
    /// A text message or close reason that is not UTF-8.
    #[error("invalid UTF-8")]
    Utf8,
    /// More fragments than allowed.
    #[error("too many fragments")]
    Fragments,
    /// A message longer than allowed; the announcement suffices.
    #[error("message too big")]
    TooBig,
}

impl Violation {
    /// The code of the close frame that answers it.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Unmasked
            | Self::ReservedBit
            | Self::ReservedOpcode
            | Self::FragmentedControl
            | Self::LongControl
            | Self::LongLength
            | Self::StrayContinuation
            | Self::NestedMessage
            | Self::ShortClose
            | Self::CloseCode => 1002,
            Self::Binary => 1003,
            Self::Utf8 => 1007,
            Self::Fragments => 1008,
            Self::TooBig => 1009,
        }
    }
}

/// What the header's legality depends on besides its own bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expect {
    /// A message is under way: only its continuation may come.
    pub(super) continuation: bool,
    /// Binary messages are taken.
    pub(super) binary: bool,
    /// Bytes that the message may still grow by.
    pub(super) room: usize,
    /// Fragments that the message may still have.
    pub(super) fragments: u32,
}

/// The header of a legal frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) opcode: OpCode,
    pub(super) mask: [u8; 4],
    pub(super) length: usize,
}

/// Reads a header off the front of `bytes`: with its own size, or `None` while bytes are missing.
pub(super) fn parse(bytes: &[u8], expect: Expect) -> Result<Option<(Header, usize)>, Violation> {
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
    // Before what is legal elsewhere: who sends no masks breaks the protocol, whatever is in the frame.
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

/// Whether frames of this opcode may stand between the fragments of a message.
pub(super) fn is_control(opcode: OpCode) -> bool {
    matches!(opcode, OpCode::Close | OpCode::Ping | OpCode::Pong)
}

/// The code in a close frame's payload, if it has one.
pub(super) fn parse_close(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Violation::ShortClose),
        [a, b, reason @ ..] => (u16::from_be_bytes([*a, *b]), reason),
    };
    // 1014 is registered with IANA since, and unknown to the codec.
    if code != 1014 && !CloseCode::from(code).is_allowed() {
        return Err(Violation::CloseCode);
    }
    match std::str::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(Violation::Utf8),
    }
}

/// Appends an unmasked, final frame around `payload`.
pub(super) fn encode(opcode: OpCode, payload: &[u8], into: &mut Vec<u8>) {
    let mut head = [0; MAX_HEADER];
    let size = Frame::new(true, opcode, None, Payload::Borrowed(payload)).fmt_head(&mut head);
    into.reserve(size + payload.len());
    into.extend_from_slice(&head[..size]);
    into.extend_from_slice(payload);
}

/// Appends a text frame around `payload`, for [`super::SocketIo::send_frames`].
pub fn encode_text(payload: &[u8], into: &mut Vec<u8>) {
    encode(OpCode::Text, payload, into);
}

/// Appends a pong frame.
pub(super) fn encode_pong(payload: &[u8], into: &mut Vec<u8>) {
    encode(OpCode::Pong, payload, into);
}

/// Appends a close frame.
pub(super) fn encode_close(close: Option<Close>, into: &mut Vec<u8>) {
    match close {
        Some(Close { code, reason }) => {
            encode(OpCode::Close, &[&code.to_be_bytes()[..], reason.as_bytes()].concat(), into);
        }
        None => encode(OpCode::Close, &[], into),
    }
}

#[cfg(test)]
mod tests;
