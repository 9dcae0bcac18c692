//! Converts the id of a socket to the connection's id that clients see (sid), and back.
use std::hash::{BuildHasher, RandomState};

use rollcall_schema::Sid;
use rollcall_websocket::SocketId;

/// Makes the sids of this process. The lower half of a sid is the socket's own id, so that no map is needed to find the
/// socket. The upper half is the hash of the socket's id with a secret of this process, so that no client can guess the
/// sid of another, and a sid of another process is recognised.
#[derive(Default)]
pub struct Sids(RandomState);

impl Sids {
    /// Returns the sid of a socket's connection.
    #[must_use]
    pub fn sid(&self, socket: SocketId) -> Sid {
        let upper = self.0.hash_one(socket.to_bits());
        Sid(u128::from(upper) << 64 | u128::from(socket.to_bits()))
    }

    /// Returns the socket of a connection, or `None` if the sid was not made by this process.
    #[must_use]
    pub fn socket(&self, sid: Sid) -> Option<SocketId> {
        let socket = socket_of_own(sid);
        (self.sid(socket) == sid).then_some(socket)
    }
}

/// Returns the socket of a sid that was made by this process.
#[must_use]
pub fn socket_of_own(sid: Sid) -> SocketId {
    SocketId::from_bits(sid.0 as u64)
}
