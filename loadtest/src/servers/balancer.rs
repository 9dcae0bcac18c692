//! nginx or HAProxy before two nodes, with the example configurations in `loadtest/socketio` and `runtime/deploy`.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Process, binary, free_port, output, private_folder};
use crate::wait::poll;

const START_LIMIT: Duration = Duration::from_secs(10);

/// The balancer, and its configuration.
#[derive(Debug, Clone, Copy)]
pub enum BalancerKind {
    /// nginx with the example of `loadtest/socketio`.
    Nginx,
    /// HAProxy with the example of `loadtest/socketio`.
    Haproxy,
    /// The nginx of the compose file, before nodes that are labelled `node1` and `node2`.
    Compose,
}

/// A running balancer. It ends when it is dropped.
pub struct Balancer {
    address: SocketAddr,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Balancer {
    /// Starts a balancer with its example configuration, in which these nodes replace the example's.
    ///
    /// # Errors
    /// Returns an error if the balancer is not installed or does not start.
    pub fn start(kind: BalancerKind, nodes: [SocketAddr; 2]) -> io::Result<Self> {
        let folder = private_folder("balancer")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let (example, file) = match kind {
            BalancerKind::Nginx => (include_str!("../../socketio/nginx.conf"), "nginx.conf"),
            BalancerKind::Haproxy => (include_str!("../../socketio/haproxy.cfg"), "haproxy.cfg"),
            BalancerKind::Compose => (include_str!("../../../runtime/deploy/compose/nginx.conf"), "nginx.conf"),
        };
        let mut config = example.replace("127.0.0.1:8080", &address.to_string());
        // The second node also replaces the example's third.
        for (name, node) in ["node1", "node2", "node3"].iter().zip([nodes[0], nodes[1], nodes[1]]) {
            config = config.replace(&format!("{name}:8080"), &node.to_string());
        }
        config = config.replace("listen 8080;", &format!("listen {address};"));
        for (place, node) in ["8081", "8082"].iter().zip(nodes) {
            let label = node.to_string().replace(['.', ':'], "-");
            config = config.replace(&format!("127.0.0.1:{place}"), &node.to_string());
            config = config.replace(&format!("127-0-0-1-{place}"), &label);
        }
        fs::write(folder.path().join(file), config)?;
        let command = match kind {
            BalancerKind::Nginx | BalancerKind::Compose => nginx(folder.path(), file)?,
            BalancerKind::Haproxy => {
                let mut command = Command::new(binary::find("haproxy", "haproxy")?);
                command.args(["-db", "-f", file]);
                command
            }
        };
        let process = listening(command, folder.path(), address)?;
        Ok(Self { address, _process: process, _folder: folder })
    }

    /// Returns the address for clients.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Returns the command for nginx in the foreground, with this configuration in the folder.
pub(super) fn nginx(folder: &Path, file: &str) -> io::Result<Command> {
    let mut command = Command::new(binary::find("nginx", "nginx-light")?);
    let prefix = folder.display();
    let globals = format!("daemon off; pid {prefix}/pid; error_log stderr;");
    command.arg("-p").arg(folder).args(["-e", "stderr", "-c", file, "-g", &globals]);
    Ok(command)
}

/// Starts a command, and waits until it listens.
pub(super) fn listening(command: Command, folder: &Path, address: SocketAddr) -> io::Result<Process> {
    let mut process = Process::spawn(command, folder)?;
    poll(START_LIMIT, "the proxy", || {
        if let Some(status) = process.ended()? {
            return Err(io::Error::other(format!("the proxy ended with {status}:\n{}", output(folder))));
        }
        Ok(TcpStream::connect(address).ok())
    })?;
    Ok(process)
}
