//! Limits wrong tokens: an address may send some at once, and more only slowly, so that nobody can guess one.
//!
//! Invariant: an address that has used up its tries is not told whether a token is right. It costs nothing until the first
//! wrong token.
use std::{
    net::SocketAddr,
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::limits::{
    network::{Subscriber, subscriber},
    rate::{Rate, Sketch},
};

/// How many tries an address has at once.
const AT_ONCE: u32 = 10;
/// How long until it has another.
const ANOTHER: Duration = Duration::from_secs(6);

/// All addresses' tries.
#[derive(Debug)]
pub struct FailedTries {
    since: Instant,
    used: OnceLock<Sketch>,
}

/// One address's tries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tries<'a> {
    all: &'a FailedTries,
    /// None in tests without a connection.
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
    /// Whether the address may try a token.
    pub(super) fn are_left(self) -> bool {
        let Some((used, address)) = self.all.used.get().zip(self.address) else { return true };
        used.has_left(rate(), address, self.all.since.elapsed())
    }

    /// A token was wrong.
    pub(super) fn use_one(self) {
        if let Some(address) = self.address {
            tracing::warn!(?address, "a wrong token was sent to the admin address");
            let used = self.all.used.get_or_init(Sketch::new);
            // Where none is left, there is none to use.
            let _ = used.take(rate(), address, self.all.since.elapsed());
        }
    }
}

fn rate() -> Rate {
    Rate::every(ANOTHER, AT_ONCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_tries() {
        let all = FailedTries::default();
        let of = |address: &str| all.of(Some(address.parse().unwrap()));
        for _ in 0..AT_ONCE {
            assert!(of("192.0.2.1:1").are_left());
            of("192.0.2.1:2").use_one();
        }
        assert!(!of("192.0.2.1:3").are_left());
        assert!(of("192.0.2.2:1").are_left() && of("[::1]:1").are_left());
        for _ in 0..=AT_ONCE {
            of("127.0.0.1:1").use_one();
        }
        assert!(!of("127.0.0.1:1").are_left(), "also this machine's, where a proxy may be");
        assert!(all.of(None).are_left());
    }
}
