//! The nodes that a seed runs on, and the time within which its faults begin.

/// The nodes of a cluster.
const NODES: usize = 3;
/// The time in milliseconds within which all faults begin.
pub(super) const STORM: usize = 3000;

/// The nodes that a seed runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Setting {
    /// Three nodes on their servers.
    Cluster,
    /// Three nodes that let sessions wait for a client to come back (grace).
    Grace,
    /// One embedded node.
    Embedded,
}

impl Setting {
    /// Returns the setting of a seed. Of ten seeds, two run with a grace and one runs on an embedded node.
    pub(super) fn of(seed: u64) -> Self {
        match seed % 10 {
            3 | 8 => Self::Grace,
            5 => Self::Embedded,
            _ => Self::Cluster,
        }
    }

    pub(super) fn nodes(self) -> usize {
        if self == Self::Embedded { 1 } else { NODES }
    }
}
