//! Sessions, lessons and history in SQL (PROTOCOL 5), behind one trait: Postgres for many nodes, SQLite for one.
//!
//! Invariant: whatever changes a session, its history row and the event to publish (the outbox) is one transaction, and
//! it carries the node's epoch: a node whose lease was taken commits nothing. Writes come in batches
//! ([`crate::group_commit`]), because a commit costs the same for one row as for 256.
mod aside;
pub mod group_commit;
pub mod postgres;
mod quarantine;
mod remembered;
mod schema;
pub mod sqlite;

use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, Epoch, LessonId, NodeId, Nonce, Role, Seat, SessionId, Sid, UserId};
use tokio::sync::watch;
use uuid::Uuid;

use rollcall_base::{process::ProcessIdentity, tasks::TaskEnded};

/// For how many minutes a removal that was carried out is repeated after a loss of the key store's (PROTOCOL 4).
const REPEATED_MINUTES: i64 = 10;

/// Why the store did not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It did not answer in time or is away. Whether a write took place is unknown.
    #[error("the database is away: {0}")]
    Unavailable(String),
    /// This node's epoch was taken by another: nothing was written, and nothing will be.
    #[error("this node's lease was taken")]
    Fenced,
    /// The database answered, and refused the statement; nothing was written.
    #[error("the database refused: {0}")]
    Refused(String),
}

/// A node's right to write, from [`Store::register`] until another node takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The node.
    pub node: NodeId,
    /// What every write carries.
    pub epoch: Epoch,
}

/// How a node enters the `node` table.
#[derive(Clone, Debug)]
pub struct Registration {
    /// A name for people: host and process.
    pub label: String,
    /// How long the lease holds without a pulse, on the database's clock.
    pub lease: Duration,
    /// Its keys or its bus are in process: no other node may live beside it.
    pub standalone: bool,
    /// Its process, by which a later one on the same machine can tell that it is dead.
    pub process: Option<ProcessIdentity>,
}

/// What a pulse brings back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// Connections of this node whose session another connection took over, until [`Store::ack_takeovers`]: an answer may be lost.
    pub replaced: Vec<Sid>,
    /// Nodes whose lease holds, this one among them.
    pub nodes: u32,
    /// Whether the lease had run out before this, by the store's clock, whatever ours says: so may others' have.
    pub was_expired: bool,
}

/// What waits in the outbox of the whole installation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Rows; above some thousands it is an estimate.
    pub rows: u64,
    /// The age of the oldest; zero where there is none.
    pub lag: Duration,
}

/// An agent enters a classroom. Unique key of a batch: classroom and agent.
#[derive(Clone, Debug)]
pub struct Open {
    /// The classroom.
    pub classroom: ClassroomId,
    /// The agent.
    pub agent: AgentId,
    /// The token's `sub`, which the agent's id holds in another spelling.
    pub user: UserId,
    /// The connection that owns the session from now on.
    pub sid: Sid,
    /// The token's role.
    pub role: Role,
    /// How many sessions the user may have at once: a new one beyond is not opened; a takeover always is.
    pub user_sessions: u32,
}

/// The answer to [`Open`] that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// New, with agent.entered in the outbox; or that of the session taken over, without.
    pub session: SessionId,
    /// The connection that owned it until now, and its node, whose next pulse says so too.
    pub replaced: Option<(NodeId, Sid)>,
}

/// A connection joins a lesson. Unique key of a batch: the sid.
#[derive(Clone, Debug)]
pub struct Join {
    /// The connection.
    pub sid: Sid,
    /// The session to write to; none for a guest.
    pub session: Option<SessionId>,
    /// The classroom that the connection is in: a lesson of another is not found.
    pub classroom: ClassroomId,
    /// The lesson.
    pub lesson: LessonId,
    /// Whose seat to look up; none for a guest.
    pub user: Option<UserId>,
}

/// The answer to [`Join`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// No such lesson in this classroom; nothing was written.
    NotFound,
    /// The session is no longer this connection's (taken over, or ended); nothing was written.
    NotOwner,
    /// Lesson and seat stand in the session's row.
    Lesson {
        /// How many seats the lesson has.
        seats: u32,
        /// The user's own.
        seat: Option<Seat>,
    },
}

