//! The data about a connection that the handler of connect gets.
use rollcall_schema::{ResumeId, Sid, TraceParent};
use rollcall_websocket::SocketId;

use crate::{auth::Claims, limits::network::Subscriber, trace};

/// A connection that asks to be let in.
#[derive(Debug)]
pub struct ConnectContext {
    /// The socket, which enters rooms.
    pub socket: SocketId,
    /// The connection's id that clients see.
    pub sid: Sid,
    /// The client's address if the number of connections of each address is limited.
    pub client: Option<Subscriber>,
    /// The value of the URL's parameter that the table names ([`Table::url_parameter`](crate::Table::url_parameter)).
    pub url_parameter: Option<Box<str>>,
    /// The trace that the connection belongs to.
    pub trace: Option<TraceParent>,
    /// The claims of the client's token if the token was checked already.
    pub claims: Option<Claims>,
    /// The id under which the client finds its session again after a break.
    pub resume_id: Option<ResumeId>,
}

impl ConnectContext {
    /// Returns the trace that the session's events carry: the span of the running handler, or else the trace of the
    /// connection.
    #[must_use]
    pub fn outgoing_trace(&self) -> Option<TraceParent> {
        trace::outgoing(self.trace)
    }
}
