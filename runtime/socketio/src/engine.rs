//! Engine.IO 4: packets, the payloads of long-polling, the handshake and the errors of its HTTP requests.
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use serde::Serialize;

use crate::Malformed;

/// Reads base64 with and without padding, because clients send both.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The byte between two packets of a payload.
pub const SEPARATOR: u8 = 0x1e;
/// The server's ping.
pub const PING: &str = "2";
/// The packet that ends a waiting GET without a message.
pub const NOOP: &str = "6";
/// The packet that ends a session, which then cannot be resumed.
pub const CLOSE: &str = "1";
/// The first message of a WebSocket that is to replace long-polling, and the answer to it.
pub const PROBE: (&str, &str) = ("2probe", "3probe");
/// The message with which a probing WebSocket replaces long-polling.
pub const UPGRADE: &str = "5";

/// A packet that a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnginePacket<'a> {
    /// The client ends the session.
    Close,
    /// The answer to a ping.
    Pong,
    /// A message.
    Message(&'a str),
    /// A binary message that came as base64.
    Binary(Vec<u8>),
    /// `open`, `upgrade` and `noop`, which have no meaning in an open session.
    Ignored,
}

impl<'a> EnginePacket<'a> {
    /// Reads a packet, which is a text message of a WebSocket or a part of a payload.
    ///
    /// # Errors
    /// Returns [`Malformed`] if the text is no packet, and for a ping, because in this version only servers ping.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let kind = text.as_bytes().first().ok_or(Malformed)?;
        match kind {
            b'4' => Ok(Self::Message(&text[1..])),
            b'3' => Ok(Self::Pong),
            b'1' => Ok(Self::Close),
            b'b' => decode(&text.as_bytes()[1..]).map(Self::Binary),
            b'0' | b'5' | b'6' => Ok(Self::Ignored),
            _ => Err(Malformed),
        }
    }
}

/// Reads base64. The Java client sends it in several lines.
fn decode(base64: &[u8]) -> Result<Vec<u8>, Malformed> {
    if !base64.iter().any(u8::is_ascii_whitespace) {
        return LENIENT.decode(base64).map_err(|_| Malformed);
    }
    let lines: Vec<u8> = base64.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    LENIENT.decode(lines).map_err(|_| Malformed)
}

/// Appends a separator and a packet to a payload. [`payload`] removes the first separator.
pub fn push_packet(packet: &str, payload: &mut Vec<u8>) {
    payload.push(SEPARATOR);
    payload.extend_from_slice(packet.as_bytes());
}

/// Appends a message with this text to a payload, as [`push_packet`] does.
pub fn push_message(text: &[u8], payload: &mut Vec<u8>) {
    payload.reserve(text.len() + 2);
    payload.extend_from_slice(&[SEPARATOR, b'4']);
    payload.extend_from_slice(text);
}

/// Appends a binary message to a payload, as [`push_packet`] does.
pub fn push_binary(data: &[u8], payload: &mut Vec<u8>) {
    payload.extend_from_slice(&[SEPARATOR, b'b']);
    payload.extend_from_slice(STANDARD.encode(data).as_bytes());
}

/// Returns the pushed packets as a body, without the first separator.
#[must_use]
pub fn payload(pushed: &[u8]) -> &[u8] {
    pushed.strip_prefix(&[SEPARATOR]).unwrap_or(pushed)
}

/// The handshake: the first packet that a client gets.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Open<'a> {
    /// The session's id.
    pub sid: &'a str,
    /// The transports to which the session may move.
    pub upgrades: &'a [&'a str],
    /// The time between two pings, in milliseconds.
    pub ping_interval: u64,
    /// How long a pong may take, in milliseconds.
    pub ping_timeout: u64,
    /// The longest message or payload that is accepted, in bytes.
    pub max_payload: usize,
}

impl Open<'_> {
    /// Returns the handshake as a packet.
    #[must_use]
    pub fn packet(&self) -> String {
        format!("0{}", serde_json::to_string(self).expect("texts and numbers can be written as JSON"))
    }
}

/// The transport of a request or a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTP requests: GETs that wait for packets, and POSTs.
    Polling,
    /// A WebSocket.
    WebSocket,
}

impl Transport {
    fn named(name: &str) -> Option<Self> {
        match name {
            "polling" => Some(Self::Polling),
            "websocket" => Some(Self::WebSocket),
            _ => None,
        }
    }
}

/// What the query of a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The transport that the query names.
    pub transport: Transport,
    /// The session. `None` if the request asks for a new one.
    pub sid: Option<String>,
    /// Whether the client speaks version 4.
    pub is_current: bool,
}

impl Query {
    /// Reads a query. If a name has several values, the last counts, as in the reference server.
    ///
    /// # Errors
    /// Returns [`RequestError::UnknownTransport`] if the query names no known transport.
    pub fn parse(query: &str) -> Result<Self, RequestError> {
        let (mut transport, mut sid, mut is_current) = (None, None, false);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "transport" => transport = Transport::named(&value),
                "sid" => sid = Some(value).filter(|sid| !sid.is_empty()),
                "EIO" => is_current = value == "4",
                _ => {}
            }
        }
        let transport = transport.ok_or(RequestError::UnknownTransport)?;
        Ok(Self { transport, sid: sid.map(Into::into), is_current })
    }

    /// Checks a request for a new session that came by this transport.
    ///
    /// # Errors
    /// Returns a [`RequestError`] for the first fault, in the order in which the reference server checks a request.
    pub fn check_handshake(&self, is_get: bool, by: Transport) -> Result<(), RequestError> {
        match self.transport {
            _ if !is_get => Err(RequestError::HandshakeMethod),
            named if named != by => Err(RequestError::BadRequest),
            _ if !self.is_current => Err(RequestError::Version),
            _ => Ok(()),
        }
    }

    /// Checks a request for an existing session that came by this transport.
    ///
    /// # Errors
    /// Returns [`RequestError::BadRequest`] if the request is invalid.
    pub fn check_request(&self, by: Transport) -> Result<(), RequestError> {
        if self.transport == by && self.is_current { Ok(()) } else { Err(RequestError::BadRequest) }
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The transport is neither `polling` nor `websocket`.
    #[error("Transport unknown")]
    UnknownTransport,
    /// The node has no such session.
    #[error("Session ID unknown")]
    UnknownSession,
    /// A session must begin with a GET.
    #[error("Bad handshake method")]
    HandshakeMethod,
    /// The request has another fault.
    #[error("Bad request")]
    BadRequest,
    /// The request comes from a page of a refused origin.
    #[error("Forbidden")]
    Forbidden,
    /// The request asks for a version other than 4.
    #[error("Unsupported protocol version")]
    Version,
}

impl RequestError {
    /// Returns the error's number, which clients see.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Returns the HTTP status of the response.
    #[must_use]
    pub fn status(self) -> u16 {
        if self == Self::Forbidden { 403 } else { 400 }
    }

    /// Returns the body of the response.
    #[must_use]
    pub fn body(self) -> String {
        format!(r#"{{"code":{},"message":"{self}"}}"#, self.code())
    }
}
