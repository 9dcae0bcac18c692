//! Explains why a connection failed, in a line that says what to change if that is known.
use std::error::Error;

use rollcall_base::{redacted, tls_failure};

use super::proxy::ProxyError;

/// Returns the root cause. Hyper's own text, "client error (Connect)", does not name the cause.
pub(super) fn explain(error: &(dyn Error + 'static)) -> String {
    let proxy = causes(error).find_map(|cause| cause.downcast_ref::<ProxyError>());
    if let Some(ProxyError { proxy, cause }) = proxy {
        let why = tls_failure::explain(&**cause).unwrap_or_else(|| innermost(&**cause));
        let advice = match why.contains("authorization required") {
            true => "write USER:PASSWORD@ before the proxy's host in HTTPS_PROXY or HTTP_PROXY",
            false => {
                "correct HTTPS_PROXY or HTTP_PROXY, let the proxy connect to this host, or name the host in NO_PROXY"
            }
        };
        return format!(
            "the proxy {}: {why}: {advice}",
            redacted(proxy.authority().map_or("", |place| place.as_str()))
        );
    }
    match tls_failure::explain(error) {
        Some(explained) => explained.replace("to the CA file", "to the file of ROLLCALL_CA_FILE"),
        None => innermost(error),
    }
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().map_or_else(String::new, ToString::to_string)
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}
