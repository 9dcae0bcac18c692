//! Limits tries with wrong tokens: an address may send some at once, and further ones only slowly.
//!
//! Invariant: no number of wrong tokens makes a right token fail, because many callers may share the address of a
//! proxy. So the limit does not protect a token from being guessed. The token's length protects it, and the
//! configuration checks the length. The limit bounds the number of lines that wrong tokens write into the log. It costs
//! nothing until the first wrong token.
use std::{
    net::SocketAddr,
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::limits::{
    network::{Subscriber, subscriber},
    rate::{Rate, Sketch},
};
use rollcall_base::names;

/// How many tries an address has at once.
const AT_ONCE: u32 = 10;
/// The time after which an address has another try.
const ANOTHER: Duration = Duration::from_secs(6);

/// The tries of all addresses.
#[derive(Debug)]
pub struct FailedTries {
    since: Instant,
    used: OnceLock<Sketch>,
}

/// The wrong tokens of one address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tries<'a> {
    all: &'a FailedTries,
    /// `None` in tests without a connection.
    address: Option<Subscriber>,
}

impl Default for FailedTries {
    fn default() -> Self {
        Self { since: Instant::now(), used: OnceLock::new() }
    }
}

impl FailedTries {
    pub(super) fn of(&self, address: Option<SocketAddr>) -> Tries<'_> {
        Tries { all: self, address: address.and_then(|address| subscriber(address.ip(), true)) }
    }
}

impl Tries<'_> {
    /// Uses one try, because a token was wrong. Returns false if the address had no try left.
    pub(super) fn use_one(self) -> bool {
        metrics::counter!(names::ADMIN_TOKENS_REFUSED).increment(1);
        let Some(address) = self.address else { return true };
        let used = self.all.used.get_or_init(Sketch::new);
        let was_left = used.take(Rate::every(ANOTHER, AT_ONCE), address, self.all.since.elapsed()).is_ok();
        if was_left {
            tracing::warn!(?address, "a wrong token was sent to the admin address");
        }
        was_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_tries() {
        let all = FailedTries::default();
        let of = |address: &str| all.of(Some(address.parse().unwrap()));
        for _ in 0..AT_ONCE {
            assert!(of("192.0.2.1:1").use_one());
        }
        assert!(!of("192.0.2.1:2").use_one());
        assert!(of("192.0.2.2:1").use_one() && of("[::1]:1").use_one());
        for _ in 0..AT_ONCE {
            assert!(of("127.0.0.1:1").use_one());
        }
        assert!(!of("127.0.0.1:1").use_one(), "also this machine's, where a proxy may be");
        assert!(all.of(None).use_one());
    }
}
