//! A private Redis.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::binary;
use super::server::{Kind, Server};

/// How long one question to a server that is starting may take.
pub(super) const ASK_LIMIT: Duration = Duration::from_secs(1);

/// A private Redis. What it holds is gone after a kill, as with most Redis servers in use.
pub type Redis = Server<RedisKind>;

/// What is particular to Redis.
#[derive(Debug)]
pub enum RedisKind {}

impl Kind for RedisKind {
    type Options = ();
    const NAME: &'static str = "redis";

    fn command(folder: &Path, port: u16, (): &()) -> io::Result<Command> {
        let mut command = Command::new(binary::find("redis-server", "redis-server")?);
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--maxclients", "1000", "--dir"])
            .arg(folder);
        Ok(command)
    }

    fn ask(port: u16) -> io::Result<()> {
        let mut stream = dial(port)?;
        stream.write_all(b"PING\r\n")?;
        expect(&mut stream, "+PONG\r\n")
    }

    fn url(port: u16) -> String {
        format!("redis://127.0.0.1:{port}")
    }
}

pub(super) fn dial(port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, ASK_LIMIT)?;
    stream.set_read_timeout(Some(ASK_LIMIT))?;
    Ok(stream)
}

/// Reads until `ending` is the last that came.
pub(super) fn expect(stream: &mut TcpStream, ending: &str) -> io::Result<()> {
    let mut said = Vec::new();
    let mut part = [0; 1024];
    while !said.ends_with(ending.as_bytes()) {
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => said.extend_from_slice(&part[..length]),
        }
    }
    Ok(())
}
