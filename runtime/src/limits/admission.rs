//! Who may open one more connection: limits in all, for each client, and by the second.
//!
//! Invariant: a client's count is how many [`ClientPermit`]s of it are alive, so it cannot drift, and so it is with the upgrades on
//! their way to a worker; the table of clients holds at most about twice as many entries as there are connections from
//! outside. Where a limit of connections is reached, a silent one makes way for the new one, if there is one
//! ([`super::silent`]).
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use hyper::{
    StatusCode, header,
    http::{Extensions, request::Parts},
};
use tokio::time::Instant;

use rollcall_base::log_limit::LogLimit;

use super::{
    memory::Memory,
    network::{Proxies, Subscriber, subscriber},
    silent::{SilentConnections, Unauthenticated},
};
use crate::http::{HttpError, Reply};
use rollcall_base::names;
use rollcall_websocket::SocketId;

/// The table is tidied only above this.
const TIDY: usize = 1024;

/// The limits.
#[derive(Clone, Debug)]
pub struct AdmissionLimits {
    /// Connections of this node.
    pub connections: usize,
    /// Beside those: for new ones while silent ones that make way for them are being closed.
    pub spare: usize,
    /// Connections of one client: an IPv4 address or an IPv6 /64.
    pub per_client: usize,
    /// Whether loopback is a client.
    pub loopback: bool,
    /// Connections that have not been let in yet.
    pub unauthenticated: usize,
    /// Upgrades a second, and as many at once.
    pub upgrades: u32,
    /// Bytes of memory above which nobody new is let in.
    pub memory: u64,
    /// Who may say who the client is.
    pub proxies: Proxies,
}

/// Keeps the limits.
#[derive(Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    clients: Mutex<Clients>,
    silent: SilentConnections,
    gate: Mutex<Gate>,
    memory: Memory,
    log: LogLimit,
}

/// One connection's place; to be kept until it is closed. None for loopback.
pub type ClientPermit = Option<Arc<Held>>;

/// What the places of one client share: whose they are, and what those of them share that were refused.
#[derive(Debug)]
pub struct Held {
    client: Subscriber,
    refused: Arc<()>,
}

impl Held {
    /// Whose place it is.
    #[must_use]
    pub fn client(&self) -> Subscriber {
        self.client
    }

    /// How many places there are but for those refused.
    fn taken(self: &Arc<Self>) -> usize {
        Arc::strong_count(self) + 1 - Arc::strong_count(&self.refused)
    }
}

/// Held while a connection has upgraded and has not been let in.
pub type Waiting = Arc<Unauthenticated>;

/// The connections that there are.
pub trait Connections {
    /// How many.
    fn count(&self) -> usize;
    /// Closes one, if it is silent still. False where that cannot be said to it now.
    fn close_silent(&self, socket: SocketId) -> bool;
}

/// The place of a connection that has not sent its head yet.
#[derive(Clone)]
struct Knock(Arc<Held>);

/// The place of a connection that was refused and is not over yet: it is in the way of who knocks, not of who enters.
#[derive(Clone)]
#[expect(dead_code, reason = "it is counted while it lives")]
struct Refused(Arc<Held>, Arc<()>);

#[derive(Debug, Default)]
struct Clients {
    places: HashMap<Subscriber, Weak<Held>>,
    /// Entries after the last tidying.
    tidied: usize,
}

/// To be kept while an upgrade is on its way to a worker, which does not count it yet.
#[derive(Clone, Debug)]
pub struct Underway(#[expect(dead_code, reason = "it is counted while it lives")] Arc<()>);

/// What one upgrade at a time passes.
#[derive(Debug)]
struct Gate {
    /// Each [`Underway`] is a clone.
    underway: Arc<()>,
    /// A bucket that fills by `upgrades` a second,
    left: f64,
    /// as of then.
    at: Instant,
}

/// Why somebody is kept out, for `upgrades_total{outcome}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The node has as many as it may.
    Node,
    /// Its memory is used up.
    Memory,
    /// The client has.
    Client,
    /// Too many have not been let in yet.
    Unauthenticated,
    /// Too many wait for what the node could not send yet.
    InFlight,
    /// Too many at once.
    Rate,
}

impl Full {
    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node_full",
            Self::Memory => "memory_full",
            Self::Client => "client_full",
            Self::Unauthenticated => "unauthenticated_full",
            Self::InFlight => "in_flight_full",
            Self::Rate => "too_fast",
        }
    }

    /// The answer, with a hint when to come back.
    #[must_use]
    pub fn reply(self) -> Reply {
        let (status, detail) = match self {
            Self::Node | Self::Memory | Self::InFlight => {
                (StatusCode::SERVICE_UNAVAILABLE, "this node has as many connections as it takes")
            }
            Self::Client => (StatusCode::TOO_MANY_REQUESTS, "too many connections from this address"),
            Self::Unauthenticated => (StatusCode::SERVICE_UNAVAILABLE, "too many connections wait to be let in"),
            Self::Rate => (StatusCode::SERVICE_UNAVAILABLE, "too many connections at once"),
        };
        HttpError { header: Some((header::RETRY_AFTER, "1")), ..HttpError::new(status, detail) }.reply()
    }
}

