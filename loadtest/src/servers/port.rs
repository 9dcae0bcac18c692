//! Free ports on loopback.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// The first port to try. It is below the range from which the kernel takes the ports of outgoing connections. So a
/// killed server finds its port free again, although thousands of clients connect meanwhile.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// Returns a port that was free a moment ago. The caller tries another port if this one is taken before its server
/// listens.
///
/// # Errors
/// Returns an error if no port is free.
pub fn free_port() -> io::Result<u16> {
    let start = RandomState::new().hash_one(()) % u64::from(COUNT);
    (0..COUNT)
        .map(|step| FIRST + ((start + u64::from(step)) % u64::from(COUNT)) as u16)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| io::Error::other("no free port on loopback"))
}
