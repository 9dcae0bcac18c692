//! Decides whether a further connection is admitted, by limits of the node, of each client, and of upgrades per second.
//!
//! Invariant: a connection counts for the node from its admission on. If a limit of connections is reached, a silent
//! connection is closed for the new one, if there is one ([`super::silent`]).
use std::{net::SocketAddr, sync::Arc};

use hyper::{
    HeaderMap,
    http::{Extensions, request::Parts},
};
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use rollcall_base::log_limit::LogLimit;

use super::{
    clients::{ClientCount, Clients},
    memory::Memory,
    network::{Proxies, Subscriber, subscriber},
    silent::{SilentConnections, Unauthenticated},
};
use rollcall_base::names;
use rollcall_websocket::{ReservedConnection, SocketId};

/// The limits of connections.
#[derive(Clone, Debug)]
pub struct AdmissionLimits {
    /// The connections of this node.
    pub connections: usize,
    /// How many further connections there may be while silent connections are being closed for them.
    pub spare: usize,
    /// The connections of one client: an IPv4 address or an IPv6 /64.
    pub per_client: usize,
    /// Whether connections from loopback are limited, too.
    pub loopback: bool,
    /// The connections without a session.
    pub unauthenticated: usize,
    /// The upgrades per second, and the largest burst.
    pub upgrades: u32,
    /// The memory in bytes above which new connections are refused.
    pub memory: u64,
    /// The proxies whose header names the client.
    pub proxies: Proxies,
}

/// Enforces the limits.
#[derive(Debug)]
pub struct Admission {
    limits: RwLock<Arc<AdmissionLimits>>,
    clients: Clients,
    silent: SilentConnections,
    upgrades: Mutex<UpgradeGate>,
    memory: Memory,
    log: LogLimit,
}

/// Counts one connection of a client, and is kept until the connection is closed. `None` if the client's address is not
/// limited.
pub type ClientPermit = Option<Arc<ClientCount>>;

/// Counts a connection that has no session, from its upgrade until it has one.
pub type UnauthenticatedPermit = Arc<Unauthenticated>;

/// The connections of this node.
pub trait Connections {
    /// Returns how many connections there are, including reserved ones.
    fn count(&self) -> usize;
    /// Counts a connection that is about to upgrade.
    fn reserve(&self) -> ReservedConnection;
    /// Closes a connection if it is still silent. Returns false if its worker's inbox is full.
    fn close_silent(&self, socket: SocketId) -> bool;
    /// Returns whether too many bytes are queued for slow readers.
    fn near_limit(&self) -> bool;
}

/// A permit of a connection that has not sent its head yet.
#[derive(Clone)]
struct AcceptPermit(Arc<ClientCount>);

/// A permit of a connection that was refused and is still open. It counts when connections are accepted, but not when
/// they upgrade.
#[derive(Clone)]
#[expect(dead_code, reason = "it is counted while it lives")]
struct RefusedPermit(Arc<ClientCount>, Arc<()>);

/// The limit of the rate of upgrades. It is locked by one upgrade at a time, until the upgrade's connection is counted.
#[derive(Debug)]
struct UpgradeGate {
    /// The tokens of a bucket that is refilled with `upgrades` tokens per second.
    tokens: f64,
    /// When the bucket was last refilled.
    refilled: Instant,
}

/// Why a connection is not admitted, for the label `outcome` of `upgrades_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdmissionError {
    /// The node has its maximum number of connections.
    Node,
    /// The node's memory is used up.
    Memory,
    /// The client has its maximum number of connections.
    Client,
    /// Too many connections have no session yet.
    Unauthenticated,
    /// Too many bytes are queued for slow readers.
    InFlight,
    /// Too many upgrades per second.
    Rate,
}

impl AdmissionError {
    /// Returns the label.
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
}

