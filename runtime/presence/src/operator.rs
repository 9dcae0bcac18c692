//! What an operator does to sessions, on whichever node they are.
//!
//! Invariant: SQL is written first, and what it says holds from then on; the node of a session follows, told by its heartbeat.
use std::sync::Arc;

use rollcall_schema::{LessonId, SessionError, SessionId, UserId};
use tokio::sync::watch;

use crate::Connections;
use rollcall_keys::{KeysError, LessonKeys};
use rollcall_store::{Kick, KickTarget, KickedSession, Lease, Store, StoreError};

/// Sessions that end in one transaction, and rows that are erased in one.
const BATCH: usize = 500;

/// What was erased of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Live sessions that were ended.
    pub sessions: u64,
    /// Rows of the history, those of these sessions too.
    pub history: u64,
    /// Lessons that the user was an attendee of.
    pub attended: u64,
}

/// Why a user was not erased, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// SQL is away.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys are away.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// The calls. Cheap to clone.
#[derive(Clone)]
pub struct Operator {
    store: Arc<dyn Store>,
    keys: Arc<dyn LessonKeys>,
    lease: watch::Receiver<Lease>,
    connections: Arc<dyn Connections>,
}

impl Operator {
    /// Calls on this store, with this node's lease.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        keys: Arc<dyn LessonKeys>,
        lease: watch::Receiver<Lease>,
        connections: Arc<dyn Connections>,
    ) -> Self {
        Self { store, keys, lease, connections }
    }

    /// Ends sessions, and returns those that it ended: asked again, it ends none. Their clients are told `kicked` within a
    /// second, or when their node goes on. An agent may enter again with a new session; its token is not revoked.
    ///
    /// # Errors
    /// [`StoreError`]; some may have ended.
    pub async fn kick(&self, target: &KickTarget) -> Result<Vec<KickedSession>, StoreError> {
        let mut all = Vec::new();
        loop {
            let lease = *self.lease.borrow();
            let kicked = self.store.kick(lease, target, BATCH).await?;
            // Else the heartbeat would do it a moment later.
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

    /// Takes a session's connection out of its lesson within a second, or when its node goes on. Returns the lesson; none
    /// where it is in none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn kick_from_lesson(&self, session: SessionId) -> Result<Option<LessonId>, StoreError> {
        let Some((node, Kick { sid, lesson })) = self.store.kick_from_lesson(session).await? else { return Ok(None) };
        if let Some(lesson) = lesson.clone().filter(|_| node == self.lease.borrow().node) {
            self.connections.leave_lesson(sid, lesson).await;
        }
        Ok(lesson)
    }

    /// Ends the user's sessions, and removes what is kept of the user: history, attendees and keys. Events in the stream go
    /// with their age.
    ///
    /// # Errors
    /// [`EraseError`]; some may be erased, and the rest when it is asked for again.
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
