//! Closes the slowest readers while a worker's send budget is exceeded.
use std::cmp::Reverse;

use rollcall_base::names;

use crate::{
    close::Cause, connection::ConnectionState, id::SocketId, send_budget::near_limit, socket_io::SocketIo,
    sockets::Sockets,
};

impl<P> Sockets<P> {
    /// Closes connections if the budget is exceeded, until it is no longer near its limit. Connections that have taken
    /// nothing for longest are closed first, then those with the most queued bytes.
    pub(crate) fn shed_slow_readers(&mut self) {
        let context = &mut self.context;
        if !context.send_budget.is_exceeded(0) {
            return;
        }
        let slow = self.slab.iter().filter_map(|(index, entry)| {
            let open = matches!(entry.connection.state, ConnectionState::Open { .. });
            let queue = entry.connection.send_queue.as_ref().filter(|_| open)?;
            Some((queue.stalled_since, Reverse(queue.charged()), index))
        });
        let mut slow: Vec<_> = slow.collect();
        slow.sort_unstable();
        for (_, _, index) in slow {
            if !near_limit([&*context.send_budget]) {
                break;
            }
            let connection = &mut self.slab[index].connection;
            let id = SocketId::new(context.worker, index, connection.generation);
            SocketIo { connection, context, id }.shed();
        }
    }
}

impl SocketIo<'_> {
    /// Closes the connection as a slow reader, and drops what is queued for it.
    pub(crate) fn shed(&mut self) {
        metrics::counter!(names::DROPPED, "reason" => "in_flight").increment(1);
        self.mark_closing(Cause::SlowConsumer);
        if let Some(queue) = &mut self.connection.send_queue {
            queue.cut();
        }
    }
}
