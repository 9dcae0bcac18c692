//! When a heartbeat looks for dead nodes. While there are few nodes, each heartbeat does. With more, each of the node
//! that holds the outbox's first shard does, and those of the others now and then, in case that node does not.
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rollcall_schema::Shards;
use tokio::time::Instant;

/// Up to this many nodes, each looks at all others.
const FEW_NODES: u32 = 8;
/// Where there are more: how often a node looks that does not hold the first shard.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What this node knows of its looks.
#[derive(Debug, Default)]
pub(super) struct DeadNodeLooks(Mutex<Look>);

#[derive(Debug, Default)]
struct Look {
    latest: Option<Instant>,
    may_wait: bool,
}

impl DeadNodeLooks {
    /// Whether the next heartbeat looks.
    pub(super) fn look(&self) -> bool {
        let look = self.lock();
        !look.may_wait || look.latest.is_none_or(|latest| latest.elapsed() >= LOOK_EVERY)
    }

    /// Notes whether a heartbeat has looked and has found a dead node, how many nodes there are, and which shards this
    /// one holds. After it has found one, the next one looks again, because ending that node's sessions may take many
    /// rounds.
    pub(super) fn looked(&self, (looked, dead): (bool, bool), nodes: u32, held: Shards) {
        let mut look = self.lock();
        if looked {
            look.latest = Some(Instant::now());
        }
        look.may_wait = nodes > FEW_NODES && !dead && !held.meets(Shards::one(0));
    }

    fn lock(&self) -> MutexGuard<'_, Look> {
        // A time and a flag are whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
