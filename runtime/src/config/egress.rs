//! How requests of ours leave: the authorities that are trusted, and proxies.
use std::path::PathBuf;

use hyper::Uri;

use super::{
    names::{self, Setting},
    source::Source,
};
use crate::http_client::egress::EgressOptions;
use rollcall_base::Secret;

pub(super) fn read(source: &mut Source<'_>) -> EgressOptions {
    let ca_file = source.optional(&names::CA_FILE, |text| Ok(PathBuf::from(text)));
    let mut proxy = |setting: &Setting| source.optional(setting, proxy);
    let (https_proxy, http_proxy) = (proxy(&names::HTTPS_PROXY), proxy(&names::HTTP_PROXY));
    let no_proxy = source.optional(&names::NO_PROXY, |text| Ok(text.to_owned())).unwrap_or_default();
    EgressOptions { ca_file, https_proxy, http_proxy, no_proxy }
}

/// As curl reads it: without a scheme it is `http`.
fn proxy(text: &str) -> Result<Secret, String> {
    let known = |uri: &Uri| matches!(uri.scheme_str(), None | Some("http" | "https")) && uri.host().is_some();
    match text.parse::<Uri>() {
        Ok(uri) if known(&uri) => Ok(Secret::new(text)),
        // The text may hold a password.
        _ => Err("write http://USER:PASSWORD@HOST:PORT; other kinds of proxies are not supported".into()),
    }
}
