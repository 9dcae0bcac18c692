//! What clients saw, connection by connection: the ledger's one side.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// Where a client wants to go on.
#[derive(Debug, Clone)]
pub(super) struct Resumption {
    pub(super) epoch: String,
    pub(super) offset: u64,
    pub(super) lesson: Option<String>,
}

/// What connect_success said.
#[derive(Debug, Clone)]
pub(super) struct Success {
    pub(super) session: i64,
    pub(super) sid: String,
    /// Where the client asked for offsets.
    pub(super) offset: Option<u64>,
    pub(super) recovered: Option<bool>,
}

/// A push, by what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) offset: Option<u64>,
    pub(super) key: String,
}

/// One connection.
#[derive(Debug, Clone)]
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
    /// Whether it was there when everybody left.
    pub(super) stayed: bool,
}

/// All connections of a seed: those that are over, and who is connected.
#[derive(Debug, Default)]
pub(super) struct Journal {
    over: Mutex<Vec<Connection>>,
    /// By sid: who and where, in words.
    present: Mutex<BTreeMap<String, String>>,
}

impl Journal {
    pub(super) fn add(&self, connection: Connection) {
        self.over.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    pub(super) fn read(&self) -> Vec<Connection> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A client was let in, and reads from now on.
    pub(super) fn enter(&self, connection: &Connection) -> Present<'_> {
        let Connection { agent, node, success, .. } = connection;
        let (sid, session) = success.as_ref().map(|success| (success.sid.clone(), success.session)).unzip();
        let sid = sid.unwrap_or_default();
        let who = format!("{agent} on node {node} as {sid} in session {}", session.unwrap_or_default());
        self.present().insert(sid.clone(), who);
        Present { journal: self, sid }
    }

    /// By sid: who reads from a connection that nobody ended yet.
    pub(super) fn present(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
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

/// What an event is about, the same in the stream and in a push.
pub(super) fn key(body: &Value) -> String {
    if let Some(note) = body["note"].as_str() {
        return format!("note {note}");
    }
    let id = &body["id"];
    match (id["entity_type"].as_str(), id["operation"].as_str(), id["sequence_id"].as_i64()) {
        (Some(entity), Some(operation), Some(sequence)) => format!("{entity}.{operation} {sequence}"),
        _ => format!("unknown {body}"),
    }
}
