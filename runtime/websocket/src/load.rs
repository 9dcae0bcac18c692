//! The further connections that a connection's transport carries ([`crate::carried`]).
use crate::id::SocketId;

/// The connections on one carrier.
#[derive(Debug)]
pub(crate) struct Load {
    /// The carrier. Its id may change.
    pub(crate) carrier: SocketId,
    pub(crate) members: Vec<SocketId>,
    /// The number of carried connections that are paused. Unless it is 0, the transport is not read.
    pub(crate) paused: usize,
}
