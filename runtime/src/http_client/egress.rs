//! How requests leave this process: whom they trust, and through which proxy they go.
//!
//! Invariant: this machine's own addresses are never asked through a proxy.
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

/// Names and networks of this machine, which another one's proxy would take for its own.
const THIS_MACHINE: &str = "localhost,127.0.0.0/8,::1";

/// The settings.
#[derive(Clone, Debug, Default)]
pub struct EgressOptions {
    /// PEM file of authorities that are trusted besides the machine's.
    pub ca_file: Option<PathBuf>,
    /// The proxy of https addresses; may hold a password.
    pub https_proxy: Option<Secret>,
    /// The proxy of http addresses; may hold a password.
    pub http_proxy: Option<Secret>,
    /// Names and networks that are asked without a proxy, separated by commas; `*`: all.
    pub no_proxy: String,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Egress {
    connector: Connector,
    proxies: Arc<Matcher>,
}

impl Egress {
    /// Reads the authorities. Where the machine has none and no file is named, https addresses cannot be asked.
    ///
    /// # Errors
    /// [`TlsError`], for a file that cannot be used.
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
        // A proxy may want TLS itself.
        let to_proxy = HttpsConnector::from((tcp, Arc::clone(&config)));
        Self { connector: (ProxyConnector::new(to_proxy, Arc::clone(&proxies)), config).into(), proxies }
    }

    /// Trusts nobody, and knows no proxy.
    #[cfg(test)]
    pub(crate) fn direct() -> Self {
        Self::new(RootCertStore::empty(), Matcher::builder().build())
    }

    pub(super) fn connector(&self) -> Connector {
        self.connector.clone()
    }

    /// What the proxy of this http address wants to see in each request; a tunnel shows it when it begins.
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
