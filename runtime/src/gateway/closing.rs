//! Closes a connection with its last message and its close frame.
use std::time::Duration;

use rollcall_schema::{KickCause, LeftReason, SessionError, Sid};

use super::{Gateway, dialect::Dialect, peer::Peer};
use rollcall_base::names;
use rollcall_websocket::{Cause, Close, CloseNotice, Socket};

impl Gateway {
    /// Tells the client why its session ends, if the client does not know yet, and closes the connection.
    pub(super) fn end(&mut self, socket: &mut Socket<'_, Peer>, error: SessionError) {
        self.end_with(socket, error, None);
    }

    pub(super) fn end_with(&mut self, socket: &mut Socket<'_, Peer>, error: SessionError, detail: Option<&str>) {
        note_end(socket.peer, error);
        let drained = error == SessionError::Terminated;
        if let Dialect::SocketIo(namespace) = socket.peer.dialect {
            return self.end_socketio(socket, namespace, error, detail);
        }
        let message = (!drained || !socket.peer.knows_of_drain).then(|| self.last_message(error, detail));
        socket.close(close(error), message.as_deref());
    }

    /// Ends the connection of a client whose connect was refused. No handler runs for the client any more.
    pub(super) fn end_refused(&mut self, socket: &mut Socket<'_, Peer>, error: SessionError, detail: Option<&str>) {
        self.end_with(socket, error, detail);
        socket.peer.connect_refused();
    }

    /// Returns the message about an error, with a random time after which the client may reconnect.
    pub(super) fn last_message(&self, error: SessionError, detail: Option<&str>) -> Vec<u8> {
        error.message_with(self.reconnect_after(self.reconnect_within), detail)
    }

    /// Returns a random part of this time.
    pub(super) fn reconnect_after(&self, within: Duration) -> Duration {
        let share = f64::from(u32::try_from(Sid::random().0 & 0xffff).unwrap_or_default()) / f64::from(0xffff);
        within.mul_f64(share)
    }

    /// Returns what the socket layer sends to a client when it closes the connection itself.
    pub(super) fn notice_for(&self, peer: &Peer, cause: Cause) -> CloseNotice {
        let error = match cause {
            Cause::SlowConsumer => SessionError::SlowConsumer,
            Cause::PongTimedOut => SessionError::PongTimedOut,
            Cause::ClosedByClient | Cause::Lost | Cause::Violation(_) | Cause::ClosedByServer => {
                SessionError::Terminated
            }
        };
        metrics::counter!(names::DISCONNECTS, "reason" => error.name()).increment(1);
        let text = match peer.dialect {
            Dialect::Plain => Some(self.last_message(error, None)),
            Dialect::SocketIo(namespace) => self.last_event(peer, namespace, error, None),
        };
        CloseNotice { close: close(error), text: text.map(Into::into) }
    }
}

/// Records that a connection ends with this error.
pub(super) fn note_end(peer: &mut Peer, error: SessionError) {
    metrics::counter!(names::DISCONNECTS, "reason" => error.name()).increment(1);
    peer.closed_by_us = Some(match error {
        SessionError::Terminated => LeftReason::Drained,
        told => LeftReason::Kicked(Some(KickCause::Told(told))),
    });
    peer.ends_finally = !error.is_recoverable();
}

/// Returns the close frame of an error. The frame's reason is the error's name.
pub(super) fn close(error: SessionError) -> Close {
    Close { code: error.close_code(), reason: error.name() }
}
