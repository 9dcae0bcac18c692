//! Which pages and apps may open a WebSocket.
use std::net::IpAddr;

use hyper::header::{HOST, HeaderMap, ORIGIN};

/// The origins that may connect. A request without `Origin` is always allowed, because clients that are not browsers
/// send none.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Origins {
    /// Only pages whose host is the request's own `Host`.
    #[default]
    SameHost,
    /// Pages of the same host, and these origins, such as `https://school.example.org` or `capacitor://localhost`.
    Listed(Vec<String>),
    /// All origins.
    Any,
}

impl Origins {
    pub(crate) fn allow(&self, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        let Some(origin) = origins.next() else { return true };
        if *self == Self::Any {
            return true;
        }
        let Ok(origin) = origin.to_str() else { return false };
        if origins.next().is_some() {
            return false;
        }
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        if let (Some(page), Some(host)) = (page(origin), host)
            && !host.is_empty()
            && page.eq_ignore_ascii_case(host)
        {
            return true;
        }
        matches!(self, Self::Listed(list) if list.iter().any(|listed| listed.eq_ignore_ascii_case(origin)))
    }
}

/// Returns whether the request has exactly one origin, which is an HTTP page of a loopback address, on any port.
pub(crate) fn is_loopback_page(headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else { return false };
    let Some(page) = origin.to_str().ok().and_then(page) else { return false };
    let (host, port) = match page.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (page, "0"),
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_loopback = address.parse::<IpAddr>().map_or(host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback());
    is_loopback && port.parse::<u16>().is_ok()
}

/// Returns the host and port of an HTTP page's origin.
fn page(origin: &str) -> Option<&str> {
    origin.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https")).map(|(_, page)| page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_pages_are_on_any_port_of_loopback() {
        let is_loopback = |origin: &str| is_loopback_page(&[(ORIGIN, origin.parse().unwrap())].into_iter().collect());
        for origin in [
            "http://localhost:5173",
            "http://localhost",
            "https://127.0.0.1:3000",
            "http://127.8.8.8",
            "http://[::1]:1",
            "http://[::1]",
        ] {
            assert!(is_loopback(origin), "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://localhost.evil.example",
            "http://localhost:x",
            "http://evil.example:80",
            "http://localhost@evil.example",
            "http://evil.example/localhost",
            "http://10.0.0.1:3000",
            "capacitor://localhost",
            "http://[::1",
            "http://::1]:80",
        ] {
            assert!(!is_loopback(origin), "{origin}");
        }
    }
}
