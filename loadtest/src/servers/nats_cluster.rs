//! A cluster of NATS servers with JetStream.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::free_port;
use super::nats::NatsVersion;
use super::redis::dial;
use super::server::{Kind, Server};
use crate::wait::poll;

/// A member of a cluster: a server with settings of its own. It counts as started when it speaks NATS, even if its
/// cluster does not work.
pub type NatsMember = Server<MemberKind>;

/// How long a cluster may take to elect a leader.
const ELECTION_LIMIT: Duration = Duration::from_secs(60);
const SETTINGS: &str = "server.conf";

/// How a member is started and asked.
#[derive(Debug)]
pub enum MemberKind {}

/// The program and the settings of a member.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    program: PathBuf,
    settings: String,
}

impl MemberOptions {
    /// Options of a member with these settings, written as in its configuration file.
    ///
    /// # Errors
    /// Returns an error if the program is not installed.
    pub fn new(version: NatsVersion, settings: impl Into<String>) -> io::Result<Self> {
        Ok(Self { program: version.program()?, settings: settings.into() })
    }
}

impl Kind for MemberKind {
    type Options = MemberOptions;
    const NAME: &'static str = "nats";

    fn prepare(folder: &Path, options: &MemberOptions) -> io::Result<()> {
        fs::write(folder.join(SETTINGS), &options.settings)
    }

    fn command(_folder: &Path, port: u16, options: &MemberOptions) -> io::Result<Command> {
        let mut command = Command::new(&options.program);
        command.args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--config", SETTINGS]);
        Ok(command)
    }

    /// Asks a server whether it runs. Only the server's greeting is read, because its settings may require TLS or
    /// credentials.
    fn ask(port: u16) -> io::Result<()> {
        dial(port).map(drop)
    }

    fn url(port: u16) -> String {
        format!("nats://127.0.0.1:{port}")
    }
}

/// Servers that know each other. Each has the name `n` and its number.
#[derive(Debug)]
pub struct NatsCluster {
    /// The members.
    pub members: Vec<NatsMember>,
}

impl NatsCluster {
    /// Starts this many servers, and returns when JetStream answers.
    ///
    /// # Errors
    /// Returns an error if the program is not installed or a member does not start.
    pub fn start(version: NatsVersion, size: usize) -> io::Result<Self> {
        let ports = (0..size).map(|_| free_port()).collect::<io::Result<Vec<u16>>>()?;
        let routes: Vec<String> = ports.iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
        let member = |(number, port): (usize, &u16)| {
            let settings = format!(
                "server_name: n{number}\njetstream {{ store_dir: store }}\n\
                 cluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: [{}] }}\n",
                routes.join(", ")
            );
            NatsMember::start_with(MemberOptions::new(version, settings)?)
        };
        let cluster = Self { members: ports.iter().enumerate().map(member).collect::<io::Result<_>>()? };
        poll(ELECTION_LIMIT, "JetStream of a cluster", || Ok(answers(cluster.members[0].port()).ok()))?;
        Ok(cluster)
    }

    /// Returns a URL with all members.
    #[must_use]
    pub fn url(&self) -> String {
        self.members.iter().map(NatsMember::url).collect::<Vec<_>>().join(",")
    }
}

/// Checks whether the server on this port leads JetStream and answers.
fn answers(port: u16) -> io::Result<()> {
    const ANSWER: &str = "stream_names_response";
    let mut stream = dial(port)?;
    let request = concat!(
        "CONNECT {\"verbose\":false,\"headers\":true}\r\n",
        "SUB answer 1\r\n",
        "PUB $JS.API.STREAM.NAMES answer 0\r\n\r\n",
    );
    stream.write_all(request.as_bytes())?;
    let (mut said, mut part) = (String::new(), [0; 1024]);
    while !(said.contains(ANSWER) && said.ends_with("}\r\n")) {
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => said.push_str(&String::from_utf8_lossy(&part[..length])),
        }
    }
    if said.contains("\"error\"") { Err(io::Error::other(said)) } else { Ok(()) }
}
