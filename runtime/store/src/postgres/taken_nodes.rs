//! Leases that this process took recently.
//!
//! A database that loses its last commits forgets that these leases were taken. Their nodes may live, because they were
//! only suspended or cut off, and would go on with sessions whose ends were published. So their leases are taken again.
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use uuid::Uuid;

use super::{keeper::Keeper, rows::get};
use crate::{Lease, StoreError};

/// How long a taken lease is remembered. A replica that may be promoted is behind by less than this.
const KEPT: Duration = Duration::from_secs(60);

/// Takes a node again whose row has its old epoch, because the database has lost that it was taken. If the fence holds,
/// one row is returned.
const TAKE_AGAIN: &str = "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for key share
    ), forgotten as materialized (
        select node.id, t.epoch from node join unnest($3::bigint[], $4::bigint[]) as t(id, epoch) on t.id = node.id
        where node.epoch < t.epoch and exists (select from fence) order by node.id for update of node
    ), taken as (
        update node set epoch = forgotten.epoch, taken = true from forgotten where node.id = forgotten.id
        returning node.id
    )
    select (select count(*) from taken) from fence";

#[derive(Debug, Default)]
pub(super) struct TakenNodes(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    /// The id and the new epoch of each node, the oldest first.
    nodes: VecDeque<(Instant, i64, i64)>,
    /// The incarnation of the database in which the nodes are known to be taken.
    known: Option<Uuid>,
}

impl TakenNodes {
    /// Records nodes whose leases were taken just now.
    pub(super) fn add(&self, nodes: impl Iterator<Item = (i64, i64)>) {
        let now = Instant::now();
        let mut taken = self.0.lock();
        taken.nodes.retain(|(at, ..)| now.duration_since(*at) < KEPT);
        taken.nodes.extend(nodes.map(|(id, epoch)| (now, id, epoch)));
    }

    /// Returns true if the database may have lost, since it had this incarnation, that some nodes were taken.
    pub(super) fn may_be_lost(&self, incarnation: Option<Uuid>) -> bool {
        let taken = self.0.lock();
        !taken.nodes.is_empty() && taken.known != incarnation
    }

    /// Takes leases again if the database has lost that they were taken, once for each incarnation of the database.
    pub(super) async fn take_again(
        &self,
        connection: &Keeper,
        incarnation: Option<Uuid>,
        Lease { node, epoch }: Lease,
    ) -> Result<(), StoreError> {
        let (ids, epochs): (Vec<i64>, Vec<i64>) = {
            let mut taken = self.0.lock();
            if taken.known == incarnation {
                return Ok(());
            }
            if taken.known.is_none() || taken.nodes.is_empty() {
                taken.known = incarnation;
                return Ok(());
            }
            taken.nodes.iter().map(|(_, id, epoch)| (*id, *epoch)).unzip()
        };
        let rows = connection.rows("reap", TAKE_AGAIN, &[&node.0, &epoch.0, &ids, &epochs]).await?;
        let again: i64 = get(rows.first().ok_or(StoreError::Fenced)?, 0)?;
        if again > 0 {
            tracing::warn!(
                nodes = again,
                "leases are taken over again, because the database lost that they were taken over"
            );
        }
        self.0.lock().known = incarnation;
        Ok(())
    }
}
