//! The result of the handler of connect for the connection's worker.
use std::sync::Arc;

use rollcall_bus::{Position, Replayed};
use rollcall_schema::{Offset, RosterPage, connect_success::Start};

use crate::handler::session::Session;

/// A connection that was let in.
#[derive(Debug)]
pub struct Connected {
    /// The session.
    pub session: Session,
    /// Where the stream starts for this connection, if the client asked to resume.
    pub resumption: Option<Resumption>,
    /// The list of agents in the classroom, if the client asked for it.
    pub roster: Option<Arc<RosterPage>>,
}

/// The start of a resumable connection in the stream.
#[derive(Debug)]
pub struct Resumption {
    /// The position that the client is told. Its events have higher offsets.
    pub position: Position,
    /// Whether the missed events follow. False if the client asked for none.
    pub recovered: bool,
    /// The events that were missed, and the offset through which they go.
    pub replay: Option<(Replayed, Offset)>,
}

impl Resumption {
    /// Returns the part that the client is told.
    #[must_use]
    pub fn start(&self) -> Start<'_> {
        Start { epoch: &self.position.epoch, offset: self.position.offset, recovered: self.recovered }
    }
}
