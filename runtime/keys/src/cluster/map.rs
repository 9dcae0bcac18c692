//! A cluster's masters, and the slots of each.
//!
//! Invariant: a map is never changed, only replaced by a newer one. The [`Marker`] of a master belongs to its slots:
//! after a failover it is compared with the slots' new master.
use std::sync::Arc;

use super::{
    slot::{self, SLOTS},
    view::View,
};
use crate::{address::Endpoint, calls::Calls, clock::Clock, dial::Dialer, marker::Marker};

/// One master, and the connections to it.
pub(super) struct Master {
    pub(super) endpoint: Endpoint,
    pub(super) calls: Calls,
    pub(super) clock: Arc<Clock>,
}

impl Master {
    pub(super) fn new(dialer: &Arc<Dialer>, endpoint: Endpoint) -> Arc<Self> {
        let clock = Arc::<Clock>::default();
        let calls = Calls::new(Arc::clone(dialer), Some(endpoint.clone()), Arc::clone(&clock));
        Arc::new(Self { endpoint, calls, clock })
    }
}

/// The slots of a master. One of the slots identifies them.
pub(super) struct Shard {
    slot: u16,
    /// The text that puts this process's own keys into that slot.
    pub(super) tag: String,
    pub(super) marker: Marker,
}

/// The masters of a cluster.
#[derive(Default)]
pub(super) struct Map {
    /// The index of each slot's master.
    slots: Vec<Option<u16>>,
    pub(super) masters: Vec<(Arc<Master>, Arc<Shard>)>,
    /// All nodes, including replicas.
    pub(super) nodes: Vec<Endpoint>,
}

impl Map {
    /// Makes the next map from the view of a node; `master` returns the known master of an endpoint. The result is
    /// false if a shard of this map is gone, because its slots were moved.
    pub(super) fn next(&self, view: &View, master: impl Fn(&Endpoint) -> Arc<Master>) -> (Self, bool) {
        let (mut slots, mut masters, mut nodes) =
            (vec![None; usize::from(SLOTS)], Vec::<Arc<Master>>::new(), Vec::new());
        for range in &view.ranges {
            let known = masters.iter().position(|known| known.endpoint == range.master);
            let index = known.unwrap_or_else(|| {
                masters.push(master(&range.master));
                masters.len() - 1
            });
            slots[usize::from(range.first)..=usize::from(range.last.max(range.first))].fill(u16::try_from(index).ok());
            nodes.extend(range.replicas.iter().chain([&range.master]).cloned());
        }
        nodes.sort();
        nodes.dedup();
        let mut shards: Vec<Option<Arc<Shard>>> = vec![None; masters.len()];
        let mut all_kept = true;
        for (_, shard) in &self.masters {
            match slots[usize::from(shard.slot)].map(|owner| &mut shards[usize::from(owner)]) {
                Some(free @ None) => *free = Some(Arc::clone(shard)),
                _ => all_kept = false,
            }
        }
        let first = |index| (0..SLOTS).find(|slot| slots[usize::from(*slot)] == u16::try_from(index).ok()).unwrap_or(0);
        let new = |index| {
            let slot = first(index);
            Arc::new(Shard { slot, tag: slot::tag(slot), marker: Marker::default() })
        };
        let shards: Vec<_> =
            shards.into_iter().enumerate().map(|(index, shard)| shard.unwrap_or_else(|| new(index))).collect();
        (Self { slots, masters: masters.into_iter().zip(shards).collect(), nodes }, all_kept)
    }

    /// Returns the master that has a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&Arc<Master>> {
        let index = (*self.slots.get(usize::from(slot))?)?;
        self.masters.get(usize::from(index)).map(|(master, _)| master)
    }

    /// Returns the shard of a master.
    pub(super) fn shard(&self, of: &Arc<Master>) -> Option<&Arc<Shard>> {
        self.masters.iter().find(|(master, _)| Arc::ptr_eq(master, of)).map(|(_, shard)| shard)
    }

    /// Returns a slot without a master, if there is one.
    pub(super) fn gap(&self) -> Option<u16> {
        (0..SLOTS).find(|slot| self.owner(*slot).is_none())
    }
}
