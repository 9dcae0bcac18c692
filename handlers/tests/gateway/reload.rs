//! PROTOCOL 7, SIGHUP: which settings a running node takes over, which need a restart, and that a faulty file changes
//! nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rollcall_loadtest::{Client, Gateway, GatewayOptions, token};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::common::{SOON, until};

const ROOM: &str = "9d6a1c55-0f0e-4a5c-8b35-3c6f5f0f4c02";
const PAGE: &str = "https://school.example";
const NEXT_SECRET: &str = "the next secret, which is long enough for HS256, too";

/// A gateway with a settings file, whose secret is in a file of its own.
struct Node {
    gateway: Gateway,
    files: tempfile::TempDir,
}

impl Node {
    fn start(settings: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        fs::write(files.path().join("secret"), token::SECRET).unwrap();
        write(files.path(), settings);
        let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall")).without("ROLLCALL_HS256_SECRET");
        let gateway = Gateway::start(options.env("ROLLCALL_CONFIG", files.path().join("rollcall.toml").display()));
        Self { gateway: gateway.unwrap(), files }
    }

    fn secret(&self) -> PathBuf {
        self.files.path().join("secret")
    }

    /// Writes the settings file, and waits until the node has read it with this outcome. Returns the lines that the
    /// node logged.
    async fn reads(&self, settings: &str, outcome: &str) -> String {
        write(self.files.path(), settings);
        let label = format!("outcome=\"{outcome}\"");
        let count = || self.gateway.metric("rollcall_reloads_total", &[&label]).unwrap();
        let (before, said) = (count(), self.gateway.output().len());
        self.gateway.hang_up().unwrap();
        until("the settings are read", SOON, async || count(), |count| *count > before).await;
        self.gateway.output().split_off(said)
    }

    /// Enters as a page of this origin. Returns the answer or the error.
    async fn enters(&self, origin: &str, token: &str) -> Result<(Client, Value), String> {
        let client = Client::connect_with(self.gateway.address(), "/ws", &[("origin", origin)]).await;
        let mut client = client.map_err(|error| error.to_string())?;
        let entered = client.connect_request(token, ROOM, "web").await.map_err(|error| error.to_string())?;
        Ok((client, entered))
    }
}

/// Writes the settings, and the names of the files of this node's own secret.
fn write(folder: &Path, settings: &str) {
    let secret = folder.join("secret");
    let text = format!("hs256-secret-file = {:?}\n{settings}", secret.display().to_string());
    fs::write(folder.join("rollcall.toml"), text).unwrap();
}

#[tokio::test]
async fn a_node_takes_over_keys_origins_limits_and_the_log_and_names_what_needs_a_restart() {
    let node = Node::start("lease = \"15s\"\nlog = \"warn\"\n");
    let own_page = format!("http://{}", node.gateway.address());
    let (mut alice, _) = node.enters(&own_page, &token::participant("alice")).await.unwrap();
    let next = token::hs256(NEXT_SECRET, &token::claims("bob", "participant"));
    assert!(node.enters(PAGE, &token::participant("bob")).await.is_err(), "the page is not listed");
    assert!(node.enters(&own_page, &next).await.is_err(), "the secret is not known");

    fs::write(node.secret(), NEXT_SECRET).unwrap();
    let settings = format!(
        "lease = \"14s\"\nlog = \"info\"\norigins = [\"{PAGE}\"]\nmax-message = 1024\nuser-sessions = 1\nevent-rate = 1\n\
         max-connections-per-ip = 3\nlimit-loopback = true\n"
    );
    node.reads(&settings, "done").await;
    let (mut bob, _) = node.enters(PAGE, &next).await.expect("both count from now on");
    assert!(node.enters(&own_page, &token::participant("carol")).await.is_err(), "the secret of before");

    // A connection that was open before the reload has the new limits.
    let large = json!({"state": {"text": "x".repeat(2000)}});
    let ended = alice.request("set_state", large).await;
    assert!(ended.is_err(), "{ended:?}");
    let mut refused = 0;
    for _ in 0..20 {
        let ack = bob.request("ping", json!({})).await.unwrap();
        refused += usize::from(ack["message"] == "too many requests");
    }
    assert!(refused >= 10, "{refused} of 20 at one a second and a burst of four");

    // The file is unchanged, but the node names again what needs a restart, because INFO is logged now.
    let said = node.reads(&settings, "done").await;
    assert!(said.contains("needs_restart=\"ROLLCALL_LEASE\""), "{said}");
    let said = node.reads("lease = \"15s\"\nlog = \"info\"\n", "done").await;
    for name in
        ["ROLLCALL_ORIGINS", "ROLLCALL_MAX_MESSAGE", "ROLLCALL_USER_SESSIONS", "ROLLCALL_MAX_CONNECTIONS_PER_IP"]
    {
        assert!(said.contains(name), "{name}: {said}");
    }
    assert!(said.contains("needs_restart=\"nothing\""), "{said}");
}

#[tokio::test]
async fn a_faulty_file_changes_nothing_and_no_reload_drains() {
    let node = Node::start("");
    let own_page = format!("http://{}", node.gateway.address());
    let (mut alice, _) = node.enters(&own_page, &token::participant("alice")).await.unwrap();
    fs::write(node.secret(), NEXT_SECRET).unwrap();
    let said = node.reads(&format!("origins = [\"{PAGE}\"]\nmax-mesage = 1\nlease = \"ten\"\n"), "faulty").await;
    for fault in ["line 3: max-mesage: is not known", "line 4: \"ten\" is not a duration", "nothing has changed"] {
        assert!(said.contains(fault), "{fault}: {said}");
    }
    assert!(node.enters(PAGE, &token::participant("bob")).await.is_err());
    node.enters(&own_page, &token::participant("bob")).await.expect("the secret of before still counts");
    assert_eq!(alice.request("ping", json!({})).await.unwrap()["status"], "SUCCESS");
}

#[tokio::test]
async fn a_signal_while_the_node_starts_does_not_end_it() {
    // A database that accepts, and says nothing.
    let database = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = GatewayOptions::new(env!("CARGO_BIN_EXE_rollcall"))
        .env("DATABASE_URL", format!("postgres://me@{}/x", database.local_addr().unwrap()))
        .env("ROLLCALL_LISTEN", "127.0.0.1:0")
        .env("ROLLCALL_ADMIN_LISTEN", "127.0.0.1:0");
    let mut gateway = options.command().spawn().unwrap();
    let _asked = timeout(SOON, database.accept()).await.unwrap().unwrap();
    assert!(Command::new("kill").arg("-HUP").arg(gateway.id().to_string()).status().unwrap().success());
    // It ends because the database does not answer.
    let ended = until("the end", SOON, async || gateway.try_wait().unwrap(), Option::is_some).await;
    assert_eq!(ended.unwrap().code(), Some(1), "{ended:?}");
}
