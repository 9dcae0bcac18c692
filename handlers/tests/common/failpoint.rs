//! Steps of a gateway's code at which a test stops or breaks it.

use std::fs;

use rollcall_loadtest::{Gateway, GatewayOptions};

use super::{SOON, until};

/// A gateway that can be armed.
pub(crate) fn breakable(options: &GatewayOptions) -> GatewayOptions {
    options.clone().env("CHAOS_FAILPOINT", "failpoint")
}

/// The next time that the gateway reaches the step, it gets the signal of this name, or panics.
pub(crate) fn arm(gateway: &Gateway, step: &str, what: &str) {
    let folder = gateway.folder();
    // In one step, so that no half of it is read.
    fs::write(folder.join("failpoint.new"), format!("{step} {what}")).unwrap();
    fs::rename(folder.join("failpoint.new"), folder.join("failpoint")).unwrap();
}

/// Waits until the armed step was reached.
pub(crate) async fn struck(gateway: &Gateway) {
    let file = gateway.folder().join("failpoint.struck");
    until("the failpoint", SOON, async || file.exists(), |struck| *struck).await;
    fs::remove_file(file).unwrap();
}