impl Admission {
    /// Creates an admission with these limits.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Self {
        let upgrades = UpgradeGate { tokens: f64::from(limits.upgrades), refilled: Instant::now() };
        Self {
            limits: RwLock::new(Arc::new(limits)),
            clients: Clients::default(),
            silent: SilentConnections::default(),
            upgrades: Mutex::new(upgrades),
            memory: Memory::default(),
            log: LogLimit::new(),
        }
    }

    /// Sets other limits, which apply from the next connection on. Open connections stay.
    pub fn set_limits(&self, limits: AdmissionLimits) {
        *self.limits.write() = Arc::new(limits);
    }

    fn limits(&self) -> Arc<AdmissionLimits> {
        Arc::clone(&self.limits.read())
    }

    /// Returns whether the address belongs to a trusted proxy, whose header names the client.
    #[must_use]
    pub fn trusts(&self, remote: SocketAddr) -> bool {
        self.limits().proxies.trusts(remote.ip())
    }

    /// Returns the client of a request, or `None` if the client's address is not limited.
    #[must_use]
    pub fn client(&self, remote: SocketAddr, headers: &HeaderMap) -> Option<Subscriber> {
        let limits = self.limits();
        subscriber(limits.proxies.client(remote.ip(), headers), limits.loopback)
    }

    /// Returns whether a connection that was just accepted may send a head. Returns false if its client has a quarter
    /// more connections than its limit. Up to there, a refused connection gets an answer that says why, but still more
    /// connections would use up what other clients need. A proxy's connection is always accepted, because only its head
    /// names the client.
    pub fn admit_connection(&self, remote: SocketAddr, holds: &mut Extensions) -> bool {
        let limits = self.limits();
        if limits.proxies.trusts(remote.ip()) {
            return true;
        }
        let max = limits.per_client.saturating_add(limits.per_client / 4 + 1);
        let Some(client) = subscriber(remote.ip(), limits.loopback) else { return true };
        let Some(permit) = self.clients.count(client, max) else { return false };
        holds.insert(AcceptPermit(permit));
        true
    }

    /// Admits an upgrade. The permits are put into the head's extensions, even if the upgrade is refused.
    ///
    /// # Errors
    /// Returns an [`AdmissionError`] if the upgrade is refused.
    pub fn admit_upgrade(
        &self,
        remote: SocketAddr,
        head: &mut Parts,
        connections: &impl Connections,
    ) -> Result<(), AdmissionError> {
        let mut accepted = head.extensions.remove::<AcceptPermit>();
        let limits = self.limits();
        let admitted = self.check(&limits, remote, head, &mut accepted, connections);
        if admitted == Err(AdmissionError::Client) && limits.proxies.is_ignored(remote.ip(), &head.headers) {
            self.log_ignored_header(remote);
        }
        if let (Err(_), Some(AcceptPermit(count))) = (&admitted, accepted) {
            let refused = Arc::clone(&count.refused);
            head.extensions.insert(RefusedPermit(count, refused));
        }
        admitted
    }

    /// Logs that an address that has reached its limit of connections may be a proxy, whose header is not read.
    fn log_ignored_header(&self, remote: SocketAddr) {
        if let Some(held_back) = self.log.pass() {
            let hint = "an address met ROLLCALL_MAX_CONNECTIONS_PER_IP and sends a header of proxies, which is not read; if \
                it is your proxy, name it in ROLLCALL_TRUSTED_PROXIES";
            tracing::warn!(from = %remote.ip(), held_back, "{hint}");
        }
    }

    /// Admits a further connection on the transport of a connection that was admitted. The further connection has
    /// already sent its request, so it is not closed for a new one. `permit` counts it among its client's connections
    /// from now on.
    ///
    /// # Errors
    /// Returns an [`AdmissionError`] if the connection is refused.
    pub fn admit_further(
        &self,
        permit: &ClientPermit,
        connections: &impl Connections,
    ) -> Result<(ReservedConnection, UnauthenticatedPermit), AdmissionError> {
        let reserved = self.reserve(&self.limits(), permit.as_ref(), connections)?;
        Ok((reserved, Arc::new(self.silent.add_spoken())))
    }

    fn check(
        &self,
        limits: &AdmissionLimits,
        remote: SocketAddr,
        head: &mut Parts,
        accepted: &mut Option<AcceptPermit>,
        connections: &impl Connections,
    ) -> Result<(), AdmissionError> {
        let address = limits.proxies.client(remote.ip(), &head.headers);
        let permit = match accepted {
            Some(_) => None,
            None => subscriber(address, limits.loopback).and_then(|client| self.clients.count(client, usize::MAX)),
        };
        let of_client = accepted.as_ref().map(|AcceptPermit(count)| count).or(permit.as_ref());
        head.extensions.insert(self.reserve(limits, of_client, connections)?);
        head.extensions.insert::<ClientPermit>(permit.or(accepted.take().map(|AcceptPermit(count)| count)));
        // Loopback addresses are counted separately here, too.
        if let Some(client) = subscriber(address, true) {
            head.extensions.insert::<UnauthenticatedPermit>(Arc::new(self.silent.add(client)));
        }
        Ok(())
    }

    /// Counts a further connection of the node if there is room for it. `of_client` has already counted it among its
    /// client's connections.
    fn reserve(
        &self,
        limits: &AdmissionLimits,
        of_client: Option<&Arc<ClientCount>>,
        connections: &impl Connections,
    ) -> Result<ReservedConnection, AdmissionError> {
        if connections.near_limit() {
            return Err(AdmissionError::InFlight);
        }
        if self.memory.is_above(limits.memory) {
            return Err(AdmissionError::Memory);
        }
        let mut gate = self.upgrades.lock();
        if !gate.refill(limits.upgrades) {
            return Err(AdmissionError::Rate);
        }
        let count = connections.count();
        let reached = if let Some(of_client) = of_client.filter(|count| count.admitted() > limits.per_client) {
            Some((AdmissionError::Client, Some(of_client.client())))
        } else if count >= limits.connections {
            Some((AdmissionError::Node, None))
        } else if self.silent.unauthenticated() >= limits.unauthenticated {
            Some((AdmissionError::Unauthenticated, None))
        } else {
            None
        };
        if let Some((error, client)) = reached {
            let spare = count < limits.connections + limits.spare;
            let closes = spare && self.silent.take(client).is_some_and(|socket| connections.close_silent(socket));
            if !closes {
                return Err(error);
            }
            metrics::counter!(names::DROPPED, "reason" => "silent").increment(1);
        }
        gate.tokens -= 1.0;
        Ok(connections.reserve())
    }
}

impl UpgradeGate {
    /// Refills the bucket. Returns whether there is a token for a further upgrade.
    fn refill(&mut self, rate: u32) -> bool {
        let (now, max) = (Instant::now(), f64::from(rate));
        self.tokens = (self.tokens + now.duration_since(self.refilled).as_secs_f64() * max).min(max);
        self.refilled = now;
        self.tokens >= 1.0
    }
}

#[cfg(test)]
mod tests;
