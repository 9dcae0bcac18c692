//! How an agent's connection begins and ends, and what that means for the order under way.

use std::cmp::Reverse;
use std::hash::{BuildHasher, RandomState};
use std::io;

use mio::{Interest, Token};

use super::clock::{SECOND, now};
use super::connection::{Step, dial};
use super::engine::{Engine, Pending};
use super::frame::{self, CLOSE};

/// An agent that lost its connection without an error reconnects at a random moment within this time.
const RETURN_JITTER_MS: u64 = 1000;
const NORMAL_CLOSURE: u16 = 1000;

impl Engine {
    pub(super) fn start(&mut self, agent: usize, due: Option<u64>) {
        let connection = &mut self.connections[agent];
        connection.due = due;
        match dial(self.target, agent) {
            Ok(stream) => {
                connection.stream = Some(stream);
                connection.step = Step::Dialling;
                self.upgrade(agent);
            }
            Err(error) => {
                connection.step = Step::Dialling;
                self.fail(agent, &error.kind().to_string());
            }
        }
    }

    /// Sends the upgrade. On loopback this mostly succeeds at once; otherwise epoll reports when the connection is
    /// ready.
    pub(super) fn upgrade(&mut self, agent: usize) {
        let connection = &mut self.connections[agent];
        let interest = match connection.send(self.requests.upgrade()) {
            Ok(()) => Interest::READABLE,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected) => {
                Interest::READABLE | Interest::WRITABLE
            }
            Err(error) => return self.fail(agent, &error.kind().to_string()),
        };
        let Some(stream) = &mut connection.stream else {
            return;
        };
        if interest == Interest::READABLE {
            connection.step = Step::Upgrading;
        }
        let registry = self.poll.registry();
        // The connection is registered already if it had to wait.
        let registered = registry
            .register(stream, Token(agent), interest)
            .or_else(|_| registry.reregister(stream, Token(agent), interest));
        if let Err(error) = registered {
            self.fail(agent, &error.kind().to_string());
        }
    }

    pub(super) fn leave(&mut self, agent: usize) {
        let connection = &mut self.connections[agent];
        if connection.step != Step::Present {
            return;
        }
        let close = frame::masked(CLOSE, &NORMAL_CLOSURE.to_be_bytes());
        connection.step = Step::Leaving;
        self.present -= 1;
        self.leaving += 1;
        if connection.send(&close).is_err() {
            self.fail(agent, "gone");
        }
    }

    /// Records that the agent has reached its goal.
    pub(super) fn arrived(&mut self, agent: usize) {
        let connection = &mut self.connections[agent];
        connection.step = Step::Present;
        self.present += 1;
        if let (Pending::Arrivals(arrivals), Some(due)) = (&mut self.pending, connection.due.take()) {
            arrivals.arrived(due, now());
        }
    }

    /// Records that the server refused the agent, perhaps with a hint when to come again.
    pub(super) fn refused(&mut self, agent: usize, reason: &str, come_back: Option<u64>) {
        match come_back {
            Some(_) => self.hinted += 1,
            None => self.unhinted += 1,
        }
        self.connections[agent].come_back_after_ms = come_back;
        self.fail(agent, reason);
    }

    /// Records that the server refused the lesson for now. An agent that tries again does so on the same connection.
    pub(super) fn not_yet(&mut self, agent: usize, reason: &str, hint: Option<u64>) {
        match hint {
            Some(wait) if self.returning => {
                self.hinted += 1;
                self.returns.push(Reverse((now() + wait * SECOND / 1000, agent)));
            }
            _ => self.refused(agent, reason, hint),
        }
    }

    /// Lets an agent try again that was sent away, or whose lesson was refused. Agents without a hint have tried again
    /// already.
    pub(super) fn come_again(&mut self, agent: usize) {
        match self.connections[agent].step {
            Step::Away => self.start(agent, None),
            Step::Joining => self.join(agent),
            _ => {}
        }
    }

    pub(super) fn join(&mut self, agent: usize) {
        let connection = &mut self.connections[agent];
        connection.step = Step::Joining;
        if let Err(error) = connection.send(self.requests.join(agent)) {
            self.fail(agent, &error.kind().to_string());
        }
    }

    /// Records that the connection has ended.
    pub(super) fn fail(&mut self, agent: usize, reason: &str) {
        let connection = &mut self.connections[agent];
        let step = std::mem::replace(&mut connection.step, Step::Away);
        connection.stream = None;
        connection.tail.clear();
        let (due, told) = (connection.due.take(), connection.come_back_after_ms.take());
        match (step, &mut self.pending) {
            (Step::Away, _) => return,
            (Step::Leaving, _) => {
                self.leaving -= 1;
                return;
            }
            (Step::Present, _) => {
                self.present -= 1;
                *self.lost.entry(reason.to_owned()).or_default() += 1;
            }
            (_, Pending::Arrivals(arrivals)) if due.is_some() => arrivals.failed(reason),
            _ => {}
        }
        if self.returning {
            let random = RandomState::new().hash_one(agent);
            let wait = told.unwrap_or(random % RETURN_JITTER_MS);
            let due = now() + wait * SECOND / 1000;
            self.returns.push(Reverse((due, agent)));
        }
    }
}
