//! What an operator chooses: the servers, how this process shows who it is, and the stream.
use std::time::Duration;

use rollcall_base::{BackendUrl, RotatingSecret, tls::ClientTls};

/// The stream's name where no other is given.
pub const DEFAULT_STREAM: &str = "CLASSROOM";
/// How long the server remembers message ids. The stream's age cannot be shorter.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(2 * 60);
/// The default of the largest body, in bytes.
const MAX_BODY: usize = 128 * 1024;

/// How NATS is reached, and what is used there.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// The servers, perhaps with a user and password, or a token.
    pub url: BackendUrl,
    /// The text of a `.creds` file, or an nkey seed.
    pub credentials: Option<RotatingSecret>,
    /// Whom this process trusts, and its certificate; both where the server speaks TLS.
    pub tls: ClientTls,
    /// Whether TLS begins before the server has said anything (`handshake_first`).
    pub tls_first: bool,
    /// The domain of the JetStream that has the stream; none: that of the server itself.
    pub domain: Option<String>,
    /// The stream.
    pub stream: StreamOptions,
    /// Events with a larger body may be dropped, in bytes.
    pub max_body: usize,
}

/// The stream's settings. All but the name count only where there is no stream yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Its name.
    pub name: String,
    /// How many servers hold it.
    pub replicas: usize,
    /// Events that are older are forgotten.
    pub max_age: Duration,
    /// With more bytes the oldest events are forgotten; none: no limit.
    pub max_bytes: Option<u64>,
    /// Whether it is kept in the servers' memory, not in files.
    pub in_memory: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        let name = DEFAULT_STREAM.to_owned();
        Self { name, replicas: 1, max_age: Duration::from_secs(60 * 60), max_bytes: None, in_memory: false }
    }
}

impl NatsOptions {
    /// These servers, with the defaults.
    #[must_use]
    pub fn new(url: impl Into<BackendUrl>) -> Self {
        Self {
            url: url.into(),
            credentials: None,
            tls: ClientTls::default(),
            tls_first: false,
            domain: None,
            stream: StreamOptions::default(),
            max_body: MAX_BODY,
        }
    }

    /// The subject of a request about the stream, as `STREAM.INFO`.
    pub(super) fn api(&self, request: &str) -> String {
        let stream = &self.stream.name;
        match &self.domain {
            Some(domain) => format!("$JS.{domain}.API.{request}.{stream}"),
            None => format!("$JS.API.{request}.{stream}"),
        }
    }
}
