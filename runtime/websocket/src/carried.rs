//! Connections without a transport of their own: further namespaces of an Engine.IO session, carried by the connection
//! that has the transport.
//!
//! Invariant: a carried connection is a slab entry that names its carrier, and ends when the carrier ends or earlier.
//! What is sent on it waits in its own queue until the end of the worker's iteration, and then moves to the carrier. A
//! connection that carries no others has no cost from this.
use std::io;

use bytes::Bytes;

use crate::{
    close::{Cause, Close},
    connection::{Connection, ConnectionState, WorkerContext},
    connection_count::ReservedConnection,
    framing::Framing,
    id::SocketId,
    load::Load,
    socket_io::SocketIo,
    sockets::{Socket, Sockets},
    transport::Transport,
};

impl WorkerContext {
    fn load(&self, carrier: usize) -> Option<&Load> {
        if self.loads.is_empty() { None } else { self.loads.get(&carrier) }
    }

    /// Records the new id of the carrier at this index.
    pub(crate) fn carrier_renewed(&mut self, fresh: SocketId) {
        if let Some(load) = self.loads.get_mut(&fresh.index()) {
            load.carrier = fresh;
        }
    }

    /// Returns whether the connection at this index carries a connection that is paused.
    pub(crate) fn carries_paused(&self, carrier: usize) -> bool {
        self.load(carrier).is_some_and(|load| load.paused > 0)
    }

    /// Counts a carried connection that was paused or resumed. When none is paused any more, the transport is read
    /// again.
    fn count_paused(&mut self, carrier: usize, paused: bool) {
        let Some(load) = self.loads.get_mut(&carrier) else { return };
        load.paused = if paused { load.paused + 1 } else { load.paused.saturating_sub(1) };
        if load.paused == 0 {
            self.ready.push_back(load.carrier);
        }
    }
}

impl SocketIo<'_> {
    /// Returns whether this connection is carried by another connection's transport.
    #[must_use]
    pub fn is_carried(&self) -> bool {
        self.carrier().is_some()
    }

    /// Returns whether this connection's transport carries other connections.
    #[must_use]
    pub fn carries(&self) -> bool {
        self.context.load(self.id.index()).is_some()
    }

    /// Ends a carried connection. Its transport stays open, and bytes that were sent before still go out.
    pub fn end_carried(&mut self, cause: Cause) {
        if self.is_carried() {
            self.break_off(cause);
        }
    }

    pub(crate) fn carrier(&self) -> Option<usize> {
        if let Transport::Carried { carrier, .. } = self.connection.transport { Some(carrier as usize) } else { None }
    }

    /// Returns true if the transport must not be read, because this connection or one that it carries is paused.
    pub(crate) fn is_paused(&self) -> bool {
        self.connection.paused || self.context.carries_paused(self.id.index())
    }

    /// Records that a carried connection was paused or resumed.
    pub(crate) fn note_paused(&mut self) {
        if let Some(carrier) = self.carrier() {
            self.context.count_paused(carrier, self.connection.paused);
        }
    }

    /// Closes the transport that carries this connection, after the last message.
    pub(crate) fn start_carried_close(&mut self, carrier: usize, close: Option<Close>, last: Option<&[u8]>) {
        if let Some(text) = last {
            let (framing, mut packet) = (self.framing(), Vec::new());
            framing.encode_text(text, &mut packet);
            self.send_queue().push(Bytes::from(packet));
        }
        self.connection.state = ConnectionState::Broken;
        self.context.carrier_closes.push((carrier, close.unwrap_or(Close::from(1000))));
    }
}

impl<P> Sockets<P> {
    /// Adds a connection that another one's transport carries. Returns `None` if the other one is not an open Engine.IO
    /// session with a transport of its own, or there is no room.
    pub fn carry(&mut self, carrier: SocketId, peer: P, reserved: Option<ReservedConnection>) -> Option<SocketId> {
        let framing = self.get_mut(carrier).map(|socket| socket.framing())?;
        let fits = framing != Framing::WebSocket && self.get_mut(carrier).is_some_and(|socket| !socket.is_carried());
        let index = u32::try_from(carrier.index()).ok().filter(|_| fits)?;
        let id = self.insert(|_, _| Ok::<_, io::Error>(Transport::Carried { carrier: index, framing })).ok()?;
        self.context.connections.add(reserved);
        let load = || Load { carrier, members: Vec::new(), paused: 0 };
        self.context.loads.entry(carrier.index()).or_insert_with(load).members.push(id);
        self.slab.get_mut(id.index())?.peer = Some(peer);
        self.open += 1;
        Some(id)
    }

