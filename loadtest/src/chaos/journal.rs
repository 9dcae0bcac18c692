//! What clients saw, connection by connection: the ledger's one side.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value;

use rollcall_loadtest::view::View;

/// The place in the stream from which a client wants to go on.
#[derive(Debug, Clone)]
pub(super) struct Resumption {
    pub(super) epoch: String,
    pub(super) offset: u64,
    pub(super) lesson: Option<String>,
}

/// What a client was told of the lesson that its connection is in.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing for certain: its request is under way, or it resumed and did not recover.
    #[default]
    Unknown,
    None,
    In(String),
}

/// What a connection's client knows, and where it would resume.
#[derive(Debug, Default, Clone)]
pub(super) struct Progress {
    /// None where it asked for no offsets.
    pub(super) position: Option<Resumption>,
    pub(super) view: View,
    /// Whether the view has a list, so that it must be whole.
    pub(super) listed: bool,
    pub(super) told: Told,
}

/// A connection's progress, for the connection that resumes from it and for the check of its view.
pub(super) type SharedProgress = Arc<Mutex<Progress>>;

/// What connect_success said.
#[derive(Debug, Clone)]
pub(super) struct Success {
    pub(super) session: i64,
    /// When it came.
    pub(super) at: Instant,
    pub(super) sid: String,
    /// Where the client asked for offsets: the stream's epoch, and the offset.
    pub(super) epoch: Option<String>,
    pub(super) offset: Option<u64>,
    pub(super) recovered: Option<bool>,
}

/// A push, by its subject and its entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) offset: Option<u64>,
    pub(super) key: String,
}

/// One connection.
#[derive(Debug, Default, Clone)]
pub(super) struct Connection {
    pub(super) agent: String,
    pub(super) classroom: String,
    pub(super) node: usize,
    pub(super) asked: Option<Resumption>,
    pub(super) success: Option<Success>,
    /// Lessons whose join was acknowledged, and after how many pushes; none where it was in it from the start.
    pub(super) lessons: BTreeMap<String, Option<usize>>,
    pub(super) seen: Vec<Seen>,
    /// What ended it, in words.
    pub(super) end: String,
    /// Whether it was still open, and read from, when all agents left.
    pub(super) stayed: bool,
}

impl Connection {
    /// Whether its client was told that an operator ended the session.
    pub(super) fn was_kicked(&self) -> bool {
        self.end.contains("\"kicked\"")
    }
}

/// A client that reads from its connection.
#[derive(Debug, Clone)]
pub(super) struct Somebody {
    /// Who and where, in words.
    pub(super) who: String,
    pub(super) session: i64,
    pub(super) classroom: String,
    pub(super) progress: SharedProgress,
}

/// All connections of a seed: those that have ended, and those that are open.
#[derive(Debug, Default)]
pub(super) struct Journal {
    over: Mutex<Vec<Connection>>,
    /// By sid.
    present: Mutex<BTreeMap<String, Somebody>>,
    states: Mutex<BTreeMap<i64, SetStates>>,
}

/// The numbers that a session was set to as its state, each higher than the one before.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct SetStates {
    /// The last one that was sent.
    pub(super) sent: u64,
    /// The last one that was answered with a success.
    pub(super) acked: u64,
}

impl Journal {
    pub(super) fn add(&self, connection: Connection) {
        locked(&self.over).push(connection);
    }

    /// The number that a session's state is set to next.
    pub(super) fn next_state(&self, session: i64) -> u64 {
        let mut states = locked(&self.states);
        let set = states.entry(session).or_default();
        set.sent += 1;
        set.sent
    }

    /// A success for this number came.
    pub(super) fn state_acked(&self, session: i64, number: u64) {
        let mut states = locked(&self.states);
        let set = states.entry(session).or_default();
        set.acked = set.acked.max(number);
    }

    /// What the sessions' states were set to.
    pub(super) fn states(&self) -> BTreeMap<i64, SetStates> {
        locked(&self.states).clone()
    }

    pub(super) fn read(&self) -> Vec<Connection> {
        locked(&self.over).clone()
    }

    /// A client was let in, and reads from now on.
    pub(super) fn enter(&self, connection: &Connection, progress: SharedProgress) -> Present<'_> {
        let Connection { agent, classroom, node, success, .. } = connection;
        let (sid, session) = success.as_ref().map(|success| (success.sid.clone(), success.session)).unzip();
        let sid = sid.unwrap_or_default();
        let who = format!("{agent} on node {node} as {sid} in session {}", session.unwrap_or_default());
        let session = session.unwrap_or_default();
        self.present().insert(sid.clone(), Somebody { who, session, classroom: classroom.clone(), progress });
        Present { journal: self, sid }
    }

    /// By sid: the open connections that a client reads.
    pub(super) fn present(&self) -> MutexGuard<'_, BTreeMap<String, Somebody>> {
        locked(&self.present)
    }
}

/// A client reads from its connection while this lives.
pub(super) struct Present<'a> {
    journal: &'a Journal,
    sid: String,
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        self.journal.present().remove(&self.sid);
    }
}

/// Each is whole after any panic.
pub(super) fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the key of an agent.updated begins; the session and the version follow.
pub(super) const UPDATED: &str = "agent.updated ";

/// What an event is about, the same in the stream and in a push.
pub(super) fn key(body: &Value) -> String {
    if let Some(note) = body["note"].as_str() {
        return format!("note {note}");
    }
    let id = &body["id"];
    match (id["entity_type"].as_str(), id["operation"].as_str(), id["sequence_id"].as_i64()) {
        // One session has many.
        (Some("agent"), Some("updated"), Some(session)) => {
            format!("{UPDATED}{session} n{}", body["payload"]["state_n"])
        }
        (Some(entity), Some(operation), Some(sequence)) => format!("{entity}.{operation} {sequence}"),
        _ => format!("unknown {body}"),
    }
}
