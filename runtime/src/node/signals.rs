//! The signals that a node handles. If a signal has a handler, it no longer ends the process by itself.
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::StartError;

/// SIGTERM and SIGINT, which end the node.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// Returns an error if the system refuses.
    pub fn install() -> Result<Self, StartError> {
        Ok(Self { terminate: handler(SignalKind::terminate())?, interrupt: handler(SignalKind::interrupt())? })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Returns the signal SIGHUP, at which the settings are read again.
///
/// # Errors
/// Returns an error if the system refuses.
pub fn hangups() -> Result<Signal, StartError> {
    handler(SignalKind::hangup())
}

fn handler(kind: SignalKind) -> Result<Signal, StartError> {
    signal(kind).map_err(StartError::at("the signal handlers", "a bug: please report it"))
}
