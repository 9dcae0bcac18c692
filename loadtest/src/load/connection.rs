//! One agent's connection: how it is made, and which step it has reached.
//!
//! An idle connection costs this struct and a socket, and has no allocation of its own.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, SockRef, Socket, Type};

/// How many connections share a source address. This is far below the number of its ports, because connect() slows down
/// as they fill.
const PER_SOURCE: usize = 250;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Not connected.
    Away,
    /// The agent has no connection yet, or has not sent the upgrade.
    Dialling,
    /// The agent waits for the answer to the upgrade.
    Upgrading,
    /// The agent waits for connect_success.
    Connecting,
    /// The agent waits for another page of the roster.
    Reading,
    /// The agent waits for the ack of join_lesson.
    Joining,
    /// The agent has reached its goal.
    Present,
    /// The agent has sent a close frame.
    Leaving,
}

pub(super) struct Connection {
    pub(super) stream: Option<TcpStream>,
    pub(super) step: Step,
    /// Whether the agent has stopped reading.
    pub(super) stalled: bool,
    /// The moment from which the arrival is measured. `None` if the arrival is not measured.
    pub(super) due: Option<u64>,
    /// The time after which a session error told the agent to come again.
    pub(super) come_back_after_ms: Option<u64>,
    /// The offset after which the agent resumes.
    pub(super) offset: Option<u64>,
    /// The beginning of a frame whose end has not come yet.
    pub(super) tail: Vec<u8>,
}

impl Connection {
    pub(super) const fn away() -> Self {
        Self {
            stream: None,
            step: Step::Away,
            stalled: false,
            due: None,
            come_back_after_ms: None,
            offset: None,
            tail: Vec::new(),
        }
    }

    /// Stops reading, and makes the receive buffer as small as possible. Otherwise the kernel would take in megabytes.
    pub(super) fn stall(&mut self) {
        self.stalled = true;
        if let Some(stream) = &self.stream {
            // If the kernel refuses, the server's queue fills more slowly, which is no error.
            SockRef::from(stream).set_recv_buffer_size(1).ok();
        }
    }

    /// Sends a whole request. Returns an error if the request does not fit into the empty send buffer.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        stream.write_all(bytes)
    }
}

/// Starts a connection from a loopback address of its own group.
pub(super) fn dial(target: SocketAddr, index: usize) -> io::Result<TcpStream> {
    let group = (index / PER_SOURCE) as u32;
    let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 1, 1)) + group);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // The kernel chooses the port in connect(), when it knows both ends, and not in bind().
    setsockopt(&socket, IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}
