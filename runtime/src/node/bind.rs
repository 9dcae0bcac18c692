//! Listens on an address of the settings.
use std::{io::ErrorKind, net::SocketAddr};

use tokio::net::TcpListener;

use super::StartError;

/// Listens on the address that this setting gives.
///
/// # Errors
/// Returns an error if the system refuses.
pub(super) fn bind(address: SocketAddr, setting: &'static str) -> Result<TcpListener, StartError> {
    rollcall_websocket::bind(address).map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::PermissionDenied => "a port from 1024 on, or give the process CAP_NET_BIND_SERVICE",
            ErrorKind::AddrNotAvailable => "an address of this machine, or 0.0.0.0 for all",
            _ => "a free address and port",
        };
        StartError::at(format!("the listener at {address}"), format!("set {setting} to {hint}"))(error)
    })
}
