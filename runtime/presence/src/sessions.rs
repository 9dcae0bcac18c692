//! Sessions in SQL, with one call for each change. Many calls share one commit (PROTOCOL 5).
//!
//! Invariant: an answer is given after the commit. An end that the database refuses is set aside
//! ([`crate::refused_ends`]).
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use rollcall_schema::{AgentId, ClassroomId, KickCause, LeftReason, LessonId, ResumeId, SessionError, StateVersion};
use tokio::{sync::watch, time::Instant};
use tracing::warn;
use uuid::Uuid;

use crate::{
    Connections, lesson_classrooms::LessonClassrooms, recent_ends::RecentEnds, refused_ends::RefusedEnds, undos::Undos,
};
use rollcall_base::{failpoint, names, tasks::Tasks};
use rollcall_store::{
    Close, Closed, Join, Joined, Lease, LeaveLesson, LessonLeft, Open, Opened, Remembered, RestoreLesson,
    ResumableSession, SetState, Standing, Store, StoreError,
    group_commit::{GroupCommit, Options},
};

/// The pause between two attempts to close a session while the database is away.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The calls on sessions. It is cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    open: GroupCommit<Open, Option<Opened>>,
    join: GroupCommit<Join, Joined>,
    restore_lesson: GroupCommit<RestoreLesson, bool>,
    leave_lesson: GroupCommit<LeaveLesson, LessonLeft>,
    close: GroupCommit<Close, Closed>,
    set_state: GroupCommit<SetState, Option<StateVersion>>,
    verify: GroupCommit<Remembered, Standing>,
    refused: RefusedEnds,
    /// The recent ends. `None` if no commit can be lost while this node runs.
    recent: Option<RecentEnds>,
    incarnation: watch::Receiver<Option<Uuid>>,
    /// The incarnation of the database when this node started.
    began: Option<Uuid>,
    lease: watch::Receiver<Lease>,
    connections: Arc<dyn Connections>,
    store: Arc<dyn Store>,
    lesson_classrooms: Arc<LessonClassrooms>,
    undos: Undos,
}

impl Sessions {
    /// Starts the groups. While the relay is `backlogged`, for example after an outage of the bus, opens are batched
    /// for longer, which leaves the relay processor time.
    #[must_use]
    pub fn start(
        tasks: &Tasks,
        store: &Arc<dyn Store>,
        lease: &watch::Receiver<Lease>,
        backlogged: &watch::Receiver<bool>,
        connections: Arc<dyn Connections>,
    ) -> Self {
        macro_rules! group {
            ($call:ident, $key:expr) => {
                group!($call, $key, Options::for_database(store.shared()))
            };
            ($call:ident, $key:expr, $options:expr) => {{
                let (store, lease) = (Arc::clone(store), lease.clone());
                GroupCommit::spawn(
                    tasks,
                    concat!("commits of ", stringify!($call)),
                    $options,
                    $key,
                    move |batch: Vec<_>| {
                        let (store, lease) = (Arc::clone(&store), *lease.borrow());
                        async move {
                            failpoint::reach(concat!(stringify!($call), " begins"));
                            let answer = store.$call(lease, &batch).await;
                            failpoint::reach(concat!(stringify!($call), " committed"));
                            answer
                        }
                    },
                )
            }};
        }
        Self {
            open: group!(
                open,
                // The last bits choose the lane, so a user's sessions are opened in one lane, where they count each
                // other.
                |open: &Open| key(&(open.classroom, &open.agent)) << 8 | key(&open.user) & 0xff,
                Options { throttle_while: Some(backlogged.clone()), ..Options::for_database(store.shared()) }
            ),
            join: group!(join, |join: &Join| key(&join.sid)),
            restore_lesson: group!(restore_lesson, |restore: &RestoreLesson| key(&restore.sid)),
            leave_lesson: group!(leave_lesson, |leave: &LeaveLesson| key(&leave.sid)),
            close: group!(close, |close: &Close| key(&(close.classroom, &close.agent))),
            set_state: group!(set_state, |set: &SetState| key(&set.session)),
            verify: group!(verify, |session: &Remembered| key(&session.session)),
            refused: RefusedEnds::start(tasks, Arc::clone(store), lease.clone()),
            recent: store.shared().then(RecentEnds::default),
            began: *store.incarnation().borrow(),
            incarnation: store.incarnation(),
            lease: lease.clone(),
            connections,
            store: Arc::clone(store),
            lesson_classrooms: Arc::default(),
            undos: Undos::default(),
        }
    }

    /// Opens a session: its row and agent.entered, in one transaction. Returns `None` if the user has as many sessions
    /// as it may have. The client has waited since `since`. See [`crate::EnterGuard::open`].
    pub(crate) async fn open(&self, since: Instant, open: Open) -> Result<Option<Opened>, StoreError> {
        self.open.call_since(since, open).await
    }

    /// Closes the connection that had the session with `replaced`, if it is on this node. Other nodes learn of it by
    /// their heartbeat.
    pub(crate) async fn close_replaced(&self, opened: &Opened) {
        if let Some((_, sid)) = opened.replaced.filter(|(node, _)| *node == self.lease.borrow().node) {
            self.connections.close(sid, SessionError::Replaced).await;
        }
    }

