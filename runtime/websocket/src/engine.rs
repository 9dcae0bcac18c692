//! The part of Engine.IO that all workers and listeners share: the ids of sessions, and the first packet.
//!
//! Invariant: a session's id cannot be guessed, and no table of sessions is needed, because the id contains its socket,
//! and a signature with a key of this process.
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac::{self, HMAC_SHA256, Key},
    rand::SystemRandom,
};
use rollcall_socketio::engine::Open;
use subtle::ConstantTimeEq;

use crate::{id::SocketId, options::SocketOptions};

/// The number of a signature's bytes in an id.
const SIGNATURE: usize = 16;

/// The ids of this process's sessions, and the limits that clients are told.
#[derive(Debug)]
pub struct Engine {
    label: Box<str>,
    key: Key,
    ping_interval: Duration,
    ping_timeout: Duration,
    max_payload: AtomicUsize,
    /// The number of sessions that use long-polling.
    polling: AtomicUsize,
}

impl Engine {
    /// Creates the service of Engine.IO. Every id begins with `label`, by which balancers may route.
    pub(crate) fn new(label: &str, options: &SocketOptions) -> Self {
        Self {
            label: label.into(),
            key: Key::generate(HMAC_SHA256, &SystemRandom::new()).expect("the system has random numbers"),
            ping_interval: options.ping_interval,
            ping_timeout: options.engine_pong_timeout,
            max_payload: AtomicUsize::new(options.max_message),
            polling: AtomicUsize::new(0),
        }
    }

    /// Counts a session that begins by long-polling.
    pub(crate) fn polling_begins(&self) {
        self.polling.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a session that has ended, or has a WebSocket now.
    pub(crate) fn polling_ends(&self) {
        self.polling.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns whether a session needs the listener, because its client sends one request after another.
    pub(crate) fn has_polling(&self) -> bool {
        self.polling.load(Ordering::Relaxed) > 0
    }

    /// Returns the longest body of a POST, in bytes.
    pub(crate) fn max_payload(&self) -> usize {
        self.max_payload.load(Ordering::Relaxed)
    }

    pub(crate) fn set_max_payload(&self, max: usize) {
        self.max_payload.store(max, Ordering::Relaxed);
    }

    /// Returns the first packet for the session of a socket. `upgrades` are the transports to which it may move.
    pub(crate) fn open(&self, id: SocketId, upgrades: &[&str]) -> String {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Open {
            sid: &self.sid(id),
            upgrades,
            ping_interval: millis(self.ping_interval),
            ping_timeout: millis(self.ping_timeout),
            max_payload: self.max_payload(),
        }
        .packet()
    }

    fn sid(&self, id: SocketId) -> String {
        let mut bytes = [0; 8 + SIGNATURE];
        let bits = id.to_bits().to_be_bytes();
        bytes[..8].copy_from_slice(&bits);
        bytes[8..].copy_from_slice(&hmac::sign(&self.key, &bits).as_ref()[..SIGNATURE]);
        format!("{}.{}", self.label, URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Returns the socket of a session's id, or `None` if the id is not of this process.
    pub(crate) fn socket(&self, sid: &str) -> Option<SocketId> {
        let (_, random) = sid.rsplit_once('.').filter(|(label, _)| **label == *self.label)?;
        let bytes = <[u8; 8 + SIGNATURE]>::try_from(URL_SAFE_NO_PAD.decode(random).ok()?).ok()?;
        let (bits, signature) = bytes.split_first_chunk::<8>()?;
        let expected = hmac::sign(&self.key, bits);
        let same = expected.as_ref()[..SIGNATURE].ct_eq(signature);
        bool::from(same).then(|| SocketId::from_bits(u64::from_be_bytes(*bits)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_to_its_socket_and_none_can_be_made_up() {
        let engine = Engine::new("node-1", &SocketOptions::default());
        let id = SocketId::new(3, 77, 12);
        let sid = engine.sid(id);
        assert!(sid.starts_with("node-1."), "{sid}");
        assert_eq!(engine.socket(&sid), Some(id));
        let another = Engine::new("node-1", &SocketOptions::default());
        assert_eq!(another.socket(&sid), None);
        let mut forged = URL_SAFE_NO_PAD.decode(&sid[7..]).expect("base64");
        forged[7] ^= 1;
        assert_eq!(engine.socket(&format!("node-1.{}", URL_SAFE_NO_PAD.encode(forged))), None);
        assert_eq!(engine.socket(&sid.replace("node-1", "node-2")), None);
        assert_eq!(["", ".", "node-1.", "x"].map(|sid| engine.socket(sid)), [None; 4]);
    }
}