impl Admission {
    /// With these limits.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Self {
        let gate = Gate { underway: Arc::default(), left: f64::from(limits.upgrades), at: Instant::now() };
        let memory = Memory::new(limits.memory);
        Self {
            limits,
            clients: Mutex::default(),
            silent: SilentConnections::default(),
            gate: Mutex::new(gate),
            memory,
            log: LogLimit::new(),
        }
    }

    /// Whether a proxy there may say who the client is.
    #[must_use]
    pub fn trusts(&self, remote: SocketAddr) -> bool {
        self.limits.proxies.trusts(remote.ip())
    }

    /// Somebody has connected, and has yet to say what for. False where its client has a quarter more connections than
    /// it may: those above the limit itself are told so, but who has that many holds places that others need. Of a
    /// proxy's, only the head tells whose it is.
    pub fn knock(&self, remote: SocketAddr, holds: &mut Extensions) -> bool {
        if self.limits.proxies.trusts(remote.ip()) {
            return true;
        }
        let most = self.limits.per_client;
        match self.place(remote.ip(), most.saturating_add(most / 4 + 1)) {
            Ok(place) => {
                holds.extend(place.map(Knock).map(extensions).unwrap_or_default());
                true
            }
            Err(_) => false,
        }
    }

    /// A place for one more connection, beside those that workers count; what it holds is left in the head's extensions,
    /// also where it is refused.
    ///
    /// # Errors
    /// [`Full`].
    pub fn enter(&self, remote: SocketAddr, head: &mut Parts, connections: &impl Connections) -> Result<(), Full> {
        let mut knock = head.extensions.remove::<Knock>();
        let entered = self.admit(remote, head, &mut knock, connections);
        if entered == Err(Full::Client) && self.limits.proxies.is_ignored(remote.ip(), &head.headers) {
            self.log_ignored_header(remote);
        }
        if let (Err(_), Some(Knock(held))) = (&entered, knock) {
            let mark = Arc::clone(&held.refused);
            head.extensions.insert(Refused(held, mark));
        }
        entered
    }

    /// The usual reason why one address has so many connections: it is a proxy's.
    fn log_ignored_header(&self, remote: SocketAddr) {
        if let Some(held_back) = self.log.pass() {
            let mend = "an address met ROLLCALL_MAX_CONNECTIONS_PER_IP and sends a header of proxies, which is not read; if \
                it is your proxy, name it in ROLLCALL_TRUSTED_PROXIES";
            tracing::warn!(from = %remote.ip(), held_back, "{mend}");
        }
    }

    fn admit(
        &self,
        remote: SocketAddr,
        head: &mut Parts,
        knock: &mut Option<Knock>,
        connections: &impl Connections,
    ) -> Result<(), Full> {
        if self.memory.short() {
            return Err(Full::Memory);
        }
        let address = self.limits.proxies.client(remote.ip(), &head.headers);
        let client = subscriber(address, true);
        let place = match knock {
            Some(_) => None,
            None => self.place(address, usize::MAX)?,
        };
        let held = knock.as_ref().map(|Knock(held)| held).or(place.as_ref());
        let mut gate = self.gate();
        if !gate.refill(self.limits.upgrades) {
            return Err(Full::Rate);
        }
        // In this order, because a worker counts an upgrade before that is no longer under way.
        let underway = Arc::strong_count(&gate.underway) - 1;
        let count = underway + connections.count();
        let full = if held.is_some_and(|held| held.taken() > self.limits.per_client) {
            Some((Full::Client, client))
        } else if count >= self.limits.connections {
            Some((Full::Node, None))
        } else if self.silent.unauthenticated() >= self.limits.unauthenticated {
            Some((Full::Unauthenticated, None))
        } else {
            None
        };
        if let Some((full, of)) = full {
            let room = count < self.limits.connections + self.limits.spare;
            let made = room && self.silent.take(of).is_some_and(|socket| connections.close_silent(socket));
            if !made {
                return Err(full);
            }
            metrics::counter!(names::DROPPED, "reason" => "silent").increment(1);
        }
        gate.left -= 1.0;
        // Gone with the head, once a worker has the connection.
        head.extensions.insert(Underway(Arc::clone(&gate.underway)));
        drop(gate);
        head.extensions.insert::<ClientPermit>(place.or(knock.take().map(|Knock(held)| held)));
        // Loopback addresses are told apart too.
        if let Some(client) = client {
            head.extensions.insert::<Waiting>(Arc::new(self.silent.add(client)));
        }
        Ok(())
    }

    fn place(&self, client: IpAddr, most: usize) -> Result<ClientPermit, Full> {
        let Some(client) = subscriber(client, self.limits.loopback) else { return Ok(None) };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let held = clients.places.get(&client).and_then(Weak::upgrade);
        let place = match held {
            // The one just upgraded counts too.
            Some(held) if Arc::strong_count(&held) > most => return Err(Full::Client),
            Some(held) => held,
            None => {
                let held = Arc::new(Held { client, refused: Arc::default() });
                clients.places.insert(client, Arc::downgrade(&held));
                held
            }
        };
        if clients.places.len() > TIDY.max(2 * clients.tidied) {
            clients.places.retain(|_, held| held.strong_count() > 0);
            clients.tidied = clients.places.len();
        }
        Ok(Some(place))
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// Whether one more may be upgraded now.
    fn refill(&mut self, rate: u32) -> bool {
        let (now, most) = (Instant::now(), f64::from(rate));
        self.left = (self.left + now.duration_since(self.at).as_secs_f64() * most).min(most);
        self.at = now;
        self.left >= 1.0
    }
}

fn extensions(knock: Knock) -> Extensions {
    let mut extensions = Extensions::new();
    extensions.insert(knock);
    extensions
}

#[cfg(test)]
mod tests;
