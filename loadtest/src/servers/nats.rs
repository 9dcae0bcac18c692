//! A private NATS server with JetStream.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::binary;
use super::redis::{dial, expect};
use super::server::{Kind, Server};

/// A private NATS server with JetStream; its streams are on disk and outlive a restart.
pub type Nats = Server<NatsKind>;

/// Which version of nats-server runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NatsVersion {
    /// The distribution's: 2.9 on Debian 12.
    #[default]
    Distribution,
    /// The one that `loadtest/setup/nats-server` builds.
    Current,
}

impl NatsVersion {
    /// The program.
    ///
    /// # Errors
    /// When it is not installed; the error says how.
    pub fn program(self) -> io::Result<PathBuf> {
        if self == Self::Distribution {
            return binary::find("nats-server", "nats-server");
        }
        binary::built("nats-server")
    }
}

/// What is particular to NATS.
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
        // The account's JetStream answers last of all, some time after the first PONG.
        expect(&mut stream, "}\r\n")?;
        stream.write_all(b"PING\r\n")?;
        expect(&mut stream, "PONG\r\n")
    }

    fn url(port: u16) -> String {
        format!("nats://127.0.0.1:{port}")
    }
}
