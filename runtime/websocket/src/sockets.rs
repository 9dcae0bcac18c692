//! All connections of one worker.
use std::{
    io,
    ops::{Deref, DerefMut},
};

use slab::Slab;

use crate::{
    connection::{Connection, ConnectionState, WorkerContext},
    id::SocketId,
    socket_io::SocketIo,
    transport::Transport,
};

/// One connection with the application's state.
#[derive(Debug)]
pub struct Socket<'a, P> {
    /// The application's state.
    pub peer: &'a mut P,
    /// The connection; `Socket` dereferences to it.
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

impl<P> Socket<'_, P> {
    /// Replaces the peer and the id of this connection; no other socket ever had the new id, and the client notices
    /// nothing. Returns the old id and the old peer. For the application the old connection has ended.
    pub fn renew(&mut self, peer: P) -> (SocketId, P) {
        let SocketIo { connection, context, id } = &mut self.io;
        context.generation = context.generation.wrapping_add(1);
        let fresh = SocketId::new(context.worker, id.index(), context.generation);
        let old = std::mem::replace(id, fresh);
        connection.generation = fresh.generation();
        let registered = connection.transport.reregister(&context.registry, fresh.token());
        // Entries in the queue that have the old id are no longer found.
        connection.queued = false;
        self.io.context.carrier_renewed(fresh);
        self.io.requeue();
        self.io.note_payload();
        if registered.is_err() {
            self.io.abort();
        }
        (old, std::mem::replace(self.peer, peer))
    }
}

/// A slab entry. It has no `peer` any more once the application knows that the connection has ended.
#[derive(Debug)]
pub(crate) struct Entry<P> {
    pub(crate) connection: Connection,
    pub(crate) peer: Option<P>,
}

/// The connections of one worker.
#[derive(Debug)]
pub struct Sockets<P> {
    pub(crate) slab: Slab<Entry<P>>,
    pub(crate) context: WorkerContext,
    /// How many entries still have their peer.
    pub(crate) open: usize,
}

impl<P> Sockets<P> {
    /// Returns the socket with this id, if it is still open.
    pub fn get_mut(&mut self, id: SocketId) -> Option<Socket<'_, P>> {
        let entry = self.slab.get_mut(id.index()).filter(|entry| entry.connection.generation == id.generation())?;
        let io = SocketIo { connection: &mut entry.connection, context: &mut self.context, id };
        let peer = entry.peer.as_mut().filter(|_| io.is_open())?;
        Some(Socket { peer, io })
    }

    /// Returns whether the socket with this id belongs to this worker, and is still open.
    #[must_use]
    pub fn has(&self, id: SocketId) -> bool {
        let entry = self.slab.get(id.index()).filter(|_| id.worker() == usize::from(self.context.worker));
        entry.is_some_and(|Entry { connection, peer }| {
            peer.is_some()
                && connection.generation == id.generation()
                && matches!(connection.state, ConnectionState::Open { .. })
        })
    }

    /// Returns the layer's part of an entry, in any state.
    pub(crate) fn io(&mut self, id: SocketId) -> Option<SocketIo<'_>> {
        let entry = self.slab.get_mut(id.index()).filter(|entry| entry.connection.generation == id.generation())?;
        Some(SocketIo { connection: &mut entry.connection, context: &mut self.context, id })
    }

    /// Adds an entry without a peer.
    pub(crate) fn insert(
        &mut self,
        transport: impl FnOnce(SocketId, &WorkerContext) -> io::Result<Transport>,
    ) -> io::Result<SocketId> {
        let Self { slab, context, .. } = self;
        if slab.len() == SocketId::MAX_SOCKETS {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        context.generation = context.generation.wrapping_add(1);
        let entry = slab.vacant_entry();
        let id = SocketId::new(context.worker, entry.key(), context.generation);
        let connection = Connection::new(transport(id, context)?, context.generation);
        entry.insert(Entry { connection, peer: None });
        context.gauge.increment(1);
        Ok(id)
    }

    /// Removes an entry.
    pub(crate) fn remove(&mut self, index: usize) -> Option<Connection> {
        let entry = self.slab.try_remove(index)?;
        self.context.connections.remove();
        self.context.gauge.decrement(1);
        Some(entry.connection)
    }

    /// Returns how many connections the application has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open
    }

    /// Returns whether the application has no connection.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open == 0
    }

    /// Visits the open sockets among `max` slab entries from `from` on. Returns where to continue.
    pub fn each_from(&mut self, from: usize, max: usize, mut visit: impl FnMut(&mut Socket<'_, P>)) -> Option<usize> {
        let (end, last) = (from.saturating_add(max), self.slab.capacity());
        for index in from..end.min(last) {
            let Some(entry) = self.slab.get_mut(index) else { continue };
            visit_open(&mut self.context, index, entry, &mut visit);
        }
        (end < last).then_some(end)
    }

    /// Visits every open socket.
    pub fn each(&mut self, mut visit: impl FnMut(&mut Socket<'_, P>)) {
        for (index, entry) in &mut self.slab {
            visit_open(&mut self.context, index, entry, &mut visit);
        }
    }
}

fn visit_open<P>(
    context: &mut WorkerContext,
    index: usize,
    entry: &mut Entry<P>,
    visit: &mut impl FnMut(&mut Socket<'_, P>),
) {
    let Some(peer) = &mut entry.peer else { return };
    let id = SocketId::new(context.worker, index, entry.connection.generation);
    let io = SocketIo { connection: &mut entry.connection, context, id };
    if io.is_open() {
        visit(&mut Socket { peer, io });
    }
}

/// The cost of an idle connection besides the application's state. (In debug builds mio adds fields of its own.)
const _: () = assert!(cfg!(debug_assertions) || size_of::<Entry<()>>() <= 64);
