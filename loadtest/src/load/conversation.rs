//! How an agent answers the server, from the upgrade to the lesson. After that it counts pushes.
//!
//! Messages are told apart by their first bytes and by byte search, never by parsing JSON.

use std::io::{self, Read};
use std::mem;

use super::connection::Step;
use super::engine::Engine;
use super::frame::{self, CLOSE, Frame, PING, PONG};
use super::order::Goal;
use super::requests::Requests;

/// The beginning of messages that are not pushes.
const TYPED: &[u8] = b"{\"type\":";
const SESSION_ERROR: &[u8] = b"_session_error\"";
const ACK: &[u8] = b"\"ack\"";
const RECOVERED: &[u8] = b"\"recovered\":true";
/// The beginning of a push to a client that resumes.
const OFFSET: &[u8] = b"{\"offset\":";
const SUCCESS: &[u8] = b"\"SUCCESS\"";

impl Engine {
    /// Reads everything that has come. If epoll has reported the end, the engine reads on after a short read to find
    /// it.
    pub(super) fn read(&mut self, agent: usize, ended: bool) {
        let mut buffer = mem::take(&mut self.buffer);
        loop {
            let connection = &mut self.connections[agent];
            if connection.stalled {
                break;
            }
            let Some(stream) = &mut connection.stream else {
                break;
            };
            let kept = connection.tail.len();
            match stream.read(&mut buffer[kept..]) {
                Ok(0) => {
                    self.fail(agent, "ended without a close frame");
                    break;
                }
                Ok(length) => {
                    buffer[..kept].copy_from_slice(&connection.tail);
                    connection.tail.clear();
                    let all = &buffer[..kept + length];
                    let used = self.consume(agent, all);
                    self.connections[agent].tail.extend(&all[used..]);
                    if !ended && kept + length < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.fail(agent, &error.kind().to_string());
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// Handles all complete frames. Returns their length in bytes.
    fn consume(&mut self, agent: usize, bytes: &[u8]) -> usize {
        let mut used = 0;
        if self.connections[agent].step == Step::Upgrading {
            let Some(end) = frame::head_end(bytes) else {
                return 0;
            };
            self.upgraded(agent, &bytes[..end]);
            used = end;
        }
        while self.connections[agent].step != Step::Away
            && let Some((frame, length)) = frame::next(&bytes[used..])
        {
            used += length;
            self.frame(agent, &frame);
        }
        if self.connections[agent].step == Step::Away {
            return bytes.len();
        }
        used
    }

    fn upgraded(&mut self, agent: usize, head: &[u8]) {
        if head.starts_with(b"HTTP/1.1 101 ") {
            let connection = &mut self.connections[agent];
            connection.step = Step::Connecting;
            let sent = match connection.offset {
                Some(offset) => connection.send(&self.requests.resume(agent, &self.epoch, offset)),
                None => connection.send(self.requests.connect(agent)),
            };
            if let Err(error) = sent {
                self.fail(agent, &error.kind().to_string());
            }
            return;
        }
        let status = String::from_utf8_lossy(head.get(9..12).unwrap_or_default()).into_owned();
        let seconds = number_after(&head.to_ascii_lowercase(), b"retry-after: ");
        let come_back = seconds.map(|seconds| seconds * 1000);
        self.refused(agent, &format!("upgrade refused with {status}"), come_back);
    }

    fn frame(&mut self, agent: usize, frame: &Frame<'_>) {
        match frame.opcode {
            CLOSE => {
                let code = frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                let reason = code.map_or("closed".to_owned(), |code| format!("closed with {code}"));
                self.closed(agent, &reason);
            }
            PING => {
                let pong = frame::masked(PONG, frame.payload);
                if let Err(error) = self.connections[agent].send(&pong) {
                    self.fail(agent, &error.kind().to_string());
                }
            }
            PONG => {}
            _ if self.requests.socketio => self.packet(agent, frame.payload),
            _ if frame.payload.starts_with(TYPED) => self.message(agent, frame.payload),
            _ => {
                if frame.payload.starts_with(OFFSET) {
                    self.connections[agent].offset = number_after(frame.payload, OFFSET);
                }
                self.pushes.arrived(frame.payload);
            }
        }
    }

    fn message(&mut self, agent: usize, payload: &[u8]) {
        let found = |needle| memchr::memmem::find(payload, needle).is_some();
        if found(SESSION_ERROR) {
            let hint = number_after(payload, b"\"reconnect_after_ms\":");
            self.connections[agent].come_back_after_ms = hint;
            return;
        }
        match self.connections[agent].step {
            Step::Connecting => self.let_in(agent, payload),
            Step::Reading if found(ACK) && found(SUCCESS) => {
                self.read_on(agent, number_after(payload, b"],\"next\":"));
            }
            Step::Joining if found(ACK) && found(SUCCESS) => self.arrived(agent),
            Step::Joining if found(ACK) => {
                let hint = number_after(payload, b"\"retry_after_ms\":");
                let text = String::from_utf8_lossy(payload).into_owned();
                self.not_yet(agent, &text, hint);
            }
            _ => self.pushes.arrived(payload),
        }
    }

    pub(super) fn let_in(&mut self, agent: usize, payload: &[u8]) {
        let connection = &mut self.connections[agent];
        let resumed = connection.offset.is_some();
        // A client of Socket.IO does not resume: it comes back as a new client.
        connection.offset = number_after(payload, b"\"offset\":").filter(|_| !self.requests.socketio);
        if let Some(epoch) = text_after(payload, b"\"epoch\":\"")
            && epoch != self.epoch.as_bytes()
        {
            self.epoch = String::from_utf8_lossy(epoch).into_owned();
        }
        if memchr::memmem::find(payload, RECOVERED).is_some() {
            self.recovered += 1;
        }
        if resumed {
            return self.arrived(agent);
        }
        self.read_on(agent, number_after(payload, b"],\"roster_next\":"));
    }

    /// Requests the roster's next page, if there is one. Otherwise the agent joins its lesson, if that is its goal.
    fn read_on(&mut self, agent: usize, next: Option<u64>) {
        match next {
            Some(after) => {
                let connection = &mut self.connections[agent];
                connection.step = Step::Reading;
                if let Err(error) = connection.send(&Requests::roster(after)) {
                    self.fail(agent, &error.kind().to_string());
                }
            }
            None if self.goal == Goal::Connected => self.arrived(agent),
            None => self.join(agent),
        }
    }

    /// Handles a close frame. Before connect_success it is a refusal, and after it a lost connection.
    fn closed(&mut self, agent: usize, reason: &str) {
        let connection = &mut self.connections[agent];
        match connection.step {
            Step::Connecting | Step::Reading | Step::Joining => {
                let hint = connection.come_back_after_ms.take();
                self.refused(agent, reason, hint);
            }
            _ => self.fail(agent, reason),
        }
    }
}

fn text_after<'a>(bytes: &'a [u8], label: &[u8]) -> Option<&'a [u8]> {
    let start = memchr::memmem::find(bytes, label)? + label.len();
    bytes[start..].split(|byte| *byte == b'"').next()
}

pub(super) fn number_after(bytes: &[u8], label: &[u8]) -> Option<u64> {
    let start = memchr::memmem::find(bytes, label)? + label.len();
    let digits = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit());
    let digits: Vec<u8> = digits.copied().collect();
    String::from_utf8(digits).ok()?.parse().ok()
}
