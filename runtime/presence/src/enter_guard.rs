//! A session that no connection has yet: connect is under way.
//!
//! Invariant: unless its connection gets it, the session is closed again, because connect failed, panicked or took too long, or
//! its opening got no answer: whoever got no success leaves nothing behind, or a complete pair of events.
use std::time::Duration;

use rollcall_base::failpoint;
use rollcall_schema::{LeftReason, SessionId, UserId};
use rollcall_store::{Close, Open, Opened, Remembered, StoreError, group_commit::Options};
use tokio::time::Instant;

use crate::{key_cleanup::KeyCleanup, sessions::Sessions};

/// Why no session was opened.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// The user has as many as it may.
    #[error("the user has too many sessions")]
    TooManySessions,
    /// The store's own.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Dropped, it closes the session again.
#[must_use]
pub struct EnterGuard(Option<Undo>);

struct Undo {
    sessions: Sessions,
    close: Close,
    /// What was opened, where the database has answered.
    opened: Option<Box<Remembered>>,
    after: Duration,
    /// A lesson may have been joined before connect failed.
    cleanup: Option<KeyCleanup>,
}

impl EnterGuard {
    /// Opens a session whose client waits since then. A connection that had it hears `replaced`.
    ///
    /// # Errors
    /// [`EnterError`]; the session is closed again where it may have been opened.
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
            // Its client was not told of the session, and so does not find it again.
            resume_id: None,
        };
        // Dropped while the call is under way, it must not close what is not open yet.
        let after = Options::default().limit;
        Self(Some(Undo { sessions: sessions.clone(), close, opened: None, after, cleanup: None }))
    }

    /// Whatever was written is written.
    fn answered(&mut self) {
        if let Some(undo) = &mut self.0 {
            undo.after = Duration::ZERO;
        }
    }

    /// The database has answered with this session.
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

    /// This removes the keys of a lesson that the session was in when it was closed.
    pub(crate) fn with_cleanup(mut self, cleanup: &KeyCleanup) -> Self {
        if let Some(undo) = &mut self.0 {
            undo.cleanup = Some(cleanup.clone());
        }
        self
    }

    /// The client is about to get its success: its connection has the session from now on.
    pub fn commit(self) {
        failpoint::reach("connect done");
        self.disarm();
    }

    /// There is nothing to close, or a connection has it.
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
