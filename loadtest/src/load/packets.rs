//! How an agent that speaks Socket.IO answers the server.
//!
//! As in [`super::conversation`], packets are told apart by their first bytes.

use super::connection::Step;
use super::conversation::number_after;
use super::engine::Engine;
use super::frame::{self, TEXT};

const PING: &[u8] = b"2";
const PONG: &[u8] = b"3";
const OPEN: &[u8] = b"0";
const CONNECTED: &[u8] = b"40";
const CONNECT_SUCCESS: &[u8] = b"42[\"connect_success\"";
const SESSION_ERROR: &[u8] = b"42[\"session_error\"";
const CONNECT_ERROR: &[u8] = b"44";
const DISCONNECTED: &[u8] = b"41";
const ACK: &[u8] = b"43";
const SUCCESS: &[u8] = b"\"SUCCESS\"";

impl Engine {
    pub(super) fn packet(&mut self, agent: usize, packet: &[u8]) {
        let begins = |with| packet.starts_with(with);
        if begins(CONNECT_SUCCESS) {
            self.let_in(agent, packet);
        } else if begins(ACK) && memchr::memmem::find(packet, SUCCESS).is_some() {
            self.arrived(agent);
        } else if begins(ACK) {
            let hint = number_after(packet, b"\"retry_after_ms\":");
            self.not_yet(agent, &String::from_utf8_lossy(packet), hint);
        } else if begins(SESSION_ERROR) {
            let hint = number_after(packet, b"\"reconnect_after_ms\":");
            self.connections[agent].come_back_after_ms = hint;
        } else if begins(CONNECT_ERROR) {
            self.refused(agent, &String::from_utf8_lossy(packet), None);
        } else if packet == PING {
            if let Err(error) = self.connections[agent].send(&frame::masked(TEXT, PONG)) {
                self.fail(agent, &error.kind().to_string());
            }
        } else if !(begins(OPEN) || begins(CONNECTED) || begins(DISCONNECTED)) && self.is_in(agent) {
            self.pushes.arrived(packet);
        }
    }

    fn is_in(&self, agent: usize) -> bool {
        matches!(self.connections[agent].step, Step::Joining | Step::Present)
    }
}
