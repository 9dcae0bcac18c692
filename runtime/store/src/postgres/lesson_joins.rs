//! Connections join lessons and leave them. A batch is one statement, as in [`super::sessions`].
use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use rollcall_schema::{Role, Seat, Sid};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    rows::{Parameters, get, unreadable, unsigned},
    sessions::sorted,
    store::PostgresStore,
};
use crate::{Join, Joined, Lease, LeaveLesson, LessonJoins, LessonLeft, RestoreLesson, StoreError};

/// The result has the rows of `wanted` and those of `written`, one after the other, because a join of the two would
/// cost more than the rest. The seat is a subquery, because a join with an empty table was planned to read all of a
/// lesson's attendees. A guest with a token has no session whose end would add its stale field, so that field is
/// written now, and held. Other sessions of the user are looked for only if the session was in another lesson before. If
/// there is none, the join removes the field in that lesson without a stale field, so the removal is kept here.
const JOIN: &str = "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for key share
    ), wanted as materialized (
        select i.place, i.sid, i.session_id, i.change, i.user_id, i.role, l.id as lesson_id, l.seats, (
            select a.seat from lesson_attendee a where a.lesson_id = l.id and a.user_id = i.user_id
        )
        from fence cross join unnest($3::text[], $4::bigint[], $5::integer[], $6::uuid[], $7::text[], $8::text[], $9::text[])
            with ordinality as i(sid, session_id, change, classroom_id, lesson_id, user_id, role, place)
        left join lesson l on l.id = any (array[i.lesson_id]) and l.classroom_id = i.classroom_id
    ), written as (
        update agent_session s set lesson_id = w.lesson_id, lesson_role = w.role, seat = w.seat,
            joined_at = clock_timestamp(), lesson_change = w.change, lesson_before = case when s.lesson_id = w.lesson_id then s.lesson_before
                else coalesce(s.lesson_id, s.lesson_before) end
        from wanted w
        where s.id = any (array[w.session_id]) and s.sid = w.sid and s.lesson_change <= w.change
            and w.lesson_id is not null
        returning w.place, s.user_id, s.sid, nullif(s.lesson_before, s.lesson_id) as lesson_left,
            case when s.lesson_before <> s.lesson_id then exists (
                select from agent_session o
                where o.user_id = any (array[s.user_id]) and o.lesson_id = s.lesson_before and o.id <> s.id
            ) else false end as shared
    ), kept as (
        insert into removal (node_id, lesson_id, user_id, sid)
        select $1, lesson_left, user_id, sid from written where $10::bool and lesson_left is not null and not shared
    ), guests as (
        insert into stale_field (node_id, lesson_id, user_id, sid, held)
        select $1, w.lesson_id, w.user_id, w.sid, true from wanted w
        where w.session_id is null and w.user_id is not null and w.lesson_id is not null and not exists (
            select from stale_field l where l.held and l.sid = any (array[w.sid]) and l.lesson_id = w.lesson_id
        )
    )
    select place, false, seats, seat, false from wanted union all select place, true, null, null, shared from written";

/// The field of the lesson that is now in the row may be in Redis, so the lesson stays in the row as `lesson_before`.
const RESTORE: &str = "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for key share
    ), written as (
        update agent_session s set lesson_id = i.lesson_id, lesson_role = i.role, seat = i.seat, lesson_change = i.change,
            lesson_before = case when s.lesson_id is not distinct from i.lesson_id then s.lesson_before
                else coalesce(s.lesson_id, s.lesson_before) end,
            joined_at = case when i.lesson_id is null then null when s.lesson_id = i.lesson_id then s.joined_at
                else clock_timestamp() end
        from fence cross join unnest($3::text[], $4::bigint[], $5::integer[], $6::text[], $7::bigint[], $8::text[])
            as i(sid, session_id, change, lesson_id, seat, role)
        where s.id = any (array[i.session_id]) and s.sid = i.sid and s.lesson_change <= i.change
        returning s.sid
    )
    select w.sid from fence left join written w on true";

/// The lesson stays in the row as `lesson_before`. If its field is not removed before, the session's end removes it.
const LEAVE: &str = "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for key share
    ), gone as (
        update agent_session s set lesson_id = null, lesson_role = null, seat = null, joined_at = null,
            lesson_change = i.change,
            lesson_before = coalesce(s.lesson_id, s.lesson_before)
        from fence cross join unnest($3::text[], $4::bigint[], $5::integer[], $6::text[])
            as i(sid, session_id, change, lesson_id)
        where s.id = any (array[i.session_id]) and s.sid = i.sid and s.lesson_change <= i.change
        returning s.sid, s.id, s.user_id, i.lesson_id
    ), kept as (
        insert into removal (node_id, lesson_id, user_id, sid) select $1, lesson_id, user_id, sid from gone where $7::bool
    )
    select g.sid, exists (
        select from agent_session o
        where o.user_id = any (array[g.user_id]) and o.lesson_id = g.lesson_id and o.id <> g.id
    ) from fence left join gone g on true";

