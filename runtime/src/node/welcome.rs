//! Prints the addresses at the start, and what to try there.
//!
//! Invariant: a node also serves if nobody can read its output.
use std::{
    fmt::Display,
    io::{Write, stdout},
    net::SocketAddr,
};

use tokio::net::TcpListener;

use super::StartError;
use crate::{
    config::Config,
    demo::{self, Demo},
};
use rollcall_store::Store;

fn address(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(StartError::at("a listener", "start again"))
}

fn say(line: impl Display) {
    drop(writeln!(stdout(), "{line}"));
}

/// Returns the demo if there is a development secret.
pub(super) fn demo(config: &Config, clients: &TcpListener) -> Result<Option<Demo>, StartError> {
    if config.keys.development.is_none() {
        return Ok(None);
    }
    let sources = config
        .keys
        .load()
        .map_err(StartError::at("keys", "make its folder, writable for this process, or set a key"))?;
    let origin = demo::origin(address(clients)?, config.tls.is_some());
    Ok(sources.hs256.map(|secret| Demo { secret, audience: sources.audiences.first().cloned(), origin }))
}

/// Prints the addresses and, with a development secret, what to try there.
pub(super) async fn print(
    demo: Option<&Demo>,
    (clients, operators, probes): (&TcpListener, &TcpListener, Option<&TcpListener>),
    store: &dyn Store,
) -> Result<(), StartError> {
    let admin = address(operators)?;
    say(format_args!("listening on {}", address(clients)?));
    say(format_args!("admin on {admin}"));
    if let Some(probes) = probes {
        say(format_args!("probes on {}", address(probes)?));
    }
    let host = if admin.ip().is_unspecified() { "localhost".to_owned() } else { admin.ip().to_string() };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    say(format_args!("console at http://{host}:{}/", admin.port()));
    if let Some(demo) = demo {
        demo::seed(store).await.map_err(StartError::at("the demo", "start again"))?;
        say(demo::welcome(demo));
    }
    Ok(())
}
