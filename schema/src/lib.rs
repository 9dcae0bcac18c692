//! The shapes of Rollcall's contract with the outside: ids, requests, acks, pushes, events, error tables,
//! subjects, keys and SQL migrations.
//!
//! Invariant: nothing here does I/O or knows of sockets, runtimes or databases; a value that exists is valid.
pub mod id;
pub mod key;
pub mod reason;
pub mod role;
pub mod sql;
pub mod subject;

pub use id::{
    AgentId, AgentLabel, Audience, ClassroomId, Epoch, IdError, LessonId, NodeId, Offset, Seat, SessionId, Sid, UserId,
};
pub use reason::LeftReason;
pub use role::Role;
pub use subject::{RoomId, Subject};
