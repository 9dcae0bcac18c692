//! Pings, pong deadlines and close deadlines. One scan of the slab at each tick replaces a timer for each connection.
use std::{num::NonZeroU32, time::Duration};

use crate::{
    application::Ping,
    close::Cause,
    connection::{ConnectionState, WorkerContext},
    framing::Framing,
    id::SocketId,
    socket_io::SocketIo,
    sockets::Sockets,
    transport::Transport,
};

impl SocketIo<'_> {
    /// Begins a session of Engine.IO: its pings are counted from now.
    pub(crate) fn begin_engine(&mut self) {
        let WorkerContext { now, ticked, options, .. } = &*self.context;
        self.connection.engine_since = nearest(*now, ticked.elapsed(), options.tick);
    }
}

/// Returns the tick that is nearest to a moment this long after the beginning of the tick `now`.
fn nearest(now: u32, after: Duration, tick: Duration) -> Option<NonZeroU32> {
    NonZeroU32::new(now + u32::from(2 * after > tick))
}

impl<P> Sockets<P> {
    /// Advances the clock by one tick, sends the pings that are due, and ends connections whose deadline has passed.
    pub(crate) fn check_heartbeats(&mut self, mut ping: impl FnMut(&mut P) -> Ping) {
        let context = &mut self.context;
        context.now += 1;
        let now = context.now;
        let ping_interval = context.options.ticks(context.options.ping_interval);
        let socket_pong_timeout = context.options.ticks(context.options.pong_timeout);
        let engine_pong_timeout = context.options.ticks(context.options.engine_pong_timeout);
        for (index, entry) in &mut self.slab {
            let connection = &mut entry.connection;
            if let Transport::Carried { .. } = connection.transport {
                continue;
            }
            let is_engine = connection.engine_since.is_some();
            let pong_timeout = if is_engine { engine_pong_timeout } else { socket_pong_timeout };
            // A ping that still waits in the server's queue only says that the client does not read, not whether it
            // lives. The ping of a long-polling session waits for its GET.
            let has_queue = connection.send_queue.is_some() && connection.framing() != Framing::Polling;
            let reads_no_pongs = connection
                .send_queue
                .as_ref()
                .is_some_and(|queue| queue.pong.is_some() && now - queue.stalled_since >= pong_timeout);
            let id = SocketId::new(context.worker, index, connection.generation);
            // The pings of clients that connected at the same time are spread over the interval. Clients of Engine.IO
            // expect a ping in each interval since their handshake, even if they get other packets.
            let due = match connection.engine_since {
                Some(since) => now > since.get() && (now - since.get()).is_multiple_of(ping_interval),
                None => now.wrapping_add(connection.generation) % ping_interval == 0,
            };
            let state = connection.state;
            let mut io = SocketIo { connection, context, id };
            let paused = io.is_paused();
            match state {
                // The pong would not be read. But a client of Engine.IO gives up if a ping is missing.
                ConnectionState::Open { .. } if paused && is_engine && due && entry.peer.is_some() => io.ping(),
                ConnectionState::Open { .. } if paused => {}
                ConnectionState::Open { .. } if reads_no_pongs => io.mark_closing(Cause::SlowConsumer),
                ConnectionState::Open { pinged: Some(at) } if now - at.get() >= pong_timeout && io.is_polling() => {
                    // The client fetches nothing, so it cannot be told why.
                    io.break_off(Cause::PongTimedOut);
                }
                ConnectionState::Open { pinged: Some(at) } if now - at.get() >= pong_timeout => {
                    io.mark_closing(if has_queue { Cause::SlowConsumer } else { Cause::PongTimedOut });
                }
                ConnectionState::Open { pinged } if due && (is_engine || pinged.is_none()) => {
                    match entry.peer.as_mut() {
                        None => continue,
                        Some(_) if is_engine => io.ping(),
                        Some(peer) => match ping(peer) {
                            Ping::No => continue,
                            Ping::Frame => io.ping(),
                            Ping::Text(text) => io.send_text(&text),
                        },
                    }
                    if io.is_open() {
                        io.connection.state = ConnectionState::Open { pinged: pinged.or(NonZeroU32::new(now)) };
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
        self.close_late_probes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_are_counted_from_the_nearest_tick() {
        let tick = Duration::from_secs(1);
        let since = |millis| nearest(7, Duration::from_millis(millis), tick).map(NonZeroU32::get);
        assert_eq!([0, 499, 501, 999].map(since), [7, 7, 8, 8].map(Some));
    }
}
