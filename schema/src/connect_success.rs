//! The answer to connect_request, the first frame that a client gets (PROTOCOL 2 and 3).
//!
//! Invariant: `session_id`, `agent_id`, `sid`, `ping_interval` and `expires_at` are always there, so that clients need not
//! test for them. A guest has no session, agent id and token: all three are `null`. `epoch`, `offset` and `recovered` are there where the
//! connection asked to resume.
use std::time::Duration;

use serde::Serialize;

use crate::{
    id::{AgentId, Offset, SessionId},
    sid::Sid,
    wire,
};

/// Where a resumable connection starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Start<'a> {
    /// Of which stream the offsets are.
    pub epoch: &'a str,
    /// Every event up to it is either replayed or missed, as `recovered` says; pushes have higher ones.
    pub offset: Offset,
    /// Whether all that was missed follows; false where nothing was asked for.
    pub recovered: bool,
}

/// `connect_success`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectSuccess<'a> {
    /// None for a guest.
    pub session: Option<(SessionId, &'a AgentId)>,
    /// The connection.
    pub sid: Sid,
    /// How often the server pings; told in whole seconds.
    pub ping_interval: Duration,
    /// When the token ends, in Unix seconds; none for a guest.
    pub expires_at: Option<u64>,
    /// For connections that asked to resume.
    pub start: Option<Start<'a>>,
}

#[derive(Serialize)]
struct Message<'a> {
    r#type: &'static str,
    payload: Payload<'a>,
}

#[derive(Serialize)]
struct Payload<'a> {
    session_id: Option<SessionId>,
    agent_id: Option<&'a AgentId>,
    sid: Sid,
    ping_interval: u64,
    expires_at: Option<u64>,
    #[serde(flatten)]
    start: Option<Start<'a>>,
}

impl ConnectSuccess<'_> {
    /// The message.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let payload = Payload {
            session_id: self.session.map(|(session, _)| session),
            agent_id: self.session.map(|(_, agent)| agent),
            sid: self.sid,
            ping_interval: self.ping_interval.as_secs(),
            expires_at: self.expires_at,
            start: self.start,
        };
        wire::json(&Message { r#type: "connect_success", payload })
    }
}
