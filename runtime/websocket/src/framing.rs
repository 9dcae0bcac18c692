//! How a message is written on a connection: as a message of a WebSocket, or as a packet of Engine.IO.
use fastwebsockets::OpCode;
use rollcall_socketio::engine;

use crate::frame;

/// How messages are written on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each message is a message of a WebSocket.
    WebSocket,
    /// Each message is a packet of Engine.IO, in a message of a WebSocket.
    EngineWebSocket,
    /// Each message is a packet in the payload of a long-polling session.
    Polling,
}

impl Framing {
    /// Appends a text message in this framing, for [`crate::SocketIo::send_frames`].
    pub fn encode_text(self, text: &[u8], into: &mut Vec<u8>) {
        match self {
            Self::WebSocket => frame::encode_text(text, into),
            Self::EngineWebSocket => {
                frame::encode_text_head(text.len() + 1, into);
                into.push(b'4');
                into.extend_from_slice(text);
            }
            Self::Polling => engine::push_message(text, into),
        }
    }

    /// Appends a binary message.
    pub(crate) fn encode_binary(self, data: &[u8], into: &mut Vec<u8>) {
        match self {
            Self::WebSocket | Self::EngineWebSocket => frame::encode(OpCode::Binary, data, into),
            Self::Polling => engine::push_binary(data, into),
        }
    }

    /// Appends a packet of Engine.IO other than a message.
    pub(crate) fn encode_packet(self, packet: &str, into: &mut Vec<u8>) {
        match self {
            Self::WebSocket | Self::EngineWebSocket => frame::encode_text(packet.as_bytes(), into),
            Self::Polling => engine::push_packet(packet, into),
        }
    }
}
