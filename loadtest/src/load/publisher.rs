//! Publishes into a room as another service would, in one way for each kind of server.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use memchr::memmem::Finder;
use serde_json::{Value, json};

use super::clock::now;
use super::floor::BROADCAST;
use super::frame::{self, TEXT};
use super::requests;

const LIMIT: Duration = Duration::from_secs(10);

/// The protocol of the other end of the connection.
enum Dialect {
    /// A message to the floor that every other connection gets.
    Floor,
    /// The admin address: requests are sent one after the other, and then the answers are read.
    Http,
    /// NATS itself.
    Nats,
}

pub(crate) struct Publisher {
    dialect: Dialect,
    stream: TcpStream,
}

impl Publisher {
    pub(crate) fn floor(target: SocketAddr) -> io::Result<Self> {
        let mut stream = dial(target)?;
        stream.write_all(&requests::upgrade("floor"))?;
        read_until(&mut stream, |said| frame::head_end(said).is_some())?;
        Ok(Self { dialect: Dialect::Floor, stream })
    }

    pub(crate) fn http(admin: SocketAddr) -> io::Result<Self> {
        Ok(Self { dialect: Dialect::Http, stream: dial(admin)? })
    }

    pub(crate) fn nats(port: u16) -> io::Result<Self> {
        let mut stream = dial(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        stream.write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":false}\r\nPING\r\n")?;
        read_until(&mut stream, |said| said.ends_with(b"PONG\r\n"))?;
        Ok(Self { dialect: Dialect::Nats, stream })
    }

    /// Publishes `count` events into a lesson one after the other. The field `at` of each event is the moment at which
    /// the event was made.
    pub(crate) fn publish(&mut self, lesson: &str, size: usize, count: usize) -> io::Result<()> {
        let subject = format!("lesson.{lesson}.note");
        let mut piece = Vec::new();
        for _ in 0..count {
            let body = event(size);
            match self.dialect {
                Dialect::Floor => {
                    let message = [&[BROADCAST], body.to_string().as_bytes()].concat();
                    piece.extend(frame::masked(TEXT, &message));
                }
                Dialect::Nats => {
                    let body = body.to_string();
                    write!(piece, "PUB {subject} {}\r\n{body}\r\n", body.len())?;
                }
                Dialect::Http => {
                    let body = json!({"subject": subject, "body": body}).to_string();
                    let length = body.len();
                    write!(
                        piece,
                        "POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
                    )?;
                }
            }
        }
        self.stream.write_all(&piece)?;
        if matches!(self.dialect, Dialect::Http) {
            let said = read_until(&mut self.stream, |said| answers(said) >= count)?;
            if Finder::new(b"HTTP/1.1 202 ").find_iter(&said).count() < count {
                return Err(io::Error::other(String::from_utf8_lossy(&said).into_owned()));
            }
        }
        Ok(())
    }
}

/// Returns an event of another service, about `size` bytes long.
fn event(size: usize) -> Value {
    json!({
        "id": {"entity_type": "note", "operation": "created", "sequence_id": 1},
        "payload": {"at": now(), "text": "x".repeat(size.saturating_sub(130))},
    })
}

fn dial(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Reads until `enough` returns true for the bytes that were read.
fn read_until(stream: &mut TcpStream, enough: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    let mut part = [0; 16_384];
    while !enough(&said) {
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => said.extend(&part[..length]),
        }
    }
    Ok(said)
}

/// Returns the number of complete answers.
fn answers(mut said: &[u8]) -> usize {
    let mut whole = 0;
    while let Some(head) = frame::head_end(said) {
        let text = String::from_utf8_lossy(&said[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        let Some(rest) = said.get(head + length..) else {
            break;
        };
        said = rest;
        whole += 1;
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_when_they_are_whole() {
        let one = b"HTTP/1.1 202 Accepted\r\nContent-Length: 4\r\n\r\nfour";
        let two = [one.as_slice(), b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"].concat();
        assert_eq!((answers(&one[..one.len() - 1]), answers(one), answers(&two)), (0, 1, 2));
    }
}
