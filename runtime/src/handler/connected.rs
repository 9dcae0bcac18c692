//! What `connect` returns to the connection's worker.
use std::sync::Arc;

use rollcall_bus::{Position, Replayed};
use rollcall_schema::{Offset, RosterPage, connect_success::Start};

use crate::handler::session::Session;

/// A connection that was let in.
#[derive(Debug)]
pub struct Connected {
    /// The session.
    pub session: Session,
    /// Where the stream starts for it, if the client asked to resume.
    pub resumption: Option<Resumption>,
    /// Who is there, if the client asked for it.
    pub roster: Option<Arc<RosterPage>>,
}

/// Where a resumable connection starts.
#[derive(Debug)]
pub struct Resumption {
    /// The position that the client is told: pushes have higher offsets.
    pub position: Position,
    /// Whether what was missed follows; false where nothing was asked for.
    pub recovered: bool,
    /// The events that were missed, and the offset through which they go.
    pub replay: Option<(Replayed, Offset)>,
}

impl Resumption {
    /// The part that its client is told.
    #[must_use]
    pub fn start(&self) -> Start<'_> {
        Start { epoch: &self.position.epoch, offset: self.position.offset, recovered: self.recovered }
    }
}
