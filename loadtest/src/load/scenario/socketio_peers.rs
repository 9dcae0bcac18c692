//! Socket.IO's own servers on the same machine in the same run, doing the part of a join that they can do: rates, and
//! memory of a connection.
//!
//! `loadtest/setup/socketio-peers` installs them. A server that is not installed is left out, with a message.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rollcall_loadtest::servers::target_folder;

use crate::load::crew::Crew;
use crate::load::order::{Crowd, Goal, Pace};
use crate::load::proc;
use crate::load::results::Limit;
use crate::load::stage::{Stage, WINDOW};

/// The maximum number of agents: with more of them these servers would take minutes.
const MAX_AGENTS: usize = 4_000;
const WAVES: usize = 3;
/// How many times as fast the gateway must be. Its connections must also be smaller by a factor.
const FASTER: f64 = 3.0;
const SMALLER: f64 = 20.0;

/// The figures of a server.
struct Found {
    joins: f64,
    bytes: f64,
}

/// A server that this scenario starts.
struct Peer {
    child: Child,
    address: SocketAddr,
}

pub(crate) fn run(stage: &mut Stage) -> io::Result<()> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("socketio");
    let installed = target_folder().join("socketio/peers");
    let mut node = Command::new("node");
    node.arg(scripts.join("peer.mjs")).env("PEER", std::path::absolute(&installed)?);
    let mut python = Command::new(installed.join("venv/bin/python"));
    python.arg(scripts.join("peer.py"));
    let peers = [
        ("Socket.IO on Node", installed.join("node_modules/socket.io"), node),
        ("python-socketio", installed.join("venv/bin/python"), python),
    ];
    for (name, needs, command) in peers {
        if needs.exists() {
            beside(stage, name, command)?;
        } else {
            eprintln!("  {name} is not here: loadtest/setup/socketio-peers installs it");
        }
    }
    Ok(())
}

fn beside(stage: &mut Stage, name: &str, command: Command) -> io::Result<()> {
    let peer = Peer::start(command)?;
    let crowds = crowds(MAX_AGENTS.min(stage.agents));
    let theirs = measure(peer.address, peer.child.id(), &crowds)?;
    drop(peer);
    for kind in stage.gateways() {
        let system = stage.start(kind, 1, &crowds)?;
        let ours = measure(system.address(), system.pid(), &crowds)?;
        let mut note = stage.note("socketio peers", kind);
        note.figure(&format!("connect and join, {name}"), theirs.joins, "/s", None);
        note.figure("connect and join, Socket.IO here", ours.joins, "/s", None);
        let times = ours.joins / theirs.joins;
        note.figure(&format!("as many joins as {name}"), times, "times", Some(Limit::AtLeast(FASTER)));
        note.figure(&format!("memory a joined connection, {name}"), theirs.bytes, "bytes", None);
        note.figure("memory a joined connection, Socket.IO here", ours.bytes, "bytes", None);
        // Noise may make the measured difference negative.
        let part = theirs.bytes / ours.bytes.max(1.0);
        note.figure(&format!("of the memory that {name} needs: one part in"), part, "", Some(Limit::AtLeast(SMALLER)));
    }
    Ok(())
}

/// Returns a few agents that are connected from the beginning, so that the server's fixed cost is not counted, and the
/// agents that count.
fn crowds(agents: usize) -> [Crowd; 2] {
    [Crowd::new(64, agents.div_ceil(4), 30).over_socketio(), Crowd::new(65, agents, 30).over_socketio()]
}

fn measure(address: SocketAddr, pid: u32, [few, many]: &[Crowd; 2]) -> io::Result<Found> {
    let mut crew = Crew::for_agents(few.agents + many.agents)?;
    let first = crew.prepare(few, address)?;
    let rest = crew.prepare(many, address)?;
    crew.gather(&first)?;
    let before = proc::family_pss(pid)? as f64;
    let mut rates = Vec::new();
    let mut after = before;
    for _ in 0..WAVES {
        let wave = crew.arrive(&rest, Pace::Window(WINDOW), Goal::Joined)?;
        rates.push(wave.rate());
        after = proc::family_pss(pid)? as f64;
        crew.leave(&rest)?;
    }
    rates.sort_by(f64::total_cmp);
    Ok(Found { joins: rates[WAVES / 2], bytes: (after - before) / many.agents as f64 })
}

impl Peer {
    fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| io::Error::other(format!("the server does not listen: {line}")));
        match address {
            Ok(address) => Ok(Self { child, address }),
            Err(error) => {
                child.kill().ok();
                Err(error)
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // An error means that the process has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
