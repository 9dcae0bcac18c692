//! The floor: what a bare epoll loop on one thread does with the same requests.
//!
//! The floor upgrades connections, answers each message with one ack, and sends what follows a `!` to every other
//! connection, with one system call for each. It checks, stores and limits nothing. So a gateway can only be faster by
//! using a second thread, or by joining several sends into one.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, Socket, Type};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::frame::{self, TEXT};

const LISTENER: Token = Token(usize::MAX);
const BACKLOG: i32 = 4096;
const ACK: &[u8] = br#"{"type":"ack","ref":1,"status":"SUCCESS","data":{}}"#;
const KEY: &[u8] = b"\r\nSec-WebSocket-Key: ";
/// The first byte of a message that is sent to all other connections.
pub(crate) const BROADCAST: u8 = b'!';

struct Peer {
    stream: TcpStream,
    upgraded: bool,
    /// The beginning of a request whose end has not come yet.
    tail: Vec<u8>,
}

struct Floor {
    poll: Poll,
    peers: Slab<Peer>,
    ack: Vec<u8>,
    buffer: Vec<u8>,
}

/// Serves until the process is ended.
pub(crate) fn serve() -> io::Result<()> {
    let mut listener = listen()?;
    println!("listening on {}", listener.local_addr()?);
    let mut floor = Floor {
        poll: Poll::new()?,
        peers: Slab::with_capacity(20_000),
        ack: frame::plain(TEXT, ACK),
        buffer: vec![0; 65_536],
    };
    floor.poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    loop {
        match floor.poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept(&listener)?,
                Token(index) => {
                    if floor.read(index).is_err() {
                        floor.peers.try_remove(index);
                    }
                }
            }
        }
    }
}

fn listen() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let slot = self.peers.vacant_entry();
            let token = Token(slot.key());
            let peer = slot.insert(Peer { stream, upgraded: false, tail: Vec::new() });
            let registry = self.poll.registry();
            registry.register(&mut peer.stream, token, Interest::READABLE)?;
        }
    }

    /// Reads what has come. An error ends the connection.
    fn read(&mut self, index: usize) -> io::Result<()> {
        let Some(peer) = self.peers.get_mut(index) else {
            return Ok(());
        };
        let mut broadcasts = Vec::new();
        loop {
            match peer.stream.read(&mut self.buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    peer.take(&self.buffer[..length], &self.ack, &mut broadcasts)?;
                    if length < self.buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        for body in broadcasts {
            self.broadcast(index, &body);
        }
        Ok(())
    }

    fn broadcast(&mut self, sender: usize, body: &[u8]) {
        let frame = frame::plain(TEXT, body);
        for (index, peer) in &mut self.peers {
            if index != sender && peer.upgraded {
                // If this connection has ended, an event of its own reports that.
                peer.stream.write_all(&frame).ok();
            }
        }
    }
}

impl Peer {
    fn take(&mut self, bytes: &[u8], ack: &[u8], broadcasts: &mut Vec<Vec<u8>>) -> io::Result<()> {
        let joined;
        let mut rest = if self.tail.is_empty() {
            bytes
        } else {
            self.tail.extend(bytes);
            joined = std::mem::take(&mut self.tail);
            &joined
        };
        if !self.upgraded
            && let Some(end) = frame::head_end(rest)
        {
            self.upgrade(&rest[..end])?;
            rest = &rest[end..];
        }
        while self.upgraded
            && let Some((frame, used)) = frame::next(rest)
        {
            match (frame.opcode, frame.payload.first()) {
                (frame::CLOSE, _) => return Err(io::ErrorKind::ConnectionAborted.into()),
                (TEXT, Some(&BROADCAST)) => broadcasts.push(frame.payload[1..].to_vec()),
                _ => self.stream.write_all(ack)?,
            }
            rest = &rest[used..];
        }
        self.tail.extend(rest);
        Ok(())
    }

    fn upgrade(&mut self, head: &[u8]) -> io::Result<()> {
        let start = memchr::memmem::find(head, KEY).ok_or(io::ErrorKind::InvalidData)? + KEY.len();
        let length = memchr::memchr(b'\r', &head[start..]).ok_or(io::ErrorKind::InvalidData)?;
        let accept = derive_accept_key(&head[start..start + length]);
        write!(
            self.stream,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        )?;
        self.upgraded = true;
        Ok(())
    }
}
