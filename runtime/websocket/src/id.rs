//! The id of a socket. After its socket is gone, an id never becomes valid again, although the slab entry is reused.
use std::fmt;

/// A socket of this process: the worker (8 bits), the index in its slab (24 bits), and the generation (32 bits, counted
/// by each worker).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(u64);

impl SocketId {
    /// The maximum number of sockets of one worker.
    pub(crate) const MAX_SOCKETS: usize = 1 << 24;
    /// The maximum number of workers of a process.
    pub(crate) const MAX_WORKERS: usize = 1 << 8;

    pub(crate) fn new(worker: u8, index: usize, generation: u32) -> Self {
        debug_assert!(index < Self::MAX_SOCKETS);
        Self(u64::from(worker) << 56 | (index as u64) << 32 | u64::from(generation))
    }

    pub(crate) fn from_token(token: mio::Token) -> Self {
        Self(token.0 as u64)
    }

    pub(crate) fn token(self) -> mio::Token {
        mio::Token(self.0 as usize)
    }

    /// Returns the id as a number.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the id for a number that [`SocketId::to_bits`] returned. For any other number, the id may belong to no
    /// socket.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the worker that owns the socket, which gets commands about it.
    #[must_use]
    pub fn worker(self) -> usize {
        (self.0 >> 56) as usize
    }

    pub(crate) fn index(self) -> usize {
        (self.0 >> 32) as usize & (Self::MAX_SOCKETS - 1)
    }

    pub(crate) fn generation(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.worker(), self.index(), self.generation())
    }
}
