//! What the command tells its worker processes and what they answer: lines of JSON on a pipe.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Agents that a worker plays: rooms of `room_size`, filled in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Crowd {
    /// Tells the users, rooms and lessons of one crowd from those of another.
    pub(crate) tag: u16,
    /// The first agent of this worker.
    pub(crate) first: usize,
    pub(crate) agents: usize,
    pub(crate) room_size: usize,
    /// Without tokens: a lesson of 10,000 fills without 50 million entered events.
    pub(crate) guests: bool,
    /// They ask for resumption, and one that reconnects asks for what it missed.
    pub(crate) resume: bool,
    /// Each reads the whole roster of its room when it enters.
    pub(crate) roster: bool,
    /// They speak Socket.IO over WebSocket. All crowds of one crew do, or none.
    pub(crate) socketio: bool,
}

impl Crowd {
    /// A crowd of agents with tokens.
    pub(crate) fn new(tag: u16, agents: usize, room_size: usize) -> Self {
        Self { tag, first: 0, agents, room_size, guests: false, resume: false, roster: false, socketio: false }
    }

    /// A crowd of guests.
    pub(crate) fn guests(tag: u16, agents: usize, room_size: usize) -> Self {
        Self { guests: true, ..Self::new(tag, agents, room_size) }
    }

    /// The same, of clients that resume.
    pub(crate) fn resuming(self) -> Self {
        Self { resume: true, ..self }
    }

    /// The same, each with a roster.
    pub(crate) fn with_rosters(self) -> Self {
        Self { roster: true, ..self }
    }

    /// The same, of clients that speak Socket.IO.
    pub(crate) fn over_socketio(self) -> Self {
        Self { socketio: true, ..self }
    }

    /// The next `agents` of this crowd, which are to be made ready apart from the first.
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

    /// The rooms that `first + agents` agents fill.
    pub(crate) fn rooms(&self) -> std::ops::Range<usize> {
        self.first / self.room_size..(self.first + self.agents).div_ceil(self.room_size)
    }
}

/// One thing for a worker to do. Each is answered by one [`Answer`], in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Makes the requests of a crowd ready, in addition to those before.
    Prepare { crowd: Crowd, target: SocketAddr },
    /// Lets agents arrive.
    Arrive(Arrive),
    /// Lets agents leave, with a close frame each.
    Leave { first: usize, count: usize },
    /// Counts pushes from zero and measures them so.
    Listen(Listen),
    /// Answers when so many pushes have come since `Listen`, or at the deadline.
    Await { pushes: u64, deadline: u64 },
    /// Every n-th agent stops reading.
    Stall { every: usize },
    /// From now on agents whose connection breaks come back by themselves.
    Return { on: bool },
    /// Answers when all of these agents are where they want to be, or at the deadline.
    AwaitPresent { first: usize, count: usize, deadline: u64 },
    /// Answers at once.
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

/// When agents come.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// This many a second whatever happens; latency counts from the moment at which each was due.
    Rate(f64),
    /// As fast as the server lets them in, with this many under way at once.
    Window(usize),
}

/// What an agent that arrives wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Goal {
    /// The answer to connect_request.
    Connected,
    /// The ack of join_lesson too.
    Joined,
}

/// How pushes are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Listen {
    /// Counted.
    Count,
    /// Measures from the moment in the push's `at` to its arrival.
    Each,
    /// Measures from that moment to its arrival at the last of this many agents.
    LastOf(u32),
}

/// What a worker says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The order was carried out at this moment; or, of an `Await`, the deadline has passed.
    Done { at: u64, in_time: bool },
    /// How an `Arrive` went.
    Arrived(Arrived),
    /// What a `Count` found.
    Counted(Tally),
    /// How many agents have arrived so far; sent without an order.
    Progress { present: usize },
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Arrived {
    pub(crate) began: u64,
    pub(crate) ended: u64,
    /// When each was due and how long it took, in microseconds, the former from `began`.
    pub(crate) samples: Vec<(u32, u32)>,
    /// Agents that did not connect, by reason.
    pub(crate) failures: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) present: usize,
    pub(crate) pushes: u64,
    pub(crate) push_bytes: u64,
    /// Connections that ended without being asked to, by close code or what happened.
    pub(crate) lost: BTreeMap<String, u64>,
    /// Refusals that told the client when to come again, and those that did not.
    pub(crate) hinted: u64,
    pub(crate) unhinted: u64,
    /// Agents that reconnected with `recovered: true`.
    pub(crate) recovered: u64,
    /// Latencies in nanoseconds and how often each came.
    pub(crate) latencies: Vec<(u64, u64)>,
}

impl Tally {
    /// What another worker found, too.
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
