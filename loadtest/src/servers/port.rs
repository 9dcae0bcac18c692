//! Free ports on loopback.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Below the range from which the kernel takes the ports of outgoing connections: a server that was
/// killed must find its port free again, with thousands of clients connecting meanwhile.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// A port that was free a moment ago. Whoever starts a server on it tries again with another one
/// when it was taken in between.
///
/// # Errors
/// When none is free.
pub fn free_port() -> io::Result<u16> {
    let start = RandomState::new().hash_one(()) % u64::from(COUNT);
    (0..COUNT)
        .map(|step| FIRST + ((start + u64::from(step)) % u64::from(COUNT)) as u16)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| io::Error::other("no free port on loopback"))
}
