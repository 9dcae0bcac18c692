//! The shapes of Rollcall's contract with the outside: ids, requests, acks, pushes, events, error tables,
//! subjects, keys and SQL migrations.
//!
//! Invariant: no code here does I/O or knows of sockets, runtimes or databases, and every value is valid.
pub mod ack;
pub mod connect_success;
pub mod entity;
pub mod event;
pub mod header;
pub mod heartbeat;
pub mod id;
pub mod key;
mod members;
pub mod object;
pub mod push;
pub mod reason;
pub mod request;
pub mod role;
pub mod roster;
pub mod session_error;
pub mod shard;
pub mod sid;
pub mod socketio;
pub mod sql;
pub mod subject;
pub mod trace_parent;
mod wire;

pub use ack::{AckError, AckMessage, Answer};
pub use connect_success::ConnectSuccess;
pub use entity::{EntityType, MessageId, Operation};
pub use event::{AgentEvent, Change, EntityEvent, Update};
pub use id::{
    AgentId, AgentLabel, Audience, ClassroomId, Epoch, IdError, LessonId, NodeId, Nonce, Offset, ResumeId, Seat,
    SessionId, StateVersion, UserId,
};
pub use key::{KeyField, StaleField, Successors};
pub use object::{JsonObject, read_object};
pub use push::{Push, PushError};
pub use reason::{KickCause, LeftReason};
pub use request::{ConnectRequest, JoinLesson, Ref, Refresh, Request, Resume, Roster, SetState};
pub use role::Role;
pub use roster::{RosterAgent, RosterPage};
pub use session_error::SessionError;
pub use shard::Shards;
pub use sid::Sid;
pub use subject::{RoomId, Subject};
pub use trace_parent::TraceParent;

/// The server API, as OpenAPI 3.1 (PROTOCOL 7).
pub const OPENAPI: &str = include_str!("../openapi.json");
