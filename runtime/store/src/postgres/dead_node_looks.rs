//! Decides which heartbeats look for dead nodes. If there are few nodes, each heartbeat looks for them. If there are
//! many, each heartbeat of the node that holds the outbox's first shard looks for them. Heartbeats of the other nodes
//! look now and then, in case that node does not.
use std::time::Duration;

use parking_lot::Mutex;
use rollcall_schema::Shards;
use tokio::time::Instant;

/// Up to this many nodes, each node looks at all others.
const FEW_NODES: u32 = 8;
/// How often a node that does not hold the first shard looks if there are more nodes.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What this node knows of its own looks.
#[derive(Debug, Default)]
pub(super) struct DeadNodeLooks(Mutex<Look>);

#[derive(Debug, Default)]
struct Look {
    latest: Option<Instant>,
    may_wait: bool,
}

impl DeadNodeLooks {
    /// Returns whether the next heartbeat must look.
    pub(super) fn look(&self) -> bool {
        let look = self.0.lock();
        !look.may_wait || look.latest.is_none_or(|latest| latest.elapsed() >= LOOK_EVERY)
    }

    /// Records whether a heartbeat has looked and found a dead node, how many nodes there are, and which shards this
    /// one holds. After it has found one, the next heartbeat looks again, because ending a node's sessions may take
    /// many rounds.
    pub(super) fn looked(&self, (looked, dead): (bool, bool), nodes: u32, held: Shards) {
        let mut look = self.0.lock();
        if looked {
            look.latest = Some(Instant::now());
        }
        look.may_wait = nodes > FEW_NODES && !dead && !held.meets(Shards::one(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_found_a_dead_node_looks_until_there_is_none() {
        let (looks, many) = (DeadNodeLooks::default(), FEW_NODES + 1);
        assert!(looks.look());
        looks.looked((true, true), many, Shards::one(3));
        assert!(looks.look());
        looks.looked((true, false), many, Shards::one(3));
        assert!(!looks.look());
        looks.looked((false, false), many, Shards::one(0));
        assert!(looks.look(), "the first shard's holder always looks");
    }
}
