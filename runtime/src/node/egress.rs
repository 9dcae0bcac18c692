//! How this process's requests leave it.
use super::StartError;
use crate::http_client::egress::{Egress, EgressOptions};

/// Reads the authorities that are trusted.
///
/// # Errors
/// For a file that cannot be used.
pub fn egress(options: &EgressOptions) -> Result<Egress, StartError> {
    Egress::open(options)
        .map_err(StartError::at("ROLLCALL_CA_FILE", "name a PEM file of the authorities to be trusted"))
}
