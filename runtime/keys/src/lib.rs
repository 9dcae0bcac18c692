//! The keys of PROTOCOL 4 behind one trait, with Redis or a map in the process.
//!
//! Invariant: the keys are derived from SQL. Every write compares the value that it replaces, so a late or repeated
//! write does no harm: a field is only removed for the connection that it names, and only missing numbers are added to
//! a seat map.
mod address;
mod calls;
mod clock;
mod cluster;
mod commands;
mod connect;
mod connection;
mod dial;
mod marker;
pub mod memory;
mod names;
mod redis;
mod scripts;
mod sentinel;
mod state;

pub use connect::{RedisOptions, check_certificates, check_url, connect};

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use rollcall_schema::{LessonId, Role, Sid, UserId};

/// Why the keys could not be read or written: the server is away, or did not answer in time.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the key store is away: {0}")]
pub struct KeysError(pub String);

/// A join that failed. What it had written is undone as far as servers answer. On a cluster each key may be on another
/// node, so some nodes may have written their part.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct FailedJoin {
    /// Why the keys were not written.
    pub error: KeysError,
    /// A field whose owner only SQL can tell. In one case the field of another connection was put back, and that
    /// connection may have left meanwhile without finding its field. In the other case the field was this connection's
    /// already, and the value before its earlier attempt is unknown. A removal of the field corrects both.
    pub unsettled: Option<KeyField>,
}

impl From<KeysError> for FailedJoin {
    fn from(error: KeysError) -> Self {
        Self { error, unsettled: None }
    }
}

/// A join as the keys represent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// The lesson.
    pub lesson: LessonId,
    /// The least number of seats in the seat map.
    pub seats: u32,
    /// The connection.
    pub sid: Sid,
    /// The user whose keys to write (the seed's user_id or client_id, depending on the role). A guest has none, and
    /// only gets the seat map.
    pub user: Option<(UserId, Role)>,
}

impl KeyEntry {
    /// Returns the user's field in the lesson's hash, or `None` for a guest.
    #[must_use]
    pub fn field(&self) -> Option<KeyField> {
        let (user, _) = self.user.as_ref()?;
        Some(KeyField { lesson: self.lesson.clone(), user: user.clone(), sid: self.sid })
    }

    /// Returns whether this join removes the field of the connection's earlier join.
    fn removes(&self, before: &EarlierField) -> bool {
        !before.stays && before.lesson != self.lesson
    }

    /// Returns the field of the connection's earlier join, if this join leaves it in its hash. `None` if both joins have
    /// the same field.
    #[must_use]
    pub fn leaves(&self, EarlierField { lesson, role, stays }: EarlierField) -> Option<KeyField> {
        let (user, now) = self.user.as_ref()?;
        let same = lesson == self.lesson && (role == Role::Teacher) == (*now == Role::Teacher);
        (stays && !same).then(|| KeyField { lesson, user: user.clone(), sid: self.sid })
    }
}

/// The field that an earlier join of a connection wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierField {
    /// The lesson of the earlier join.
    pub lesson: LessonId,
    /// The role of the earlier join.
    pub role: Role,
    /// Whether a join of another lesson leaves the field in its hash. The field may then belong to another connection
    /// of the user. The field's removal finds that out.
    pub stays: bool,
}

pub use rollcall_schema::{KeyField, StaleField, Successors};

/// How long a call may take. A join that was not carried out by then is never carried out.
pub const CALL_LIMIT: Duration = Duration::from_millis(1500);

/// The keys. Every call returns within [`CALL_LIMIT`]. On a single server it takes one round trip.
#[async_trait]
pub trait LessonKeys: Send + Sync + 'static {
    /// Returns the name of the kind: `redis` or `memory`.
    fn name(&self) -> &'static str;
    /// Returns whether answered writes may be lost, for example when a server's replica takes over. If so, removals are
    /// kept for a while, and repeated after a loss.
    fn may_lose(&self) -> bool {
        false
    }
    /// Writes what a join writes on every server, to keys of its own. If it succeeds, a join can succeed, and each
    /// server has carried out what was sent to it before.
    async fn ping(&self) -> Result<(), KeysError>;
    /// Writes the seed's join: the missing numbers of the seat map, the user's keys, and the TTLs. It also removes the
    /// field in the lesson that is left (`before`), if the field names this connection. Returns true if a participant's
    /// `{client_id}` existed before. A key that this connection wrote counts only if the connection has left a lesson,
    /// because otherwise a failed attempt of this connection may have written the key.
    async fn join(&self, entry: &KeyEntry, before: Option<&EarlierField>) -> Result<bool, FailedJoin>;
    /// Removes fields, or sets them to their successor. A batch has at most a thousand.
    async fn remove(&self, fields: &[StaleField]) -> Result<(), KeysError>;
    /// Returns the lesson's seat map: each number and its value, which is empty if the seat is free. It is empty if no
    /// client has joined the lesson.
    async fn seats(&self, lesson: &LessonId) -> Result<BTreeMap<u32, String>, KeysError>;
    /// Removes the user's own key and its field in these lessons, whatever they contain. At most a thousand lessons are
    /// allowed.
    async fn erase(&self, user: &UserId, lessons: &[LessonId]) -> Result<(), KeysError>;
    /// Adds what is missing of these joins (numbers of seat maps, fields, and users' keys), changes no existing value,
    /// and renews TTLs. A batch has at most a thousand. Returns false only if certainly nothing was missing.
    async fn repair(&self, entries: &[KeyEntry]) -> Result<bool, KeysError>;
    /// Returns whether every write from before the last probe is still there, as far as a marker key on each server and
    /// the server's replication id tell. If false, as at the first probe, all keys must be written again, and removals
    /// repeated. The marker has a TTL. Its name contains a `:`, which no user's id may contain.
    async fn probe(&self, marker: &str) -> Result<bool, KeysError>;
}
