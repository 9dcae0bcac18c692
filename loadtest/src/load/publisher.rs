//! How another service would publish into a room, one way for each kind of server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use super::clock::now;
use super::floor::BROADCAST;
use super::frame::{self, TEXT};

const LIMIT: Duration = Duration::from_secs(10);

pub(crate) enum Publisher {
    /// A message to the floor that everybody else gets.
    Floor(TcpStream),
    /// The administrator's endpoint.
    Http(ureq::Agent, String),
    /// NATS itself.
    Nats(TcpStream),
}

impl Publisher {
    pub(crate) fn floor(target: SocketAddr) -> io::Result<Self> {
        let mut stream = dial(target)?;
        let request = "GET /ws HTTP/1.1\r\nHost: floor\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        while frame::head_end(&answer).is_none() {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            answer.extend(byte);
        }
        Ok(Self::Floor(stream))
    }

    pub(crate) fn http(admin: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(LIMIT));
        let url = format!("http://{admin}/api/v1/publish");
        Self::Http(config.build().into(), url)
    }

    pub(crate) fn nats(port: u16) -> io::Result<Self> {
        let mut stream = dial(SocketAddr::from(([127, 0, 0, 1], port)))?;
        let hello = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"tls_required\":false}\r\nPING\r\n";
        stream.write_all(hello)?;
        let mut said = Vec::new();
        let mut part = [0; 4096];
        while !said.ends_with(b"PONG\r\n") {
            match stream.read(&mut part)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => said.extend(&part[..length]),
            }
        }
        Ok(Self::Nats(stream))
    }

    /// Publishes `count` events into a lesson one behind the other, each with the moment of its making in `at`.
    pub(crate) fn publish(&mut self, lesson: &str, size: usize, count: usize) -> io::Result<()> {
        let subject = format!("lesson.{lesson}.note");
        let mut piece = Vec::new();
        for _ in 0..count {
            let body = event(size);
            match self {
                Self::Floor(_) => {
                    let message = [&[BROADCAST], body.to_string().as_bytes()].concat();
                    piece.extend(frame::masked(TEXT, &message));
                }
                Self::Nats(_) => {
                    let body = body.to_string();
                    write!(piece, "PUB {subject} {}\r\n{body}\r\n", body.len())?;
                }
                Self::Http(agent, url) => {
                    let request = json!({"subject": subject, "body": body}).to_string();
                    let request = agent.post(&*url).content_type("application/json").send(request);
                    request.map_err(io::Error::other)?;
                }
            }
        }
        match self {
            Self::Floor(stream) | Self::Nats(stream) => stream.write_all(&piece),
            Self::Http(..) => Ok(()),
        }
    }
}

/// An event of some other service, about as long as `size`.
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