    /// Returns the classroom of a lesson, or `None` if there is no such lesson.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if SQL does not answer.
    pub async fn lesson_classroom(&self, lesson: &LessonId) -> Result<Option<ClassroomId>, StoreError> {
        if let Some(classroom) = self.lesson_classrooms.get(lesson) {
            return Ok(Some(classroom));
        }
        let classroom = self.store.lesson_classroom(lesson).await?;
        if let Some(classroom) = classroom {
            self.lesson_classrooms.insert(lesson.clone(), classroom);
        }
        Ok(classroom)
    }

    /// Calls [`rollcall_store::Queries::resumable`].
    ///
    /// # Errors
    /// Returns a [`StoreError`] if SQL does not answer.
    pub async fn resumable(
        &self,
        agent: &AgentId,
        id: ResumeId,
        within: Duration,
    ) -> Result<Option<ResumableSession>, StoreError> {
        self.store.resumable(agent, id, within).await
    }

    /// Joins a lesson: finds the lesson and the user's seat, and saves both in the session's row.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if the lesson was not joined.
    pub async fn join(&self, join: Join) -> Result<Joined, StoreError> {
        self.join.call(join).await
    }

    /// Undoes a change of a connection's lesson. Returns false if the session no longer belongs to the connection.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if SQL does not answer.
    pub async fn restore_lesson(&self, restore: RestoreLesson) -> Result<bool, StoreError> {
        self.restore_lesson.call(restore).await
    }

    /// Makes a connection leave its lesson.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if SQL does not answer.
    pub async fn leave_lesson(&self, leave: LeaveLesson) -> Result<LessonLeft, StoreError> {
        self.leave_lesson.call(leave).await
    }

    /// Sets an agent's state. Returns `None` if the session no longer belongs to the connection.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if SQL does not answer.
    pub async fn set_state(&self, set: SetState) -> Result<Option<StateVersion>, StoreError> {
        self.set_state.call(set).await
    }

    /// Returns the tasks that undo calls that were cut off.
    pub(crate) fn undos(&self) -> &Undos {
        &self.undos
    }

    /// Returns the sessions that ended a moment ago, for the check after a loss of commits.
    #[must_use]
    pub fn recent_ends(&self) -> RecentEnds {
        self.recent.clone().unwrap_or_default()
    }

    /// Returns whether the database has lost commits since this node started. If so, a row may be older than what this
    /// node knows.
    #[must_use]
    pub fn has_lost_commits(&self) -> bool {
        *self.incarnation.borrow() != self.began
    }

    /// Ends the session of an agent that leaves. If its connection does not own the session and has not been told why,
    /// the row may be gone. Then the end is written from memory.
    pub async fn leave(&self, session: Remembered) -> Closed {
        let closed = self.close(session.close()).await;
        if closed == Closed::NotOwner && (self.has_lost_commits() || !was_told(session.reason)) {
            self.end_from_memory(&session).await;
        }
        if let Some(recent) = &self.recent {
            recent.add(session);
        }
        closed
    }

    /// Writes history and agent.left if the session has neither a row nor an end in the history.
    async fn end_from_memory(&self, session: &Remembered) {
        while let Err(error) = self.verify.call(session.clone()).await {
            match error {
                StoreError::Unavailable(_) | StoreError::Overloaded => {
                    warn!(%error, "a session's end waits for the database");
                }
                // Another node ended the session.
                StoreError::Fenced if !self.has_lost_commits() => return,
                StoreError::Fenced => {}
                StoreError::Refused(why) => {
                    warn!(why, agent = %session.agent, "the end of a session whose row is lost is refused");
                    metrics::counter!(names::DROPPED, "reason" => "close_refused").increment(1);
                    return;
                }
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Tells the client of a connection that does not own this session why: another connection has the session, or an
    /// operator has ended it. If the row is gone, the end is written from memory, and the client comes back.
    pub(crate) async fn settle(&self, session: Remembered) {
        let sid = session.sid;
        match self.verify.call(session).await.map(Standing::error) {
            Ok(Some(error)) => self.connections.close(sid, error).await,
            Ok(None) => {}
            Err(error) => warn!(%error, "a session that its connection does not own goes on until its next request"),
        }
    }

    /// Ends a session: writes the history and agent.left, and deletes the row, in one transaction. Tries until the
    /// database answers, because an end must be recorded.
    pub async fn close(&self, close: Close) -> Closed {
        loop {
            match self.close.call(close.clone()).await {
                Ok(closed) => return closed,
                // Another node ended the session.
                Err(StoreError::Fenced) => return Closed::NotOwner,
                // The later attempt also removes the user's field. Until then the caller does.
                Err(StoreError::Refused(_)) => {
                    self.refused.add(close);
                    return Closed::NotOwner;
                }
                Err(error) => {
                    warn!(%error, "a session's end waits for the database");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }
}

/// Returns whether the client knows that its session is no longer its own, because another connection has it or an
/// operator has ended it.
fn was_told(reason: LeftReason) -> bool {
    matches!(reason.cause(), Some(KickCause::Told(error)) if !error.is_recoverable())
}

fn key(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
