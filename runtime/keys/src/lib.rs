//! The keys of PROTOCOL 4, behind one trait: Redis, or a map in process.
//!
//! Invariant: the keys are a projection of SQL. Every write compares what it replaces, so a late or repeated one does no
//! harm: a field is removed only by the connection that it names, of a seat map only numbers that are missing are added.
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

pub use connect::{RedisOptions, check_url, connect};

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use rollcall_schema::{LessonId, Role, Sid, UserId};

/// Why the keys could not be read or written: the server is away, or did not answer in time.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the key store is away: {0}")]
pub struct KeysError(pub String);

/// A join that failed. What it had written is undone as far as servers answer: on a cluster, where each key may be on
/// another node, some may have written their part.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct FailedJoin {
    /// Why the keys were not written.
    pub error: KeysError,
    /// A field of which SQL has to tell whose it is. Another connection's was put back: that one may have left meanwhile, and
    /// not have found its field. Or it was this connection's already, and what its earlier try replaced is not known.
    /// Its removal puts it right.
    pub unsettled: Option<KeyField>,
}

impl From<KeysError> for FailedJoin {
    fn from(error: KeysError) -> Self {
        Self { error, unsettled: None }
    }
}

/// A join, as the keys hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// The lesson.
    pub lesson: LessonId,
    /// The seat map has at least this many numbers.
    pub seats: u32,
    /// The connection.
    pub sid: Sid,
    /// The user whose keys to write (the seed's user_id or client_id, by role). None for a guest, which has the seat map only.
    pub user: Option<(UserId, Role)>,
}

impl KeyEntry {
    /// The user's field of the lesson; none for a guest.
    #[must_use]
    pub fn field(&self) -> Option<KeyField> {
        let (user, _) = self.user.as_ref()?;
        Some(KeyField { lesson: self.lesson.clone(), user: user.clone(), sid: self.sid })
    }
}

pub use rollcall_schema::{KeyField, StaleField};

/// How long a call takes at most. A join that was not carried out by then never is.
pub const CALL_LIMIT: Duration = Duration::from_millis(1500);

/// The keys. Every call answers within [`CALL_LIMIT`]; on a single server it is one round trip.
#[async_trait]
pub trait LessonKeys: Send + Sync + 'static {
    /// `redis` or `memory`.
    fn name(&self) -> &'static str;
    /// Whether writes that were answered may be lost, as when a server's replica takes over: then removals are kept for a
    /// while, and repeated after a loss.
    fn may_lose(&self) -> bool {
        false
    }
    /// Writes what joins write, on every server, to keys of its own. If it succeeds, a join can, and each server has
    /// carried out what was sent to it before.
    async fn ping(&self) -> Result<(), KeysError>;
    /// The seed's join: the numbers that the seat map lacks, the user's keys, TTLs; the field in the lesson left (`before`:
    /// the one that has this connection's field) goes if it is this connection's. True where a participant's
    /// `{client_id}` was there before; one that this connection has written counts where it left a lesson, and else not:
    /// a try of its own may have failed.
    async fn join(&self, entry: &KeyEntry, before: Option<&LessonId>) -> Result<bool, FailedJoin>;
    /// Removes fields, or sets them to their successor. Batches of at most a thousand.
    async fn remove(&self, fields: &[StaleField]) -> Result<(), KeysError>;
    /// The lesson's seat map: each number and its value, which is empty where the seat is free. No numbers where nobody has
    /// joined.
    async fn seats(&self, lesson: &LessonId) -> Result<BTreeMap<u32, String>, KeysError>;
    /// Removes the user's own key, and its field in these lessons, whatever they hold. At most a thousand lessons.
    async fn erase(&self, user: &UserId, lessons: &[LessonId]) -> Result<(), KeysError>;
    /// Makes what is missing of these joins (numbers of seat maps, fields, the user's keys), changes nothing that is
    /// there, renews TTLs. Batches of at most a thousand. False if certainly nothing was missing.
    async fn repair(&self, entries: &[KeyEntry]) -> Result<bool, KeysError>;
    /// Whether everything is there that was written before the last probe, as far as a marker key on each server tells,
    /// and the server's replication id. If false, as at the first probe, everything must be written again, and removals
    /// repeated. The marker has a TTL, and in its name a `:`, which no user's id may hold.
    async fn probe(&self, marker: &str) -> Result<bool, KeysError>;
}
