//! nginx or Caddy, ending TLS before one node, with the examples of `runtime/deploy/proxies`.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::balancer::{listening, nginx};
use super::{Process, binary, free_port, private_folder};

/// The proxy to start.
#[derive(Debug, Clone, Copy)]
pub enum TlsProxyKind {
    /// nginx.
    Nginx,
    /// Caddy.
    Caddy,
}

/// A running proxy. It ends when it is dropped.
pub struct TlsProxy {
    address: SocketAddr,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl TlsProxy {
    /// Starts a proxy with its example configuration, in which this node replaces the example's. `cert.pem` and
    /// `key.pem` for `localhost` are in the folder `certificate`.
    ///
    /// # Errors
    /// Returns an error if the proxy is not installed or does not start.
    pub fn start(kind: TlsProxyKind, node: SocketAddr, certificate: &Path) -> io::Result<Self> {
        let folder = private_folder("tls-proxy")?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let (cert, key) = (certificate.join("cert.pem"), certificate.join("key.pem"));
        let node = node.to_string();
        let command = match kind {
            TlsProxyKind::Nginx => {
                let example = include_str!("../../../runtime/deploy/proxies/nginx.conf");
                let live = "/etc/letsencrypt/live/rollcall.example";
                let config = replaced(
                    example,
                    &[
                        ("127.0.0.1:8080;", &format!("{node};")),
                        ("listen 80;", &format!("listen 127.0.0.1:{};", free_port()?)),
                        ("listen 443 ssl;", &format!("listen {address} ssl;")),
                        (&format!("{live}/fullchain.pem"), &cert.display().to_string()),
                        (&format!("{live}/privkey.pem"), &key.display().to_string()),
                    ],
                )?;
                fs::write(folder.path().join("nginx.conf"), config)?;
                nginx(folder.path(), "nginx.conf")?
            }
            TlsProxyKind::Caddy => {
                let example = include_str!("../../../runtime/deploy/proxies/Caddyfile");
                let site = format!(
                    "https://localhost:{} {{\n\tbind 127.0.0.1\n\ttls {} {}",
                    address.port(),
                    cert.display(),
                    key.display()
                );
                let config = replaced(
                    example,
                    &[
                        ("reverse_proxy 127.0.0.1:8080", &format!("reverse_proxy {node}")),
                        ("\nrollcall.example {", &format!("\n{site}")),
                    ],
                )?;
                let options = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n";
                fs::write(folder.path().join("Caddyfile"), format!("{options}{config}"))?;
                let mut command = Command::new(binary::find("caddy", "caddy")?);
                command.args(["run", "--adapter", "caddyfile", "--config", "Caddyfile"]);
                command
                    .env("HOME", folder.path())
                    .env("XDG_DATA_HOME", folder.path())
                    .env("XDG_CONFIG_HOME", folder.path());
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

/// Replaces each of these texts in the example. Returns an error if the example does not have one of them.
fn replaced(example: &str, places: &[(&str, &str)]) -> io::Result<String> {
    places.iter().try_fold(example.to_owned(), |config, (from, to)| {
        if config.contains(from) {
            Ok(config.replace(from, to))
        } else {
            Err(io::Error::other(format!("the example has no {from:?}")))
        }
    })
}
