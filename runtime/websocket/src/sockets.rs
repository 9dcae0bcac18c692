//! All connections of one worker.
use std::ops::{Deref, DerefMut};

use slab::Slab;

use super::{
    SocketId, SocketIo,
    connection::{Connection, ConnectionState, WorkerContext},
};

/// One connection of the application: its state, and the way to its client.
#[derive(Debug)]
pub struct Socket<'a, P> {
    /// The application's state of it.
    pub peer: &'a mut P,
    /// The connection; its methods are the socket's own as well.
    pub io: SocketIo<'a>,
}

impl<'a, P> Deref for Socket<'a, P> {
    type Target = SocketIo<'a>;
    fn deref(&self) -> &SocketIo<'a> {
        &self.io
    }
}

impl<P> DerefMut for Socket<'_, P> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.io
    }
}

/// A slab entry. `peer` is gone once the application knows that the connection is over.
#[derive(Debug)]
pub(super) struct Entry<P> {
    pub(super) connection: Connection,
    pub(super) peer: Option<P>,
}

/// The open sockets of one worker.
#[derive(Debug)]
pub struct Sockets<P> {
    pub(super) slab: Slab<Entry<P>>,
    pub(super) shared: WorkerContext,
    /// Entries that still have their peer.
    pub(super) open: usize,
}

impl<P> Sockets<P> {
    /// The socket of that name, if it is still open.
    pub fn get_mut(&mut self, id: SocketId) -> Option<Socket<'_, P>> {
        let entry = self.slab.get_mut(id.slot())?;
        let current = entry.connection.generation == id.generation();
        let open = matches!(entry.connection.phase, ConnectionState::Open { .. });
        let peer = entry.peer.as_mut().filter(|_| current && open)?;
        Some(Socket { peer, io: SocketIo { connection: &mut entry.connection, shared: &mut self.shared, id } })
    }

    /// Whether the socket of that name is one of these, and still open.
    #[must_use]
    pub fn has(&self, id: SocketId) -> bool {
        let entry = self.slab.get(id.slot()).filter(|_| id.worker() == usize::from(self.shared.worker));
        entry.is_some_and(|entry| {
            entry.peer.is_some()
                && entry.connection.generation == id.generation()
                && matches!(entry.connection.phase, ConnectionState::Open { .. })
        })
    }

    /// The layer's half of an entry, in whatever phase.
    pub(super) fn io(&mut self, id: SocketId) -> Option<SocketIo<'_>> {
        let entry = self.slab.get_mut(id.slot())?;
        let current = entry.connection.generation == id.generation();
        current.then_some(SocketIo { connection: &mut entry.connection, shared: &mut self.shared, id })
    }

    /// How many connections the application has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Visits the open sockets of `max` slots from this one on, and returns where to go on.
    pub fn each_from(&mut self, from: usize, max: usize, mut visit: impl FnMut(&mut Socket<'_, P>)) -> Option<usize> {
        let (end, last) = (from.saturating_add(max), self.slab.capacity());
        for slot in from..end.min(last) {
            let Some(entry) = self.slab.get_mut(slot) else { continue };
            let Some(peer) = &mut entry.peer else { continue };
            let id = SocketId::new(self.shared.worker, slot, entry.connection.generation);
            let io = SocketIo { connection: &mut entry.connection, shared: &mut self.shared, id };
            if io.is_open() {
                visit(&mut Socket { peer, io });
            }
        }
        (end < last).then_some(end)
    }

    /// Visits every open socket.
    pub fn each(&mut self, mut visit: impl FnMut(&mut Socket<'_, P>)) {
        for (slot, entry) in &mut self.slab {
            let Some(peer) = &mut entry.peer else { continue };
            let id = SocketId::new(self.shared.worker, slot, entry.connection.generation);
            let io = SocketIo { connection: &mut entry.connection, shared: &mut self.shared, id };
            if io.is_open() {
                visit(&mut Socket { peer, io });
            }
        }
    }
}

/// What a parked connection costs besides the application's state (mio adds fields of its own to debug builds).
const _: () = assert!(cfg!(debug_assertions) || size_of::<Entry<()>>() <= 64);
