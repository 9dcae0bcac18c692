//! A node whose relay is cut off from PostgreSQL or from NATS, while the rest of the node works: another node publishes
//! the events of its agents (PROTOCOL 3).

use std::net::SocketAddr;

use futures_util::future::join_all;
use rollcall_loadtest::servers::shared;
use rollcall_loadtest::{Gateway, Wire};

use super::nodes::enters_on;
use crate::common::{Agent, Backend, Classroom, SOON, Servers, until};

/// The number of classrooms. With this number each node publishes the events of some of them.
const MANY: usize = 24;
/// The number of shards that each node has.
const SHARES: &str = "select count(*) from outbox_shard s join node n on n.id = s.node_id and n.claim_epoch = s.claim_epoch \
    group by n.id";

/// A healthy node with a witness in each room, and another node.
struct Nodes {
    healthy: Backend,
    other: Gateway,
    witnesses: Vec<Agent>,
}

impl Nodes {
    /// Starts the nodes. `change` returns the option in which the other node differs.
    async fn start(change: impl AsyncFnOnce(&Backend) -> (&'static str, String)) -> Self {
        let healthy = Backend::start(Some(Servers::shared()), Clone::clone);
        let (name, value) = change(&healthy).await;
        let options = healthy.beside().env("ROLLCALL_POSTGRES_POOL", 1).env(name, value);
        let other = Gateway::start(options).unwrap();
        let mut witnesses = Vec::new();
        for room in &healthy.classrooms()[..MANY] {
            witnesses.push(healthy.participant(room, "witness").await);
        }
        drop(enters_on(&other, &healthy.classrooms()[MANY], "first").await);
        healthy.wait_for_rows(SHARES, &["4", "4"]).await;
        Self { healthy, other, witnesses }
    }

    /// Lets an agent enter and leave in every room on the other node. The room's witness sees both events, in order.
    async fn all_see(&mut self, name: &str) {
        let other = &self.other;
        let come_and_go = async |(room, witness): (&Classroom, &mut Agent)| {
            let whom = enters_on(other, room, name).await.leaves().await;
            for label in ["entered", "left"] {
                witness.sees(label, &whom).await;
            }
        };
        join_all(self.healthy.classrooms().iter().zip(&mut self.witnesses).map(come_and_go)).await;
    }

    /// Expects in the stream of every room the witness's entered, and one entered and one left of each other agent.
    async fn nothing_is_twice(&self, others: usize) {
        for room in &self.healthy.classrooms()[..MANY] {
            let stored = self.healthy.stored(&room.subject("agent"), 1 + 2 * others).await.unwrap();
            assert_eq!(stored.len(), 1 + 2 * others, "{stored:?}");
        }
    }
}

/// PostgreSQL has no connection left to give. Open connections stay.
#[tokio::test]
async fn a_node_whose_relay_cannot_connect_leaves_its_events_to_another() {
    let mut nodes = Nodes::start(async |healthy| {
        healthy.write("create role without_relay superuser login").await;
        let database = &healthy.servers().unwrap().postgres;
        ("DATABASE_URL", database.replacen("//postgres@", "//without_relay@", 1))
    })
    .await;
    nodes.healthy.write("alter role without_relay nologin").await;
    let end = "select pg_terminate_backend(pid) from pg_stat_activity \
        where usename = 'without_relay' and query ~ 'delete from outbox'";
    until("the relay's connection", SOON, async || nodes.healthy.rows(end).await, |ended| !ended.is_empty()).await;
    nodes.all_see("carol").await;
    nodes.healthy.wait_for_rows(SHARES, &["8"]).await;

    nodes.healthy.write("alter role without_relay login").await;
    nodes.healthy.wait_for_rows(SHARES, &["4", "4"]).await;
    nodes.all_see("dora").await;
    nodes.nothing_is_twice(2).await;
}

#[tokio::test]
async fn a_node_that_nats_does_not_answer_leaves_its_events_to_another() {
    let wire = Wire::before(SocketAddr::from(([127, 0, 0, 1], shared::nats().port()))).unwrap();
    let mut nodes = Nodes::start(async |healthy| ("NATS_URL", wire.instead_of(&healthy.servers().unwrap().nats))).await;
    wire.close();
    nodes.all_see("carol").await;
    nodes.healthy.wait_for_rows(SHARES, &["8"]).await;

    wire.clear();
    nodes.healthy.wait_for_rows(SHARES, &["4", "4"]).await;
    nodes.all_see("dora").await;
    nodes.nothing_is_twice(2).await;
}
