//! Who may open one more connection: limits in all, for each client, and by the second.
//!
//! Invariant: a client's count is how many [`Place`]s of it are alive, so it cannot drift, and so it is with the upgrades on
//! their way to a worker; the table of clients holds at most about twice as many entries as there are connections from
//! outside.
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use hyper::{HeaderMap, StatusCode, header};
use tokio::time::Instant;

use super::{
    memory::Memory,
    network::{Proxies, Subscriber, subscriber},
    reply::{Refusal, Reply},
};

/// The table is tidied only above this.
const TIDY: usize = 1024;

/// The limits.
#[derive(Clone, Debug)]
pub struct AdmissionLimits {
    /// Connections of this node.
    pub connections: usize,
    /// Connections of one client: an IPv4 address or an IPv6 /64. Loopback is not counted.
    pub per_client: usize,
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
    gate: Mutex<Gate>,
    memory: Memory,
}

/// To be kept while an upgrade is on its way to a worker, which does not count it yet.
#[derive(Clone, Debug)]
pub struct Underway(#[expect(dead_code, reason = "it is counted while it lives")] Arc<()>);

/// One connection's place; to be kept until it is closed. None for loopback.
pub type Place = Option<Arc<Held>>;

/// What the places of one client share.
#[derive(Debug)]
pub struct Held(());

#[derive(Debug, Default)]
struct Clients {
    places: HashMap<Subscriber, Weak<Held>>,
    /// Entries after the last tidying.
    tidied: usize,
}

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
            Self::Rate => "too_fast",
        }
    }

    /// The answer, with a hint when to come back.
    #[must_use]
    pub fn reply(self) -> Reply {
        let (status, detail) = match self {
            Self::Node | Self::Memory => {
                (StatusCode::SERVICE_UNAVAILABLE, "this node has as many connections as it takes")
            }
            Self::Client => (StatusCode::TOO_MANY_REQUESTS, "too many connections from this address"),
            Self::Rate => (StatusCode::SERVICE_UNAVAILABLE, "too many connections at once"),
        };
        Refusal { header: Some((header::RETRY_AFTER, "1")), ..Refusal::new(status, detail) }.reply()
    }
}

