//! Sessions, lessons and history in SQL (PROTOCOL 5), in Postgres for many nodes or in SQLite for one. Each capability
//! is a trait, which each dialect implements beside its SQL; [`Store`] has all of them.
//!
//! Invariant: a change of a session is one transaction together with its history row and the event to publish (in the
//! outbox), and carries the node's epoch, so a node whose lease was taken commits nothing. Writes come in batches
//! ([`crate::group_commit`]), because a commit costs the same for one row as for 256.
mod agent_states;
mod erasure;
mod error;
pub mod group_commit;
mod history;
mod kicks;
mod lease;
mod lesson_joins;
mod lessons;
mod migrations;
mod node_leases;
mod outbox;
mod outbox_quarantine;
mod overview;
pub mod postgres;
mod queries;
mod recovery;
mod schema;
mod session_quarantine;
mod sessions;
pub mod sqlite;
mod stale_fields;
mod webhook;

use async_trait::async_trait;
use rollcall_base::tasks::TaskEnded;

pub use agent_states::{AgentStates, SetState};
pub use erasure::Erasure;
pub use error::StoreError;
pub use history::{History, HistoryPosition, HistorySweep, Moment, Visit, VisitEnd};
pub use kicks::{Kick, KickTarget, KickedSession, Kicks};
pub use lease::Lease;
pub use lesson_joins::{
    Join, Joined, LeaveLesson, LessonChange, LessonJoins, LessonLeft, LessonOfSession, RestoreLesson,
};
pub use lessons::{AttendeeRow, LessonRow, Lessons, Load, LoadError};
pub use node_leases::{HeartbeatReply, NodeLeases, Registration};
pub use outbox::{Backlog, Outbox, OutboxRow, OutboxSource};
pub use overview::{LiveClassroom, LiveSession, NodeReport, NodeRow, Overview, PastSession, Whose};
pub use queries::{LessonMembership, Queries, ResumableSession, RosterQuery};
pub use recovery::{Recovery, Remembered, Restored, Standing};
pub use rollcall_schema::{Change, KeyField, LeftReason, StaleField, Successors};
pub use schema::Schema;
pub use sessions::{Close, Closed, Open, Opened, Sessions};
pub use stale_fields::StaleFields;
pub use webhook::{KeptEvent, ParkedClassroom, WebhookCursor, WebhookCursors, WebhookState};

/// The store in SQL. Every call returns within 1.5 s, if necessary with [`StoreError::Unavailable`]. Only
/// [`NodeLeases::reap`] and [`OutboxSource::backlog`], which run in the background, may take 12 s if the database holds
/// very many dead rows.
#[async_trait]
pub trait Store:
    Schema
    + NodeLeases
    + Sessions
    + LessonJoins
    + AgentStates
    + Recovery
    + Kicks
    + StaleFields
    + OutboxSource
    + Lessons
    + Queries
    + Overview
    + Erasure
    + History
    + WebhookCursors
    + 'static
{
    /// Returns the name of the kind, for metrics and messages: `postgres` or `sqlite`.
    fn name(&self) -> &'static str;
    /// Returns whether there may be other nodes. After an outage they must have had the time to renew their leases
    /// before one counts as dead.
    fn shared(&self) -> bool {
        true
    }
    /// Waits until one of the store's threads has ended. The store does not work after that.
    async fn failed(&self) -> TaskEnded {
        std::future::pending().await
    }
    /// Returns how the latest connection is protected, for operators, or `None` if there is no connection.
    fn protection(&self) -> Option<String> {
        None
    }
    /// Makes one round trip to the database.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// Returns the microseconds since 1970, as an id above all ids that were ever used. JSON parsers read it exactly until
/// 2255.
fn now_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(0))
}
