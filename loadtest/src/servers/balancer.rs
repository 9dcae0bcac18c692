//! nginx or HAProxy before two nodes, with the examples that are beside the load generator.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::{Process, binary, free_port, output, private_folder};
use crate::wait::poll;

const START_LIMIT: Duration = Duration::from_secs(10);

/// Which balancer.
#[derive(Debug, Clone, Copy)]
pub enum BalancerKind {
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
}

/// A running balancer; ends with the value.
pub struct Balancer {
    address: SocketAddr,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Balancer {
    /// Starts one of the examples, with these nodes in place of its own.
    ///
    /// # Errors
    /// When it is not installed, or does not come up.
    pub fn start(kind: BalancerKind, nodes: [SocketAddr; 2]) -> io::Result<Self> {
        let folder = private_folder("balancer")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let (example, file) = match kind {
            BalancerKind::Nginx => (include_str!("../../socketio/nginx.conf"), "nginx.conf"),
            BalancerKind::Haproxy => (include_str!("../../socketio/haproxy.cfg"), "haproxy.cfg"),
        };
        let mut config = example.replace("127.0.0.1:8080", &address.to_string());
        for (place, node) in ["8081", "8082"].iter().zip(nodes) {
            let label = node.to_string().replace(['.', ':'], "-");
            config = config.replace(&format!("127.0.0.1:{place}"), &node.to_string());
            config = config.replace(&format!("127-0-0-1-{place}"), &label);
        }
        fs::write(folder.path().join(file), config)?;
        let command = match kind {
            BalancerKind::Nginx => {
                let mut command = Command::new(binary::find("nginx", "nginx-light")?);
                let prefix = folder.path().display();
                let globals = format!("daemon off; pid {prefix}/pid; error_log stderr;");
                command.arg("-p").arg(folder.path()).args(["-e", "stderr", "-c", file, "-g", &globals]);
                command
            }
            BalancerKind::Haproxy => {
                let mut command = Command::new(binary::find("haproxy", "haproxy")?);
                command.args(["-db", "-f", file]);
                command
            }
        };
        let mut process = Process::spawn(command, folder.path())?;
        poll(START_LIMIT, "the balancer", || {
            if let Some(status) = process.ended()? {
                return Err(io::Error::other(format!("{kind:?} ended with {status}:\n{}", output(folder.path()))));
            }
            Ok(TcpStream::connect(address).ok())
        })?;
        Ok(Self { address, _process: process, _folder: folder })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
