//! Access to the operators' address: web pages of other origins are refused, and `/api` needs the token.
//!
//! If there is a token, the console's files are served to every caller, because they contain no data and a browser does
//! not show them in a frame.
//!
//! Invariant: a page of another origin is refused because of the headers that its browser sends. These headers do not
//! reveal a page whose name resolves to this address (DNS rebinding). So a request without a token is answered only if
//! its Host is a name that no attacker's domain can have: an IP address, `localhost`, or a configured name.
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use hyper::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, HOST, HeaderValue, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE},
};
use subtle::ConstantTimeEq;

use super::{pages::is_file, reply::HttpError, tries::Tries};
use rollcall_base::Secret;

/// What a request for a path needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The request needs nothing, because the path is a file of the console.
    Page,
    /// The request needs only a permitted Host, because probes and Prometheus ask for the path.
    Probe,
    /// The request needs the token if one is configured.
    Api,
}

impl Need {
    pub(super) fn of(path: &str) -> Self {
        match path {
            _ if is_file(path) => Self::Page,
            _ if path.split('/').nth(1) == Some("api") => Self::Api,
            _ => Self::Probe,
        }
    }
}

/// The caller of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// A caller with the token.
    Token,
    /// A caller with the token that permits only reading.
    ReadToken,
    /// A probe, or a caller on this machine if no token is required.
    NoToken,
}

impl Caller {
    /// Returns the caller's name for the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Token => "admin token",
            Self::ReadToken => "read token",
            Self::NoToken => "no token",
        }
    }
}

/// The caller of a request, and its address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) caller: Caller,
    /// `None` in tests without a connection.
    pub(super) address: Option<SocketAddr>,
}

/// The rules for a request to be answered.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The token that `/api` requires. `None` only on a loopback address.
    pub token: Option<Secret>,
    /// The token that permits only reading.
    pub read_token: Option<Secret>,
    /// The names, in lower case, that a request without a token may have as Host, besides IP addresses and `localhost`.
    pub hosts: Vec<String>,
}

impl Access {
    /// Checks a request for a path with this need, from an address that may have sent wrong tokens before.
    ///
    /// # Errors
    /// Returns an error that says what to change if the request is refused.
    pub(super) fn admit(&self, headers: &HeaderMap, need: Need, tries: Tries<'_>) -> Result<Caller, HttpError> {
        if need == Need::Page && self.token.is_some() {
            return Ok(Caller::NoToken);
        }
        if is_foreign_page(headers) {
            return Err(HttpError::new(StatusCode::FORBIDDEN, "not for web pages of other origins"));
        }
        if self.token.is_some() && headers.contains_key(AUTHORIZATION) {
            if let Some(caller) = self.bearer(headers) {
                return Ok(caller);
            }
            if !tries.use_one() && need == Need::Api {
                let detail = "too many wrong tokens from this address: the right one is taken at any time";
                let late = HttpError::new(StatusCode::TOO_MANY_REQUESTS, detail);
                return Err(HttpError { header: Some((RETRY_AFTER, "6")), ..late });
            }
        }
        if need == Need::Api && self.token.is_some() {
            let asks = HttpError::new(StatusCode::UNAUTHORIZED, "send Authorization: Bearer with ROLLCALL_ADMIN_TOKEN");
            return Err(HttpError { header: Some((WWW_AUTHENTICATE, "Bearer")), ..asks });
        }
        // A request of HTTP/1.0 may have no Host. Browsers always send one.
        if headers.get_all(HOST).iter().all(|host| self.is_ours(host)) {
            return Ok(Caller::NoToken);
        }
        let detail =
            "this Host is not answered: use an IP address or localhost, or list the name in ROLLCALL_ADMIN_HOSTS";
        Err(HttpError::new(StatusCode::FORBIDDEN, detail))
    }

    /// Returns the owner of the token in the request. The request's token is always compared with both tokens, and each
    /// time in constant time.
    fn bearer(&self, headers: &HeaderMap) -> Option<Caller> {
        let (scheme, given) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
        let given = Some(given).filter(|_| scheme.eq_ignore_ascii_case(b"bearer "))?;
        let [admin, read] = [&self.token, &self.read_token].map(|token| {
            let token = token.as_ref().map(|token| token.reveal().as_bytes());
            token.is_some_and(|token| given.ct_eq(token).into())
        });
        admin.then_some(Caller::Token).or(read.then_some(Caller::ReadToken))
    }

    fn is_ours(&self, host: &HeaderValue) -> bool {
        let Ok(host) = host.to_str() else { return false };
        if let Some(rest) = host.strip_prefix('[') {
            return rest.split_once(']').is_some_and(|(address, _)| address.parse::<Ipv6Addr>().is_ok());
        }
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        name == "localhost" || name.parse::<Ipv4Addr>().is_ok() || self.hosts.contains(&name)
    }
}