    /// Returns the connections that this connection's transport carries in addition.
    #[must_use]
    pub fn carried(&self, carrier: SocketId) -> &[SocketId] {
        self.context.load(carrier.index()).map_or(&[], |load| &load.members)
    }

    /// Returns the bytes sent on a connection, or on its carrier, that the kernel has not taken yet.
    #[must_use]
    pub fn queued(&mut self, id: SocketId) -> usize {
        let Some(io) = self.io(id) else { return 0 };
        let (own, carrier) = (io.queued(), io.carrier());
        own + carrier.and_then(|carrier| self.at(carrier)).map_or(0, |io| io.queued())
    }

    /// Moves what was sent on carried connections to their carriers.
    pub(crate) fn send_carried(&mut self) {
        for id in std::mem::take(&mut self.context.carried_sends) {
            self.send_queued(id);
        }
    }

    /// Moves what was sent on one carried connection to its carrier.
    pub(crate) fn send_queued(&mut self, id: SocketId) {
        let Some(io) = self.io(id) else { return };
        let Some(carrier) = io.carrier() else { return };
        let Some(mut queue) = io.connection.send_queue.take() else { return };
        let Some(mut carrier) = self.at(carrier) else { return };
        queue.take_slices().for_each(|slice| carrier.send_frames(&slice));
    }

    /// Removes a carried connection that has ended from its carrier's list.
    pub(crate) fn put_down(&mut self, id: SocketId, removed: &Connection) {
        let Transport::Carried { carrier, .. } = removed.transport else { return };
        let carrier = carrier as usize;
        if removed.paused {
            self.context.count_paused(carrier, false);
        }
        if let Some(load) = self.context.loads.get_mut(&carrier) {
            load.members.retain(|member| *member != id);
            if load.members.is_empty() {
                self.context.loads.remove(&carrier);
            }
        }
    }

    /// Ends the connections that a connection carries, because it has ended.
    pub(crate) fn end_load(&mut self, carrier: SocketId, cause: Cause) {
        if self.context.load(carrier.index()).is_none() {
            return;
        }
        let load = self.context.loads.remove(&carrier.index());
        for id in load.map(|load| load.members).unwrap_or_default() {
            if let Some(mut io) = self.io(id) {
                io.break_off(cause);
            }
        }
    }

    /// Closes a transport that one of its carried connections wants to close. Returns false if there is no such
    /// transport.
    pub(crate) fn close_carrier(&mut self) -> bool {
        let Some((carrier, close)) = self.context.carrier_closes.pop() else { return false };
        if let Some(mut io) = self.at(carrier) {
            io.close(close, None);
        }
        true
    }

    /// Changes the framing of the connections that a carrier carries, because its own has changed.
    pub(crate) fn reframe_load(&mut self, carrier: SocketId, fresh: Framing) {
        for id in self.carried(carrier).to_vec() {
            if let Some(io) = self.io(id)
                && let Transport::Carried { framing, .. } = &mut io.connection.transport
            {
                *framing = fresh;
            }
        }
    }

    /// Returns the connection at this index, with any id.
    pub(crate) fn at(&mut self, index: usize) -> Option<SocketIo<'_>> {
        let entry = self.slab.get_mut(index)?;
        let id = SocketId::new(self.context.worker, index, entry.connection.generation);
        Some(SocketIo { connection: &mut entry.connection, context: &mut self.context, id })
    }

    /// Returns the connection at this index with its peer.
    pub(crate) fn socket_at(&mut self, index: usize) -> Option<Socket<'_, P>> {
        let entry = self.slab.get_mut(index)?;
        let id = SocketId::new(self.context.worker, index, entry.connection.generation);
        let io = SocketIo { connection: &mut entry.connection, context: &mut self.context, id };
        Some(Socket { peer: entry.peer.as_mut()?, io })
    }
}
