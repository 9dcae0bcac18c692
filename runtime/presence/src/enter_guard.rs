//! A session that no connection has yet, because connect is under way.
//!
//! Invariant: if its connection does not get the session, because connect failed, panicked or took too long, or because
//! the opening got no answer, the session is closed again. So a client without connect_success leaves nothing behind,
//! or a complete pair of events.
use std::time::Duration;

use rollcall_base::failpoint;
use rollcall_schema::{LeftReason, SessionId, UserId};
use rollcall_store::{Close, Open, Opened, Remembered, StoreError, group_commit::Options};
use tokio::time::Instant;

use crate::{key_cleanup::KeyCleanup, sessions::Sessions};

/// Why no session was opened.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The user has as many sessions as it may have.
    #[error("the user has too many sessions")]
    TooManySessions,
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Closes the session again if it is dropped.
#[must_use]
pub struct EnterGuard(Option<Undo>);

struct Undo {
    sessions: Sessions,
    close: Close,
    /// The opened session, once the database has answered.
    opened: Option<Box<Remembered>>,
    after: Duration,
    /// Removes the keys of a lesson that was joined before connect failed.
    cleanup: Option<KeyCleanup>,
}

impl EnterGuard {
    /// Opens a session whose client has waited since `since`. A connection that had the session gets `replaced`.
    ///
    /// # Errors
    /// Returns an [`EnterError`] if the session was not opened. If it may have been opened, it is ended again.
    pub async fn open(sessions: &Sessions, since: Instant, open: Open) -> Result<(Opened, Self), EnterError> {
        let mut guard = Self::new(sessions, &open);
        let user = open.user.clone();
        let answer = sessions.open(since, open).await;
        guard.answered();
        match answer {
            Ok(Some(opened)) => {
                guard.opened(opened.session, user);
                sessions.close_replaced(&opened).await;
                Ok((opened, guard))
            }
            Ok(None) => {
                guard.disarm();
                Err(EnterError::TooManySessions)
            }
            Err(error) => {
                if error.wrote_nothing() {
                    guard.disarm();
                }
                Err(error.into())
            }
        }
    }

    fn new(sessions: &Sessions, open: &Open) -> Self {
        let close = Close {
            classroom: open.classroom,
            agent: open.agent.clone(),
            sid: open.sid,
            reason: LeftReason::Lost,
            // The client was not told of the session, so it does not find it again.
            resume_id: None,
        };
        // If the guard is dropped while the call is under way, the session may not be open yet. So it is closed after
        // the call's limit.
        let after = Options::default().limit;
        Self(Some(Undo { sessions: sessions.clone(), close, opened: None, after, cleanup: None }))
    }

    /// Records that the call has ended, so nothing is written any more.
    fn answered(&mut self) {
        if let Some(undo) = &mut self.0 {
            undo.after = Duration::ZERO;
        }
    }

    /// Records the session that the database has opened.
    fn opened(&mut self, session: SessionId, user: UserId) {
        if let Some(undo) = &mut self.0 {
            let Close { classroom, ref agent, sid, reason, resume_id } = undo.close;
            undo.opened = Some(Box::new(Remembered {
                session,
                classroom,
                agent: agent.clone(),
                user,
                sid,
                lesson: None,
                sets_state: false,
                age: Duration::ZERO,
                reason,
                resume_id,
            }));
        }
    }

    /// Makes the guard also remove the keys of the lesson that the session is in when the guard closes it.
    pub(crate) fn with_cleanup(mut self, cleanup: &KeyCleanup) -> Self {
        if let Some(undo) = &mut self.0 {
            undo.cleanup = Some(cleanup.clone());
        }
        self
    }

    /// Gives the session to its connection. Must be called right before the client gets connect_success.
    pub fn commit(self) {
        failpoint::reach("connect done");
        self.disarm();
    }

    /// Leaves the session open, because a connection has it, or there is none.
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for EnterGuard {
    fn drop(&mut self) {
        if let Some(Undo { sessions, close, opened, after, cleanup }) = self.0.take() {
            let undos = sessions.undos().clone();
            undos.spawn(async move {
                tokio::time::sleep(after).await;
                match opened {
                    Some(session) => sessions.leave(*session).await,
                    None => sessions.close(close).await,
                };
                if let Some(cleanup) = cleanup {
                    cleanup.look();
                }
            });
        }
    }
}
