//! Settings of the gateway's own requests: the trusted authorities, and the proxies.
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

/// Reads a proxy's address as curl does: without a scheme it is `http`.
fn proxy(text: &str) -> Result<Secret, String> {
    // A second `@`, or one after the host, belongs to the password. Otherwise a part of the password would be taken for
    // the host and shown.
    let has_host = |uri: &Uri| {
        let credentials = uri.authority().map_or(0, |authority| authority.as_str().matches('@').count());
        uri.host().is_some() && credentials < 2 && credentials == text.matches('@').count()
    };
    match text.parse::<Uri>() {
        Ok(uri) if matches!(uri.scheme_str(), None | Some("http" | "https")) && has_host(&uri) => Ok(Secret::new(text)),
        // The error does not repeat the text, which may contain a password.
        _ => {
            Err("write http://USER:PASSWORD@HOST:PORT, with special characters of the password as %XX; other kinds of \
                  proxies are not supported"
                .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_whose_password_would_be_taken_for_its_host_is_refused() {
        for good in ["http://proxy:3128", "proxy:3128", "http://me:p%40ss@proxy:3128/", "https://me@proxy"] {
            assert!(proxy(good).is_ok(), "{good}");
        }
        for bad in
            ["http://me:hun@ter2@proxy:1", "http://me:1/hunter2@proxy", "http://me:1?hunter2@proxy", "socks5://p"]
        {
            let problem = proxy(bad).unwrap_err();
            assert!(problem.contains("%XX") && !problem.contains("ter2"), "{problem}");
        }
    }
}
