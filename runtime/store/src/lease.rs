//! A node's right to write. [`NodeLeases`](crate::NodeLeases) says what a lease means, and how a node gets one.
use rollcall_schema::{Epoch, NodeId};

/// A node's right to write, from [`NodeLeases::register`](crate::NodeLeases::register) until another node takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The node.
    pub node: NodeId,
    /// The epoch in every write. A write does nothing once another node has raised the epoch.
    pub epoch: Epoch,
}
