//! The clients' part of the ledger: what they saw, connection by connection.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value;

use rollcall_loadtest::view::View;

/// The position in the stream after which a client wants to resume.
#[derive(Debug, Clone)]
pub(super) struct Resumption {
    pub(super) epoch: String,
    pub(super) offset: u64,
    pub(super) lesson: Option<String>,
}

/// What the client of a connection was told of its lesson.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing certain: the client's request is under way, or the client resumed and did not recover.
    #[default]
    Unknown,
    None,
    In(String),
}

/// What a connection's client knows, and the position after which it would resume.
#[derive(Debug, Default, Clone)]
pub(super) struct Progress {
    /// `None` if it asked for no offsets.
    pub(super) position: Option<Resumption>,
    pub(super) view: View,
    /// Whether the view includes a list, so that it must be complete.
    pub(super) listed: bool,
    pub(super) told: Told,
}

/// A connection's progress. The connection that resumes from it and the check of its view read it.
pub(super) type SharedProgress = Arc<Mutex<Progress>>;

/// What connect_success said.
#[derive(Debug, Clone)]
pub(super) struct Success {
    pub(super) session: i64,
    /// When connect_success came.
    pub(super) at: Instant,
    pub(super) sid: String,
    /// The stream's epoch if the client asked for offsets. Then `offset` is set, too.
    pub(super) epoch: Option<String>,
    pub(super) offset: Option<u64>,
    pub(super) recovered: Option<bool>,
}

/// A push, with its offset and the key of its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) offset: Option<u64>,
    pub(super) key: String,
}

/// One connection, and what its client saw.
#[derive(Debug, Default, Clone)]
pub(super) struct Connection {
    pub(super) agent: String,
    pub(super) classroom: String,
    pub(super) node: usize,
    pub(super) asked: Option<Resumption>,
    pub(super) success: Option<Success>,
    /// Lessons whose join was acknowledged, and the number of pushes before the ack. `None` if the connection was in
    /// the lesson from its start.
    pub(super) lessons: BTreeMap<String, Option<usize>>,
    pub(super) seen: Vec<Seen>,
    /// What ended the connection, in words.
    pub(super) end: String,
    /// The session error that the client was told.
    pub(super) error: Option<Value>,
    /// The code of the close frame, if there was one.
    pub(super) code: Option<u16>,
    /// Whether the connection was open and read when all agents left.
    pub(super) stayed: bool,
}

impl Connection {
    /// Returns whether the client was told that an operator ended the session.
    pub(super) fn was_kicked(&self) -> bool {
        self.error_is("kicked")
    }

    /// Returns whether the client was told that it must not come back, for another reason than a newer connection.
    pub(super) fn ended_permanently(&self) -> bool {
        let of_type = |error: &Value| error["type"] == "unrecoverable_session_error";
        self.error.as_ref().is_some_and(of_type) && !self.error_is("replaced")
    }

    fn error_is(&self, kind: &str) -> bool {
        self.error.as_ref().is_some_and(|error| error["payload"]["type"] == kind)
    }
}

/// An open connection that a client reads.
#[derive(Debug, Clone)]
pub(super) struct Somebody {
    /// The agent and its node, in words.
    pub(super) who: String,
    pub(super) session: i64,
    pub(super) classroom: String,
    pub(super) progress: SharedProgress,
}

/// All connections of a seed, ended and open ones.
#[derive(Debug, Default)]
pub(super) struct Journal {
    over: Mutex<Vec<Connection>>,
    /// The open connections by sid.
    present: Mutex<BTreeMap<String, Somebody>>,
    states: Mutex<BTreeMap<i64, SetStates>>,
}

/// The numbers to which a session set its state, in ascending order.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct SetStates {
    /// The last number that was sent.
    pub(super) sent: u64,
    /// The last number that was acknowledged with a success.
    pub(super) acked: u64,
}

impl Journal {
    pub(super) fn add(&self, connection: Connection) {
        locked(&self.over).push(connection);
    }

    /// Returns the next number for a session's state.
    pub(super) fn next_state(&self, session: i64) -> u64 {
        let mut states = locked(&self.states);
        let set = states.entry(session).or_default();
        set.sent += 1;
        set.sent
    }

    /// Records that this number was acknowledged with a success.
    pub(super) fn state_acked(&self, session: i64, number: u64) {
        let mut states = locked(&self.states);
        let set = states.entry(session).or_default();
        set.acked = set.acked.max(number);
    }

    /// Returns the numbers of all sessions.
    pub(super) fn states(&self) -> BTreeMap<i64, SetStates> {
        locked(&self.states).clone()
    }

    pub(super) fn read(&self) -> Vec<Connection> {
        locked(&self.over).clone()
    }

    /// Records that a client has entered, and reads from now on.
    pub(super) fn enter(&self, connection: &Connection, progress: SharedProgress) -> Present<'_> {
        let Connection { agent, classroom, node, success, .. } = connection;
        let (sid, session) = success.as_ref().map(|success| (success.sid.clone(), success.session)).unzip();
        let sid = sid.unwrap_or_default();
        let who = format!("{agent} on node {node} as {sid} in session {}", session.unwrap_or_default());
        let session = session.unwrap_or_default();
        self.present().insert(sid.clone(), Somebody { who, session, classroom: classroom.clone(), progress });
        Present { journal: self, sid }
    }

    /// Returns the open connections that a client reads, by sid.
    pub(super) fn present(&self) -> MutexGuard<'_, BTreeMap<String, Somebody>> {
        locked(&self.present)
    }
}

/// While this value lives, a client reads its connection.
pub(super) struct Present<'a> {
    journal: &'a Journal,
    sid: String,
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.journal.present().remove(&self.sid);
    }
}

/// Locks a mutex, even if a thread panicked with it: each of these values is consistent at any time.
pub(super) fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The beginning of the key of an agent.entered; the session follows.
pub(super) const ENTERED: &str = "agent.entered ";

/// The beginning of the key of an agent.updated; the session and the version follow.
pub(super) const UPDATED: &str = "agent.updated ";

/// Returns the key of an event. The key is the same in the stream and in a push.
pub(super) fn key(body: &Value) -> String {
    if let Some(note) = body["note"].as_str() {
        return format!("note {note}");
    }
    let id = &body["id"];
    match (id["entity_type"].as_str(), id["operation"].as_str(), id["sequence_id"].as_i64()) {
        // A session has many updates, so the key has the version, too.
        (Some("agent"), Some("updated"), Some(session)) => {
            format!("{UPDATED}{session} n{}", body["payload"]["state_n"])
        }
        (Some(entity), Some(operation), Some(sequence)) => format!("{entity}.{operation} {sequence}"),
        _ => format!("unknown {body}"),
    }
}
