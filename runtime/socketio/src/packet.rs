//! One Socket.IO packet: `<type>[<attachments>-][<namespace>,][<id>][<JSON>]`.
use serde_json::value::RawValue;

use crate::Malformed;

/// The maximum number of attachments of a packet, as in the reference implementation.
pub const MAX_ATTACHMENTS: usize = 10;
/// The main namespace, which packets do not name.
pub const MAIN: &str = "/";

/// The type of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for a namespace, or tells that it is connected.
    Connect,
    /// Leaves a namespace.
    Disconnect,
    /// An event.
    Event,
    /// The answer to an event.
    Ack,
    /// Tells that the client may not enter the namespace.
    ConnectError,
    /// An event with attachments.
    BinaryEvent,
    /// The answer to an event, with attachments.
    BinaryAck,
}

const KINDS: [Kind; 7] =
    [Kind::Connect, Kind::Disconnect, Kind::Event, Kind::Ack, Kind::ConnectError, Kind::BinaryEvent, Kind::BinaryAck];

impl Kind {
    /// Returns whether attachments may follow.
    #[must_use]
    pub fn is_binary(self) -> bool {
        matches!(self, Self::BinaryEvent | Self::BinaryAck)
    }
}

/// A packet that is borrowed from its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The packet's type.
    pub kind: Kind,
    /// How many binary messages follow the packet.
    pub attachments: usize,
    /// The namespace.
    pub namespace: &'a str,
    /// An event's number, which its answer repeats.
    pub id: Option<u64>,
    /// One JSON value of the form that the type requires; empty if there is none.
    pub data: &'a str,
}

impl<'a> Packet<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    /// Returns a [`Malformed`] for the faults for which the reference implementation closes a connection: an unknown
    /// type, data of a form that does not fit the type, or more attachments than [`MAX_ATTACHMENTS`].
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let number = text.bytes().next().ok_or(Malformed)?.wrapping_sub(b'0');
        let kind = *KINDS.get(usize::from(number)).ok_or(Malformed)?;
        let mut rest = &text[1..];
        let mut attachments = 0;
        if kind.is_binary() {
            let (count, after) = digits(rest).ok_or(Malformed)?;
            attachments = usize::try_from(count).map_err(|_| Malformed)?;
            let is_fine = (1..=MAX_ATTACHMENTS).contains(&attachments);
            rest = after.strip_prefix('-').filter(|_| is_fine).ok_or(Malformed)?;
        }
        let mut namespace = MAIN;
        if rest.starts_with('/') {
            (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
        }
        let mut id = None;
        if let Some((number, after)) = digits(rest) {
            (id, rest) = (Some(number), after);
        }
        if !fits(kind, rest) {
            return Err(Malformed);
        }
        Ok(Self { kind, attachments, namespace, id, data: rest })
    }

    /// Returns the packet as a message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.namespace.len() + self.data.len() + 24);
        self.encode_into(&mut out);
        out
    }

    /// Appends the packet to a buffer.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(b'0' + self.kind as u8);
        if self.kind.is_binary() {
            out.extend_from_slice(self.attachments.to_string().as_bytes());
            out.push(b'-');
        }
        if self.namespace != MAIN {
            out.extend_from_slice(self.namespace.as_bytes());
            out.push(b',');
        }
        if let Some(id) = self.id {
            out.extend_from_slice(id.to_string().as_bytes());
        }
        out.extend_from_slice(self.data.as_bytes());
    }
}

/// Returns the number at the start of a text, and the rest, or `None` if there is no number. A number of more than 64
/// bits is read as the highest 64-bit number. The reference does not read such a number exactly either.
fn digits(text: &str) -> Option<(u64, &str)> {
    let after = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = &text[..text.len() - after.len()];
    (!number.is_empty()).then(|| (number.parse().unwrap_or(u64::MAX), after))
}

/// Returns whether the data has the form that the type requires.
fn fits(kind: Kind, data: &str) -> bool {
    let begins = |with: char| data.starts_with(with) && serde_json::from_str::<&RawValue>(data).is_ok();
    match kind {
        Kind::Connect => data.is_empty() || begins('{'),
        Kind::Disconnect => data.is_empty(),
        Kind::ConnectError => data.is_empty() || begins('{') || begins('"'),
        Kind::Event | Kind::Ack | Kind::BinaryEvent | Kind::BinaryAck => data.is_empty() || begins('['),
    }
}