impl Admission {
    /// With these limits.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Self {
        let gate = Gate { underway: Arc::default(), left: f64::from(limits.upgrades), at: Instant::now() };
        let memory = Memory::new(limits.memory);
        Self { limits, clients: Mutex::default(), gate: Mutex::new(gate), memory }
    }

    /// A place for one more connection, beside those that workers count.
    ///
    /// # Errors
    /// [`Full`].
    pub fn enter(
        &self,
        remote: SocketAddr,
        headers: &HeaderMap,
        connections: impl FnOnce() -> usize,
    ) -> Result<(Place, Underway), Full> {
        if self.memory.short() {
            return Err(Full::Memory);
        }
        let underway = self.pass(connections)?;
        let place = self.place(self.limits.proxies.client(remote.ip(), headers))?;
        Ok((place, underway))
    }

    fn place(&self, client: IpAddr) -> Result<Place, Full> {
        let Some(subscriber) = subscriber(client) else { return Ok(None) };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let held = clients.places.get(&subscriber).and_then(Weak::upgrade);
        let place = match held {
            // The one just upgraded counts too.
            Some(held) if Arc::strong_count(&held) > self.limits.per_client => return Err(Full::Client),
            Some(held) => held,
            None => {
                let held = Arc::new(Held(()));
                clients.places.insert(subscriber, Arc::downgrade(&held));
                held
            }
        };
        if clients.places.len() > TIDY.max(2 * clients.tidied) {
            clients.places.retain(|_, held| held.strong_count() > 0);
            clients.tidied = clients.places.len();
        }
        Ok(Some(place))
    }

    fn pass(&self, connections: impl FnOnce() -> usize) -> Result<Underway, Full> {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        // In this order, because a worker counts an upgrade before that is no longer under way.
        let underway = Arc::strong_count(&gate.underway) - 1;
        if underway + connections() >= self.limits.connections {
            return Err(Full::Node);
        }
        let (now, most) = (Instant::now(), f64::from(self.limits.upgrades));
        gate.left = (gate.left + now.duration_since(gate.at).as_secs_f64() * most).min(most);
        gate.at = now;
        if gate.left < 1.0 {
            return Err(Full::Rate);
        }
        gate.left -= 1.0;
        Ok(Underway(Arc::clone(&gate.underway)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::header::HeaderName;

    use super::*;

    fn admission(connections: usize, per_client: usize, upgrades: u32) -> Admission {
        let header = HeaderName::from_static("x-forwarded-for");
        let proxies = Proxies { trusted: vec!["10.0.0.0/8".parse().unwrap()], header };
        Admission::new(AdmissionLimits { connections, per_client, upgrades, memory: u64::MAX, proxies })
    }

    fn enter(admission: &Admission, remote: &str) -> Result<Place, Full> {
        admission.enter(format!("{remote}:1").parse().unwrap(), &HeaderMap::new(), || 0).map(|(place, _)| place)
    }

    #[tokio::test]
    async fn a_client_has_only_so_many_and_gets_them_back() {
        let admission = admission(100, 2, 1000);
        let first = enter(&admission, "1.2.3.4").unwrap();
        let second = enter(&admission, "1.2.3.4").unwrap();
        assert_eq!(enter(&admission, "1.2.3.4").unwrap_err(), Full::Client);
        assert!(enter(&admission, "1.2.3.5").is_ok(), "another is not concerned");
        drop(first);
        let third = enter(&admission, "1.2.3.4").unwrap();
        assert_eq!(enter(&admission, "1.2.3.4").unwrap_err(), Full::Client);
        drop((second, third));
        assert!(enter(&admission, "1.2.3.4").is_ok());
    }

    #[tokio::test]
    async fn an_ipv6_64_is_one_client_and_loopback_none() {
        let admission = admission(100, 1, 1000);
        let _place = enter(&admission, "[2001:db8::1]").unwrap();
        assert_eq!(enter(&admission, "[2001:db8::2]").unwrap_err(), Full::Client);
        assert!(enter(&admission, "[2001:db8:0:1::2]").is_ok());
        for _ in 0..5 {
            assert!(enter(&admission, "127.0.0.1").unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn behind_a_proxy_the_client_is_counted() {
        let admission = admission(100, 1, 1000);
        let through = |client: &'static str| {
            let headers = HeaderMap::from_iter([(HeaderName::from_static("x-forwarded-for"), client.parse().unwrap())]);
            admission.enter("10.0.0.1:1".parse().unwrap(), &headers, || 0)
        };
        let _places = (through("1.1.1.1").unwrap(), through("2.2.2.2").unwrap());
        assert_eq!(through("6.6.6.6, 1.1.1.1").unwrap_err(), Full::Client);
    }

    #[tokio::test]
    async fn a_full_node_takes_nobody_and_says_when_to_come_back() {
        let admission = admission(3, 9, 1000);
        let enter = |counted| admission.enter("127.0.0.1:1".parse().unwrap(), &HeaderMap::new(), move || counted);
        assert_eq!(enter(3).unwrap_err(), Full::Node);
        let (_place, underway) = enter(2).unwrap();
        assert_eq!(enter(2).unwrap_err(), Full::Node, "the one on its way counts");
        drop(underway);
        assert!(enter(2).is_ok());
        for full in [Full::Node, Full::Memory, Full::Client, Full::Rate] {
            assert_eq!(full.reply().headers()["retry-after"], "1");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn upgrades_have_a_rate() {
        let admission = admission(100, 100, 10);
        let entered = || (0..100).take_while(|_| enter(&admission, "127.0.0.1").is_ok()).count();
        assert_eq!(entered(), 10);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(entered(), 5);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(entered(), 10, "no more than a second's worth is saved up");
    }

    #[tokio::test]
    async fn clients_that_are_gone_are_forgotten() {
        let admission = admission(100, 100, 1_000_000);
        for number in 0..10_000_u32 {
            let client = IpAddr::from((0x0b00_0000 + number).to_be_bytes());
            drop(admission.place(client));
        }
        assert!(admission.clients.lock().unwrap().places.len() <= TIDY + 1);
    }
}
