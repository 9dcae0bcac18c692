//! Compares the sessions that the node remembers with the database, and reads the rows that the database has for the
//! node.
use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, LeftReason, LessonId, NodeId, SessionId};
use rusqlite::{Connection, params};
use tokio::{sync::watch, task::spawn_blocking};
use uuid::Uuid;

use super::{
    db_thread::failed,
    fence::fence,
    restored,
    rows::{rows, sid, text, unreadable, whole},
    stale_fields,
    store::SqliteStore,
};
use crate::{Close, KeyField, Lease, Recovery, Remembered, Restored, Standing, StoreError};

/// The owner of the row, whether the owner is this connection in this lesson, whether the history has the session's
/// end, whether the agent has a later session, and whether an operator has ended this session.
const STANDING: &str = "select (select sid from agent_session where id = ?1), \
    exists (select 1 from agent_session where id = ?1 and sid = ?4 and lesson_id is ?5), \
    exists (select 1 from agent_session_history where id = ?1), \
    exists (select 1 from agent_session where classroom_id = ?2 and agent_id = ?3 and id > ?1) \
    or exists (select 1 from temp.takeover where sid = ?4), \
    exists (select 1 from temp.kick where sid = ?4 and lesson_id is null)";

const END: &str = "insert into agent_session_history \
    (id, agent_id, classroom_id, user_id, lesson_id, started_at, reason) \
    values (?1, ?2, ?3, ?4, ?5, strftime('%Y-%m-%d %H:%M:%f', 'now', ?6), ?7)";

const LEFT: &str = "insert into outbox (classroom_id, agent_id, session_id, operation, reason) \
    values (?1, ?2, ?3, 'left', ?4)";

#[async_trait]
impl Recovery for SqliteStore {
    fn incarnation(&self) -> watch::Receiver<Option<Uuid>> {
        self.incarnation.subscribe()
    }

    async fn verify(&self, lease: Lease, batch: &[Remembered]) -> Result<Vec<Standing>, StoreError> {
        let batch = batch.to_vec();
        let verified = self.writer.call("verify", move |connection| verify(connection, lease, &batch)).await?;
        self.wake();
        Ok(verified)
    }

    async fn owned_sessions(
        &self,
        node: NodeId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<(SessionId, Close)>, StoreError> {
        self.reader.call("owned", move |connection| owned_sessions(connection, node, after, max)).await
    }

    async fn prepare_restored(&self) -> Result<Restored, StoreError> {
        let path = self.path.clone();
        let restored = spawn_blocking(move || restored::prepare(&path)).await;
        restored.unwrap_or_else(|_| Err(StoreError::Unavailable("it panicked".to_owned())))
    }
}

fn verify(connection: &Connection, lease: Lease, batch: &[Remembered]) -> Result<Vec<Standing>, StoreError> {
    fence(connection, lease)?;
    batch.iter().map(|one| verify_one(connection, lease.node, one)).collect()
}

fn verify_one(connection: &Connection, node: NodeId, one: &Remembered) -> Result<Standing, StoreError> {
    let Remembered { session, classroom, agent, user, lesson, reason, .. } = one;
    let (classroom, sid) = (classroom.to_string(), one.sid.to_string());
    let in_lesson = lesson.as_ref().map(LessonId::as_str);
    let (owner, owned, ended, replaced, kicked): (Option<String>, bool, bool, bool, bool) = connection
        .prepare_cached(STANDING)
        .and_then(|mut standing| {
            let values = params![session.0, classroom, agent.as_str(), sid, in_lesson];
            standing.query_row(values, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        })
        .map_err(failed)?;
    if owned {
        return Ok(Standing::Owned);
    }
    if let Some(lesson) = lesson {
        let field = KeyField { lesson: lesson.clone(), user: user.clone(), sid: one.sid };
        stale_fields::add(connection, node, &[field])?;
    }
    let lost = owner.is_none() && !ended && !kicked;
    if lost {
        let age = format!("-{:.3} seconds", one.age.as_secs_f64());
        connection
            .prepare_cached(END)
            .and_then(|mut end| {
                end.execute(params![
                    session.0,
                    agent.as_str(),
                    classroom,
                    user.as_str(),
                    in_lesson,
                    age,
                    reason.as_str()
                ])
            })
            .map_err(failed)?;
        connection
            .prepare_cached(LEFT)
            .and_then(|mut left| left.execute(params![classroom, agent.as_str(), session.0, reason.as_str()]))
            .map_err(failed)?;
    }
    Ok(match (kicked, replaced, lost) {
        (true, _, _) => Standing::Kicked,
        (false, true, _) => Standing::Replaced,
        (false, false, true) => Standing::Lost,
        (false, false, false) => Standing::NotOwned,
    })
}

fn owned_sessions(
    connection: &Connection,
    node: NodeId,
    after: SessionId,
    max: usize,
) -> Result<Vec<(SessionId, Close)>, StoreError> {
    const SQL: &str = "select id, classroom_id, agent_id, sid from agent_session \
        where node_id = ?1 and id > ?2 order by id limit ?3";
    rows(connection, SQL, params![node.0, after.0, whole(max)], |row| {
        let close = Close {
            classroom: ClassroomId::parse(&text(row, 1)?).map_err(unreadable)?,
            agent: AgentId::parse(&text(row, 2)?).map_err(unreadable)?,
            sid: sid(&text(row, 3)?)?,
            reason: LeftReason::NodeLost,
            resume_id: None,
        };
        Ok((SessionId(row.get(0).map_err(failed)?), close))
    })
}