#[async_trait]
impl LessonJoins for PostgresStore {
    async fn join(&self, lease: Lease, batch: &[Join]) -> Result<Vec<Joined>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let sorted = sorted(batch, |join| join.session);
        let sids: Vec<String> = sorted.iter().map(|join| join.sid.to_string()).collect();
        let sessions: Vec<Option<i64>> = sorted.iter().map(|join| join.session.map(|id| id.0)).collect();
        let changes: Vec<i32> = sorted.iter().map(|join| join.change.0).collect();
        let classrooms: Vec<Uuid> = sorted.iter().map(|join| join.classroom.0).collect();
        let lessons: Vec<&str> = sorted.iter().map(|join| join.lesson.as_str()).collect();
        let users: Vec<Option<&str>> =
            sorted.iter().map(|join| join.user.as_ref().map(|(user, _)| user.as_str())).collect();
        let roles: Vec<Option<&str>> =
            sorted.iter().map(|join| join.user.as_ref().map(|(_, role)| role.as_str())).collect();
        let keep = batch.iter().any(|join| join.keep);
        let Lease { node, epoch } = lease;
        let values: Parameters<'_> =
            &[&node.0, &epoch.0, &sids, &sessions, &changes, &classrooms, &lessons, &users, &roles, &keep];
        let rows = self.pool.rows("join", JOIN, values).await?;
        if rows.is_empty() {
            return Err(StoreError::Fenced);
        }
        let mut answers: HashMap<Sid, Joined> = HashMap::with_capacity(batch.len());
        // For each row that was written, whether another session of the user is in the lesson that is left.
        let mut written = vec![None; batch.len()];
        let place = |row: &Row| -> Result<usize, StoreError> {
            let place: i64 = get(row, 0)?;
            unsigned(place - 1)
        };
        let (owned, wanted): (Vec<&Row>, Vec<&Row>) =
            rows.iter().partition(|row| row.try_get(1).is_ok_and(|written: bool| written));
        for row in owned {
            written[place(row)?] = Some(get(row, 4)?);
        }
        for row in wanted {
            let place = place(row)?;
            let join = sorted[place];
            let seats: Option<i32> = get(row, 2)?;
            let seat: Option<i32> = get(row, 3)?;
            let answer = match seats {
                None => Joined::NotFound,
                Some(_) if join.session.is_some() && written[place].is_none() => Joined::NotOwner,
                Some(seats) => Joined::Lesson {
                    seats: unsigned(seats.into())?,
                    seat: seat.map(|seat| unsigned(seat.into())).transpose()?.map(Seat),
                    shared: written[place].unwrap_or(false),
                },
            };
            answers.insert(join.sid, answer);
        }
        batch.iter().map(|join| answers.get(&join.sid).copied().ok_or_else(|| unreadable("none for a join"))).collect()
    }

    async fn restore_lesson(&self, lease: Lease, batch: &[RestoreLesson]) -> Result<Vec<bool>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let sorted = sorted(batch, |restore| restore.session);
        let sids: Vec<String> = sorted.iter().map(|restore| restore.sid.to_string()).collect();
        let sessions: Vec<i64> = sorted.iter().map(|restore| restore.session.0).collect();
        let changes: Vec<i32> = sorted.iter().map(|restore| restore.change.0).collect();
        let before = || sorted.iter().map(|restore| restore.lesson.as_ref());
        let lessons: Vec<Option<&str>> = before().map(|before| Some(before?.lesson.as_str())).collect();
        let seats: Vec<Option<i64>> = before().map(|before| Some(before?.seat?.0.into())).collect();
        let roles: Vec<Option<&str>> = before().map(|before| before?.role.map(Role::as_str)).collect();
        let Lease { node, epoch } = lease;
        let values: Parameters<'_> = &[&node.0, &epoch.0, &sids, &sessions, &changes, &lessons, &seats, &roles];
        let rows = self.pool.rows("restore_lesson", RESTORE, values).await?;
        if rows.is_empty() {
            return Err(StoreError::Fenced);
        }
        let written = rows.iter().map(|row| get(row, 0)).collect::<Result<HashSet<Option<String>>, _>>()?;
        Ok(batch.iter().map(|restore| written.contains(&Some(restore.sid.to_string()))).collect())
    }

    async fn leave_lesson(&self, lease: Lease, batch: &[LeaveLesson]) -> Result<Vec<LessonLeft>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let sorted = sorted(batch, |leave| leave.session);
        let sids: Vec<String> = sorted.iter().map(|leave| leave.sid.to_string()).collect();
        let sessions: Vec<i64> = sorted.iter().map(|leave| leave.session.0).collect();
        let changes: Vec<i32> = sorted.iter().map(|leave| leave.change.0).collect();
        let lessons: Vec<&str> = sorted.iter().map(|leave| leave.lesson.as_str()).collect();
        let keep = batch.iter().any(|leave| leave.keep);
        let Lease { node, epoch } = lease;
        let values: Parameters<'_> = &[&node.0, &epoch.0, &sids, &sessions, &changes, &lessons, &keep];
        let rows = self.pool.rows("leave_lesson", LEAVE, values).await?;
        if rows.is_empty() {
            return Err(StoreError::Fenced);
        }
        let left = rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?)));
        let left = left.collect::<Result<HashMap<Option<String>, bool>, StoreError>>()?;
        let answer = |shared: &bool| LessonLeft::Left { shared: *shared };
        Ok(batch
            .iter()
            .map(|leave| left.get(&Some(leave.sid.to_string())).map_or(LessonLeft::NotOwner, answer))
            .collect())
    }
}
