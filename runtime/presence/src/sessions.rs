//! Sessions in SQL as handlers see them: one call each, many of them one commit (PROTOCOL 5).
//!
//! Invariant: an answer is given after the commit. An end that the database refuses is set aside ([`crate::refused_ends`]).
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use rollcall_schema::{AgentId, ClassroomId, LessonId, ResumeId, SessionError, StateVersion};
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

/// Between two tries of a close while the database is away.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The calls. Cheap to clone.
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
    /// None where no commit can be lost while this node runs.
    recent: Option<RecentEnds>,
    incarnation: watch::Receiver<Option<Uuid>>,
    /// The incarnation of the database when this node began.
    began: Option<Uuid>,
    lease: watch::Receiver<Lease>,
    connections: Arc<dyn Connections>,
    store: Arc<dyn Store>,
    lesson_classrooms: Arc<LessonClassrooms>,
    undos: Undos,
}

impl Sessions {
    /// Starts the groups. While the relay is `backlogged`, as after an outage of the bus, opens are batched for longer,
    /// which leaves it processor time.
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
                group!($call, $key, Options::default())
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
                // A lane is found by the last bits: a user's sessions are opened in one, where they count each other.
                |open: &Open| key(&(open.classroom, &open.agent)) << 8 | key(&open.user) & 0xff,
                Options { throttle_while: Some(backlogged.clone()), ..Options::default() }
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

    /// Opens a session: its row and agent.entered, in one transaction. None where its user has as many as it may. Its client
    /// waits since then. See [`crate::EnterGuard::open`].
    pub(crate) async fn open(&self, since: Instant, open: Open) -> Result<Option<Opened>, StoreError> {
        self.open.call_since(since, open).await
    }

    /// The connection that had the session hears `replaced`, if it is this node's: others find out by their heartbeat.
    pub(crate) async fn close_replaced(&self, opened: &Opened) {
        if let Some((_, sid)) = opened.replaced.filter(|(node, _)| *node == self.lease.borrow().node) {
            self.connections.close(sid, SessionError::Replaced).await;
        }
    }

    /// The classroom of a lesson; none where there is no such lesson.
    ///
    /// # Errors
    /// [`StoreError`].
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

    /// See [`rollcall_store::Queries::resumable`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn resumable(
        &self,
        agent: &AgentId,
        id: ResumeId,
        within: Duration,
    ) -> Result<Option<ResumableSession>, StoreError> {
        self.store.resumable(agent, id, within).await
    }

    /// A connection joins a lesson: is it there, which seat, and both into the session's row.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn join(&self, join: Join) -> Result<Joined, StoreError> {
        self.join.call(join).await
    }

    /// Undoes a change of a connection's lesson; false where the session is no longer the connection's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn restore_lesson(&self, restore: RestoreLesson) -> Result<bool, StoreError> {
        self.restore_lesson.call(restore).await
    }

    /// A connection leaves its lesson.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn leave_lesson(&self, leave: LeaveLesson) -> Result<LessonLeft, StoreError> {
        self.leave_lesson.call(leave).await
    }

    /// An agent sets its state; none where the session is no longer the connection's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_state(&self, set: SetState) -> Result<Option<StateVersion>, StoreError> {
        self.set_state.call(set).await
    }

    /// What undoes calls that were cut off.
    pub(crate) fn undos(&self) -> &Undos {
        &self.undos
    }

    /// Sessions that ended a moment ago, for the check after a loss of commits.
    #[must_use]
    pub fn recent_ends(&self) -> RecentEnds {
        self.recent.clone().unwrap_or_default()
    }

    /// Whether the database has lost commits since this node began: a row may be older than what this node knows.
    #[must_use]
    pub fn has_lost_commits(&self) -> bool {
        *self.incarnation.borrow() != self.began
    }

    /// An agent leaves. Where the database has lost commits since this node began, the session's row may be among them:
    /// then its end is written from memory.
    pub async fn leave(&self, session: Remembered) -> Closed {
        let closed = self.close(session.close()).await;
        if closed == Closed::NotOwner && self.has_lost_commits() {
            while let Err(error) = self.verify.call(session.clone()).await {
                match error {
                    StoreError::Unavailable(_) | StoreError::Overloaded => {
                        warn!(%error, "a session's end waits for the database");
                    }
                    StoreError::Fenced => {}
                    StoreError::Refused(why) => {
                        warn!(why, agent = %session.agent, "the end of a session whose row is lost is refused");
                        metrics::counter!(names::DROPPED, "reason" => "close_refused").increment(1);
                        break;
                    }
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
        if let Some(recent) = &self.recent {
            recent.add(session);
        }
        closed
    }

    /// A session ends: history, agent.left and the end of its row, in one transaction. Tries until the database
    /// answers: what left must be written down.
    pub async fn close(&self, close: Close) -> Closed {
        loop {
            match self.close.call(close.clone()).await {
                Ok(closed) => return closed,
                // Another node ended it.
                Err(StoreError::Fenced) => return Closed::NotOwner,
                // What is written later takes the user's field along; until then the caller does.
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

fn key(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
