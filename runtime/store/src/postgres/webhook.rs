//! The webhook's cursor. The events are in the stream of NATS, and none are kept here.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{ClassroomId, Offset};

use super::{
    rows::{Parameters, get, unsigned},
    store::PostgresStore,
};
use crate::{KeptEvent, Lease, ParkedClassroom, StoreError, WebhookCursor, WebhookCursors, WebhookState};

/// Checks whether this node holds its lease, and whether it delivers, without a write.
const LOOK: &str = "select exists (select from node where id = $1 and epoch = $2), w.node_id = $1 and w.node_epoch = $2
    from webhook w where w.single";

/// A node delivers while its lease is valid.
const CLAIM: &str = "with fence as materialized (
        select id, epoch from node where id = $1 and epoch = $2 for key share
    )
    update webhook w set node_id = fence.id, node_epoch = fence.epoch from fence
    where w.single and not exists (
        select from node n where n.id = w.node_id and n.epoch = w.node_epoch and not n.taken
            and n.lease_until > clock_timestamp()
    )
    returning w.node_id";

const STATE: &str = "select stream, after_offset from webhook where single";
/// The parked classrooms of the cursor's own stream. Others may be left from an earlier stream.
const PARKED: &str = "select p.classroom_id, p.after_offset,
        greatest(extract(epoch from clock_timestamp() - p.refused_since), 0)::float8
    from webhook_parked p join webhook w on w.single and w.stream = p.stream";

/// The part `mine`: it has a row if this node delivers, and locks it against a node that takes the delivery over.
macro_rules! if_mine {
    ($write:literal) => {
        concat!(
            "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for key share
    ), mine as materialized (
        select w.single from fence join webhook w on w.node_id = fence.id and w.node_epoch = $2 and w.single
        for update of w
    ), ",
            $write,
            " select from mine"
        )
    };
}

const MOVE: &str = if_mine!(
    "moved as (
        update webhook w set stream = $3, after_offset = $4 from mine where w.single
    )"
);
const RESTART: &str = if_mine!(
    "moved as (
        update webhook w set stream = $3, after_offset = $4 from mine where w.single
    ), gone as (
        delete from webhook_parked using mine
    )"
);
const PARK: &str = if_mine!(
    "parked as (
        insert into webhook_parked (classroom_id, stream, after_offset, refused_since)
        select $3, $4, $5, clock_timestamp() - make_interval(secs => $6) from mine
        on conflict (classroom_id) do update
        set stream = excluded.stream, after_offset = excluded.after_offset, refused_since = excluded.refused_since
    )"
);
const UNPARK: &str = if_mine!(
    "gone as (
        delete from webhook_parked p using mine where p.classroom_id = $3
    )"
);

fn signed(offset: Offset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}

impl PostgresStore {
    async fn write_webhook(
        &self,
        operation: &'static str,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<(), StoreError> {
        let rows = self.pool.rows(operation, sql, parameters).await?;
        if rows.is_empty() { Err(StoreError::Fenced) } else { Ok(()) }
    }
}

#[async_trait]
impl WebhookCursors for PostgresStore {
    async fn claim_webhook(&self, lease: Lease) -> Result<Option<WebhookState>, StoreError> {
        let Lease { node, epoch } = lease;
        let rows = self.pool.rows("webhook_claim", LOOK, &[&node.0, &epoch.0]).await?;
        let row = rows.first().ok_or_else(|| StoreError::Refused("the table webhook has no row".to_owned()))?;
        let (holds, mine): (bool, Option<bool>) = (get(row, 0)?, get(row, 1)?);
        if !holds {
            return Err(StoreError::Fenced);
        }
        if mine != Some(true) && self.pool.rows("webhook_claim", CLAIM, &[&node.0, &epoch.0]).await?.is_empty() {
            return Ok(None);
        }
        let rows = self.pool.rows("webhook_claim", STATE, &[]).await?;
        let row = rows.first().ok_or_else(|| StoreError::Refused("the table webhook has no row".to_owned()))?;
        let cursor = WebhookCursor { epoch: get(row, 0)?, offset: Offset(unsigned(get(row, 1)?)?) };
        let rows = self.pool.rows("webhook_claim", PARKED, &[]).await?;
        let parked = rows.iter().map(|row| {
            Ok(ParkedClassroom {
                classroom: ClassroomId(get(row, 0)?),
                after: Offset(unsigned(get(row, 1)?)?),
                refused_for: Duration::from_secs_f64(get(row, 2)?),
            })
        });
        Ok(Some(WebhookState { cursor, parked: parked.collect::<Result<_, StoreError>>()? }))
    }

    async fn move_webhook(&self, lease: Lease, cursor: &WebhookCursor) -> Result<(), StoreError> {
        let WebhookCursor { epoch, offset } = cursor;
        let values: Parameters<'_> = &[&lease.node.0, &lease.epoch.0, epoch, &signed(*offset)];
        self.write_webhook("webhook_move", MOVE, values).await
    }

    async fn restart_webhook(&self, lease: Lease, cursor: &WebhookCursor) -> Result<(), StoreError> {
        let WebhookCursor { epoch, offset } = cursor;
        let values: Parameters<'_> = &[&lease.node.0, &lease.epoch.0, epoch, &signed(*offset)];
        self.write_webhook("webhook_move", RESTART, values).await
    }

    async fn park_classroom(&self, lease: Lease, epoch: &str, parked: &ParkedClassroom) -> Result<(), StoreError> {
        let ParkedClassroom { classroom, after, refused_for } = parked;
        let (after, refused_for) = (signed(*after), refused_for.as_secs_f64());
        let values: Parameters<'_> = &[&lease.node.0, &lease.epoch.0, &classroom.0, &epoch, &after, &refused_for];
        self.write_webhook("webhook_park", PARK, values).await
    }

    async fn unpark_classroom(&self, lease: Lease, classroom: ClassroomId) -> Result<(), StoreError> {
        self.write_webhook("webhook_park", UNPARK, &[&lease.node.0, &lease.epoch.0, &classroom.0]).await
    }

    async fn kept_events(
        &self,
        _classroom: Option<ClassroomId>,
        _after: Offset,
        _max: usize,
    ) -> Result<Vec<KeptEvent>, StoreError> {
        Ok(Vec::new())
    }

    async fn forget_kept(&self, _through: Offset, _max_age: Duration, _max: usize) -> Result<u64, StoreError> {
        Ok(0)
    }
}
