//! Ends sessions for operators.
use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, LessonId, NodeId, SessionId};
use rusqlite::{Connection, Row, params};

use super::{
    db_thread::failed,
    fence::fence,
    rows::{rows, sid, text, unreadable, whole},
    session_end::{self, End},
    store::SqliteStore,
};
use crate::{Kick, KickTarget, KickedSession, Kicks, Lease, StoreError};

const WAITING: &str = "select sid, lesson_id from temp.kick";

const OF_SESSION: &str = "select id, agent_id, classroom_id, node_id, sid from agent_session where id = ?1";
const OF_USER: &str = "select id, agent_id, classroom_id, node_id, sid from agent_session where user_id = ?1 \
    and (?2 is null or agent_id = ?2) and (?3 is null or classroom_id = ?3) order by id limit ?4";

#[async_trait]
impl Kicks for SqliteStore {
    async fn kick(&self, lease: Lease, target: &KickTarget, max: usize) -> Result<Vec<KickedSession>, StoreError> {
        let target = target.clone();
        let kicked = self.writer.call("kick", move |connection| kick(connection, lease, &target, max)).await?;
        self.wake();
        Ok(kicked)
    }

    async fn kick_from_lesson(&self, session: SessionId) -> Result<Option<(NodeId, Kick)>, StoreError> {
        self.writer.call("kick", move |connection| kick_from_lesson(connection, session)).await
    }

    async fn kicks(&self, _: NodeId) -> Result<Vec<Kick>, StoreError> {
        self.writer.call("kicks", waiting).await
    }

    async fn ack_kicks(&self, _: NodeId, done: &[Kick]) -> Result<(), StoreError> {
        let done = done.to_vec();
        self.writer.call("kicked", move |connection| ack(connection, &done)).await
    }
}

fn kick(
    connection: &Connection,
    lease: Lease,
    target: &KickTarget,
    max: usize,
) -> Result<Vec<KickedSession>, StoreError> {
    fence(connection, lease)?;
    let of_user = |user: &str, agent: Option<&str>, classroom: &Option<ClassroomId>| {
        let classroom = classroom.map(|classroom| classroom.to_string());
        rows(connection, OF_USER, params![user, agent, classroom, whole(max)], session)
    };
    let kicked = match target {
        KickTarget::Session(id) => rows(connection, OF_SESSION, [id.0], session)?,
        KickTarget::Agent(agent, classroom) => of_user(agent.user().as_str(), Some(agent.as_str()), classroom)?,
        KickTarget::User(user, classroom) => of_user(user.as_str(), None, classroom)?,
    };
    let mut note = connection.prepare_cached("insert into temp.kick (sid) values (?1)").map_err(failed)?;
    for one in &kicked {
        session_end::end(connection, one.session.0, End::KICKED)?;
        note.execute([one.sid.to_string()]).map_err(failed)?;
    }
    Ok(kicked)
}

fn session(row: &Row<'_>) -> Result<KickedSession, StoreError> {
    Ok(KickedSession {
        session: SessionId(row.get(0).map_err(failed)?),
        agent: AgentId::parse(&text(row, 1)?).map_err(unreadable)?,
        classroom: ClassroomId::parse(&text(row, 2)?).map_err(unreadable)?,
        node: NodeId(row.get(3).map_err(failed)?),
        sid: sid(&text(row, 4)?)?,
    })
}

fn kick_from_lesson(connection: &Connection, session: SessionId) -> Result<Option<(NodeId, Kick)>, StoreError> {
    const SQL: &str = "select sid, lesson_id, node_id from agent_session where id = ?1 and lesson_id is not null";
    let found = rows(connection, SQL, [session.0], |row| Ok((NodeId(row.get(2).map_err(failed)?), of_row(row)?)))?;
    let found = found.into_iter().next();
    if let Some((_, Kick { sid, lesson: Some(lesson) })) = &found {
        connection
            .prepare_cached("insert into temp.kick (sid, lesson_id) values (?1, ?2)")
            .and_then(|mut note| note.execute(params![sid.to_string(), lesson.as_str()]))
            .map_err(failed)?;
    }
    Ok(found)
}

fn of_row(row: &Row<'_>) -> Result<Kick, StoreError> {
    let lesson: Option<String> = row.get(1).map_err(failed)?;
    let lesson = lesson.as_deref().map(LessonId::parse).transpose().map_err(unreadable)?;
    Ok(Kick { sid: sid(&text(row, 0)?)?, lesson })
}

/// Returns the kicks that are not carried out yet.
pub(super) fn waiting(connection: &Connection) -> Result<Vec<Kick>, StoreError> {
    rows(connection, WAITING, [], of_row)
}

fn ack(connection: &Connection, done: &[Kick]) -> Result<(), StoreError> {
    let mut statement =
        connection.prepare_cached("delete from temp.kick where sid = ?1 and lesson_id is ?2").map_err(failed)?;
    let mut one = |kick: &Kick| {
        let lesson = kick.lesson.as_ref().map(LessonId::as_str);
        statement.execute(params![kick.sid.to_string(), lesson]).map(drop)
    };
    done.iter().try_for_each(&mut one).map_err(failed)
}
