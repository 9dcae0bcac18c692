//! The name of a socket: it stays wrong for ever once its socket is gone, though the slot is used again.
use std::fmt;

/// Names a socket of this process: worker (8 bits), slot (24 bits), generation (32 bits, one count a worker).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(u64);

impl SocketId {
    /// Slots a worker can have.
    pub(super) const SLOTS: usize = 1 << 24;
    /// Workers a process can have.
    pub(super) const WORKERS: usize = 1 << 8;

    pub(super) fn new(worker: u8, slot: usize, generation: u32) -> Self {
        debug_assert!(slot < Self::SLOTS);
        Self(u64::from(worker) << 56 | (slot as u64) << 32 | u64::from(generation))
    }

    pub(super) fn from_token(token: mio::Token) -> Self {
        Self(token.0 as u64)
    }

    pub(super) fn token(self) -> mio::Token {
        mio::Token(self.0 as usize)
    }

    /// The name as a number, for those who carry it elsewhere.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The name that [`SocketId::to_bits`] was asked for; of any other number, that of a socket that may not exist.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The worker that owns the socket: where to send commands about it.
    #[must_use]
    pub fn worker(self) -> usize {
        (self.0 >> 56) as usize
    }

    pub(super) fn slot(self) -> usize {
        (self.0 >> 32) as usize & (Self::SLOTS - 1)
    }

    pub(super) fn generation(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Debug for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.worker(), self.slot(), self.generation())
    }
}
