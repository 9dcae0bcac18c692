//! Connections that have upgraded and have not sent connect_request, and the choice of one to close for a new
//! connection.
//!
//! Invariant: the connection that is closed is older than [`MIN_TENURE`], and is the oldest of the client that has most
//! such connections, so a client with many loses its own first. A connection that has sent connect_request is counted
//! until it has a session or is closed. It is not closed for a new connection, unless it was refused and waits for
//! another request.
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::network::Subscriber;
use rollcall_websocket::SocketId;

/// How long after its upgrade a connection is not closed. A slow client needs this time for its first message.
const MIN_TENURE: Duration = Duration::from_secs(1);

/// All silent connections of a node. The value is cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct SilentConnections(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    clients: HashMap<Subscriber, BTreeMap<u64, Entry>>,
    /// The clients by how many silent connections they have. Of clients with the same number, the client with the
    /// oldest connection is last.
    order: BTreeSet<(usize, Reverse<u64>, Subscriber)>,
    next: u64,
    /// The number of silent connections and of connections that have sent connect_request and have no session yet.
    unauthenticated: usize,
}

#[derive(Debug)]
struct Entry {
    since: Instant,
    /// `None` while the connection is on its way to its worker.
    socket: Option<SocketId>,
}

/// Counts one connection until it has a session or is closed.
#[derive(Debug)]
pub struct Unauthenticated {
    connections: SilentConnections,
    /// `None` if the connection is never closed for another.
    place: Option<(Subscriber, u64)>,
    since: Instant,
    spoken: AtomicBool,
}

impl SilentConnections {
    /// Returns how many connections have no session yet.
    pub(super) fn unauthenticated(&self) -> usize {
        self.0.lock().unauthenticated
    }

    /// Counts a further connection of this client.
    pub(super) fn add(&self, client: Subscriber) -> Unauthenticated {
        let mut table = self.0.lock();
        let number = table.next;
        table.next += 1;
        table.unauthenticated += 1;
        let since = Instant::now();
        table.change(client, |entries| entries.insert(number, Entry { since, socket: None }));
        drop(table);
        let place = Some((client, number));
        Unauthenticated { connections: self.clone(), place, since, spoken: AtomicBool::new(false) }
    }

    /// Counts a further connection that has already sent its request. The connection ends if the request is refused.
    pub(super) fn add_spoken(&self) -> Unauthenticated {
        self.0.lock().unauthenticated += 1;
        let (since, spoken) = (Instant::now(), AtomicBool::new(true));
        Unauthenticated { connections: self.clone(), place: None, since, spoken }
    }

    /// Removes the connection that is to be closed for a new one: a connection of this client, or of the client that
    /// has most. The removed connection is no longer counted.
    pub(super) fn take(&self, client: Option<Subscriber>) -> Option<SocketId> {
        let mut table = self.0.lock();
        let client = client.or_else(|| table.order.last().map(|(_, _, client)| *client))?;
        let (number, entry) = table.clients.get(&client)?.first_key_value()?;
        let (number, socket) = (*number, entry.socket?);
        if entry.since.elapsed() < MIN_TENURE {
            return None;
        }
        table.change(client, |entries| entries.remove(&number));
        table.unauthenticated -= 1;
        Some(socket)
    }
}

impl Table {
    fn change<T>(&mut self, client: Subscriber, change: impl FnOnce(&mut BTreeMap<u64, Entry>) -> T) -> T {
        let place = |entries: &BTreeMap<u64, Entry>| {
            let (oldest, _) = entries.first_key_value()?;
            Some((entries.len(), Reverse(*oldest), client))
        };
        let entries = self.clients.entry(client).or_default();
        let before = place(entries);
        let changed = change(entries);
        let after = place(entries);
        if let Some(before) = before {
            self.order.remove(&before);
        }
        match after {
            Some(after) => drop(self.order.insert(after)),
            None => drop(self.clients.remove(&client)),
        }
        changed
    }
}

impl Unauthenticated {
    /// Records that the worker has the connection, so that it can be closed by this socket.
    pub fn arrived(&self, socket: SocketId) {
        let Some((client, number)) = self.place else { return };
        let mut table = self.connections.0.lock();
        let entry = table.clients.get_mut(&client).and_then(|entries| entries.get_mut(&number));
        if let Some(entry) = entry {
            entry.socket = Some(socket);
        }
    }

