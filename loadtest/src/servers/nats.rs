//! A private NATS server with JetStream.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::binary;
use super::redis::{dial, expect};
use super::server::{Kind, Server};

/// A private NATS server with JetStream. Its streams are on disk and survive a restart.
pub type Nats = Server<NatsKind>;

/// The version of nats-server to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NatsVersion {
    /// The distribution's version: 2.9 on Debian 12.
    #[default]
    Distribution,
    /// The version that `loadtest/setup/nats-server` builds.
    Current,
}

impl NatsVersion {
    /// Returns the path of the program.
    ///
    /// # Errors
    /// Returns an error if the program is not installed. The error says how to install it.
    pub fn program(self) -> io::Result<PathBuf> {
        if self == Self::Distribution {
            return binary::find("nats-server", "nats-server");
        }
        binary::built("nats-server")
    }
}

/// How a NATS server is started and asked.
#[derive(Debug)]
pub enum NatsKind {}

impl Kind for NatsKind {
    type Options = NatsVersion;
    const NAME: &'static str = "nats";

    fn command(folder: &Path, port: u16, version: &NatsVersion) -> io::Result<Command> {
        let mut command = Command::new(version.program()?);
        command
            .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
            .args(["--jetstream", "--store_dir"])
            .arg(folder.join("store"));
        Ok(command)
    }

    fn ask(port: u16) -> io::Result<()> {
        let mut stream = dial(port)?;
        let request = concat!(
            "CONNECT {\"verbose\":false,\"headers\":true}\r\n",
            "SUB answer 1\r\n",
            "PUB $JS.API.INFO answer 0\r\n\r\n",
        );
        stream.write_all(request.as_bytes())?;
        // JetStream of the account answers last, some time after the first PONG.
        expect(&mut stream, "}\r\n")?;
        stream.write_all(b"PING\r\n")?;
        expect(&mut stream, "PONG\r\n")
    }

    fn url(port: u16) -> String {
        format!("nats://127.0.0.1:{port}")
    }
}
