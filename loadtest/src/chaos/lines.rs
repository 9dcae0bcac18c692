//! The wires of a node, through which faults of the network happen.

use rollcall_loadtest::Wire;

/// One node's wires to the servers.
pub(super) struct Lines {
    pub(super) postgres: Wire,
    pub(super) redis: Wire,
    pub(super) nats: Wire,
}
