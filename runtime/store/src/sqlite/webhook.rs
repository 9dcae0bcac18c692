//! The webhook's cursor, and the events that are kept until the cursor has passed them.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{ClassroomId, Offset, TraceParent};
use rusqlite::{Connection, Params, Row, params};

use super::{
    db_thread::failed,
    fence::fence,
    rows::{rows, text, unreadable, whole},
    store::SqliteStore,
};
use crate::{KeptEvent, Lease, OutboxRow, ParkedClassroom, StoreError, WebhookCursor, WebhookCursors, WebhookState};

const KEEP: &str = "insert into webhook_event (classroom_id, reason, body, traceparent) values (?1, ?2, ?3, ?4)";

const STATE: &str = "select stream, after_offset from webhook";
const PARKED: &str = "select classroom_id, after_offset, \
    max((julianday('now') - julianday(refused_since)) * 86400, 0) from webhook_parked \
    where stream = (select stream from webhook)";
const MOVE: &str = "update webhook set stream = ?1, after_offset = ?2";
const UNPARK_ALL: &str = "delete from webhook_parked";
const PARK: &str = "insert or replace into webhook_parked (classroom_id, stream, after_offset, refused_since) \
    values (?1, ?2, ?3, strftime('%Y-%m-%d %H:%M:%f', 'now', ?4))";
const UNPARK: &str = "delete from webhook_parked where classroom_id = ?1";

const EVENTS: &str = "select id, classroom_id, reason, body, \
    max((julianday('now') - julianday(created_at)) * 86400, 0), traceparent from webhook_event where id > ?1 order by id limit ?2";
const EVENTS_OF_ONE: &str = "select id, classroom_id, reason, body, \
    max((julianday('now') - julianday(created_at)) * 86400, 0), traceparent from webhook_event \
    where classroom_id = ?3 and id > ?1 order by id limit ?2";
/// Rows are deleted from the front, so few rows are checked.
const FORGET: &str = "delete from webhook_event where id in ( \
    select id from webhook_event where id <= ?1 order by id limit ?2)";
const AGED_OUT: &str = "delete from webhook_event where id in (select id from webhook_event order by id limit ?1) \
    and created_at < strftime('%Y-%m-%d %H:%M:%f', 'now', ?2)";

fn run(connection: &Connection, sql: &str, values: impl Params) -> Result<usize, StoreError> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute(values)).map_err(failed)
}

fn ago(time: Duration) -> String {
    format!("-{:.3} seconds", time.as_secs_f64())
}

fn signed(offset: Offset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}

fn offset(row: &Row<'_>, column: usize) -> Result<Offset, StoreError> {
    let offset: i64 = row.get(column).map_err(failed)?;
    u64::try_from(offset).map(Offset).map_err(unreadable)
}

fn seconds(row: &Row<'_>, column: usize) -> Result<Duration, StoreError> {
    row.get::<_, Option<f64>>(column).map(Option::unwrap_or_default).map(Duration::from_secs_f64).map_err(failed)
}

/// Keeps the event of an outbox row that is published.
pub(super) fn keep(connection: &Connection, row: &OutboxRow) -> Result<(), StoreError> {
    let reason = row.change.reason().map(|reason| reason.as_str());
    let body = String::from_utf8(row.event().body()).map_err(unreadable)?;
    let trace = row.trace.map(|trace| trace.to_string());
    run(connection, KEEP, params![row.classroom.to_string(), reason, body, trace]).map(drop)
}

fn state(connection: &Connection) -> Result<WebhookState, StoreError> {
    let cursor = |row: &Row<'_>| Ok(WebhookCursor { epoch: text(row, 0)?, offset: offset(row, 1)? });
    let parked = |row: &Row<'_>| {
        Ok(ParkedClassroom {
            classroom: ClassroomId::parse(&text(row, 0)?).map_err(unreadable)?,
            after: offset(row, 1)?,
            refused_for: seconds(row, 2)?,
        })
    };
    let cursor = rows(connection, STATE, [], cursor)?.pop().unwrap_or_default();
    Ok(WebhookState { cursor, parked: rows(connection, PARKED, [], parked)? })
}

