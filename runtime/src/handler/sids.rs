//! A connection's id outside (sid), made of its socket's id and back.
use std::hash::{BuildHasher, RandomState};

use rollcall_schema::Sid;
use rollcall_websocket::SocketId;

/// Makes the sids of this process. The lower half of a sid is the socket's own id, so that no map is needed to find the
/// socket. The upper half is that id's hash under a secret of this process, so that nobody can guess another's sid, and
/// another process's sid is recognised.
#[derive(Default)]
pub struct Sids(RandomState);

impl Sids {
    /// The sid of a socket's connection.
    #[must_use]
    pub fn sid(&self, socket: SocketId) -> Sid {
        let upper = self.0.hash_one(socket.to_bits());
        Sid(u128::from(upper) << 64 | u128::from(socket.to_bits()))
    }

    /// The socket of a connection; none where the sid is not this process's.
    #[must_use]
    pub fn socket(&self, sid: Sid) -> Option<SocketId> {
        let socket = socket_of_own(sid);
        (self.sid(socket) == sid).then_some(socket)
    }
}

/// The socket of a sid that is known to be this process's.
#[must_use]
pub fn socket_of_own(sid: Sid) -> SocketId {
    SocketId::from_bits(sid.0 as u64)
}
