//! The answer to connect_request, the first frame that a client gets (PROTOCOL 2 and 3).
//!
//! Invariant: `session_id`, `agent_id`, `sid`, `ping_interval`, `expires_at`, `protocol` and `version` are always
//! there, so that clients need not test for them. A guest has neither session nor token, so `session_id`, `agent_id`
//! and `expires_at` are `null`. `epoch`, `offset` and `recovered` are there if the connection asked to resume, `roster`
//! and `roster_next` if it asked for the roster.
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    id::{AgentId, Offset, SessionId},
    roster::RosterPage,
    sid::Sid,
    wire,
};

/// The version of the contract. From it clients know which requests the gateway understands.
pub const PROTOCOL: u32 = 1;

/// The position at which a resumable connection starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Start<'a> {
    /// The epoch of the stream that the offsets belong to.
    pub epoch: &'a str,
    /// Every event up to this offset is replayed or missed, as `recovered` says. Pushes have higher offsets.
    pub offset: Offset,
    /// Whether all missed events follow; false if the client asked for none.
    pub recovered: bool,
}

/// The message `connect_success`.
#[derive(Clone, Copy, Debug)]
pub struct ConnectSuccess<'a> {
    /// The session and its agent. `None` for a guest.
    pub session: Option<(SessionId, &'a AgentId)>,
    /// The connection's id.
    pub sid: Sid,
    /// How often the server pings. Clients get it in whole seconds.
    pub ping_interval: Duration,
    /// The expiry of the token in Unix seconds. `None` for a guest.
    pub expires_at: Option<u64>,
    /// The gateway's version, for people.
    pub version: &'a str,
    /// The start of a connection that asked to resume.
    pub start: Option<Start<'a>>,
    /// The roster, if the connection asked for it.
    pub roster: Option<&'a RosterPage>,
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
    protocol: u32,
    version: &'a str,
    #[serde(flatten)]
    start: Option<Start<'a>>,
    #[serde(flatten)]
    roster: Option<Roster<'a>>,
}

#[derive(Serialize)]
struct Roster<'a> {
    roster: &'a RawValue,
    roster_next: Option<SessionId>,
}

impl ConnectSuccess<'_> {
    /// Returns the message for a plain WebSocket.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        wire::json(&Message { r#type: "connect_success", payload: self.fields() })
    }

    /// Returns the payload of the message, as clients of Socket.IO get it.
    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        wire::json(&self.fields())
    }

    fn fields(&self) -> Payload<'_> {
        Payload {
            session_id: self.session.map(|(session, _)| session),
            agent_id: self.session.map(|(_, agent)| agent),
            sid: self.sid,
            ping_interval: self.ping_interval.as_secs(),
            expires_at: self.expires_at,
            protocol: PROTOCOL,
            version: self.version,
            start: self.start,
            roster: self.roster.map(|page| Roster { roster: &page.agents, roster_next: page.next }),
        }
    }
}
