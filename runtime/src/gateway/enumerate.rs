//! Which sessions a worker has, told page by page.
use std::collections::HashMap;

use rollcall_schema::{LeftReason, Sid};
use tokio::sync::{mpsc, oneshot};

use super::{Gateway, Peer, peer::PeerState};
use crate::handler::session::Session;
use rollcall_store::Remembered;
use rollcall_websocket::{SocketId, Sockets};

/// Asks for the sessions of a worker's connections.
pub struct Enumerate {
    /// The slot to begin at.
    pub from: usize,
    /// How many slots to look at.
    pub max: usize,
    /// Gets those that are with their connections.
    pub page: oneshot::Sender<Page>,
    /// Gets each of the others when its function is done. Bounded by the functions that run.
    pub busy: mpsc::UnboundedSender<Remembered>,
}

/// A part of a worker's sessions.
pub struct Page {
    /// Those of this part.
    pub sessions: Vec<Remembered>,
    /// The slot where the next part begins.
    pub next: Option<usize>,
}

/// Asks which of these connections a worker does not have.
pub struct FindMissing {
    /// The connections.
    pub sids: Vec<Sid>,
    /// Gets those that are not here.
    pub answer: oneshot::Sender<Vec<Sid>>,
}

/// Who waits for the sessions of connections whose functions run.
#[derive(Default)]
pub(super) struct Awaited(HashMap<SocketId, mpsc::UnboundedSender<Remembered>>);

impl Awaited {
    /// A session is back with its connection.
    pub(super) fn settled(&mut self, id: SocketId, session: &Session) {
        if let Some(asked) = self.0.remove(&id)
            && let Some(session) = session.remembered(LeftReason::NodeLost)
        {
            // Whoever asked may have begun again.
            let _ = asked.send(session);
        }
    }

    /// A connection is over; its session, if it has one, is compared when it ends.
    pub(super) fn gone(&mut self, id: SocketId) {
        self.0.remove(&id);
    }
}

impl Gateway {
    pub(super) fn enumerate(&mut self, sockets: &mut Sockets<Peer>, ask: Enumerate) {
        let Enumerate { from, max, page, busy } = ask;
        let mut sessions = Vec::new();
        let awaited = &mut self.awaited;
        let next = sockets.each_from(from, max, |socket| match &socket.peer.phase {
            PeerState::Open(session) => sessions.extend(session.remembered(LeftReason::NodeLost)),
            PeerState::Connecting | PeerState::Busy => {
                awaited.0.insert(socket.io.id(), busy.clone());
            }
            PeerState::ConnectContext(_) => {}
        });
        // Whoever asked may have gone.
        let _ = page.send(Page { sessions, next });
    }

    pub(super) fn find_missing(&self, sockets: &Sockets<Peer>, FindMissing { mut sids, answer }: FindMissing) {
        sids.retain(|sid| {
            let id = self.shared.mailboxes.socket(*sid);
            id.is_none_or(|id| !sockets.has(id) && !self.orphans.contains_key(&id))
        });
        let _ = answer.send(sids);
    }
}