/// Returns whether the headers name another origin. A browser sets these headers, and a page cannot change them.
fn is_foreign_page(headers: &HeaderMap) -> bool {
    let of_another_site = |site: &HeaderValue| !["same-origin", "none"].iter().any(|known| site == known);
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    let of_another_origin = |origin: &HeaderValue| {
        let origin = origin.as_bytes();
        let own = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
        !own.zip(host).is_some_and(|(own, host)| own.eq_ignore_ascii_case(host))
    };
    headers.get_all("sec-fetch-site").iter().any(of_another_site)
        || headers.get_all(ORIGIN).iter().any(of_another_origin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::tries::FailedTries;

    fn headers<const N: usize>(pairs: [(&'static str, &'static str); N]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    fn refused<const N: usize>(access: &Access, need: Need, pairs: [(&'static str, &'static str); N]) -> Option<u16> {
        access
            .admit(&headers(pairs), need, FailedTries::default().of(None))
            .err()
            .map(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn without_a_token_only_names_that_no_attackers_domain_can_have_are_answered() {
        let access = Access { token: None, read_token: None, hosts: vec!["rollcall.svc".to_owned()] };
        for need in [Need::Api, Need::Probe, Need::Page] {
            let named = |host| refused(&access, need, [("host", host)]);
            for ours in ["127.0.0.1:9090", "10.1.2.3", "localhost", "LocalHost:1", "[::1]:9090", "[fd00::1]"] {
                assert_eq!(named(ours), None, "{ours}");
            }
            assert_eq!(
                (named("Rollcall.svc:9090"), named("rollcall.svc."), refused(&access, need, [])),
                (None, None, None)
            );
            for other in
                ["evil.example", "evil.example:9090", "127.0.0.1.evil.example", "rollcall:9090", "", "[x]", "::1"]
            {
                assert_eq!(named(other), Some(403), "{other}");
            }
            assert_eq!(refused(&access, need, [("host", "localhost"), ("host", "evil.example")]), Some(403));
        }
    }

    #[test]
    fn a_page_of_another_origin_is_refused_whatever_it_brings() {
        let secret = || Some(Secret::new("hunter2"));
        for token in [None, secret()] {
            let access = Access { token, read_token: None, hosts: Vec::new() };
            let asks = |name, value| {
                let pairs = [("host", "127.0.0.1:9090"), ("authorization", "Bearer hunter2"), (name, value)];
                refused(&access, Need::Api, pairs)
            };
            for value in ["cross-site", "same-site", "", "None"] {
                assert_eq!(asks("sec-fetch-site", value), Some(403), "{value}");
            }
            for value in ["https://evil.example", "null", "http://127.0.0.1:8080", "http://127.0.0.1", ""] {
                assert_eq!(asks("origin", value), Some(403), "{value}");
            }
            assert_eq!((asks("sec-fetch-site", "same-origin"), asks("sec-fetch-site", "none")), (None, None));
            assert_eq!(
                (asks("origin", "http://127.0.0.1:9090"), asks("origin", "https://127.0.0.1:9090")),
                (None, None)
            );
        }
    }

    #[test]
    fn with_a_token_the_probes_need_it_only_under_a_name() {
        let access =
            Access { token: Some(Secret::new("hunter2")), read_token: None, hosts: vec!["scraped.example".to_owned()] };
        let bearing = |host| [("host", host), ("authorization", "Bearer hunter2")];
        assert_eq!(refused(&access, Need::Probe, [("host", "10.1.2.3:9090")]), None, "a kubelet's probe");
        assert_eq!(refused(&access, Need::Probe, [("host", "scraped.example:9090")]), None);
        assert_eq!(refused(&access, Need::Probe, [("host", "evil.example")]), Some(403));
        assert_eq!(refused(&access, Need::Probe, bearing("any.example")), None);
        assert_eq!(refused(&access, Need::Api, [("host", "10.1.2.3:9090")]), Some(401));
        assert_eq!(refused(&access, Need::Api, bearing("any.example")), None);
    }

    #[test]
    fn with_a_token_the_pages_are_for_everybody_and_without_one_not_for_other_pages() {
        let foreign = [("host", "rollcall.example"), ("sec-fetch-site", "cross-site")];
        let access = Access { token: Some(Secret::new("hunter2")), ..Access::default() };
        assert_eq!(refused(&access, Need::Page, foreign), None, "a link in a runbook");
        assert_eq!(refused(&Access::default(), Need::Page, foreign), Some(403));
        let needs = ["/", "/console/main.js", "/api/console/me", "/metrics", "/apis"].map(Need::of);
        assert_eq!(needs, [Need::Page, Need::Page, Need::Api, Need::Probe, Need::Probe]);
    }

    #[test]
    fn wrong_tokens_are_slowed_down_and_the_right_one_never() {
        let (token, read_token) = (Some(Secret::new("hunter2")), Some(Secret::new("hunter1")));
        let access = Access { token, read_token, ..Access::default() };
        let tries = FailedTries::default();
        let asks = |address: &str, token: &'static str, need| {
            let headers = headers([("host", "10.0.0.1"), ("authorization", token)]);
            let answer = access.admit(&headers, need, tries.of(Some(address.parse().unwrap())));
            answer.map_err(|refusal| refusal.status.as_u16())
        };
        let (wrong, right) = ("Bearer hunter3", "Bearer hunter2");
        for _ in 0..10 {
            assert_eq!(asks("192.0.2.1:1", wrong, Need::Api), Err(401));
        }
        assert_eq!(asks("192.0.2.1:2", wrong, Need::Api), Err(429));
        assert_eq!(asks("192.0.2.1:3", right, Need::Api), Ok(Caller::Token), "others behind one proxy go on");
        assert_eq!(asks("192.0.2.1:4", "Bearer hunter1", Need::Api), Ok(Caller::ReadToken));
        assert_eq!(asks("192.0.2.1:5", wrong, Need::Probe), Ok(Caller::NoToken), "as do probes");
        assert_eq!(asks("192.0.2.1:6", wrong, Need::Api), Err(429));
        assert_eq!(asks("192.0.2.2:1", wrong, Need::Api), Err(401), "another address has its own tries");
    }
}
