//! Operators' calls that end sessions on any node.
//!
//! Invariant: SQL is written first, and the session counts as ended from then on. The session's node follows when its
//! heartbeat learns of the end.
use std::sync::Arc;

use rollcall_schema::{LessonId, SessionError, SessionId, UserId};
use tokio::sync::watch;

use crate::Connections;
use rollcall_keys::{KeysError, LessonKeys};
use rollcall_store::{Kick, KickTarget, KickedSession, Lease, Store, StoreError};

/// How many sessions end in one transaction, and how many rows are erased in one.
const BATCH: usize = 500;

/// How much was erased of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// The number of live sessions that were ended.
    pub sessions: u64,
    /// The number of history rows, including those of these sessions.
    pub history: u64,
    /// The number of lessons that the user was an attendee of.
    pub attended: u64,
}

/// Why a user was not erased, or not completely.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// SQL is away.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis is away.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// The calls of operators. It is cheap to clone.
#[derive(Clone)]
pub struct Operator {
    store: Arc<dyn Store>,
    keys: Arc<dyn LessonKeys>,
    lease: watch::Receiver<Lease>,
    connections: Arc<dyn Connections>,
}

impl Operator {
    /// Creates the calls of operators on this store, with this node's lease.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        keys: Arc<dyn LessonKeys>,
        lease: watch::Receiver<Lease>,
        connections: Arc<dyn Connections>,
    ) -> Self {
        Self { store, keys, lease, connections }
    }

    /// Ends sessions, and returns those that it ended. A second call ends none. The clients get `kicked` within a
    /// second, or when their node runs again. An agent may enter again in a new session, because its token is not
    /// revoked.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if SQL does not answer. Some sessions may have ended.
    pub async fn kick(&self, target: &KickTarget) -> Result<Vec<KickedSession>, StoreError> {
        let mut all = Vec::new();
        loop {
            let lease = *self.lease.borrow();
            let kicked = self.store.kick(lease, target, BATCH).await?;
            // These connections are closed at once. Otherwise the node's heartbeat would close them a moment later.
            for own in kicked.iter().filter(|kicked| kicked.node == lease.node) {
                self.connections.close(own.sid, SessionError::Kicked).await;
            }
            let whole = kicked.len() < BATCH;
            all.extend(kicked);
            if whole {
                return Ok(all);
            }
        }
    }

    /// Takes a session's connection out of its lesson within a second, or when its node runs again. Returns the lesson;
    /// `None` if the session is in no lesson.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if SQL does not answer.
    pub async fn kick_from_lesson(&self, session: SessionId) -> Result<Option<LessonId>, StoreError> {
        let Some((node, Kick { sid, lesson })) = self.store.kick_from_lesson(session).await? else { return Ok(None) };
        if let Some(lesson) = lesson.clone().filter(|_| node == self.lease.borrow().node) {
            self.connections.leave_lesson(sid, lesson).await;
        }
        Ok(lesson)
    }

    /// Ends the user's sessions, and removes the user's data: history, attendees and keys. Events in the stream are
    /// removed when they are too old.
    ///
    /// # Errors
    /// Returns an [`EraseError`] if some data may remain. Another call erases the rest.
    pub async fn erase(&self, user: &UserId) -> Result<Erased, EraseError> {
        let kicked = self.kick(&KickTarget::User(user.clone(), None)).await?;
        let mut erased = Erased { sessions: kicked.len() as u64, ..Erased::default() };
        self.keys.erase(user, &[]).await?;
        loop {
            let page = self.store.history_of(user, BATCH).await?;
            if page.is_empty() {
                break;
            }
            let (sessions, lessons): (Vec<SessionId>, Vec<Option<LessonId>>) = page.into_iter().unzip();
            let mut lessons: Vec<LessonId> = lessons.into_iter().flatten().collect();
            lessons.sort_unstable();
            lessons.dedup();
            self.keys.erase(user, &lessons).await?;
            self.store.forget_history(&sessions).await?;
            erased.history += sessions.len() as u64;
        }
        loop {
            let lessons = self.store.attended_by(user, BATCH).await?;
            if lessons.is_empty() {
                return Ok(erased);
            }
            self.keys.erase(user, &lessons).await?;
            self.store.forget_attendee(user, &lessons).await?;
            erased.attended += lessons.len() as u64;
        }
    }
}
