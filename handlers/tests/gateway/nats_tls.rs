//! NATS behind TLS, with credentials: every connection of the gateway is encrypted and accepted.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::common::SOON;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rollcall_loadtest::GatewayOptions;

/// A NATS server that accepts only TLS.
struct Private {
    port: u16,
    child: Child,
}

impl Private {
    fn start(folder: &Path) -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), signing_key.serialize_pem()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("nats-server");
        command.current_dir(folder).args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream"]);
        command.args(["--store_dir", "store", "--user", "alice", "--pass", "canary"]);
        command.args(["--tls", "--tlscert", "cert.pem", "--tlskey", "key.pem"]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { port, child };
        let deadline = Instant::now() + SOON;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the server listens");
            std::thread::yield_now();
        }
        server
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the line of `rollcall check` for NATS, with a setting that names the trusted certificates.
fn check(folder: &Path, url: &str, setting: Option<&'static str>) -> String {
    let mut options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")).env("NATS_URL", url);
    if let Some(setting) = setting {
        options = options.env(setting, folder.join("cert.pem").display());
    }
    let output = options.command().arg("check").current_dir(folder).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().find(|line| line.contains(" bus ")).unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[test]
fn a_server_behind_tls_is_used_if_its_certificate_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Private::start(folder.path());
    for (scheme, setting) in [("tls", "SSL_CERT_FILE"), ("nats", "SSL_CERT_FILE"), ("nats", "ROLLCALL_NATS_CA_FILE")] {
        let url = format!("{scheme}://alice:canary@localhost:{}", server.port);
        let deadline = Instant::now() + 3 * SOON;
        loop {
            let line = check(folder.path(), &url, Some(setting));
            if line.starts_with("ok") {
                break;
            }
            // While many tests run at once, a handshake may take longer than the gateway's limit for a connection, so
            // the check is repeated.
            assert!(Instant::now() < deadline, "{line}");
        }
        let line = check(folder.path(), &url, None);
        assert!(
            line.starts_with("FAIL") && line.contains("ROLLCALL_NATS_CA_FILE") && !line.contains("canary"),
            "{line}"
        );
    }
}
