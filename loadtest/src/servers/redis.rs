//! A private Redis.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::authority::{Authority, Issued};
use super::binary;
use super::server::{Kind, Server};
use crate::wait::poll;

/// How long a starting server may take to answer.
pub(super) const ASK_LIMIT: Duration = Duration::from_secs(1);

/// How long a running server may take to carry out a command.
const TELL_LIMIT: Duration = Duration::from_secs(5);
/// How long a replica may take to copy its master's data.
const SYNC_LIMIT: Duration = Duration::from_secs(10);

/// A private Redis. Its data are lost when it is killed, as with most Redis servers in use.
pub type Redis = Server<RedisKind>;

/// The options of a Redis.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// Further arguments of redis-server.
    pub arguments: Vec<String>,
}

impl RedisOptions {
    /// Adds these arguments, which are divided by spaces.
    #[must_use]
    pub fn with(mut self, arguments: &str) -> Self {
        self.arguments.extend(arguments.split_whitespace().map(str::to_owned));
        self
    }

    /// Lets the server also speak TLS on this port, and to its replicas and the other nodes of its cluster. With
    /// `asks_clients` the server requires a client certificate of the authority.
    #[must_use]
    pub fn with_tls(self, port: u16, authority: &Authority, server: &Issued, asks_clients: bool) -> Self {
        let Issued { certificate, key } = server;
        self.with(&format!(
            "--tls-port {port} --tls-ca-cert-file {} --tls-cert-file {} --tls-key-file {} --tls-auth-clients {} \
             --tls-replication yes --tls-cluster yes",
            authority.certificate().display(),
            certificate.display(),
            key.display(),
            if asks_clients { "yes" } else { "no" },
        ))
    }
}

/// How a Redis is started and asked.
#[derive(Debug)]
pub enum RedisKind {}

impl Kind for RedisKind {
    type Options = RedisOptions;
    const NAME: &'static str = "redis";

    fn command(folder: &Path, port: u16, options: &RedisOptions) -> io::Result<Command> {
        let mut command = Command::new(binary::find("redis-server", "redis-server")?);
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--maxclients", "1000", "--repl-diskless-sync-delay", "0", "--dir"])
            .arg(folder)
            .args(&options.arguments);
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

impl Server<RedisKind> {
    /// Sends one inline command, and returns the raw answer.
    ///
    /// # Errors
    /// Returns an error if no answer comes, or the server refuses the command.
    pub fn tell(&self, command: &str) -> io::Result<String> {
        tell_redis(self.port(), command)
    }

    /// Makes this Redis a replica of the one on port `leader`, and waits until it has the leader's data.
    ///
    /// # Errors
    /// Returns an error if this Redis or its leader does not answer.
    pub fn follow(&self, leader: u16) -> io::Result<()> {
        self.tell(&format!("REPLICAOF 127.0.0.1 {leader}"))?;
        poll(SYNC_LIMIT, "the replica's data", || {
            Ok(self.tell("INFO replication")?.contains("master_link_status:up").then_some(()))
        })
    }
}

/// Sends one inline command and a PING to the Redis on this port. The command's answer is complete when the answer to
/// PING has come.
///
/// # Errors
/// Returns an error if no answer comes, or the server refuses the command.
pub fn tell_redis(port: u16, command: &str) -> io::Result<String> {
    const END: &[u8] = b"+PONG\r\n";
    let mut stream = dial(port)?;
    stream.set_read_timeout(Some(TELL_LIMIT))?;
    stream.write_all(format!("{command}\r\nPING\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while !answer.ends_with(END) {
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => answer.extend_from_slice(&part[..length]),
        }
    }
    answer.truncate(answer.len() - END.len());
    let answer = String::from_utf8(answer).map_err(io::Error::other)?;
    if answer.starts_with('-') { Err(io::Error::other(format!("{command}: {answer}"))) } else { Ok(answer) }
}

pub(super) fn dial(port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, ASK_LIMIT)?;
    stream.set_read_timeout(Some(ASK_LIMIT))?;
    Ok(stream)
}

/// Reads until the received text ends with `ending`.
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