fn move_to(connection: &Connection, cursor: &WebhookCursor) -> Result<(), StoreError> {
    run(connection, MOVE, params![cursor.epoch, signed(cursor.offset)]).map(drop)
}

fn event(row: &Row<'_>) -> Result<KeptEvent, StoreError> {
    let optional = |column| row.get::<_, Option<String>>(column).map_err(failed);
    let (reason, trace) = (optional(2)?, optional(5)?);
    Ok(KeptEvent {
        offset: offset(row, 0)?,
        classroom: ClassroomId::parse(&text(row, 1)?).map_err(unreadable)?,
        reason: reason.and_then(|reason| reason.parse().ok()),
        trace: trace.as_deref().and_then(TraceParent::parse),
        body: text(row, 3)?.into(),
        age: seconds(row, 4)?,
    })
}

impl SqliteStore {
    async fn write_webhook(
        &self,
        lease: Lease,
        write: impl FnOnce(&Connection) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let fenced = move |connection: &Connection| {
            fence(connection, lease)?;
            write(connection)
        };
        self.writer.call("webhook", fenced).await
    }
}

/// One process serves the file, so the node that has the lease delivers.
#[async_trait]
impl WebhookCursors for SqliteStore {
    async fn claim_webhook(&self, lease: Lease) -> Result<Option<WebhookState>, StoreError> {
        let claim = move |connection: &Connection| {
            fence(connection, lease)?;
            state(connection).map(Some)
        };
        self.reader.call("webhook", claim).await
    }

    async fn move_webhook(&self, lease: Lease, cursor: &WebhookCursor) -> Result<(), StoreError> {
        let cursor = cursor.clone();
        self.write_webhook(lease, move |connection| move_to(connection, &cursor)).await
    }

    async fn restart_webhook(&self, lease: Lease, cursor: &WebhookCursor) -> Result<(), StoreError> {
        let cursor = cursor.clone();
        let restart = move |connection: &Connection| {
            run(connection, UNPARK_ALL, [])?;
            move_to(connection, &cursor)
        };
        self.write_webhook(lease, restart).await
    }

    async fn park_classroom(&self, lease: Lease, epoch: &str, parked: &ParkedClassroom) -> Result<(), StoreError> {
        let epoch = epoch.to_owned();
        let ParkedClassroom { classroom, after, refused_for } = *parked;
        let park = move |connection: &Connection| {
            run(connection, PARK, params![classroom.to_string(), epoch, signed(after), ago(refused_for)]).map(drop)
        };
        self.write_webhook(lease, park).await
    }

    async fn unpark_classroom(&self, lease: Lease, classroom: ClassroomId) -> Result<(), StoreError> {
        let unpark = move |connection: &Connection| run(connection, UNPARK, [classroom.to_string()]).map(drop);
        self.write_webhook(lease, unpark).await
    }

    async fn kept_events(
        &self,
        classroom: Option<ClassroomId>,
        after: Offset,
        max: usize,
    ) -> Result<Vec<KeptEvent>, StoreError> {
        let (after, max) = (signed(after), whole(max));
        let read = move |connection: &Connection| match classroom {
            None => rows(connection, EVENTS, params![after, max], event),
            Some(classroom) => rows(connection, EVENTS_OF_ONE, params![after, max, classroom.to_string()], event),
        };
        self.reader.call("webhook_events", read).await
    }

    async fn forget_kept(&self, through: Offset, max_age: Duration, max: usize) -> Result<u64, StoreError> {
        let forget = move |connection: &Connection| {
            run(connection, FORGET, params![signed(through), whole(max)])?;
            run(connection, AGED_OUT, params![whole(max), ago(max_age)]).map(|aged_out| aged_out as u64)
        };
        self.writer.call("webhook_forget", forget).await
    }
}
