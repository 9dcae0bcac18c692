//! Who is there: handlers call [`Presence`]; one lease a node, and what follows from the rows that it guards.
//!
//! Invariant: presence is what SQL says. Everything else (the events in the stream, the keys in Redis) follows from it,
//! late or twice perhaps, but never wrongly.
mod connections;
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