    /// Records that the connection has sent connect_request.
    pub fn spoke(&self) {
        if self.remove(&mut self.connections.0.lock()) {
            self.spoken.store(true, Ordering::Relaxed);
        }
    }

    /// Records that the connection was refused and may send another request. It can be closed for a new connection at
    /// once, because it has had its time.
    pub fn waits(&self, socket: SocketId) {
        let Some((client, number)) = self.place else { return };
        let mut table = self.connections.0.lock();
        if self.spoken.swap(false, Ordering::Relaxed) {
            let entry = Entry { since: self.since, socket: Some(socket) };
            table.change(client, |entries| entries.insert(number, entry));
        }
    }

    /// Removes the connection from those that can be closed for a new one. Returns whether it was one of them.
    fn remove(&self, table: &mut Table) -> bool {
        let Some((client, number)) = self.place else { return false };
        table.change(client, |entries| entries.remove(&number)).is_some()
    }
}

impl Drop for Unauthenticated {
    fn drop(&mut self) {
        let mut table = self.connections.0.lock();
        // A connection that was closed for another is no longer in the table.
        if self.spoken.load(Ordering::Relaxed) || self.remove(&mut table) {
            table.unauthenticated -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::limits::network::subscriber;

    fn client(number: u8) -> Subscriber {
        subscriber(IpAddr::from([192, 0, 2, number]), true).unwrap()
    }

    fn arrive(connections: &SilentConnections, from: u8, socket: u64) -> Unauthenticated {
        let added = connections.add(client(from));
        added.arrived(SocketId::from_bits(socket));
        added
    }

    #[tokio::test(start_paused = true)]
    async fn the_client_that_has_most_loses_its_oldest_first() {
        let connections = SilentConnections::default();
        let taken = || connections.take(None).map(SocketId::to_bits);
        let single = arrive(&connections, 1, 1);
        let mut held: Vec<_> = (10..14).map(|socket| arrive(&connections, 2, socket)).collect();
        assert_eq!(taken(), None, "they have just come");
        tokio::time::advance(MIN_TENURE).await;
        held.push(arrive(&connections, 3, 30));
        // A connection that has sent its request is not closed, and still counts.
        held[0].spoke();
        assert_eq!(connections.unauthenticated(), 6);
        assert_eq!([taken(), taken()], [Some(11), Some(12)]);
        assert_eq!(connections.unauthenticated(), 4);
        // Each client has one connection, so the oldest is closed.
        assert_eq!([taken(), taken(), taken()], [Some(1), Some(13), None]);
        drop((single, held));
        assert_eq!(connections.unauthenticated(), 0);
        let table = connections.0.lock();
        assert!(table.clients.is_empty() && table.order.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_refused_counts_and_is_closed_for_a_new_one() {
        let connections = SilentConnections::default();
        let refused = arrive(&connections, 1, 1);
        let further = connections.add_spoken();
        refused.spoke();
        tokio::time::advance(MIN_TENURE).await;
        assert_eq!((connections.unauthenticated(), connections.take(None)), (2, None), "both have spoken");
        let renewed = SocketId::from_bits(7);
        refused.waits(renewed);
        further.waits(SocketId::from_bits(2));
        assert_eq!(connections.unauthenticated(), 2);
        refused.spoke();
        assert_eq!(connections.take(None), None);
        refused.waits(renewed);
        assert_eq!((connections.take(None), connections.unauthenticated()), (Some(renewed), 1));
        refused.waits(renewed);
        assert_eq!(connections.take(None), None, "it is closed already");
        drop((refused, further));
        assert_eq!(connections.unauthenticated(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_can_be_named_and_one_without_a_socket_cannot_be_closed() {
        let connections = SilentConnections::default();
        let _many: Vec<_> = (0..3).map(|socket| arrive(&connections, 1, socket)).collect();
        let _own = arrive(&connections, 2, 9);
        let _underway = connections.add(client(3));
        tokio::time::advance(MIN_TENURE).await;
        assert_eq!(connections.take(Some(client(2))), Some(SocketId::from_bits(9)));
        assert_eq!([connections.take(Some(client(2))), connections.take(Some(client(3)))], [None; 2]);
    }
}
