//! What an operator chooses for NATS: the servers, the credentials and the stream.
use std::time::Duration;

use rollcall_base::{BackendUrl, RotatingSecret, tls::ClientTls};

/// The stream's name if the settings give no other.
pub const DEFAULT_STREAM: &str = "CLASSROOM";
/// How long the server remembers message ids. The stream's maximum age cannot be shorter.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(2 * 60);
/// The default for the largest body, in bytes.
const MAX_BODY: usize = 128 * 1024;

/// How NATS is reached, and which stream is used.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// The servers, with or without a user and password, or a token.
    pub url: BackendUrl,
    /// The text of a `.creds` file, or an nkey seed.
    pub credentials: Option<RotatingSecret>,
    /// The trusted authorities and this process's certificate, for servers that use TLS.
    pub tls: ClientTls,
    /// Whether TLS begins before the server sends its INFO (`handshake_first`).
    pub tls_first: bool,
    /// The domain of the JetStream that has the stream. Without it, the server's own JetStream is used.
    pub domain: Option<String>,
    /// The stream.
    pub stream: StreamOptions,
    /// The largest body in bytes. Events with a larger body may be dropped.
    pub max_body: usize,
}

/// The stream's settings. Only the name counts if the stream exists already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// The stream's name.
    pub name: String,
    /// How many servers hold the stream.
    pub replicas: usize,
    /// The highest age of an event. Older events are forgotten.
    pub max_age: Duration,
    /// The maximum number of bytes of the stream. Above it the oldest events are forgotten. `None` means no limit.
    pub max_bytes: Option<u64>,
    /// Whether the stream is kept in the servers' memory instead of files.
    pub in_memory: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        let name = DEFAULT_STREAM.to_owned();
        Self { name, replicas: 1, max_age: Duration::from_secs(60 * 60), max_bytes: None, in_memory: false }
    }
}

impl NatsOptions {
    /// Returns the default options for these servers.
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

    /// Returns the subject of a request about the stream, such as `STREAM.INFO`.
    pub(super) fn api(&self, request: &str) -> String {
        let stream = &self.stream.name;
        match &self.domain {
            Some(domain) => format!("$JS.{domain}.API.{request}.{stream}"),
            None => format!("$JS.API.{request}.{stream}"),
        }
    }
}
