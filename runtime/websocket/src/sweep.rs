//! The clock: one scan of the slab a tick instead of a timer a connection.
use std::num::NonZeroU32;

use super::{Application, Cause, SocketId, SocketIo, connection::ConnectionState, worker::Worker};

impl<A: Application> Worker<A> {
    /// Pings whose time has come, and deadlines that have passed.
    pub(super) fn sweep(&mut self) {
        let sockets = &mut self.sockets;
        sockets.shared.now += 1;
        let now = sockets.shared.now;
        let interval = sockets.shared.options.ticks(sockets.shared.options.ping_interval);
        let patience = sockets.shared.options.ticks(sockets.shared.options.pong_timeout);
        for (slot, entry) in &mut sockets.slab {
            let connection = &mut entry.connection;
            // A ping that is still in our own queue says nothing about the client's life, but about its reading.
            let choked = connection
                .outbound
                .as_ref()
                .map(|outbound| outbound.pong.is_some() && now - outbound.stalled >= patience);
            let id = SocketId::new(sockets.shared.worker, slot, connection.generation);
            // Spreads the pings of those who came at once over the interval.
            let due = now.wrapping_add(connection.generation) % interval == 0;
            let expected = entry.peer.as_ref().is_some_and(A::expects_life);
            let phase = connection.phase;
            let paused = connection.paused;
            let mut io = SocketIo { connection, shared: &mut sockets.shared, id };
            match phase {
                ConnectionState::Open { .. } if paused => {}
                ConnectionState::Open { .. } if choked == Some(true) => io.condemn(Cause::SlowConsumer),
                ConnectionState::Open { pinged: Some(at) } if now - at.get() >= patience => {
                    io.condemn(if choked.is_some() { Cause::SlowConsumer } else { Cause::PongTimedOut });
                }
                ConnectionState::Open { pinged: None } if due && expected => {
                    io.ping();
                    if io.is_open() {
                        io.connection.phase = ConnectionState::Open { pinged: NonZeroU32::new(now) };
                    }
                }
                ConnectionState::Closing { deadline, .. } if now >= deadline => {
                    if choked.is_some() {
                        io.connection.transport.abort();
                    }
                    io.give_up();
                }
                _ => {}
            }
        }
    }
}
