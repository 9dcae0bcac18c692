//! Lists a worker's sessions page by page.
use std::collections::HashMap;

use rollcall_schema::LeftReason;
use tokio::sync::mpsc;

use super::{
    Enumerate, Page,
    peer::{Peer, PeerState},
};
use crate::handler::session::Session;
use rollcall_store::Remembered;
use rollcall_websocket::{SocketId, Sockets};

/// The callers that wait for the sessions of connections whose handlers run.
#[derive(Default)]
pub(super) struct Enumeration(HashMap<SocketId, mpsc::UnboundedSender<Remembered>>);

impl Enumeration {
    /// Answers with a page of sessions, and remembers the connections whose handlers run.
    pub(super) fn send_page(&mut self, sockets: &mut Sockets<Peer>, ask: Enumerate) {
        let Enumerate { from, max, page, busy } = ask;
        let mut sessions = Vec::new();
        let next = sockets.each_from(from, max, |socket| match &socket.peer.state {
            PeerState::Open(session) => sessions.extend(session.remembered(LeftReason::NodeLost)),
            PeerState::Connecting(_) | PeerState::Busy => {
                self.0.insert(socket.io.id(), busy.clone());
            }
            PeerState::AwaitingConnect(_) | PeerState::Outside(_) | PeerState::Refused(_) => {}
        });
        // The caller may have stopped waiting.
        let _ = page.send(Page { sessions, next });
    }

    /// Sends a session to the caller that waits for it, because the session's handler is done.
    pub(super) fn session_returned(&mut self, id: SocketId, session: &Session) {
        if let Some(busy) = self.0.remove(&id)
            && let Some(session) = session.remembered(LeftReason::NodeLost)
        {
            // The caller may have started another enumeration.
            let _ = busy.send(session);
        }
    }

    /// Forgets a connection that has ended, or for which no running handler will bring a session. If the connection has
    /// a session, the session is compared with its row when the session ends.
    pub(super) fn connection_ended(&mut self, id: SocketId) {
        self.0.remove(&id);
    }
}
