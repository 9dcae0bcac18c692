//! Pings, pong deadlines and close deadlines: one scan of the slab each tick instead of a timer for each connection.
use std::num::NonZeroU32;

use crate::{
    application::Ping, close::Cause, connection::ConnectionState, id::SocketId, socket_io::SocketIo, sockets::Sockets,
};

impl<P> Sockets<P> {
    /// Advances the clock by one tick, sends the pings that are due, and ends connections whose deadline has passed.
    pub(crate) fn check_heartbeats(&mut self, mut ping: impl FnMut(&mut P) -> Ping) {
        let context = &mut self.context;
        context.now += 1;
        let now = context.now;
        let ping_interval = context.options.ticks(context.options.ping_interval);
        let pong_timeout = context.options.ticks(context.options.pong_timeout);
        for (index, entry) in &mut self.slab {
            let connection = &mut entry.connection;
            // A ping that is still in our own queue says nothing about whether the client lives, only that it does not
            // read.
            let has_queue = connection.send_queue.is_some();
            let reads_no_pongs = connection
                .send_queue
                .as_ref()
                .is_some_and(|queue| queue.pong.is_some() && now - queue.stalled_since >= pong_timeout);
            let id = SocketId::new(context.worker, index, connection.generation);
            // Spreads the pings of clients that connected at once over the interval.
            let due = now.wrapping_add(connection.generation) % ping_interval == 0;
            let (state, paused) = (connection.state, connection.paused);
            let mut io = SocketIo { connection, context, id };
            match state {
                ConnectionState::Open { .. } if paused => {}
                ConnectionState::Open { .. } if reads_no_pongs => io.mark_closing(Cause::SlowConsumer),
                ConnectionState::Open { pinged: Some(at) } if now - at.get() >= pong_timeout => {
                    io.mark_closing(if has_queue { Cause::SlowConsumer } else { Cause::PongTimedOut });
                }
                ConnectionState::Open { pinged: None } if due => {
                    match entry.peer.as_mut().map_or(Ping::No, &mut ping) {
                        Ping::No => continue,
                        Ping::Frame => io.ping(),
                        Ping::Text(text) => io.send_text(&text),
                    }
                    if io.is_open() {
                        io.connection.state = ConnectionState::Open { pinged: NonZeroU32::new(now) };
                    }
                }
                ConnectionState::Closing { deadline, .. } if now >= deadline => {
                    if has_queue {
                        io.connection.transport.reset_on_drop();
                    }
                    io.abort();
                }
                _ => {}
            }
        }
    }
}
