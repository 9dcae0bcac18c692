//! Failpoints: steps of a gateway's code at which a test stops or breaks the gateway.

use std::fs;

use rollcall_loadtest::{Gateway, GatewayOptions};

use super::{SOON, until};

/// Options of a gateway whose failpoints can be armed.
pub(crate) fn breakable(options: &GatewayOptions) -> GatewayOptions {
    options.clone().env("CHAOS_FAILPOINT", "failpoint")
}

/// Arms a failpoint: the next time that the gateway reaches `step`, the process gets the signal of this name, or the
/// thread panics.
pub(crate) fn arm(gateway: &Gateway, step: &str, what: &str) {
    let folder = gateway.folder();
    // A rename replaces the file at once, so the gateway never reads half of it.
    fs::write(folder.join("failpoint.new"), format!("{step} {what}")).unwrap();
    fs::rename(folder.join("failpoint.new"), folder.join("failpoint")).unwrap();
}

/// Waits until the gateway has reached the armed step.
pub(crate) async fn struck(gateway: &Gateway) {
    let file = gateway.folder().join("failpoint.struck");
    until("the failpoint", SOON, async || file.exists(), |struck| *struck).await;
    fs::remove_file(file).unwrap();
}
