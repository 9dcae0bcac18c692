//! Presence: which agents are in which classroom and lesson. Handlers call [`Presence`]. Tasks keep the node's lease,
//! and publish and clean up what follows from the rows that the lease guards.
//!
//! Invariant: SQL decides who is present. Events in the stream and keys in Redis are written after SQL, from what
//! SQL holds. An event may come late or twice.
mod connections;
mod disowned;
mod enter;
mod enter_guard;
mod failure;
pub mod history_retention;
mod join;
pub mod key_cleanup;
pub mod key_reconciler;
pub mod lease_keeper;
mod leave;
mod leave_lesson;
mod lesson_classrooms;
mod lesson_guard;
mod lesson_restore;
mod membership;
pub mod operator;
pub mod outbox_gauges;
pub mod outbox_relay;
mod read_roster;
mod recent_ends;
mod refused_ends;
pub mod relay_wakes;
pub mod rosters;
mod service;
pub mod sessions;
mod set_state;
mod undos;

pub use connections::Connections;
pub use enter::Enter;
pub use enter_guard::{EnterError, EnterGuard};
pub use join::{JoinError, Joined, Joining};
pub use leave_lesson::LeaveLessonError;
pub use membership::Membership;
pub use recent_ends::RecentEnds;
pub use rosters::{RosterForm, RosterRequest, Rosters};
pub use service::Presence;
pub use set_state::SetStateError;
pub use undos::Undos;
