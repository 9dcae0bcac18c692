//! The orders of the command to its worker processes, and their answers: lines of JSON on a pipe.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The agents of a worker. They fill rooms of `room_size` one after the other.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Crowd {
    /// A number that makes the users, rooms and lessons of this crowd different from those of another.
    pub(crate) tag: u16,
    /// The first agent of this worker.
    pub(crate) first: usize,
    pub(crate) agents: usize,
    pub(crate) room_size: usize,
    /// The agents have no tokens. So a lesson of 10,000 fills without 50 million entered events.
    pub(crate) guests: bool,
    /// The agents ask for resumption, and an agent that reconnects asks for what it missed.
    pub(crate) resume: bool,
    /// Each agent reads the whole roster of its room when it enters.
    pub(crate) roster: bool,
    /// The agents speak Socket.IO over WebSocket. Either all crowds of a crew do, or none.
    pub(crate) socketio: bool,
}

impl Crowd {
    /// Creates a crowd of agents with tokens.
    pub(crate) fn new(tag: u16, agents: usize, room_size: usize) -> Self {
        Self { tag, first: 0, agents, room_size, guests: false, resume: false, roster: false, socketio: false }
    }

    /// Creates a crowd of guests.
    pub(crate) fn guests(tag: u16, agents: usize, room_size: usize) -> Self {
        Self { guests: true, ..Self::new(tag, agents, room_size) }
    }

    /// Returns the same crowd, of clients that resume.
    pub(crate) fn resuming(self) -> Self {
        Self { resume: true, ..self }
    }

    /// Returns the same crowd, each agent with a roster.
    pub(crate) fn with_rosters(self) -> Self {
        Self { roster: true, ..self }
    }

    /// Returns the same crowd, of clients that speak Socket.IO.
    pub(crate) fn over_socketio(self) -> Self {
        Self { socketio: true, ..self }
    }

    /// Returns the next `agents` of this crowd. They are prepared separately from the first agents.
    pub(crate) fn then(&self, agents: usize) -> Self {
        Self { first: self.first + self.agents, agents, ..self.clone() }
    }

    pub(crate) fn classroom(&self, room: usize) -> String {
        format!("00000000-0000-4000-{:04x}-{room:012x}", 0x8000 | self.tag)
    }

    pub(crate) fn lesson(&self, room: usize) -> String {
        format!("load-{}-{room}", self.tag)
    }

    pub(crate) fn user(&self, agent: usize) -> String {
        format!("load-{}-{agent}", self.tag)
    }

    /// Returns the rooms that the first `first + agents` agents fill.
    pub(crate) fn rooms(&self) -> std::ops::Range<usize> {
        self.first / self.room_size..(self.first + self.agents).div_ceil(self.room_size)
    }
}

/// An order for a worker. Each is answered by one [`Answer`], in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Prepares the requests of a crowd, in addition to those before.
    Prepare { crowd: Crowd, target: SocketAddr },
    /// Lets agents arrive.
    Arrive(Arrive),
    /// Lets agents leave, with a close frame each.
    Leave { first: usize, count: usize },
    /// Counts pushes from zero, and measures them in this way.
    Listen(Listen),
    /// Answers when this many pushes have come since `Listen`, or at the deadline.
    Await { pushes: u64, deadline: u64 },
    /// Makes every n-th agent stop reading.
    Stall { every: usize },
    /// From now on agents whose connection breaks reconnect by themselves.
    Return { on: bool },
    /// Answers when all of these agents have reached their goal, or at the deadline.
    AwaitPresent { first: usize, count: usize, deadline: u64 },
    /// Answers at once with a [`Tally`].
    Count,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Arrive {
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) pace: Pace,
    pub(crate) goal: Goal,
    pub(crate) start: u64,
    pub(crate) deadline: u64,
}

/// When agents arrive.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// This many agents arrive in a second, however fast the server is. The latency counts from the time at which each
    /// agent was due.
    Rate(f64),
    /// The agents arrive as fast as the server accepts them, with this many under way at once.
    Window(usize),
}

/// What an agent waits for before it has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Goal {
    /// The answer to connect_request.
    Connected,
    /// The ack of join_lesson as well.
    Joined,
}

/// How pushes are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Listen {
    /// Pushes are only counted.
    Count,
    /// The time from the push's `at` to its arrival is measured.
    Each,
    /// The time from the push's `at` to its arrival at the last of this many agents is measured.
    LastOf(u32),
}

/// A worker's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The order was carried out at this moment; or for an `Await`, the deadline has passed.
    Done { at: u64, in_time: bool },
    /// The result of an `Arrive`.
    Arrived(Arrived),
    /// The result of a `Count`.
    Counted(Tally),
    /// How many agents have arrived so far. Workers send this without an order.
    Progress { present: usize },
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Arrived {
    pub(crate) began: u64,
    pub(crate) ended: u64,
    /// For each agent: when it was due, counted from `began`, and how long its arrival took, both in microseconds.
    pub(crate) samples: Vec<(u32, u32)>,
    /// Agents that did not connect, by reason.
    pub(crate) failures: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) present: usize,
    pub(crate) pushes: u64,
    pub(crate) push_bytes: u64,
    /// Connections that the agent did not end, by close code or by what happened.
    pub(crate) lost: BTreeMap<String, u64>,
    /// Refusals that told the client when to come again; `unhinted` counts those that did not.
    pub(crate) hinted: u64,
    pub(crate) unhinted: u64,
    /// Agents that reconnected with `recovered: true`.
    pub(crate) recovered: u64,
    /// Latencies in nanoseconds, and how often each occurred.
    pub(crate) latencies: Vec<(u64, u64)>,
}

impl Tally {
    /// Adds what another worker counted.
    pub(crate) fn add(&mut self, other: Self) {
        self.present += other.present;
        self.pushes += other.pushes;
        self.push_bytes += other.push_bytes;
        self.hinted += other.hinted;
        self.unhinted += other.unhinted;
        self.recovered += other.recovered;
        self.latencies.extend(other.latencies);
        for (reason, count) in other.lost {
            *self.lost.entry(reason).or_default() += count;
        }
    }
}
