//! Creates the keyring of a node with the keys that can be loaded at the start.
use std::sync::Arc;

use tracing::warn;

use super::StartError;
use crate::{
    auth::{Keyring, Location},
    config::Config,
    http_client::egress::Egress,
};

/// Loads the keys.
///
/// # Errors
/// Returns a [`StartError`] if a file cannot be read. If an issuer's server is away, its keys are loaded later.
pub(super) async fn keyring(config: &Config, egress: &Egress) -> Result<Arc<Keyring>, StartError> {
    let sources = config
        .keys
        .load()
        .map_err(StartError::at("keys", "make its folder, writable for this process, or set a key"))?;
    let keyring = Arc::new(Keyring::new(sources, egress));
    for error in keyring.load().await {
        if matches!(error.location, Location::File(_)) {
            return Err(StartError::at("ROLLCALL_JWKS", "name a file that can be read")(error));
        }
        warn!(%error, "clients with tokens of this issuer are told to try again later until its keys are loaded");
    }
    Ok(keyring)
}
