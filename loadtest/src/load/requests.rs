//! The requests of all agents of a worker, made before anything is measured.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::Range;

use rollcall_loadtest::token;
use serde_json::{Value, json};

use super::frame::{self, TEXT};
use super::order::Crowd;

/// Returns the request for an upgrade to a WebSocket.
pub(crate) fn upgrade(host: impl Display) -> Vec<u8> {
    upgrade_of("/ws", host)
}

fn upgrade_of(path: &str, host: impl Display) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// Requests one after the other in one piece of memory.
pub(super) struct Requests {
    upgrade: Vec<u8>,
    bytes: Vec<u8>,
    of_agent: Vec<(Range<usize>, Range<usize>)>,
    /// Whether the requests are packets of Socket.IO.
    pub(super) socketio: bool,
}

impl Requests {
    pub(super) const fn new() -> Self {
        Self { upgrade: Vec::new(), bytes: Vec::new(), of_agent: Vec::new(), socketio: false }
    }

    pub(super) fn prepare(&mut self, crowd: &Crowd, target: SocketAddr) {
        self.socketio = crowd.socketio;
        self.upgrade =
            if crowd.socketio { upgrade_of("/socket.io/?EIO=4&transport=websocket", target) } else { upgrade(target) };
        for agent in crowd.first..crowd.first + crowd.agents {
            let room = agent / crowd.room_size;
            let mut payload = json!({"classroom_id": crowd.classroom(room), "agent_label": "web"});
            if !crowd.guests {
                payload["token"] = token::participant(&crowd.user(agent)).into();
            }
            if crowd.resume {
                payload["resume"] = json!({});
            }
            if crowd.roster {
                payload["roster"] = json!(true);
            }
            let lesson = json!({"lesson_id": crowd.lesson(room)});
            let (connect, join) = if crowd.socketio {
                (format!("40{payload}"), format!("421{}", json!(["join_lesson", lesson])))
            } else {
                let connect = json!({"type": "connect_request", "payload": payload});
                (connect.to_string(), json!({"type": "join_lesson", "ref": 1, "payload": lesson}).to_string())
            };
            let requests = (self.keep(&connect), self.keep(&join));
            self.of_agent.push(requests);
        }
    }

    pub(super) fn upgrade(&self) -> &[u8] {
        &self.upgrade
    }

    pub(super) fn connect(&self, agent: usize) -> &[u8] {
        &self.bytes[self.of_agent[agent].0.clone()]
    }

    /// Returns the request of an agent that reconnects and wants to be in its lesson again.
    pub(super) fn resume(&self, agent: usize, epoch: &str, offset: u64) -> Vec<u8> {
        let read =
            |bytes| frame::next(bytes).and_then(|(frame, _)| serde_json::from_slice::<Value>(frame.payload).ok());
        let (connect, join) = (read(self.connect(agent)), read(self.join(agent)));
        let (mut connect, join) = (connect.expect("made here"), join.expect("made here"));
        let lesson = &join["payload"]["lesson_id"];
        connect["payload"]["resume"] = json!({"epoch": epoch, "offset": offset, "lesson_id": lesson});
        frame::masked(TEXT, connect.to_string().as_bytes())
    }

    pub(super) fn join(&self, agent: usize) -> &[u8] {
        &self.bytes[self.of_agent[agent].1.clone()]
    }

    /// Returns the request for the next page of the roster.
    pub(super) fn roster(after: u64) -> Vec<u8> {
        let roster = json!({"type": "roster", "ref": 1, "payload": {"after": after}});
        frame::masked(TEXT, roster.to_string().as_bytes())
    }

    fn keep(&mut self, message: &str) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend(frame::masked(TEXT, message.as_bytes()));
        start..self.bytes.len()
    }
}
