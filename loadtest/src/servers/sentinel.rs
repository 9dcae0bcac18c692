//! A private Sentinel that watches a master under the name `main`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use super::binary;
use super::redis::{dial, expect};
use super::server::{Kind, Server};

/// A private Sentinel.
pub type Sentinel = Server<SentinelKind>;

/// The options of a Sentinel.
#[derive(Debug, Clone)]
pub struct SentinelOptions {
    /// The port of the master.
    pub master: u16,
    /// How many Sentinels must agree that the master is gone.
    pub quorum: usize,
    /// Further lines of its configuration.
    pub lines: Vec<String>,
    /// Further arguments of redis-server.
    pub arguments: Vec<String>,
}

/// How a Sentinel is started and asked.
#[derive(Debug)]
pub enum SentinelKind {}

impl Kind for SentinelKind {
    type Options = SentinelOptions;
    const NAME: &'static str = "sentinel";

    fn prepare(folder: &Path, SentinelOptions { master, quorum, lines, .. }: &SentinelOptions) -> io::Result<()> {
        let watch = format!(
            "sentinel monitor main 127.0.0.1 {master} {quorum}\n\
             sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 3000\n{}\n",
            lines.join("\n")
        );
        fs::write(folder.join("sentinel.conf"), watch)
    }

    fn command(folder: &Path, port: u16, options: &SentinelOptions) -> io::Result<Command> {
        let mut command = Command::new(binary::find("redis-server", "redis-server")?);
        command.arg(folder.join("sentinel.conf")).args(["--sentinel", "--bind", "127.0.0.1", "--port"]);
        command.arg(port.to_string()).args(["--dir"]).arg(folder).args(&options.arguments);
        Ok(command)
    }

    fn ask(port: u16) -> io::Result<()> {
        let mut stream = dial(port)?;
        stream.write_all(b"PING\r\n")?;
        // A Sentinel with a password answers with an error, which also shows that it runs.
        expect(&mut stream, "\r\n")
    }

    fn url(port: u16) -> String {
        format!("redis+sentinel://127.0.0.1:{port}/main")
    }
}
