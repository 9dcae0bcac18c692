//! The certificates that this process's own requests trust, and the proxies that they use.
//!
//! Invariant: a request to this machine never goes through a proxy.
use std::{fmt, path::PathBuf, sync::Arc};

use hyper::{Uri, header::HeaderValue};
use hyper_rustls::HttpsConnector;
use hyper_util::client::{legacy::connect::HttpConnector, proxy::matcher::Matcher};
use rollcall_base::{
    Secret,
    tls::{self, ClientTls, TlsError},
};
use rustls::RootCertStore;

use super::proxy::ProxyConnector;

/// The connector of every client.
pub(super) type Connector = HttpsConnector<ProxyConnector>;

/// The names and networks of this machine. A proxy on another machine would take them for its own.
const THIS_MACHINE: &str = "localhost,127.0.0.0/8,::1";

/// The settings.
#[derive(Clone, Debug, Default)]
pub struct EgressOptions {
    /// The PEM file of authorities that are trusted besides the machine's authorities.
    pub ca_file: Option<PathBuf>,
    /// The proxy for https addresses. It may contain a password.
    pub https_proxy: Option<Secret>,
    /// The proxy for http addresses. It may contain a password.
    pub http_proxy: Option<Secret>,
    /// The names and networks that are asked without a proxy, separated by commas. `*` means all.
    pub no_proxy: String,
}

/// The trusted authorities and the proxies. An egress is cheap to clone.
#[derive(Clone)]
pub struct Egress {
    connector: Connector,
    proxies: Arc<Matcher>,
}

impl Egress {
    /// Reads the authorities. If the machine has none and no file is named, requests to https addresses fail.
    ///
    /// # Errors
    /// Returns a [`TlsError`] if the file cannot be used.
    pub fn open(options: &EgressOptions) -> Result<Self, TlsError> {
        let trusted = ClientTls { ca_file: options.ca_file.clone(), ..ClientTls::default() };
        let roots = match trusted.roots() {
            Err(error @ TlsError::NoSystemRoots(_)) => {
                tracing::warn!(%error, "https addresses cannot be asked");
                RootCertStore::empty()
            }
            roots => roots?,
        };
        let proxy = |proxy: &Option<Secret>| proxy.as_ref().map_or("", Secret::reveal).to_owned();
        let proxies = Matcher::builder()
            .https(proxy(&options.https_proxy))
            .http(proxy(&options.http_proxy))
            .no(format!("{},{THIS_MACHINE}", options.no_proxy))
            .build();
        Ok(Self::new(roots, proxies))
    }

    fn new(roots: RootCertStore, proxies: Matcher) -> Self {
        let proxies = Arc::new(proxies);
        let config = Arc::new(tls::config(roots));
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // A proxy may itself require TLS.
        let to_proxy = HttpsConnector::from((tcp, Arc::clone(&config)));
        Self { connector: (ProxyConnector::new(to_proxy, Arc::clone(&proxies)), config).into(), proxies }
    }

    /// Creates an egress that trusts no authority and uses no proxy.
    #[cfg(test)]
    pub(crate) fn direct() -> Self {
        Self::new(RootCertStore::empty(), Matcher::builder().build())
    }

    pub(super) fn connector(&self) -> Connector {
        self.connector.clone()
    }

    /// Returns the credentials that the proxy of this http address requires in each request. A tunnel sends them when
    /// it begins.
    pub(super) fn proxy_authorization(&self, url: &Uri) -> Option<HeaderValue> {
        let plain = url.scheme_str() == Some("http");
        let proxy = plain.then(|| self.proxies.intercept(url)).flatten()?;
        proxy.basic_auth().cloned()
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("proxies", &self.proxies).finish_non_exhaustive()
    }
}