/// Puts a session's lesson back to what it was before a join that failed half way. Unique key: the sid.
#[derive(Clone, Debug)]
pub struct RollbackJoin {
    /// The connection.
    pub sid: Sid,
    /// Its session.
    pub session: SessionId,
    /// The lesson and seat before.
    pub lesson: Option<(LessonId, Option<Seat>)>,
}

/// What was done to a database that was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Sessions that were live when the backup was made, and are in the history now.
    pub sessions: u64,
    /// Events that waited in the outbox, and are gone.
    pub events: u64,
}

pub use remembered::{Remembered, Standing};

/// Why a session ended: `Left-Reason` and the history's `reason` (PROTOCOL 3).
pub use rollcall_schema::{Change, LeftReason};

/// A connection's session ends, if it is still that connection's. Unique key: classroom and agent.
#[derive(Clone, Debug)]
pub struct Close {
    /// The classroom.
    pub classroom: ClassroomId,
    /// The agent.
    pub agent: AgentId,
    /// Ends only what this connection owns.
    pub sid: Sid,
    /// Why.
    pub reason: LeftReason,
}

/// The answer to [`Close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// History row and agent.left are written, the live row is gone; if it was in a lesson, there is a leaving.
    Left,
    /// There is no such session, or another connection owns it: nothing was written.
    NotOwner,
}

/// A live session in a lesson, as the keys in Redis reflect it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LessonMembership {
    /// The session.
    pub session: SessionId,
    /// Its connection.
    pub sid: Sid,
    /// Whose.
    pub user: UserId,
    /// Decides the keys.
    pub role: Role,
    /// The lesson.
    pub lesson: LessonId,
    /// How many seats that has.
    pub seats: u32,
}

/// An event that was committed and is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Ascending in commit order for one agent in one classroom.
    pub id: i64,
    /// The classroom.
    pub classroom: ClassroomId,
    /// The agent.
    pub agent: AgentId,
    /// The session.
    pub session: SessionId,
    /// What happened.
    pub change: Change,
    /// Stored with the row.
    pub nonce: Nonce,
    /// Since it was written, by the store's clock.
    pub waited: Duration,
}

/// A field in Redis that is to be removed, or handed on, because its connection's session ended, was taken over, or left
/// the lesson. It is in SQL, so that it outlives its node and an outage of Redis; carrying one out twice, or late, does
/// no harm, because it compares the sid.
pub use rollcall_schema::{KeyField, StaleField};

/// The right to publish the events of some classrooms (shards), for as long as its connection lives: two holders never
/// read the same shard, and a dead holder's shards are free at once.
#[async_trait]
pub trait Outbox: Send {
    /// Takes more shards where they are free, gives some back where this node has more than its share. Call it about
    /// once a second, with nothing in flight. Returns how many it holds.
    async fn claim(&mut self) -> Result<usize, StoreError>;
    /// About so many rows: the oldest of each shard held, an equal part of each at most, oldest first. Those of one agent
    /// in a classroom are to be published one after the other. What a newer version wrote and this one cannot read is set
    /// aside.
    async fn read(&mut self, most: usize) -> Result<Vec<OutboxRow>, StoreError>;
    /// Counts up when this relay may have got shards that another had.
    fn generation(&self) -> u64 {
        0
    }
    /// Takes rows that cannot be published out of the way; [`Outbox::read`] does so with those that it cannot read. Later
    /// rows of the same agents in the same classrooms follow when they are read.
    async fn quarantine(&mut self, ids: &[i64], why: &str) -> Result<(), StoreError>;
    /// Puts rows back whose time to be tried again has come. Returns how many are left aside, or 10,000 where there are
    /// more.
    async fn release_quarantined(&mut self) -> Result<u64, StoreError>;
    /// Forgets what is published.
    async fn delete(&mut self, ids: &[i64]) -> Result<(), StoreError>;
    /// Returns when rows may have come (from this node or, within milliseconds, from another), or after `most`.
    async fn wait(&mut self, most: Duration) -> Result<(), StoreError>;
}

/// A row of `lesson`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LessonRow {
    /// Its id.
    pub id: LessonId,
    /// Where it takes place.
    pub classroom: ClassroomId,
    /// How many seats it has.
    pub seats: u32,
}

