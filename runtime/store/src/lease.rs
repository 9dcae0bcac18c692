//! A node's right to write. What it means, and how a node gets it: [`NodeLeases`](crate::NodeLeases).
use rollcall_schema::{Epoch, NodeId};

/// A node's right to write, from [`NodeLeases::register`](crate::NodeLeases::register) until another node takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The node.
    pub node: NodeId,
    /// Every write carries it, and does nothing once another node has raised it.
    pub epoch: Epoch,
}
