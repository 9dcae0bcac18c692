//! What a connection carries: further connections on its transport ([`crate::carried`]).
use crate::id::SocketId;

/// The connections on one carrier.
#[derive(Debug)]
pub(crate) struct Load {
    /// The carrier, whose id may change.
    pub(crate) carrier: SocketId,
    pub(crate) members: Vec<SocketId>,
    /// How many of them are paused: nothing of the transport is read meanwhile.
    pub(crate) paused: usize,
}
