//! `rollcall health` asks the gateway beside it, as a container's health check does in an image without a shell.
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hyper::Uri;

use super::CommandError;
use crate::{
    config::{Config, HealthArgs},
    http_client::{Client, egress::EgressOptions},
    node::{self, StartError},
};

/// This is longer than `/readyz` takes if a backend hangs.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Succeeds if the gateway answers with 200.
pub(super) async fn run(config: &Config, args: &HealthArgs) -> Result<(), CommandError> {
    let address = reachable(config.probe_listen.unwrap_or(config.admin_listen));
    let path = if args.ready { "readyz" } else { "healthz" };
    let url = format!("http://{address}/{path}");
    let failed = |why: String| {
        let hint = "give this command the gateway's ROLLCALL_PROBE_LISTEN or ROLLCALL_ADMIN_LISTEN, and see its log";
        StartError::at(&url, hint)(why)
    };
    let uri: Uri = url.parse().map_err(|error| failed(format!("{error}")))?;
    // No proxy is used, because the gateway is on this machine whatever its address is.
    let client = Client::new(&node::egress(&EgressOptions::default())?).timeout(TIMEOUT);
    client.get(uri, MAX_ANSWER).await.map_err(|error| failed(error.to_string()))?;
    Ok(())
}

/// Returns the address to ask. A gateway that listens on every address is asked on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