/// A row of `lesson_attendee`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttendeeRow {
    /// The lesson.
    pub lesson: LessonId,
    /// Who.
    pub user: UserId,
    /// Where.
    pub seat: Seat,
}

/// Why rows were not loaded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// The attendee at this place of the batch names a lesson that is not there.
    #[error("unknown lesson")]
    UnknownLesson(usize),
    /// The store's own.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One transaction of lessons and attendees; dropped without [`Load::commit`], nothing of it stays. Rows that are
/// there already are overwritten.
#[async_trait]
pub trait Load: Send {
    /// Adds lessons.
    async fn lessons(&mut self, rows: Vec<LessonRow>) -> Result<(), LoadError>;
    /// Adds attendees.
    async fn attendees(&mut self, rows: Vec<AttendeeRow>) -> Result<(), LoadError>;
    /// Makes all of it stay.
    async fn commit(self: Box<Self>) -> Result<(), LoadError>;
}

/// SQL. Batches have no two entries of one key (see each type); answers come in the batch's order. Every call answers
/// within 1.5 s, if only by [`StoreError::Unavailable`]; but [`Store::reap`] and [`Store::backlog`], which run in the
/// background, may take 12 s where the database holds very many dead rows.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// `postgres` or `sqlite`, for metrics and messages.
    fn name(&self) -> &'static str;
    /// Whether other nodes may live. After an outage they must have had the time to renew before one is taken for dead.
    fn shared(&self) -> bool {
        true
    }
    /// Waits until one of its threads has ended; it does not work any more then.
    async fn failed(&self) -> TaskEnded {
        std::future::pending().await
    }
    /// Brings the tables up to date; where they are, it only reads. Safe beside other nodes that do the same.
    /// [`StoreError::Refused`] with a sentence for the operator where the tables are too new for this binary, or where
    /// the account may not change them.
    async fn migrate(&self) -> Result<(), StoreError>;
    /// The names of the migrations that are missing; writes nothing.
    async fn missing_migrations(&self) -> Result<Vec<&'static str>, StoreError>;
    /// One round trip.
    async fn ping(&self) -> Result<(), StoreError>;
    /// Writes, as serving does, and changes nothing that counts. [`StoreError::Fenced`] where the lease is not held.
    async fn probe(&self, lease: Lease, ttl: Duration) -> Result<(), StoreError>;
    /// The UUID made with the database, part of every message id.
    async fn installation(&self) -> Result<Uuid, StoreError>;

    /// Enters the `node` table with a fresh lease.
    /// [`StoreError::Refused`] with a sentence for the operator where a standalone node would live beside another.
    async fn register(&self, registration: &Registration) -> Result<Lease, StoreError>;
    /// Renews the lease, also an expired one that nobody took; [`StoreError::Fenced`] where the epoch was taken.
    async fn renew_lease(&self, lease: Lease, ttl: Duration) -> Result<HeartbeatReply, StoreError>;
    /// These connections have been told that they are replaced: pulses name them no more.
    async fn ack_takeovers(&self, node: NodeId, replaced: &[Sid]) -> Result<(), StoreError>;
    /// Takes over expired leases of other nodes, ends up to `most` of their sessions (node_lost), and returns how many.
    /// Several nodes may do it at once. Zero when there is nothing more. Takes nothing while its own lease has run out:
    /// so may everybody's have. One whose end the database refuses is left aside, and holds up nobody else's.
    async fn reap(&self, lease: Lease, most: usize) -> Result<usize, StoreError>;
    /// What waits in the outbox.
    async fn backlog(&self) -> Result<Backlog, StoreError>;
    /// Gives the lease back; its sessions, if any are left, are free for [`Store::reap`] at once.
    async fn release_lease(&self, lease: Lease) -> Result<(), StoreError>;

    /// Agents enter; none where the user has as many sessions as it may. Batches at the same moment do not count each
    /// other's.
    async fn open(&self, lease: Lease, batch: &[Open]) -> Result<Vec<Option<Opened>>, StoreError>;
    /// Agents and guests join lessons.
    async fn join(&self, lease: Lease, batch: &[Join]) -> Result<Vec<Joined>, StoreError>;
    /// Joins are undone. Sessions that are no longer the connection's are left alone.
    async fn rollback(&self, lease: Lease, batch: &[RollbackJoin]) -> Result<Vec<()>, StoreError>;
    /// Agents leave.
    async fn close(&self, lease: Lease, batch: &[Close]) -> Result<Vec<Closed>, StoreError>;

    /// Which incarnation of the database the latest connection found: another one after the database has lost its last
    /// commits. None before there are tables.
    fn incarnation(&self) -> watch::Receiver<Option<Uuid>>;
    /// Compares sessions that this node remembers with the database, and writes the ends of those that are lost. Unique
    /// key of a batch: the session.
    async fn verify(&self, lease: Lease, batch: &[Remembered]) -> Result<Vec<Standing>, StoreError>;
    /// Rows of this node, ids above `after`, ascending, at most `max`, as ends with `node_lost`.
    async fn owned_sessions(
        &self,
        node: NodeId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<(SessionId, Close)>, StoreError>;
    /// Whether the node has a row, whatever its epoch.
    async fn knows_node(&self, node: NodeId) -> Result<bool, StoreError>;
    /// Makes a database that was put back from a backup fit to be used: a new installation, higher ids, an empty outbox,
    /// and no session live. [`StoreError::Refused`] while a node is alive.
    async fn prepare_restored(&self) -> Result<Restored, StoreError>;

    /// Adds leavings of this node that no end of a session has written, and releases those of connections that were
    /// taken over and have ended. Needs no lease: see [`StaleField`].
    async fn add_stale_fields(&self, node: NodeId, fields: &[KeyField], ended: &[Sid]) -> Result<(), StoreError>;
    /// The oldest leavings of this node that nothing holds, and those of nodes that are no more. Heirs are those of this
    /// moment: the latest to join of the user's sessions in the lesson.
    async fn stale_fields(&self, node: NodeId, most: usize) -> Result<Vec<(i64, StaleField)>, StoreError>;
    /// Forgets leavings that the key store carried out; with `keep`, not before ten minutes have passed. An successor that has
    /// gone meanwhile has one in its turn.
    async fn forget_stale_fields(&self, node: NodeId, done: &[(i64, StaleField)], keep: bool)
    -> Result<(), StoreError>;
    /// KeyCleanup of this node that are held, ids above `after`, ascending, at most `most`.
    async fn held_stale_fields(&self, node: NodeId, after: i64, most: usize) -> Result<Vec<(i64, Sid)>, StoreError>;
    /// What was carried out in the last ten minutes, by this node or by nodes that are no more, is a leaving of this
    /// node again. At most `most`; returns how many.
    async fn repeat_removals(&self, node: NodeId, most: usize) -> Result<usize, StoreError>;
    /// Forgets what was carried out more than ten minutes ago, at most `most`. Looks from a minute on, and returns from
    /// which one to look next, and whether there is more.
    async fn expire_removals(&self, minute: i64, most: usize) -> Result<(i64, bool), StoreError>;

    /// A new claim on the outbox, with a connection of its own.
    async fn open_outbox(&self) -> Result<Box<dyn Outbox>, StoreError>;
    /// Live sessions of this node that are in a lesson, ids above `after`, ascending, at most `most`.
    async fn lesson_memberships(
        &self,
        node: NodeId,
        after: SessionId,
        most: usize,
    ) -> Result<Vec<LessonMembership>, StoreError>;

    /// Agents of a classroom with session ids above `after`, ascending.
    async fn agents(
        &self,
        classroom: ClassroomId,
        after: SessionId,
        most: usize,
    ) -> Result<Vec<(SessionId, AgentId)>, StoreError>;
    /// How many agents each classroom has, zeros included, in the order asked for.
    async fn count_agents(&self, classrooms: &[ClassroomId]) -> Result<Vec<u64>, StoreError>;
    /// Whether there is no lesson at all.
    async fn has_no_lesson(&self) -> Result<bool, StoreError>;
    /// Begins a load.
    async fn begin_load(&self) -> Result<Box<dyn Load>, StoreError>;
}

/// Microseconds since 1970: an id that is above all that were ever given out. JSON's readers hold it exactly until 2255.
fn now_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(0))
}
