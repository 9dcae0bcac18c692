//! The trusted authorities and the proxies of this process's own requests.
use super::StartError;
use crate::http_client::egress::{Egress, EgressOptions};

/// Reads the authorities that are trusted.
///
/// # Errors
/// Returns an error if the file cannot be used.
pub fn egress(options: &EgressOptions) -> Result<Egress, StartError> {
    Egress::open(options)
        .map_err(StartError::at("ROLLCALL_CA_FILE", "name a PEM file of the authorities to be trusted"))
}
