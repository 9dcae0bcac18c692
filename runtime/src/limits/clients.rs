//! Counts the connections of each client.
//!
//! Invariant: a client's count is the number of living clones of its [`ClientCount`], so the count is always right. The
//! table has at most about twice as many entries as there are clients.
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use super::network::Subscriber;
use parking_lot::Mutex;

/// The number of entries above which the table is cleaned.
const MIN_CLEANED: usize = 1024;

/// The connections of one client, each of which holds a clone. Connections that were refused also hold a clone of
/// `refused`.
#[derive(Debug)]
pub struct ClientCount {
    client: Subscriber,
    pub(super) refused: Arc<()>,
}

impl ClientCount {
    /// Returns the client.
    #[must_use]
    pub fn client(&self) -> Subscriber {
        self.client
    }

    /// Returns how many connections there are without those that were refused.
    pub(super) fn admitted(self: &Arc<Self>) -> usize {
        Arc::strong_count(self) + 1 - Arc::strong_count(&self.refused)
    }
}

/// The clients that have connections.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    counts: HashMap<Subscriber, Weak<ClientCount>>,
    /// How many entries there were after the last cleaning.
    cleaned: usize,
}

impl Clients {
    /// Counts a further connection of this client. Returns `None` if the client already has more than `max`
    /// connections.
    pub(super) fn count(&self, client: Subscriber, max: usize) -> Option<Arc<ClientCount>> {
        let mut table = self.0.lock();
        let known = table.counts.get(&client).and_then(Weak::upgrade);
        let count = match known {
            // The clone that `upgrade` just created is counted, too.
            Some(count) if Arc::strong_count(&count) > max => return None,
            Some(count) => count,
            None => {
                let count = Arc::new(ClientCount { client, refused: Arc::default() });
                table.counts.insert(client, Arc::downgrade(&count));
                count
            }
        };
        if table.counts.len() > MIN_CLEANED.max(2 * table.cleaned) {
            table.counts.retain(|_, count| count.strong_count() > 0);
            table.cleaned = table.counts.len();
        }
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::limits::network::subscriber;

    #[test]
    fn clients_that_are_gone_are_forgotten() {
        let clients = Clients::default();
        for number in 0..10_000_u32 {
            let client = IpAddr::from((0x0b00_0000 + number).to_be_bytes());
            drop(clients.count(subscriber(client, false).unwrap(), 100));
        }
        assert!(clients.0.lock().counts.len() <= MIN_CLEANED + 1);
    }
}
